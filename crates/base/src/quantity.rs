//! Parses and displays durations and sizes such as `1m30s`, `500ms` and `64KiB`.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration from zero to a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTime(pub Duration);

/// A duration above zero, at most a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonZeroTimeout(pub Duration);

/// The maximum size of a header, in bytes. Less than 8 KiB would reject usual requests with cookies; more than 1 MiB
/// per connection would enable memory exhaustion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderSize(pub usize);

/// Bytes in a second, up to 1 GiB; 0 for no minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinimumRate(pub u64);

/// An amount of memory, from 1 MiB to 1 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize(pub usize);

/// A share of a whole, in parts per million: a percentage with at most four decimals, whose sign may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartsPerMillion(pub u32);

impl PartsPerMillion {
    pub const WHOLE: PartsPerMillion = PartsPerMillion(1_000_000);
}

impl FromStr for PartsPerMillion {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<PartsPerMillion, Self::Err> {
        let error = "not a percentage; write a number from 0 to 100 with at most four decimals";
        let number = text.strip_suffix('%').unwrap_or(text);
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(decimals) || whole.len() > 3 || decimals.len() > 4 {
            return Err(error);
        }
        let share = format!("{whole}{decimals:0<4}").parse().map(PartsPerMillion).map_err(|_| error)?;
        if share <= PartsPerMillion::WHOLE { Ok(share) } else { Err(error) }
    }
}

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<MemorySize, String> {
        let bytes = size(text)?;
        if (1 << 20..=1 << 40).contains(&bytes) {
            Ok(MemorySize(bytes))
        } else {
            Err("out of range; write a size from 1MiB to 1024GiB".to_owned())
        }
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_size(self.0, formatter)
    }
}

impl FromStr for MinimumRate {
    type Err = String;

    fn from_str(text: &str) -> Result<MinimumRate, String> {
        match size(text)? as u64 {
            rate @ 0..=0x4000_0000 => Ok(MinimumRate(rate)),
            _ => Err("out of range; write the bytes in a second, up to 1024MiB, or 0 for no minimum".to_owned()),
        }
    }
}

impl fmt::Display for MinimumRate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for WaitTime {
    type Err = String;

    fn from_str(text: &str) -> Result<WaitTime, String> {
        duration(text).map(WaitTime)
    }
}

impl FromStr for NonZeroTimeout {
    type Err = String;

    fn from_str(text: &str) -> Result<NonZeroTimeout, String> {
        match duration(text)? {
            Duration::ZERO => Err("a timeout must be longer than zero; write for example 10s".to_owned()),
            duration => Ok(NonZeroTimeout(duration)),
        }
    }
}

impl FromStr for HeaderSize {
    type Err = String;

    fn from_str(text: &str) -> Result<HeaderSize, String> {
        let bytes = size(text)?;
        if (8 << 10..=1 << 20).contains(&bytes) {
            Ok(HeaderSize(bytes))
        } else {
            Err("out of range; write a size from 8KiB to 1MiB".to_owned())
        }
    }
}

impl fmt::Display for WaitTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_duration(self.0, formatter)
    }
}

impl fmt::Display for NonZeroTimeout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_duration(self.0, formatter)
    }
}

impl fmt::Display for HeaderSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_size(self.0, formatter)
    }
}

/// Writes a size in the largest unit in which it is a whole number.
fn write_size(bytes: usize, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    match bytes {
        bytes if bytes > 0 && bytes.is_multiple_of(1 << 20) => write!(formatter, "{}MiB", bytes >> 20),
        bytes if bytes > 0 && bytes.is_multiple_of(1 << 10) => write!(formatter, "{}KiB", bytes >> 10),
        bytes => write!(formatter, "{bytes}"),
    }
}

/// Writes a duration in a single unit, in the syntax of [`duration`]. Hours and minutes are used from two on: `60s`,
/// but `5m`.
fn write_duration(duration: Duration, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let milliseconds = duration.as_millis();
    let is_whole = |unit: u128| milliseconds.is_multiple_of(unit);
    match milliseconds {
        milliseconds if milliseconds >= 2 * 3_600_000 && is_whole(3_600_000) => {
            write!(formatter, "{}h", milliseconds / 3_600_000)
        }
        milliseconds if milliseconds >= 2 * 60_000 && is_whole(60_000) => {
            write!(formatter, "{}m", milliseconds / 60_000)
        }
        milliseconds if is_whole(1_000) => write!(formatter, "{}s", milliseconds / 1_000),
        milliseconds => write!(formatter, "{milliseconds}ms"),
    }
}

