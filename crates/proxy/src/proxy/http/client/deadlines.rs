//! The deadlines of a connection of a client or of an HTTP/2 stream, which follow from its state.
//!
//! A connection has a single timer. It is reset only if a phase needs an earlier deadline, so a request on a
//! kept-alive connection does not touch the timer at all.
//!
//! | phase | begins when | next phase | timeout |
//! | --- | --- | --- | --- |
//! | `Idle` | the connection opens; a request has ended | `ReadingHead`; `AwaitingResponse` | idle |
//! | `ReadingHead` | the first byte arrives | `AwaitingResponse`; `SendingResponse` if malformed | header |
//! | `AwaitingResponse` | a head is complete | `SendingResponse`; `Idle` on disconnect | body, rate, rule, response |
//! | `SendingResponse` | the response has a head | `Idle`; `Tunnel` if upgraded | stall, rate, or the rule's deadline |
//! | `Tunnel` | an upgrade was accepted | `Idle`, when the connection closes | tunnel idle |
//!
//! `AwaitingResponse` directly follows `Idle` if the head arrived together with the previous request, and on HTTP/2
//! streams, which begin with a head. An HTTP/2 connection itself stays `Idle`: its streams have the other phases.
//! Within `SendingResponse`, a client that does not read has less time while connections to endpoints are scarce, or
//! bytes of which its response holds some: those that the process may hold for connections of HTTP/2, or those of
//! bodies in memory. Within `AwaitingResponse`, [`UploadState`] and `connecting` select the timeout. What belongs to
//! one request is reset by [`Activity::begin_request`] only.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::limits::ProxyLimits;
use crate::proxy::connection::moving_deadline::poll_until;
use crate::proxy::http::exchange::activity::{Activity, ActivityPhase, UploadState};
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::exchange::minimum_rate::RateMeter;

/// When the timer of a new connection fires. Not later than the first request needs it, so that it is not reset for
/// that. Without a request until then, it is reset once.
pub(in crate::proxy) fn first_deadline(exchange: &ClientExchange) -> Instant {
    let limits = &exchange.worker().limits;
    let head_deadline = exchange.activity.last_progress() + limits.header_timeout;
    head_deadline.min(deadline(&exchange.activity, limits, idle_timeout(exchange)))
}

/// How long the connection may be idle.
pub(in crate::proxy) fn idle_timeout(exchange: &ClientExchange) -> Duration {
    let keep_alive = exchange.worker().limits.client_idle_timeout;
    if !exchange.connections.is_closing() {
        keep_alive
    } else if exchange.activity.requests.get() == 0 {
        // The first request of a new connection may be in flight already.
        FIRST_REQUEST_GRACE.min(keep_alive)
    } else {
        CLOSING_KEEP_ALIVE.min(keep_alive)
    }
}

/// When the current phase times out. `idle_timeout` is shorter while the listener closes.
pub(in crate::proxy) fn deadline(activity: &Activity, limits: &ProxyLimits, idle_timeout: Duration) -> Instant {
    let timeout = match activity.phase() {
        ActivityPhase::Idle => idle_timeout,
        ActivityPhase::ReadingHead => limits.header_timeout,
        ActivityPhase::AwaitingResponse if activity.upload() == UploadState::AwaitingClient => {
            limits.request_body_timeout
        }
        ActivityPhase::AwaitingResponse => endpoint_timeout(activity, limits),
        // The client may be the stalled side too, so a rule can only raise this timeout.
        ActivityPhase::SendingResponse => {
            let timeouts = activity.rule_timeouts.get();
            timeouts.stream_idle().unwrap_or(limits.stall_timeout).max(timeouts.read().unwrap_or_default())
        }
        ActivityPhase::Tunnel => {
            let timeouts = activity.rule_timeouts.get();
            timeouts.stream_idle().unwrap_or(limits.upgrade_idle_timeout).max(timeouts.read().unwrap_or_default())
        }
    };
    let end = activity.last_progress() + timeout;
    let limit = match activity.phase() {
        // While the client does not read, the response body is not polled and cannot enforce its own deadline.
        ActivityPhase::SendingResponse => activity.response_deadline.get(),
        // The deadline of a response ends with its head if it is an upgrade.
        ActivityPhase::Tunnel => {
            let max_duration = activity.rule_timeouts.get().max_duration();
            max_duration.map(|duration| activity.started_at.get() + duration)
        }
        ActivityPhase::Idle | ActivityPhase::ReadingHead | ActivityPhase::AwaitingResponse => None,
    };
    let end = limit.map_or(end, |limit| limit.min(end));
    rate_deadline(activity).map_or(end, |deadline| deadline.min(end))
}

