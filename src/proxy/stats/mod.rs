//! What the data plane counts: every worker for itself, merged when metrics are scraped.
//!
//! ```text
//!   request ─▶ Series (one per worker and label set; plain adds, one writer)
//!                 ▲ found by pointers, no label is formatted       scrape ─▶ Stats ─ merges the ledgers of all workers
//! ```

mod exposition;
mod plugins;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::access_log::Lost;
use super::tls::Failure;
use crate::upstream::{Count, Traffic};

/// Which requests are counted together. What does not apply is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Labels {
    pub(crate) gateway: Arc<str>,
    pub(crate) listener: Arc<str>,
    /// `kind/namespace/name`.
    pub(crate) route: Arc<str>,
    pub(crate) rule: Arc<str>,
    /// `namespace/service:port`.
    pub(crate) backend: Arc<str>,
}

/// The counters of one label set in one worker.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) labels: Arc<Labels>,
    classes: [Count; CLASSES.len()],
    /// One more than `BOUNDS`: what is longer than all of them.
    durations: [Count; BOUNDS.len() + 1],
    microseconds: Count,
    bytes_in: Count,
    bytes_out: Count,
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// In microseconds. From what a cached answer takes to where people have given up.
const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

impl Series {
    fn new(labels: Arc<Labels>) -> Self {
        Series {
            labels,
            classes: Default::default(),
            durations: Default::default(),
            microseconds: Count::default(),
            bytes_in: Count::default(),
            bytes_out: Count::default(),
        }
    }

    pub(crate) fn add(&self, status: StatusCode, duration: Duration, bytes_in: u64, bytes_out: u64) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.classes[class].add(1);
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.durations[BOUNDS.partition_point(|bound| *bound < microseconds)].add(1);
        self.microseconds.add(microseconds);
        self.bytes_in.add(bytes_in);
        self.bytes_out.add(bytes_out);
    }
}

/// How often room is made when there are too many label sets.
const CLEAR_EVERY: Duration = Duration::from_secs(10);

/// How many of something there are now.
#[derive(Debug, Default)]
pub(crate) struct Level {
    came: Count,
    left: Count,
}

impl Level {
    fn value(&self) -> u64 {
        self.came.value().saturating_sub(self.left.value())
    }
}

/// One more of something, until it is dropped.
pub(crate) struct Present {
    ledger: Arc<Ledger>,
    level: fn(&Ledger) -> &Level,
}

impl Present {
    pub(crate) fn new(ledger: &Arc<Ledger>, level: fn(&Ledger) -> &Level) -> Self {
        level(ledger).came.add(1);
        Present { ledger: Arc::clone(ledger), level }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        (self.level)(&self.ledger).left.add(1);
    }
}

/// What one worker counts.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Its lock is taken for the first request of a label set under a snapshot, and by scrapes.
    series: Mutex<HashMap<Arc<Labels>, Arc<Series>>>,
    pub(crate) accepted: Count,
    pub(crate) closed: Count,
    pub(crate) accept_errors: Count,
    /// Connections that had to wait for another to close.
    pub(crate) delayed: Count,
    /// Connections of clients that speak HTTP/2.
    pub(crate) http2: Level,
    /// Connections and streams that were upgraded.
    pub(crate) tunnels: Level,
    pub(crate) handshakes: Handshakes,
    /// By `HeaderOutcome`.
    pub(crate) headers: [Count; HeaderOutcome::ALL.len()],
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) mirroring: Arc<Mirroring>,
    /// By their words. Its lock is taken for faults, and by scrapes.
    faults: Mutex<BTreeMap<&'static str, u64>>,
    /// Its lock is taken once for requests that meet plugins, and by scrapes.
    plugins: Mutex<plugins::ByPlugin>,
}

impl Ledger {
    pub(crate) fn faults(&self, word: &'static str, count: u64) {
        if count > 0 {
            *self.faults.lock().entry(word).or_default() += count;
        }
    }
}