/// Parses a duration of at most a day: numbers with the units `h`, `m`, `s` and `ms`, largest first. Only zero needs no
/// unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let malformed = || "not a duration; write numbers with units, for example 10s, 500ms or 1m30s".to_owned();
    let mut rest = text;
    let mut milliseconds: u64 = 0;
    // Each unit must be smaller than the previous one, so that typos such as 5s1m and 5s5s are rejected.
    let mut previous_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let unit = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            "" if !number.is_empty() && tail.is_empty() => {
                return Err(format!("has no unit; write {text}s or {text}ms"));
            }
            _ => return Err(malformed()),
        };
        if unit >= previous_unit || number.is_empty() {
            return Err(malformed());
        }
        previous_unit = unit;
        milliseconds = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(unit))
            .and_then(|addend| milliseconds.checked_add(addend))
            .filter(|sum| *sum <= MAX_MILLISECONDS)
            .ok_or_else(|| "longer than a day; write at most 24h".to_owned())?;
        rest = tail;
    }
    if text.is_empty() { Err(malformed()) } else { Ok(Duration::from_millis(milliseconds)) }
}

/// Parses a size in bytes: a number, alone or with `B`, `KiB`, `MiB` or `GiB`, or with `Ki`, `Mi` or `Gi` as in
/// Kubernetes.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" | "Ki" => 10,
        "MiB" | "Mi" => 20,
        "GiB" | "Gi" => 30,
        _ => return Err("not a size; write bytes or a number with KiB or MiB, for example 64KiB".to_owned()),
    };
    if number.is_empty() {
        return Err("not a size; write bytes or a number with KiB or MiB, for example 64KiB".to_owned());
    }
    number
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "the number is too large; write for example 64KiB".to_owned())
}

/// A day, the longest duration.
const MAX_MILLISECONDS: u64 = 24 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed() {
        let cases: &[(&str, Result<u64, &str>)] = &[
            ("10s", Ok(10_000)),
            ("500ms", Ok(500)),
            ("1m30s", Ok(90_000)),
            ("1h2m3s4ms", Ok(3_723_004)),
            ("0", Ok(0)),
            ("0s", Ok(0)),
            ("24h", Ok(86_400_000)),
            ("24h1ms", Err("longer than a day; write at most 24h")),
            ("99999999999999999999s", Err("longer than a day; write at most 24h")),
            ("10", Err("has no unit; write 10s or 10ms")),
            ("1m30", Err("has no unit; write 1m30s or 1m30ms")),
            ("", Err("not a duration; write numbers with units, for example 10s, 500ms or 1m30s")),
            ("s", Err("not a duration; write numbers with units, for example 10s, 500ms or 1m30s")),
            ("5s5s", Err("not a duration; write numbers with units, for example 10s, 500ms or 1m30s")),
            ("5s1m", Err("not a duration; write numbers with units, for example 10s, 500ms or 1m30s")),
            ("1d", Err("not a duration; write numbers with units, for example 10s, 500ms or 1m30s")),
            ("-1s", Err("not a duration; write numbers with units, for example 10s, 500ms or 1m30s")),
            ("1.5s", Err("not a duration; write numbers with units, for example 10s, 500ms or 1m30s")),
            ("١s", Err("not a duration; write numbers with units, for example 10s, 500ms or 1m30s")),
        ];
        for (text, expected) in cases {
            let expected = expected.map(Duration::from_millis).map_err(str::to_owned);
            assert_eq!(duration(text), expected, "{text:?}");
        }
        assert!("0s".parse::<NonZeroTimeout>().is_err());
        assert_eq!("1ms".parse(), Ok(NonZeroTimeout(Duration::from_millis(1))));
    }

    #[test]
    fn sizes_are_parsed() {
        let malformed = Err("not a size; write bytes or a number with KiB or MiB, for example 64KiB");
        let cases: &[(&str, Result<usize, &str>)] = &[
            ("64KiB", Ok(65_536)),
            ("64Ki", Ok(65_536)),
            ("1MiB", Ok(1_048_576)),
            ("8192", Ok(8_192)),
            ("8192B", Ok(8_192)),
            ("64kb", malformed),
            ("KiB", malformed),
            ("", malformed),
            ("99999999999999999999", Err("the number is too large; write for example 64KiB")),
            ("18446744073709551615GiB", Err("the number is too large; write for example 64KiB")),
        ];
        for (text, expected) in cases {
            assert_eq!(size(text), expected.map_err(str::to_owned), "{text:?}");
        }
        assert!("8191".parse::<HeaderSize>().is_err());
        assert_eq!("8KiB".parse(), Ok(HeaderSize(8_192)));
        assert!("2MiB".parse::<HeaderSize>().is_err());
    }

    #[test]
    fn values_are_displayed_as_they_were_written() {
        for text in ["0s", "1ms", "1s", "10s", "60s", "75s", "5m", "90m", "24h", "3723004ms"] {
            assert_eq!(text.parse::<WaitTime>().unwrap().to_string(), text);
        }
        for text in ["8KiB", "9000", "64KiB", "1MiB"] {
            assert_eq!(text.parse::<HeaderSize>().unwrap().to_string(), text);
        }
        assert_eq!(NonZeroTimeout(Duration::from_secs(300)).to_string(), "5m");
    }
}
