//! The versions of a configuration item, and the period in which the proxy may have served each of them.

use parking_lot::Mutex;
use tokio::time::Instant;

/// All versions of one configuration item, in order.
pub(crate) struct History<T>(Mutex<Vec<Version<T>>>);

struct Version<T> {
    value: T,
    /// An instant before the version was written. From then on it may be served.
    from: Instant,
    /// When a later version was observed. Until then this one may still be served.
    until: Option<Instant>,
}

impl<T> History<T> {
    pub(crate) fn new() -> Self {
        History(Mutex::new(Vec::new()))
    }

    /// Adds a version and returns its number. Must be called before the version is written for the proxy.
    pub(crate) fn begin(&self, value: T) -> usize {
        let mut versions = self.0.lock();
        versions.push(Version { value, from: Instant::now(), until: None });
        versions.len() - 1
    }

    /// Records that a response showed this version. Earlier versions are not served any more.
    pub(crate) fn mark_observed(&self, number: usize) {
        let now = Instant::now();
        for version in &mut self.0.lock()[..number] {
            version.until.get_or_insert(now);
        }
    }

    /// Whether `predicate` holds for any version that may have been served between two instants. Its first argument is
    /// the number of the version.
    pub(crate) fn any_during(&self, begin: Instant, end: Instant, predicate: impl Fn(usize, &T) -> bool) -> bool {
        let versions = self.0.lock();
        // The newest first, since nearly always one of the last two matches.
        versions.iter().enumerate().rev().any(|(number, version)| {
            version.from <= end && version.until.is_none_or(|until| until >= begin) && predicate(number, &version.value)
        })
    }
}
