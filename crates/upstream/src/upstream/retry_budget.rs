//! The retry budget of a Service (GEP-3388): how many retries all workers together send to its endpoints.
//!
//! The counters are atomics in slots of a sliding window, so that workers take no locks. All upstreams of a Service
//! share them, and they outlive changes of the configuration. Every request counts, so the requests have slots for each
//! worker; retries are rare, and have one set of slots.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use super::settings::json_form;
use super::sliding_count::{SlidingCount, millis};
use crate::turn_clock;

/// The limits of retries to a Service. A retry is sent while its Service has fewer than one of them allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryLimits {
    /// Retries as a percentage of the requests in `interval`.
    pub percent: u32,
    #[serde(serialize_with = "json_form::duration")]
    pub interval: Duration,
    pub min_retry_rate: MinRetryRate,
    #[serde(skip_serializing_if = "OverBudget::is_last_outcome")]
    pub over_budget: OverBudget,
}

/// The retries that are allowed in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MinRetryRate {
    pub count: u32,
    #[serde(serialize_with = "json_form::duration")]
    pub interval: Duration,
}

/// What the client gets if the limits do not allow the retry of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum OverBudget {
    /// The response or the error that would have been retried.
    #[default]
    LastOutcome,
    /// An error, as GEP-3388 requires for policies that configure the limits.
    Reject,
}

impl OverBudget {
    /// As in policies that have no such field.
    fn is_last_outcome(&self) -> bool {
        *self == OverBudget::LastOutcome
    }
}

/// The limits of Services without a policy.
impl Default for RetryLimits {
    fn default() -> Self {
        RetryLimits {
            percent: 20,
            interval: Duration::from_secs(10),
            min_retry_rate: MinRetryRate { count: 10, interval: Duration::from_secs(1) },
            over_budget: OverBudget::default(),
        }
    }
}

/// Text for dumps: `retries 20% of requests in 10s, or 10 in 1s`.
impl fmt::Display for RetryLimits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RetryLimits { percent, interval, min_retry_rate, over_budget: _ } = self;
        let MinRetryRate { count, interval: min_interval } = min_retry_rate;
        write!(formatter, "retries {percent}% of requests in {interval:?}, or {count} in {min_interval:?}")
    }
}

/// What all upstreams of a Service share.
#[derive(Debug)]
pub(super) struct ServiceRetries {
    began: Instant,
    limits: ArcSwap<RetryLimits>,
    /// First attempts, in `interval`. Apart from the limits, since every request counts and few are sent again.
    requests: WorkerCounts,
    /// Retries that were decided, also those that wait for their delay, in `interval`.
    retries: SlidingCount,
    /// In the interval of `min_retry_rate`.
    recent_retries: SlidingCount,
    /// Serializes changes of the limits; requests never take it.
    setting: Mutex<()>,
}

impl Default for ServiceRetries {
    fn default() -> Self {
        let limits = RetryLimits::default();
        ServiceRetries {
            began: Instant::now(),
            requests: WorkerCounts::new(limits.interval),
            retries: SlidingCount::new(limits.interval),
            recent_retries: SlidingCount::new(limits.min_retry_rate.interval),
            limits: ArcSwap::from_pointee(limits),
            setting: Mutex::default(),
        }
    }
}

impl ServiceRetries {
    /// Sets the limits; the default ones if `None`. A counter is kept, unless the length of its interval changes.
    pub(super) fn set_limits(&self, limits: Option<RetryLimits>) {
        let limits = limits.unwrap_or_default();
        let _setting = self.setting.lock();
        let former = self.limits.load_full();
        if *former == limits {
            return;
        }
        if former.interval != limits.interval {
            self.requests.restart(limits.interval);
            self.retries.restart(limits.interval);
        }
        if former.min_retry_rate.interval != limits.min_retry_rate.interval {
            self.recent_retries.restart(limits.min_retry_rate.interval);
        }
        self.limits.store(Arc::new(limits));
    }

    /// Counts a request, whether or not it is sent again.
    #[inline]
    pub(super) fn count_request(&self) {
        self.requests.add(self.now());
    }

    /// Takes a place for a retry, which is then counted. The error says what follows if there is none.
    pub(super) fn take_retry(&self) -> Result<(), OverBudget> {
        let (limits, now) = (self.limits.load(), self.now());
        // Counted before it is compared, so that workers together never exceed a limit.
        self.retries.add(now);
        self.recent_retries.add(now);
        let (requests, retries) = (self.requests.sum(now), self.retries.sum(now));
        // Both sides in hundredths, so that no fraction of a retry is lost before it is compared.
        if retries * 100 <= requests * u64::from(limits.percent)
            || self.recent_retries.sum(now) <= u64::from(limits.min_retry_rate.count)
        {
            return Ok(());
        }
        self.retries.take_back(now);
        self.recent_retries.take_back(now);
        Err(limits.over_budget)
    }

