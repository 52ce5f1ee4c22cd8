//! The attempts to get a response of one request, as plain facts.

use std::net::SocketAddr;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::plugin_api::completed_request::{Attempt, AttemptOutcome};
use crate::upstream::{EndpointPick, RetryStop};

/// The attempts of a request, in order. Most requests have one. A request that is retried very often keeps only the
/// last of the attempts beyond [`MAX_ATTEMPTS`].
#[derive(Debug, Default)]
pub(in crate::proxy) struct Attempts {
    list: SmallVec<[Attempt; 1]>,
    /// Why the endpoint of the attempt that was begun last was picked.
    pick: Option<EndpointPick>,
    stop: Option<RetryStop>,
}

impl Attempts {
    /// Begins an attempt to get a response from this endpoint.
    pub(in crate::proxy) fn start(&mut self, endpoint: SocketAddr, pick: Option<EndpointPick>, now: Instant) {
        self.pick = pick;
        if self.list.len() >= MAX_ATTEMPTS {
            self.list.pop();
        }
        self.list.push(Attempt::start(endpoint, now));
    }

    /// Ends the attempt that was begun last, after this time.
    pub(in crate::proxy) fn end(
        &mut self,
        outcome: AttemptOutcome,
        total: Duration,
        connect: Option<Duration>,
        tls_handshake: Option<Duration>,
    ) {
        let Some(attempt) = self.list.last_mut() else { return };
        attempt.first_byte = matches!(outcome, AttemptOutcome::Status(_)).then_some(total);
        (attempt.outcome, attempt.total) = (outcome, total);
        (attempt.connect, attempt.tls_handshake) = (connect, tls_handshake);
    }

    /// The attempt that was begun last was cancelled, in favor of another one.
    pub(in crate::proxy) fn abandon(&mut self, now: Instant) {
        if let Some(attempt) = self.list.last_mut() {
            attempt.total = now - attempt.started_at;
        }
    }

    /// Adds an attempt that has ended, or was cancelled if it has no outcome, before the one whose response counts.
    pub(in crate::proxy) fn insert_before_last(
        &mut self,
        endpoint: SocketAddr,
        started_at: Instant,
        outcome: Option<AttemptOutcome>,
        now: Instant,
    ) {
        let total = now - started_at;
        let mut attempt = Attempt { total, ..Attempt::start(endpoint, started_at) };
        if let Some(outcome) = outcome {
            attempt.first_byte = matches!(outcome, AttemptOutcome::Status(_)).then_some(total);
            attempt.outcome = outcome;
        }
        let last = self.list.len().saturating_sub(1);
        self.list.insert(last, attempt);
    }

    /// Records why no other attempt followed.
    pub(in crate::proxy) fn stop(&mut self, stop: RetryStop) {
        self.stop = Some(stop);
    }

    /// Why no other attempt followed, although the last one failed.
    pub(in crate::proxy) fn retry_stop(&self) -> Option<RetryStop> {
        self.stop
    }

    /// The request has ended. An attempt that got a response lasts until then.
    pub(in crate::proxy) fn finish(&mut self, now: Instant) {
        if let Some(last) = self.list.last_mut()
            && !matches!(last.outcome, AttemptOutcome::Failed { .. })
        {
            last.total = now - last.started_at;
        }
    }

    /// Why the endpoint of the last attempt was picked.
    pub(in crate::proxy) fn pick(&self) -> Option<EndpointPick> {
        self.pick
    }

    /// The endpoint of the last attempt.
    pub(in crate::proxy) fn endpoint(&self) -> Option<SocketAddr> {
        self.list.last().map(|attempt| attempt.endpoint)
    }

    pub(in crate::proxy) fn as_slice(&self) -> &[Attempt] {
        &self.list
    }
}

/// The most attempts that a record contains. Kong's rules allow thousands of retries.
const MAX_ATTEMPTS: usize = 32;

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn endpoint(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn attempts_last_until_they_fail_or_their_request_ends() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.endpoint(), None);
        let began = Instant::now();
        attempts.start(endpoint(1), None, began);
        let refused = AttemptOutcome::Failed { reason: "refused", status: StatusCode::BAD_GATEWAY };
        attempts.end(refused, SECOND, Some(SECOND), None);
        attempts.start(endpoint(2), None, began + SECOND);
        attempts.end(AttemptOutcome::Status(StatusCode::OK), SECOND, None, None);
        attempts.finish(began + 5 * SECOND);
        let facts = attempts.as_slice().iter().map(|attempt| (attempt.first_byte, attempt.total, attempt.connect));
        let expected = [(None, SECOND, Some(SECOND)), (Some(SECOND), 4 * SECOND, None)];
        assert!(facts.eq(expected), "{attempts:?}");
        assert_eq!(attempts.endpoint(), Some(endpoint(2)));
    }

    #[test]
    fn last_of_many_attempts_is_kept() {
        let mut attempts = Attempts::default();
        for port in 1..=100 {
            attempts.start(endpoint(port), None, Instant::now());
        }
        assert_eq!((attempts.as_slice().len(), attempts.endpoint()), (MAX_ATTEMPTS, Some(endpoint(100))));
    }
}
