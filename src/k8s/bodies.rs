//! Secrets and ConfigMaps: of all of them only names and versions are watched, and what is in one is fetched when an object
//! mentions it. A cluster has thousands, Helm's releases among them, and a gateway needs a handful.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use kube::api::ListParams;
use kube::{Api, Client, Error};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::backoff::Backoff;
use super::collect::{Arrival, Collector, Scope};
use super::raw::{Raw, resource};
use super::watch::Sink;
use crate::api::kong::annotations::CREDENTIAL_LABEL;
use crate::api::{Kind, ObjectId, ObjectKey};

/// The kinds that are fetched one by one.
pub(super) const FETCHED: &[Kind] = &[Kind::ConfigMap, Kind::Secret];

/// Which bodies there are, which are wanted, and which we have.
#[derive(Debug)]
pub(super) struct Bodies {
    collector: Arc<Collector>,
    state: Mutex<State>,
    changed: Notify,
    /// Nothing that is wanted and exists is missing, but for what was tried in vain.
    settled: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// Versions by the watches of metadata. Scopes never overlap.
    versions: BTreeMap<Scope, BTreeMap<ObjectKey, Arc<str>>>,
    wanted: BTreeSet<ObjectId>,
    held: BTreeMap<ObjectId, Held>,
}

/// A body that was fetched, or could not be.
#[derive(Debug)]
struct Held {
    /// The version that was to be fetched.
    asked: Arc<str>,
    /// The version that came; it may be a newer one, which the watch then tells about later.
    got: Option<Arc<str>>,
}

impl Bodies {
    pub(super) fn new(collector: Arc<Collector>) -> Arc<Bodies> {
        let (changed, settled) = (Notify::new(), watch::Sender::new(true));
        Arc::new(Bodies { collector, state: Mutex::default(), changed, settled })
    }

    /// Names the objects whose bodies are wanted from now on; all others are given up.
    pub(super) fn want(&self, wanted: BTreeSet<ObjectId>) {
        let mut state = self.state.lock();
        if state.wanted == wanted {
            return;
        }
        let given_up: Vec<_> = state.held.keys().filter(|id| !wanted.contains(*id)).cloned().collect();
        for id in given_up {
            state.held.remove(&id);
            self.collector.deleted(&cluster_wide(id.kind), &id.key);
        }
        state.wanted = wanted;
        self.look(state);
    }

    /// Whether every body that is wanted and exists was fetched, or at least tried.
    pub(super) fn settled(&self) -> bool {
        self.state.lock().due().is_empty()
    }

