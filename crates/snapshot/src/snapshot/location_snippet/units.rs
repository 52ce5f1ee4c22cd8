//! Times and sizes in the notation of nginx: `60`, `1h30m`, `500ms`; `8k`, `1m`.

use std::time::Duration;

/// A time in one or several units, from the longest to the shortest. A number without a unit is in seconds.
pub fn parse_time(text: &str) -> Option<Duration> {
    let (mut total, mut next_unit) = (Duration::ZERO, 0);
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(digits)?;
        let letters = after.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(letters)?;
        let number: u64 = number.parse().ok()?;
        if unit.is_empty() {
            if !after.is_empty() {
                return None;
            }
            total = total.checked_add(Duration::from_secs(number))?;
        } else {
            let index = UNITS.iter().position(|(name, _)| *name == unit).filter(|index| *index >= next_unit)?;
            let (_, milliseconds) = UNITS.get(index)?;
            total = total.checked_add(Duration::from_millis(number.checked_mul(*milliseconds)?))?;
            next_unit = index + 1;
        }
        rest = after.trim_start_matches(' ');
    }
    (!text.is_empty() && total <= MAX_TIME).then_some(total)
}

/// A number of bytes.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (number, factor) = match text.char_indices().next_back()? {
        (index, 'k' | 'K') => (text.get(..index)?, 1 << 10),
        (index, 'm' | 'M') => (text.get(..index)?, 1 << 20),
        (index, 'g' | 'G') => (text.get(..index)?, 1 << 30),
        _ => (text, 1),
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(factor)
}

/// In milliseconds. A month has 30 days.
const UNITS: &[(&str, u64)] = &[
    ("y", 365 * DAY),
    ("M", 30 * DAY),
    ("w", 7 * DAY),
    ("d", DAY),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

const DAY: u64 = 86_400_000;

/// More than the times of `expires`, and far from an overflow when it is added to the current time.
const MAX_TIME: Duration = Duration::from_secs(100 * 365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in [
            ("60", Some(60_000)),
            ("0", Some(0)),
            ("60s", Some(60_000)),
            ("1h30m", Some(5_400_000)),
            ("1h 30m", Some(5_400_000)),
            ("1m500ms", Some(60_500)),
            ("1d12", Some(86_412_000)),
            ("1M", Some(30 * DAY)),
            ("1m1h", None),
            ("1h1h", None),
            ("1x", None),
            ("m", None),
            ("", None),
            ("-1", None),
            ("1.5s", None),
            ("99999999999999999999", None),
            ("9999999999y", None),
            ("1é", None),
        ] {
            assert_eq!(parse_time(text), milliseconds.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("8k", Some(8 << 10)),
            ("10M", Some(10 << 20)),
            ("1g", Some(1 << 30)),
            ("m", None),
            ("", None),
            ("+1", None),
            ("1t", None),
            ("99999999999999g", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }
}
