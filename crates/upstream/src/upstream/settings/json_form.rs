//! The forms of values in the JSON of settings, for `serialize_with`: durations and numbers as Kubernetes writes them.
//!
//! What health checks send may contain credentials. The functions for it do not read the value.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// A duration in the syntax of the Gateway API, in milliseconds: `1h30m`, `500ms`, `0s`; null if it is not set.
pub(in crate::upstream) fn duration<T, S>(duration: &T, serializer: S) -> Result<S::Ok, S::Error>
where
    T: Copy + Into<Option<Duration>>,
    S: Serializer,
{
    (*duration).into().map(duration_text).serialize(serializer)
}

fn duration_text(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (unit, milliseconds) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= milliseconds {
            write!(text, "{}{unit}", rest / milliseconds).expect("writing to a string cannot fail");
            rest %= milliseconds;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A number in thousandths as a decimal string: `1.9`.
pub(super) fn thousandths<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&decimal(*number))
}

fn decimal(thousandths: u32) -> String {
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    let text = text.trim_end_matches('0');
    if text.ends_with('.') { format!("{text}0") } else { text.to_owned() }
}

/// Bytes in the largest unit in which they are a whole number.
pub(super) fn size<S: Serializer>(bytes: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    match *bytes {
        bytes if bytes > 0 && bytes.is_multiple_of(1 << 20) => text(&format_args!("{}Mi", bytes >> 20), serializer),
        bytes if bytes > 0 && bytes.is_multiple_of(1 << 10) => text(&format_args!("{}Ki", bytes >> 10), serializer),
        bytes => text(&bytes, serializer),
    }
}

pub(super) fn text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Bytes that are text, such as the value of a header.
pub(super) fn text_of_bytes<S: Serializer>(bytes: &impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(bytes.as_ref()))
}

pub(super) fn hexadecimal<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    serializer.serialize_str(&digits.concat())
}

pub(super) fn header_name<S: Serializer>(name: &Option<HeaderName>, serializer: S) -> Result<S::Ok, S::Error> {
    name.as_ref().map(HeaderName::as_str).serialize(serializer)
}

pub(super) fn status<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

pub(super) fn empty_object<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_map(Some(0))?.end()
}

/// A header as an element of a list.
#[derive(Serialize)]
struct HeaderItem<'a, V> {
    name: &'a str,
    value: V,
}

/// Headers whose values are not secret.
pub(super) fn public_headers<S: Serializer>(headers: &HeaderMap, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        HeaderItem { name: name.as_str(), value }
    }))
}

/// Headers whose values may be credentials: only their names.
pub(super) fn hidden_values<S: Serializer>(headers: &HeaderMap, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(headers.keys().map(|name| HeaderItem { name: name.as_str(), value: HIDDEN }))
}

/// A value that may be a credential.
pub(super) fn hidden<T: ?Sized, S: Serializer>(_: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(HIDDEN)
}

/// What takes the place of values that may be credentials.
const HIDDEN: &str = "<hidden>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_the_gateway_api() {
        for (milliseconds, expected) in [
            (0, "0s"),
            (1, "1ms"),
            (1_500, "1s500ms"),
            (60_000, "1m"),
            (5_400_000, "1h30m"),
            (359_996_400_000, "99999h"),
        ] {
            assert_eq!(duration_text(Duration::from_millis(milliseconds)), expected);
        }
        for (number, expected) in [(1, "0.001"), (1000, "1.0"), (1900, "1.9"), (10_250, "10.25")] {
            assert_eq!(decimal(number), expected);
        }
    }
}