/// What became of the copies for mirrors.
#[derive(Debug, Default)]
pub(crate) struct Mirroring([Count; MIRRORED.len()]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mirrored {
    Answered,
    /// Nobody to send it to, no connection, or no answer in time.
    Failed,
    /// The body is larger than what is copied.
    TooLarge,
    /// There are as many copies as there may be.
    TooMany,
    /// The body of the original did not come to its end.
    CutShort,
}

const MIRRORED: [(Mirrored, &str); 5] = [
    (Mirrored::Answered, "answered"),
    (Mirrored::Failed, "failed"),
    (Mirrored::TooLarge, "too_large"),
    (Mirrored::TooMany, "too_many"),
    (Mirrored::CutShort, "cut_short"),
];

impl Mirroring {
    pub(crate) fn add(&self, outcome: Mirrored) {
        for (count, _) in self.0.iter().zip(&MIRRORED).filter(|(_, (candidate, _))| *candidate == outcome) {
            count.add(1);
        }
    }
}

/// How TLS handshakes ended.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    pub(crate) full: Count,
    pub(crate) resumed: Count,
    /// By `Failure`.
    pub(crate) failed: [Count; Failure::ALL.len()],
}

/// What came where a PROXY header is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderOutcome {
    Client,
    Peer,
    Ended,
    Malformed,
    TooLong,
    Timeout,
}

impl HeaderOutcome {
    pub(crate) const ALL: [(HeaderOutcome, &'static str); 6] = [
        (HeaderOutcome::Client, "client"),
        (HeaderOutcome::Peer, "peer"),
        (HeaderOutcome::Ended, "ended"),
        (HeaderOutcome::Malformed, "malformed"),
        (HeaderOutcome::TooLong, "too_long"),
        (HeaderOutcome::Timeout, "timeout"),
    ];
}

/// All ledgers. Registered as a collector, it writes the families of `interface.md` §6.
#[derive(Debug)]
pub struct Stats {
    ledgers: Vec<Arc<Ledger>>,
    max_series: usize,
    known: Mutex<Known>,
    folded: AtomicU64,
    /// Requests of series that made room for others.
    forgotten: AtomicU64,
    /// Lines of the access log that were lost.
    pub(crate) log_lost: Arc<Lost>,
}

/// The label sets of all ledgers.
#[derive(Debug, Default)]
struct Known {
    labels: BTreeSet<Arc<Labels>>,
    /// When room was last made for new ones. Each attempt looks at all series, so it is not made for every request.
    cleared: Option<Instant>,
}

impl Stats {
    pub(crate) fn new(workers: usize, max_series: usize, log_lost: Arc<Lost>) -> Self {
        Stats {
            ledgers: (0..workers).map(|_| Arc::default()).collect(),
            max_series,
            known: Mutex::default(),
            folded: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
            log_lost,
        }
    }

    pub(crate) fn ledger(&self, worker: usize) -> &Arc<Ledger> {
        &self.ledgers[worker]
    }

    /// The series of these labels in a worker's ledger. When there are too many, all further ones are one.
    pub(crate) fn series(&self, ledger: &Ledger, labels: Labels) -> Arc<Series> {
        if let Some(series) = ledger.series.lock().get(&labels) {
            return Arc::clone(series);
        }
        let labels = self.admit(labels);
        let mut series = ledger.series.lock();
        Arc::clone(series.entry(Arc::clone(&labels)).or_insert_with(|| Arc::new(Series::new(labels))))
    }

