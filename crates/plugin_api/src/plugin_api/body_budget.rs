//! The limit of bodies in memory, of which a plugin takes a part while it collects a response in place of a backend.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::future::LocalBoxFuture;

/// The bytes that bodies may have in memory, as one request gets them.
pub trait BodyBudget {
    /// Begins a body, which has no bytes so far.
    fn begin(&self) -> Box<dyn KeptBytes>;
}

/// The bytes of one body. Dropping it returns them.
pub trait KeptBytes {
    /// Takes bytes for the next part of the body, and may wait for them. If there are none, the request fails, whatever
    /// the plugin replies.
    fn grow(&mut self, bytes: usize) -> LocalBoxFuture<'_, Result<(), BudgetExceeded>>;
    /// How many were taken.
    fn bytes(&self) -> usize;
}

/// There is no room for more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetExceeded;

/// For tests of plugins: bodies of at most this many bytes together, of which nothing waits.
#[derive(Clone, Debug)]
pub struct FixedBudget(pub Arc<AtomicUsize>);

struct FixedBytes {
    left: FixedBudget,
    bytes: usize,
}

impl BodyBudget for FixedBudget {
    fn begin(&self) -> Box<dyn KeptBytes> {
        Box::new(FixedBytes { left: self.clone(), bytes: 0 })
    }
}

impl KeptBytes for FixedBytes {
    fn grow(&mut self, bytes: usize) -> LocalBoxFuture<'_, Result<(), BudgetExceeded>> {
        let taken = self.left.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes));
        if taken.is_ok() {
            self.bytes += bytes;
        }
        Box::pin(std::future::ready(taken.map(drop).map_err(|_| BudgetExceeded)))
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for FixedBytes {
    fn drop(&mut self) {
        self.left.0.fetch_add(self.bytes, Relaxed);
    }
}
