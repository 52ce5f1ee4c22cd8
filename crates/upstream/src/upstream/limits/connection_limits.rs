//! For how many requests and how long connections to an upstream are used.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

use crate::turn_clock;
use crate::upstream::settings::RequestLimits;
use crate::upstream::sliding_count::millis;

/// The limits of each connection. 0 is no limit.
#[derive(Debug, Default)]
pub(in crate::upstream) struct EndpointConnectionLimits {
    max_requests: AtomicU32,
    max_age_millis: AtomicU64,
}

/// What counts toward the limits of a connection.
#[derive(Debug)]
pub(in crate::upstream) struct ConnectionAge {
    opened_at: Instant,
    requests: Cell<u32>,
    /// The connection may have this percentage of the maximum age, so that those opened together do not end together.
    age_percent: u8,
}

impl EndpointConnectionLimits {
    pub(in crate::upstream) fn set(&self, limits: Option<&RequestLimits>) {
        let max_requests = limits.and_then(|limits| limits.max_requests_per_connection);
        self.max_requests.store(max_requests.map_or(0, |max| max.max(1)), Relaxed);
        let max_age = limits.and_then(|limits| limits.max_connection_age);
        self.max_age_millis.store(max_age.map_or(0, millis), Relaxed);
    }

    /// Whether the connection gets no further request.
    pub(in crate::upstream) fn are_reached(&self, age: &ConnectionAge) -> bool {
        let (max_requests, max_age) = (self.max_requests.load(Relaxed), self.max_age_millis.load(Relaxed));
        if max_requests != 0 && age.requests.get() >= max_requests {
            return true;
        }
        max_age != 0 && {
            let age_millis = millis(turn_clock::now().saturating_duration_since(age.opened_at));
            age_millis >= (u128::from(max_age) * u128::from(age.age_percent) / 100) as u64
        }
    }
}

impl ConnectionAge {
    pub(in crate::upstream) fn new() -> Self {
        ConnectionAge { opened_at: Instant::now(), requests: Cell::new(0), age_percent: fastrand::u8(90..=110) }
    }

    pub(in crate::upstream) fn count_request(&self) {
        self.requests.set(self.requests.get().saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_end_after_their_requests_or_their_time() {
        let limits = EndpointConnectionLimits::default();
        let age = ConnectionAge::new();
        (0..1000).for_each(|_| age.count_request());
        assert!(!limits.are_reached(&age), "no limits");
        limits.set(Some(&RequestLimits { max_requests_per_connection: Some(1001), ..RequestLimits::default() }));
        assert!(!limits.are_reached(&age));
        age.count_request();
        assert!(limits.are_reached(&age));
        let max_connection_age = Some(Duration::from_secs(100));
        limits.set(Some(&RequestLimits { max_connection_age, ..RequestLimits::default() }));
        let ages: Vec<_> = (0..100).map(|_| ConnectionAge::new()).collect();
        let reached = || {
            turn_clock::refresh();
            ages.iter().filter(|age| limits.are_reached(age)).count()
        };
        advance(Duration::from_millis(89_900)).await;
        assert_eq!(reached(), 0);
        advance(Duration::from_millis(10_000)).await;
        assert!((20..80).contains(&reached()), "{} of 100 after 100 s", reached());
        advance(Duration::from_millis(10_100)).await;
        assert_eq!(reached(), 100);
        limits.set(None);
        assert_eq!(reached(), 0);
    }
}
