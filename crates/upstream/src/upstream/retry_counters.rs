//! Why requests are sent again, why they are not, and how often.
//!
//! Retries are rare, so all workers share the counters of an upstream, which exist from its first retry on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::UpstreamKey;
use super::single_writer_counter::SingleWriterCounter;

/// Why a request was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// No connection was established.
    ConnectFailure,
    /// The endpoint reported that it did not process the request, or the request was not sent.
    RefusedStream,
    /// The connection or the stream was closed without a response.
    Reset,
    /// There was no response in the time of one attempt.
    Timeout,
    /// The status of the response.
    Status,
    /// The gRPC status of a response that consists of trailers only.
    GrpcStatus,
    /// A field of the response.
    Header,
    /// The response could not be read.
    InvalidResponse,
}

/// Why a failed request was not sent again, although its failure is one that is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryStop {
    /// The retry budget of the Service was used.
    Budget,
    /// It was sent as often as configured.
    Attempts,
    /// The next attempt could not begin in time, or the response asks for a longer wait than is configured.
    Deadline,
    /// The body was not kept.
    Body,
    /// The response had begun.
    Started,
}

/// What became of a hedged request: one with a second attempt while the first had no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeOutcome {
    /// The first attempt had the first good response.
    First,
    /// The second attempt had it.
    Second,
    /// Both attempts failed.
    Failed,
    /// There was no second attempt: the budget was used, or there was no other endpoint.
    NotSent,
}

/// How often the requests of an upstream were sent again.
#[derive(Debug, Default)]
pub struct RetryCounters {
    /// By reason; the first one of each pair counts successful retries, the second one others.
    retries: [[AtomicU64; 2]; RetryReason::ALL.len()],
    stops: [AtomicU64; RetryStop::ALL.len()],
}

/// The counters of a process by upstream. The name of an upstream keeps its counters when its settings change.
#[derive(Debug, Default)]
pub struct RetryMetrics {
    /// Beyond this number of upstreams, all further ones are counted as [`OTHER`].
    max_upstreams: usize,
    upstreams: Mutex<BTreeMap<Box<str>, Arc<RetryCounters>>>,
}

/// How often the requests of one worker were hedged.
#[derive(Debug, Default)]
pub struct HedgeCounters([SingleWriterCounter; HedgeOutcome::ALL.len()]);

impl RetryReason {
    pub const ALL: [RetryReason; 8] = [
        RetryReason::ConnectFailure,
        RetryReason::RefusedStream,
        RetryReason::Reset,
        RetryReason::Timeout,
        RetryReason::Status,
        RetryReason::GrpcStatus,
        RetryReason::Header,
        RetryReason::InvalidResponse,
    ];

    /// The value of a label.
    pub fn name(self) -> &'static str {
        match self {
            RetryReason::ConnectFailure => "connect_failure",
            RetryReason::RefusedStream => "refused_stream",
            RetryReason::Reset => "reset",
            RetryReason::Timeout => "timeout",
            RetryReason::Status => "status",
            RetryReason::GrpcStatus => "grpc_status",
            RetryReason::Header => "header",
            RetryReason::InvalidResponse => "invalid_response",
        }
    }
}

impl RetryStop {
    pub const ALL: [RetryStop; 5] =
        [RetryStop::Budget, RetryStop::Attempts, RetryStop::Deadline, RetryStop::Body, RetryStop::Started];

    /// The value of a label and of a field of the access log.
    pub fn name(self) -> &'static str {
        match self {
            RetryStop::Budget => "budget",
            RetryStop::Attempts => "attempts",
            RetryStop::Deadline => "deadline",
            RetryStop::Body => "body",
            RetryStop::Started => "started",
        }
    }
}

impl HedgeOutcome {
    pub const ALL: [HedgeOutcome; 4] =
        [HedgeOutcome::First, HedgeOutcome::Second, HedgeOutcome::Failed, HedgeOutcome::NotSent];

    /// The value of a label.
    pub fn name(self) -> &'static str {
        match self {
            HedgeOutcome::First => "first",
            HedgeOutcome::Second => "second",
            HedgeOutcome::Failed => "failed",
            HedgeOutcome::NotSent => "not_sent",
        }
    }
}

