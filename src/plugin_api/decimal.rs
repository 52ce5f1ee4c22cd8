//! Numbers as header values. Small numbers are preformatted, so that rate-limit headers need no allocation.

use http::HeaderValue;

/// The decimal digits of a number.
pub fn header_value(number: u64) -> HeaderValue {
    let Some(at) = usize::try_from(number).ok().filter(|at| *at < PREFORMATTED) else {
        return HeaderValue::from(number);
    };
    let digits = &DIGITS[at * WIDTH..(at + 1) * WIDTH];
    let zeros = match at {
        0..10 => 3,
        10..100 => 2,
        100..1000 => 1,
        _ => 0,
    };
    HeaderValue::from_static(std::str::from_utf8(&digits[zeros..]).expect("digits are UTF-8"))
}

/// The numbers from 0, each with leading zeros.
static DIGITS: [u8; PREFORMATTED * WIDTH] = {
    let mut digits = [b'0'; PREFORMATTED * WIDTH];
    let mut number = 0;
    while number < PREFORMATTED {
        let (mut rest, mut place) = (number, (number + 1) * WIDTH);
        while rest > 0 {
            place -= 1;
            digits[place] += (rest % 10) as u8;
            rest /= 10;
        }
        number += 1;
    }
    digits
};

const PREFORMATTED: usize = 10_000;
const WIDTH: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_of_formats_all_numbers() {
        for number in (0..12_000).chain([99_999, u64::MAX]) {
            assert_eq!(header_value(number), number.to_string());
        }
    }
}