/// Ready when the current phase has timed out.
pub(in crate::proxy) fn poll_timeout(
    exchange: &ClientExchange,
    idle_timeout: Duration,
    timer: Pin<&mut Sleep>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let (activity, limits) = (&exchange.activity, &exchange.worker().limits);
    let mut timer = timer;
    loop {
        let deadline = deadline(activity, limits, idle_timeout);
        let check_at = match activity.upload() {
            UploadState::Complete => deadline,
            // Another task may read the body. It does not wake this one when it begins to wait for the client or
            // the endpoint, so the deadline is computed again after the shortest timeout of these waits.
            UploadState::AwaitingEndpoint | UploadState::AwaitingClient => {
                let timeouts = activity.rule_timeouts.get();
                let rate_limit = activity.request_meter().map(|_| limits.min_rate_grace_period);
                let rule_limits = [timeouts.write(), timeouts.read(), timeouts.stream_idle(), rate_limit];
                let rule_limits = rule_limits.into_iter().flatten();
                deadline.min(Instant::now() + rule_limits.fold(limits.request_body_timeout, Ord::min))
            }
        };
        let stall_check = activity.next_stall_check.get().max(activity.last_progress() + limits.scarce_stall_timeout);
        if activity.phase() == ActivityPhase::SendingResponse && stall_check < check_at {
            ready!(poll_until(stall_check, timer.as_mut(), cx));
            let is_scarce = || exchange.http.upstream_sockets.is_scarce() || holds_scarce_bytes(exchange);
            if !activity.awaits_response_data.get() && is_scarce() {
                return Poll::Ready(());
            }
            activity.next_stall_check.set(Instant::now() + STALL_CHECK_INTERVAL.min(limits.scarce_stall_timeout));
            continue;
        }
        ready!(poll_until(check_at, timer.as_mut(), cx));
        if check_at >= deadline {
            return Poll::Ready(());
        }
    }
}

/// Whether the client has not read for too long what is left of a response of which the HTTP/2 library has all data. It
/// holds no connection to an endpoint any more.
pub(super) fn is_unread_too_long(exchange: &ClientExchange) -> bool {
    let (activity, limits) = (&exchange.activity, &exchange.worker().limits);
    let is_late = || deadline(activity, limits, limits.stall_timeout) <= Instant::now();
    if is_late() {
        exclude_pauses(activity, exchange.is_paused(), || exchange.paused());
    }
    let has_stalled = || activity.last_progress() + limits.scarce_stall_timeout <= Instant::now();
    is_late() || has_stalled() && holds_scarce_bytes(exchange)
}

/// How often the connection checks this.
pub(super) fn stall_check_interval(limits: &ProxyLimits) -> Duration {
    STALL_CHECK_INTERVAL.min(limits.scarce_stall_timeout).min(limits.stall_timeout)
}

/// Whether bytes are scarce of which a response holds some: those that connections of HTTP/2 hold, or those of bodies
/// in memory.
fn holds_scarce_bytes(exchange: &ClientExchange) -> bool {
    let worker = exchange.worker();
    exchange.unsent().is_some() && worker.unforwarded.is_scarce()
        || exchange.activity.keeps_body.get() && worker.buffers.is_scarce()
}

/// If the client has missed a minimum rate, does not count the time in which its connection was not read. If it is
/// not read now, the timeout of the request body begins again. Returns whether the client has not timed out then.
/// `paused` is how long the connection was not read since its beginning.
pub(in crate::proxy) fn exclude_pauses(
    activity: &Activity,
    is_paused: bool,
    paused: impl FnOnce() -> Duration,
) -> bool {
    let is_missed = || rate_deadline(activity).is_some_and(|deadline| deadline <= Instant::now());
    if let Some(rates) = activity.rates.as_ref().filter(|_| is_missed()) {
        rates.exclude_pauses(paused());
        return !is_missed();
    }
    let awaits_body =
        activity.phase() == ActivityPhase::AwaitingResponse && activity.upload() == UploadState::AwaitingClient;
    if is_paused && awaits_body {
        activity.record_progress();
    }
    is_paused && awaits_body
}

