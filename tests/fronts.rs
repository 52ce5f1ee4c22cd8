//! The Services in front of Gateways, kept by replicas against a played API server: who writes what, and when.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fronts {
    pub(crate) mod played;
}

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fronts::played::Played;
use portico::api::ObjectKey;
use portico::api::core::ServiceType;
use portico::k8s::services::{Bound, Inputs, Settings, Shape, Stay, View, Want, Wants, keep};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A process that keeps Services.
struct Replica {
    leading: watch::Sender<bool>,
    wants: watch::Sender<Arc<Wants>>,
    bound: watch::Sender<Option<Arc<Bound>>>,
    stay: watch::Sender<Stay>,
    view: watch::Receiver<Arc<View>>,
    keeping: JoinHandle<()>,
}

impl Replica {
    fn start(played: &Played, shape: Shape, pod: &str, leading: bool) -> Replica {
        let (leading, leads) = watch::channel(leading);
        let (wants, wanted) = watch::channel(Arc::new(web(&[80])));
        let (bound, ports) = watch::channel(None);
        let (stay, stays) = watch::channel(Stay::Serving);
        let (views, view) = watch::channel(Arc::default());
        let settings = Settings {
            namespaces: vec![],
            shape,
            controllers: BTreeSet::from(["portico.dev/gateway-controller".to_owned()]),
            pod: Some(ObjectKey::new("portico-system", pod)),
        };
        let inputs = Inputs { wants: wanted, leading: leads, bound: ports, stay: stays };
        let keeping = tokio::spawn(keep(settings, played.client(), inputs, views));
        Replica { leading, wants, bound, stay, view, keeping }
    }

    async fn sees(&mut self, what: &str, holds: impl Fn(&View) -> bool) -> Arc<View> {
        let waiting = self.view.wait_for(|view| holds(view));
        let seen = tokio::time::timeout(std::time::Duration::from_secs(300), waiting).await;
        seen.unwrap_or_else(|_| panic!("never seen: {what}")).unwrap().clone()
    }
}

const EXPOSED: Shape = Shape::Exposed(ServiceType::LoadBalancer);
const SERVICE: &str = "services/ns/web-portico";

fn key() -> ObjectKey {
    ObjectKey::new("ns", "web")
}

fn web(ports: &[u16]) -> Wants {
    let want = Want {
        uid: Arc::from("g"),
        class: "portico".to_owned(),
        controller: "portico.dev/gateway-controller".to_owned(),
        ports: ports.iter().copied().collect(),
        ..Want::default()
    };
    Wants { gateways: BTreeMap::from([(key(), want)]), foreign: BTreeMap::new() }
}

/// Everything that is to be open.
fn bound(view: &View) -> Bound {
    view.fronts.iter().flat_map(|(key, front)| front.ports.values().map(|port| (*port, key.clone()))).collect()
}

fn put_pod(played: &Played, name: &str, ip: &str, ready: &str) {
    let status = json!({"podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": ready}]});
    played.put(&format!("pods/portico-system/{name}"), json!({"spec": {"containers": []}, "status": status}));
}

/// Addresses of all slices, with what their conditions say.
fn endpoints(played: &Played) -> Vec<String> {
    let describe = |slice: &serde_json::Value| {
        let endpoint = &slice["endpoints"][0];
        let ready = if endpoint["conditions"]["ready"] == true { "ready" } else { "not ready" };
        format!("{} {ready}", endpoint["addresses"][0].as_str().unwrap())
    };
    let mut found: Vec<_> = played.objects("endpointslices").iter().map(describe).collect();
    found.sort();
    found
}

