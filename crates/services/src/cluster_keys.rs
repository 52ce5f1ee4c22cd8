//! The keys that all replicas share, from the Secret `portico-keys` to the plugins.
//!
//! ```text
//!   Secret ─▶ valid? ─ yes ─▶ keys of plugins: all keys open at once, a new one seals after `SEALING_DELAY`
//!                └ no ─▶ log, event; the last good keys stay
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::api::{Kind, ObjectId, ObjectKey};
use crate::k8s::{
    ApiServerSource, Event, EventRecorder, KEY_SECRET_NAME, KeySecret, LeaderWriteGuard, StoredKeys, follow_key_secret,
};
use crate::plugin_api::{SharedKey, SharedKeySet, SharedKeys};
use crate::ready::ReadyGuard;

/// The place of the Secret, and what its tasks need to write.
pub struct KeySecretParts {
    pub namespace: String,
    pub leading: watch::Receiver<bool>,
    pub write_guard: LeaderWriteGuard,
    pub recorder: EventRecorder,
}

/// Follows the Secret until the tasks are dropped. Readiness waits for the first response about it.
pub fn start(
    source: &ApiServerSource,
    parts: KeySecretParts,
    ready: ReadyGuard,
    tasks: &mut JoinSet<()>,
) -> Arc<SharedKeys> {
    let keys = SharedKeys::random();
    let (sender, state) = watch::channel(KeySecret::Unknown);
    let KeySecretParts { namespace, leading, write_guard, recorder } = parts;
    let id = ObjectId::new(Kind::Secret, ObjectKey::new(&namespace, KEY_SECRET_NAME));
    tasks.spawn(follow_key_secret(source.client(), namespace, leading.clone(), write_guard, sender));
    let follower = KeyFollower { keys: Arc::clone(&keys), id, leading, recorder, applied: None };
    tasks.spawn(follower.run(state, ready));
    keys
}

struct KeyFollower {
    keys: Arc<SharedKeys>,
    id: ObjectId,
    leading: watch::Receiver<bool>,
    recorder: EventRecorder,
    /// The last good keys, with the one that seals.
    applied: Option<AppliedKeys>,
}

/// Which of the stored keys seals.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AppliedKeys {
    stored: StoredKeys,
    sealing: SealingRole,
    /// When the current key begins to seal.
    due: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SealingRole {
    Current,
    Former,
}

impl AppliedKeys {
    /// New keys after others. A key that has sealed until now does so for a while: another replica may not know the new
    /// one yet.
    fn after(before: Option<&AppliedKeys>, stored: StoredKeys, now: Instant) -> Self {
        let sealed_with = before.map(AppliedKeys::sealing_key);
        let is_current = sealed_with.is_none_or(|key| key == stored.current);
        if !is_current && sealed_with == stored.former.as_deref() {
            return AppliedKeys { stored, sealing: SealingRole::Former, due: Some(now + SEALING_DELAY) };
        }
        AppliedKeys { stored, sealing: SealingRole::Current, due: None }
    }

    fn sealing_key(&self) -> &[u8] {
        match (self.sealing, &self.stored.former) {
            (SealingRole::Former, Some(former)) => former,
            _ => &self.stored.current,
        }
    }

    fn set(&self) -> SharedKeySet {
        let current = SharedKey::new(&self.stored.current);
        let former = self.stored.former.as_deref().map(SharedKey::new);
        match (self.sealing, former) {
            (SealingRole::Former, Some(former)) => SharedKeySet { sealing: former, opening: Some(current) },
            (_, former) => SharedKeySet { sealing: current, opening: former },
        }
    }
}

impl KeyFollower {
    async fn run(mut self, mut state: watch::Receiver<KeySecret>, ready: ReadyGuard) {
        // An API server that does not respond is reported elsewhere.
        drop(timeout(FIRST_RESPONSE_LIMIT, state.wait_for(|state| *state != KeySecret::Unknown)).await);
        let mut ready = Some(ready);
        loop {
            let seen = state.borrow_and_update().clone();
            self.apply(seen).await;
            ready.take();
            let due = self.applied.as_ref().and_then(|applied| applied.due);
            let is_due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return },
                () = is_due => self.seal_with_current(),
            }
        }
    }

    async fn apply(&mut self, seen: KeySecret) {
        let name = &self.id.key;
        match seen {
            KeySecret::Unknown => {}
            KeySecret::Forbidden => warn!(
                "Cannot read Secret {name}; allow list and watch on secrets named {KEY_SECRET_NAME} there. Until then, \
                 this replica has random keys, and does not accept sessions of the others"
            ),
            KeySecret::Missing if self.applied.is_some() => {
                info!("Secret {name} does not exist any more; its keys stay in use until the leader has created it")
            }
            KeySecret::Missing => info!("Secret {name} does not exist yet; the leader creates it"),
            KeySecret::Invalid { uid, message } => self.report(&uid, &message).await,
            KeySecret::Valid(stored) => {
                if self.applied.as_ref().is_some_and(|applied| applied.stored == stored) {
                    return;
                }
                let applied = AppliedKeys::after(self.applied.as_ref(), stored, Instant::now());
                self.keys.replace(applied.set());
                self.applied = Some(applied);
                info!("Using the keys of Secret {name} for sessions");
            }
        }
    }

    fn seal_with_current(&mut self) {
        if let Some(applied) = &mut self.applied {
            (applied.sealing, applied.due) = (SealingRole::Current, None);
            self.keys.replace(applied.set());
        }
    }

    async fn report(&self, uid: &str, message: &str) {
        let consequence = match self.applied {
            Some(_) => "the last good keys stay in use",
            None => "each replica has random keys, and does not accept sessions of the others",
        };
        let note = format!("{message}. Until then, {consequence}.");
        warn!("Invalid Secret {}: {note}", self.id.key);
        if !*self.leading.borrow() {
            return;
        }
        let event = Event { id: &self.id, api_version: "v1", uid, warning: true, reason: "InvalidKeys", note: &note };
        if let Err(error) = self.recorder.record(&event, true).await {
            warn!(%error, "Cannot write an event about Secret {}", self.id.key);
        }
    }
}

