//! Combines the events of all watches into one pending delivery.
//!
//! The pending delivery is bounded by the number of objects: it holds only the newest version of each, however often
//! the object changes while the control loop is busy. Of the objects of one namespace, a delivery has only a limited
//! number of bytes: what arrived later, removals too, comes with the next delivery, so that changes of other namespaces
//! do not wait for it.

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
use crate::store::{
    AnyObject, Batch, LargeObjects, MAX_OBJECT_SIZE, MalformedObject, UnparseableObject, accepting_controller, protects,
};

/// How long a delivery collects further events after its first one.
const WINDOW: Duration = Duration::from_millis(1);

/// The size of the objects of one namespace that a delivery has at most: of four objects of the maximum size, or about
/// 1,000 of usual size. An object counts at most `MAX_OBJECT_SIZE`, so the first four always fit.
const MAX_NAMESPACE_BYTES: u64 = 4 * MAX_OBJECT_SIZE;

/// Collects events from the watches for the control loop.
#[derive(Debug, Default)]
pub(super) struct DeliveryCollector {
    state: Mutex<PendingDelivery>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct PendingDelivery {
    upserts: BTreeMap<ObjectId, PendingObject>,
    removes: BTreeMap<ObjectId, Arrival>,
    /// The number of upserts and removals so far.
    arrivals: u64,
    observed: BTreeMap<ObjectId, Option<Observed>>,
    rejected: BTreeMap<ObjectId, Option<RejectedObject>>,
    installed: Option<Arc<InstalledApis>>,
    complete: bool,
    /// Whether a complete delivery was taken. Until then, nothing is compiled, so a delivery has all objects.
    has_delivered: bool,
    /// When the first pending event arrived.
    since: Option<Instant>,
    /// The objects known to each watch, to find after a relist which ones vanished.
    known: HashMap<Scope, HashSet<ObjectKey>>,
    /// Objects whose last version was invalid, to report when that ends.
    invalid: BTreeSet<ObjectId>,
}

/// An object that was added or changed.
#[derive(Debug)]
struct PendingObject {
    object: AnyObject,
    size: u64,
    /// A newer version keeps the place of the older one.
    arrival: Arrival,
}

/// The place of a change among those of its namespace.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    number: u64,
    time: Instant,
}

/// The sink of a watch of whole objects.
pub(super) struct ObjectSink {
    pub(super) collector: Arc<DeliveryCollector>,
    pub(super) scope: Scope,
    pub(super) large_objects: LargeObjects,
}

impl<const WHOLE: bool> WatchSink<false, WHOLE> for ObjectSink {
    type Item = ReceivedObject;

