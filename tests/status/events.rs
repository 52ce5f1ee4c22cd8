//! Events about problems of objects and about the end of the problems, each reported once.

use std::sync::Arc;
use std::time::Duration;

use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::compile::testing::TestInputs;
use portico::compile::{Compiler, addressable_gateways};
use portico::k8s::{EventRecorder, RejectedObject};
use portico::plugins::REGISTRY;
use portico::status::EventWriter;
use portico::store::{AnyObject, Batch, LargeObjects, MalformedObject, Store};
use portico::verdict::{Code, Verdict};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::fake_api::{FakeStatusApi, RequestFailure};
use super::replica::{CONTROLLER, GATEWAY, StatusReplica, gateway_verdict, id, route, route_verdict, wait_until};

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const LIMIT: Duration = Duration::from_secs(3);

struct EventScene {
    api: FakeStatusApi,
    replica: StatusReplica,
    leadership: watch::Sender<bool>,
    event_writer: JoinHandle<()>,
}

fn start_leader() -> EventScene {
    start(true)
}

fn start_follower() -> EventScene {
    start(false)
}

/// Starts a replica that writes events while it leads, and creates a route.
fn start(leading: bool) -> EventScene {
    let api = FakeStatusApi::new();
    let (leadership, is_leading) = watch::channel(leading);
    let replica = StatusReplica::with_leadership(&api, is_leading);
    let recorder = EventRecorder::new(api.client(), CONTROLLER, "portico-0_1");
    let event_writer = tokio::spawn(EventWriter::new(replica.queue.clone(), recorder).run());
    api.put(&route("a"), 1, Value::Null);
    EventScene { api, replica, leadership, event_writer }
}

impl EventScene {
    fn set_verdict(&self, generation: i64, code: Code) {
        self.replica.queue.set_verdict(id(&route("a")).unwrap(), Some(route_verdict(generation, code)));
    }

