//! What an endpoint reports in its response: `videos=2, images=1`.

use http::HeaderValue;
use smallvec::SmallVec;

/// The amount of each of these resources. Parts that are malformed or name another resource count nothing; several
/// parts for one resource are added.
pub(super) fn read_amounts<'h, 'n>(
    values: impl IntoIterator<Item = &'h HeaderValue>,
    resources: impl ExactSizeIterator<Item = &'n str> + Clone,
) -> SmallVec<[u64; 4]> {
    let mut amounts: SmallVec<[u64; 4]> = SmallVec::from_elem(0, resources.len());
    let values = values.into_iter().filter_map(|value| value.to_str().ok());
    for part in values.flat_map(|value| value.split(',')).take(MAX_PARTS) {
        let Some((name, amount)) = part.split_once('=') else { continue };
        let (name, amount) = (name.trim(), amount.trim());
        let is_number = !amount.is_empty() && amount.bytes().all(|byte| byte.is_ascii_digit());
        let Some(index) = resources.clone().position(|resource| resource == name) else { continue };
        if is_number {
            // A number of more digits than 64 bits have is the largest amount.
            let amount: u64 = amount.parse().unwrap_or(MAX_AMOUNT);
            amounts[index] = amounts[index].saturating_add(amount).min(MAX_AMOUNT);
        }
    }
    amounts
}

/// The most parts that are read of a response.
const MAX_PARTS: usize = 256;
/// The largest amount of a response: more than any limit, and small enough to be added to counters many times.
pub(super) const MAX_AMOUNT: u64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_strictly() {
        for (headers, expected) in [
            (&["videos=2, images=1"][..], [2, 1]),
            (&["images = 3 ,videos= 4"], [4, 3]),
            (&["videos=1", "videos=2"], [3, 0]),
            (&["videos", "images=", "videos=-1", "videos=+1", "videos=1.5", "videos=1e3", "=2", ""], [0, 0]),
            (&["other=9,Videos=9"], [0, 0]),
            (&["videos=99999999999999999999999"], [MAX_AMOUNT, 0]),
            (&["videos=1099511627776,videos=1099511627776"], [MAX_AMOUNT, 0]),
        ] {
            let values: Vec<HeaderValue> = headers.iter().map(|text| HeaderValue::from_str(text).unwrap()).collect();
            let amounts = read_amounts(&values, ["videos", "images"].into_iter());
            assert_eq!(amounts.as_slice(), expected, "{headers:?}");
        }
        let long = HeaderValue::from_str(&"videos=1,".repeat(1000)).unwrap();
        assert_eq!(read_amounts([&long], ["videos"].into_iter()).as_slice(), [256]);
        let binary = HeaderValue::from_bytes(b"videos=1,\xff").unwrap();
        assert_eq!(read_amounts([&binary], ["videos"].into_iter()).as_slice(), [0]);
    }
}