    fn read(&self, raw: RawObject<false, WHOLE>) -> Option<ReceivedObject> {
        ReceivedObject::read(self.scope.kind, raw, self.large_objects)
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
    /// The approximate cost of compiling it.
    size: u64,
    object: Result<AnyObject, MalformedObject>,
    observed: Option<Observed>,
    /// Takes the place of an object that cannot be parsed.
    unparseable: Option<UnparseableObject>,
}

impl ReceivedObject {
    /// None if the object has no name.
    pub(super) fn read<const WHOLE: bool>(
        kind: Kind,
        raw: RawObject<false, WHOLE>,
        large_objects: LargeObjects,
    ) -> Option<ReceivedObject> {
        let key = raw.key()?;
        let (generation, size) = (raw.generation(), raw.size());
        let (uid, resource_version) = (Arc::from(raw.uid()), Arc::from(raw.resource_version()));
        let is_observed = kind.status_use() != StatusUse::Ignored
            || (kind == Kind::Service && raw.has_annotation_with_prefix(&[ANNOTATION_PREFIX, INGRESS_PREFIX]));
        let (mut object, status) = raw.into_parts();
        // The status of a Service holds the addresses of its load balancer, which become the addresses of Ingresses.
        if kind == Kind::Service && !status.is_null() {
            object["status"].clone_from(&status);
        }
        let status = Arc::new(status);
        let protection = protects(kind).then(|| object.clone());
        let mut object = AnyObject::parse_with_size(kind, object, size, large_objects);
        if let Some(gateway) = object.as_mut().ok().and_then(AnyObject::gateway_mut) {
            gateway.accepted_by = accepting_controller(&status, &gateway.spec.gateway_class_name).map(str::to_owned);
        }
        let unparseable = (object.is_err() && kind != Kind::Namespace).then(|| {
            let read = protection.and_then(|object| UnparseableObject::read(kind, &object));
            read.unwrap_or_else(|| UnparseableObject::of_key(kind, key.clone(), generation))
        });
        let observed = is_observed.then(|| Observed { uid, resource_version, generation, status, listed: false });
        Some(ReceivedObject { key, generation, size: size.min(MAX_OBJECT_SIZE), object, observed, unparseable })
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

    /// Whether a version of this object is pending.
    pub(super) fn has_pending(&self, id: &ObjectId) -> bool {
        self.state.lock().upserts.contains_key(id)
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
        let ReceivedObject { key, generation, size, object, observed, unparseable } = received;
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
                self.upsert(id, object, size);
            }
            Err(error) => {
                self.invalid.insert(id.clone());
                // An earlier version that is valid and was not delivered yet is the last valid one. The targets of a
                // policy may be others now.
                let is_used = id.kind == Kind::BackendTlsPolicy || !self.has_valid(&id);
                if let Some(unparseable) = unparseable.filter(|_| is_used) {
                    self.upsert(id.clone(), AnyObject::Unparseable(Arc::new(unparseable)), size);
                }
                self.rejected.insert(id, Some(RejectedObject { generation, error }));
            }
        }
    }

    /// Whether a valid version of this object is pending.
    fn has_valid(&self, id: &ObjectId) -> bool {
        self.upserts.get(id).is_some_and(|pending| !matches!(pending.object, AnyObject::Unparseable(_)))
    }

    fn remove(&mut self, id: ObjectId) {
        self.upserts.remove(&id);
        if id.kind.status_use() != StatusUse::Ignored || id.kind == Kind::Service {
            self.observed.insert(id.clone(), None);
        }
        if self.invalid.remove(&id) {
            self.rejected.insert(id.clone(), None);
        }
        let arrival = self.next_arrival();
        self.removes.entry(id).or_insert(arrival);
    }

    fn upsert(&mut self, id: ObjectId, object: AnyObject, size: u64) {
        let next = self.next_arrival();
        let arrival = self.upserts.get(&id).map_or(next, |pending| pending.arrival);
        self.upserts.insert(id, PendingObject { object, size, arrival });
    }

    fn next_arrival(&mut self) -> Arrival {
        self.arrivals += 1;
        Arrival { number: self.arrivals, time: Instant::now() }
    }

    fn take(&mut self) -> Delivery {
        let deferred = if self.has_delivered { self.deferred() } else { Vec::new() };
        let (mut upserts, mut removes) = (std::mem::take(&mut self.upserts), std::mem::take(&mut self.removes));
        let (mut observed, mut rejected) = (std::mem::take(&mut self.observed), std::mem::take(&mut self.rejected));
        for id in deferred {
            self.upserts.extend(upserts.remove_entry(&id));
            self.removes.extend(removes.remove_entry(&id));
            self.observed.extend(observed.remove_entry(&id));
            self.rejected.extend(rejected.remove_entry(&id));
        }
        self.has_delivered |= self.complete;
        let since = self.since.take();
        self.since = since.filter(|_| !self.upserts.is_empty() || !self.removes.is_empty());
        let arrivals = upserts.values().map(|pending| &pending.arrival).chain(removes.values());
        let first = arrivals.map(|arrival| arrival.time).min();
        Delivery {
            batch: Batch {
                upserts: upserts.into_values().map(|pending| pending.object).collect(),
                removes: removes.into_keys().collect(),
            },
            observed,
            rejected,
            installed: self.installed.take(),
            complete: self.complete,
            since: first.or(since),
        }
    }

