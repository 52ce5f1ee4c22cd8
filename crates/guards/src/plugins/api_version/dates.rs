//! The dates in the configuration of `api-version`.

use std::time::{Duration, SystemTime};

use crate::diagnostic::Diagnostic;

/// A date as `2026-12-31`, which is midnight UTC, or a time as RFC 3339 specifies it.
pub(super) fn parse(field: &str, text: Option<&str>, invalid: &mut Vec<Diagnostic>) -> Option<SystemTime> {
    let text = text?;
    let date = text.parse::<jiff::Timestamp>().ok().or_else(|| match text.len() {
        10 => format!("{text}T00:00:00Z").parse().ok(),
        _ => None,
    });
    // `Sunset` cannot express years after 9999, and time before 1970 is a mistake.
    let seconds = date.and_then(|date| u64::try_from(date.as_second()).ok()).filter(|seconds| *seconds < YEAR_9999);
    if seconds.is_none() {
        let message = format!("{text:?} is not a date");
        let remedy = "write a date such as 2026-12-31, or a time such as 2026-12-31T12:00:00Z";
        invalid.push(Diagnostic::in_config(field, message, remedy));
    }
    seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// The year 9999 begins, in seconds since 1970.
const YEAR_9999: u64 = 253_370_764_800;
