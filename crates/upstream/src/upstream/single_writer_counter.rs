//! A counter of one worker.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter with a single writer, so that adding needs no atomic read-modify-write.
#[derive(Debug, Default)]
pub struct SingleWriterCounter(AtomicU64);

impl SingleWriterCounter {
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
