//! The EndpointSlices of a Gateway's Service. Each Pod writes its own, because only the Pod knows which ports it has
//! bound. Before it stops, it marks its slices as terminating.
//!
//! A dead Pod cannot do that. Nor are its slices garbage collected with it: a Pod cannot own objects in other
//! namespaces. So the leader deletes the slices of Pods that are gone, and if a Pod is not ready, marks its slices as
//! not ready. The leader never marks a slice as ready, and a Pod does so only while its Pod object is ready. Leader and
//! Pod decide by the same Pod object, so they do not overwrite each other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::plan::{ApiCall, PlanStep, ServicesByKey, StepTarget};
use super::pod::ReplicaPod;
use super::selection::{self, ListeningPorts};
use super::service::{KnownService, port_name};
use super::{DesiredServices, applied, names};
use crate::api::names::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use crate::api::{Kind, ObjectKey};

/// Portico's EndpointSlices.
pub(super) type SlicesByKey = BTreeMap<ObjectKey, Arc<KnownSlice>>;
/// The Pods of Portico's namespace.
pub(super) type PodsByKey = BTreeMap<ObjectKey, Arc<ReplicaPod>>;

/// The part of an EndpointSlice that is used.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KnownSlice {
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    pub(super) service: String,
    /// The Pod that is the endpoint, like `pod_uid`.
    pod_namespace: String,
    pub(super) pod_uid: String,
    /// Whether an endpoint is ready, or says nothing, which means ready.
    pub(super) ready: bool,
    object: Value,
}

impl KnownSlice {
    /// None if the slice does not have the labels that Portico sets.
    pub(super) fn read(slice: &EndpointSlice) -> Option<KnownSlice> {
        let meta = &slice.metadata;
        let labels = meta.labels.as_ref()?;
        let conditions = slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.conditions.as_ref());
        Some(KnownSlice {
            key: ObjectKey::new(meta.namespace.as_deref()?, meta.name.as_deref()?),
            uid: meta.uid.clone()?,
            service: labels.get(SERVICE_NAME_LABEL)?.clone(),
            pod_namespace: labels.get(POD_NAMESPACE_LABEL)?.clone(),
            pod_uid: labels.get(POD_UID_LABEL)?.clone(),
            ready: conditions.into_iter().any(|conditions| conditions.ready != Some(false)),
            object: serde_json::to_value(slice).ok()?,
        })
    }
}

/// The lifecycle of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaLifecycle {
    Serving,
    /// Still serving, but new clients should connect elsewhere.
    Draining,
    /// No longer listening.
    Stopped,
}

/// This process as an endpoint of Services.
#[derive(Clone, Debug)]
pub(super) struct OwnEndpoint<'a> {
    pub(super) pod: &'a ReplicaPod,
    pub(super) lifecycle: ReplicaLifecycle,
    pub(super) listening_ports: &'a ListeningPorts,
}

/// The steps for the slices of this Pod.
pub(super) fn plan_own_slices(
    endpoint: &OwnEndpoint<'_>,
    desired_services: &DesiredServices,
    services: &ServicesByKey,
    slices: &SlicesByKey,
) -> Vec<PlanStep> {
    let mut wanted = BTreeMap::new();
    for (gateway, selected) in selection::select_services(desired_services, services, endpoint.listening_ports) {
        if !selected.accepts_clients() {
            continue;
        }
        let service = selected.service;
        // A Pod port that serves another Gateway must not receive the clients of this Gateway.
        let served_ports =
            selected.ports.iter().filter(|(_, target)| endpoint.listening_ports.get(target) == Some(gateway));
        let ports: Vec<_> = served_ports
            .map(|(port, target)| json!({"name": port_name(*port), "port": target, "protocol": port.transport.name()}))
            .collect();
        if ports.is_empty() || endpoint.lifecycle == ReplicaLifecycle::Stopped || endpoint.pod.finished {
            continue;
        }
        for ip in &endpoint.pod.ips {
            let name = slice_name(&service.key.name, endpoint.pod, *ip);
            let object = desired_slice(
                service,
                &name,
                endpoint.pod,
                *ip,
                &json!(ports),
                conditions(endpoint.pod, endpoint.lifecycle),
            );
            wanted.insert(ObjectKey::new(&service.key.namespace, &name), (service, object));
        }
    }
    let obsolete =
        slices.values().filter(|slice| slice.pod_uid == endpoint.pod.uid && !wanted.contains_key(&slice.key));
    let mut steps: Vec<PlanStep> = obsolete.map(|slice| delete_step(slice, services)).collect();
    for (key, (service, mut object)) in wanted {
        let known = slices.get(&key);
        if known.is_some_and(|known| applied::is_applied(&object, &known.object, MANAGED_BY)) {
            continue;
        }
        if let Some(known) = known {
            object["metadata"]["uid"] = json!(known.uid);
        }
        steps.push(slice_step(key, Some(service), ApiCall::Apply(object)));
    }
    steps
}

