//! Joins what all watches see into one delivery, for as long as nobody takes it.
//!
//! What waits is bounded by the number of objects: of each there is one newest version, however often it changes while the
//! control loop is busy.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::delivery::{Delivery, Installed, Observed, Refused};
use super::permissions::WITH_STATUS;
use super::raw::Raw;
use super::watch::Sink;
use crate::api::kind::{GATEWAY_GROUP, GATEWAY_X_GROUP};
use crate::api::kong::annotations::{INGRESS_PREFIX, KONG_PREFIX};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::store::{AnyObject, Batch, Guard, Malformed};

/// The first event opens it; what comes within it is one delivery.
const WINDOW: Duration = Duration::from_millis(1);

/// Objects of one kind, in one namespace or in all: what one watch sees.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Scope {
    pub(super) kind: Kind,
    /// None for all namespaces, and for objects that are in none.
    pub(super) namespace: Option<Arc<str>>,
}

/// Where the watches put what they see, and where the control loop takes it from.
#[derive(Debug, Default)]
pub(super) struct Collector {
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    upserts: BTreeMap<ObjectId, AnyObject>,
    removes: BTreeSet<ObjectId>,
    observed: BTreeMap<ObjectId, Option<Observed>>,
    refused: BTreeMap<ObjectId, Option<Refused>>,
    installed: Option<Arc<Installed>>,
    complete: bool,
    /// When the first event came that nobody has taken yet.
    since: Option<Instant>,
    /// What each watch has seen and not seen go, to know after a relist what vanished meanwhile.
    known: HashMap<Scope, HashSet<ObjectKey>>,
    /// Objects whose last version was refused, to say when that is over.
    bad: BTreeSet<ObjectId>,
}

/// Where a watch of whole objects puts what it sees.
pub(super) struct ObjectSink {
    pub(super) collector: Arc<Collector>,
    pub(super) scope: Scope,
}

impl Sink<false> for ObjectSink {
    type Item = Arrival;

    fn read(&self, raw: Raw) -> Option<Arrival> {
        Arrival::read(self.scope.kind, raw)
    }

    fn listed(&self, items: Vec<Arrival>) {
        self.collector.listed(&self.scope, items);
    }

    fn applied(&self, item: Arrival) {
        self.collector.applied(&self.scope, item);
    }

    fn deleted(&self, key: ObjectKey) {
        self.collector.deleted(&self.scope, &key);
    }
}

/// An object read as its kind, and what the writer of its status needs.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) key: ObjectKey,
    generation: i64,
    object: Result<AnyObject, Malformed>,
    observed: Option<Observed>,
    /// What takes the place of an object that cannot be read.
    guard: Option<Guard>,
}

impl Arrival {
    /// None for what has no name.
    pub(super) fn read(kind: Kind, raw: Raw) -> Option<Arrival> {
        let key = raw.key()?;
        let generation = raw.generation();
        let (uid, resource_version) = (Arc::from(raw.uid()), Arc::from(raw.resource_version()));
        let is_told =
            has_status(kind) || (kind == Kind::Service && raw.has_annotation_of(&[KONG_PREFIX, INGRESS_PREFIX]));
        let (mut object, status) = raw.into_parts();
        // What its balancer has: the addresses of Ingresses.
        if kind == Kind::Service && !status.is_null() {
            object["status"].clone_from(&status);
        }
        let observed = is_told.then(|| Observed { uid, resource_version, generation, status: Arc::new(status) });
        let mut guard = (kind == Kind::BackendTlsPolicy).then(|| Guard::of(key.clone(), generation, &object));
        let object = AnyObject::parse(kind, object);
        guard = guard.filter(|_| object.is_err());
        Some(Arrival { key, generation, object, observed, guard })
    }
}

/// Kinds whose status is ours to write. That of all others but Services is dropped as it arrives.
fn has_status(kind: Kind) -> bool {
    let of_gateway_api = kind.group() == GATEWAY_GROUP || kind.group() == GATEWAY_X_GROUP;
    (of_gateway_api && kind != Kind::ReferenceGrant) || WITH_STATUS.contains(&kind)
}

