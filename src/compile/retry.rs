//! Translates the timeouts and retries of a rule.

use std::time::Duration;

use super::request_route_source::RequestRouteRule;
use crate::diagnostic::Diagnostic;
use crate::snapshot::timeouts_and_retries::{RetryPolicy, TimeoutSetting, TimeoutsAndRetries};

/// `None` if the rule has neither timeouts nor retries. A rule with an unsupported value is rejected rather than served
/// without that value.
pub(super) fn translate(
    raw: &RequestRouteRule<'_>,
    field: &str,
    unsupported: &mut Vec<Diagnostic>,
) -> Option<Box<TimeoutsAndRetries>> {
    let mut read_duration = |subfield: &str, text: &Option<String>| {
        let text = text.as_deref()?;
        let duration = parse_duration(text);
        if duration.is_none() {
            let message = format!("{text:?} is not a duration");
            let remedy = "write it like 10s, 500ms or 1m30s; 0s disables the timeout";
            unsupported.push(Diagnostic::error(format!("{field}.{subfield}"), message, remedy));
        }
        duration
    };
    let mut translated = TimeoutsAndRetries::default();
    if let Some(timeouts) = &raw.timeouts {
        translated.request = to_timeout(read_duration("timeouts.request", &timeouts.request));
        translated.backend_request = to_timeout(read_duration("timeouts.backendRequest", &timeouts.backend_request));
    }
    if let Some(retry) = &raw.retry {
        let mut codes = retry.codes.clone();
        codes.sort_unstable();
        codes.dedup();
        translated.retry = Some(RetryPolicy {
            max_retries: retry.attempts.map_or(1, |attempts| u32::try_from(attempts).unwrap_or(0)),
            codes: codes.into(),
            backoff: read_duration("retry.backoff", &retry.backoff).unwrap_or(RetryPolicy::DEFAULT_BACKOFF),
        });
    }
    (!translated.is_empty()).then(|| Box::new(translated))
}

fn to_timeout(duration: Option<Duration>) -> TimeoutSetting {
    match duration {
        None => TimeoutSetting::Unset,
        Some(Duration::ZERO) => TimeoutSetting::Unlimited,
        Some(duration) => TimeoutSetting::After(duration),
    }
}

/// Parses a Gateway API duration: a sum of numbers with units, `([0-9]{1,5}(h|m|s|ms)){1,4}`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
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
