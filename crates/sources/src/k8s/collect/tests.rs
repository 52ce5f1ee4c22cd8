//! Tests of what is collected for the store.

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

/// The rules after the first MiB are unknown, and the route that gets their requests may have fewer restrictions.
#[test]
fn malformed_routes_of_which_a_part_is_missing_refuse_all_requests_to_their_hosts() {
    let headers = vec![json!({"name": "x", "value": "x".repeat(4_000)}); 300];
    let entry = json!({"path": {"value": "/a"}, "method": 5, "headers": headers});
    let rules = json!([{"matches": [entry]}, {"matches": [{"path": {"value": "/b"}}]}]);
    let spec = json!({"parentRefs": [{"name": "g"}], "hostnames": ["h.example"], "rules": rules});
    let received = read(Kind::HttpRoute, json!({"metadata": {"namespace": "a", "name": "x"}, "spec": spec}));
    assert!(received.object.is_err());
    let Some(AnyObject::HttpRoute(route)) = received.unparseable.unwrap().stored else { panic!("not a route") };
    assert_eq!(route.spec.hostnames, ["h.example"]);
    assert_eq!(route.spec.rules.len(), 2);
    assert!(route.spec.rules[1].matches.is_empty());
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
        let object = json!({"metadata": {"namespace": "b", "name": "a"}, "spec": {"ports": ports}, "status": status});
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
