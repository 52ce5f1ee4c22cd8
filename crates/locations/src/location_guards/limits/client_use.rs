//! What a client address has used of its limits: a leaky bucket for each rate, as in nginx, and the requests in
//! progress. A request is never delayed.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

use crate::plugin_kit::counting::TableCounters;

/// How fast a bucket empties, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestRate {
    /// Which bucket of a client it is for: a change of the limits leaves those of other periods as they are.
    bucket: usize,
    /// Nanoseconds in which one request leaves the bucket.
    interval: u64,
    /// Nanoseconds in which a full bucket empties.
    capacity: u64,
}

impl RequestRate {
    /// The periods that may have a limit, each with a bucket.
    pub(super) const PERIODS: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];

    /// `period`: the index among [`RequestRate::PERIODS`]. `burst_multiplier`: the bucket holds this many times
    /// `requests`.
    pub(super) fn new(requests: u64, period: usize, burst_multiplier: u64) -> Self {
        let bucket = period.min(RequestRate::PERIODS.len() - 1);
        let period = RequestRate::PERIODS[bucket];
        let nanoseconds = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let interval = (nanoseconds / requests.max(1)).max(1);
        let burst = requests.saturating_mul(burst_multiplier);
        RequestRate { bucket, interval, capacity: interval.saturating_mul(burst) }
    }

    /// When the bucket is empty again if it gets a request now. `None` if it has no room.
    fn after_request(self, empty_at: u64, now: u64) -> Option<u64> {
        // The first request of an empty bucket passes through it.
        let empty_at = empty_at.saturating_add(self.interval).max(now);
        (empty_at - now <= self.capacity).then_some(empty_at)
    }
}

/// The use of one client address.
#[derive(Debug, Default)]
pub(super) struct ClientUse {
    /// When the bucket of each rate is empty, in nanoseconds since 1970.
    empty_at: [AtomicU64; RequestRate::PERIODS.len()],
    active: AtomicU64,
    /// Threads that use it, and requests in progress; [`RETIRED`] if it is no longer in the table.
    holders: AtomicU64,
}

const RETIRED: u64 = u64::MAX;

/// Which limit a request exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExceededLimit {
    Rate,
    Concurrent,
}

impl ClientUse {
    /// Counts a request. `None` if the use is retired.
    pub(super) fn admit(
        self: &Arc<Self>,
        rates: &[RequestRate],
        concurrent: Option<u64>,
        now: u64,
    ) -> Option<Result<Option<AdmittedRequest>, ExceededLimit>> {
        let held = Holder::of(self)?;
        if !self.fill(rates, now) {
            return Some(Err(ExceededLimit::Rate));
        }
        let Some(limit) = concurrent else { return Some(Ok(None)) };
        let increase = |active: u64| (active < limit).then(|| active + 1);
        Some(match self.active.fetch_update(Relaxed, Relaxed, increase) {
            Ok(_) => Ok(Some(AdmittedRequest(held))),
            Err(_) => Err(ExceededLimit::Concurrent),
        })
    }

    /// Adds a request to all buckets if each has room.
    fn fill(&self, rates: &[RequestRate], now: u64) -> bool {
        let buckets = || rates.iter().map(|rate| (rate, &self.empty_at[rate.bucket]));
        for (rate, empty_at) in buckets() {
            // More than full after the clock was set back, or the limit was lowered: then it would refuse for longer.
            let full = now.saturating_add(rate.capacity);
            if empty_at.load(Relaxed) > full {
                empty_at.fetch_min(full, Relaxed);
            }
        }
        // A request that one bucket refuses counts in none, unless another thread fills that one meanwhile.
        if !buckets().all(|(rate, empty_at)| rate.after_request(empty_at.load(Relaxed), now).is_some()) {
            return false;
        }
        buckets().all(|(rate, empty_at)| {
            let fill = |empty_at| rate.after_request(empty_at, now);
            empty_at.fetch_update(Relaxed, Relaxed, fill).is_ok()
        })
    }
}

impl TableCounters for ClientUse {
    fn retire(&self, second: u64) -> bool {
        let now = second.saturating_mul(1_000_000_000);
        let is_empty = self.empty_at.iter().all(|empty_at| empty_at.load(Relaxed) <= now);
        is_empty && self.holders.compare_exchange(0, RETIRED, AcqRel, Acquire).is_ok()
    }

    /// Requests in progress stay with the use that has counted them.
    fn copy_from(&self, other: &Self) {
        for (own, other) in self.empty_at.iter().zip(&other.empty_at) {
            own.store(other.load(Relaxed), Relaxed);
        }
    }
}