/// How long a new key only opens: longer than another replica needs to notice it.
const SEALING_DELAY: Duration = Duration::from_secs(10);
/// How long readiness waits for the first response about the Secret.
const FIRST_RESPONSE_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::ready::Readiness;

    fn stored(current: &str, former: Option<&str>) -> StoredKeys {
        StoredKeys { current: current.as_bytes().to_vec(), former: former.map(|key| key.as_bytes().to_vec()) }
    }

    /// Every replica can open what another one seals, whichever of both has seen the change.
    #[tokio::test(start_paused = true)]
    async fn keys_that_other_replicas_may_not_know_do_not_seal() {
        let now = Instant::now();
        for (before, after, sealing, is_delayed) in [
            (None, ("a", Some("b")), "a", false),
            (Some(("a", None)), ("b", Some("a")), "a", true),
            (Some(("a", Some("z"))), ("b", Some("a")), "a", true),
            (Some(("a", Some("z"))), ("a", Some("y")), "a", false),
            (Some(("a", Some("z"))), ("a", None), "a", false),
            // All sessions end.
            (Some(("a", Some("z"))), ("b", Some("y")), "b", false),
            (Some(("a", Some("z"))), ("b", None), "b", false),
            // Back to the former key.
            (Some(("b", Some("a"))), ("a", None), "a", false),
            (Some(("a", Some("a"))), ("a", Some("a")), "a", false),
        ] {
            let keys = |(current, former)| stored(current, former);
            let before = before.map(|pair| AppliedKeys::after(None, keys(pair), now));
            let applied = AppliedKeys::after(before.as_ref(), keys(after), now);
            assert_eq!(applied.sealing_key(), sealing.as_bytes(), "{after:?}");
            assert_eq!(applied.set().sealing.as_bytes(), sealing.as_bytes(), "{after:?}");
            assert_eq!(applied.due, is_delayed.then_some(now + SEALING_DELAY), "{after:?}");
            let set = applied.set();
            let opens: Vec<_> = [Some(&set.sealing), set.opening.as_ref()]
                .into_iter()
                .flatten()
                .map(|key| key.as_bytes().to_vec())
                .collect();
            assert!(opens.contains(&after.0.as_bytes().to_vec()), "{after:?}");
            assert!(after.1.is_none_or(|former| opens.contains(&former.as_bytes().to_vec())), "{after:?}");
        }
        // A second rotation before the first one has ended.
        let first = AppliedKeys::after(None, stored("a", None), now);
        let second = AppliedKeys::after(Some(&first), stored("b", Some("a")), now);
        let third = AppliedKeys::after(Some(&second), stored("c", Some("b")), now);
        assert_eq!(third.sealing_key(), b"c", "the key that sealed is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_key_seals_when_other_replicas_know_it() {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("no server"))
        });
        let client = watch::Sender::new(kube::Client::new(service, "default"));
        let keys = SharedKeys::random();
        let follower = KeyFollower {
            keys: Arc::clone(&keys),
            id: ObjectId::new(Kind::Secret, ObjectKey::new("portico-system", KEY_SECRET_NAME)),
            leading: watch::channel(false).1,
            recorder: EventRecorder::new(client.subscribe(), "test", "test"),
            applied: None,
        };
        let ready = Readiness::new();
        let state = watch::Sender::new(KeySecret::Unknown);
        let running = tokio::spawn(follower.run(state.subscribe(), ready.guard("keys")));
        let sealing = || String::from_utf8_lossy(keys.load().sealing.as_bytes()).into_owned();
        let settled = || sleep(Duration::from_millis(1)); // Paused time moves once all tasks wait.
        settled().await; // Time is paused.
        assert!(!ready.is_ready(), "the API server has not responded");
        state.send_replace(KeySecret::Valid(stored("a", None)));
        settled().await; // Time is paused.
        assert!(ready.is_ready());
        assert_eq!(sealing(), "a");
        state.send_replace(KeySecret::Valid(stored("b", Some("a"))));
        settled().await; // Time is paused.
        assert_eq!(sealing(), "a", "others may not know the new key");
        let invalid = KeySecret::Invalid { uid: "u".to_owned(), message: "data.current: is missing".to_owned() };
        for other in [KeySecret::Missing, invalid, KeySecret::Forbidden] {
            state.send_replace(other);
            settled().await; // Time is paused.
            assert_eq!(sealing(), "a", "the last good keys stay");
        }
        sleep(SEALING_DELAY).await; // Time is paused.
        assert_eq!(sealing(), "b");
        running.abort();
    }
}
