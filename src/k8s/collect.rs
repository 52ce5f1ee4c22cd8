//! Combines the events of all watches into one pending delivery.
//!
//! The pending delivery is bounded by the number of objects: it holds only the newest version of each, however often
//! the object changes while the control loop is busy.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::delivery::{Delivery, InstalledApis, Observed, RejectedObject};
use super::raw::RawObject;
use super::watch::WatchSink;
use super::watch_health::Scope;
use crate::api::kind::StatusUse;
use crate::api::kong::annotations::{ANNOTATION_PREFIX, INGRESS_PREFIX};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::store::{AnyObject, Batch, MalformedObject, UnparseablePolicy};

/// How long a delivery collects further events after its first one.
const WINDOW: Duration = Duration::from_millis(1);

/// Collects events from the watches for the control loop.
#[derive(Debug, Default)]
pub(super) struct DeliveryCollector {
    state: Mutex<PendingDelivery>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct PendingDelivery {
    upserts: BTreeMap<ObjectId, AnyObject>,
    removes: BTreeSet<ObjectId>,
    observed: BTreeMap<ObjectId, Option<Observed>>,
    rejected: BTreeMap<ObjectId, Option<RejectedObject>>,
    installed: Option<Arc<InstalledApis>>,
    complete: bool,
    /// When the first pending event arrived.
    since: Option<Instant>,
    /// The objects known to each watch, to find after a relist which ones vanished.
    known: HashMap<Scope, HashSet<ObjectKey>>,
    /// Objects whose last version was invalid, to report when that ends.
    invalid: BTreeSet<ObjectId>,
}

/// The sink of a watch of whole objects.
pub(super) struct ObjectSink {
    pub(super) collector: Arc<DeliveryCollector>,
    pub(super) scope: Scope,
}

impl WatchSink<false> for ObjectSink {
    type Item = ReceivedObject;

    fn read(&self, raw: RawObject) -> Option<ReceivedObject> {
        ReceivedObject::read(self.scope.kind, raw)
    }

    fn listed(&self, items: Vec<ReceivedObject>) {
        self.collector.listed(&self.scope, items);
    }

    fn applied(&self, item: ReceivedObject) {
        self.collector.applied(&self.scope, item);
    }

    fn deleted(&self, key: ObjectKey) {
        self.collector.deleted(&self.scope, &key);
    }
}

/// An object parsed as its kind, with the data for the writer of its status.
#[derive(Debug)]
pub(super) struct ReceivedObject {
    pub(super) key: ObjectKey,
    generation: i64,
    object: Result<AnyObject, MalformedObject>,
    observed: Option<Observed>,
    /// Takes the place of a BackendTLSPolicy that cannot be parsed.
    unparseable_policy: Option<UnparseablePolicy>,
}

impl ReceivedObject {
    /// None if the object has no name.
    pub(super) fn read(kind: Kind, raw: RawObject) -> Option<ReceivedObject> {
        let key = raw.key()?;
        let generation = raw.generation();
        let (uid, resource_version) = (Arc::from(raw.uid()), Arc::from(raw.resource_version()));
        let is_observed = kind.status_use() != StatusUse::Ignored
            || (kind == Kind::Service && raw.has_annotation_with_prefix(&[ANNOTATION_PREFIX, INGRESS_PREFIX]));
        let (mut object, status) = raw.into_parts();
        // The status of a Service holds the addresses of its load balancer, which become the addresses of Ingresses.
        if kind == Kind::Service && !status.is_null() {
            object["status"].clone_from(&status);
        }
        let status = Arc::new(status);
        let observed = is_observed.then(|| Observed { uid, resource_version, generation, status, listed: false });
        let mut unparseable_policy =
            (kind == Kind::BackendTlsPolicy).then(|| UnparseablePolicy::from_value(key.clone(), generation, &object));
        let object = AnyObject::parse(kind, object);
        unparseable_policy = unparseable_policy.filter(|_| object.is_err());
        Some(ReceivedObject { key, generation, object, observed, unparseable_policy })
    }
}

impl DeliveryCollector {
    pub(super) fn applied(&self, scope: &Scope, received: ReceivedObject) {
        self.update(|state| state.apply(scope, received));
    }

    pub(super) fn deleted(&self, scope: &Scope, key: &ObjectKey) {
        self.update(|state| {
            if let Some(known) = state.known.get_mut(scope) {
                known.remove(key);
            }
            state.remove(ObjectId::new(scope.kind, key.clone()));
        });
    }

