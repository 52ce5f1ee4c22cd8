//! The value of the `Date` field, formatted once a second.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;

thread_local! {
    static FORMATTED: RefCell<FormattedDate> = const { RefCell::new(FormattedDate { second: 0, value: UNKNOWN }) };
}

struct FormattedDate {
    second: u64,
    value: HeaderValue,
}

/// Calls `use_date` with the current date.
pub(in crate::proxy) fn with_date<T>(use_date: impl FnOnce(&HeaderValue) -> T) -> T {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    FORMATTED.with_borrow_mut(|formatted| {
        if formatted.second != second {
            let date = HeaderValue::try_from(httpdate::fmt_http_date(now)).expect("a date has no control characters");
            *formatted = FormattedDate { second, value: date };
        }
        use_date(&formatted.value)
    })
}

const UNKNOWN: HeaderValue = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");
