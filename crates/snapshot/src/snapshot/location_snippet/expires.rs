//! `expires`: the fields that tell caches how long a response may be used.

use http::header::{CACHE_CONTROL, EXPIRES};
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use super::refusal::DirectiveRefusal;
use super::units::parse_time;

/// How long responses may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ResponseExpiry {
    /// The fields stay as they are.
    Off,
    /// A date that has passed.
    Epoch,
    /// Ten years, as in nginx.
    Max,
    After {
        seconds: i64,
        cache_control: HeaderValue,
    },
}

impl ResponseExpiry {
    pub(super) fn parse(text: &str) -> Result<Self, DirectiveRefusal> {
        match text {
            "off" => return Ok(ResponseExpiry::Off),
            "epoch" => return Ok(ResponseExpiry::Epoch),
            "max" => return Ok(ResponseExpiry::Max),
            _ => {}
        }
        let (is_negative, time) = match text.strip_prefix('-') {
            Some(time) => (true, time),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let time = parse_time(time).and_then(|time| i64::try_from(time.as_secs()).ok());
        let Some(seconds) = time else {
            let message = format!("has {text:?}, which is not supported");
            return Err(DirectiveRefusal::new(message, "use a time such as `1h`, `off`, `epoch` or `max`"));
        };
        let cache_control = match is_negative {
            true => HeaderValue::from_static("no-cache"),
            false => HeaderValue::try_from(format!("max-age={seconds}"))
                .map_err(|_| DirectiveRefusal::invalid("has an invalid time"))?,
        };
        Ok(ResponseExpiry::After { seconds: if is_negative { -seconds } else { seconds }, cache_control })
    }

    /// Sets the fields. `now`: seconds since 1970; `None` if that is not known.
    pub(super) fn set_fields(&self, now: Option<i64>, headers: &mut HeaderMap) {
        let (expires, cache_control) = match self {
            ResponseExpiry::Off => return,
            ResponseExpiry::Epoch => (Some(HeaderValue::from_static(EPOCH)), HeaderValue::from_static("no-cache")),
            ResponseExpiry::Max => (Some(HeaderValue::from_static(MAX)), HeaderValue::from_static(MAX_AGE)),
            ResponseExpiry::After { seconds, cache_control } => {
                (now.and_then(|now| date(now.checked_add(*seconds)?)), cache_control.clone())
            }
        };
        headers.remove(EXPIRES);
        if let Some(expires) = expires {
            headers.insert(EXPIRES, expires);
        }
        headers.insert(CACHE_CONTROL, cache_control);
    }
}

fn date(seconds: i64) -> Option<HeaderValue> {
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::from_second(seconds).ok()?).ok()?;
    HeaderValue::try_from(date).ok()
}

const EPOCH: &str = "Thu, 01 Jan 1970 00:00:01 GMT";
const MAX: &str = "Thu, 31 Dec 2037 23:55:55 GMT";
const MAX_AGE: &str = "max-age=315360000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_replaced() {
        let old = HeaderValue::from_static("old");
        for (text, expires, cache_control) in [
            ("off", "old", "old"),
            ("epoch", EPOCH, "no-cache"),
            ("max", MAX, MAX_AGE),
            ("1h", "Thu, 01 Jan 1970 01:00:10 GMT", "max-age=3600"),
            ("0", "Thu, 01 Jan 1970 00:00:10 GMT", "max-age=0"),
            ("-1", "Thu, 01 Jan 1970 00:00:09 GMT", "no-cache"),
        ] {
            let fields = [(EXPIRES, old.clone()), (CACHE_CONTROL, old.clone()), (CACHE_CONTROL, old.clone())];
            let mut headers: HeaderMap = fields.into_iter().collect();
            if text == "off" {
                headers.insert(CACHE_CONTROL, old.clone());
            }
            ResponseExpiry::parse(text).unwrap().set_fields(Some(10), &mut headers);
            assert_eq!(headers.get_all(EXPIRES).iter().collect::<Vec<_>>(), [expires], "{text}");
            assert_eq!(headers.get_all(CACHE_CONTROL).iter().collect::<Vec<_>>(), [cache_control], "{text}");
        }
        for text in ["", "@15h30m", "modified", "$a", "--1", "1x", "+", "-"] {
            assert!(ResponseExpiry::parse(text).is_err(), "{text}");
        }
    }
}
