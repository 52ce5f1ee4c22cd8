//! Timeouts and retries of route rules (GEP-1742 and GEP-1731), and those that a Service configures.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// The timeouts and retries that a rule configures. The default value configures none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeoutsAndRetries {
    /// For the whole request, with all retries (`timeouts.request`).
    pub request: TimeoutSetting,
    /// For one attempt (`timeouts.backendRequest`).
    pub backend_request: TimeoutSetting,
    /// For connecting to one endpoint (`connect-timeout`).
    pub connect: EndpointTimeout,
    /// How long the proxy may wait until it can send the next part of the request (`write-timeout`).
    pub write: EndpointTimeout,
    /// How long the proxy may wait for the start of the response or for its next part (`read-timeout`).
    pub read: EndpointTimeout,
    pub retry: Option<RetryPolicy>,
    /// The retries are those of annotations of a Service, or their defaults, which a policy of the Service precedes.
    pub retry_is_of_service: bool,
}

/// The setting of one timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeoutSetting {
    /// Not configured: the proxy's default applies.
    #[default]
    Unset,
    /// Zero: no timeout.
    Unlimited,
    After(Duration),
}

/// A timeout for connecting, writing or reading, in milliseconds. `None` means the proxy's default; unlimited is stored
/// as `u32::MAX`, about seven weeks.
///
/// Stored in 32 bits to save memory, because every connection keeps the timeouts of its request.
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

impl From<TimeoutSetting> for EndpointTimeout {
    fn from(timeout: TimeoutSetting) -> Self {
        EndpointTimeout(match timeout {
            TimeoutSetting::Unset => None,
            TimeoutSetting::Unlimited => Some(NonZeroU32::MAX),
            TimeoutSetting::After(duration) => {
                let milliseconds = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
                // Anything shorter, including zero, becomes one millisecond.
                Some(NonZeroU32::new(milliseconds).unwrap_or(NonZeroU32::MIN))
            }
        })
    }
}

impl From<NonZeroU32> for EndpointTimeout {
    fn from(milliseconds: NonZeroU32) -> Self {
        EndpointTimeout(Some(milliseconds))
    }
}

/// When and how often a request is retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The number of retries after the first attempt. Without a policy, a request whose connect failed is still sent to
    /// other endpoints; 0 disables that, too.
    pub max_retries: u32,
    /// Response statuses that are retried, sorted.
    pub codes: Box<[u16]>,
    /// The delay before the first retry; it doubles with every further retry.
    pub backoff: Duration,
    pub scope: RetryScope,
}

/// Which failures and requests are retried, and for how long. The default value is that of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryScope {
    /// No connection, one that closes before a response, and requests that the endpoint did not process.
    pub errors: bool,
    /// Connecting, or an attempt, takes longer than its timeout.
    pub timeouts: bool,
    /// Responses that cannot be read.
    pub invalid_responses: bool,
    /// Requests that may have been processed are retried with any method. Otherwise, only idempotent ones are.
    pub non_idempotent: bool,
    /// How long after the beginning of the first attempt another one may begin.
    pub window: Option<Duration>,
}

impl Default for RetryScope {
    fn default() -> Self {
        RetryScope { errors: true, timeouts: true, invalid_responses: false, non_idempotent: false, window: None }
    }
}

impl TimeoutSetting {
    pub fn duration(self) -> Option<Duration> {
        match self {
            TimeoutSetting::Unset | TimeoutSetting::Unlimited => None,
            TimeoutSetting::After(duration) => Some(duration),
        }
    }
}

impl TimeoutsAndRetries {
    /// Timeouts for each attempt, and retries without delay, which use another endpoint if there is one.
    pub fn per_attempt(connect: Duration, write: Duration, read: Duration, retries: u32) -> Self {
        let [connect, write, read] = [connect, write, read].map(|timeout| TimeoutSetting::After(timeout).into());
        let scope = RetryScope::default();
        let retry = Some(RetryPolicy { max_retries: retries, codes: [].into(), backoff: Duration::ZERO, scope });
        TimeoutsAndRetries { connect, write, read, retry, retry_is_of_service: true, ..TimeoutsAndRetries::default() }
    }

    /// Whether nothing is configured.
    pub fn is_empty(&self) -> bool {
        *self == TimeoutsAndRetries::default()
    }

    /// Whether the rule sets any timeout.
    pub fn sets_timeout(&self) -> bool {
        self.sets_response_timeout() || self.connect.is_set() || self.write.is_set() || self.read.is_set()
    }

    /// Whether the rule sets a timeout for the response, which replaces the proxy's default.
    pub fn sets_response_timeout(&self) -> bool {
        self.request != TimeoutSetting::Unset || self.backend_request != TimeoutSetting::Unset
    }
}