    /// Tells when `settled` may have changed.
    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.settled.subscribe()
    }

    /// The kind is not watched any more.
    pub(super) fn forget(&self, kind: Kind) {
        let mut state = self.state.lock();
        state.versions.retain(|scope, _| scope.kind != kind);
        self.drop_vanished(&mut state, kind);
        self.look(state);
    }

    /// Fetches what is due, for ever.
    pub(super) async fn fetch(self: Arc<Self>, mut client: watch::Receiver<Client>) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
        // Said once, and not before each further try.
        let mut told = None;
        loop {
            let due = {
                let state = self.state.lock();
                let due = state.due();
                // Under the lock, or it might say so of what was wanted before.
                self.settled.send_replace(due.is_empty());
                due
            };
            if due.is_empty() {
                self.changed.notified().await;
                continue;
            }
            let now = client.borrow_and_update().clone();
            let due = self.fetch_credentials(now.clone(), due).await;
            let results = iter(due).map(|(id, version)| self.fetch_one(now.clone(), id, version));
            let failed: Vec<_> =
                results.buffer_unordered(AT_ONCE).filter_map(|failed| async { failed }).collect().await;
            match failed.first() {
                None => {
                    backoff.reset();
                    told = None;
                }
                Some((id, why)) => {
                    if told.as_ref() != Some(why) {
                        tracing::warn!(object = %id, failed = failed.len(), "Cannot fetch what is referred to: {why}");
                        told = Some(why.clone());
                    }
                    // Whoever waits for them has waited once; what was there stays.
                    self.settled.send_replace(true);
                    self.retry_later(failed.into_iter().map(|(id, _)| id), backoff.wait()).await;
                }
            }
        }
    }

    /// Thousands of consumers have as many credentials, which one list brings where single questions take long. What it
    /// does not bring is still due, and what is wrong with it is told by whoever asks for that alone.
    async fn fetch_credentials(&self, client: Client, due: Vec<(ObjectId, Arc<str>)>) -> Vec<(ObjectId, Arc<str>)> {
        let mut counts: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for (id, _) in due.iter().filter(|(id, _)| id.kind == Kind::Secret) {
            *counts.entry(id.key.namespace.clone()).or_default() += 1;
        }
        counts.retain(|_, count| *count >= MANY);
        if counts.is_empty() {
            return due;
        }
        let asked: BTreeMap<ObjectId, Arc<str>> = due.into_iter().collect();
        for namespace in counts.keys() {
            let api: Api<Raw> = Api::namespaced_with(client.clone(), namespace, &resource(Kind::Secret, "v1"));
            let mut page = ListParams::default().labels(CREDENTIAL_LABEL).limit(PAGE);
            while let Ok(Ok(list)) = timeout(LONGEST_FETCH, api.list(&page)).await {
                for raw in list.items {
                    let id = raw.key().map(|key| ObjectId::new(Kind::Secret, key));
                    if let Some((id, asked)) = id.and_then(|id| asked.get_key_value(&id)) {
                        self.take(id, asked, raw);
                    }
                }
                match list.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => page = page.continue_token(&token),
                    None => break,
                }
            }
        }
        self.state.lock().due()
    }

    /// Hands a body on, and says in which version it came.
    fn take(&self, id: &ObjectId, asked: &Arc<str>, raw: Raw) -> Arc<str> {
        let got: Arc<str> = Arc::from(raw.resource_version());
        if let Some(arrival) = Arrival::read(id.kind, raw) {
            // Under the lock, so that nobody gives it up in between.
            let mut state = self.state.lock();
            // If the watch has told that it is gone, that came after what is read here.
            if state.wanted.contains(id) && state.version(id).is_some() {
                self.collector.applied(&cluster_wide(id.kind), arrival);
                state.held.insert(id.clone(), Held { asked: asked.clone(), got: Some(got.clone()) });
            }
        }
        got
    }

    /// Says what failed, if anything did.
    async fn fetch_one(&self, client: Client, id: ObjectId, asked: Arc<str>) -> Option<(ObjectId, String)> {
        let api: Api<Raw> = Api::namespaced_with(client, &id.key.namespace, &resource(id.kind, "v1"));
        let answer = timeout(LONGEST_FETCH, api.get(&id.key.name)).await;
        let mut got = None;
        let failure = match answer {
            Ok(Ok(raw)) => {
                got = Some(self.take(&id, &asked, raw));
                None
            }
            // Gone meanwhile, which the watch is about to tell.
            Ok(Err(Error::Api(status))) if status.code == 404 => None,
            Ok(Err(Error::Api(status))) if status.code == 403 => {
                Some(format!("403 {}; grant get on {} to Portico", status.message, id.kind.plural()))
            }
            Ok(Err(error)) => Some(super::client::describe(&error)),
            Err(_) => Some(format!("no answer within {} s", LONGEST_FETCH.as_secs())),
        };
        if got.is_none() {
            self.state.lock().tried(&id, asked);
        }
        failure.map(|failure| (id, failure))
    }

    /// Makes them due again after a while; what else becomes due is not kept waiting.
    async fn retry_later(&self, ids: impl Iterator<Item = ObjectId>, wait: Duration) {
        tokio::select! {
            () = sleep(wait) => {}
            () = self.changed.notified() => {}
        }
        let mut state = self.state.lock();
        for id in ids {
            if let Some(held) = state.held.get_mut(&id) {
                held.asked = Arc::default();
            }
        }
    }

    /// Takes back the bodies of objects that are no more.
    fn drop_vanished(&self, state: &mut State, kind: Kind) {
        let vanished: Vec<_> =
            state.held.keys().filter(|id| id.kind == kind && state.version(id).is_none()).cloned().collect();
        for id in vanished {
            state.held.remove(&id);
            self.collector.deleted(&cluster_wide(kind), &id.key);
        }
    }

    fn look(&self, state: parking_lot::MutexGuard<'_, State>) {
        if !state.due().is_empty() {
            self.settled.send_replace(false);
            self.changed.notify_one();
        }
    }
}

