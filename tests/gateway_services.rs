//! Replicas reconcile the Services of Gateways against a fake API server.

mod fake_api;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fake_api::FakeServicesApi;
use portico::api::ObjectKey;
use portico::api::core::ServiceType;
use portico::k8s::services::{
    DesiredService, DesiredServices, GatewayExposure, GatewayServicesView, ListeningPorts, ReconcilerInputs,
    ReconcilerSettings, ReplicaLifecycle, reconcile,
};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A process that reconciles Services.
struct ServiceReplica {
    leading: watch::Sender<bool>,
    wants: watch::Sender<Arc<DesiredServices>>,
    bound: watch::Sender<Option<Arc<ListeningPorts>>>,
    lifecycle: watch::Sender<ReplicaLifecycle>,
    view: watch::Receiver<Arc<GatewayServicesView>>,
    reconciling: JoinHandle<()>,
}

impl ServiceReplica {
    fn start(api: &FakeServicesApi, shape: GatewayExposure, pod: &str, leading: bool) -> ServiceReplica {
        let (leading, leads) = watch::channel(leading);
        let (wants, wanted) = watch::channel(Arc::new(web(&[80])));
        let (bound, ports) = watch::channel(None);
        let (lifecycle, stays) = watch::channel(ReplicaLifecycle::Serving);
        let (views, view) = watch::channel(Arc::default());
        let settings = ReconcilerSettings {
            namespaces: vec![],
            exposure: shape,
            controllers: BTreeSet::from(["portico.dev/gateway-controller".to_owned()]),
            pod: Some(ObjectKey::new("portico-system", pod)),
        };
        let inputs = ReconcilerInputs { desired: wanted, leading: leads, listening_ports: ports, lifecycle: stays };
        let reconciling = tokio::spawn(reconcile(settings, api.client(), inputs, views));
        ServiceReplica { leading, wants, bound, lifecycle, view, reconciling }
    }

    async fn wait_for_view(
        &mut self,
        what: &str,
        holds: impl Fn(&GatewayServicesView) -> bool,
    ) -> Arc<GatewayServicesView> {
        let waiting = self.view.wait_for(|view| holds(view));
        let seen = tokio::time::timeout(std::time::Duration::from_secs(300), waiting).await;
        seen.unwrap_or_else(|_| panic!("never seen: {what}")).unwrap().clone()
    }
}

const EXPOSED: GatewayExposure = GatewayExposure::Exposed(ServiceType::LoadBalancer);
const SERVICE: &str = "services/ns/web-portico";

fn key() -> ObjectKey {
    ObjectKey::new("ns", "web")
}

fn web(ports: &[u16]) -> DesiredServices {
    let want = DesiredService {
        uid: Arc::from("g"),
        class: "portico".to_owned(),
        controller: "portico.dev/gateway-controller".to_owned(),
        ports: ports.iter().copied().collect(),
        ..DesiredService::default()
    };
    DesiredServices { gateways: BTreeMap::from([(key(), want)]), foreign: BTreeMap::new() }
}

/// All ports that should be open.
fn listening_ports(view: &GatewayServicesView) -> ListeningPorts {
    view.services.iter().flat_map(|(key, front)| front.ports.values().map(|port| (*port, key.clone()))).collect()
}

fn put_pod(api: &FakeServicesApi, name: &str, ip: &str, ready: &str) {
    let status = json!({"podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": ready}]});
    api.put(&format!("pods/portico-system/{name}"), json!({"spec": {"containers": []}, "status": status}));
}

/// The addresses of all slices, with their readiness.
fn endpoints(api: &FakeServicesApi) -> Vec<String> {
    let describe = |slice: &serde_json::Value| {
        let endpoint = &slice["endpoints"][0];
        let ready = if endpoint["conditions"]["ready"] == true { "ready" } else { "not ready" };
        format!("{} {ready}", endpoint["addresses"][0].as_str().unwrap())
    };
    let mut found: Vec<_> = api.objects("endpointslices").iter().map(describe).collect();
    found.sort();
    found
}

