//! Replicas reconcile the Services of Gateways against a fake API server.

mod fake_api;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fake_api::FakeServicesApi;
use portico::api::ObjectKey;
use portico::api::core::ServiceType;
use portico::k8s::services::{
    DesiredBackendService, DesiredService, DesiredServices, GatewayExposure, GatewayServicesView, ListeningPorts,
    ReconcilerInputs, ReconcilerSettings, ReplicaLifecycle, reconcile,
};
use portico::transport_protocol::TransportPort;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A process that reconciles Services.
struct ServiceReplica {
    leading: watch::Sender<bool>,
    desired: watch::Sender<Arc<DesiredServices>>,
    listening_ports: watch::Sender<Option<Arc<ListeningPorts>>>,
    lifecycle: watch::Sender<ReplicaLifecycle>,
    view: watch::Receiver<Arc<GatewayServicesView>>,
    reconciling: JoinHandle<()>,
}

impl ServiceReplica {
    fn start(api: &FakeServicesApi, exposure: GatewayExposure, pod: &str, is_leader: bool) -> ServiceReplica {
        let (leading, leading_receiver) = watch::channel(is_leader);
        let (desired, desired_receiver) = watch::channel(Arc::new(desired_services(&[80])));
        let (listening_ports, listening_ports_receiver) = watch::channel(None);
        let (lifecycle, lifecycle_receiver) = watch::channel(ReplicaLifecycle::Serving);
        let (view_sender, view) = watch::channel(Arc::default());
        let settings = ReconcilerSettings {
            namespaces: vec![],
            exposure,
            on_all_interfaces: exposure == GatewayExposure::Headless,
            controllers: BTreeSet::from(["portico.dev/gateway-controller".to_owned()]),
            pod: Some(ObjectKey::new("portico-system", pod)),
        };
        let inputs = ReconcilerInputs {
            desired: desired_receiver,
            leading: leading_receiver,
            listening_ports: listening_ports_receiver,
            lifecycle: lifecycle_receiver,
        };
        let reconciling = tokio::spawn(reconcile(settings, api.client(), inputs, view_sender));
        ServiceReplica { leading, desired, listening_ports, lifecycle, view, reconciling }
    }

    async fn wait_for_view(
        &mut self,
        expected: &str,
        condition: impl Fn(&GatewayServicesView) -> bool,
    ) -> Arc<GatewayServicesView> {
        let waiting = self.view.wait_for(|view| condition(view));
        let result = tokio::time::timeout(std::time::Duration::from_secs(300), waiting).await;
        result.unwrap_or_else(|_| panic!("no view has {expected}")).unwrap().clone()
    }
}

const EXPOSED: GatewayExposure = GatewayExposure::Exposed(ServiceType::LoadBalancer);
const SERVICE: &str = "services/ns/web-portico";
const HTTP: TransportPort = TransportPort::tcp(80);

/// The Gateway of the tests.
fn gateway_key() -> ObjectKey {
    ObjectKey::new("ns", "web")
}

/// A Service with these ports for the Gateway of the tests.
fn desired_services(ports: &[u16]) -> DesiredServices {
    let desired = DesiredService {
        uid: Arc::from("g"),
        class: "portico".to_owned(),
        controller: "portico.dev/gateway-controller".to_owned(),
        ports: ports.iter().copied().map(TransportPort::tcp).collect(),
        ..DesiredService::default()
    };
    DesiredServices { gateways: BTreeMap::from([(gateway_key(), desired)]), ..DesiredServices::default() }
}

/// The ports on which Pods listen for the Services of a view.
fn listening_ports(view: &GatewayServicesView) -> ListeningPorts {
    view.services.iter().flat_map(|(key, service)| service.ports.values().map(|port| (*port, key.clone()))).collect()
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
    let mut described: Vec<_> = api.objects("endpointslices").iter().map(describe).collect();
    described.sort();
    described
}

