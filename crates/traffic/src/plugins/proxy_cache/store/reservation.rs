//! Bytes of the store that a response takes, while it is received and as long as it is in memory: those of its body
//! with the body, which clients may still be receiving when the response is removed.

use std::sync::Arc;

use bytes::Bytes;

use super::Partition;

/// Dropping it releases the bytes.
#[derive(Debug)]
pub(crate) struct Reservation {
    partition: Arc<Partition>,
    bytes: usize,
}

impl Reservation {
    pub(crate) fn new(partition: &Arc<Partition>) -> Self {
        Reservation { partition: Arc::clone(partition), bytes: 0 }
    }

    /// Takes further bytes, and removes stored responses until there is room. Returns false if there is none.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let Partition { store, share, .. } = &*self.partition;
        if bytes > store.limit {
            return false;
        }
        for _ in 0..=MAX_EVICTIONS {
            // The share is computed as if the bytes were taken already.
            let free = store.free();
            if bytes <= free && share.try_count(bytes, free - bytes) {
                if store.try_take(bytes) {
                    self.bytes += bytes;
                    return true;
                }
                share.uncount(bytes);
            }
            if !store.evict(&self.partition) {
                return false;
            }
        }
        false
    }

    /// The body of a response, with its part of what was taken: it counts as long as the body is in memory, also if
    /// clients are still receiving it when the response is removed.
    pub(crate) fn split_off(&mut self, body: Bytes) -> Bytes {
        let Some(rest) = self.bytes.checked_sub(body.len()).filter(|_| !body.is_empty()) else { return body };
        self.bytes = rest;
        let reservation = Reservation { partition: Arc::clone(&self.partition), bytes: body.len() };
        Bytes::from_owner(HeldBody { body, _reservation: reservation })
    }

    /// Releases bytes that are not needed.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.partition.share.uncount(bytes);
        self.partition.store.release(bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
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
