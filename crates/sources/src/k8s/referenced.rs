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
use super::watch::{PAGE_SIZE, WatchSink};
use super::watch_health::{Scope, WatchError};
use crate::api::kong::annotations::CREDENTIAL_LABEL;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::store::LargeObjects;

/// Which Secrets and ConfigMaps exist, which are wanted, and which were fetched.
#[derive(Debug)]
pub(super) struct ReferencedObjects {
    collector: Arc<DeliveryCollector>,
    large_objects: LargeObjects,
    state: Mutex<ReferencedState>,
    /// Wakes the fetcher when objects are due.
    changed: Notify,
    progress: watch::Sender<ReferencedFetchProgress>,
}

/// Secrets and ConfigMaps to which objects begin or cease to refer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferenceChanges {
    pub added: BTreeSet<ObjectId>,
    pub removed: BTreeSet<ObjectId>,
}

/// How far the fetches are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ReferencedFetchProgress {
    /// Whether every wanted object that exists was fetched in some version, or its last fetch failed.
    is_settled: bool,
    /// Whether the API server has responded for every wanted object that exists: with the object, 403 or 404.
    is_complete: bool,
    /// Increases when the set of unfetched objects or that of forbidden ones changes.
    unfetched_revision: u64,
}

#[derive(Debug, Default)]
struct ReferencedState {
    /// The resource versions that each metadata watch reports. Scopes never overlap.
    versions: BTreeMap<Scope, BTreeMap<ObjectKey, Arc<str>>>,
    wanted: BTreeSet<ObjectId>,
    fetched: BTreeMap<ObjectId, FetchedVersion>,
    /// The wanted objects whose current version is to be fetched.
    due: BTreeSet<ObjectId>,
    /// The wanted objects that exist and for which the API server has returned neither a version nor 403 or 404.
    unfetched: BTreeSet<ObjectId>,
    /// The wanted objects that exist, for which the API server responds 403, and of which no version was fetched.
    forbidden: BTreeSet<ObjectId>,
    unfetched_revision: u64,
    /// The objects that are both due and unfetched. Compilations wait for them, but not for newer versions of fetched
    /// objects: an object that changes all the time would delay every change of other objects.
    awaited: BTreeSet<ObjectId>,
}

/// A fetched object, or a failed fetch.
#[derive(Debug)]
struct FetchedVersion {
    /// The version that was to be fetched; empty if the fetch is to be repeated.
    requested: Arc<str>,
    /// The version that was returned last; None if every fetch failed. It may be newer than the requested one: then the
    /// watch reports it later.
    received: Option<Arc<str>>,
    /// Set if the API server refused the last fetch.
    refusal: Option<FetchRefusal>,
}

/// Why the API server does not return an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FetchRefusal {
    /// 403, except for that of an API server that does not know a role.
    Forbidden,
    /// 404.
    NotFound,
}

/// Why a fetch returned no object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FetchFailure {
    id: ObjectId,
    error: String,
    /// The delay that the server requests.
    retry_after: Duration,
}

impl ReferencedObjects {
    pub(super) fn new(collector: Arc<DeliveryCollector>, large_objects: LargeObjects) -> Arc<ReferencedObjects> {
        let progress = ReferencedFetchProgress { is_settled: true, is_complete: true, unfetched_revision: 0 };
        let (changed, progress) = (Notify::new(), watch::Sender::new(progress));
        Arc::new(ReferencedObjects { collector, large_objects, state: Mutex::default(), changed, progress })
    }

    /// Changes the objects to fetch. Fetched objects that are no longer wanted are dropped.
    pub(super) fn change_wanted(&self, changes: &ReferenceChanges) {
        let ReferenceChanges { added, removed } = changes;
        if added.is_empty() && removed.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        for id in removed {
            state.wanted.remove(id);
            if state.fetched.remove(id).is_some() {
                self.collector.deleted(&cluster_wide(id.kind), &id.key);
            }
            state.update(id);
        }
        for id in added {
            state.wanted.insert(id.clone());
            state.update(id);
        }
        self.publish_and_wake(&state);
    }

    /// Whether every wanted object that exists was fetched in some version, or its last fetch failed.
    pub(super) fn is_settled(&self) -> bool {
        self.state.lock().awaited.is_empty()
    }

