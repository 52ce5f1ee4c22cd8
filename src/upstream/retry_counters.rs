//! Why requests are sent again, why they are not, and how often: the counters of one worker.

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

/// How often requests were sent again.
#[derive(Debug, Default)]
pub struct RetryCounters {
    /// By reason; the first one of each pair counts successful retries, the second one others.
    retries: [[SingleWriterCounter; 2]; RetryReason::ALL.len()],
    stops: [SingleWriterCounter; RetryStop::ALL.len()],
    hedges: [SingleWriterCounter; HedgeOutcome::ALL.len()],
}

impl RetryReason {
    pub const ALL: [RetryReason; 7] = [
        RetryReason::ConnectFailure,
        RetryReason::RefusedStream,
        RetryReason::Reset,
        RetryReason::Timeout,
        RetryReason::Status,
        RetryReason::GrpcStatus,
        RetryReason::Header,
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
        self.retries[reason as usize][usize::from(!is_successful)].add(1);
    }

    /// Counts a request that was not sent again.
    pub fn count_stop(&self, stop: RetryStop) {
        self.stops[stop as usize].add(1);
    }

    /// Counts a hedged request.
    pub fn count_hedge(&self, outcome: HedgeOutcome) {
        self.hedges[outcome as usize].add(1);
    }

    /// Retries by reason, that succeeded or did not.
    pub fn retries(&self, reason: RetryReason, is_successful: bool) -> u64 {
        self.retries[reason as usize][usize::from(!is_successful)].value()
    }

    pub fn stops(&self, stop: RetryStop) -> u64 {
        self.stops[stop as usize].value()
    }

    pub fn hedges(&self, outcome: HedgeOutcome) -> u64 {
        self.hedges[outcome as usize].value()
    }
}

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
        for (index, outcome) in HedgeOutcome::ALL.into_iter().enumerate() {
            counters.count_hedge(outcome);
            assert_eq!((index, counters.hedges(outcome)), (outcome as usize, 1), "{outcome:?}");
        }
    }
}