    /// The time of the turn, in milliseconds.
    fn now(&self) -> u64 {
        u64::try_from(turn_clock::now().saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

/// A sliding count whose slots are divided among threads, so that the requests of workers do not contend for a cache
/// line. The slots of a thread are allocated for its first request.
#[derive(Debug)]
struct WorkerCounts {
    /// In milliseconds.
    interval: AtomicU64,
    counts: [OnceLock<Box<SlidingCount>>; SHARDS],
}

impl WorkerCounts {
    fn new(interval: Duration) -> Self {
        WorkerCounts { interval: millis(interval).into(), counts: [const { OnceLock::new() }; SHARDS] }
    }

    #[inline]
    fn add(&self, now: u64) {
        let new = || Box::new(SlidingCount::new(Duration::from_millis(self.interval.load(Relaxed))));
        self.counts[shard()].get_or_init(new).add(now);
    }

    fn sum(&self, now: u64) -> u64 {
        self.counts.iter().filter_map(OnceLock::get).map(|count| count.sum(now)).sum()
    }

    fn restart(&self, interval: Duration) {
        self.interval.store(millis(interval), Relaxed);
        self.counts.iter().filter_map(OnceLock::get).for_each(|count| count.restart(interval));
    }
}

/// The shard of this thread.
#[inline]
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    match SHARD.get() {
        usize::MAX => {
            let shard = NEXT.fetch_add(1, Relaxed) % SHARDS;
            SHARD.set(shard);
            shard
        }
        shard => shard,
    }
}

/// How many sets of slots the threads share. Threads with the same set count correctly, but contend.
const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn limits(percent: u32, interval: u64, count: u32, min_interval: u64) -> RetryLimits {
        let [interval, min_interval] = [interval, min_interval].map(Duration::from_millis);
        let min_retry_rate = MinRetryRate { count, interval: min_interval };
        RetryLimits { percent, interval, min_retry_rate, over_budget: OverBudget::Reject }
    }

    fn service(limits: RetryLimits) -> ServiceRetries {
        let service = ServiceRetries::default();
        service.set_limits(Some(limits));
        service
    }

    /// How many retries of so many are allowed.
    fn allowed(service: &ServiceRetries, retries: usize) -> usize {
        (0..retries).filter(|_| service.take_retry().is_ok()).count()
    }

    fn requests(service: &ServiceRetries, count: usize) {
        (0..count).for_each(|_| service.count_request());
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_percentage_of_the_requests_in_the_interval() {
        let service = service(limits(20, 10_000, 0, 1000));
        requests(&service, 4);
        assert_eq!(allowed(&service, 3), 0, "20 % of 4 is less than one");
        requests(&service, 96);
        assert_eq!(allowed(&service, 30), 20);
        advance(Duration::from_secs(5)).await;
        assert_eq!(allowed(&service, 30), 0, "requests and retries are still in the interval");
        requests(&service, 50);
        assert_eq!(allowed(&service, 30), 10);
        advance(Duration::from_secs(6)).await;
        assert_eq!(allowed(&service, 30), 0, "10 retries and 50 requests are left in the interval");
        advance(Duration::from_secs(5)).await;
        requests(&service, 10);
        assert_eq!(allowed(&service, 30), 2);
    }

    /// No share is rounded to whole retries for a request, or to whole requests for a retry.
    #[tokio::test(start_paused = true)]
    async fn fractions_of_retries_add_up() {
        for percent in 0..=100 {
            let service = service(limits(percent, 10_000, 0, 1000));
            let mut sent = 0;
            for count in 1..=200 {
                requests(&service, 1);
                sent += allowed(&service, 2);
                assert_eq!(sent, count * percent as usize / 100, "{percent} % of {count}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn minimum_rate_is_allowed_without_requests() {
        let service = service(limits(0, 10_000, 3, 1000));
        for _ in 0..12 {
            assert_eq!(allowed(&service, 5), 3);
            advance(Duration::from_secs(1)).await;
        }
    }

    /// At 20 %, 100 requests allow 20 retries, whatever the minimum rate; it counts only if the budget is smaller.
    #[tokio::test(start_paused = true)]
    async fn higher_limit_counts() {
        let service = service(limits(20, 10_000, 3, 1000));
        requests(&service, 100);
        assert_eq!(allowed(&service, 40), 20);
        advance(Duration::from_secs(2)).await;
        assert_eq!(allowed(&service, 40), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn services_without_a_policy_have_the_default_limits() {
        let service = ServiceRetries::default();
        requests(&service, 20);
        assert_eq!(allowed(&service, 30), 10, "the minimum rate");
        assert_eq!(service.take_retry(), Err(OverBudget::LastOutcome));
        requests(&service, 980);
        assert_eq!(allowed(&service, 300), 190, "20 % of 1000 requests");
        advance(Duration::from_secs(1)).await;
        assert_eq!(allowed(&service, 30), 10, "the minimum rate in the next second");
    }

    #[tokio::test(start_paused = true)]
    async fn counters_are_kept_unless_an_interval_changes() {
        let service = service(limits(20, 10_000, 0, 1000));
        requests(&service, 100);
        assert_eq!(allowed(&service, 15), 15);
        service.set_limits(Some(limits(30, 10_000, 0, 1000)));
        assert_eq!(allowed(&service, 30), 15, "15 of 30 were used");
        service.set_limits(Some(limits(30, 20_000, 0, 1000)));
        assert_eq!(allowed(&service, 30), 0, "the requests of the other interval are not counted");
    }

    #[tokio::test(start_paused = true)]
    async fn shortest_and_longest_intervals_work() {
        let service = service(limits(0, 3_600_000, 2, 1));
        assert_eq!(allowed(&service, 5), 2);
        advance(Duration::from_millis(1)).await;
        assert_eq!(allowed(&service, 5), 2);
        advance(Duration::from_secs(100 * 24 * 3600)).await;
        assert_eq!(allowed(&service, 5), 2);
    }

    #[test]
    fn threads_together_stay_within_the_limits() {
        // Long intervals, so that the test ends within them.
        let service = service(limits(10, 3_600_000, 5, 3_600_000));
        let service = &service;
        let total: usize = std::thread::scope(|scope| {
            let counting: Vec<_> = (0..20).map(|_| scope.spawn(move || requests(service, 50))).collect();
            counting.into_iter().for_each(|thread| thread.join().unwrap());
            let running: Vec<_> = (0..4).map(|_| scope.spawn(move || allowed(service, 200))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!((90..=100).contains(&total), "{total} of 100 retries");
    }
}