impl State {
    fn version(&self, id: &ObjectId) -> Option<&Arc<str>> {
        let scopes = self.versions.iter().filter(|(scope, _)| scope.kind == id.kind);
        scopes.into_iter().find_map(|(_, versions)| versions.get(&id.key))
    }

    /// What has to be fetched, and at least in which version.
    fn due(&self) -> Vec<(ObjectId, Arc<str>)> {
        let due = self.wanted.iter().filter_map(|id| {
            let version = self.version(id)?;
            let known = self.held.get(id);
            let fresh = known.is_some_and(|held| held.asked == *version || held.got.as_ref() == Some(version));
            (!fresh).then(|| (id.clone(), version.clone()))
        });
        due.collect()
    }

    /// It was asked for in vain; what was fetched before stays.
    fn tried(&mut self, id: &ObjectId, asked: Arc<str>) {
        if self.wanted.contains(id) {
            let held = self.held.entry(id.clone()).or_insert(Held { asked: Arc::default(), got: None });
            held.asked = asked;
        }
    }
}

/// Where a watch of their metadata puts what it sees.
pub(super) struct BodySink {
    pub(super) bodies: Arc<Bodies>,
    pub(super) scope: Scope,
}

impl Sink<true> for BodySink {
    type Item = (ObjectKey, Arc<str>);

    fn read(&self, raw: Raw<true>) -> Option<Self::Item> {
        Some((raw.key()?, Arc::from(raw.resource_version())))
    }

    fn listed(&self, items: Vec<Self::Item>) {
        let mut state = self.bodies.state.lock();
        state.versions.insert(self.scope.clone(), items.into_iter().collect());
        self.bodies.drop_vanished(&mut state, self.scope.kind);
        self.bodies.look(state);
    }

    fn applied(&self, (key, version): Self::Item) {
        let mut state = self.bodies.state.lock();
        state.versions.entry(self.scope.clone()).or_default().insert(key, version);
        self.bodies.look(state);
    }

    fn deleted(&self, key: ObjectKey) {
        let mut state = self.bodies.state.lock();
        if let Some(versions) = state.versions.get_mut(&self.scope) {
            versions.remove(&key);
        }
        self.bodies.drop_vanished(&mut state, self.scope.kind);
    }
}

/// Fetched bodies are one scope: the collector need not know how their names were found.
fn cluster_wide(kind: Kind) -> Scope {
    Scope { kind, namespace: None }
}

const AT_ONCE: usize = 8;
/// From so many on in one namespace, credentials are listed.
const MANY: usize = 32;
const PAGE: u32 = 500;
const LONGEST_FETCH: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_goes_while_it_is_fetched_is_not_kept() {
        let key = ObjectKey::new("ns", "tls");
        let id = ObjectId::new(Kind::Secret, key.clone());
        for goes in [false, true] {
            let collector = Arc::new(Collector::default());
            let bodies = Bodies::new(collector.clone());
            let sink = Arc::new(BodySink { bodies: bodies.clone(), scope: cluster_wide(Kind::Secret) });
            sink.listed(vec![(key.clone(), Arc::from("1"))]);
            bodies.want(BTreeSet::from([id.clone()]));
            let (watching, gone) = (sink.clone(), key.clone());
            let server = tower::service_fn(move |_: http::Request<kube::client::Body>| {
                if goes {
                    // The watch is quicker than the answer.
                    watching.deleted(gone.clone());
                }
                let secret = json!({"metadata": {"namespace": "ns", "name": "tls", "resourceVersion": "1"}});
                let body = http_body_util::Full::new(bytes::Bytes::from(secret.to_string()));
                std::future::ready(Ok::<_, Infallible>(http::Response::new(body)))
            });
            let client = Client::new(server, "default");
            assert_eq!(bodies.fetch_one(client, id.clone(), Arc::from("1")).await, None);
            assert_eq!((collector.count(Kind::Secret), bodies.settled()), (usize::from(!goes), true));
        }
    }
}