    /// The wanted objects that exist, and whose content was not returned by `next` yet. An object for which the API
    /// server responded 403 or 404 is not one of them.
    pub(super) fn unfetched(&self, before: &BTreeSet<ObjectId>) -> (BTreeSet<ObjectId>, u64) {
        let state = self.state.lock();
        let mut unfetched = state.unfetched.clone();
        // A fetched object leaves the set under this lock, but reaches the control loop only with its delivery.
        let is_pending = |id: &&ObjectId| state.wanted.contains(*id) && self.collector.has_pending(id);
        unfetched.extend(before.iter().filter(is_pending).cloned());
        (unfetched, state.unfetched_revision)
    }

    /// The wanted objects that exist and may not be fetched: the API server responds 403 to `get`.
    pub(super) fn forbidden(&self) -> BTreeSet<ObjectId> {
        self.state.lock().forbidden.clone()
    }

    /// Whether a wanted object of this kind was fetched.
    pub(super) fn has_fetched(&self, kind: Kind) -> bool {
        let state = self.state.lock();
        state.fetched.iter().any(|(id, fetched)| id.kind == kind && fetched.received.is_some())
    }

    /// Waits until every wanted object that exists was fetched or its last fetch failed; with `all`, until the API
    /// server has responded for each of them with the object, 403 or 404.
    pub(super) async fn wait_until_fetched(&self, all: bool) {
        self.wait_for(|progress| progress.is_settled && (progress.is_complete || !all)).await;
    }

    /// Waits until the set of unfetched objects, or that of forbidden ones, is another one than in this revision.
    pub(super) async fn wait_until_unfetched_changes(&self, revision: u64) {
        self.wait_for(|progress| progress.unfetched_revision != revision).await;
    }

    async fn wait_for(&self, condition: impl FnMut(&ReferencedFetchProgress) -> bool) {
        // Cannot fail: `self` holds the sender.
        drop(self.progress.subscribe().wait_for(condition).await);
    }

    /// Removes a kind that is no longer watched.
    pub(super) fn forget(&self, kind: Kind) {
        let mut state = self.state.lock();
        state.versions.retain(|scope, _| scope.kind != kind);
        self.versions_changed(&mut state, kind);
    }

