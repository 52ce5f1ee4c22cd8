//! Which configuration was in force when, as far as can be known from outside.

use parking_lot::Mutex;
use tokio::time::Instant;

/// All versions of one thing, in order.
pub(crate) struct History<T>(Mutex<Vec<Version<T>>>);

struct Version<T> {
    what: T,
    /// Before it was written. From then on it may be in force.
    from: Instant,
    /// When the next one was seen in force. Until then it may still be.
    until: Option<Instant>,
}

impl<T> History<T> {
    pub(crate) fn new() -> Self {
        History(Mutex::new(Vec::new()))
    }

    /// To be called before it is written. Returns its number.
    pub(crate) fn begin(&self, what: T) -> usize {
        let mut versions = self.0.lock();
        versions.push(Version { what, from: Instant::now(), until: None });
        versions.len() - 1
    }

    /// This version was seen in force, so none before it is.
    pub(crate) fn seen(&self, number: usize) {
        let now = Instant::now();
        for version in &mut self.0.lock()[..number] {
            version.until.get_or_insert(now);
        }
    }

    /// Whether some version may have been in force between these two moments that `suits`.
    pub(crate) fn suits(&self, begin: Instant, end: Instant, suits: impl Fn(usize, &T) -> bool) -> bool {
        let versions = self.0.lock();
        // The newest first: nearly always it is one of the last two.
        versions.iter().enumerate().rev().any(|(number, version)| {
            version.from <= end && version.until.is_none_or(|until| until >= begin) && suits(number, &version.what)
        })
    }
}