    /// The objects whose changes come with a later delivery: of a namespace with more than its share, the first one
    /// beyond it and all that arrived later.
    fn deferred(&self) -> Vec<ObjectId> {
        let mut sizes: HashMap<&str, u64> = HashMap::new();
        for (id, pending) in self.upserts.iter().filter(|(id, _)| is_deferrable(id)) {
            *sizes.entry(&id.key.namespace).or_default() += pending.size;
        }
        sizes.retain(|_, size| *size > MAX_NAMESPACE_BYTES);
        if sizes.is_empty() {
            return Vec::new();
        }
        let is_counted = |id: &ObjectId| is_deferrable(id) && sizes.contains_key(&*id.key.namespace);
        let mut by_arrival: Vec<_> = self.upserts.iter().filter(|(id, _)| is_counted(id)).collect();
        by_arrival.sort_by_key(|(_, pending)| pending.arrival.number);
        let mut taken: HashMap<&str, u64> = HashMap::new();
        let mut ends: HashMap<&str, u64> = HashMap::new();
        let mut deferred = Vec::new();
        for (id, pending) in by_arrival {
            let bytes = taken.entry(&id.key.namespace).or_default();
            *bytes += pending.size;
            if *bytes > MAX_NAMESPACE_BYTES {
                ends.entry(&id.key.namespace).or_insert(pending.arrival.number);
                deferred.push(id.clone());
            }
        }
        // The removal of an object that was created again comes with its new version, so that it is never absent.
        let alone = self.removes.iter().filter(|(id, _)| is_deferrable(id) && !self.upserts.contains_key(*id));
        let late = alone.filter(|(id, arrival)| ends.get(&*id.key.namespace).is_some_and(|end| arrival.number > *end));
        deferred.extend(late.map(|(id, _)| id.clone()));
        deferred
    }
}

