//! The timeouts of a request: those of its plugins, or else those of its rule, or else those of the Service.

use std::time::Duration;

use tokio::time::Instant;

use crate::plugin_api::endpoint_timeouts::EndpointTimeouts;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::timeouts_and_retries::{EndpointTimeout, TimeoutSetting, TimeoutsAndRetries};
use crate::upstream::settings::RequestTimeouts;

/// The timeouts of a request. One that is not set has the default of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct AttemptTimeouts {
    /// For the whole request, with all attempts.
    pub(in crate::proxy) request: TimeoutSetting,
    /// For one attempt.
    pub(in crate::proxy) backend_request: TimeoutSetting,
    pub(in crate::proxy) connect: EndpointTimeout,
    pub(in crate::proxy) write: EndpointTimeout,
    pub(in crate::proxy) read: EndpointTimeout,
    /// How long a request or response may stand still.
    pub(in crate::proxy) stream_idle: EndpointTimeout,
    /// For the whole exchange, also if it is a tunnel.
    pub(in crate::proxy) max_duration: EndpointTimeout,
}

impl AttemptTimeouts {
    /// The timeouts of the rule if its fields set any, otherwise those of the Service. Those for connecting, writing
    /// and reading are annotations of a Service, which its policy precedes. Connections to the endpoints have the
    /// connect timeout of the policy whatever the rule sets.
    pub(super) fn of(rule: Option<&TimeoutsAndRetries>, service: Option<&RequestTimeouts>) -> Self {
        match (rule, service) {
            (Some(rule), service) if service.is_none() || rule.sets_response_timeout() => {
                let TimeoutsAndRetries { request, backend_request, connect, write, read, .. } = *rule;
                AttemptTimeouts { request, backend_request, connect, write, read, ..AttemptTimeouts::default() }
            }
            (_, Some(service)) => AttemptTimeouts {
                request: setting(service.request),
                backend_request: setting(service.backend_request),
                stream_idle: setting(service.stream_idle).into(),
                max_duration: setting(service.max_duration).into(),
                ..AttemptTimeouts::default()
            },
            (None, None) | (Some(_), None) => AttemptTimeouts::default(),
        }
    }

    /// With those that plugins have set, which precede all others of the same kind.
    pub(super) fn replaced_by(self, plugins: EndpointTimeouts) -> Self {
        let EndpointTimeouts { connect, write, read } = plugins;
        AttemptTimeouts {
            connect: connect.map_or(self.connect, EndpointTimeout::from),
            write: write.map_or(self.write, EndpointTimeout::from),
            read: read.map_or(self.read, EndpointTimeout::from),
            ..self
        }
    }

    /// Whether the time for a response is set, which replaces the default.
    pub(in crate::proxy) fn limits_response(&self) -> bool {
        self.request != TimeoutSetting::Unset || self.backend_request != TimeoutSetting::Unset
    }

    /// The time in which all attempts and the response must end.
    pub(super) fn total(&self) -> Option<Duration> {
        [self.request.duration(), self.max_duration.duration()].into_iter().flatten().min()
    }

    /// When all attempts end that begin now: the earlier of the timeout of the request and the deadline of the call.
    pub(super) fn limit(&self, now: Instant, call_deadline: Option<Instant>) -> Option<TimeLimit> {
        let total = self.total().and_then(|total| now.checked_add(total));
        let of_request = total.map(|end| TimeLimit { end, error: RequestError::RequestTimeout });
        let of_call = call_deadline.map(|end| TimeLimit { end, error: RequestError::CallDeadline });
        TimeLimit::earlier(of_request, of_call)
    }
}

/// When a request and its response must be complete, and the error if they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct TimeLimit {
    pub(in crate::proxy) end: Instant,
    pub(in crate::proxy) error: RequestError,
}

impl TimeLimit {
    /// The earlier of two limits; the first one if both are equal.
    pub(super) fn earlier(first: Option<TimeLimit>, second: Option<TimeLimit>) -> Option<TimeLimit> {
        [first, second].into_iter().flatten().min_by_key(|limit| limit.end)
    }
}

fn setting(timeout: Option<Duration>) -> TimeoutSetting {
    match timeout {
        None => TimeoutSetting::Unset,
        Some(Duration::ZERO) => TimeoutSetting::Unlimited,
        Some(timeout) => TimeoutSetting::After(timeout),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn timeouts_of_the_rule_precede_those_of_the_service() {
        let of_rule =
            TimeoutsAndRetries { request: TimeoutSetting::After(2 * SECOND), ..TimeoutsAndRetries::default() };
        let annotated = TimeoutsAndRetries::per_attempt(SECOND, SECOND, SECOND, 5);
        let service = RequestTimeouts {
            request: Some(5 * SECOND),
            backend_request: Some(Duration::ZERO),
            max_duration: Some(9 * SECOND),
            ..RequestTimeouts::default()
        };
        let total = |rule, service| AttemptTimeouts::of(rule, service).total();
        assert_eq!(total(None, None), None);
        assert_eq!(total(Some(&of_rule), None), Some(2 * SECOND));
        assert_eq!(total(Some(&of_rule), Some(&service)), Some(2 * SECOND), "the block of the rule");
        assert_eq!(total(None, Some(&service)), Some(5 * SECOND));
        for rule in [None, Some(&annotated)] {
            let timeouts = AttemptTimeouts::of(rule, Some(&service));
            assert_eq!((timeouts.backend_request, timeouts.connect.is_set()), (TimeoutSetting::Unlimited, false));
        }
        assert!(AttemptTimeouts::of(Some(&annotated), None).connect.is_set());
    }

    #[test]
    fn timeouts_of_plugins_precede_those_of_the_rule() {
        let rule = TimeoutsAndRetries {
            request: TimeoutSetting::After(9 * SECOND),
            ..TimeoutsAndRetries::per_attempt(SECOND, SECOND, SECOND, 5)
        };
        let plugins = EndpointTimeouts { read: NonZeroU32::new(2000), ..EndpointTimeouts::default() };
        let timeouts = AttemptTimeouts::of(Some(&rule), None).replaced_by(plugins);
        let endpoint = [timeouts.connect, timeouts.write, timeouts.read].map(EndpointTimeout::duration);
        assert_eq!(endpoint, [Some(SECOND), Some(SECOND), Some(2 * SECOND)]);
        assert_eq!(timeouts.total(), Some(9 * SECOND));
    }

    #[test]
    fn earlier_time_limit_applies() {
        let now = Instant::now();
        let rule = TimeoutsAndRetries { request: TimeoutSetting::After(2 * SECOND), ..TimeoutsAndRetries::default() };
        let timeouts = AttemptTimeouts::of(Some(&rule), None);
        for (call, expected) in [
            (None, RequestError::RequestTimeout),
            (Some(SECOND), RequestError::CallDeadline),
            (Some(2 * SECOND), RequestError::RequestTimeout),
            (Some(3 * SECOND), RequestError::RequestTimeout),
        ] {
            let limit = timeouts.limit(now, call.map(|call| now + call)).unwrap();
            assert_eq!((limit.error, limit.end), (expected, now + call.unwrap_or(2 * SECOND).min(2 * SECOND)));
        }
        assert_eq!(AttemptTimeouts::default().limit(now, None), None);
    }

    #[test]
    fn longest_duration_limits_the_request() {
        let service = RequestTimeouts { max_duration: Some(SECOND), ..RequestTimeouts::default() };
        let timeouts = AttemptTimeouts::of(None, Some(&service));
        assert_eq!((timeouts.total(), timeouts.limits_response()), (Some(SECOND), false));
    }
}
