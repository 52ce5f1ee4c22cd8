//! Bytes of the store that a response takes, while it is received and as long as it is in memory: those of its body
//! with the body, which clients may still be receiving when the response is removed.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

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

    /// The body of a response, with its part of what was taken: it counts as long as the body is in memory, also if
    /// clients are still receiving it when the response is removed.
    pub(crate) fn split_off(&mut self, body: Bytes) -> Bytes {
        let Some(held) = self.held.split(body.len()).filter(|_| !body.is_empty()) else { return body };
        let reservation = Reservation { store: Arc::clone(&self.store), partition: Arc::clone(&self.partition), held };
        Bytes::from_owner(HeldBody { body, _reservation: reservation })
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

struct HeldBody {
    body: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// Responses that clients are still receiving keep their bytes, so removing more of them may not help.
const MAX_EVICTIONS: usize = 64;
