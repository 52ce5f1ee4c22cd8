//! The retries and timeouts that the Service of a request configures, as far as its rule has none: pure decisions.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, Request, Response, StatusCode};

use super::attempt_error::AttemptError;
use super::attempt_policy::{NextAttempt, ReplayPolicy, Retry, RetryDelay};
use super::attempt_timeouts::TimeLimit;
use super::retry_after::requested_wait;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::router::is_call;
use crate::snapshot::timeouts_and_retries::TimeoutsAndRetries;
use crate::upstream::settings::{
    RequestTimeouts, RetryBackoff, RetryConditions, RetrySettings, is_gateway_error, is_server_error,
};
use crate::upstream::{AttemptSettings, GRPC_STATUS, ResponseTimes, RetryReason, RetryStop};

/// What the Service of a request configures for its attempts.
#[derive(Debug)]
pub(in crate::proxy) struct ServiceAttempts<'s> {
    /// `None` if the rule has retries.
    pub(super) retries: Option<RequestRetries<'s>>,
    /// Also if the rule has timeouts, which then apply.
    pub(super) timeouts: Option<&'s RequestTimeouts>,
    pub(super) response_times: Option<&'s ResponseTimes>,
    /// When the request must be complete.
    pub(super) limit: Option<TimeLimit>,
}

/// The retries of a Service, for one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestRetries<'s> {
    pub(super) settings: &'s RetrySettings,
    /// Whether the settings or the client call the request idempotent, whatever its method is.
    pub(super) is_idempotent: bool,
    /// The number of the attempt as which the request has arrived, according to its attempt header. 1 unless an
    /// earlier gateway has sent it again.
    arrived_as: u32,
}

impl<'s> ServiceAttempts<'s> {
    pub(super) fn new<B>(
        settings: &'s AttemptSettings,
        rule: Option<&TimeoutsAndRetries>,
        request: &Request<B>,
    ) -> Self {
        let has_own_retries = rule.is_some_and(|rule| rule.retry.is_some() && !rule.retry_is_of_service);
        let retries = settings.retries.as_deref().filter(|_| !has_own_retries);
        ServiceAttempts {
            retries: retries.map(|settings| RequestRetries::new(settings, request.headers())),
            timeouts: settings.timeouts.as_deref(),
            response_times: settings.response_times.as_deref(),
            limit: None,
        }
    }
}

impl<'s> RequestRetries<'s> {
    fn new(settings: &'s RetrySettings, headers: &HeaderMap) -> Self {
        let attempt_header = settings.attempt_header.as_ref().filter(|_| settings.respects_attempt);
        let arrived_as = attempt_header.and_then(|name| headers.get(name)?.to_str().ok()?.parse().ok());
        let has_key = || settings.trust_idempotency_key && headers.contains_key(IDEMPOTENCY_KEY);
        RequestRetries {
            settings,
            is_idempotent: settings.non_idempotent || has_key(),
            arrived_as: arrived_as.unwrap_or(1).max(1),
        }
    }

    /// Whether requests that may have been processed are sent again, so that their bodies are kept.
    pub(super) fn repeats_processed(&self) -> bool {
        let RetryConditions { reset, timeout, gateway_error, server_error, codes, grpc_codes, headers, .. } =
            &self.settings.on;
        let is_any_set = *reset || *timeout || *gateway_error || *server_error;
        let is_any_listed = !codes.is_empty() || !grpc_codes.is_empty() || !headers.is_empty();
        self.settings.hedge.is_some() || self.settings.attempts > 0 && (is_any_set || is_any_listed)
    }

    /// The field with the number of the attempt. A request that an earlier gateway has sent again keeps its number, so
    /// that no later gateway sends it again either.
    pub(super) fn attempt_header(&self, attempt: u32) -> Option<(&'s HeaderName, u32)> {
        Some((self.settings.attempt_header.as_ref()?, attempt.max(self.arrived_as)))
    }