    fn admit(&self, labels: Labels) -> Arc<Labels> {
        let mut known = self.known.lock();
        if let Some(labels) = known.labels.get(&labels) {
            return Arc::clone(labels);
        }
        if known.labels.len() >= self.max_series && known.cleared.is_none_or(|cleared| cleared.elapsed() > CLEAR_EVERY)
        {
            known.cleared = Some(Instant::now());
            self.forget_unused(&mut known.labels);
        }
        if known.labels.len() < self.max_series {
            let labels = Arc::new(labels);
            known.labels.insert(Arc::clone(&labels));
            return labels;
        }
        self.folded.fetch_add(1, Relaxed);
        let other: Arc<str> = "other".into();
        Arc::new(Labels {
            gateway: Arc::clone(&other),
            listener: Arc::clone(&other),
            route: Arc::clone(&other),
            rule: Arc::clone(&other),
            backend: other,
        })
    }

    /// Forgets the series that no worker has used since its snapshot changed: routes that are gone, for the most part.
    fn forget_unused(&self, known: &mut BTreeSet<Arc<Labels>>) {
        // A ledger's own reference is the only one to a series that no view and no request holds.
        let is_used = |series: &Arc<Series>| Arc::strong_count(series) > 1;
        let mut used = BTreeSet::new();
        for ledger in &self.ledgers {
            used.extend(
                ledger.series.lock().iter().filter(|(_, series)| is_used(series)).map(|(key, _)| Arc::clone(key)),
            );
        }
        known.retain(|labels| used.contains(labels));
        for ledger in &self.ledgers {
            ledger.series.lock().retain(|labels, series| {
                let stays = is_used(series) || used.contains(labels);
                if !stays {
                    self.forgotten.fetch_add(series.classes.iter().map(Count::value).sum(), Relaxed);
                }
                stays
            });
        }
    }

    /// Connections of clients that are open now.
    pub fn connections(&self) -> u64 {
        self.sum(|ledger| ledger.accepted.value().saturating_sub(ledger.closed.value()))
    }

    /// Connections of clients since the start.
    pub fn accepted(&self) -> u64 {
        self.sum(|ledger| ledger.accepted.value())
    }

    fn sum(&self, part: impl Fn(&Ledger) -> u64) -> u64 {
        self.ledgers.iter().map(|ledger| part(ledger)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::exposition::testing::{has, scrape};
    use super::*;

    fn labels(route: &str) -> Labels {
        Labels { route: route.into(), ..Labels::default() }
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let stats = Arc::new(Stats::new(2, 2, Arc::default()));
        // Held as a view holds what was used under its snapshot.
        let mut view = Vec::new();
        for route in ["a", "b", "c", "d", "a"] {
            for worker in 0..2 {
                let series = stats.series(stats.ledger(worker), labels(route));
                series.add(StatusCode::OK, Duration::ZERO, 0, 0);
                view.push(series);
            }
        }
        let text = scrape(stats);
        assert_eq!(text.lines().filter(|line| line.starts_with("portico_requests_total")).count(), 3);
        let other = r#"gateway="other",listener="other",route="other",rule="other",backend="other""#;
        has(&text, &format!(r#"portico_requests_total{{{other},code_class="2xx"}} 4"#));
        has(&text, "portico_series_folded_total 4");
    }

    #[tokio::test(start_paused = true)]
    async fn routes_that_are_gone_make_room() {
        let stats = Arc::new(Stats::new(1, 2, Arc::default()));
        let ask = |route| stats.series(stats.ledger(0), labels(route));
        let kept = ask("kept");
        ask("gone").add(StatusCode::OK, Duration::ZERO, 0, 0);
        let new = ask("new");
        assert_eq!(&*new.labels.route, "new");
        assert_eq!(&*ask("too much").labels.route, "other");
        drop(new);
        assert_eq!(&*ask("soon after").labels.route, "other", "not every request looks at all series");
        tokio::time::advance(CLEAR_EVERY * 2).await;
        assert_eq!(&*ask("later").labels.route, "later");
        assert!(Arc::ptr_eq(&kept, &ask("kept")), "what is used is counted on");
        assert_eq!(stats.requests(), 1, "a request that was answered stays answered");
    }
}
