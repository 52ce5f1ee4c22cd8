//! Requests for the same response at the same time: one is forwarded, the others wait for what it stores.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::{CacheKey, Partition};

/// What others wait for. The semaphore has no permits, and is closed at the end.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    ended: Arc<Semaphore>,
    /// How many more requests may wait.
    places: Arc<Semaphore>,
    began: Instant,
}

impl Flight {
    pub(super) fn new() -> Self {
        Flight {
            ended: Arc::new(Semaphore::new(0)),
            places: Arc::new(Semaphore::new(MAX_WAITING)),
            began: Instant::now(),
        }
    }

    /// Waits until the response is stored or cannot be, or until this time after the beginning, so that a client that
    /// reads slowly does not delay each request of others. Returns at once if too many wait.
    pub(crate) async fn wait(&self, limit: Duration) {
        let Ok(_place) = self.places.try_acquire() else { return };
        drop(timeout_at(self.began + limit, self.ended.acquire()).await);
    }

    pub(super) fn is_same(&self, other: &Flight) -> bool {
        Arc::ptr_eq(&self.ended, &other.ended)
    }
}

/// Held by the request that is forwarded. Dropping it lets the others continue.
#[derive(Debug)]
pub(crate) struct FlightGuard {
    pub(super) partition: Arc<Partition>,
    pub(super) key: CacheKey,
    pub(super) flight: Flight,
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        self.partition.end_flight(self.key, &self.flight);
        self.flight.ended.close();
    }
}

/// How many requests wait for one response. More are forwarded without waiting.
const MAX_WAITING: usize = 1024;
