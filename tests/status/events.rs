//! What is wrong with an object is told as an event, once, and so is its end.

use std::time::Duration;

use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::verdict::Code;
use portico::k8s::{Recorder, Refused};
use portico::status::Teller;
use portico::store::Malformed;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::played::{Misfortune, Played};
use super::replica::{GATEWAY, Replica, US, gateway_verdict, id, route, route_verdict, until};

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const SOON: Duration = Duration::from_secs(3);

struct Scene {
    played: Played,
    replica: Replica,
    leads: watch::Sender<bool>,
    teller: JoinHandle<()>,
}

/// A replica that tells events, and a route.
fn scene(leading: bool) -> Scene {
    let played = Played::new();
    let (leads, follows) = watch::channel(leading);
    let replica = Replica::led(&played, follows);
    let recorder = Recorder::new(played.client(), US, "portico-0_1");
    let teller = tokio::spawn(Teller::new(replica.desk.clone(), recorder).run());
    played.put(&route("a"), 1, Value::Null);
    Scene { played, replica, leads, teller }
}

impl Scene {
    fn want(&self, generation: i64, code: Code) {
        self.replica.desk.want(id(&route("a")).unwrap(), Some(route_verdict(generation, code)));
    }

    fn told(&self) -> Vec<(String, String)> {
        let posts = self.played.log(EVENTS).into_iter().filter(|(_, line, _)| line.starts_with("POST"));
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
async fn a_refusal_and_its_end_are_told_on_the_object() {
    let scene = scene(true);
    scene.want(1, Code::RouteNoMatchingParent);
    until(SOON, "the event", || scene.told().len() == 1).await;
    let event = scene.played.log(&format!("POST {EVENTS}"))[0].2.clone();
    for (pointer, expected) in [
        ("/type", "Warning"),
        ("/reason", "NoMatchingParent"),
        ("/note", "spec.parentRefs[0]: The parent has no such listener."),
        ("/regarding/kind", "HTTPRoute"),
        ("/regarding/apiVersion", "gateway.networking.k8s.io/v1"),
        ("/regarding/namespace", "default"),
        ("/regarding/name", "a"),
        ("/reportingController", US),
        ("/reportingInstance", "portico-0_1"),
        ("/metadata/namespace", "default"),
    ] {
        assert_eq!(event.pointer(pointer).and_then(Value::as_str), Some(expected), "{pointer}");
    }
    let uid = &scene.played.object(&route("a"))["metadata"]["uid"];
    assert_eq!(event["regarding"]["uid"], *uid);

    // The same again, and again after it was mended: then it is counted in the event that there is.
    scene.want(1, Code::RouteNoMatchingParent);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(scene.told().len(), 1);
    for round in 2..=4 {
        scene.want(1, Code::RouteAccepted);
        sleep(SOON).await;
        scene.want(1, Code::RouteNoMatchingParent);
        sleep(SOON).await;
        assert_eq!(scene.told(), pairs(&[("Warning", "NoMatchingParent"), ("Normal", "Mended")]));
        let name = text(&event["metadata"]["name"]);
        assert_eq!(scene.played.object(&format!("{EVENTS}/{name}"))["series"]["count"], round);
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_tells() {
    let scene = scene(false);
    scene.want(1, Code::RouteNoMatchingParent);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(scene.told(), []);
    scene.leads.send(true).unwrap();
    until(SOON, "the event", || scene.told().len() == 1).await;
    // A successor finds that it was told, and does not count it again.
    scene.leads.send(false).unwrap();
    sleep(SOON).await;
    scene.leads.send(true).unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!((scene.told().len(), scene.played.count(&format!("PATCH {EVENTS}"))), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_told_too() {
    let scene = scene(true);
    sleep(Duration::from_millis(10)).await;
    let why = Malformed { field: "spec.rules".to_owned(), message: "is no list".to_owned() };
    scene.replica.desk.refuse(id(&route("a")).unwrap(), Some(Refused { generation: 1, why }));
    until(SOON, "the event", || scene.told() == pairs(&[("Warning", "Unreadable")])).await;
    scene.replica.desk.refuse(id(&route("a")).unwrap(), None);
    until(SOON, "its end", || scene.told().len() == 2).await;
}

/// Without permission statuses are written all the same, and the API server is left in peace.
#[tokio::test(start_paused = true)]
async fn without_permission_there_are_no_events_and_all_else_goes_on() {
    let scene = scene(true);
    scene.played.always(EVENTS, Some(Misfortune::Status(403, Value::Null)));
    scene.want(1, Code::RouteNoMatchingParent);
    sleep(Duration::from_secs(300)).await;
    assert!((3..=6).contains(&scene.played.count("403")), "{}", scene.played.count("403"));
    assert!(!scene.played.status(&route("a")).is_null());
    scene.played.always(EVENTS, None);
    until(Duration::from_secs(61), "the event", || scene.told().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_survives_an_outage_and_an_object_that_is_gone_needs_none() {
    let scene = scene(true);
    scene.played.always(EVENTS, Some(Misfortune::Status(500, Value::Null)));
    scene.want(1, Code::RouteNoMatchingParent);
    sleep(Duration::from_secs(60)).await;
    scene.played.always(EVENTS, None);
    until(Duration::from_secs(10), "the event", || scene.told().len() == 1).await;
    scene.want(1, Code::RouteNotAllowedByListeners);
    scene.played.delete(&route("a"));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(scene.told().len(), 1);
    scene.teller.abort();
}

/// Others have filled the list: the route cannot be told in its status, so it is told here.
#[tokio::test(start_paused = true)]
async fn a_status_without_room_is_told() {
    let scene = scene(true);
    let entry =
        serde_json::json!({"parentRef": {"name": "x"}, "controllerName": "example.com/other", "conditions": []});
    scene.played.edit(&route("a"), |status| *status = serde_json::json!({"parents": vec![entry; 32]}));
    sleep(Duration::from_millis(10)).await;
    scene.want(1, Code::RouteAccepted);
    until(SOON, "the event", || scene.told() == pairs(&[("Warning", "StatusFull")])).await;
    scene.played.put(GATEWAY, 1, Value::Null);
    scene.replica.desk.want(id(GATEWAY).unwrap(), Some(gateway_verdict(1, 1)));
    until(SOON, "the Gateway's status", || !scene.played.status(GATEWAY).is_null()).await;
    assert_eq!(scene.played.count(&format!("PATCH {}", route("a"))), 0);
}

/// What is not allowed in one namespace, or not possible because that is going, keeps nobody else's events back.
#[tokio::test(start_paused = true)]
async fn a_namespace_that_takes_no_events_holds_up_no_other() {
    let going = json!({"causes": [{"reason": "NamespaceTerminating"}]});
    for (details, tries) in [(going, 1), (Value::Null, 2)] {
        let scene = scene(true);
        let events = "/apis/events.k8s.io/v1/namespaces/other/events";
        scene.played.always(events, Some(Misfortune::Status(403, details)));
        let other = ObjectId::new(Kind::HttpRoute, ObjectKey::new("other", "b"));
        let observed = scene.played.put(&route("b"), 1, Value::Null);
        scene.replica.desk.observe(other.clone(), Some(observed));
        scene.replica.desk.want(other, Some(route_verdict(1, Code::RouteNoMatchingParent)));
        until(SOON, "the refusal", || scene.played.count(&format!("403 POST {events}")) == 1).await;
        scene.want(1, Code::RouteNoMatchingParent);
        until(SOON, "the event", || scene.told().len() == 1).await;
        sleep(Duration::from_secs(70)).await;
        assert_eq!(scene.played.count(&format!("403 POST {events}")), tries);
    }
}