/// The steps of the leader for the slices of the other Pods in its namespace.
pub(super) fn plan_other_slices(
    namespace: &str,
    own_uid: &str,
    pods: &PodsByKey,
    services: &ServicesByKey,
    slices: &SlicesByKey,
) -> Vec<PlanStep> {
    let by_uid: BTreeMap<&str, &ReplicaPod> = pods.values().map(|pod| (&*pod.uid, &**pod)).collect();
    let others = slices.values().filter(|slice| slice.pod_namespace == namespace && slice.pod_uid != own_uid);
    let steps = others.filter_map(|slice| match by_uid.get(&*slice.pod_uid) {
        None => Some(delete_step(slice, services)),
        Some(pod) if pod.finished => Some(delete_step(slice, services)),
        Some(pod) if slice.ready && !pod.is_available() => {
            let service = services.get(&ObjectKey::new(&slice.key.namespace, &slice.service))?;
            let address = slice.object["endpoints"][0]["addresses"][0].as_str()?.parse().ok()?;
            let ports = &slice.object["ports"];
            // The lifecycle of another process is not known. The leader only acts on the Pod object.
            let conditions = conditions(pod, ReplicaLifecycle::Serving);
            let mut object = desired_slice(service, &slice.key.name, pod, address, ports, conditions);
            object["metadata"]["uid"] = json!(slice.uid);
            Some(slice_step(slice.key.clone(), Some(service), ApiCall::Apply(object)))
        }
        Some(_) => None,
    });
    steps.collect()
}

fn delete_step(slice: &KnownSlice, services: &ServicesByKey) -> PlanStep {
    let service = services.get(&ObjectKey::new(&slice.key.namespace, &slice.service));
    slice_step(slice.key.clone(), service.map(|service| &**service), ApiCall::Delete { uid: slice.uid.clone() })
}

fn slice_step(key: ObjectKey, service: Option<&KnownService>, call: ApiCall) -> PlanStep {
    PlanStep { target: StepTarget::Slice, gateway: service.map(|service| service.owner.gateway.clone()), key, call }
}

fn conditions(pod: &ReplicaPod, lifecycle: ReplicaLifecycle) -> Value {
    json!({
        "ready": pod.is_available() && lifecycle == ReplicaLifecycle::Serving,
        "serving": pod.ready,
        "terminating": pod.terminating || lifecycle != ReplicaLifecycle::Serving,
    })
}

fn slice_name(service: &str, pod: &ReplicaPod, ip: IpAddr) -> String {
    // A hash, because the Pod's name may use the whole length. One slice for each address, because a slice has a single
    // address family.
    format!("{service}-{:016x}", names::hash(&format!("{}/{ip}", pod.uid)))
}

