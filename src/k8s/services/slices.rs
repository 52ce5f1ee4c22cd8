//! Which Pods a Gateway's Service leads to. Each Pod writes its own EndpointSlices, since it alone knows which ports it
//! has bound, and marks them when it leaves.
//!
//! A Pod that died cannot do that, and its slices cannot be owned by it, since owners are in the namespace of what they
//! own. So the replica that leads looks after them: it removes those of Pods that are gone, and marks those of Pods that
//! are not ready. It never marks one as ready, and a Pod does so only while its own Pod object is: both judge by the same
//! object, so that they do not write over each other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::choice::{self, Bound};
use super::plan::{Call, Services, Step, What};
use super::pod::Pod;
use super::service::{Known, port_name};
use super::{Wants, applied, names};
use crate::api::names::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use crate::api::{Kind, ObjectKey};

/// EndpointSlices of ours, by their keys.
pub(super) type Slices = BTreeMap<ObjectKey, Arc<Slice>>;
/// Pods of our namespace, by their keys.
pub(super) type Pods = BTreeMap<ObjectKey, Arc<Pod>>;

/// What we read of an EndpointSlice of ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slice {
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    pub(super) service: String,
    /// The Pod that wrote it.
    pod_namespace: String,
    pub(super) pod_uid: String,
    pub(super) ready: bool,
    whole: Value,
}

impl Slice {
    /// None if the slice is not one that a Pod of ours wrote.
    pub(super) fn read(slice: &EndpointSlice) -> Option<Slice> {
        let meta = &slice.metadata;
        let labels = meta.labels.as_ref()?;
        let conditions = slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.conditions.as_ref());
        Some(Slice {
            key: ObjectKey::new(meta.namespace.as_deref()?, meta.name.as_deref()?),
            uid: meta.uid.clone()?,
            service: labels.get(SERVICE_NAME_LABEL)?.clone(),
            pod_namespace: labels.get(POD_NAMESPACE_LABEL)?.clone(),
            pod_uid: labels.get(POD_UID_LABEL)?.clone(),
            ready: conditions.into_iter().any(|conditions| conditions.ready != Some(false)),
            whole: serde_json::to_value(slice).ok()?,
        })
    }
}

/// How long this process means to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    Serving,
    /// Still serving, but new clients should go elsewhere.
    Leaving,
    /// Not listening any more.
    Gone,
}

/// This process, as clients get to it.
#[derive(Clone, Debug)]
pub(super) struct Own<'a> {
    pub(super) pod: &'a Pod,
    pub(super) stay: Stay,
    pub(super) bound: &'a Bound,
}

/// What has to be done about the slices of this Pod.
pub(super) fn of_this_pod(own: &Own<'_>, wants: &Wants, services: &Services, slices: &Slices) -> Vec<Step> {
    let mut wanted = BTreeMap::new();
    for (gateway, chosen) in choice::of_gateways(wants, services, own.bound) {
        if !chosen.serves() {
            continue;
        }
        let service = chosen.service;
        // Whoever else is served at that port must not get these clients.
        let sent = chosen.ports.iter().filter(|(_, target)| own.bound.get(target) == Some(gateway));
        let ports: Vec<_> =
            sent.map(|(port, target)| json!({"name": port_name(*port), "port": target, "protocol": "TCP"})).collect();
        if ports.is_empty() || own.stay == Stay::Gone || own.pod.over {
            continue;
        }
        for ip in &own.pod.ips {
            let name = name(&service.key.name, own.pod, *ip);
            let object = wanted_slice(service, &name, own.pod, *ip, &json!(ports), conditions(own.pod, own.stay));
            wanted.insert(ObjectKey::new(&service.key.namespace, &name), (service, object));
        }
    }
    let in_vain = slices.values().filter(|slice| slice.pod_uid == own.pod.uid && !wanted.contains_key(&slice.key));
    let mut steps: Vec<Step> = in_vain.map(|slice| delete(slice, services)).collect();
    for (key, (service, mut object)) in wanted {
        let known = slices.get(&key);
        if known.is_some_and(|known| applied::is_applied(&object, &known.whole, MANAGED_BY)) {
            continue;
        }
        if let Some(known) = known {
            object["metadata"]["uid"] = json!(known.uid);
        }
        steps.push(step(key, Some(service), Call::Apply(object)));
    }
    steps
}

/// What the leader has to do about the slices of Pods in its namespace that cannot do so themselves.
pub(super) fn of_other_pods(
    namespace: &str,
    own: &str,
    pods: &Pods,
    services: &Services,
    slices: &Slices,
) -> Vec<Step> {
    let by_uid: BTreeMap<&str, &Pod> = pods.values().map(|pod| (&*pod.uid, &**pod)).collect();
    let others = slices.values().filter(|slice| slice.pod_namespace == namespace && slice.pod_uid != own);
    let steps = others.filter_map(|slice| match by_uid.get(&*slice.pod_uid) {
        Some(pod) if pod.over => Some(delete(slice, services)),
        None => Some(delete(slice, services)),
        Some(pod) if slice.ready && !pod.answers() => {
            let service = services.get(&ObjectKey::new(&slice.key.namespace, &slice.service))?;
            let address = slice.whole["endpoints"][0]["addresses"][0].as_str()?.parse().ok()?;
            let ports = &slice.whole["ports"];
            let conditions = conditions(pod, Stay::Serving);
            let mut object = wanted_slice(service, &slice.key.name, pod, address, ports, conditions);
            object["metadata"]["uid"] = json!(slice.uid);
            Some(step(slice.key.clone(), Some(service), Call::Apply(object)))
        }
        Some(_) => None,
    });
    steps.collect()
}

