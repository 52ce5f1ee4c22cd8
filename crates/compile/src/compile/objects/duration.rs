//! Durations of the Gateway API.

use std::time::Duration;

/// Parses a Gateway API duration: a sum of numbers with units, `([0-9]{1,5}(h|m|s|ms)){1,4}`.
pub(in crate::compile) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok().filter(|_| digits <= 5)?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        sum += match &rest[..letters] {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = &rest[letters..];
        if rest.is_empty() {
            return Some(sum);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_api_durations_are_parsed() {
        let cases = [
            ("0s", Some(0)),
            ("10s", Some(10_000)),
            ("500ms", Some(500)),
            ("1m30s", Some(90_000)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("99999h", Some(359_996_400_000)),
            ("1s1s", Some(2000)),
            ("", None),
            ("s", None),
            ("10", None),
            ("1.5s", None),
            ("100000s", None),
            ("1h1h1h1h1h", None),
            ("10S", None),
            ("-1s", None),
            ("1 s", None),
            ("1é", None),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(parse_duration(text), milliseconds.map(Duration::from_millis), "{text:?}");
        }
    }
}