fn desired_slice(
    service: &KnownService,
    name: &str,
    pod: &ReplicaPod,
    ip: IpAddr,
    ports: &Value,
    conditions: Value,
) -> Value {
    let mut endpoint = json!({
        "addresses": [ip],
        "conditions": conditions,
        "targetRef": {"kind": "Pod", "namespace": &*pod.key.namespace, "name": &*pod.key.name, "uid": pod.uid},
    });
    if let Some(node) = &pod.node {
        endpoint["nodeName"] = json!(node);
    }
    json!({
        "apiVersion": format!("{}/{}", Kind::EndpointSlice.group(), Kind::EndpointSlice.versions()[0]),
        "kind": Kind::EndpointSlice.name(),
        "metadata": {
            "namespace": &*service.key.namespace,
            "name": name,
            "labels": {
                MANAGED_BY_LABEL: MANAGED_BY,
                SERVICE_NAME_LABEL: &*service.key.name,
                // Keeps the cluster's EndpointSlice controllers from managing these slices.
                "endpointslice.kubernetes.io/managed-by": "portico.dev",
                POD_NAMESPACE_LABEL: &*pod.key.namespace,
                POD_UID_LABEL: pod.uid,
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": Kind::Service.name(), "name": &*service.key.name, "uid": service.uid,
            }],
        },
        "addressType": if ip.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [endpoint],
        "ports": ports,
    })
}