    /// Fetches what is due; never returns.
    pub(super) async fn run_fetcher(self: Arc<Self>, mut client: watch::Receiver<Client>) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
        // Further attempts with the same error are not logged.
        let mut logged_error = None;
        loop {
            let due = {
                let state = self.state.lock();
                self.publish_progress(&state);
                state.versions_due()
            };
            if due.is_empty() {
                self.changed.notified().await;
                continue;
            }
            let current_client = client.borrow_and_update().clone();
            let due = self.fetch_credentials(current_client.clone(), due).await;
            let results = iter(due).map(|(id, version)| self.fetch_one(current_client.clone(), id, version));
            let failed: Vec<FetchFailure> =
                results.buffer_unordered(MAX_CONCURRENT_FETCHES).filter_map(|failed| async { failed }).collect().await;
            match failed.first() {
                None => {
                    backoff.reset();
                    logged_error = None;
                }
                Some(FetchFailure { id, error, .. }) => {
                    if logged_error.as_ref() != Some(error) {
                        let failed = failed.len();
                        tracing::warn!(object = %id, failed, "Cannot fetch a referenced object: {error}");
                        logged_error = Some(error.clone());
                    }
                    self.retry_later(failed, backoff.next_delay()).await;
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
            let api: Api<WholeObject> =
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
        self.state.lock().versions_due()
    }

    /// Stores a fetched object if it is still wanted and still exists. Returns its version in every case.
    fn store_fetched(&self, id: &ObjectId, requested: &Arc<str>, raw: WholeObject) -> Arc<str> {
        let received: Arc<str> = Arc::from(raw.resource_version());
        if let Some(object) = ReceivedObject::read(id.kind, raw, self.large_objects) {
            // Locked until the object is stored, so that it is not dropped in between.
            let mut state = self.state.lock();
            // A deletion that the watch reported is newer than the fetched object.
            if state.wanted.contains(id) && state.version(id).is_some() {
                self.collector.applied(&cluster_wide(id.kind), object);
                state.fetched.insert(
                    id.clone(),
                    FetchedVersion { requested: requested.clone(), received: Some(received.clone()), refusal: None },
                );
                state.update(id);
                self.publish_progress(&state);
            }
        }
        received
    }

    /// Returns the failure if there is anything to retry. Versions that were fetched before stay in use.
    async fn fetch_one(&self, client: Client, id: ObjectId, requested: Arc<str>) -> Option<FetchFailure> {
        let api: Api<WholeObject> = Api::namespaced_with(client, &id.key.namespace, &api_resource(id.kind, "v1"));
        let mut retry_after = Duration::ZERO;
        let (error, refusal) = match timeout(FETCH_TIMEOUT, api.get(&id.key.name)).await {
            Ok(Ok(raw)) => {
                self.store_fetched(&id, &requested, raw);
                return None;
            }
            // Deleted in the meantime, which the watch is about to report.
            Ok(Err(Error::Api(status))) if status.code == 404 => (None, Some(FetchRefusal::NotFound)),
            Ok(Err(error)) => {
                let watch_error = WatchError::from_request(&error);
                retry_after = watch_error.retry_after;
                if watch_error.forbidden {
                    let remedy = format!("grant the verb get on {} to Portico's ServiceAccount", id.kind.plural());
                    (Some(format!("{}; {remedy}", watch_error.message)), Some(FetchRefusal::Forbidden))
                } else {
                    (Some(super::client::request_error_text(&error)), None)
                }
            }
            Err(_) => (Some(format!("no response within {} s", FETCH_TIMEOUT.as_secs())), None),
        };
        let mut state = self.state.lock();
        state.record_failed_fetch(&id, requested, refusal);
        self.publish_progress(&state);
        drop(state);
        error.map(|error| FetchFailure { id, error, retry_after })
    }

    /// Makes objects due again after a delay. A change of what is due ends it early, but not before the time for which
    /// the API server asks.
    async fn retry_later(&self, failed: Vec<FetchFailure>, delay: Duration) {
        let requested = failed.iter().map(|failure| failure.retry_after).max().unwrap_or_default();
        sleep(requested).await;
        tokio::select! {
            () = sleep(delay.saturating_sub(requested)) => {}
            () = self.changed.notified() => {}
        }
        let mut state = self.state.lock();
        for FetchFailure { id, .. } in failed {
            if let Some(fetched_version) = state.fetched.get_mut(&id) {
                // No object has an empty version.
                fetched_version.requested = Arc::default();
                state.update(&id);
            }
        }
    }

    /// Applies new versions of all objects of a kind, and removes objects that no longer exist.
    fn versions_changed(&self, state: &mut ReferencedState, kind: Kind) {
        let of_kind = ObjectId::new(kind, ObjectKey::cluster(""))..;
        let wanted: Vec<_> = state.wanted.range(of_kind).take_while(|id| id.kind == kind).cloned().collect();
        for id in wanted {
            self.version_changed(state, &id);
        }
        self.publish_and_wake(state);
    }

    /// Applies the new version of an object, and removes it if it no longer exists.
    fn version_changed(&self, state: &mut ReferencedState, id: &ObjectId) {
        if state.version(id).is_none() && state.fetched.remove(id).is_some() {
            self.collector.deleted(&cluster_wide(id.kind), &id.key);
        }
        state.update(id);
    }

    /// Called with the lock held, so that the progress does not describe an earlier state.
    fn publish_progress(&self, state: &ReferencedState) {
        let progress = ReferencedFetchProgress {
            is_settled: state.awaited.is_empty(),
            is_complete: state.unfetched.is_empty(),
            unfetched_revision: state.unfetched_revision,
        };
        self.progress.send_if_modified(|published| std::mem::replace(published, progress) != progress);
    }

    /// Publishes the progress after a change that was not made by the fetcher, and wakes the fetcher if it has work.
    fn publish_and_wake(&self, state: &ReferencedState) {
        self.publish_progress(state);
        if !state.due.is_empty() {
            self.changed.notify_one();
        }
    }
}

impl ReferencedState {
    fn version(&self, id: &ObjectId) -> Option<&Arc<str>> {
        let in_scope = |namespace| self.versions.get(&Scope { kind: id.kind, namespace })?.get(&id.key);
        in_scope(None).or_else(|| in_scope(Some(id.key.namespace.clone())))
    }

    /// Updates what follows from the version of an object, from its last fetch, and from whether it is wanted.
    fn update(&mut self, id: &ObjectId) {
        let version = self.version(id).filter(|_| self.wanted.contains(id));
        let fetched = self.fetched.get(id);
        let is_current = |fetched: &FetchedVersion, version: &Arc<str>| {
            fetched.requested == *version || fetched.received.as_ref() == Some(version)
        };
        let is_due = version.is_some_and(|version| !fetched.is_some_and(|fetched| is_current(fetched, version)));
        let has_response = fetched.is_some_and(|fetched| fetched.received.is_some() || fetched.refusal.is_some());
        let is_unfetched = version.is_some() && !has_response;
        let is_forbidden = version.is_some()
            && fetched
                .is_some_and(|fetched| fetched.received.is_none() && fetched.refusal == Some(FetchRefusal::Forbidden));
        set_membership(&mut self.due, id, is_due);
        set_membership(&mut self.awaited, id, is_due && is_unfetched);
        let unfetched_changed = set_membership(&mut self.unfetched, id, is_unfetched);
        let forbidden_changed = set_membership(&mut self.forbidden, id, is_forbidden);
        if unfetched_changed || forbidden_changed {
            self.unfetched_revision += 1;
        }
    }

    /// The objects to fetch, each with the version to fetch at least.
    fn versions_due(&self) -> Vec<(ObjectId, Arc<str>)> {
        self.due.iter().filter_map(|id| Some((id.clone(), self.version(id)?.clone()))).collect()
    }

    /// Records a failed fetch; an object fetched before stays.
    fn record_failed_fetch(&mut self, id: &ObjectId, requested: Arc<str>, refusal: Option<FetchRefusal>) {
        if self.wanted.contains(id) {
            let fetched = self.fetched.entry(id.clone()).or_insert(FetchedVersion {
                requested: Arc::default(),
                received: None,
                refusal,
            });
            fetched.requested = requested;
            fetched.refusal = refusal;
            self.update(id);
        }
    }
}

/// Adds or removes an object. Returns whether the set changed.
fn set_membership(set: &mut BTreeSet<ObjectId>, id: &ObjectId, is_member: bool) -> bool {
    match is_member {
        true if !set.contains(id) => set.insert(id.clone()),
        true => false,
        false => set.remove(id),
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
        self.objects.versions_changed(&mut state, self.scope.kind);
    }

    fn applied(&self, (key, version): Self::Item) {
        let mut state = self.objects.state.lock();
        let id = ObjectId::new(self.scope.kind, key.clone());
        state.versions.entry(self.scope.clone()).or_default().insert(key, version);
        self.objects.version_changed(&mut state, &id);
        self.objects.publish_and_wake(&state);
    }

    fn deleted(&self, key: ObjectKey) {
        let mut state = self.objects.state.lock();
        if let Some(versions) = state.versions.get_mut(&self.scope) {
            versions.remove(&key);
        }
        self.objects.version_changed(&mut state, &ObjectId::new(self.scope.kind, key));
        self.objects.publish_and_wake(&state);
    }
}

/// Fetched objects form one scope: the collector need not know which watch found them.
fn cluster_wide(kind: Kind) -> Scope {
    Scope { kind, namespace: None }
}

/// A Secret or ConfigMap as it is fetched. The API server limits its size.
type WholeObject = RawObject<false, true>;

const MAX_CONCURRENT_FETCHES: usize = 8;
/// From this number of due Secrets in a namespace, credentials are listed instead of fetched one by one.
const LIST_THRESHOLD: usize = 32;
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use serde_json::json;

    use super::*;

    fn wants(id: &ObjectId) -> ReferenceChanges {
        ReferenceChanges { added: BTreeSet::from([id.clone()]), ..ReferenceChanges::default() }
    }

    #[tokio::test]
    async fn objects_deleted_during_the_fetch_are_not_kept() {
        let key = ObjectKey::new("ns", "tls");
        let id = ObjectId::new(Kind::Secret, key.clone());
        for deleted in [false, true] {
            let collector = Arc::new(DeliveryCollector::default());
            let objects = ReferencedObjects::new(collector.clone(), LargeObjects::Reduce);
            let sink = Arc::new(ReferencedSink { objects: objects.clone(), scope: cluster_wide(Kind::Secret) });
            sink.listed(vec![(key.clone(), Arc::from("1"))]);
            objects.change_wanted(&wants(&id));
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

    #[tokio::test]
    async fn objects_without_a_response_are_unfetched() {
        let key = ObjectKey::new("ns", "tls");
        let id = ObjectId::new(Kind::Secret, key.clone());
        for (status, message, is_unfetched, is_forbidden) in [
            (500, "", true, false),
            (429, "", true, false),
            (403, "it is forbidden", false, true),
            // A server that has just started.
            (403, "it is forbidden: RBAC: role.rbac.authorization.k8s.io \"portico\" not found", true, false),
            (404, "", false, false),
        ] {
            let objects = ReferencedObjects::new(Arc::new(DeliveryCollector::default()), LargeObjects::Reduce);
            let sink = ReferencedSink { objects: objects.clone(), scope: cluster_wide(Kind::Secret) };
            objects.change_wanted(&wants(&id));
            assert!(objects.unfetched(&BTreeSet::new()).0.is_empty(), "it does not exist");
            sink.listed(vec![(key.clone(), Arc::from("1"))]);
            assert_eq!(objects.unfetched(&BTreeSet::new()).0, BTreeSet::from([id.clone()]));
            let server = tower::service_fn(move |_: http::Request<kube::client::Body>| {
                let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status,
                    "message": message, "reason": ""});
                let body = http_body_util::Full::new(bytes::Bytes::from(body.to_string()));
                std::future::ready(Ok::<_, Infallible>(http::Response::builder().status(status).body(body).unwrap()))
            });
            objects.fetch_one(Client::new(server, "default"), id.clone(), Arc::from("1")).await;
            let unfetched = objects.unfetched(&BTreeSet::new()).0;
            assert_eq!((objects.is_settled(), !unfetched.is_empty()), (true, is_unfetched), "{status} {message}");
            assert_eq!(objects.forbidden().contains(&id), is_forbidden, "{status} {message}");
            sink.deleted(key.clone());
            assert!(objects.forbidden().is_empty(), "it does not exist");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retries_wait_as_long_as_the_server_asks() {
        let key = ObjectKey::new("ns", "tls");
        let id = ObjectId::new(Kind::Secret, key.clone());
        for (seconds, code) in [(0, 500), (1, 429), (3, 429), (3, 503)] {
            let objects = ReferencedObjects::new(Arc::new(DeliveryCollector::default()), LargeObjects::Reduce);
            let server = tower::service_fn(move |_: http::Request<kube::client::Body>| {
                let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                    "message": "", "reason": "", "details": {"retryAfterSeconds": seconds}});
                let body = http_body_util::Full::new(bytes::Bytes::from(body.to_string()));
                std::future::ready(Ok::<_, Infallible>(http::Response::builder().status(code).body(body).unwrap()))
            });
            let failure = objects.fetch_one(Client::new(server, "default"), id.clone(), Arc::from("1")).await.unwrap();
            let before = tokio::time::Instant::now();
            objects.changed.notify_one();
            objects.retry_later(vec![failure], Duration::from_secs(20)).await;
            assert_eq!(before.elapsed().as_secs(), seconds, "{code}");
        }
    }

    /// The API server reports the deletion and the fetched object in any order, and a delivery comes last.
    #[tokio::test]
    async fn fetched_objects_are_unfetched_until_they_are_delivered() {
        let key = ObjectKey::new("ns", "tls");
        let id = ObjectId::new(Kind::Secret, key.clone());
        let collector = Arc::new(DeliveryCollector::default());
        let objects = ReferencedObjects::new(collector.clone(), LargeObjects::Reduce);
        let sink = ReferencedSink { objects: objects.clone(), scope: cluster_wide(Kind::Secret) };
        objects.change_wanted(&wants(&id));
        sink.listed(vec![(key, Arc::from("1"))]);
        let (before, _) = objects.unfetched(&BTreeSet::new());
        let secret = json!({"metadata": {"namespace": "ns", "name": "tls", "resourceVersion": "1"}});
        objects.store_fetched(&id, &Arc::from("1"), serde_json::from_value(secret).unwrap());
        assert_eq!(objects.unfetched(&before).0, before, "the store does not have it yet");
        collector.next().await;
        assert!(objects.unfetched(&before).0.is_empty());

        sink.applied((id.key.clone(), Arc::from("2")));
        let is_due = objects.state.lock().due.contains(&id);
        assert!(is_due && objects.is_settled(), "no compilation waits for the next version");
    }
}
