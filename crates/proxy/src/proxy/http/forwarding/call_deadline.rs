//! The deadline of a gRPC call, which the client sends as `grpc-timeout`
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

/// How long the client waits for the call. `None` if the field is missing or invalid: then the endpoint decides.
pub(in crate::proxy) fn read(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(GRPC_TIMEOUT)?.as_bytes();
    let (unit, digits) = value.split_last()?;
    if !(1..=MAX_DIGITS).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Whether the client limits the time of its call. An invalid field counts as well: the endpoint decides what it means.
pub(super) fn is_set(headers: &HeaderMap) -> bool {
    headers.contains_key(GRPC_TIMEOUT)
}

/// Sets the field to the time that is left, so that no endpoint works longer than the client waits.
pub(in crate::proxy) fn set_remaining(headers: &mut HeaderMap, deadline: Instant) {
    let remaining = deadline.saturating_duration_since(Instant::now());
    headers.insert(GRPC_TIMEOUT, field_value(remaining));
}

/// In the smallest unit in which the number has few enough digits. The rest is cut off.
fn field_value(remaining: Duration) -> HeaderValue {
    let units = [
        (remaining.as_nanos(), 'n'),
        (remaining.as_micros(), 'u'),
        (remaining.as_millis(), 'm'),
        (u128::from(remaining.as_secs()), 'S'),
        (u128::from(remaining.as_secs() / 60), 'M'),
    ];
    let hours = (u128::from(remaining.as_secs() / 3600).min(MAX_COUNT), 'H');
    let (count, unit) = units.into_iter().find(|(count, _)| *count <= MAX_COUNT).unwrap_or(hours);
    HeaderValue::try_from(format!("{count}{unit}")).expect("digits and a letter are a header value")
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const MAX_DIGITS: usize = 8;
/// The largest number with that many digits.
const MAX_COUNT: u128 = 99_999_999;

#[cfg(test)]
mod tests {
    use super::*;

    fn read_value(value: &str) -> Option<Duration> {
        let value = HeaderValue::from_str(value).unwrap();
        read(&HeaderMap::from_iter([(GRPC_TIMEOUT, value)]))
    }

    #[test]
    fn timeouts_are_read_in_every_unit() {
        for (value, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("0S", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("1", None),
            ("123456789n", None),
            ("-1S", None),
            ("1.5S", None),
            ("1 S", None),
            ("1s", None),
        ] {
            assert_eq!(read_value(value), expected, "{value:?}");
        }
        assert_eq!(read(&HeaderMap::new()), None);
    }

    proptest::proptest! {
        /// The endpoint gets the time that is left, of which less than 1 in 99,999 is cut off.
        #[test]
        fn written_time_is_not_longer(seconds in 0_u64..99_999_999, nanos in 0_u32..1_000_000_000, shift in 0_u32..56) {
            let remaining = Duration::new(seconds, nanos) / 2_u32.pow(shift % 31);
            let written = read_value(field_value(remaining).to_str().unwrap()).unwrap();
            proptest::prop_assert!(written <= remaining);
            proptest::prop_assert!(remaining - written <= remaining / 99_999 + Duration::from_nanos(1));
        }
    }
}