/// The labels that name the Pod that is the endpoint of a slice.
const POD_NAMESPACE_LABEL: &str = "portico.dev/pod-namespace";
const POD_UID_LABEL: &str = "portico.dev/pod-uid";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::core::ServiceType;
    use crate::k8s::services::service;
    use crate::k8s::services::{DesiredService, GatewayExposure};
    use crate::transport_protocol::TransportPort;

    /// A uid that no Pod in these tests has.
    const NO_POD: &str = "none";

    fn pod(uid: &str, ready: bool) -> ReplicaPod {
        ReplicaPod {
            key: ObjectKey::new("portico-system", &format!("portico-{uid}")),
            uid: uid.to_owned(),
            ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            host_ips: Vec::new(),
            node: Some("n".to_owned()),
            labels: BTreeMap::new(),
            has_host_ports: false,
            ready,
            terminating: false,
            finished: false,
        }
    }

    /// A Gateway `web` with ports 80 and 443, which its Service sends to 10080 and 10443.
    fn desired_and_existing_services() -> (DesiredServices, ServicesByKey) {
        let gateway = ObjectKey::new("ns", "web");
        let desired = DesiredService {
            uid: Arc::from("g"),
            ports: [80, 443].map(TransportPort::tcp).into(),
            ..DesiredService::default()
        };
        let ports = BTreeMap::from([(TransportPort::tcp(80), 10080), (TransportPort::tcp(443), 10443)]);
        let mut object = service::desired_service(
            &gateway,
            &desired,
            "web-c",
            GatewayExposure::Exposed(ServiceType::LoadBalancer),
            &ports,
        );
        object["metadata"]["uid"] = json!("s");
        object["metadata"]["resourceVersion"] = json!("1");
        let known = KnownService::read(&serde_json::from_value(object).unwrap()).unwrap();
        let desired_services =
            DesiredServices { gateways: BTreeMap::from([(gateway, desired)]), ..DesiredServices::default() };
        (desired_services, BTreeMap::from([(known.key.clone(), Arc::new(known))]))
    }

    /// Takes steps until none is left, and returns them.
    fn settle(slices: &mut SlicesByKey, plan: impl Fn(&SlicesByKey) -> Vec<PlanStep>) -> Vec<String> {
        let mut taken = Vec::new();
        loop {
            let steps = plan(slices);
            if steps.is_empty() {
                taken.sort();
                return taken;
            }
            for step in steps {
                assert_eq!(step.gateway, Some(ObjectKey::new("ns", "web")));
                match step.call {
                    ApiCall::Apply(object) => {
                        let known = slices.get(&step.key);
                        assert_eq!(object["metadata"]["uid"].as_str(), known.map(|known| &*known.uid));
                        let endpoint = &object["endpoints"][0];
                        let ports = object["ports"].as_array().unwrap().iter().map(|port| port["port"].to_string());
                        let conditions: Vec<_> = ["ready", "serving", "terminating"]
                            .into_iter()
                            .filter(|condition| endpoint["conditions"][condition] == true)
                            .collect();
                        taken.push(format!(
                            "{} {}: {}",
                            endpoint["addresses"][0].as_str().unwrap(),
                            ports.collect::<Vec<_>>().join(" "),
                            conditions.join(" ")
                        ));
                        slices.insert(step.key.clone(), Arc::new(slice_after_apply(object)));
                    }
                    ApiCall::Delete { uid } => {
                        let gone = slices.remove(&step.key).unwrap();
                        assert_eq!(gone.uid, uid);
                        taken.push(format!("delete {}", gone.object["endpoints"][0]["addresses"][0].as_str().unwrap()));
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(taken.len() < 10, "the plan does not converge: {taken:?}");
        }
    }

    /// The slice that the API server returns after `object` was applied.
    fn slice_after_apply(mut object: Value) -> KnownSlice {
        let fields = |value: &Value| -> Value {
            value
                .as_object()
                .unwrap()
                .keys()
                .map(|key| (format!("f:{key}"), json!({})))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let owned = json!({
            "f:metadata": {
                "f:labels": fields(&object["metadata"]["labels"]),
                "f:ownerReferences": {"k:{\"uid\":\"s\"}": {}},
            },
            "f:addressType": {}, "f:endpoints": {}, "f:ports": {},
        });
        object["metadata"]["managedFields"] = json!([{"manager": "portico", "operation": "Apply", "fieldsV1": owned}]);
        object["metadata"]["uid"] = json!(format!("uid of {}", object["metadata"]["name"]));
        KnownSlice::read(&serde_json::from_value(object).unwrap()).unwrap()
    }

    fn settle_own(
        pod: &ReplicaPod,
        lifecycle: ReplicaLifecycle,
        listening_ports: &[u16],
        slices: &mut SlicesByKey,
    ) -> Vec<String> {
        let (desired_services, services) = desired_and_existing_services();
        let listening_ports = listening_ports.iter().map(|port| (*port, ObjectKey::new("ns", "web"))).collect();
        settle(slices, |slices| {
            plan_own_slices(
                &OwnEndpoint { pod, lifecycle, listening_ports: &listening_ports },
                &desired_services,
                &services,
                slices,
            )
        })
    }

    #[test]
    fn pods_join_with_bound_ports_and_drain_before_they_stop() {
        let mut slices = SlicesByKey::new();
        let mut this = pod("a", false);
        assert_eq!(settle_own(&this, ReplicaLifecycle::Serving, &[], &mut slices), [""; 0]);
        assert_eq!(
            settle_own(&this, ReplicaLifecycle::Serving, &[10080], &mut slices),
            ["10.0.0.1 10080: ", "fd00::1 10080: "]
        );
        this.ready = true;
        let joined = ["10.0.0.1 10080: ready serving", "fd00::1 10080: ready serving"];
        assert_eq!(settle_own(&this, ReplicaLifecycle::Serving, &[10080, 22], &mut slices), joined);
        assert_eq!(
            settle_own(&this, ReplicaLifecycle::Serving, &[10080], &mut slices),
            [""; 0],
            "nothing is written twice"
        );
        let both = ["10.0.0.1 10080 10443: ready serving", "fd00::1 10080 10443: ready serving"];
        assert_eq!(settle_own(&this, ReplicaLifecycle::Serving, &[10080, 10443], &mut slices), both);
        let leaving = ["10.0.0.1 10080: serving terminating", "fd00::1 10080: serving terminating"];
        assert_eq!(settle_own(&this, ReplicaLifecycle::Draining, &[10080], &mut slices), leaving);
        assert_eq!(
            settle_own(&this, ReplicaLifecycle::Stopped, &[10080], &mut slices),
            ["delete 10.0.0.1", "delete fd00::1"]
        );
    }

    #[test]
    fn ports_bound_for_another_gateway_are_left_out() {
        let (desired_services, services) = desired_and_existing_services();
        let listening_ports =
            ListeningPorts::from([(10080, ObjectKey::new("other", "web")), (10443, ObjectKey::new("ns", "web"))]);
        let this = pod("a", true);
        let steps = plan_own_slices(
            &OwnEndpoint { pod: &this, lifecycle: ReplicaLifecycle::Serving, listening_ports: &listening_ports },
            &desired_services,
            &services,
            &SlicesByKey::new(),
        );
        let ports: Vec<_> = steps
            .iter()
            .map(|step| match &step.call {
                ApiCall::Apply(object) => object["ports"].to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(ports.len() == 2 && ports.iter().all(|ports| ports.contains("10443") && !ports.contains("10080")));
    }

    #[test]
    fn slices_name_their_service_and_pod() {
        let mut slices = SlicesByKey::new();
        settle_own(&pod("a", true), ReplicaLifecycle::Serving, &[10080], &mut slices);
        let slice = &slices.values().find(|slice| slice.object["addressType"] == "IPv6").unwrap().object;
        let labels = &slice["metadata"]["labels"];
        assert_eq!(labels["kubernetes.io/service-name"], "web-c");
        assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "s");
        assert_eq!(slice["endpoints"][0]["targetRef"]["name"], "portico-a");
        assert_eq!(slice["endpoints"][0]["nodeName"], "n");
        assert_eq!(slice["ports"], json!([{"name": "tcp-80", "port": 10080, "protocol": "TCP"}]));
    }

    #[test]
    fn the_leader_updates_slices_of_dead_pods() {
        let (desired_services, services) = desired_and_existing_services();
        let mut slices = SlicesByKey::new();
        let mut other = pod("b", true);
        other.ips.truncate(1);
        settle_own(&other, ReplicaLifecycle::Serving, &[10080], &mut slices);
        let mut settle_others = |pods: &[&ReplicaPod], namespace: &str, own_uid: &str| {
            let pods: PodsByKey = pods.iter().map(|&pod| (pod.key.clone(), Arc::new(pod.clone()))).collect();
            settle(&mut slices, |slices| plan_other_slices(namespace, own_uid, &pods, &services, slices))
        };
        assert_eq!(settle_others(&[&other], "portico-system", NO_POD), [""; 0]);
        assert_eq!(settle_others(&[], "elsewhere", NO_POD), [""; 0], "Pods of another installation");
        assert_eq!(settle_others(&[], "portico-system", "b"), [""; 0], "the leader's own slices are not planned here");
        let dead = ReplicaPod { ready: false, ..other.clone() };
        assert_eq!(settle_others(&[&dead], "portico-system", NO_POD), ["10.0.0.1 10080: "]);
        assert_eq!(
            settle_others(&[&other], "portico-system", NO_POD),
            [""; 0],
            "only the Pod itself marks its slices as ready"
        );
        // The Pod marks its slice as ready again. The leader marks the slice as terminating when the Pod is.
        let listening_ports = ListeningPorts::from([(10080, ObjectKey::new("ns", "web"))]);
        let endpoint =
            OwnEndpoint { pod: &other, lifecycle: ReplicaLifecycle::Serving, listening_ports: &listening_ports };
        settle(&mut slices, |slices| plan_own_slices(&endpoint, &desired_services, &services, slices));
        let mut settle_other = |pod: Option<&ReplicaPod>| {
            let pods: PodsByKey = pod.into_iter().map(|pod| (pod.key.clone(), Arc::new(pod.clone()))).collect();
            settle(&mut slices, |slices| plan_other_slices("portico-system", NO_POD, &pods, &services, slices))
        };
        assert_eq!(
            settle_other(Some(&ReplicaPod { terminating: true, ..other.clone() })),
            ["10.0.0.1 10080: serving terminating"]
        );
        assert_eq!(
            settle_other(Some(&ReplicaPod { uid: "c".to_owned(), ..other })),
            ["delete 10.0.0.1"],
            "another Pod of that name"
        );
    }
}
