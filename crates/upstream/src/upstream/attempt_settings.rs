//! The retries and timeouts of a Service, for requests whose rule has none of its own.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::response_times::ResponseTimes;
use super::settings::{RequestTimeouts, RetrySettings};

/// What a Service configures for the attempts of requests.
#[derive(Debug, Default)]
pub struct AttemptSettings {
    pub retries: Option<Arc<RetrySettings>>,
    pub timeouts: Option<Arc<RequestTimeouts>>,
    /// How long responses take to begin, if a second attempt waits for that long.
    pub response_times: Option<Arc<ResponseTimes>>,
}

/// The settings in effect. Without settings, a request reads one flag.
#[derive(Debug, Default)]
pub(super) struct CurrentAttemptSettings {
    is_set: AtomicBool,
    settings: ArcSwapOption<AttemptSettings>,
    connect_timeout: TimeoutCell,
    idle_timeout: TimeoutCell,
}

impl CurrentAttemptSettings {
    /// Sets the settings. What is known about the times of responses is kept.
    pub(super) fn set(&self, retries: Option<&Arc<RetrySettings>>, timeouts: Option<&Arc<RequestTimeouts>>) {
        self.connect_timeout.set(timeouts.and_then(|timeouts| timeouts.connect));
        self.idle_timeout.set(timeouts.and_then(|timeouts| timeouts.idle));
        let known_times = self.settings.load().as_ref().and_then(|current| current.response_times.clone());
        let needs_times = retries.and_then(|retries| retries.hedge.as_ref()).is_some_and(|hedge| hedge.delay.is_none());
        let is_set = retries.is_some() || timeouts.is_some();
        let settings = is_set.then(|| {
            Arc::new(AttemptSettings {
                retries: retries.cloned(),
                timeouts: timeouts.cloned(),
                response_times: needs_times.then(|| known_times.unwrap_or_default()),
            })
        });
        self.settings.store(settings);
        self.is_set.store(is_set, Release);
    }

    pub(super) fn load(&self) -> Option<Arc<AttemptSettings>> {
        if self.is_set.load(Acquire) { self.settings.load_full() } else { None }
    }

    /// How long connecting to an endpoint may take, if the Service limits it.
    pub(super) fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout.get()
    }

    /// How long a connection may be idle, if the Service limits it.
    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout.get()
    }
}

/// A timeout in milliseconds, which is 0 if it is not set.
#[derive(Debug, Default)]
struct TimeoutCell(AtomicU32);

impl TimeoutCell {
    /// Zero disables the timeout: it is longer than any connection lasts, about seven weeks.
    fn set(&self, timeout: Option<Duration>) {
        let millis = match timeout {
            None => 0,
            Some(Duration::ZERO) => u32::MAX,
            Some(timeout) => u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1),
        };
        self.0.store(millis, Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        let millis = self.0.load(Relaxed);
        (millis != 0).then(|| Duration::from_millis(millis.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::settings::HedgeSettings;

    fn hedged(delay: Option<Duration>) -> Arc<RetrySettings> {
        Arc::new(RetrySettings { hedge: Some(HedgeSettings { delay }), ..RetrySettings::default() })
    }

    #[test]
    fn timeouts_are_unset_off_or_set() {
        let settings = CurrentAttemptSettings::default();
        let second = Duration::from_secs(1);
        for (connect, expected) in [
            (None, None),
            (Some(Duration::ZERO), Some(Duration::from_millis(u32::MAX.into()))),
            (Some(Duration::from_nanos(1)), Some(Duration::from_millis(1))),
            (Some(second), Some(second)),
            (Some(Duration::MAX), Some(Duration::from_millis(u32::MAX.into()))),
        ] {
            settings.set(None, Some(&Arc::new(RequestTimeouts { connect, ..RequestTimeouts::default() })));
            assert_eq!((settings.connect_timeout(), settings.idle_timeout()), (expected, None), "{connect:?}");
        }
        settings.set(None, None);
        assert!(settings.connect_timeout().is_none() && settings.load().is_none());
    }

    #[test]
    fn times_of_responses_are_kept_while_they_are_needed() {
        let settings = CurrentAttemptSettings::default();
        let times = || settings.load().unwrap().response_times.clone();
        settings.set(Some(&hedged(Some(Duration::from_millis(20)))), None);
        assert!(times().is_none());
        settings.set(Some(&hedged(None)), None);
        let first = times().unwrap();
        settings.set(Some(&hedged(None)), Some(&Arc::default()));
        assert!(Arc::ptr_eq(&first, &times().unwrap()));
    }
}