    /// What follows an attempt, after this number of retries. `has_others`: whether there is an endpoint that was not
    /// tried.
    pub(super) fn next<B>(
        &self,
        retries: usize,
        replay: ReplayPolicy,
        outcome: Result<&Response<B>, &AttemptError>,
        has_others: impl FnOnce() -> bool,
    ) -> NextAttempt {
        if self.settings.attempts == 0 {
            return NextAttempt::Never;
        }
        if self.settings.on.reset && matches!(outcome, Err(AttemptError::Failed(RequestError::NoResponse))) {
            return NextAttempt::Stop(RetryStop::Started);
        }
        let Some(reason) = self.reason(outcome) else { return NextAttempt::Never };
        let may_be_processed = !matches!(reason, RetryReason::ConnectFailure | RetryReason::RefusedStream);
        if may_be_processed && !replay.idempotent {
            return NextAttempt::Never;
        }
        if self.arrived_as > 1 || retries >= self.settings.attempts as usize {
            return NextAttempt::Stop(RetryStop::Attempts);
        }
        if may_be_processed && !replay.complete && !replay.keeps_sent {
            return NextAttempt::Stop(RetryStop::Body);
        }
        let delay = match self.requested_wait(outcome) {
            Some(wait) if wait > self.settings.max_retry_after => return NextAttempt::Stop(RetryStop::Deadline),
            Some(wait) => RetryDelay::Requested(wait),
            None if !has_others() => RetryDelay::SameEndpoint,
            None if reason == RetryReason::ConnectFailure => RetryDelay::None,
            None => RetryDelay::Backoff,
        };
        NextAttempt::Retry(Retry { reason, delay })
    }

    /// Whether the response ends a request for which two attempts compete.
    pub(super) fn is_good<B>(&self, response: &Response<B>) -> bool {
        let is_failure = response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS;
        !is_failure && self.reason(Ok(response)).is_none()
    }

    /// The wait that a response requests.
    fn requested_wait<B>(&self, outcome: Result<&Response<B>, &AttemptError>) -> Option<Duration> {
        let response = outcome.ok()?;
        let may_request = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&response.status());
        if !may_request {
            return None;
        }
        requested_wait(response.headers(), self.settings.reset_header.as_ref(), SystemTime::now())
    }

    /// The condition that the outcome meets. `None` if it is not retried.
    fn reason<B>(&self, outcome: Result<&Response<B>, &AttemptError>) -> Option<RetryReason> {
        let on = &self.settings.on;
        match outcome {
            Ok(response) => {
                // An endpoint or proxy that is overloaded would only get more to do.
                if is_overloaded(response) || response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    return None;
                }
                let status = response.status().as_u16();
                let is_listed = on.codes.binary_search(&status).is_ok()
                    || on.gateway_error && is_gateway_error(status)
                    || on.server_error && is_server_error(status);
                if is_listed {
                    Some(RetryReason::Status)
                } else if grpc_status(response).is_some_and(|status| on.grpc_codes.binary_search(&status).is_ok()) {
                    Some(RetryReason::GrpcStatus)
                } else if on.headers.iter().any(|name| response.headers().contains_key(name)) {
                    Some(RetryReason::Header)
                } else {
                    None
                }
            }
            Err(error) => {
                let reason = error.retry_reason()?;
                let is_on = match reason {
                    RetryReason::ConnectFailure => on.connect_failure,
                    RetryReason::RefusedStream => on.refused_stream,
                    RetryReason::Reset => on.reset,
                    RetryReason::Timeout => on.timeout,
                    RetryReason::Status
                    | RetryReason::GrpcStatus
                    | RetryReason::Header
                    | RetryReason::InvalidResponse => false,
                };
                is_on.then_some(reason)
            }
        }
    }

    /// The delay before the retry that follows so many retries. `random` is in 0..=1.
    pub(super) fn delay(&self, delay: RetryDelay, retries: usize, random: f64) -> Duration {
        let RetryBackoff { base, max } = self.settings.backoff;
        let doublings = u32::try_from(retries).unwrap_or(u32::MAX);
        let backoff = base.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(max).mul_f64(random);
        match delay {
            RetryDelay::None => Duration::ZERO,
            RetryDelay::Backoff => backoff,
            RetryDelay::SameEndpoint => backoff.max(base),
            RetryDelay::Requested(wait) => backoff.max(wait.saturating_add(wait.mul_f64(random / 2.0))),
        }
    }
}

/// The gRPC status of a response that consists of trailers only, which have no body before them.
fn grpc_status<B>(response: &Response<B>) -> Option<u16> {
    let status = response.headers().get(GRPC_STATUS)?;
    if is_call(response.headers()) { status.to_str().ok()?.parse().ok() } else { None }
}

/// Whether a proxy in front of the endpoint has rejected the request, because there are too many. Only the fields of
/// errors are read, since this applies to every response.
pub(super) fn is_overloaded<B>(response: &Response<B>) -> bool {
    response.status().as_u16() >= 400 && response.headers().contains_key(OVERLOADED)
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Envoy marks its own rejections with this field, and retries no response that has it.
pub(super) const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

#[cfg(test)]
mod tests;