#[tokio::test(start_paused = true)]
async fn views_name_the_gateways_they_cover() {
    let api = FakeServicesApi::new();
    put_pod(&api, "a", "10.0.0.1", "True");
    put_pod(&api, "b", "10.0.0.2", "True");
    let mut leader = ServiceReplica::start(&api, EXPOSED, "a", true);
    leader.wait_for_view("its Service", |view| !view.services.is_empty()).await;
    let mut late = ServiceReplica::start(&api, EXPOSED, "b", false);
    let wants = late.wants.send_replace(Arc::default());
    let empty =
        late.wait_for_view("everything was listed", |view| view.complete && view.desired.gateways.is_empty()).await;
    assert!(empty.services.is_empty(), "the view says nothing about Gateways that it does not cover");
    late.wants.send_replace(wants.clone());
    let seen = late.wait_for_view("the requested Gateways", |view| view.desired == wants).await;
    assert!(seen.services.contains_key(&key()));
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_writes_and_successors_repeat_nothing() {
    let api = FakeServicesApi::new();
    put_pod(&api, "a", "10.0.0.1", "True");
    put_pod(&api, "b", "10.0.0.2", "True");
    let mut follower = ServiceReplica::start(&api, EXPOSED, "b", false);
    follower.wait_for_view("everything was listed", |view| view.complete).await;
    assert_eq!(api.writes(), [""; 0]);
    let mut leader = ServiceReplica::start(&api, EXPOSED, "a", true);
    api.wait_until("the Service", |api| !api.object(SERVICE).is_null()).await;
    let port = |view: &GatewayServicesView| view.services.get(&key()).and_then(|front| front.ports.get(&80).copied());
    let given = port(&*leader.wait_for_view("its port", |view| port(view).is_some()).await);
    follower.wait_for_view("the same port", |view| port(view) == given).await;

    api.edit(SERVICE, |service| service["status"] = json!({"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}}));
    let has_address =
        |view: &GatewayServicesView| view.services.get(&key()).is_some_and(|front| front.addresses == ["lb.example"]);
    leader.wait_for_view("the address", has_address).await;
    follower.wait_for_view("the address", has_address).await;

    leader.reconciling.abort();
    follower.leading.send_replace(true);
    // The new port is the first write: the successor repeated none of the earlier ones.
    follower.wants.send_replace(Arc::new(web(&[80, 443])));
    follower.wait_for_view("the new port", |view| view.services[&key()].ports.len() == 2).await;
    assert_eq!(api.writes(), [format!("PATCH {SERVICE}"), format!("PATCH {SERVICE}")]);
    assert_eq!(port(&follower.view.borrow()), given, "the old one stays where it was");
}

#[tokio::test(start_paused = true)]
async fn foreign_services_are_not_changed() {
    let api = FakeServicesApi::new();
    api.put(SERVICE, json!({"metadata": {"labels": {"app": "shop"}}, "spec": {"ports": [{"port": 80}]}}));
    let mut leader = ServiceReplica::start(&api, GatewayExposure::Headless, "a", true);
    let troubled = |view: &GatewayServicesView| view.services.get(&key()).is_some_and(|front| front.error.is_some());
    let view = leader.wait_for_view("the error", troubled).await;
    let trouble = view.services[&key()].error.clone().unwrap();
    assert_eq!(trouble.message, "Service ns/web-portico was not created by Portico, so it is not changed");
    assert_eq!(api.writes(), [""; 0]);
    api.delete(SERVICE);
    leader.wait_for_view("no error", |view| !troubled(view)).await;
    assert_eq!(api.object(SERVICE)["spec"]["clusterIP"], "None");
}

#[tokio::test(start_paused = true)]
async fn forbidden_writes_are_reported_and_retried() {
    let api = FakeServicesApi::new();
    api.forbid(&["services"]);
    let mut leader = ServiceReplica::start(&api, GatewayExposure::Headless, "a", true);
    let trouble = |view: &GatewayServicesView| view.services.get(&key()).and_then(|front| front.error.clone());
    let error = trouble(&*leader.wait_for_view("the error", |view| trouble(view).is_some()).await).unwrap();
    assert!(error.message.starts_with("Service ns/web-portico cannot be created: "), "{}", error.message);
    assert!(error.remedy.contains("manifests/"), "{}", error.remedy);
    api.forbid(&[]);
    leader.wait_for_view("no error", |view| trouble(view).is_none()).await;
    assert_eq!(api.writes(), [format!("PATCH {SERVICE}")]);
}

#[tokio::test(start_paused = true)]
async fn pods_join_once_bound_and_drain_before_they_stop() {
    let api = FakeServicesApi::new();
    put_pod(&api, "a", "10.0.0.1", "True");
    put_pod(&api, "b", "10.0.0.2", "True");
    let mut leader = ServiceReplica::start(&api, EXPOSED, "a", true);
    let mut other = ServiceReplica::start(&api, EXPOSED, "b", false);
    let view = other.wait_for_view("a port", |view| !view.services.is_empty()).await;
    assert_eq!(view.pod_ips, ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
    let ports = Arc::new(listening_ports(&view));
    leader.wait_for_view("the port", |view| !view.services.is_empty()).await;
    assert_eq!(endpoints(&api), [""; 0], "no Pod listens yet");
    leader.bound.send_replace(Some(ports.clone()));
    api.wait_until("one joined", |api| endpoints(api) == ["10.0.0.1 ready"]).await;
    other.bound.send_replace(Some(ports));
    api.wait_until("both joined", |api| endpoints(api) == ["10.0.0.1 ready", "10.0.0.2 ready"]).await;

    other.lifecycle.send_replace(ReplicaLifecycle::Draining);
    api.wait_until("one leaves", |api| endpoints(api) == ["10.0.0.1 ready", "10.0.0.2 not ready"]).await;
    other.lifecycle.send_replace(ReplicaLifecycle::Stopped);
    other.reconciling.await.unwrap();
    assert_eq!(endpoints(&api), ["10.0.0.1 ready"], "it waits until its slices are deleted");
}

#[tokio::test(start_paused = true)]
async fn the_leader_removes_dead_pods() {
    let api = FakeServicesApi::new();
    put_pod(&api, "a", "10.0.0.1", "True");
    put_pod(&api, "b", "10.0.0.2", "True");
    let mut leader = ServiceReplica::start(&api, EXPOSED, "a", true);
    let other = ServiceReplica::start(&api, EXPOSED, "b", false);
    let view = leader.wait_for_view("a port", |view| !view.services.is_empty()).await;
    other.bound.send_replace(Some(Arc::new(listening_ports(&view))));
    api.wait_until("it joined", |api| endpoints(api) == ["10.0.0.2 ready"]).await;
    // Killed: it writes nothing any more.
    other.reconciling.abort();
    api.edit("pods/portico-system/b", |pod| pod["status"]["conditions"][0]["status"] = json!("False"));
    api.wait_until("it is marked", |api| endpoints(api) == ["10.0.0.2 not ready"]).await;
    api.delete("pods/portico-system/b");
    api.wait_until("it is gone", |api| endpoints(api).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn leaders_without_pod_access_remove_no_slices() {
    let api = FakeServicesApi::new();
    put_pod(&api, "a", "10.0.0.1", "True");
    put_pod(&api, "b", "10.0.0.2", "True");
    let mut other = ServiceReplica::start(&api, EXPOSED, "b", true);
    let view = other.wait_for_view("a port", |view| !view.services.is_empty()).await;
    other.bound.send_replace(Some(Arc::new(listening_ports(&view))));
    api.wait_until("it joined", |api| endpoints(api) == ["10.0.0.2 ready"]).await;
    other.leading.send_replace(false);
    api.hide(&["pods"]);
    let mut leader = ServiceReplica::start(&api, EXPOSED, "a", true);
    // By the second plan, all steps of the first are done.
    for ports in [&[80, 443][..], &[80, 443, 8080]] {
        leader.wants.send_replace(Arc::new(web(ports)));
        leader
            .wait_for_view("the new port", |view| {
                view.services.get(&key()).is_some_and(|it| it.ports.len() == ports.len())
            })
            .await;
    }
    let deletes: Vec<_> = api.writes().into_iter().filter(|write| write.starts_with("DELETE")).collect();
    assert_eq!(deletes, [""; 0]);
    assert_eq!(endpoints(&api), ["10.0.0.2 ready"]);
}

/// Write access to Services in another namespace, or to those of one's own Gateway, must not give access to clients of
/// other Gateways.
#[tokio::test(start_paused = true)]
async fn services_cannot_claim_ports_of_other_gateways() {
    let api = FakeServicesApi::new();
    put_pod(&api, "a", "10.0.0.1", "True");
    let mut replica = ServiceReplica::start(&api, EXPOSED, "a", true);
    let theirs = ObjectKey::new("attacker", "web");
    let mut both = web(&[80]);
    let mut want = both.gateways[&key()].clone();
    want.uid = Arc::from("h");
    both.gateways.insert(theirs.clone(), want);
    replica.wants.send_replace(Arc::new(both));
    let view = replica.wait_for_view("both", |view| view.services.len() == 2).await;
    let (target, own) = (view.services[&key()].ports[&80], view.services[&theirs].ports[&80]);
    replica.bound.send_replace(Some(Arc::new(listening_ports(&view))));
    api.wait_until("the slices", |api| api.objects("endpointslices").len() == 2).await;

    let path = "services/attacker/web-portico";
    let mut copy = api.object(path);
    copy["metadata"] =
        json!({"labels": copy["metadata"]["labels"], "ownerReferences": copy["metadata"]["ownerReferences"]});
    copy["spec"]["ports"][0]["targetPort"] = json!(target);
    api.put("services/attacker/zzz", copy);
    // Older than the victim's Service, which alone does not decide.
    api.edit(path, |service| {
        service["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
        service["spec"]["ports"][0]["targetPort"] = json!(target);
    });
    let back = |api: &FakeServicesApi| api.object(path)["spec"]["ports"][0]["targetPort"] != target;
    api.wait_until("the edit is reverted", back).await;
    let view = replica.wait_for_view("a port of its own", |view| view.services[&theirs].ports.contains_key(&80)).await;
    assert_eq!(view.services[&key()].ports[&80], target);
    assert!(view.services[&theirs].ports[&80] != target, "it was {own}");
    let slices = api.objects("endpointslices");
    let to_target: Vec<_> = slices.iter().filter(|slice| slice["ports"][0]["port"] == target).collect();
    assert!(to_target.len() == 1 && to_target[0]["metadata"]["namespace"] == "ns", "{slices:?}");
}

/// Calls are not repeated because a forbidden watch does not report their results.
#[tokio::test(start_paused = true)]
async fn unwatchable_services_are_tracked_by_responses() {
    let api = FakeServicesApi::new();
    let predecessor = ServiceReplica::start(&api, GatewayExposure::Headless, "a", true);
    api.wait_until("the Service", |api| !api.object(SERVICE).is_null()).await;
    predecessor.reconciling.abort();
    api.hide(&["services"]);
    let leader = ServiceReplica::start(&api, GatewayExposure::Headless, "b", true);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!((api.reads(), api.writes().len()), (2, 1), "the second replica finds it and writes nothing");
    let mut successor = web(&[80]);
    successor.gateways.get_mut(&key()).unwrap().uid = Arc::from("h");
    leader.wants.send_replace(Arc::new(successor));
    let replaced = |api: &FakeServicesApi| api.object(SERVICE)["metadata"]["ownerReferences"][0]["uid"] == "h";
    api.wait_until("it is replaced", replaced).await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let expected = ["PATCH", "DELETE", "PATCH"].map(|verb| format!("{verb} {SERVICE}"));
    assert_eq!((api.reads(), api.writes()), (3, expected.to_vec()));
}
