//! Timeouts and retries of route rules (GEP-1742 and GEP-1731; for Kong, the timeouts and `retries` of a service).

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// The timeouts and retries that a rule configures. Default if it configures none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeoutsAndRetries {
    pub request: RequestTimeout,
    pub backend_request: RequestTimeout,
    /// For connecting to one endpoint (`connect-timeout`).
    pub connect: EndpointTimeout,
    /// How long an endpoint may stop reading while there is more of the request to send (`write-timeout`).
    pub write: EndpointTimeout,
    /// How long an endpoint may be idle before the response and between its parts (`read-timeout`).
    pub read: EndpointTimeout,
    pub retry: Option<RetryPolicy>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestTimeout {
    /// Not configured: the proxy's default applies.
    #[default]
    Unset,
    /// Zero: no timeout.
    Unlimited,
    After(Duration),
}

/// An idle timeout, in milliseconds. Unset means the proxy's default; unlimited is stored as `u32::MAX`, about seven
/// weeks.
///
/// Stored in 32 bits because every connection keeps the timeouts of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointTimeout(Option<NonZeroU32>);

impl EndpointTimeout {
    pub fn duration(self) -> Option<Duration> {
        self.0.map(|milliseconds| Duration::from_millis(milliseconds.get().into()))
    }

    pub fn is_set(self) -> bool {
        self.0.is_some()
    }
}

impl From<RequestTimeout> for EndpointTimeout {
    fn from(limit: RequestTimeout) -> Self {
        EndpointTimeout(match limit {
            RequestTimeout::Unset => None,
            RequestTimeout::Unlimited => Some(NonZeroU32::MAX),
            RequestTimeout::After(duration) => {
                let milliseconds = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
                Some(NonZeroU32::new(milliseconds).unwrap_or(NonZeroU32::MIN))
            }
        })
    }
}

/// When and how often a request is retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Retries after the first attempt. 0 also disables retries of failed connects.
    pub attempts: u32,
    /// Response statuses that are retried, sorted.
    pub codes: Box<[u16]>,
    /// The delay before the first retry; it doubles with every further retry.
    pub backoff: Duration,
}

impl RequestTimeout {
    pub fn duration(self) -> Option<Duration> {
        match self {
            RequestTimeout::Unset | RequestTimeout::Unlimited => None,
            RequestTimeout::After(duration) => Some(duration),
        }
    }
}

impl TimeoutsAndRetries {
    /// The timeouts and retries of a Kong service: idle timeouts, and immediate retries, on another endpoint if there
    /// is one.
    pub fn for_kong_service(connect: Duration, write: Duration, read: Duration, retries: u32) -> Self {
        let [connect, write, read] = [connect, write, read].map(|limit| RequestTimeout::After(limit).into());
        let retry = Some(RetryPolicy { attempts: retries, codes: [].into(), backoff: Duration::ZERO });
        TimeoutsAndRetries { connect, write, read, retry, ..TimeoutsAndRetries::default() }
    }

    /// The defaults of a Kong service, without annotations.
    pub fn kong_default() -> Self {
        let minute = Duration::from_secs(60);
        TimeoutsAndRetries::for_kong_service(minute, minute, minute, 5)
    }

    /// Whether nothing is configured.
    pub fn is_empty(&self) -> bool {
        *self == TimeoutsAndRetries::default()
    }

    /// Whether the rule sets a timeout for the response, which replaces the proxy's default.
    pub fn sets_response_timeout(&self) -> bool {
        self.request != RequestTimeout::Unset || self.backend_request != RequestTimeout::Unset
    }
}

impl RetryPolicy {
    /// The default back-off before the first retry.
    pub const BACKOFF: Duration = Duration::from_millis(25);

    /// The delay before retry number `further`, counted from 0: at least the exponential back-off, and up to half as
    /// much again, so that requests that failed together do not retry together. `dice` is a random number in 0..=1.
    pub fn backoff_delay(&self, further: u32, dice: f64) -> Duration {
        let most = self.backoff.saturating_mul(MAX_BACKOFF_FACTOR);
        let wait = self.backoff.saturating_mul(1_u32.checked_shl(further.min(16)).unwrap_or(u32::MAX)).min(most);
        wait.saturating_add(wait.mul_f64(dice.clamp(0.0, 1.0) / 2.0))
    }
}

/// The longest delay, as a multiple of the first.
const MAX_BACKOFF_FACTOR: u32 = 10;

/// Text for dumps, one line for each configured value.
impl TimeoutsAndRetries {
    pub(super) fn describe(&self) -> Vec<String> {
        let TimeoutsAndRetries { request, backend_request, connect, write, read, retry } = self;
        let limits = [("request", request), ("backendRequest", backend_request)].into_iter();
        let limits =
            limits.filter(|(_, limit)| **limit != RequestTimeout::Unset).map(|(name, limit)| format!("{name} {limit}"));
        let timeouts = [("connect", connect), ("write", write), ("read", read)].into_iter();
        let timeouts = timeouts.filter(|(_, timeout)| timeout.is_set());
        let timeouts = timeouts.map(|(name, timeout)| format!("{name} {timeout}"));
        limits.chain(timeouts).chain(retry.iter().map(RetryPolicy::to_string)).collect()
    }
}

impl fmt::Display for RequestTimeout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestTimeout::Unset => Ok(()),
            RequestTimeout::Unlimited => formatter.write_str("unlimited"),
            RequestTimeout::After(duration) => write!(formatter, "{duration:?}"),
        }
    }
}

impl fmt::Display for EndpointTimeout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(NonZeroU32::MAX) => RequestTimeout::Unlimited.fmt(formatter),
            _ => self.duration().map_or(RequestTimeout::Unset, RequestTimeout::After).fmt(formatter),
        }
    }
}

impl fmt::Display for RetryPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "retries {}", self.attempts)?;
        if !self.codes.is_empty() {
            let codes: Vec<_> = self.codes.iter().map(ToString::to_string).collect();
            write!(formatter, ", also on {}", codes.join(", "))?;
        }
        write!(formatter, ", after {:?}", self.backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_the_cap() {
        let retry = |backoff| RetryPolicy { attempts: 1, codes: [].into(), backoff: Duration::from_millis(backoff) };
        // (backoff, retry, dice, milliseconds)
        let cases = [
            (100, 0, 0.0, 100),
            (100, 0, 1.0, 150),
            (100, 1, 0.0, 200),
            (100, 2, 0.5, 500),
            (100, 3, 0.0, 800),
            (100, 4, 0.0, 1000),
            (100, 99, 1.0, 1500),
            (0, 5, 1.0, 0),
        ];
        for (backoff, further, dice, expected) in cases {
            let wait = retry(backoff).backoff_delay(further, dice);
            assert_eq!(wait, Duration::from_millis(expected), "{backoff} {further} {dice}");
        }
        assert!(
            RetryPolicy { backoff: Duration::MAX, ..retry(0) }.backoff_delay(u32::MAX, 1.0) >= Duration::from_secs(1)
        );
    }
}