#[tokio::test(start_paused = true)]
async fn what_is_seen_says_of_which_gateways_it_speaks() {
    let played = Played::new();
    put_pod(&played, "a", "10.0.0.1", "True");
    put_pod(&played, "b", "10.0.0.2", "True");
    let mut leader = Replica::start(&played, EXPOSED, "a", true);
    leader.sees("its Service", |view| !view.fronts.is_empty()).await;
    let mut late = Replica::start(&played, EXPOSED, "b", false);
    let wants = late.wants.send_replace(Arc::default());
    let nobody = late.sees("everything was listed", |view| view.complete && view.of.gateways.is_empty()).await;
    assert!(nobody.fronts.is_empty(), "that there is nothing for a Gateway cannot be concluded from this");
    late.wants.send_replace(wants.clone());
    let seen = late.sees("what it asked for", |view| view.of == wants).await;
    assert!(seen.fronts.contains_key(&key()));
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_writes_services_and_its_successor_finds_nothing_to_do() {
    let played = Played::new();
    put_pod(&played, "a", "10.0.0.1", "True");
    put_pod(&played, "b", "10.0.0.2", "True");
    let mut follower = Replica::start(&played, EXPOSED, "b", false);
    follower.sees("everything was listed", |view| view.complete).await;
    assert_eq!(played.writes(), [""; 0]);
    let mut leader = Replica::start(&played, EXPOSED, "a", true);
    played.until("the Service", |played| !played.object(SERVICE).is_null()).await;
    let port = |view: &View| view.fronts.get(&key()).and_then(|front| front.ports.get(&80).copied());
    let given = port(&*leader.sees("its port", |view| port(view).is_some()).await);
    follower.sees("the same port", |view| port(view) == given).await;

    played.edit(SERVICE, |service| {
        service["status"] = json!({"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}})
    });
    let has_address = |view: &View| view.fronts.get(&key()).is_some_and(|front| front.addresses == ["lb.example"]);
    leader.sees("the address", has_address).await;
    follower.sees("the address", has_address).await;

    leader.keeping.abort();
    follower.leading.send_replace(true);
    // Another port is the first thing that there is to do: what was done before was not done again.
    follower.wants.send_replace(Arc::new(web(&[80, 443])));
    follower.sees("the new port", |view| view.fronts[&key()].ports.len() == 2).await;
    assert_eq!(played.writes(), [format!("PATCH {SERVICE}"), format!("PATCH {SERVICE}")]);
    assert_eq!(port(&follower.view.borrow()), given, "the old one stays where it was");
}

#[tokio::test(start_paused = true)]
async fn the_service_of_somebody_else_is_left_alone() {
    let played = Played::new();
    played.put(SERVICE, json!({"metadata": {"labels": {"app": "shop"}}, "spec": {"ports": [{"port": 80}]}}));
    let mut leader = Replica::start(&played, Shape::Headless, "a", true);
    let troubled = |view: &View| view.fronts.get(&key()).is_some_and(|front| front.trouble.is_some());
    let view = leader.sees("trouble", troubled).await;
    let trouble = view.fronts[&key()].trouble.clone().unwrap();
    assert_eq!(trouble.message, "Service ns/web-portico is not one of Portico's, so it is left alone");
    assert_eq!(played.writes(), [""; 0]);
    played.delete(SERVICE);
    leader.sees("no trouble", |view| !troubled(view)).await;
    assert_eq!(played.object(SERVICE)["spec"]["clusterIP"], "None");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_allowed_is_told_and_tried_again() {
    let played = Played::new();
    played.forbid(&["services"]);
    let mut leader = Replica::start(&played, Shape::Headless, "a", true);
    let trouble = |view: &View| view.fronts.get(&key()).and_then(|front| front.trouble.clone());
    let told = trouble(&*leader.sees("trouble", |view| trouble(view).is_some()).await).unwrap();
    assert!(told.message.starts_with("Service ns/web-portico cannot be created: "), "{}", told.message);
    assert!(told.remedy.contains("manifests/"), "{}", told.remedy);
    played.forbid(&[]);
    leader.sees("no trouble", |view| trouble(view).is_none()).await;
    assert_eq!(played.writes(), [format!("PATCH {SERVICE}")]);
}

#[tokio::test(start_paused = true)]
async fn pods_join_when_they_have_bound_and_leave_before_they_stop_listening() {
    let played = Played::new();
    put_pod(&played, "a", "10.0.0.1", "True");
    put_pod(&played, "b", "10.0.0.2", "True");
    let mut leader = Replica::start(&played, EXPOSED, "a", true);
    let mut other = Replica::start(&played, EXPOSED, "b", false);
    let view = other.sees("a port", |view| !view.fronts.is_empty()).await;
    assert_eq!(view.pod_ips, ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
    let ports = Arc::new(bound(&view));
    leader.sees("the port", |view| !view.fronts.is_empty()).await;
    assert_eq!(endpoints(&played), [""; 0], "nobody listens yet");
    leader.bound.send_replace(Some(ports.clone()));
    played.until("one joined", |played| endpoints(played) == ["10.0.0.1 ready"]).await;
    other.bound.send_replace(Some(ports));
    played.until("both joined", |played| endpoints(played) == ["10.0.0.1 ready", "10.0.0.2 ready"]).await;

    other.stay.send_replace(Stay::Leaving);
    played.until("one leaves", |played| endpoints(played) == ["10.0.0.1 ready", "10.0.0.2 not ready"]).await;
    other.stay.send_replace(Stay::Gone);
    other.keeping.await.unwrap();
    assert_eq!(endpoints(&played), ["10.0.0.1 ready"], "it waits until it is out");
}

#[tokio::test(start_paused = true)]
async fn the_leader_takes_dead_pods_out() {
    let played = Played::new();
    put_pod(&played, "a", "10.0.0.1", "True");
    put_pod(&played, "b", "10.0.0.2", "True");
    let mut leader = Replica::start(&played, EXPOSED, "a", true);
    let other = Replica::start(&played, EXPOSED, "b", false);
    let view = leader.sees("a port", |view| !view.fronts.is_empty()).await;
    other.bound.send_replace(Some(Arc::new(bound(&view))));
    played.until("it joined", |played| endpoints(played) == ["10.0.0.2 ready"]).await;
    // Killed: it says nothing any more.
    other.keeping.abort();
    played.edit("pods/portico-system/b", |pod| pod["status"]["conditions"][0]["status"] = json!("False"));
    played.until("it is marked", |played| endpoints(played) == ["10.0.0.2 not ready"]).await;
    played.delete("pods/portico-system/b");
    played.until("it is gone", |played| endpoints(played).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_may_not_list_pods_takes_nobody_out() {
    let played = Played::new();
    put_pod(&played, "a", "10.0.0.1", "True");
    put_pod(&played, "b", "10.0.0.2", "True");
    let mut other = Replica::start(&played, EXPOSED, "b", true);
    let view = other.sees("a port", |view| !view.fronts.is_empty()).await;
    other.bound.send_replace(Some(Arc::new(bound(&view))));
    played.until("it joined", |played| endpoints(played) == ["10.0.0.2 ready"]).await;
    other.leading.send_replace(false);
    played.hide(&["pods"]);
    let mut leader = Replica::start(&played, EXPOSED, "a", true);
    // What the second plan does comes after everything that the first did.
    for ports in [&[80, 443][..], &[80, 443, 8080]] {
        leader.wants.send_replace(Arc::new(web(ports)));
        leader
            .sees("the new port", |view| view.fronts.get(&key()).is_some_and(|it| it.ports.len() == ports.len()))
            .await;
    }
    let deletes: Vec<_> = played.writes().into_iter().filter(|write| write.starts_with("DELETE")).collect();
    assert_eq!(deletes, [""; 0]);
    assert_eq!(endpoints(&played), ["10.0.0.2 ready"]);
}

/// Whoever may write Services in another namespace, or edit those of his own Gateway, gets nobody else's clients.
#[tokio::test(start_paused = true)]
async fn a_service_that_names_the_port_of_another_gateway_takes_nothing_from_it() {
    let played = Played::new();
    put_pod(&played, "a", "10.0.0.1", "True");
    let mut replica = Replica::start(&played, EXPOSED, "a", true);
    let theirs = ObjectKey::new("attacker", "web");
    let mut both = web(&[80]);
    let mut want = both.gateways[&key()].clone();
    want.uid = Arc::from("h");
    both.gateways.insert(theirs.clone(), want);
    replica.wants.send_replace(Arc::new(both));
    let view = replica.sees("both", |view| view.fronts.len() == 2).await;
    let (target, own) = (view.fronts[&key()].ports[&80], view.fronts[&theirs].ports[&80]);
    replica.bound.send_replace(Some(Arc::new(bound(&view))));
    played.until("the slices", |played| played.objects("endpointslices").len() == 2).await;

    let path = "services/attacker/web-portico";
    let mut copy = played.object(path);
    copy["metadata"] =
        json!({"labels": copy["metadata"]["labels"], "ownerReferences": copy["metadata"]["ownerReferences"]});
    copy["spec"]["ports"][0]["targetPort"] = json!(target);
    played.put("services/attacker/zzz", copy);
    // Older than the victim's, which alone does not decide.
    played.edit(path, |service| {
        service["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
        service["spec"]["ports"][0]["targetPort"] = json!(target);
    });
    let back = |played: &Played| played.object(path)["spec"]["ports"][0]["targetPort"] != target;
    played.until("it is set right", back).await;
    let view = replica.sees("a port of its own", |view| view.fronts[&theirs].ports.contains_key(&80)).await;
    assert_eq!(view.fronts[&key()].ports[&80], target);
    assert!(view.fronts[&theirs].ports[&80] != target, "it was {own}");
    let slices = played.objects("endpointslices");
    let to_target: Vec<_> = slices.iter().filter(|slice| slice["ports"][0]["port"] == target).collect();
    assert!(to_target.len() == 1 && to_target[0]["metadata"]["namespace"] == "ns", "{slices:?}");
}

/// Nothing is asked for again and again because the watch does not tell what became of it.
#[tokio::test(start_paused = true)]
async fn services_that_cannot_be_watched_are_kept_by_what_calls_say() {
    let played = Played::new();
    let predecessor = Replica::start(&played, Shape::Headless, "a", true);
    played.until("the Service", |played| !played.object(SERVICE).is_null()).await;
    predecessor.keeping.abort();
    played.hide(&["services"]);
    let leader = Replica::start(&played, Shape::Headless, "b", true);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!((played.reads(), played.writes().len()), (2, 1), "found by the second, which has nothing to write");
    let mut successor = web(&[80]);
    successor.gateways.get_mut(&key()).unwrap().uid = Arc::from("h");
    leader.wants.send_replace(Arc::new(successor));
    let replaced = |played: &Played| played.object(SERVICE)["metadata"]["ownerReferences"][0]["uid"] == "h";
    played.until("it is replaced", replaced).await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let expected = ["PATCH", "DELETE", "PATCH"].map(|verb| format!("{verb} {SERVICE}"));
    assert_eq!((played.reads(), played.writes()), (3, expected.to_vec()));
}