    /// Applies a complete list of a scope. Known objects of the scope that are not in the list are gone.
    pub(super) fn listed(&self, scope: &Scope, objects: Vec<ReceivedObject>) {
        self.update(|state| {
            let before = state.known.remove(scope).unwrap_or_default();
            for mut received in objects {
                if let Some(observed) = &mut received.observed {
                    observed.listed = true;
                }
                state.apply(scope, received);
            }
            let vanished: Vec<_> = match state.known.get(scope) {
                Some(now) => before.into_iter().filter(|key| !now.contains(key)).collect(),
                None => before.into_iter().collect(),
            };
            for key in vanished {
                state.remove(ObjectId::new(scope.kind, key));
            }
        });
    }

    /// Removes all objects of a kind that is no longer served.
    pub(super) fn forget(&self, kind: Kind) {
        self.update(|state| {
            let scopes: Vec<_> = state.known.keys().filter(|scope| scope.kind == kind).cloned().collect();
            for scope in scopes {
                for key in state.known.remove(&scope).unwrap_or_default() {
                    state.remove(ObjectId::new(kind, key));
                }
            }
        });
    }

    /// Delivers which of the supported kinds the cluster has.
    pub(super) fn set_installed(&self, installed: Arc<InstalledApis>) {
        self.update(|state| state.installed = Some(installed));
    }

    /// Marks deliveries as complete: every kind was listed once, or is known not to be listed.
    pub(super) fn set_complete(&self) {
        self.update(|state| state.complete = true);
    }

    /// The number of known objects of a kind.
    pub(super) fn count(&self, kind: Kind) -> usize {
        let state = self.state.lock();
        state.known.iter().filter(|(scope, _)| scope.kind == kind).map(|(_, known)| known.len()).sum()
    }

    /// Waits for an event, then for further events until the window ends. Cancel-safe.
    pub(super) async fn next(&self) -> Delivery {
        loop {
            let since = self.state.lock().since;
            match since {
                Some(since) => {
                    sleep_until(since + WINDOW).await;
                    let delivery = self.state.lock().take();
                    self.emptied.notify_waiters();
                    return delivery;
                }
                None => self.filled.notified().await,
            }
        }
    }

    /// Whether nothing is pending.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().since.is_none()
    }

    /// Waits until nothing is pending.
    pub(super) async fn wait_until_empty(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.state.lock().since.is_none() {
                return;
            }
            emptied.await;
        }
    }

    fn update(&self, update: impl FnOnce(&mut PendingDelivery)) {
        let mut state = self.state.lock();
        update(&mut state);
        state.since.get_or_insert_with(Instant::now);
        drop(state);
        self.filled.notify_one();
    }
}

impl PendingDelivery {
    fn apply(&mut self, scope: &Scope, received: ReceivedObject) {
        let ReceivedObject { key, generation, object, observed, unparseable_policy } = received;
        let id = ObjectId::new(scope.kind, key.clone());
        self.known.entry(scope.clone()).or_default().insert(key);
        if let Some(mut observed) = observed {
            // An event after the list does not undo that the object was listed.
            observed.listed |= matches!(self.observed.get(&id), Some(Some(pending)) if pending.listed);
            self.observed.insert(id.clone(), Some(observed));
        }
        match object {
            Ok(object) => {
                if self.invalid.remove(&id) {
                    self.rejected.insert(id.clone(), None);
                }
                // A pending removal stays: a batch removes an object that was removed and created again, then adds it.
                self.upserts.insert(id, object);
            }
            Err(error) => {
                self.invalid.insert(id.clone());
                if let Some(policy) = unparseable_policy {
                    self.upserts.insert(id.clone(), AnyObject::UnparseablePolicy(Arc::new(policy)));
                }
                self.rejected.insert(id, Some(RejectedObject { generation, error }));
            }
        }
    }

    fn remove(&mut self, id: ObjectId) {
        self.upserts.remove(&id);
        if id.kind.status_use() != StatusUse::Ignored || id.kind == Kind::Service {
            self.observed.insert(id.clone(), None);
        }
        if self.invalid.remove(&id) {
            self.rejected.insert(id.clone(), None);
        }
        self.removes.insert(id);
    }

