//! Secrets and ConfigMaps: only their metadata is watched, and the content of one is fetched if an object refers to it.
//! A cluster has thousands of them, for example the releases of Helm, and Portico needs only a few.

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
use super::collect::{DeliveryCollector, ReceivedObject};
use super::raw::{RawObject, api_resource};
use super::watch::WatchSink;
use super::watch_health::Scope;
use crate::api::kong::annotations::CREDENTIAL_LABEL;
use crate::api::{Kind, ObjectId, ObjectKey};

/// Which Secrets and ConfigMaps exist, which are wanted, and which were fetched.
#[derive(Debug)]
pub(super) struct ReferencedObjects {
    collector: Arc<DeliveryCollector>,
    state: Mutex<ReferencedState>,
    /// Wakes the fetcher when objects are due.
    changed: Notify,
    /// Whether every wanted object that exists was fetched, or its fetch failed once.
    settled: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct ReferencedState {
    /// The resource versions that each metadata watch reports. Scopes never overlap.
    versions: BTreeMap<Scope, BTreeMap<ObjectKey, Arc<str>>>,
    wanted: BTreeSet<ObjectId>,
    fetched: BTreeMap<ObjectId, FetchedVersion>,
}

/// A fetched object, or a failed fetch.
#[derive(Debug)]
struct FetchedVersion {
    /// The version that was to be fetched; empty if the fetch is to be repeated.
    requested: Arc<str>,
    /// The version that was returned last; None if every fetch failed. It may be newer than the requested one: then the
    /// watch reports it later.
    received: Option<Arc<str>>,
}

impl ReferencedObjects {
    pub(super) fn new(collector: Arc<DeliveryCollector>) -> Arc<ReferencedObjects> {
        let (changed, settled) = (Notify::new(), watch::Sender::new(true));
        Arc::new(ReferencedObjects { collector, state: Mutex::default(), changed, settled })
    }

    /// Sets the objects to fetch. Fetched objects that are no longer wanted are dropped.
    pub(super) fn set_wanted(&self, wanted: BTreeSet<ObjectId>) {
        let mut state = self.state.lock();
        if state.wanted == wanted {
            return;
        }
        let unwanted: Vec<_> = state.fetched.keys().filter(|id| !wanted.contains(*id)).cloned().collect();
        for id in unwanted {
            state.fetched.remove(&id);
            self.collector.deleted(&cluster_wide(id.kind), &id.key);
        }
        state.wanted = wanted;
        self.wake_if_due(state);
    }

    /// Whether every wanted object that exists was fetched, or attempted.
    pub(super) fn is_settled(&self) -> bool {
        self.state.lock().due().is_empty()
    }

    /// Notifies when `is_settled` may have changed.
    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.settled.subscribe()
    }

    /// Removes a kind that is no longer watched.
    pub(super) fn forget(&self, kind: Kind) {
        let mut state = self.state.lock();
        state.versions.retain(|scope, _| scope.kind != kind);
        self.drop_vanished(&mut state, kind);
        self.wake_if_due(state);
    }