    fn created_events(&self) -> Vec<(String, String)> {
        let posts = self.api.log(EVENTS).into_iter().filter(|(_, line, _)| line.starts_with("POST"));
        let bodies = posts.map(|(_, _, body)| body);
        bodies.map(|body| (text(&body["type"]), text(&body["reason"]))).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(kind, reason)| ((*kind).to_owned(), (*reason).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn problems_and_their_end_are_reported_on_the_object() {
    let scene = start_leader();
    scene.set_verdict(1, Code::RouteNoMatchingParent);
    wait_until(LIMIT, "the event", || scene.created_events().len() == 1).await;
    let event = scene.api.log(&format!("POST {EVENTS}"))[0].2.clone();
    for (pointer, expected) in [
        ("/type", "Warning"),
        ("/reason", "NoMatchingParent"),
        ("/note", "spec.parentRefs[0]: The parent has no such listener."),
        ("/regarding/kind", "HTTPRoute"),
        ("/regarding/apiVersion", "gateway.networking.k8s.io/v1"),
        ("/regarding/namespace", "default"),
        ("/regarding/name", "a"),
        ("/reportingController", CONTROLLER),
        ("/reportingInstance", "portico-0_1"),
        ("/metadata/namespace", "default"),
    ] {
        assert_eq!(event.pointer(pointer).and_then(Value::as_str), Some(expected), "{pointer}");
    }
    let uid = &scene.api.object(&route("a"))["metadata"]["uid"];
    assert_eq!(event["regarding"]["uid"], *uid);

    // The same verdict again is no new event. If the problem comes back after it was resolved, the existing event
    // counts it.
    scene.set_verdict(1, Code::RouteNoMatchingParent);
    sleep(Duration::from_secs(60)).await; // Time is paused.
    assert_eq!(scene.created_events().len(), 1);
    for round in 2..=4 {
        scene.set_verdict(1, Code::RouteAccepted);
        sleep(LIMIT).await; // Time is paused.
        scene.set_verdict(1, Code::RouteNoMatchingParent);
        sleep(LIMIT).await; // Time is paused.
        assert_eq!(scene.created_events(), pairs(&[("Warning", "NoMatchingParent"), ("Normal", "Resolved")]));
        let name = text(&event["metadata"]["name"]);
        assert_eq!(scene.api.object(&format!("{EVENTS}/{name}"))["series"]["count"], round);
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_writes_events() {
    let scene = start_follower();
    scene.set_verdict(1, Code::RouteNoMatchingParent);
    sleep(Duration::from_secs(60)).await; // Time is paused.
    assert_eq!(scene.created_events(), []);
    scene.leadership.send(true).unwrap();
    wait_until(LIMIT, "the event", || scene.created_events().len() == 1).await;
    // A new leader finds the existing event, and does not increase its count.
    scene.leadership.send(false).unwrap();
    sleep(LIMIT).await; // Time is paused.
    scene.leadership.send(true).unwrap();
    sleep(Duration::from_secs(60)).await; // Time is paused.
    assert_eq!((scene.created_events().len(), scene.api.count(&format!("PATCH {EVENTS}"))), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn unreadable_objects_are_reported() {
    let scene = start_leader();
    sleep(Duration::from_millis(10)).await; // Time is paused.
    let error = MalformedObject { field: "spec.rules".to_owned(), message: "must be a list".to_owned() };
    scene.replica.queue.set_rejected(id(&route("a")).unwrap(), Some(RejectedObject { generation: 1, error }));
    wait_until(LIMIT, "the event", || scene.created_events() == pairs(&[("Warning", "Unreadable")])).await;
    scene.replica.queue.set_rejected(id(&route("a")).unwrap(), None);
    wait_until(LIMIT, "its end", || scene.created_events().len() == 2).await;
}

/// Without permission for events, statuses are still written, and retries are rare.
#[tokio::test(start_paused = true)]
async fn without_permission_only_events_are_missing() {
    let scene = start_leader();
    scene.api.fail_always(EVENTS, Some(RequestFailure::Status(403, Value::Null)));
    scene.set_verdict(1, Code::RouteNoMatchingParent);
    sleep(Duration::from_secs(300)).await; // Time is paused.
    assert!((3..=6).contains(&scene.api.count("403")), "{}", scene.api.count("403"));
    assert!(!scene.api.status(&route("a")).is_null());
    scene.api.fail_always(EVENTS, None);
    wait_until(Duration::from_secs(61), "the event", || scene.created_events().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn events_survive_outages_but_not_their_objects() {
    let scene = start_leader();
    scene.api.fail_always(EVENTS, Some(RequestFailure::Status(500, Value::Null)));
    scene.set_verdict(1, Code::RouteNoMatchingParent);
    sleep(Duration::from_secs(60)).await; // Time is paused.
    scene.api.fail_always(EVENTS, None);
    wait_until(Duration::from_secs(10), "the event", || scene.created_events().len() == 1).await;
    scene.set_verdict(1, Code::RouteNotAllowedByListeners);
    scene.api.delete(&route("a"));
    sleep(Duration::from_secs(60)).await; // Time is paused.
    assert_eq!(scene.created_events().len(), 1);
    scene.event_writer.abort();
}

/// `status.parents` already has the maximum of 32 entries, so the route's status cannot be written. An event reports
/// it.
#[tokio::test(start_paused = true)]
async fn full_statuses_are_reported() {
    let scene = start_leader();
    let foreign_entry =
        serde_json::json!({"parentRef": {"name": "x"}, "controllerName": "example.com/other", "conditions": []});
    scene.api.edit(&route("a"), |status| *status = serde_json::json!({"parents": vec![foreign_entry; 32]}));
    sleep(Duration::from_millis(10)).await; // Time is paused.
    scene.set_verdict(1, Code::RouteAccepted);
    wait_until(LIMIT, "the event", || scene.created_events() == pairs(&[("Warning", "StatusFull")])).await;
    scene.api.put(GATEWAY, 1, Value::Null);
    scene.replica.queue.set_verdict(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 1)));
    wait_until(LIMIT, "the Gateway's status", || !scene.api.status(GATEWAY).is_null()).await;
    assert_eq!(scene.api.count(&format!("PATCH {}", route("a"))), 0);
}

/// A namespace that forbids events, or is being deleted, does not delay events of others.
#[tokio::test(start_paused = true)]
async fn forbidden_namespaces_do_not_delay_others() {
    let terminating = json!({"causes": [{"reason": "NamespaceTerminating"}]});
    for (details, attempts) in [(terminating, 1), (Value::Null, 2)] {
        let scene = start_leader();
        let events = "/apis/events.k8s.io/v1/namespaces/other/events";
        scene.api.fail_always(events, Some(RequestFailure::Status(403, details)));
        let other = ObjectId::new(Kind::HttpRoute, ObjectKey::new("other", "b"));
        let observed = scene.api.put(&route("b"), 1, Value::Null);
        scene.replica.queue.observe(other.clone(), Some(observed));
        scene.replica.queue.set_verdict(other, Some(route_verdict(1, Code::RouteNoMatchingParent)));
        wait_until(LIMIT, "the rejected request", || scene.api.count(&format!("403 POST {events}")) == 1).await;
        scene.set_verdict(1, Code::RouteNoMatchingParent);
        wait_until(LIMIT, "the event", || scene.created_events().len() == 1).await;
        sleep(Duration::from_secs(70)).await; // Time is paused.
        assert_eq!(scene.api.count(&format!("403 POST {events}")), attempts);
    }
}

/// The verdict of the compiler on the route `a` with these rules.
fn compiled_verdict(rules: Value, labels: Value) -> Arc<Verdict> {
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controllerName": CONTROLLER}});
    let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
    let gateway = json!({
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {"gatewayClassName": "portico", "listeners": listeners},
    });
    let object = json!({
        "metadata": {"namespace": "default", "name": "a", "generation": 1, "labels": labels},
        "spec": {"parentRefs": [{"name": "web"}], "rules": rules},
    });
    let objects = [(Kind::GatewayClass, class), (Kind::Gateway, gateway), (Kind::HttpRoute, object)];
    let upserts = objects.map(|(kind, object)| AnyObject::parse_limited(kind, object, LargeObjects::Reduce).unwrap());
    let (mut store, mut compiler) = (Store::default(), Compiler::default());
    let changes = store.apply(Batch { upserts: upserts.into(), removes: vec![] });
    let mut inputs = TestInputs { controllers: vec![CONTROLLER.to_owned()], ..TestInputs::new(REGISTRY) };
    inputs.addresses.assign(
        &AddressProvider::Pool(GatewayAddressPool::loopback(Vec::new())),
        &AddressState::default(),
        addressable_gateways(&store, &inputs.controllers),
    );
    inputs.compile(&mut compiler, &store, &changes);
    compiler.verdicts()[&id(&route("a")).unwrap()].clone()
}

/// The requests of such a route fail, so its owner must find the reason where `kubectl describe` shows it.
#[tokio::test(start_paused = true)]
async fn objects_over_a_limit_are_reported() {
    let path = |number: usize| json!({"path": {"type": "RegularExpression", "value": format!("/{number}/.*")}});
    let many = json!([{"matches": (0..513).map(path).collect::<Vec<_>>()}]);
    let large = json!({"large": "x".repeat(1 << 20)});
    for (rules, labels, expected) in [
        (many, json!({}), "spec.rules: 513 regular expressions, which is more than the limit of 512 for one object;"),
        (
            json!([]),
            large,
            "the object has a size of 1025 KiB, which is more than the limit of 1024 KiB for one object;",
        ),
    ] {
        let scene = start_leader();
        scene.replica.queue.set_verdict(id(&route("a")).unwrap(), Some(compiled_verdict(rules, labels)));
        wait_until(LIMIT, "the event", || !scene.created_events().is_empty()).await;
        let event = scene.api.log(&format!("POST {EVENTS}"))[0].2.clone();
        assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("UnsupportedValue")));
        assert!(text(&event["note"]).contains(expected), "{}", event["note"]);
        let conditions = scene.api.status(&route("a"))["parents"][0]["conditions"].to_string();
        assert!(conditions.contains(expected), "{conditions}");

        scene.set_verdict(1, Code::RouteAccepted);
        wait_until(LIMIT, "its end", || scene.created_events().len() == 2).await;
        assert_eq!(scene.created_events()[1], ("Normal".to_owned(), "Resolved".to_owned()));
    }
}
