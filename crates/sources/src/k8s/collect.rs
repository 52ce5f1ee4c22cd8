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
            let read = protection.and_then(|object| UnparseableObject::read_with_size(kind, &object, size));
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
mod tests;
