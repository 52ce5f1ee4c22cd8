//! Translates the timeouts and retries of a rule.

use std::time::Duration;

use crate::compile::objects::duration::parse_duration;
use crate::compile::objects::request_route::RequestRouteRule;
use crate::diagnostic::Diagnostic;
use crate::snapshot::timeouts_and_retries::{RetryPolicy, RetryScope, TimeoutSetting, TimeoutsAndRetries};

/// `None` if the rule has neither timeouts nor retries. A rule with an unsupported value is rejected rather than served
/// without that value.
pub(in crate::compile) fn translate(
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
            scope: RetryScope::default(),
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