/// When the client is slower than a minimum rate, if Portico waits for it.
fn rate_deadline(activity: &Activity) -> Option<Instant> {
    let rates = activity.rates.as_ref()?;
    let awaits_body = activity.upload() == UploadState::AwaitingClient;
    let request = rates.request.as_ref().filter(|_| awaits_body).and_then(RateMeter::deadline);
    match activity.phase() {
        ActivityPhase::AwaitingResponse => request,
        ActivityPhase::SendingResponse => {
            let response = rates.response.as_ref().and_then(RateMeter::deadline);
            [request, response].into_iter().flatten().min()
        }
        ActivityPhase::Idle | ActivityPhase::ReadingHead | ActivityPhase::Tunnel => None,
    }
}

/// How long the endpoint may take: the rule's timeout if it has one, otherwise the default.
fn endpoint_timeout(activity: &Activity, limits: &ProxyLimits) -> Duration {
    let timeouts = activity.rule_timeouts.get();
    // Connecting has a timeout of its own. Unless the rule sets timeouts, it also counts toward the response
    // timeout.
    if activity.connecting.get() && !timeouts.is_unset() {
        return NO_TIMEOUT;
    }
    let timeout = if activity.upload() == UploadState::Complete {
        timeouts.read()
    } else {
        timeouts.write().or(timeouts.stream_idle())
    };
    timeout.unwrap_or(if timeouts.limits_response() { NO_TIMEOUT } else { limits.response_timeout })
}

/// How often a response whose client does not read is checked for whether what it holds is scarce.
const STALL_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Stands for "no timeout": long enough to never expire, short enough to be added to an `Instant`.
const NO_TIMEOUT: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
/// Idle timeout of a connection that has served requests before, once its listener closes.
const CLOSING_KEEP_ALIVE: Duration = Duration::from_millis(250);
/// Idle timeout of a connection without any request so far, once its listener closes.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);
/// How long the last bytes of a response may take after the graceful shutdown has begun.
pub(in crate::proxy) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the rest of a request that nothing forwards is read and discarded, and how much of it.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const LINGER_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The activity of a request with a body of which nothing has arrived.
    fn upload() -> Activity {
        let limits = ProxyLimits { client_min_rate: 100, min_rate_grace_period: 10 * SECOND, ..ProxyLimits::default() };
        let activity = Activity::new(&limits);
        activity.begin_request();
        activity.mark_awaiting_client();
        activity
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_endpoint_do_not_count_toward_the_rate_of_a_body() {
        let activity = upload();
        advance(SECOND).await;
        activity.mark_awaiting_endpoint();
        advance(1000 * SECOND).await;
        activity.mark_awaiting_client();
        assert_eq!(rate_deadline(&activity), Some(Instant::now() + 9 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn time_after_a_body_does_not_count_toward_its_rate() {
        for (waited, reason) in [(9 * SECOND, None), (10 * SECOND, Some("slow_request_body"))] {
            let activity = upload();
            advance(waited).await;
            activity.mark_body_unread();
            activity.enter_phase(ActivityPhase::SendingResponse, Instant::now());
            advance(1000 * SECOND).await;
            assert_eq!((rate_deadline(&activity), activity.slow_client_reason()), (None, reason), "{waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn body_does_not_time_out_while_its_connection_is_not_read() {
        let limits = ProxyLimits::default();
        let activity = Activity::new(&limits);
        activity.begin_request();
        activity.mark_awaiting_client();
        let has_timed_out = || deadline(&activity, &limits, limits.client_idle_timeout) <= Instant::now();
        let exclude_pauses = |is_paused| exclude_pauses(&activity, is_paused, || Duration::ZERO);
        for _ in 0..2 {
            advance(limits.request_body_timeout).await;
            assert!(has_timed_out() && exclude_pauses(true) && !has_timed_out());
        }
        advance(limits.request_body_timeout).await;
        assert!(has_timed_out() && !exclude_pauses(false) && has_timed_out());
        activity.mark_awaiting_endpoint();
        assert!(!exclude_pauses(true), "the endpoint can read what has arrived");
    }
}
