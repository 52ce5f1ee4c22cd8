//! Request IDs: 32 hexadecimal digits, generated in blocks so that a request needs no allocation.

use std::cell::RefCell;

use bytes::Bytes;
use http::HeaderValue;

/// Generates the request IDs of one worker. They are random, but not meant to be secret.
#[derive(Debug, Default)]
pub(in crate::proxy) struct RequestIds {
    /// The digits of the IDs that are not used yet.
    block: RefCell<Bytes>,
}

impl RequestIds {
    pub(in crate::proxy) fn next(&self) -> HeaderValue {
        let mut block = self.block.borrow_mut();
        if block.is_empty() {
            *block = random_digits();
        }
        HeaderValue::from_maybe_shared(block.split_to(ID_LENGTH)).expect("hexadecimal digits form a valid header value")
    }
}

/// The digits of a block.
fn random_digits() -> Bytes {
    let mut digits = Vec::with_capacity(ID_LENGTH * BLOCK_IDS);
    for _ in 0..BLOCK_IDS {
        let number = fastrand::u128(..);
        for part in 0..4 {
            digits.extend_from_slice(&digits_of((number >> (32 * part)) as u32));
        }
    }
    Bytes::from(digits)
}

/// The eight digits of a number. All are computed at once, because formatting a number takes several times as long.
fn digits_of(number: u32) -> [u8; 8] {
    // A half of a byte in each byte.
    let mut halves = u64::from(number);
    halves = (halves | halves << 16) & 0x0000_ffff_0000_ffff;
    halves = (halves | halves << 8) & 0x00ff_00ff_00ff_00ff;
    halves = (halves | halves << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in each byte whose digit is a letter: from 10 on, adding 6 carries into the upper half.
    let letters = ((halves + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    let distance = u64::from(b'a' - b'9' - 1);
    (halves + 0x3030_3030_3030_3030 + letters * distance).to_be_bytes()
}

const ID_LENGTH: usize = 32;
/// IDs in a block: enough to make allocations rare, but not many, because each ID in use keeps its whole block alive.
const BLOCK_IDS: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 0x0123_4567, 0x89ab_cdef, 0x9a0f_f0a9, u32::MAX] {
            assert_eq!(digits_of(number), *format!("{number:08x}").as_bytes());
        }
    }

    #[test]
    fn request_ids_are_unique_hexadecimal() {
        let ids = RequestIds::default();
        let generated: HashSet<_> = (0..3 * BLOCK_IDS).map(|_| ids.next()).collect();
        assert_eq!(generated.len(), 3 * BLOCK_IDS);
        assert!(generated.iter().all(|id| id.len() == 32 && id.as_bytes().iter().all(u8::is_ascii_hexdigit)));
    }
}
