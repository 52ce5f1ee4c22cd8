//! The bytes in the queues of all plugins: those of entries that wait, and of batches that are being sent. Namespaces
//! share the limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::plugin_api::PluginState;
use crate::shared_limit::{HeldShare, Share, Shares};

/// The limit of the process. One object in [`PluginState`].
#[derive(Debug)]
pub struct QueuedBytes {
    limit: usize,
    used: AtomicUsize,
    shares: Shares,
}

/// Bytes of a queue or a batch. They are released when this is dropped.
#[derive(Debug)]
pub struct HeldBytes {
    all: Arc<QueuedBytes>,
    share: Arc<Share>,
    held: HeldShare,
    bytes: usize,
}

impl QueuedBytes {
    /// The limit of this state. The first caller sets it, in bytes.
    pub fn of(state: &PluginState, limit: usize) -> Arc<QueuedBytes> {
        state.get_or_create("bytes in queues", || QueuedBytes {
            limit,
            used: AtomicUsize::new(0),
            shares: Shares::default(),
        })
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The bytes in all queues.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Holds no bytes yet, and counts with all others of the namespace.
    pub fn hold(self: &Arc<Self>, namespace: &str) -> HeldBytes {
        HeldBytes::empty(Arc::clone(self), self.shares.of(namespace))
    }
}

impl HeldBytes {
    fn empty(all: Arc<QueuedBytes>, share: Arc<Share>) -> Self {
        let held = share.try_hold(0, usize::MAX).expect("nothing needs no room");
        HeldBytes { all, share, held, bytes: 0 }
    }

    /// Takes more bytes, if there is room for the namespace.
    pub fn try_add(&mut self, bytes: usize) -> bool {
        let free = self.all.limit.saturating_sub(self.all.used());
        if !self.held.try_grow(bytes, free) {
            return false;
        }
        let add = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.all.limit);
        if self.all.used.fetch_update(Relaxed, Relaxed, add).is_err() {
            self.held.shrink(bytes);
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Releases a part.
    pub(super) fn remove(&mut self, bytes: usize) {
        drop(self.split_off(bytes));
    }

    /// Moves a part to another owner.
    pub(in crate::plugin_api) fn split_off(&mut self, bytes: usize) -> HeldBytes {
        let bytes = bytes.min(self.bytes);
        let mut part = HeldBytes::empty(Arc::clone(&self.all), Arc::clone(&self.share));
        // Subtracted first, so that the namespace never seems to have more than it has.
        self.held.shrink(bytes);
        self.bytes -= bytes;
        // Always succeeds, because the bytes are already taken from what is free.
        if part.held.try_grow(bytes, usize::MAX) {
            part.bytes = bytes;
        }
        part
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.all.used.fetch_sub(self.bytes, Relaxed);
    }
}