    fn take(&mut self) -> Delivery {
        Delivery {
            batch: Batch {
                upserts: std::mem::take(&mut self.upserts).into_values().collect(),
                removes: std::mem::take(&mut self.removes).into_iter().collect(),
            },
            observed: std::mem::take(&mut self.observed),
            rejected: std::mem::take(&mut self.rejected),
            installed: self.installed.take(),
            complete: self.complete,
            since: self.since.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use serde_json::{Value, json};

    use super::*;

    fn scope(kind: Kind) -> Scope {
        Scope { kind, namespace: None }
    }

    fn namespace(name: &str, team: Value) -> ReceivedObject {
        let object = json!({"metadata": {"name": name, "labels": {"team": team}}});
        ReceivedObject::read(Kind::Namespace, serde_json::from_value(object).unwrap()).unwrap()
    }

    fn names(ids: &[ObjectId]) -> Vec<&str> {
        ids.iter().map(|id| &*id.key.name).collect()
    }

    fn upserts(delivery: &Delivery) -> Vec<&str> {
        delivery.batch.upserts.iter().map(|object| &*object.meta().key.name).collect()
    }

    fn status_of(delivery: &Delivery, id: &ObjectId) -> Option<Value> {
        delivery.observed.get(id)?.as_ref().map(|observed| (*observed.status).clone())
    }

    #[tokio::test(start_paused = true)]
    async fn pending_events_are_one_delivery() {
        let collector = DeliveryCollector::default();
        let scope = scope(Kind::Namespace);
        assert!(collector.next().now_or_never().is_none());
        collector.listed(&scope, vec![namespace("a", json!("x")), namespace("b", json!("x"))]);
        collector.applied(&scope, namespace("c", json!("x")));
        collector.applied(&scope, namespace("a", json!("y")));
        collector.deleted(&scope, &ObjectKey::cluster("b"));
        assert!(collector.next().now_or_never().is_none(), "the window has not ended");
        let delivery = collector.next().await;
        assert_eq!(upserts(&delivery), ["a", "c"]);
        assert_eq!(names(&delivery.batch.removes), ["b"]);
        assert!(!delivery.complete && delivery.observed.is_empty());
        assert!(collector.next().now_or_never().is_none());
        collector.set_complete();
        assert!(collector.next().await.complete);
    }

    #[tokio::test(start_paused = true)]
    async fn relist_reports_vanished_objects() {
        let collector = DeliveryCollector::default();
        let scope = scope(Kind::Namespace);
        collector.listed(&scope, vec![namespace("a", json!("x")), namespace("b", json!("x"))]);
        collector.next().await;
        collector.listed(&scope, vec![namespace("b", json!("x"))]);
        let delivery = collector.next().await;
        assert_eq!((names(&delivery.batch.removes), upserts(&delivery)), (vec!["a"], vec!["b"]));
        assert_eq!(collector.count(Kind::Namespace), 1);
        collector.listed(&scope, Vec::new());
        assert_eq!(names(&collector.next().await.batch.removes), ["b"]);
        collector.applied(&scope, namespace("d", json!("x")));
        collector.forget(Kind::Namespace);
        assert_eq!(names(&collector.next().await.batch.removes), ["d"]);
    }

    #[tokio::test(start_paused = true)]
    async fn invalid_objects_are_reported_until_fixed_or_gone() {
        let collector = DeliveryCollector::default();
        let scope = scope(Kind::Namespace);
        collector.listed(
            &scope,
            vec![namespace("bad", json!(5)), namespace("good", json!("x")), namespace("bad-too", json!(5))],
        );
        let delivery = collector.next().await;
        assert_eq!(upserts(&delivery), ["good"]);
        let bad = ObjectId::new(Kind::Namespace, ObjectKey::cluster("bad"));
        let error = &delivery.rejected[&bad].as_ref().unwrap().error;
        assert_eq!(error.field, "metadata.labels.team");
        collector.applied(&scope, namespace("bad", json!("x")));
        collector.deleted(&scope, &ObjectKey::cluster("bad-too"));
        let delivery = collector.next().await;
        assert_eq!(upserts(&delivery), ["bad"]);
        assert!(delivery.rejected.len() == 2 && delivery.rejected.values().all(Option::is_none));
    }

    #[tokio::test(start_paused = true)]
    async fn unparseable_policies_are_delivered_as_such() {
        let collector = DeliveryCollector::default();
        let policy = |hostname: Value| {
            let spec = json!({
                "targetRefs": [{"group": "", "kind": "Service", "name": "shop"}],
                "validation": {"hostname": hostname, "wellKnownCACertificates": "System"},
            });
            let object = json!({"metadata": {"namespace": "ns", "name": "tls"}, "spec": spec});
            ReceivedObject::read(Kind::BackendTlsPolicy, serde_json::from_value(object).unwrap()).unwrap()
        };
        collector.applied(&scope(Kind::BackendTlsPolicy), policy(json!(5)));
        let delivery = collector.next().await;
        let [AnyObject::UnparseablePolicy(unparseable)] = &*delivery.batch.upserts else {
            panic!("{:?}", delivery.batch)
        };
        assert_eq!(unparseable.targets.as_ref().unwrap()[0].name, "shop");
        assert!(delivery.rejected.values().all(Option::is_some) && delivery.rejected.len() == 1);
        collector.applied(&scope(Kind::BackendTlsPolicy), policy(json!("shop.example")));
        assert!(matches!(&*collector.next().await.batch.upserts, [AnyObject::BackendTlsPolicy(_)]));
    }

    #[tokio::test(start_paused = true)]
    async fn status_is_kept_for_kinds_that_portico_writes() {
        let collector = DeliveryCollector::default();
        let with_status = |kind: Kind, status: Option<Value>| {
            let mut object = json!({
                "metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "9", "generation": 2},
                "spec": {"gatewayClassName": "c", "listeners": []},
            });
            if let Some(status) = status {
                object["status"] = status;
            }
            ReceivedObject::read(kind, serde_json::from_value(object).unwrap()).unwrap()
        };
        let id = ObjectId::new(Kind::Gateway, ObjectKey::new("b", "a"));
        collector.applied(&scope(Kind::Gateway), with_status(Kind::Gateway, Some(json!({"x": 1}))));
        collector.applied(&scope(Kind::Service), with_status(Kind::Service, Some(json!({"loadBalancer": {}}))));
        let delivery = collector.next().await;
        assert_eq!(status_of(&delivery, &id), Some(json!({"x": 1})));
        assert_eq!(delivery.observed.len(), 1);
        collector.applied(&scope(Kind::Gateway), with_status(Kind::Gateway, None));
        assert_eq!(status_of(&collector.next().await, &id), Some(Value::Null));
        collector.deleted(&scope(Kind::Gateway), &id.key);
        assert_eq!(collector.next().await.observed, BTreeMap::from([(id, None)]));
    }

    /// An event may follow a list before the delivery.
    #[tokio::test(start_paused = true)]
    async fn listed_objects_are_marked_until_they_are_delivered() {
        let collector = DeliveryCollector::default();
        let gateway = |version: &str| {
            let object = json!({
                "metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": version, "generation": 2},
                "spec": {"gatewayClassName": "c", "listeners": []},
            });
            ReceivedObject::read(Kind::Gateway, serde_json::from_value(object).unwrap()).unwrap()
        };
        let id = ObjectId::new(Kind::Gateway, ObjectKey::new("b", "a"));
        collector.listed(&scope(Kind::Gateway), vec![gateway("5")]);
        collector.applied(&scope(Kind::Gateway), gateway("6"));
        let observed = collector.next().await.observed[&id].clone().unwrap();
        assert_eq!((&*observed.resource_version, observed.listed), ("6", true));
        collector.applied(&scope(Kind::Gateway), gateway("7"));
        assert!(!collector.next().await.observed[&id].as_ref().unwrap().listed);
    }

    /// The status of Ingresses shows these addresses.
    #[tokio::test(start_paused = true)]
    async fn load_balancer_addresses_of_services_are_read() {
        let collector = DeliveryCollector::default();
        let service = |status: Value| {
            let ports = json!([{"port": 80}]);
            let object =
                json!({"metadata": {"namespace": "b", "name": "a"}, "spec": {"ports": ports}, "status": status});
            ReceivedObject::read(Kind::Service, serde_json::from_value(object).unwrap()).unwrap()
        };
        let balancer = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}, "conditions": []});
        for (status, expected) in [(json!({}), None), (balancer, Some("192.0.2.1"))] {
            collector.applied(&scope(Kind::Service), service(status));
            let delivery = collector.next().await;
            let [AnyObject::Service(service)] = &*delivery.batch.upserts else { panic!("{:?}", delivery.batch) };
            let balancer = service.status.load_balancer.as_ref();
            let ip = balancer.and_then(|balancer| balancer.ingress.first()).and_then(|entry| entry.ip.as_deref());
            assert_eq!(ip, expected);
        }
    }
}
