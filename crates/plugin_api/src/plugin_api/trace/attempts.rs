//! Times of a completed request and the spans of its attempts, which all tracers have in the same way.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::context::{RequestTrace, SpanId};
use super::span::{AttributeValue, Span, SpanKind};
use crate::plugin_api::completed_request::{Attempt, AttemptOutcome, AuthorizationCall, AuthorizationResult};
use crate::turn_clock;

/// Converts moments of one request to nanoseconds since 1970. A moment before or after the request is its start or its
/// end, so that all spans are within that of the request.
#[derive(Clone, Copy, Debug)]
pub struct RequestClock {
    started_at: SystemTime,
    started_instant: Instant,
    total: Duration,
}

impl RequestClock {
    /// Both times of the start are of the same moment.
    pub fn new(started_at: SystemTime, started_instant: Instant, total: Duration) -> Self {
        RequestClock { started_at, started_instant, total }
    }

    /// The clock of a request that began at this moment and has ended.
    pub fn ended(started_instant: Instant, total: Duration) -> Self {
        RequestClock::new(turn_clock::to_system_time(started_instant), started_instant, total)
    }

    pub fn start(self) -> u64 {
        nanoseconds(self.started_at)
    }

    pub fn end(self) -> u64 {
        self.after(self.total)
    }

    /// The moment after this time since the first byte of the request.
    pub fn after(self, time: Duration) -> u64 {
        nanoseconds(self.started_at + time.min(self.total))
    }

    pub fn at(self, moment: Instant) -> u64 {
        self.after(moment.saturating_duration_since(self.started_instant))
    }
}

/// The span of each attempt, without attributes.
pub fn attempt_spans<'a>(
    attempts: &'a [Attempt],
    context: &'a RequestTrace,
    parent: SpanId,
    clock: RequestClock,
) -> impl Iterator<Item = (usize, &'a Attempt, Span)> + 'a {
    attempts.iter().enumerate().map(move |(index, attempt)| {
        // The order of the list is that of the ends, if two attempts have competed.
        let is_earlier = |(other, one): &(usize, &Attempt)| (one.started_at, *other) < (attempt.started_at, index);
        let number = attempts.iter().enumerate().filter(is_earlier).count();
        let span = Span {
            trace: context.trace,
            id: context.upstream_span.of_attempt(number),
            parent: Some(parent),
            name: Cow::Borrowed(""),
            kind: SpanKind::Client,
            start: clock.at(attempt.started_at),
            end: clock.at(attempt.started_at + attempt.total),
            attributes: Vec::new(),
            events: Vec::new(),
            error: attempt_error(attempt).map(Cow::Borrowed),
        };
        (index, attempt, span)
    })
}

/// The span of the call of an authorization server. One without a result has ended with the request.
pub fn authorization_span(context: &RequestTrace, call: &AuthorizationCall, clock: RequestClock) -> Span {
    let mut span = Span {
        trace: context.trace,
        id: SpanId::random(),
        parent: Some(context.server_span),
        name: Cow::Borrowed("external authorization"),
        kind: SpanKind::Client,
        start: clock.at(call.started_at),
        end: call.result.map_or(clock.end(), |(ended_at, _)| clock.at(ended_at)),
        attributes: Vec::new(),
        events: Vec::new(),
        error: None,
    };
    span.attribute("portico.upstream", call.server.as_str());
    let failure = match call.result.map(|(_, result)| result) {
        Some(AuthorizationResult::Allowed) => {
            span.attribute("portico.authorization", "allowed");
            return span;
        }
        Some(AuthorizationResult::Denied(status)) => {
            span.attribute("portico.authorization", "denied");
            span.attribute("http.response.status_code", status.as_u16());
            return span;
        }
        Some(AuthorizationResult::Failed(reason)) => reason,
        None => "unfinished",
    };
    span.attribute("error.type", failure);
    span.error = Some(Cow::Borrowed(failure));
    span
}

/// The status of the endpoint's response.
pub fn attempt_status(attempt: &Attempt) -> Option<AttributeValue> {
    match attempt.outcome {
        AttemptOutcome::Status(status) => Some(status.as_u16().into()),
        AttemptOutcome::Failed { .. } | AttemptOutcome::Unfinished => None,
    }
}

/// Why an attempt failed.
pub fn attempt_error(attempt: &Attempt) -> Option<&'static str> {
    match attempt.outcome {
        AttemptOutcome::Failed { reason, .. } => Some(reason),
        AttemptOutcome::Unfinished => Some("unfinished"),
        AttemptOutcome::Status(status) if status.is_server_error() => Some("status"),
        AttemptOutcome::Status(_) => None,
    }
}

/// A clock that was set back to before 1970 has zero.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn times_are_in_order_whatever_the_clock_of_the_machine_says() {
        let (second, now) = (Duration::from_secs(1), Instant::now());
        let clock = RequestClock::new(UNIX_EPOCH + second, now + second, second * 4);
        assert_eq!((clock.start(), clock.after(second)), (1_000_000_000, 2_000_000_000));
        // A moment before the start of the request is the start, and one after its end the end.
        assert_eq!((clock.at(now), clock.at(now + second * 3)), (1_000_000_000, 3_000_000_000));
        assert_eq!((clock.at(now + second * 9), clock.end()), (5_000_000_000, 5_000_000_000));
        let set_back = RequestClock::new(UNIX_EPOCH - second * 2, now, second * 9);
        assert_eq!((set_back.start(), set_back.after(second * 5)), (0, 3_000_000_000));
    }
}