/// Whether changes of this object may come with a later delivery. Objects without a namespace are not those of a
/// tenant, and those that are fetched on reference are needed by an object that was delivered before.
fn is_deferrable(id: &ObjectId) -> bool {
    !id.key.namespace.is_empty() && !id.kind.is_fetched_on_reference()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::store::acceptance;

    fn scope(kind: Kind) -> Scope {
        Scope { kind, namespace: None }
    }

    fn read(kind: Kind, object: Value) -> ReceivedObject {
        let raw: RawObject = serde_json::from_value(object).unwrap();
        ReceivedObject::read(kind, raw, LargeObjects::Reduce).unwrap()
    }

    fn namespace(name: &str, team: Value) -> ReceivedObject {
        let object = json!({"metadata": {"name": name, "labels": {"team": team}}});
        read(Kind::Namespace, object)
    }

    #[test]
    fn gateways_have_the_controller_of_their_status() {
        let accepted_by = |message: &str| {
            let object = json!({
                "metadata": {"namespace": "a", "name": "web"}, "spec": {"gatewayClassName": "c", "listeners": []},
                "status": {"conditions": [{"type": "Accepted", "status": "True", "message": message}]},
            });
            let Ok(AnyObject::Gateway(gateway)) = read(Kind::Gateway, object).object else { panic!("not a Gateway") };
            gateway.accepted_by.clone()
        };
        assert_eq!(accepted_by(&acceptance("x/y", "c")).as_deref(), Some("x/y"));
        assert_eq!(accepted_by("The Gateway is valid."), None);
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

    /// Otherwise, the changes of one namespace delay those of all others.
    #[tokio::test(start_paused = true)]
    async fn large_changes_of_a_namespace_come_in_parts() {
        let collector = DeliveryCollector::default();
        let scope = scope(Kind::Service);
        let service = |namespace: &str, name: &str, generation: i64| {
            let metadata = json!({"namespace": namespace, "name": name, "generation": generation});
            let spec = json!({"ports": [], "externalName": "x".repeat(1_000_000)});
            read(Kind::Service, json!({"metadata": metadata, "spec": spec}))
        };
        let many = || (0..9).rev().map(|number| service("large", &number.to_string(), 1));
        collector.listed(&scope, many().collect());
        collector.set_complete();
        assert_eq!(collector.next().await.batch.upserts.len(), 9, "the first delivery is complete");

        many().for_each(|object| collector.applied(&scope, object));
        collector.applied(&scope, service("other", "edited", 1));
        let first = collector.next().await;
        assert_eq!(upserts(&first), ["5", "6", "7", "8", "edited"], "the objects that arrived first");
        // A newer version replaces the pending one, and a removed object is not delivered.
        collector.applied(&scope, service("large", "3", 2));
        collector.deleted(&scope, &ObjectKey::new("large", "4"));
        // Created again: it is delivered together with its removal, and is never absent.
        collector.deleted(&scope, &ObjectKey::new("large", "1"));
        many().filter(|object| ["1", "7", "8"].contains(&&*object.key.name)).for_each(|object| {
            collector.applied(&scope, object);
        });
        // Removed after what replaces it was added.
        collector.deleted(&scope, &ObjectKey::new("large", "5"));
        tokio::time::advance(Duration::from_secs(1)).await;
        collector.applied(&scope, service("other", "edited", 2));
        collector.deleted(&scope, &ObjectKey::new("other", "removed"));
        let second = collector.next().await;
        assert_eq!(second.since, first.since, "some of these changes are as old as the others");
        assert_eq!(upserts(&second), ["0", "2", "3", "8", "edited"]);
        assert_eq!(names(&second.batch.removes), ["4", "removed"]);
        assert_eq!(second.batch.upserts[2].meta().generation, 2);
        let last = collector.next().await;
        assert!(last.since > first.since, "what is left arrived later");
        assert_eq!((upserts(&last), names(&last.batch.removes)), (vec!["1", "7"], vec!["1", "5"]));
        collector.wait_until_empty().now_or_never().unwrap();
    }

    /// An object that was delivered refers to it.
    #[tokio::test(start_paused = true)]
    async fn fetched_objects_are_not_deferred() {
        let collector = DeliveryCollector::default();
        collector.set_complete();
        collector.next().await;
        let metadata = |name: String| json!({"namespace": "large", "name": name});
        for number in 0..6 {
            let spec = json!({"ports": [], "externalName": "x".repeat(1_000_000)});
            let service = json!({"metadata": metadata(number.to_string()), "spec": spec});
            collector.applied(&scope(Kind::Service), read(Kind::Service, service));
        }
        let secret = read(Kind::Secret, json!({"metadata": metadata("secret".to_owned()), "data": {}}));
        collector.applied(&scope(Kind::Secret), secret);
        collector.deleted(&scope(Kind::Secret), &ObjectKey::new("large", "unused"));
        let first = collector.next().await;
        assert_eq!(upserts(&first), ["0", "1", "2", "3", "secret"]);
        assert_eq!(names(&first.batch.removes), ["unused"]);
        assert_eq!(upserts(&collector.next().await), ["4", "5"]);
    }

    #[tokio::test(start_paused = true)]
    async fn corrections_of_objects_come_with_the_objects() {
        let collector = DeliveryCollector::default();
        let gateway = |name: &str, listeners: Value| {
            let spec = json!({"gatewayClassName": "x".repeat(1_000_000), "listeners": listeners});
            read(Kind::Gateway, json!({"metadata": {"namespace": "large", "name": name}, "spec": spec}))
        };
        collector.applied(&scope(Kind::Gateway), gateway("z", json!(5)));
        collector.set_complete();
        assert_eq!(collector.next().await.rejected.len(), 1);
        for name in ["a", "b", "c", "d", "z"] {
            collector.applied(&scope(Kind::Gateway), gateway(name, json!([])));
        }
        let first = collector.next().await;
        assert_eq!((upserts(&first).len(), first.observed.len(), first.rejected.len()), (4, 4, 0));
        let second = collector.next().await;
        assert_eq!((upserts(&second), second.observed.len(), second.rejected.len()), (vec!["z"], 1, 1));
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
            read(Kind::BackendTlsPolicy, object)
        };
        collector.applied(&scope(Kind::BackendTlsPolicy), policy(json!(5)));
        let delivery = collector.next().await;
        let [AnyObject::Unparseable(unparseable)] = &*delivery.batch.upserts else { panic!("{:?}", delivery.batch) };
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
            read(kind, object)
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
            read(Kind::Gateway, object)
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
            read(Kind::Service, object)
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
