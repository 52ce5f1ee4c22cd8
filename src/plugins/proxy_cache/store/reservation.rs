//! Bytes of the store that a response takes, while it is received and as long as it is in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{CacheStore, Partition};
use crate::shared_limit::HeldShare;

/// Dropping it releases the bytes.
#[derive(Debug)]
pub(crate) struct Reservation {
    store: Arc<CacheStore>,
    partition: Arc<Partition>,
    held: HeldShare,
}

impl Reservation {
    pub(crate) fn new(store: &Arc<CacheStore>, partition: &Arc<Partition>) -> Self {
        let held = partition.share.hold_nothing();
        Reservation { store: Arc::clone(store), partition: Arc::clone(partition), held }
    }

    /// Takes further bytes, and removes stored responses until there is room. Returns false if there is none.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        if bytes > self.store.limit {
            return false;
        }
        for _ in 0..=MAX_EVICTIONS {
            // The share is computed as if the bytes were taken already.
            let free = self.store.free();
            if bytes <= free && self.held.try_grow(bytes, free - bytes) {
                if self.store.try_take(bytes) {
                    return true;
                }
                self.held.shrink(bytes);
            }
            if !self.store.evict(&self.partition) {
                return false;
            }
        }
        false
    }

    /// Releases bytes that are not needed.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.held.units());
        self.held.shrink(bytes);
        self.store.used.fetch_sub(bytes, Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.store.used.fetch_sub(self.held.units(), Relaxed);
    }
}

/// Responses that clients are still receiving keep their bytes, so removing more of them may not help.
const MAX_EVICTIONS: usize = 64;
