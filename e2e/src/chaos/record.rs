//! What happened to the requests of the polite client: by phase, with every failure, and whether it was permitted.
//!
//! Only these failures are permitted:
//!
//! - a request in flight to an endpoint that was killed, if it is not idempotent or the first on its connection, as
//!   docs/routing.md describes: 502;
//! - a request on a connection to a replica of Portico when that replica was killed: the connection breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Shared by the client, which adds requests, and the scenario, which begins phases.
pub(super) struct Recorder {
    start: Instant,
    records: Mutex<Records>,
}

#[derive(Default)]
struct Records {
    phases: Vec<PhaseRecord>,
    failures: Vec<Failure>,
    kills: Vec<Kill>,
}

struct PhaseRecord {
    name: String,
    begin: Instant,
    requests: usize,
    /// Microseconds from the time a request was due to its response.
    latencies: Vec<u32>,
    memory: [Option<f64>; 2],
}

/// A request that failed.
pub(super) struct Failure {
    pub(super) number: u64,
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) protocol: &'static str,
    /// When its connection was opened.
    pub(super) opened: Instant,
    pub(super) begin: Instant,
    pub(super) end: Instant,
    pub(super) kind: FailureKind,
    pub(super) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FailureKind {
    /// No TCP connection.
    Connect,
    /// The connection broke during the TLS handshake or before the complete response.
    Broken,
    Timeout,
    /// Another status than that of the route.
    Status(u16),
    /// The response of another route or request.
    Wrong,
}

/// The time during which a process was killed.
pub(super) struct Kill {
    target: Killed,
    begin: Instant,
    end: Instant,
}

#[derive(Debug)]
pub(super) enum Killed {
    /// An endpoint, with the numbers of its requests that were the first on their connection.
    Endpoint {
        first_requests: BTreeSet<u64>,
    },
    Replica,
}

/// How long after a kill a worker of Portico, or the client, may still send on a connection whose end it has not seen,
/// because the machine is busy.
const UNSEEN_END: Duration = Duration::from_secs(5);
/// Number of failures in a report.
const MAX_LISTED: usize = 20;

impl Recorder {
    pub(super) fn new() -> Recorder {
        Recorder { start: Instant::now(), records: Mutex::default() }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn begin_phase(&self, name: &str) {
        let phase = PhaseRecord {
            name: name.to_owned(),
            begin: Instant::now(),
            requests: 0,
            latencies: Vec::new(),
            memory: [None; 2],
        };
        self.records.lock().phases.push(phase);
    }

    /// Sets the memory of the replicas in the current phase.
    pub(super) fn set_memory(&self, memory: [Option<f64>; 2]) {
        if let Some(phase) = self.records.lock().phases.last_mut() {
            phase.memory = memory;
        }
    }

    pub(super) fn add_response(&self, due: Instant) {
        let latency = u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX);
        if let Some(phase) = self.records.lock().phases.last_mut() {
            phase.requests += 1;
            phase.latencies.push(latency);
        }
    }

    pub(super) fn add_failure(&self, failure: Failure) {
        let mut records = self.records.lock();
        if let Some(phase) = records.phases.last_mut() {
            phase.requests += 1;
        }
        records.failures.push(failure);
    }

    pub(super) fn add_kill(&self, target: Killed, begin: Instant) {
        self.records.lock().kills.push(Kill { target, begin, end: Instant::now() });
    }

    pub(super) fn requests(&self) -> usize {
        self.records.lock().phases.iter().map(|phase| phase.requests).sum()
    }

    /// The table of phases and the failures, and the number of failures that are not permitted.
    pub(super) fn report(&self) -> (String, usize) {
        let records = self.records.lock();
        let mut by_phase = vec![[0, 0]; records.phases.len()];
        let mut by_kind: BTreeMap<(FailureKind, bool), usize> = BTreeMap::new();
        let mut listed = String::new();
        let mut forbidden = 0;
        for failure in &records.failures {
            let is_permitted = is_permitted(failure, &records.kills);
            let phase = records.phases.iter().rposition(|phase| phase.begin <= failure.end).unwrap_or_default();
            by_phase[phase][usize::from(!is_permitted)] += 1;
            *by_kind.entry((failure.kind, is_permitted)).or_default() += 1;
            if !is_permitted {
                forbidden += 1;
                if forbidden <= MAX_LISTED {
                    let at = failure.end.saturating_duration_since(self.start).as_secs_f64();
                    listed += &format!("  {at:>7.2} s  {}: {failure}\n", records.phases[phase].name);
                }
            }
        }
        let rows = records.phases.iter().zip(&by_phase).map(|(phase, counts)| phase.row(self.start, *counts));
        let mut text = crate::bench::statistics::table(&HEAD, &rows.collect::<Vec<_>>());
        for ((kind, is_permitted), count) in by_kind {
            let permission = if is_permitted { "permitted" } else { "not permitted" };
            text += &format!("{count} requests failed, {permission}: {kind}\n");
        }
        if forbidden > 0 {
            text += &format!("The first failures that are not permitted:\n{listed}");
        }
        (text, forbidden)
    }
}