/// Keeps a use in its table.
#[derive(Debug)]
struct Holder(Arc<ClientUse>);

impl Holder {
    fn of(client: &Arc<ClientUse>) -> Option<Self> {
        let increase = |holders: u64| (holders != RETIRED).then(|| holders + 1);
        client.holders.fetch_update(Acquire, Relaxed, increase).ok()?;
        Some(Holder(Arc::clone(client)))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.holders.fetch_sub(1, Release);
    }
}

/// A request in progress, until it is dropped.
#[derive(Debug)]
pub(super) struct AdmittedRequest(Holder);

impl Drop for AdmittedRequest {
    fn drop(&mut self) {
        let AdmittedRequest(Holder(client)) = self;
        client.active.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    fn rate(requests: u64) -> RequestRate {
        RequestRate::new(requests, 0, 5)
    }

    /// How many requests of this time are admitted.
    fn admitted(client: &Arc<ClientUse>, rates: &[RequestRate], at: u64, requests: usize) -> usize {
        (0..requests).filter(|_| matches!(client.admit(rates, None, at), Some(Ok(_)))).count()
    }

    #[test]
    fn a_fresh_client_gets_one_more_than_the_burst_and_then_the_rate() {
        let (client, rates) = (Arc::new(ClientUse::default()), [rate(10)]);
        let start = 1_700_000_000_000 * MILLISECOND;
        assert_eq!(admitted(&client, &rates, start, 200), 51);
        assert_eq!(admitted(&client, &rates, start + 99 * MILLISECOND, 5), 0, "refused requests do not count");
        assert_eq!(admitted(&client, &rates, start + 100 * MILLISECOND, 5), 1);
        assert_eq!(admitted(&client, &rates, start + 1_000 * MILLISECOND, 20), 9);
        assert_eq!(admitted(&client, &rates, start + 60_000 * MILLISECOND, 200), 51);
    }

    #[test]
    fn a_request_must_have_room_in_all_buckets() {
        let client = Arc::new(ClientUse::default());
        let rates = [rate(10), RequestRate::new(2, 1, 2)];
        let start = 1_700_000_000_000 * MILLISECOND;
        assert_eq!(admitted(&client, &rates, start, 200), 5);
        assert_eq!(admitted(&client, &rates[..1], start, 200), 46, "what the minute has refused is not in the second");
    }

    #[test]
    fn a_multiplier_of_zero_admits_the_rate_only() {
        let (client, rates) = (Arc::new(ClientUse::default()), [RequestRate::new(1, 0, 0)]);
        assert_eq!(admitted(&client, &rates, 1_700_000_000_000 * MILLISECOND, 3), 1);
    }

    #[test]
    fn concurrent_requests_are_counted_until_they_end() {
        let client = Arc::new(ClientUse::default());
        let admit = || client.admit(&[], Some(2), MILLISECOND).unwrap();
        let (first, second) = (admit(), admit());
        assert_eq!(admit().err(), Some(ExceededLimit::Concurrent));
        drop(first);
        assert!(admit().is_ok());
        assert!(!client.retire(u64::MAX), "a request is in progress");
        drop(second);
        assert!(client.retire(u64::MAX));
        assert!(client.admit(&[], Some(2), MILLISECOND).is_none());
    }

    #[test]
    fn a_bucket_stays_until_it_is_empty() {
        let client = Arc::new(ClientUse::default());
        admitted(&client, &[rate(1)], 1_000 * MILLISECOND, 3);
        assert!(!client.retire(2));
        assert!(client.retire(3));
    }

    #[test]
    fn a_lower_limit_or_an_earlier_clock_refuses_no_longer_than_the_bucket_lasts() {
        let client = Arc::new(ClientUse::default());
        let start = 1_700_000_000_000 * MILLISECOND;
        admitted(&client, &[RequestRate::new(60, 1, 100)], start, 10_000);
        let low = [RequestRate::new(60, 1, 2)];
        assert_eq!(admitted(&client, &low, start, 3), 0);
        assert_eq!(admitted(&client, &low, start + 1_000 * MILLISECOND, 3), 1);
        let hour = 3_600_000 * MILLISECOND;
        assert_eq!(admitted(&client, &low, start - hour, 3), 0);
        assert_eq!(admitted(&client, &low, start - hour + 1_000 * MILLISECOND, 3), 1);
    }

    #[test]
    fn large_limits_do_not_overflow() {
        let rate = RequestRate::new(u64::MAX, 1, u64::MAX);
        assert_eq!(admitted(&Arc::new(ClientUse::default()), &[rate], u64::MAX, 10), 10);
    }
}