#[tokio::test(start_paused = true)]
async fn views_name_the_gateways_they_cover() {
    let api = FakeServicesApi::new();
    put_pod(&api, "a", "10.0.0.1", "True");
    put_pod(&api, "b", "10.0.0.2", "True");
    let mut leader = ServiceReplica::start(&api, EXPOSED, "a", true);
    leader.wait_for_view("its Service", |view| !view.services.is_empty()).await;
    let mut follower = ServiceReplica::start(&api, EXPOSED, "b", false);
    let desired = follower.desired.send_replace(Arc::default());
    let empty =
        follower.wait_for_view("the complete list", |view| view.complete && view.desired.gateways.is_empty()).await;
    assert!(empty.services.is_empty(), "the view says nothing about Gateways that it does not cover");
    follower.desired.send_replace(desired.clone());
    let view = follower.wait_for_view("the requested Gateways", |view| view.desired == desired).await;
    assert!(view.services.contains_key(&gateway_key()));
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_writes_and_successors_repeat_nothing() {
    let api = FakeServicesApi::new();
    put_pod(&api, "a", "10.0.0.1", "True");
    put_pod(&api, "b", "10.0.0.2", "True");
    let mut follower = ServiceReplica::start(&api, EXPOSED, "b", false);
    follower.wait_for_view("the complete list", |view| view.complete).await;
    assert_eq!(api.writes(), [""; 0]);
    let mut leader = ServiceReplica::start(&api, EXPOSED, "a", true);
    api.wait_until("the Service", |api| !api.object(SERVICE).is_null()).await;
    let port = |view: &GatewayServicesView| {
        view.services.get(&gateway_key()).and_then(|service| service.ports.get(&HTTP).copied())
    };
    let assigned = port(&*leader.wait_for_view("its port", |view| port(view).is_some()).await);
    follower.wait_for_view("the same port", |view| port(view) == assigned).await;

    api.edit(SERVICE, |service| service["status"] = json!({"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}}));
    let has_address = |view: &GatewayServicesView| {
        view.services.get(&gateway_key()).is_some_and(|service| service.addresses == ["lb.example"])
    };
    leader.wait_for_view("the address", has_address).await;
    follower.wait_for_view("the address", has_address).await;

    leader.reconciling.abort();
    follower.leading.send_replace(true);
    // The new port is the first write: the successor repeated none of the earlier ones.
    follower.desired.send_replace(Arc::new(desired_services(&[80, 443])));
    follower.wait_for_view("the new port", |view| view.services[&gateway_key()].ports.len() == 2).await;
    assert_eq!(api.writes(), [format!("PATCH {SERVICE}"), format!("PATCH {SERVICE}")]);
    assert_eq!(port(&follower.view.borrow()), assigned, "the first port is kept");
}

#[tokio::test(start_paused = true)]
async fn foreign_services_are_not_changed() {
    let api = FakeServicesApi::new();
    api.put(SERVICE, json!({"metadata": {"labels": {"app": "shop"}}, "spec": {"ports": [{"port": 80}]}}));
    let mut leader = ServiceReplica::start(&api, GatewayExposure::Headless, "a", true);
    let has_error =
        |view: &GatewayServicesView| view.services.get(&gateway_key()).is_some_and(|service| service.error.is_some());
    let view = leader.wait_for_view("the error", has_error).await;
    let error = view.services[&gateway_key()].error.clone().unwrap();
    assert_eq!(error.message, "Service ns/web-portico was not created by Portico, so it is not changed");
    assert_eq!(api.writes(), [""; 0]);
    api.delete(SERVICE);
    leader.wait_for_view("no error", |view| !has_error(view)).await;
    assert_eq!(api.object(SERVICE)["spec"]["clusterIP"], "None");
}

/// Gateway API, GEP-4894: a headless Service, which Kubernetes deletes with its XBackend.
#[tokio::test(start_paused = true)]
async fn x_backends_that_select_pods_get_a_service() {
    let api = FakeServicesApi::new();
    let mut leader = ServiceReplica::start(&api, GatewayExposure::Headless, "a", true);
    leader.wait_for_view("the Service of the Gateway", |view| view.complete).await;
    let desired = |app: &str| {
        let selector = BTreeMap::from([("app".to_owned(), app.to_owned())]);
        let service = DesiredBackendService { uid: "u".into(), selector, port: 8080 };
        let backends = BTreeMap::from([(ObjectKey::new("ns", "payments"), service)]);
        Arc::new(DesiredServices { backends, ..DesiredServices::default() })
    };
    let path = "services/ns/xbackend-u";
    let selects = |app: &'static str| move |api: &FakeServicesApi| api.object(path)["spec"]["selector"]["app"] == app;
    leader.desired.send_replace(desired("shop"));
    api.wait_until("the Service", selects("shop")).await;
    let service = api.object(path);
    assert_eq!(service["spec"]["clusterIP"], "None");
    assert_eq!(service["metadata"]["ownerReferences"][0]["uid"], "u");
    leader.desired.send_replace(desired("payments"));
    api.wait_until("the new selector", selects("payments")).await;
    let writes = api.writes().iter().filter(|write| write.ends_with(path)).count();
    assert_eq!(writes, 2, "nothing is repeated");
    api.edit(path, |service| service["spec"]["selector"] = json!({"app": "other"}));
    api.wait_until("the selector again", selects("payments")).await;
    api.delete(path);
    api.wait_until("the Service again", selects("payments")).await;
}

#[tokio::test(start_paused = true)]
async fn forbidden_writes_are_reported_and_retried() {
    let api = FakeServicesApi::new();
    api.forbid(&["services"]);
    let mut leader = ServiceReplica::start(&api, GatewayExposure::Headless, "a", true);
    let error_of =
        |view: &GatewayServicesView| view.services.get(&gateway_key()).and_then(|service| service.error.clone());
    let error = error_of(&*leader.wait_for_view("the error", |view| error_of(view).is_some()).await).unwrap();
    assert!(error.message.starts_with("Service ns/web-portico cannot be created: "), "{}", error.message);
    assert!(error.remedy.contains("manifests/"), "{}", error.remedy);
    api.forbid(&[]);
    leader.wait_for_view("no error", |view| error_of(view).is_none()).await;
    assert_eq!(api.writes(), [format!("PATCH {SERVICE}")]);
}

/// The Service of the tests with these settings.
fn with_settings(settings: serde_json::Value) -> Arc<DesiredServices> {
    let mut services = desired_services(&[80]);
    services.gateways.get_mut(&gateway_key()).unwrap().settings = serde_json::from_value(settings).unwrap();
    Arc::new(services)
}

#[tokio::test(start_paused = true)]
async fn node_ports_that_the_api_server_refuses_are_reported() {
    let api = FakeServicesApi::new();
    put_pod(&api, "a", "10.0.0.1", "True");
    let mut leader = ServiceReplica::start(&api, EXPOSED, "a", true);
    leader.wait_for_view("its Service", |view| !view.services.is_empty()).await;
    let refusal = "Service \"web-portico\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is \
                   already allocated";
    api.reject_writes_with("30080", refusal);
    leader.desired.send_replace(with_settings(json!({"nodePorts": [{"port": 80, "nodePort": 30080}]})));
    let error_of =
        |view: &GatewayServicesView| view.services.get(&gateway_key()).and_then(|service| service.error.clone());
    let view = leader.wait_for_view("the refusal", |view| error_of(view).is_some()).await;
    let error = error_of(&view).unwrap();
    assert!(error.message.contains("provided port is already allocated"), "{}", error.message);
    assert!(error.remedy.contains("GatewayParameters"), "{}", error.remedy);
    assert!(!view.services[&gateway_key()].ports.is_empty(), "the existing Service is used as before");
    leader.desired.send_replace(with_settings(json!({"nodePorts": [{"port": 80, "nodePort": 30081}]})));
    leader.wait_for_view("no error", |view| error_of(view).is_none()).await;
    assert_eq!(api.object(SERVICE)["spec"]["ports"][0]["nodePort"], 30081);
}

/// Without its parameters, a Gateway is not accepted, and the type of its Service is unknown.
#[tokio::test(start_paused = true)]
async fn held_services_keep_type_and_addresses() {
    let api = FakeServicesApi::new();
    put_pod(&api, "a", "10.0.0.1", "True");
    let mut leader = ServiceReplica::start(&api, EXPOSED, "a", true);
    leader.desired.send_replace(with_settings(json!({"type": "ClusterIP"})));
    api.wait_until("a Service of that type", |api| api.object(SERVICE)["spec"]["type"] == "ClusterIP").await;
    api.edit(SERVICE, |service| service["spec"]["clusterIPs"] = json!(["10.96.0.1"]));
    let has_address = |view: &GatewayServicesView| {
        view.services.get(&gateway_key()).is_some_and(|service| service.addresses == ["10.96.0.1"])
    };
    leader.wait_for_view("its address", has_address).await;
    let writes = api.writes();
    let mut held = desired_services(&[80]);
    held.gateways.get_mut(&gateway_key()).unwrap().hold = true;
    let held = Arc::new(held);
    leader.desired.send_replace(held.clone());
    let view = leader.wait_for_view("the held Gateway", |view| view.desired == held).await;
    assert!(has_address(&view), "{view:?}");
    tokio::time::sleep(std::time::Duration::from_secs(60)).await; // Time is paused.
    assert_eq!(api.writes(), writes);
}

/// With an address pool of `0.0.0.0`, the addresses of Gateways are those of the ready Pods, whichever replica leads.
#[tokio::test(start_paused = true)]
async fn gateways_on_all_interfaces_have_the_addresses_of_ready_pods() {
    let api = FakeServicesApi::new();
    let put = |name: &str, app: &str, ip: &str, ready: &str| {
        let labels = json!({"app.kubernetes.io/name": app, "pod-template-hash": name});
        let status = json!({"podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": ready}]});
        let pod = json!({"metadata": {"labels": labels}, "spec": {"containers": []}, "status": status});
        api.put(&format!("pods/portico-system/{name}"), pod);
    };
    put("a", "portico", "192.0.2.2", "True");
    put("b", "portico", "192.0.2.1", "False");
    put("other", "redis", "192.0.2.9", "True");
    let mut replicas = [
        ServiceReplica::start(&api, GatewayExposure::Headless, "a", true),
        ServiceReplica::start(&api, GatewayExposure::Headless, "b", false),
    ];
    let addresses = |view: &GatewayServicesView| {
        let addresses: Vec<_> = view.ready_addresses.iter().flatten().map(ToString::to_string).collect();
        addresses.join(" ")
    };
    for replica in &mut replicas {
        let view = replica.wait_for_view("everything listed", |view| view.complete).await;
        assert_eq!(addresses(&view), "192.0.2.2");
        assert!(view.pod_ips.is_empty() && view.replicas.is_empty(), "{view:?}");
    }
    put("b", "portico", "192.0.2.1", "True");
    for replica in &mut replicas {
        replica.wait_for_view("both Pods in order", |view| addresses(view) == "192.0.2.1 192.0.2.2").await;
    }
    replicas[0].leading.send_replace(false);
    replicas[1].leading.send_replace(true);
    api.delete("pods/portico-system/a");
    for replica in &mut replicas {
        // Without its own Pod, the deleted replica knows no labels.
        replica.wait_for_view("a Pod less", |view| ["192.0.2.1", ""].contains(&&*addresses(view))).await;
    }
    assert_eq!(addresses(&replicas[1].view.borrow()), "192.0.2.1");
}

#[tokio::test(start_paused = true)]
async fn pods_join_once_bound_and_drain_before_they_stop() {
    let api = FakeServicesApi::new();
    put_pod(&api, "a", "10.0.0.1", "True");
    put_pod(&api, "b", "10.0.0.2", "True");
    let mut leader = ServiceReplica::start(&api, EXPOSED, "a", true);
    let mut follower = ServiceReplica::start(&api, EXPOSED, "b", false);
    let view = follower.wait_for_view("a port", |view| !view.services.is_empty()).await;
    assert_eq!(view.pod_ips, ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
    let ports = Arc::new(listening_ports(&view));
    leader.wait_for_view("the port", |view| !view.services.is_empty()).await;
    assert_eq!(endpoints(&api), [""; 0], "no Pod listens yet");
    leader.listening_ports.send_replace(Some(ports.clone()));
    api.wait_until("the endpoint of one Pod", |api| endpoints(api) == ["10.0.0.1 ready"]).await;
    follower.listening_ports.send_replace(Some(ports));
    api.wait_until("the endpoints of both Pods", |api| endpoints(api) == ["10.0.0.1 ready", "10.0.0.2 ready"]).await;

    follower.lifecycle.send_replace(ReplicaLifecycle::Draining);
    api.wait_until("an endpoint that is not ready", |api| endpoints(api) == ["10.0.0.1 ready", "10.0.0.2 not ready"])
        .await;
    follower.lifecycle.send_replace(ReplicaLifecycle::Stopped);
    follower.reconciling.await.unwrap();
    assert_eq!(endpoints(&api), ["10.0.0.1 ready"], "the replica stops after its slices are deleted");
}

#[tokio::test(start_paused = true)]
async fn the_leader_removes_dead_pods() {
    let api = FakeServicesApi::new();
    put_pod(&api, "a", "10.0.0.1", "True");
    put_pod(&api, "b", "10.0.0.2", "True");
    let mut leader = ServiceReplica::start(&api, EXPOSED, "a", true);
    let follower = ServiceReplica::start(&api, EXPOSED, "b", false);
    let view = leader.wait_for_view("a port", |view| !view.services.is_empty()).await;
    follower.listening_ports.send_replace(Some(Arc::new(listening_ports(&view))));
    api.wait_until("the endpoint", |api| endpoints(api) == ["10.0.0.2 ready"]).await;
    // The replica is killed and writes nothing any more.
    follower.reconciling.abort();
    api.edit("pods/portico-system/b", |pod| pod["status"]["conditions"][0]["status"] = json!("False"));
    api.wait_until("the endpoint is not ready", |api| endpoints(api) == ["10.0.0.2 not ready"]).await;
    api.delete("pods/portico-system/b");
    api.wait_until("the endpoint is deleted", |api| endpoints(api).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn leaders_without_pod_access_remove_no_slices() {
    let api = FakeServicesApi::new();
    put_pod(&api, "a", "10.0.0.1", "True");
    put_pod(&api, "b", "10.0.0.2", "True");
    let mut previous_leader = ServiceReplica::start(&api, EXPOSED, "b", true);
    let view = previous_leader.wait_for_view("a port", |view| !view.services.is_empty()).await;
    previous_leader.listening_ports.send_replace(Some(Arc::new(listening_ports(&view))));
    api.wait_until("the endpoint", |api| endpoints(api) == ["10.0.0.2 ready"]).await;
    previous_leader.leading.send_replace(false);
    api.hide(&["pods"]);
    let mut leader = ServiceReplica::start(&api, EXPOSED, "a", true);
    // Once the third port is in a view, all writes for the second port are done.
    for ports in [&[80, 443][..], &[80, 443, 8080]] {
        leader.desired.send_replace(Arc::new(desired_services(ports)));
        leader
            .wait_for_view("the new port", |view| {
                view.services.get(&gateway_key()).is_some_and(|service| service.ports.len() == ports.len())
            })
            .await;
    }
    let deletes: Vec<_> = api.writes().into_iter().filter(|write| write.starts_with("DELETE")).collect();
    assert_eq!(deletes, [""; 0]);
    assert_eq!(endpoints(&api), ["10.0.0.2 ready"]);
}

/// Users who may write Services in one namespace must not receive requests of clients of Gateways in other
/// namespaces.
#[tokio::test(start_paused = true)]
async fn services_cannot_claim_ports_of_other_gateways() {
    let api = FakeServicesApi::new();
    put_pod(&api, "a", "10.0.0.1", "True");
    let mut replica = ServiceReplica::start(&api, EXPOSED, "a", true);
    let attacker = ObjectKey::new("attacker", "web");
    let mut services = desired_services(&[80]);
    let mut attacker_service = services.gateways[&gateway_key()].clone();
    attacker_service.uid = Arc::from("h");
    services.gateways.insert(attacker.clone(), attacker_service);
    replica.desired.send_replace(Arc::new(services));
    let view = replica.wait_for_view("both Services", |view| view.services.len() == 2).await;
    let (target, first_port) = (view.services[&gateway_key()].ports[&HTTP], view.services[&attacker].ports[&HTTP]);
    replica.listening_ports.send_replace(Some(Arc::new(listening_ports(&view))));
    api.wait_until("the slices", |api| api.objects("endpointslices").len() == 2).await;

    let path = "services/attacker/web-portico";
    let mut copy = api.object(path);
    copy["metadata"] =
        json!({"labels": copy["metadata"]["labels"], "ownerReferences": copy["metadata"]["ownerReferences"]});
    copy["spec"]["ports"][0]["targetPort"] = json!(target);
    api.put("services/attacker/zzz", copy);
    // The older Service must not win by its age alone.
    api.edit(path, |service| {
        service["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
        service["spec"]["ports"][0]["targetPort"] = json!(target);
    });
    let is_reverted = |api: &FakeServicesApi| api.object(path)["spec"]["ports"][0]["targetPort"] != target;
    api.wait_until("the edit is reverted", is_reverted).await;
    let view = replica.wait_for_view("another port", |view| view.services[&attacker].ports.contains_key(&HTTP)).await;
    assert_eq!(view.services[&gateway_key()].ports[&HTTP], target);
    assert!(view.services[&attacker].ports[&HTTP] != target, "it was {first_port} at first");
    let slices = api.objects("endpointslices");
    let to_target: Vec<_> = slices.iter().filter(|slice| slice["ports"][0]["port"] == target).collect();
    assert!(to_target.len() == 1 && to_target[0]["metadata"]["namespace"] == "ns", "{slices:?}");
}

/// If Services cannot be watched, the results of calls are known from their responses, and the calls are not repeated.
#[tokio::test(start_paused = true)]
async fn unwatchable_services_are_tracked_by_responses() {
    let api = FakeServicesApi::new();
    let predecessor = ServiceReplica::start(&api, GatewayExposure::Headless, "a", true);
    api.wait_until("the Service", |api| !api.object(SERVICE).is_null()).await;
    predecessor.reconciling.abort();
    api.hide(&["services"]);
    let leader = ServiceReplica::start(&api, GatewayExposure::Headless, "b", true);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await; // Time is paused.
    assert_eq!((api.reads(), api.writes().len()), (2, 1), "the second replica reads the Service and writes nothing");
    let mut recreated_gateway = desired_services(&[80]);
    recreated_gateway.gateways.get_mut(&gateway_key()).unwrap().uid = Arc::from("h");
    leader.desired.send_replace(Arc::new(recreated_gateway));
    let replaced = |api: &FakeServicesApi| api.object(SERVICE)["metadata"]["ownerReferences"][0]["uid"] == "h";
    api.wait_until("it is replaced", replaced).await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await; // Time is paused.
    let expected = ["PATCH", "DELETE", "PATCH"].map(|verb| format!("{verb} {SERVICE}"));
    assert_eq!((api.reads(), api.writes()), (3, expected.to_vec()));
}