const HEAD: [&str; 9] =
    ["phase", "begins at s", "requests", "permitted", "not permitted", "p50 ms", "p99 ms", "MiB of one", "MiB of two"];

impl PhaseRecord {
    fn row(&self, start: Instant, [permitted, forbidden]: [usize; 2]) -> Vec<String> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let percentile = |percent: usize| {
            let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
            sorted.get(at).map_or_else(|| "-".to_owned(), |micros| format!("{:.1}", f64::from(*micros) / 1000.0))
        };
        let memory = self.memory.map(|memory| memory.map_or_else(|| "-".to_owned(), |mib| format!("{mib:.1}")));
        let [one, two] = memory;
        vec![
            self.name.clone(),
            format!("{:.1}", self.begin.saturating_duration_since(start).as_secs_f64()),
            self.requests.to_string(),
            permitted.to_string(),
            forbidden.to_string(),
            percentile(50),
            percentile(99),
            one,
            two,
        ]
    }
}

fn is_permitted(failure: &Failure, kills: &[Kill]) -> bool {
    kills.iter().any(|kill| {
        let was_in_flight = failure.begin <= kill.end + UNSEEN_END && failure.end >= kill.begin;
        was_in_flight
            && match &kill.target {
                Killed::Endpoint { first_requests } => {
                    let may_fail = failure.method == "POST" || first_requests.contains(&failure.number);
                    failure.kind == FailureKind::Status(502) && may_fail
                }
                // Later connections lead to the other replica.
                Killed::Replica => failure.kind == FailureKind::Broken && failure.opened <= kill.end,
            }
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { number, method, path, protocol, begin, end, kind, reason, .. } = self;
        let took = (*end - *begin).as_secs_f64() * 1000.0;
        write!(formatter, "request {number}, {method} {path} over {protocol}, {kind} after {took:.1} ms: {reason}")
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailureKind::Connect => formatter.write_str("no connection"),
            FailureKind::Broken => formatter.write_str("the connection broke"),
            FailureKind::Timeout => formatter.write_str("timeout"),
            FailureKind::Status(status) => write!(formatter, "status {status}"),
            FailureKind::Wrong => formatter.write_str("wrong response"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_requests_in_flight_at_a_kill_may_fail() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let kills = [
            Kill { target: Killed::Endpoint { first_requests: [2].into() }, begin: at(1000), end: at(1010) },
            Kill { target: Killed::Replica, begin: at(15_000), end: at(15_010) },
        ];
        // Times in milliseconds: when the connection was opened, and when the request began and ended.
        for (number, method, kind, [opened, begin, end], expected) in [
            (1, "POST", FailureKind::Status(502), [500, 990, 1020], true),
            (1, "GET", FailureKind::Status(502), [500, 990, 1020], false),
            (2, "GET", FailureKind::Status(502), [500, 990, 1020], true),
            (2, "GET", FailureKind::Status(503), [500, 990, 1020], false),
            (1, "POST", FailureKind::Status(503), [500, 990, 1020], false),
            (1, "POST", FailureKind::Status(502), [500, 900, 990], false),
            (1, "POST", FailureKind::Status(502), [500, 6000, 6020], true),
            (1, "POST", FailureKind::Status(502), [500, 6020, 6040], false),
            (1, "POST", FailureKind::Broken, [500, 990, 1020], false),
            (1, "GET", FailureKind::Broken, [14_000, 14_990, 15_005], true),
            (1, "GET", FailureKind::Broken, [14_000, 14_900, 14_990], false),
            (1, "GET", FailureKind::Connect, [14_000, 14_990, 15_005], false),
            (1, "GET", FailureKind::Broken, [14_000, 20_000, 20_020], true),
            (1, "GET", FailureKind::Broken, [14_000, 20_020, 20_040], false),
            (1, "GET", FailureKind::Broken, [15_020, 15_030, 15_040], false),
        ] {
            let failure = Failure {
                number,
                method,
                path: "/".to_owned(),
                protocol: "HTTP/1.1",
                opened: at(opened),
                begin: at(begin),
                end: at(end),
                kind,
                reason: "a reason".to_owned(),
            };
            assert_eq!(is_permitted(&failure, &kills), expected, "{failure}, from {begin} to {end}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn report_counts_and_lists_failures_by_phase() {
        let recorder = Recorder::new();
        recorder.begin_phase("calm");
        let begin = Instant::now();
        recorder.add_response(begin);
        tokio::time::advance(Duration::from_millis(1500)).await;
        recorder.begin_phase("an endpoint is killed");
        let (number, method, path, protocol) = (7, "GET", "/steady".to_owned(), "HTTP/2");
        let (kind, reason) = (FailureKind::Status(503), "no endpoints".to_owned());
        let end = Instant::now();
        recorder.add_failure(Failure { number, method, path, protocol, opened: end, begin: end, end, kind, reason });
        let (text, forbidden) = recorder.report();
        assert_eq!(forbidden, 1);
        assert!(
            text.ends_with(
                "1 requests failed, not permitted: status 503\nThe first failures that are not permitted:\n     1.50 s  \
                 an endpoint is killed: request 7, GET /steady over HTTP/2, status 503 after 0.0 ms: no endpoints\n"
            ),
            "{text}"
        );
    }
}
