//! Numbers as header values. Small numbers are preformatted, so that rate-limit headers need no allocation.

use http::HeaderValue;

/// The decimal digits of a number.
pub fn header_value(number: u64) -> HeaderValue {
    let Some(index) = usize::try_from(number).ok().filter(|index| *index < PREFORMATTED) else {
        return HeaderValue::from(number);
    };
    let digits = &DIGITS[index * WIDTH..(index + 1) * WIDTH];
    let leading_zeros = match index {
        0..10 => 3,
        10..100 => 2,
        100..1000 => 1,
        _ => 0,
    };
    HeaderValue::from_static(std::str::from_utf8(&digits[leading_zeros..]).expect("digits are UTF-8"))
}

/// The preformatted numbers, ascending from 0, each with leading zeros.
static DIGITS: [u8; PREFORMATTED * WIDTH] = {
    let mut digits = [b'0'; PREFORMATTED * WIDTH];
    let mut number = 0;
    while number < PREFORMATTED {
        let (mut rest, mut position) = (number, (number + 1) * WIDTH);
        while rest > 0 {
            position -= 1;
            digits[position] += (rest % 10) as u8;
            rest /= 10;
        }
        number += 1;
    }
    digits
};

/// How many numbers are preformatted.
const PREFORMATTED: usize = 10_000;
/// The digits of a preformatted number, with leading zeros.
const WIDTH: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_without_leading_zeros() {
        for number in (0..12_000).chain([99_999, u64::MAX]) {
            assert_eq!(header_value(number), number.to_string());
        }
    }
}
