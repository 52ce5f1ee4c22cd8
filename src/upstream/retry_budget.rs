//! The retry budget of a Service (GEP-3388): how many retries all workers together send to its endpoints.
//!
//! The counters are atomics in slots of a sliding window, so that workers take no locks. All upstreams of a Service
//! share them, and they outlive changes of the configuration.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::health::UpstreamClock;

/// The limits of retries to a Service. A retry is sent while its Service has fewer than one of them allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryLimits {
    /// Retries as a percentage of the requests in `interval`.
    pub percent: u32,
    pub interval: Duration,
    /// Retries in `min_interval` that are allowed in any case.
    pub min_count: u32,
    pub min_interval: Duration,
}

/// Text for dumps: `retries 20% of requests in 10s, or 10 in 1s`.
impl fmt::Display for RetryLimits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RetryLimits { percent, interval, min_count, min_interval } = self;
        write!(formatter, "retries {percent}% of requests in {interval:?}, or {min_count} in {min_interval:?}")
    }
}

/// What all upstreams of a Service share.
#[derive(Debug, Default)]
pub(super) struct ServiceRetries {
    budget: ArcSwapOption<ServiceRetryBudget>,
    /// Serializes changes of the limits; requests never take it.
    setting: Mutex<()>,
}

/// The requests and retries of a Service with limits.
#[derive(Debug)]
pub(super) struct ServiceRetryBudget {
    limits: RetryLimits,
    windows: Arc<Windows>,
}

#[derive(Debug)]
struct Windows {
    clock: UpstreamClock,
    /// First attempts, in `interval`.
    requests: SlidingCount,
    /// In `interval`.
    retries: SlidingCount,
    /// In `min_interval`.
    recent_retries: SlidingCount,
}

impl ServiceRetries {
    /// Sets the limits. The counters are kept, unless the lengths of the intervals change.
    pub(super) fn set_limits(&self, limits: Option<RetryLimits>) {
        let _setting = self.setting.lock();
        let current = self.budget.load_full();
        if current.as_ref().map(|current| current.limits) == limits {
            return;
        }
        let budget = limits.map(|limits| {
            let intervals = |limits: &RetryLimits| (limits.interval, limits.min_interval);
            let kept = current.filter(|current| intervals(&current.limits) == intervals(&limits));
            let windows = kept.map_or_else(|| Arc::new(Windows::new(&limits)), |kept| Arc::clone(&kept.windows));
            Arc::new(ServiceRetryBudget { limits, windows })
        });
        self.budget.store(budget);
    }

    /// Counts a request. Returns the budget for its retries; `None` if they are not limited.
    pub(super) fn begin_request(&self) -> Option<Arc<ServiceRetryBudget>> {
        let budget = self.budget.load();
        let budget = budget.as_ref()?;
        let windows = &budget.windows;
        windows.requests.add(windows.clock.now());
        Some(Arc::clone(budget))
    }
}

impl ServiceRetryBudget {
    /// Whether a retry may be sent, which is then counted. Counted before it is compared, so that workers together
    /// never exceed a limit.
    pub(super) fn take_retry(&self) -> bool {
        let ServiceRetryBudget { limits, windows } = self;
        let now = windows.clock.now();
        windows.retries.add(now);
        windows.recent_retries.add(now);
        let (requests, retries) = (windows.requests.sum(now), windows.retries.sum(now));
        let is_allowed = retries * 100 <= requests * u64::from(limits.percent)
            || windows.recent_retries.sum(now) <= u64::from(limits.min_count);
        if !is_allowed {
            windows.retries.take_back(now);
            windows.recent_retries.take_back(now);
        }
        is_allowed
    }
}

impl Windows {
    fn new(limits: &RetryLimits) -> Self {
        Windows {
            clock: UpstreamClock::default(),
            requests: SlidingCount::new(limits.interval),
            retries: SlidingCount::new(limits.interval),
            recent_retries: SlidingCount::new(limits.min_interval),
        }
    }
}

