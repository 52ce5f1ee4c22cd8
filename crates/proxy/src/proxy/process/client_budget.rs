//! The limit of client connections, which all workers and listeners of the process share.
//!
//! At the limit, a new connection waits while the workers close connections that are idle: first those that never sent
//! a request, then those that are idle for the longest time. Clients that send nothing therefore cannot keep others
//! away.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

#[derive(Debug)]
pub(in crate::proxy) struct ClientBudget {
    free: Arc<Semaphore>,
    /// Notified when a connection waits, so that workers close idle ones.
    full: Notify,
}

impl ClientBudget {
    /// `limit` is the maximum of client connections of the process.
    pub(in crate::proxy) fn new(limit: usize) -> Self {
        ClientBudget { free: Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))), full: Notify::new() }
    }

    pub(in crate::proxy) fn is_full(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// Ready when idle connections should be closed.
    pub(in crate::proxy) fn full(&self) -> Notified<'_> {
        self.full.notified()
    }

    pub(in crate::proxy) fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Waits for another connection to close.
    pub(in crate::proxy) async fn acquire(&self) -> OwnedSemaphorePermit {
        // Without a timer, which connections below the limit do not need. If others wait, there is none to take.
        if let Some(permit) = self.try_acquire() {
            return permit;
        }
        loop {
            if self.is_full() {
                self.full.notify_waiters();
            }
            // Connections that are busy now may be idle later.
            if let Ok(permit) = timeout(EVICTION_INTERVAL, Arc::clone(&self.free).acquire_owned()).await {
                return permit.expect("the semaphore is never closed");
            }
        }
    }
}

/// How often idle connections are looked for while a connection waits.
const EVICTION_INTERVAL: Duration = Duration::from_millis(100);
