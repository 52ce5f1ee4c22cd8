//! Times of a completed request and the spans of its attempts, which all tracers have in the same way.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::context::{RequestTrace, SpanId};
use super::span::{AttributeValue, Span, SpanKind};
use crate::plugin_api::completed_request::{Attempt, AttemptOutcome};

/// Converts moments of one request to nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct RequestClock {
    started_at: SystemTime,
    started_instant: Instant,
}

impl RequestClock {
    pub fn new(started_at: SystemTime, started_instant: Instant) -> Self {
        RequestClock { started_at, started_instant }
    }

    pub fn start(self) -> u64 {
        nanoseconds(self.started_at)
    }

    /// The moment after this time since the first byte of the request.
    pub fn after(self, time: Duration) -> u64 {
        nanoseconds(self.started_at + time)
    }

    pub fn at(self, moment: Instant) -> u64 {
        self.after(moment.saturating_duration_since(self.started_instant))
    }
}

/// The span of each attempt, without attributes. The endpoint of the last one has its id as parent if
/// `last_is_upstream`.
pub fn attempt_spans<'a>(
    attempts: &'a [Attempt],
    context: &'a RequestTrace,
    parent: SpanId,
    last_is_upstream: bool,
    clock: RequestClock,
) -> impl Iterator<Item = (usize, &'a Attempt, Span)> + 'a {
    attempts.iter().enumerate().map(move |(index, attempt)| {
        let is_last = index + 1 == attempts.len();
        let span = Span {
            trace: context.trace,
            id: if is_last && last_is_upstream { context.upstream_span } else { SpanId::random() },
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

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
