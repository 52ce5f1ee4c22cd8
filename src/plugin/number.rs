//! Numbers as values of headers: small ones stand ready, so that telling a client how many requests are left costs no memory.

use http::HeaderValue;

/// In decimal digits.
pub fn header_of(number: u64) -> HeaderValue {
    let Some(at) = usize::try_from(number).ok().filter(|at| *at < READY) else { return HeaderValue::from(number) };
    let digits = &DIGITS[at * WIDTH..(at + 1) * WIDTH];
    let zeros = match at {
        0..10 => 3,
        10..100 => 2,
        100..1000 => 1,
        _ => 0,
    };
    HeaderValue::from_static(std::str::from_utf8(&digits[zeros..]).expect("digits are text"))
}

/// The numbers from 0 on, each with leading zeros.
static DIGITS: [u8; READY * WIDTH] = {
    let mut digits = [b'0'; READY * WIDTH];
    let mut number = 0;
    while number < READY {
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

const READY: usize = 10_000;
const WIDTH: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_or_not_they_are_what_they_say() {
        for number in (0..12_000).chain([99_999, u64::MAX]) {
            assert_eq!(header_of(number), number.to_string());
        }
    }
}
