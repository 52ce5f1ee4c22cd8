//! Writes the values of a line. What most lines contain is written directly: the general formatters of the standard
//! library, of jiff and of serde_json take several times as long, and each request has a line.

use std::cell::Cell;
use std::fmt::Display;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use crate::proxy::ipv4_text::Ipv4Text;

pub(super) fn number(number: u64, line: &mut Vec<u8>) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// An IP address and a port.
pub(super) fn address(address: &SocketAddr, line: &mut Vec<u8>) {
    let IpAddr::V4(ip) = address.ip() else { return display(address, line) };
    line.extend_from_slice(Ipv4Text::new(ip).as_bytes());
    line.push(b':');
    number(address.port().into(), line);
}

/// Milliseconds, rounded to three decimals. `min_decimals`: how many of them are written although they are zero.
pub(super) fn milliseconds(duration: Duration, min_decimals: usize, line: &mut Vec<u8>) {
    let microseconds = duration.as_secs().saturating_mul(1_000_000) + u64::from((duration.subsec_nanos() + 500) / 1000);
    number(microseconds / 1000, line);
    let decimals = three_digits((microseconds % 1000) as u32);
    let significant = decimals.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    line.push(b'.');
    line.extend_from_slice(&decimals[..significant.max(min_decimals)]);
}

/// RFC 3339 with milliseconds.
pub(super) fn time(time: SystemTime, line: &mut Vec<u8>) {
    thread_local! {
        /// The last second, and its text up to the decimals. Most lines have the second of the line before.
        static SECOND: Cell<Option<(u64, Second)>> = const { Cell::new(None) };
    }
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = since_epoch.as_secs();
    let text = match SECOND.get() {
        Some((cached, text)) if cached == second => text,
        _ => {
            let Some(text) = second_text(second) else {
                return display(Timestamp::try_from(time).unwrap_or_default(), line);
            };
            SECOND.set(Some((second, text)));
            text
        }
    };
    line.extend_from_slice(&text);
    line.extend_from_slice(&three_digits(since_epoch.subsec_millis()));
    line.push(b'Z');
}

/// `2023-11-14T22:13:20.`
type Second = [u8; 20];

/// `None` if the year has more than four digits.
fn second_text(second: u64) -> Option<Second> {
    let time = Timestamp::from_second(second.try_into().ok()?).ok()?;
    let mut text: Second = time.to_string().into_bytes().try_into().ok()?;
    text[19] = b'.';
    Some(text)
}

/// The last three digits of a number.
fn three_digits(number: u32) -> [u8; 3] {
    [number / 100, number / 10, number].map(|digits| b'0' + (digits % 10) as u8)
}

/// A string of JSON.
pub(super) fn json(text: &str, line: &mut Vec<u8>) {
    let needs_escape = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    // Without an early exit, the compiler compares many bytes at once.
    if text.bytes().fold(false, |found, byte| found | needs_escape(byte)) {
        serde_json::to_writer(line, text).expect("strings always serialize");
        return;
    }
    line.push(b'"');
    line.extend_from_slice(text.as_bytes());
    line.push(b'"');
}

/// The text, in quotes if necessary. Unescaped control characters, quotes and spaces would let a client forge lines and
/// fields.
pub(super) fn quoted_if_needed(text: &str, line: &mut Vec<u8>) {
    let needs_quotes = |byte: u8| !byte.is_ascii_graphic() || byte == b'"' || byte == b'\\';
    if text.is_empty() || text.bytes().fold(false, |found, byte| found | needs_quotes(byte)) {
        write!(line, "{text:?}").expect("writing to a Vec cannot fail");
    } else {
        line.extend_from_slice(text.as_bytes());
    }
}

fn display(value: impl Display, line: &mut Vec<u8>) {
    write!(line, "{value}").expect("writing to a Vec cannot fail");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut line = Vec::new();
        write(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn times_have_milliseconds() {
        for (milliseconds, expected) in [
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (1_700_000_000_999, "2023-11-14T22:13:20.999Z"),
            (1_700_000_001_007, "2023-11-14T22:13:21.007Z"),
            (1_700_000_000_000, "2023-11-14T22:13:20.000Z"),
            (0, "1970-01-01T00:00:00.000Z"),
        ] {
            let moment = UNIX_EPOCH + Duration::from_millis(milliseconds);
            assert_eq!(written(|line| time(moment, line)), expected);
        }
        assert_eq!(written(|line| time(UNIX_EPOCH - Duration::from_secs(1), line)), "1970-01-01T00:00:00.000Z");
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(
            written(|line| time(far, line)),
            "1970-01-01T00:00:00Z",
            "jiff has no year of more than four digits"
        );
    }

    proptest! {
        #[test]
        fn values_are_those_of_the_general_formatters(
            ip in any::<IpAddr>(), port in any::<u16>(), microseconds in 0..10_000_000_000_u64, text in any::<String>(),
        ) {
            let socket_address = SocketAddr::new(ip, port);
            assert_eq!(written(|line| address(&socket_address, line)), socket_address.to_string());
            let duration = Duration::from_micros(microseconds);
            let expected = microseconds as f64 / 1000.0;
            assert_eq!(written(|line| milliseconds(duration, 1, line)), serde_json::to_string(&expected).unwrap());
            assert_eq!(written(|line| milliseconds(duration, 3, line)), format!("{expected:.3}"));
            assert_eq!(written(|line| json(&text, line)), serde_json::to_string(&text).unwrap());
            let quoted = written(|line| quoted_if_needed(&text, line));
            assert!(quoted == text || quoted == format!("{text:?}"));
        }

        #[test]
        fn text_without_quotes_is_one_plain_word(text in "[ -~]*") {
            let quoted = written(|line| quoted_if_needed(&text, line));
            let is_plain = !text.is_empty() && !text.contains([' ', '"', '\\']);
            assert_eq!(quoted == text, is_plain);
        }
    }
}
