//! How long an endpoint asks its clients to wait before they send a request again.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue};

use crate::upstream::settings::{ResetHeader, TimeFormat};

/// The longer of the waits that `Retry-After` and the other field request. `None` if the response has neither in a
/// valid form.
pub(super) fn requested_wait(headers: &HeaderMap, other: Option<&ResetHeader>, now: SystemTime) -> Option<Duration> {
    let standard = headers.get(RETRY_AFTER).and_then(|value| seconds(value).or_else(|| until_date(value, now)));
    let other = other.and_then(|ResetHeader { name, format }| {
        let number = seconds(headers.get(name)?)?;
        match format {
            TimeFormat::Seconds => Some(number),
            TimeFormat::UnixTimestamp => {
                Some((SystemTime::UNIX_EPOCH.checked_add(number)?).duration_since(now).unwrap_or_default())
            }
        }
    });
    [standard, other].into_iter().flatten().max()
}

/// A number of seconds. More digits than a date needs are invalid.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let is_number = (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok().map(Duration::from_secs) } else { None }
}

/// The time until a date (RFC 9110, section 5.6.7); none if it is over.
fn until_date(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let date = httpdate::parse_http_date(value.to_str().ok()?).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

const MAX_DIGITS: usize = 12;

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn waits_are_read_in_every_format() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        let reset = |format| ResetHeader { name: HeaderName::from_static("x-reset"), format };
        let (in_seconds, timestamp) = (reset(TimeFormat::Seconds), reset(TimeFormat::UnixTimestamp));
        for (fields, other, expected) in [
            (&[][..], None, None),
            (&[("retry-after", "3")], None, Some(3)),
            (&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], None, Some(7)),
            (&[("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT")], None, Some(0)),
            (&[("retry-after", "soon")], None, None),
            (&[("retry-after", "-1")], None, None),
            (&[("retry-after", "1.5")], None, None),
            (&[("retry-after", "9999999999999")], None, None),
            (&[("x-reset", "4")], None, None),
            (&[("x-reset", "4")], Some(&in_seconds), Some(4)),
            (&[("x-reset", "784111775")], Some(&timestamp), Some(5)),
            (&[("x-reset", "784111000")], Some(&timestamp), Some(0)),
            (&[("x-reset", "999999999999")], Some(&timestamp), Some(999_215_888_229)),
            (&[("retry-after", "3"), ("x-reset", "2")], Some(&in_seconds), Some(3)),
            (&[("retry-after", "x"), ("x-reset", "2")], Some(&in_seconds), Some(2)),
        ] {
            let headers: HeaderMap = fields
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            assert_eq!(requested_wait(&headers, other, now), expected.map(Duration::from_secs), "{fields:?}");
        }
    }
}
