//! The value of the `Date` field, formatted once a second.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use tokio::time::Instant;

use crate::turn_clock;

thread_local! {
    static FORMATTED: RefCell<FormattedDate> = const { RefCell::new(FormattedDate { valid_until: None, value: UNKNOWN }) };
}

struct FormattedDate {
    /// The end of the second.
    valid_until: Option<Instant>,
    value: HeaderValue,
}

/// Calls `use_date` with the current date.
pub(in crate::proxy) fn with_date<T>(use_date: impl FnOnce(&HeaderValue) -> T) -> T {
    let now = turn_clock::now();
    FORMATTED.with_borrow_mut(|formatted| {
        if formatted.valid_until.is_none_or(|end| end <= now) {
            let date = SystemTime::now();
            let nanoseconds = date.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
            let remaining = Duration::from_secs(1).saturating_sub(Duration::from_nanos(nanoseconds.into()));
            let value = HeaderValue::try_from(httpdate::fmt_http_date(date)).expect("a date has no control characters");
            *formatted = FormattedDate { valid_until: Some(now + remaining), value };
        }
        use_date(&formatted.value)
    })
}

const UNKNOWN: HeaderValue = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");