impl RetryCounters {
    /// Counts a retry that has ended.
    pub fn count(&self, reason: RetryReason, is_successful: bool) {
        self.retries[reason as usize][usize::from(!is_successful)].fetch_add(1, Relaxed);
    }

    /// Counts a request that was not sent again.
    pub fn count_stop(&self, stop: RetryStop) {
        self.stops[stop as usize].fetch_add(1, Relaxed);
    }

    /// Retries by reason, that succeeded or did not.
    pub fn retries(&self, reason: RetryReason, is_successful: bool) -> u64 {
        self.retries[reason as usize][usize::from(!is_successful)].load(Relaxed)
    }

    pub fn stops(&self, stop: RetryStop) -> u64 {
        self.stops[stop as usize].load(Relaxed)
    }
}

impl RetryMetrics {
    pub fn new(max_upstreams: usize) -> Self {
        RetryMetrics { max_upstreams, upstreams: Mutex::default() }
    }

    /// The counters of an upstream.
    pub(super) fn of(&self, upstream: &UpstreamKey) -> Arc<RetryCounters> {
        let name = upstream.to_string();
        let mut upstreams = self.upstreams.lock();
        if let Some(known) = upstreams.get(&*name) {
            return Arc::clone(known);
        }
        let limit = self.max_upstreams + usize::from(upstreams.contains_key(OTHER));
        if upstreams.len() >= limit {
            // Those of Services that exist no more.
            upstreams.retain(|name, counters| &**name == OTHER || Arc::strong_count(counters) > 1);
        }
        let name = if upstreams.len() < limit { &*name } else { OTHER };
        Arc::clone(upstreams.entry(name.into()).or_default())
    }

    /// The counters of all upstreams that had retries, by name.
    pub fn all(&self) -> Vec<(Box<str>, Arc<RetryCounters>)> {
        self.upstreams.lock().iter().map(|(name, counters)| (name.clone(), Arc::clone(counters))).collect()
    }
}

impl HedgeCounters {
    /// Counts a hedged request.
    pub fn count(&self, outcome: HedgeOutcome) {
        self.0[outcome as usize].add(1);
    }

    pub fn value(&self, outcome: HedgeOutcome) -> u64 {
        self.0[outcome as usize].value()
    }
}

/// The name under which upstreams are counted that have no counters of their own. No upstream has it, since all others
/// contain a slash.
const OTHER: &str = "other";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_those_of_their_labels() {
        let counters = RetryCounters::default();
        for (index, reason) in RetryReason::ALL.into_iter().enumerate() {
            assert_eq!(index, reason as usize, "the order of `ALL` is that of the variants");
            counters.count(reason, true);
            counters.count(reason, false);
            counters.count(reason, false);
            assert_eq!((counters.retries(reason, true), counters.retries(reason, false)), (1, 2), "{reason:?}");
        }
        for (index, stop) in RetryStop::ALL.into_iter().enumerate() {
            counters.count_stop(stop);
            assert_eq!((index, counters.stops(stop)), (stop as usize, 1), "{stop:?}");
        }
        let hedges = HedgeCounters::default();
        for (index, outcome) in HedgeOutcome::ALL.into_iter().enumerate() {
            hedges.count(outcome);
            assert_eq!((index, hedges.value(outcome)), (outcome as usize, 1), "{outcome:?}");
        }
    }

    #[test]
    fn number_of_upstreams_with_counters_is_bounded() {
        let metrics = RetryMetrics::new(2);
        let of = |service: &str| {
            let (namespace, service) = ("ns".into(), service.into());
            metrics.of(&UpstreamKey { namespace, service, port: 80, ..UpstreamKey::default() })
        };
        let names = || metrics.all().into_iter().map(|(name, _)| name.into_string()).collect::<Vec<_>>();
        let (first, second) = (of("a"), of("b"));
        assert!(Arc::ptr_eq(&first, &of("a")), "an upstream with other settings");
        of("c").count_stop(RetryStop::Budget);
        of("d").count_stop(RetryStop::Budget);
        assert_eq!(names(), ["ns/a:80", "ns/b:80", "other"]);
        assert_eq!(metrics.all()[2].1.stops(RetryStop::Budget), 2);
        drop(second);
        let third = of("c");
        assert_eq!(names(), ["ns/a:80", "ns/c:80", "other"], "the place of a removed one");
        drop((first, third));
    }
}