impl RetryPolicy {
    /// The default back-off before the first retry.
    pub const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);

    /// The delay before a retry; the first retry has the index 0. The delay is the exponential back-off plus up to half
    /// of it, so that requests that failed together do not retry together. `random` is a number in 0..=1.
    pub fn backoff_delay(&self, retry_index: u32, random: f64) -> Duration {
        let max_delay = self.backoff.saturating_mul(MAX_BACKOFF_FACTOR);
        let delay = self.backoff.saturating_mul(1_u32.checked_shl(retry_index).unwrap_or(u32::MAX)).min(max_delay);
        delay.saturating_add(delay.mul_f64(random.clamp(0.0, 1.0) / 2.0))
    }
}

/// The longest back-off, as a multiple of the first.
const MAX_BACKOFF_FACTOR: u32 = 10;

impl TimeoutsAndRetries {
    /// Text for dumps, one line for each configured value.
    pub(super) fn describe(&self) -> Vec<String> {
        let TimeoutsAndRetries { request, backend_request, connect, write, read, retry, retry_is_of_service: _ } = self;
        let request_timeouts = [("request", request), ("backendRequest", backend_request)].into_iter();
        let request_timeouts = request_timeouts.filter(|(_, timeout)| **timeout != TimeoutSetting::Unset);
        let request_timeouts = request_timeouts.map(|(name, timeout)| format!("{name} {timeout}"));
        let endpoint_timeouts = if connect.is_set() && connect == write && write == read {
            vec![format!("connect, write, read {connect}")]
        } else {
            let all = [("connect", connect), ("write", write), ("read", read)].into_iter();
            all.filter(|(_, timeout)| timeout.is_set()).map(|(name, timeout)| format!("{name} {timeout}")).collect()
        };
        request_timeouts.chain(endpoint_timeouts).chain(retry.iter().map(RetryPolicy::to_string)).collect()
    }
}

impl fmt::Display for TimeoutSetting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TimeoutSetting::Unset => Ok(()),
            TimeoutSetting::Unlimited => formatter.write_str("unlimited"),
            TimeoutSetting::After(duration) => write!(formatter, "{duration:?}"),
        }
    }
}

impl fmt::Display for EndpointTimeout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(NonZeroU32::MAX) => TimeoutSetting::Unlimited.fmt(formatter),
            _ => self.duration().map_or(TimeoutSetting::Unset, TimeoutSetting::After).fmt(formatter),
        }
    }
}

impl fmt::Display for RetryPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "retries {}", self.max_retries)?;
        if !self.codes.is_empty() {
            let codes: Vec<_> = self.codes.iter().map(ToString::to_string).collect();
            // In addition to failed connects.
            write!(formatter, ", also on {}", codes.join(", "))?;
        }
        write!(formatter, ", after {:?}", self.backoff)?;
        self.scope.fmt(formatter)
    }
}

/// What differs from the default.
impl fmt::Display for RetryScope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RetryScope { errors, timeouts, invalid_responses, non_idempotent, window } = *self;
        for (is_listed, text) in [
            (!errors, ", not after errors"),
            (!timeouts, ", not after timeouts"),
            (invalid_responses, ", also after invalid responses"),
            (non_idempotent, ", also of requests that are not idempotent"),
        ] {
            formatter.write_str(if is_listed { text } else { "" })?;
        }
        window.map_or(Ok(()), |window| write!(formatter, ", within {window:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_the_cap() {
        let retry = |backoff| RetryPolicy {
            max_retries: 1,
            codes: [].into(),
            backoff: Duration::from_millis(backoff),
            scope: RetryScope::default(),
        };
        // (first back-off, index of the retry, random number, delay)
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
        for (backoff, retry_index, random, expected) in cases {
            let delay = retry(backoff).backoff_delay(retry_index, random);
            assert_eq!(delay, Duration::from_millis(expected), "{backoff} {retry_index} {random}");
        }
        // The greatest values do not overflow, which would panic.
        let longest = RetryPolicy { backoff: Duration::MAX, ..retry(0) };
        assert!(longest.backoff_delay(u32::MAX, 1.0) >= Duration::from_secs(1));
    }

    #[test]
    fn dumps_have_what_differs_from_the_retries_of_routes() {
        let default = RetryScope::default();
        for (scope, expected) in [
            (default, "retries 2, also on 503, after 0ns"),
            (
                RetryScope { errors: false, timeouts: false, ..default },
                "retries 2, also on 503, after 0ns, not after errors, not after timeouts",
            ),
            (
                RetryScope { non_idempotent: true, window: Some(Duration::from_secs(5)), ..default },
                "retries 2, also on 503, after 0ns, also of requests that are not idempotent, within 5s",
            ),
        ] {
            let policy = RetryPolicy { max_retries: 2, codes: [503].into(), backoff: Duration::ZERO, scope };
            assert_eq!(policy.to_string(), expected);
        }
    }
}
