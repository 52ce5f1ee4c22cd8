//! Durations and sizes: what is printed is read as the same value, and no value is beyond its limits.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::quantity::{HeaderSize, MemorySize, NonZeroTimeout, WaitTime};

/// The input is the value of a flag or annotation.
pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(WaitTime(duration)) = round_trip(text) {
        assert!(duration <= Duration::from_secs(24 * 3600), "{text} is at most a day");
        let timeout = text.parse::<NonZeroTimeout>().ok();
        assert_eq!(timeout, Some(NonZeroTimeout(duration)).filter(|_| !duration.is_zero()));
    }
    if let Some(HeaderSize(bytes)) = round_trip(text) {
        assert!((8 << 10..=1 << 20).contains(&bytes), "{text}");
    }
    if let Some(MemorySize(bytes)) = round_trip(text) {
        assert!((1 << 20..=1 << 40).contains(&bytes), "{text}");
    }
    round_trip::<NonZeroTimeout>(text);
}

fn round_trip<T: FromStr<Err = String> + Display + PartialEq + std::fmt::Debug>(text: &str) -> Option<T> {
    match text.parse::<T>() {
        Err(message) => {
            assert!(!message.is_empty(), "{text:?} is rejected with a reason");
            None
        }
        Ok(value) => {
            assert_eq!(value.to_string().parse::<T>().as_ref(), Ok(&value), "{text:?} is printed as {value}");
            Some(value)
        }
    }
}
