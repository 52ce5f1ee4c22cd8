//! The hexadecimal digits of numbers of fixed length, which identifiers of requests and traces consist of.

/// The digits of a number, in lower case. All eight of a half are computed at once, because formatting a number takes
/// several times as long.
pub fn hex_digits(number: u64) -> [u8; 16] {
    let upper = u128::from(digits_of((number >> 32) as u32)) << 64;
    (upper | u128::from(digits_of(number as u32))).to_be_bytes()
}

/// The eight digits, the first one in the upper byte.
fn digits_of(number: u32) -> u64 {
    // A half of a byte in each byte.
    let mut halves = u64::from(number);
    halves = (halves | halves << 16) & 0x0000_ffff_0000_ffff;
    halves = (halves | halves << 8) & 0x00ff_00ff_00ff_00ff;
    halves = (halves | halves << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in each byte whose digit is a letter: from 10 on, adding 6 carries into the upper half.
    let letters = ((halves + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    let distance = u64::from(b'a' - b'9' - 1);
    halves + 0x3030_3030_3030_3030 + letters * distance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 0x0123_4567_89ab_cdef, 0x9a0f_f0a9_0000_0001, u64::MAX] {
            assert_eq!(hex_digits(number), *format!("{number:016x}").as_bytes());
        }
    }
}