fn delete(slice: &Slice, services: &Services) -> Step {
    let service = services.get(&ObjectKey::new(&slice.key.namespace, &slice.service));
    step(slice.key.clone(), service.map(|service| &**service), Call::Delete { uid: slice.uid.clone() })
}

fn step(key: ObjectKey, service: Option<&Known>, call: Call) -> Step {
    Step { what: What::Slice, gateway: service.map(|service| service.owner.gateway.clone()), key, call }
}

fn conditions(pod: &Pod, stay: Stay) -> Value {
    json!({
        "ready": pod.answers() && stay == Stay::Serving,
        "serving": pod.ready,
        "terminating": pod.leaving || stay != Stay::Serving,
    })
}

fn name(service: &str, pod: &Pod, ip: IpAddr) -> String {
    // A hash, since the name of the Pod may take up all the room; every address is one slice, since a slice has one family.
    format!("{service}-{:016x}", names::hash(&format!("{}/{ip}", pod.uid)))
}

fn wanted_slice(service: &Known, name: &str, pod: &Pod, ip: IpAddr, ports: &Value, conditions: Value) -> Value {
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
                // Tells the controllers of the cluster that these are none of theirs.
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

/// Labels that say which Pod wrote a slice.
const POD_NAMESPACE_LABEL: &str = "portico.dev/pod-namespace";
const POD_UID_LABEL: &str = "portico.dev/pod-uid";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::core::ServiceType;
    use crate::k8s::services::service;
    use crate::k8s::services::{Shape, Want};

    const NOBODY: &str = "nobody";

    fn pod(uid: &str, ready: bool) -> Pod {
        Pod {
            key: ObjectKey::new("portico-system", &format!("portico-{uid}")),
            uid: uid.to_owned(),
            ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            host_ips: Vec::new(),
            node: Some("n".to_owned()),
            ready,
            leaving: false,
            over: false,
        }
    }

    /// A Gateway `web` with ports 80 and 443, which its Service sends to 10080 and 10443.
    fn world() -> (Wants, Services) {
        let gateway = ObjectKey::new("ns", "web");
        let want = Want { uid: Arc::from("g"), ports: [80, 443].into(), ..Want::default() };
        let ports = BTreeMap::from([(80, 10080), (443, 10443)]);
        let mut object = service::wanted(&gateway, &want, "web-c", Shape::Exposed(ServiceType::LoadBalancer), &ports);
        object["metadata"]["uid"] = json!("s");
        object["metadata"]["resourceVersion"] = json!("1");
        let known = Known::read(&serde_json::from_value(object).unwrap()).unwrap();
        let wants = Wants { gateways: BTreeMap::from([(gateway, want)]), foreign: BTreeMap::new() };
        (wants, BTreeMap::from([(known.key.clone(), Arc::new(known))]))
    }

    /// Takes steps until there are none, and says which.
    fn settle(slices: &mut Slices, plan: impl Fn(&Slices) -> Vec<Step>) -> Vec<String> {
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
                    Call::Apply(object) => {
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
                        slices.insert(step.key.clone(), Arc::new(applied(object)));
                    }
                    Call::Delete { uid } => {
                        let gone = slices.remove(&step.key).unwrap();
                        assert_eq!(gone.uid, uid);
                        taken.push(format!("delete {}", gone.whole["endpoints"][0]["addresses"][0].as_str().unwrap()));
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(taken.len() < 10, "it does not come to rest: {taken:?}");
        }
    }

    /// As the API server shows it afterwards.
    fn applied(mut object: Value) -> Slice {
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
            "f:metadata": {"f:labels": fields(&object["metadata"]["labels"]), "f:ownerReferences": {"k:{\"uid\":\"s\"}": {}}},
            "f:addressType": {}, "f:endpoints": {}, "f:ports": {},
        });
        object["metadata"]["managedFields"] = json!([{"manager": "portico", "operation": "Apply", "fieldsV1": owned}]);
        object["metadata"]["uid"] = json!(format!("uid of {}", object["metadata"]["name"]));
        Slice::read(&serde_json::from_value(object).unwrap()).unwrap()
    }

    fn own(pod: &Pod, stay: Stay, bound: &[u16], slices: &mut Slices) -> Vec<String> {
        let (wants, services) = world();
        let bound = bound.iter().map(|port| (*port, ObjectKey::new("ns", "web"))).collect();
        settle(slices, |slices| of_this_pod(&Own { pod, stay, bound: &bound }, &wants, &services, slices))
    }

    #[test]
    fn a_pod_joins_with_the_ports_that_it_has_bound_and_leaves_before_it_goes() {
        let mut slices = Slices::new();
        let mut this = pod("a", false);
        assert_eq!(own(&this, Stay::Serving, &[], &mut slices), [""; 0]);
        assert_eq!(own(&this, Stay::Serving, &[10080], &mut slices), ["10.0.0.1 10080: ", "fd00::1 10080: "]);
        this.ready = true;
        let joined = ["10.0.0.1 10080: ready serving", "fd00::1 10080: ready serving"];
        assert_eq!(own(&this, Stay::Serving, &[10080, 22], &mut slices), joined);
        assert_eq!(own(&this, Stay::Serving, &[10080], &mut slices), [""; 0], "nothing is written twice");
        let both = ["10.0.0.1 10080 10443: ready serving", "fd00::1 10080 10443: ready serving"];
        assert_eq!(own(&this, Stay::Serving, &[10080, 10443], &mut slices), both);
        let leaving = ["10.0.0.1 10080: serving terminating", "fd00::1 10080: serving terminating"];
        assert_eq!(own(&this, Stay::Leaving, &[10080], &mut slices), leaving);
        assert_eq!(own(&this, Stay::Gone, &[10080], &mut slices), ["delete 10.0.0.1", "delete fd00::1"]);
    }

    #[test]
    fn clients_of_a_gateway_are_not_sent_to_a_port_that_another_is_served_at() {
        let (wants, services) = world();
        let bound = Bound::from([(10080, ObjectKey::new("other", "web")), (10443, ObjectKey::new("ns", "web"))]);
        let this = pod("a", true);
        let steps =
            of_this_pod(&Own { pod: &this, stay: Stay::Serving, bound: &bound }, &wants, &services, &Slices::new());
        let ports: Vec<_> = steps
            .iter()
            .map(|step| match &step.call {
                Call::Apply(object) => object["ports"].to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(ports.len() == 2 && ports.iter().all(|ports| ports.contains("10443") && !ports.contains("10080")));
    }

    #[test]
    fn each_slice_belongs_to_its_service_and_names_its_pod() {
        let mut slices = Slices::new();
        own(&pod("a", true), Stay::Serving, &[10080], &mut slices);
        let slice = &slices.values().find(|slice| slice.whole["addressType"] == "IPv6").unwrap().whole;
        let labels = &slice["metadata"]["labels"];
        assert_eq!(labels["kubernetes.io/service-name"], "web-c");
        assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "s");
        assert_eq!(slice["endpoints"][0]["targetRef"]["name"], "portico-a");
        assert_eq!(slice["endpoints"][0]["nodeName"], "n");
        assert_eq!(slice["ports"], json!([{"name": "tcp-80", "port": 10080, "protocol": "TCP"}]));
    }

    #[test]
    fn the_leader_looks_after_the_slices_of_pods_that_cannot() {
        let (wants, services) = world();
        let mut slices = Slices::new();
        let mut other = pod("b", true);
        other.ips.truncate(1);
        own(&other, Stay::Serving, &[10080], &mut slices);
        let mut judge = |pods: &[&Pod], namespace: &str, own: &str| {
            let pods: Pods = pods.iter().map(|&pod| (pod.key.clone(), Arc::new(pod.clone()))).collect();
            settle(&mut slices, |slices| of_other_pods(namespace, own, &pods, &services, slices))
        };
        assert_eq!(judge(&[&other], "portico-system", NOBODY), [""; 0]);
        assert_eq!(judge(&[], "elsewhere", NOBODY), [""; 0], "Pods of another Portico");
        assert_eq!(judge(&[], "portico-system", "b"), [""; 0], "its own are not judged here");
        let dead = Pod { ready: false, ..other.clone() };
        assert_eq!(judge(&[&dead], "portico-system", NOBODY), ["10.0.0.1 10080: "]);
        assert_eq!(judge(&[&other], "portico-system", NOBODY), [""; 0], "it says itself when it is ready again");
        // Which it does; until its Pod is told to stop.
        let bound = Bound::from([(10080, ObjectKey::new("ns", "web"))]);
        let back = Own { pod: &other, stay: Stay::Serving, bound: &bound };
        settle(&mut slices, |slices| of_this_pod(&back, &wants, &services, slices));
        let mut judge = |pod: Option<&Pod>| {
            let pods: Pods = pod.into_iter().map(|pod| (pod.key.clone(), Arc::new(pod.clone()))).collect();
            settle(&mut slices, |slices| of_other_pods("portico-system", NOBODY, &pods, &services, slices))
        };
        assert_eq!(judge(Some(&Pod { leaving: true, ..other.clone() })), ["10.0.0.1 10080: serving terminating"]);
        assert_eq!(judge(Some(&Pod { uid: "c".to_owned(), ..other })), ["delete 10.0.0.1"], "another Pod of that name");
    }
}
