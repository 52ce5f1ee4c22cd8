//! Times of lines that are written by a template.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

use super::encode;
use crate::access_log_syntax::TimeForm;

/// Writes a time that is a number. Returns false for other forms.
pub(super) fn write_number(time: SystemTime, form: &TimeForm, line: &mut Vec<u8>) -> bool {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = match form {
        TimeForm::Seconds => since_epoch.as_secs(),
        TimeForm::Milliseconds => since_epoch.as_millis().try_into().unwrap_or(u64::MAX),
        TimeForm::Microseconds => since_epoch.as_micros().try_into().unwrap_or(u64::MAX),
        TimeForm::SecondsAndMilliseconds => {
            encode::number(since_epoch.as_secs(), line);
            line.push(b'.');
            padded(since_epoch.subsec_millis(), 3, line);
            return true;
        }
        _ => return false,
    };
    encode::number(number, line);
    true
}

/// Writes a time as text.
pub(super) fn write_text(time: SystemTime, form: &TimeForm, line: &mut Vec<u8>) {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    match form {
        TimeForm::Rfc3339 => encode::time(time, line),
        TimeForm::Iso8601 => {
            let time = civil(time);
            write(line, format_args!("{:04}-{:02}-{:02}T", time.year(), time.month(), time.day()));
            clock(time, line);
            line.extend_from_slice(b"+00:00");
        }
        TimeForm::Common => common(time, line),
        TimeForm::BracketedCommon => {
            line.push(b'[');
            common(time, line);
            line.push(b']');
        }
        TimeForm::MillisecondsOfSecond => padded(since_epoch.subsec_millis(), 3, line),
        TimeForm::MicrosecondsOfSecond => padded(since_epoch.subsec_micros(), 6, line),
        TimeForm::Pattern(pattern) => {
            let zoned = Timestamp::try_from(time).unwrap_or_default().to_zoned(TimeZone::UTC);
            // The pattern was tried when it was parsed.
            if let Ok(text) = jiff::fmt::strtime::format(&**pattern, &zoned) {
                line.extend_from_slice(text.as_bytes());
            }
        }
        TimeForm::Seconds | TimeForm::Milliseconds | TimeForm::Microseconds | TimeForm::SecondsAndMilliseconds => {
            write_number(time, form, line);
        }
    }
}

/// `27/Nov/2026:23:28:23 +0000`
fn common(time: SystemTime, line: &mut Vec<u8>) {
    let time = civil(time);
    let month = MONTHS[usize::from(time.month().unsigned_abs().clamp(1, 12) - 1)];
    write(line, format_args!("{:02}/{month}/{:04}:", time.day(), time.year()));
    clock(time, line);
    line.extend_from_slice(b" +0000");
}

fn clock(time: DateTime, line: &mut Vec<u8>) {
    write(line, format_args!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second()));
}

fn civil(time: SystemTime) -> DateTime {
    Offset::UTC.to_datetime(Timestamp::try_from(time).unwrap_or_default())
}

fn padded(number: u32, digits: usize, line: &mut Vec<u8>) {
    write(line, format_args!("{number:0digits$}"));
}

fn write(line: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    line.write_fmt(text).expect("writing to a Vec cannot fail");
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_those_of_other_proxies() {
        let time = UNIX_EPOCH + Duration::from_micros(1_700_000_000_023_004);
        for (form, expected) in [
            (TimeForm::Rfc3339, "2023-11-14T22:13:20.023Z"),
            (TimeForm::Iso8601, "2023-11-14T22:13:20+00:00"),
            (TimeForm::Common, "14/Nov/2023:22:13:20 +0000"),
            (TimeForm::BracketedCommon, "[14/Nov/2023:22:13:20 +0000]"),
            (TimeForm::Seconds, "1700000000"),
            (TimeForm::Milliseconds, "1700000000023"),
            (TimeForm::Microseconds, "1700000000023004"),
            (TimeForm::SecondsAndMilliseconds, "1700000000.023"),
            (TimeForm::MillisecondsOfSecond, "023"),
            (TimeForm::MicrosecondsOfSecond, "023004"),
            (TimeForm::Pattern("%d.%m.%Y %H%%".into()), "14.11.2023 22%"),
        ] {
            let mut line = Vec::new();
            write_text(time, &form, &mut line);
            assert_eq!(str::from_utf8(&line).unwrap(), expected, "{form:?}");
        }
    }
}