/// Counts the events of the last interval, in slots of a tenth of it.
#[derive(Debug)]
struct SlidingCount {
    slot_millis: u64,
    /// The number of the slot in the high half, and its events in the low half. A slot is reused when its turn comes
    /// again.
    slots: Box<[AtomicU64]>,
}

impl SlidingCount {
    fn new(interval: Duration) -> Self {
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        let count = millis.min(MAX_SLOTS);
        SlidingCount { slot_millis: millis.div_ceil(count), slots: (0..count).map(|_| AtomicU64::new(0)).collect() }
    }

    fn add(&self, now: u64) {
        let number = self.number(now);
        let next = |seen: u64| match slot_number(seen) == number {
            true if events(seen) == u64::from(u32::MAX) => None,
            true => Some(seen + 1),
            false => Some(u64::from(number) << 32 | 1),
        };
        // An error means that the counter is full.
        self.slot(number).fetch_update(Relaxed, Relaxed, next).ok();
    }

    /// Takes back an event that was added at this time.
    fn take_back(&self, now: u64) {
        let number = self.number(now);
        let next = |seen: u64| (slot_number(seen) == number && events(seen) > 0).then(|| seen - 1);
        // An error means that the slot was reused meanwhile.
        self.slot(number).fetch_update(Relaxed, Relaxed, next).ok();
    }

    fn sum(&self, now: u64) -> u64 {
        let number = self.number(now);
        let slots = self.slots.iter().map(|slot| slot.load(Relaxed));
        let is_recent = |seen: &u64| (number.wrapping_sub(slot_number(*seen)) as usize) < self.slots.len();
        slots.filter(is_recent).map(events).sum()
    }

    fn number(&self, now: u64) -> u32 {
        (now / self.slot_millis) as u32
    }

    fn slot(&self, number: u32) -> &AtomicU64 {
        &self.slots[number as usize % self.slots.len()]
    }
}

fn slot_number(slot: u64) -> u32 {
    (slot >> 32) as u32
}

fn events(slot: u64) -> u64 {
    slot & u64::from(u32::MAX)
}

/// Of ten slots, the oldest is at least nine tenths of the interval away when it is reused.
const MAX_SLOTS: u64 = 10;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn limits(percent: u32, interval: u64, min_count: u32, min_interval: u64) -> RetryLimits {
        let [interval, min_interval] = [interval, min_interval].map(Duration::from_millis);
        RetryLimits { percent, interval, min_count, min_interval }
    }

    fn service(limits: RetryLimits) -> ServiceRetries {
        let service = ServiceRetries::default();
        service.set_limits(Some(limits));
        service
    }

    /// How many retries of so many are allowed.
    fn allowed(service: &ServiceRetries, retries: usize) -> usize {
        let budget = service.budget.load_full().unwrap();
        (0..retries).filter(|_| budget.take_retry()).count()
    }

    fn requests(service: &ServiceRetries, count: usize) {
        for _ in 0..count {
            service.begin_request().unwrap();
        }
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
    async fn counters_are_kept_unless_an_interval_changes() {
        let service = service(limits(20, 10_000, 0, 1000));
        requests(&service, 100);
        assert_eq!(allowed(&service, 15), 15);
        service.set_limits(Some(limits(30, 10_000, 0, 1000)));
        assert_eq!(allowed(&service, 30), 15, "15 of 30 were used");
        service.set_limits(Some(limits(30, 20_000, 0, 1000)));
        assert_eq!(allowed(&service, 30), 0, "the requests of the other interval are not counted");
        service.set_limits(None);
        assert!(service.begin_request().is_none());
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
        requests(&service, 1000);
        let service = &service;
        let total: usize = std::thread::scope(|scope| {
            let running: Vec<_> = (0..4).map(|_| scope.spawn(move || allowed(service, 200))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!((90..=100).contains(&total), "{total} of 100 retries");
    }
}
