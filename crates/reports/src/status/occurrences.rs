//! Events about what happens to the endpoints of an object while it is served. Unlike a problem of the configuration,
//! an occurrence has no end: each one is reported, but of one reason and cause only one in a minute.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::notices::{self, Notice};
use crate::api::ObjectId;

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Whether the event is a warning; otherwise it is normal.
    pub warning: bool,
    /// The reason of the event, such as `EndpointEjected`.
    pub reason: &'static str,
    /// What distinguishes occurrences with one reason; may be empty.
    pub cause: &'static str,
    pub note: String,
}

/// The occurrences that are not reported yet.
#[derive(Debug, Default)]
pub(super) struct OccurrenceQueue {
    /// When an occurrence was last added, by object, reason and cause. Entries older than [`INTERVAL`] have no effect.
    added: HashMap<(ObjectId, &'static str, &'static str), Instant>,
    waiting: VecDeque<(ObjectId, Notice)>,
}

impl OccurrenceQueue {
    /// Adds an occurrence; false if a similar one was added within the last minute, or if too many wait.
    pub(super) fn add(&mut self, id: ObjectId, occurrence: Occurrence, now: Instant) -> bool {
        let Occurrence { warning, reason, cause, note } = occurrence;
        let is_recent = |added: &Instant| now.saturating_duration_since(*added) < INTERVAL;
        let key = (id.clone(), reason, cause);
        if self.waiting.len() >= MAX_WAITING || self.added.get(&key).is_some_and(is_recent) {
            return false;
        }
        if self.added.len() >= MAX_REMEMBERED {
            self.added.retain(|_, added| is_recent(added));
            if self.added.len() >= MAX_REMEMBERED {
                return false;
            }
        }
        self.added.insert(key, now);
        self.waiting.push_back((id, Notice { warning, ..notices::notice(reason, &note) }));
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The oldest occurrence.
    pub(super) fn take(&mut self) -> Option<(ObjectId, Notice)> {
        self.waiting.pop_front()
    }

    /// Forgets everything, because another replica reports from now on.
    pub(super) fn clear(&mut self) {
        *self = OccurrenceQueue::default();
    }
}

/// The minimum time between two similar events.
const INTERVAL: Duration = Duration::from_secs(60);
/// Occurrences that wait; at five events in a second, further ones would come too late to be of use.
const MAX_WAITING: usize = 300;
/// Objects, reasons and causes of the last minute.
const MAX_REMEMBERED: usize = 10_000;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::api::{Kind, ObjectKey};

    fn service(name: &str) -> ObjectId {
        ObjectId::new(Kind::Service, ObjectKey::new("shop", name))
    }

    fn ejection(cause: &'static str) -> Occurrence {
        Occurrence { warning: true, reason: "EndpointEjected", cause, note: "10.0.0.1:80".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn similar_occurrences_are_added_once_in_a_minute() {
        let mut queue = OccurrenceQueue::default();
        let mut add = |name: &str, cause| queue.add(service(name), ejection(cause), Instant::now());
        assert!(add("cart", "connect") && !add("cart", "connect"));
        assert!(add("cart", "active") && add("other", "connect"), "another cause, another Service");
        advance(Duration::from_secs(59)).await;
        assert!(!add("cart", "connect"));
        advance(Duration::from_secs(1)).await;
        assert!(add("cart", "connect") && !add("cart", "connect"));
        let names: Vec<_> = std::iter::from_fn(|| queue.take()).map(|(id, _)| id.key.name.to_string()).collect();
        assert_eq!(names, ["cart", "cart", "other", "cart"]);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn number_of_occurrences_is_limited() {
        let mut queue = OccurrenceQueue::default();
        let added =
            (0..1_000).filter(|number| queue.add(service(&number.to_string()), ejection("connect"), Instant::now()));
        assert_eq!(added.count(), MAX_WAITING);
        for number in 0..MAX_REMEMBERED + 10 {
            queue.waiting.clear();
            queue.add(service(&format!("s{number}")), ejection("connect"), Instant::now());
        }
        assert_eq!(queue.added.len(), MAX_REMEMBERED);
        queue.waiting.clear();
        advance(INTERVAL).await;
        assert!(queue.add(service("later"), ejection("connect"), Instant::now()));
        assert_eq!(queue.added.len(), 1, "old entries are forgotten");
    }
}