impl Collector {
    pub(super) fn applied(&self, scope: &Scope, arrival: Arrival) {
        self.change(|state| state.apply(scope, arrival));
    }

    pub(super) fn deleted(&self, scope: &Scope, key: &ObjectKey) {
        self.change(|state| {
            if let Some(known) = state.known.get_mut(scope) {
                known.remove(key);
            }
            state.remove(ObjectId::new(scope.kind, key.clone()));
        });
    }

    /// All objects of a scope as of now: whatever is not among them is gone.
    pub(super) fn listed(&self, scope: &Scope, arrivals: Vec<Arrival>) {
        self.change(|state| {
            let before = state.known.remove(scope).unwrap_or_default();
            for arrival in arrivals {
                state.apply(scope, arrival);
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

    /// The kind is not served any more.
    pub(super) fn forget(&self, kind: Kind) {
        self.change(|state| {
            let scopes: Vec<_> = state.known.keys().filter(|scope| scope.kind == kind).cloned().collect();
            for scope in scopes {
                for key in state.known.remove(&scope).unwrap_or_default() {
                    state.remove(ObjectId::new(kind, key));
                }
            }
        });
    }

    pub(super) fn installed(&self, installed: Arc<Installed>) {
        self.change(|state| state.installed = Some(installed));
    }

    /// Every kind was listed once, or is known not to be listed.
    pub(super) fn complete(&self) {
        self.change(|state| state.complete = true);
    }

    /// How many objects of a kind there are.
    pub(super) fn count(&self, kind: Kind) -> usize {
        let state = self.state.lock();
        state.known.iter().filter(|(scope, _)| scope.kind == kind).map(|(_, known)| known.len()).sum()
    }

    /// Waits until there is something, and a moment longer for what belongs to it. Dropped while it waits, it loses nothing.
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

    /// Waits until nothing waits to be taken.
    pub(super) async fn taken(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.state.lock().since.is_none() {
                return;
            }
            emptied.await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        state.since.get_or_insert_with(Instant::now);
        drop(state);
        self.filled.notify_one();
    }
}

impl State {
    fn apply(&mut self, scope: &Scope, arrival: Arrival) {
        let Arrival { key, generation, object, observed, guard } = arrival;
        let id = ObjectId::new(scope.kind, key.clone());
        self.known.entry(scope.clone()).or_default().insert(key);
        if observed.is_some() {
            self.observed.insert(id.clone(), observed);
        }
        match object {
            Ok(object) => {
                if self.bad.remove(&id) {
                    self.refused.insert(id.clone(), None);
                }
                // A removal that waits stays: what was removed and made again comes as both, in this order.
                self.upserts.insert(id, object);
            }
            Err(why) => {
                self.bad.insert(id.clone());
                if let Some(guard) = guard {
                    self.upserts.insert(id.clone(), AnyObject::Guard(Arc::new(guard)));
                }
                self.refused.insert(id, Some(Refused { generation, why }));
            }
        }
    }

    fn remove(&mut self, id: ObjectId) {
        self.upserts.remove(&id);
        if has_status(id.kind) || id.kind == Kind::Service {
            self.observed.insert(id.clone(), None);
        }
        if self.bad.remove(&id) {
            self.refused.insert(id.clone(), None);
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
            refused: std::mem::take(&mut self.refused),
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

    fn namespace(name: &str, team: Value) -> Arrival {
        let object = json!({"metadata": {"name": name, "labels": {"team": team}}});
        Arrival::read(Kind::Namespace, serde_json::from_value(object).unwrap()).unwrap()
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
    async fn what_happens_while_nobody_takes_it_is_one_delivery() {
        let collector = Collector::default();
        let scope = scope(Kind::Namespace);
        assert!(collector.next().now_or_never().is_none());
        collector.listed(&scope, vec![namespace("a", json!("x")), namespace("b", json!("x"))]);
        collector.applied(&scope, namespace("c", json!("x")));
        collector.applied(&scope, namespace("a", json!("y")));
        collector.deleted(&scope, &ObjectKey::cluster("b"));
        assert!(collector.next().now_or_never().is_none(), "the window is open");
        let delivery = collector.next().await;
        assert_eq!(upserts(&delivery), ["a", "c"]);
        assert_eq!(names(&delivery.batch.removes), ["b"]);
        assert!(!delivery.complete && delivery.observed.is_empty());
        assert!(collector.next().now_or_never().is_none());
        collector.complete();
        assert!(collector.next().await.complete);
    }

    #[tokio::test(start_paused = true)]
    async fn a_relist_tells_what_vanished_meanwhile() {
        let collector = Collector::default();
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
    async fn a_bad_object_is_refused_alone_until_it_is_mended_or_gone() {
        let collector = Collector::default();
        let scope = scope(Kind::Namespace);
        collector.listed(
            &scope,
            vec![namespace("bad", json!(5)), namespace("good", json!("x")), namespace("ill", json!(5))],
        );
        let delivery = collector.next().await;
        assert_eq!(upserts(&delivery), ["good"]);
        let bad = ObjectId::new(Kind::Namespace, ObjectKey::cluster("bad"));
        let why = &delivery.refused[&bad].as_ref().unwrap().why;
        assert_eq!(why.field, "metadata.labels.team");
        collector.applied(&scope, namespace("bad", json!("x")));
        collector.deleted(&scope, &ObjectKey::cluster("ill"));
        let delivery = collector.next().await;
        assert_eq!(upserts(&delivery), ["bad"]);
        assert!(delivery.refused.len() == 2 && delivery.refused.values().all(Option::is_none));
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_that_cannot_be_read_arrives_as_what_it_guards() {
        let collector = Collector::default();
        let policy = |hostname: Value| {
            let spec = json!({
                "targetRefs": [{"group": "", "kind": "Service", "name": "shop"}],
                "validation": {"hostname": hostname, "wellKnownCACertificates": "System"},
            });
            let object = json!({"metadata": {"namespace": "ns", "name": "tls"}, "spec": spec});
            Arrival::read(Kind::BackendTlsPolicy, serde_json::from_value(object).unwrap()).unwrap()
        };
        collector.applied(&scope(Kind::BackendTlsPolicy), policy(json!(5)));
        let delivery = collector.next().await;
        let [AnyObject::Guard(guard)] = &*delivery.batch.upserts else { panic!("{:?}", delivery.batch) };
        assert_eq!(guard.targets.as_ref().unwrap()[0].name, "shop");
        assert!(delivery.refused.values().all(Option::is_some) && delivery.refused.len() == 1);
        collector.applied(&scope(Kind::BackendTlsPolicy), policy(json!("shop.example")));
        assert!(matches!(&*collector.next().await.batch.upserts, [AnyObject::BackendTlsPolicy(_)]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_is_kept_of_kinds_that_have_one_of_ours() {
        let collector = Collector::default();
        let with_status = |kind: Kind, status: Option<Value>| {
            let mut object = json!({
                "metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "9", "generation": 2},
                "spec": {"gatewayClassName": "c", "listeners": []},
            });
            if let Some(status) = status {
                object["status"] = status;
            }
            Arrival::read(kind, serde_json::from_value(object).unwrap()).unwrap()
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

    /// The status of Ingresses says it.
    #[tokio::test(start_paused = true)]
    async fn what_the_balancer_of_a_service_has_is_read() {
        let collector = Collector::default();
        let service = |status: Value| {
            let ports = json!([{"port": 80}]);
            let object =
                json!({"metadata": {"namespace": "b", "name": "a"}, "spec": {"ports": ports}, "status": status});
            Arrival::read(Kind::Service, serde_json::from_value(object).unwrap()).unwrap()
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
