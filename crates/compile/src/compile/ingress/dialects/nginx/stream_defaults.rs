//! The keys of the ConfigMap of ingress-nginx about the ports of `--nginx-tcp-services` and `--nginx-udp-services`.

use std::time::Duration;

use super::config_value::{count, set};
use crate::api::ingress_nginx::flag;
use crate::snapshot::location_snippet::parse_time;

/// What applies to all ports. Sessions of UDP have none of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StreamDefaults {
    /// After which time without data a connection is closed.
    pub idle_timeout: Duration,
    /// Whether the ConfigMap sets it.
    pub has_idle_timeout: bool,
    /// Whether a connection goes to another endpoint if one cannot be reached.
    tries_others: bool,
    /// To how many endpoints in all; 0 for all of them.
    tries: usize,
    /// After which time no other endpoint follows; zero for none.
    tries_time: Duration,
}

impl Default for StreamDefaults {
    fn default() -> Self {
        StreamDefaults {
            idle_timeout: DEFAULT_TIMEOUT,
            has_idle_timeout: false,
            tries_others: true,
            tries: 3,
            tries_time: DEFAULT_TIMEOUT,
        }
    }
}

impl StreamDefaults {
    /// Sets one of [`NAMES`]; `None` if the value is bad.
    pub(super) fn set(&mut self, name: &str, text: &str) -> Option<()> {
        match name {
            IDLE_TIMEOUT => {
                set(&mut self.idle_timeout, parse_time(text).filter(|time| !time.is_zero()))?;
                self.has_idle_timeout = true;
                Some(())
            }
            NEXT_UPSTREAM => set(&mut self.tries_others, flag(text)),
            NEXT_UPSTREAM_TIMEOUT => set(&mut self.tries_time, parse_time(text)),
            NEXT_UPSTREAM_TRIES => set(&mut self.tries, count(text).and_then(|tries| tries.try_into().ok())),
            // Clients get all replies of a session, however many are expected.
            RESPONSES => count(text).map(drop),
            _ => None,
        }
    }

    /// To how many endpoints a connection is tried.
    pub(super) fn attempts(&self) -> usize {
        match (self.tries_others, self.tries) {
            (false, _) => 1,
            (true, 0) => usize::MAX,
            (true, tries) => tries,
        }
    }

    /// After which time no other endpoint is tried.
    pub(super) fn attempts_time(&self) -> Option<Duration> {
        (!self.tries_time.is_zero()).then_some(self.tries_time)
    }
}

/// After which time without data a connection is closed.
pub(super) const IDLE_TIMEOUT: &str = "proxy-stream-timeout";
const NEXT_UPSTREAM: &str = "proxy-stream-next-upstream";
const NEXT_UPSTREAM_TIMEOUT: &str = "proxy-stream-next-upstream-timeout";
const NEXT_UPSTREAM_TRIES: &str = "proxy-stream-next-upstream-tries";
const RESPONSES: &str = "proxy-stream-responses";

/// The keys.
pub(super) const NAMES: &[&str] = &[IDLE_TIMEOUT, NEXT_UPSTREAM, NEXT_UPSTREAM_TIMEOUT, NEXT_UPSTREAM_TRIES, RESPONSES];

/// The timeouts of ingress-nginx.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> StreamDefaults {
        let mut defaults = StreamDefaults::default();
        defaults.set(name, text).unwrap();
        defaults
    }

    #[test]
    fn times_are_in_the_notation_of_nginx() {
        let defaults = StreamDefaults::default();
        assert_eq!((defaults.idle_timeout, defaults.has_idle_timeout), (Duration::from_secs(600), false));
        assert_eq!((defaults.attempts(), defaults.attempts_time()), (3, Some(Duration::from_secs(600))));
        assert_eq!(of(IDLE_TIMEOUT, "1h30m").idle_timeout, Duration::from_secs(5400));
        assert_eq!(of(IDLE_TIMEOUT, "20").idle_timeout, Duration::from_secs(20));
        assert!(of(IDLE_TIMEOUT, "20").has_idle_timeout);
        assert_eq!(of(NEXT_UPSTREAM_TIMEOUT, "0").attempts_time(), None);
        assert_eq!(of(NEXT_UPSTREAM_TIMEOUT, "500ms").attempts_time(), Some(Duration::from_millis(500)));
    }

    #[test]
    fn endpoints_are_counted() {
        assert_eq!(of(NEXT_UPSTREAM, "false").attempts(), 1);
        assert_eq!(of(NEXT_UPSTREAM_TRIES, "0").attempts(), usize::MAX);
        assert_eq!(of(NEXT_UPSTREAM_TRIES, "7").attempts(), 7);
        assert_eq!(of(RESPONSES, "2"), StreamDefaults::default());
    }

    #[test]
    fn bad_values_keep_defaults() {
        for (name, text) in [
            (IDLE_TIMEOUT, "0"),
            (IDLE_TIMEOUT, "soon"),
            (NEXT_UPSTREAM, "on"),
            (NEXT_UPSTREAM_TIMEOUT, "-1"),
            (NEXT_UPSTREAM_TRIES, "-1"),
            (RESPONSES, "many"),
            ("proxy-stream-other", "1"),
        ] {
            let mut defaults = StreamDefaults::default();
            assert_eq!(defaults.set(name, text), None, "{name}: {text}");
            assert_eq!(defaults, StreamDefaults::default(), "{name}: {text}");
        }
    }
}