    /// Fetches what is due; never returns.
    pub(super) async fn run_fetcher(self: Arc<Self>, mut client: watch::Receiver<Client>) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
        // Further attempts with the same error are not logged.
        let mut logged_error = None;
        loop {
            let due = {
                let state = self.state.lock();
                let due = state.due();
                // Sent under the lock, so that it does not describe an earlier set of wanted objects.
                self.settled.send_replace(due.is_empty());
                due
            };
            if due.is_empty() {
                self.changed.notified().await;
                continue;
            }
            let current_client = client.borrow_and_update().clone();
            let due = self.fetch_credentials(current_client.clone(), due).await;
            let results = iter(due).map(|(id, version)| self.fetch_one(current_client.clone(), id, version));
            let failed: Vec<_> =
                results.buffer_unordered(MAX_CONCURRENT_FETCHES).filter_map(|failed| async { failed }).collect().await;
            match failed.first() {
                None => {
                    backoff.reset();
                    logged_error = None;
                }
                Some((id, error)) => {
                    if logged_error.as_ref() != Some(error) {
                        let failed = failed.len();
                        tracing::warn!(object = %id, failed, "Cannot fetch a referenced object: {error}");
                        logged_error = Some(error.clone());
                    }
                    // Objects that cannot be fetched count as settled until the next attempt. Versions that were
                    // fetched before stay in use.
                    self.settled.send_replace(true);
                    self.retry_later(failed.into_iter().map(|(id, _)| id), backoff.next_delay()).await;
                }
            }
        }
    }

    /// Lists credentials when many are due: one list replaces thousands of single requests. Returns what is still due,
    /// such as credentials that a failed list did not return.
    async fn fetch_credentials(&self, client: Client, due: Vec<(ObjectId, Arc<str>)>) -> Vec<(ObjectId, Arc<str>)> {
        let mut due_by_namespace: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for (id, _) in due.iter().filter(|(id, _)| id.kind == Kind::Secret) {
            *due_by_namespace.entry(id.key.namespace.clone()).or_default() += 1;
        }
        due_by_namespace.retain(|_, count| *count >= LIST_THRESHOLD);
        if due_by_namespace.is_empty() {
            return due;
        }
        let requested: BTreeMap<ObjectId, Arc<str>> = due.into_iter().collect();
        for namespace in due_by_namespace.keys() {
            let api: Api<RawObject> =
                Api::namespaced_with(client.clone(), namespace, &api_resource(Kind::Secret, "v1"));
            let mut page = ListParams::default().labels(CREDENTIAL_LABEL).limit(PAGE_SIZE);
            while let Ok(Ok(list)) = timeout(FETCH_TIMEOUT, api.list(&page)).await {
                for raw in list.items {
                    let id = raw.key().map(|key| ObjectId::new(Kind::Secret, key));
                    if let Some((id, requested)) = id.and_then(|id| requested.get_key_value(&id)) {
                        self.store_fetched(id, requested, raw);
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

    /// Stores a fetched object if it is still wanted and still exists. Returns its version in every case.
    fn store_fetched(&self, id: &ObjectId, requested: &Arc<str>, raw: RawObject) -> Arc<str> {
        let received: Arc<str> = Arc::from(raw.resource_version());
        if let Some(object) = ReceivedObject::read(id.kind, raw) {
            // Locked until the object is stored, so that it is not dropped in between.
            let mut state = self.state.lock();
            // A deletion that the watch reported is newer than the fetched object.
            if state.wanted.contains(id) && state.version(id).is_some() {
                self.collector.applied(&cluster_wide(id.kind), object);
                state.fetched.insert(
                    id.clone(),
                    FetchedVersion { requested: requested.clone(), received: Some(received.clone()) },
                );
            }
        }
        received
    }

    /// Returns the object and the error if the fetch failed.
    async fn fetch_one(&self, client: Client, id: ObjectId, requested: Arc<str>) -> Option<(ObjectId, String)> {
        let api: Api<RawObject> = Api::namespaced_with(client, &id.key.namespace, &api_resource(id.kind, "v1"));
        let response = timeout(FETCH_TIMEOUT, api.get(&id.key.name)).await;
        let mut received = None;
        let failure = match response {
            Ok(Ok(raw)) => {
                received = Some(self.store_fetched(&id, &requested, raw));
                None
            }
            // Deleted in the meantime, which the watch is about to report.
            Ok(Err(Error::Api(status))) if status.code == 404 => None,
            Ok(Err(Error::Api(status))) if status.code == 403 => Some(format!(
                "403 {}; grant the verb get on {} to Portico's ServiceAccount",
                status.message,
                id.kind.plural()
            )),
            Ok(Err(error)) => Some(super::client::request_error_text(&error)),
            Err(_) => Some(format!("no response within {} s", FETCH_TIMEOUT.as_secs())),
        };
        if received.is_none() {
            self.state.lock().record_failed_fetch(&id, requested);
        }
        failure.map(|failure| (id, failure))
    }

    /// Makes objects due again after a delay; a change of what is due ends the delay early.
    async fn retry_later(&self, ids: impl Iterator<Item = ObjectId>, wait: Duration) {
        tokio::select! {
            () = sleep(wait) => {}
            () = self.changed.notified() => {}
        }
        let mut state = self.state.lock();
        for id in ids {
            if let Some(fetched_version) = state.fetched.get_mut(&id) {
                // No object has an empty version.
                fetched_version.requested = Arc::default();
            }
        }
    }

    /// Removes objects that no longer exist.
    fn drop_vanished(&self, state: &mut ReferencedState, kind: Kind) {
        let vanished: Vec<_> =
            state.fetched.keys().filter(|id| id.kind == kind && state.version(id).is_none()).cloned().collect();
        for id in vanished {
            state.fetched.remove(&id);
            self.collector.deleted(&cluster_wide(kind), &id.key);
        }
    }

    fn wake_if_due(&self, state: parking_lot::MutexGuard<'_, ReferencedState>) {
        if !state.due().is_empty() {
            self.settled.send_replace(false);
            self.changed.notify_one();
        }
    }
}

impl ReferencedState {
    fn version(&self, id: &ObjectId) -> Option<&Arc<str>> {
        let scopes = self.versions.iter().filter(|(scope, _)| scope.kind == id.kind);
        scopes.into_iter().find_map(|(_, versions)| versions.get(&id.key))
    }

    /// The objects to fetch, each with the version to fetch at least.
    fn due(&self) -> Vec<(ObjectId, Arc<str>)> {
        let due = self.wanted.iter().filter_map(|id| {
            let version = self.version(id)?;
            let is_current =
                |fetched: &FetchedVersion| fetched.requested == *version || fetched.received.as_ref() == Some(version);
            (!self.fetched.get(id).is_some_and(is_current)).then(|| (id.clone(), version.clone()))
        });
        due.collect()
    }

    /// Records a failed fetch; an object fetched before stays.
    fn record_failed_fetch(&mut self, id: &ObjectId, requested: Arc<str>) {
        if self.wanted.contains(id) {
            let fetched_version =
                self.fetched.entry(id.clone()).or_insert(FetchedVersion { requested: Arc::default(), received: None });
            fetched_version.requested = requested;
        }
    }
}

/// The sink of a watch of metadata.
pub(super) struct ReferencedSink {
    pub(super) objects: Arc<ReferencedObjects>,
    pub(super) scope: Scope,
}

impl WatchSink<true> for ReferencedSink {
    type Item = (ObjectKey, Arc<str>);

    fn read(&self, raw: RawObject<true>) -> Option<Self::Item> {
        Some((raw.key()?, Arc::from(raw.resource_version())))
    }

    fn listed(&self, items: Vec<Self::Item>) {
        let mut state = self.objects.state.lock();
        state.versions.insert(self.scope.clone(), items.into_iter().collect());
        self.objects.drop_vanished(&mut state, self.scope.kind);
        self.objects.wake_if_due(state);
    }

    fn applied(&self, (key, version): Self::Item) {
        let mut state = self.objects.state.lock();
        state.versions.entry(self.scope.clone()).or_default().insert(key, version);
        self.objects.wake_if_due(state);
    }

    fn deleted(&self, key: ObjectKey) {
        let mut state = self.objects.state.lock();
        if let Some(versions) = state.versions.get_mut(&self.scope) {
            versions.remove(&key);
        }
        self.objects.drop_vanished(&mut state, self.scope.kind);
    }
}

/// Fetched objects form one scope: the collector need not know which watch found them.
fn cluster_wide(kind: Kind) -> Scope {
    Scope { kind, namespace: None }
}

const MAX_CONCURRENT_FETCHES: usize = 8;
/// From this number of due Secrets in a namespace, credentials are listed instead of fetched one by one.
const LIST_THRESHOLD: usize = 32;
const PAGE_SIZE: u32 = 500;
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn objects_deleted_during_the_fetch_are_not_kept() {
        let key = ObjectKey::new("ns", "tls");
        let id = ObjectId::new(Kind::Secret, key.clone());
        for deleted in [false, true] {
            let collector = Arc::new(DeliveryCollector::default());
            let objects = ReferencedObjects::new(collector.clone());
            let sink = Arc::new(ReferencedSink { objects: objects.clone(), scope: cluster_wide(Kind::Secret) });
            sink.listed(vec![(key.clone(), Arc::from("1"))]);
            objects.set_wanted(BTreeSet::from([id.clone()]));
            let (metadata_sink, deleted_key) = (sink.clone(), key.clone());
            let server = tower::service_fn(move |_: http::Request<kube::client::Body>| {
                if deleted {
                    // The deletion arrives before the response.
                    metadata_sink.deleted(deleted_key.clone());
                }
                let secret = json!({"metadata": {"namespace": "ns", "name": "tls", "resourceVersion": "1"}});
                let body = http_body_util::Full::new(bytes::Bytes::from(secret.to_string()));
                std::future::ready(Ok::<_, Infallible>(http::Response::new(body)))
            });
            let client = Client::new(server, "default");
            assert_eq!(objects.fetch_one(client, id.clone(), Arc::from("1")).await, None);
            assert_eq!((collector.count(Kind::Secret), objects.is_settled()), (usize::from(!deleted), true));
        }
    }
}
