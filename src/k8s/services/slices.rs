//! Which Pods a Gateway's Service leads to. Each Pod writes its own EndpointSlices, since it alone knows which ports it
//! has bound, and marks them when it leaves.
//!
//! A Pod that died cannot do that, and its slices cannot be owned by it, since owners are in the namespace of what they
//! own. So the replica that leads looks after them: it removes those of Pods that are gone, and marks those of Pods that
//! are not ready. It never marks one as ready, and a Pod does so only while its own Pod object is: both judge by the same
//! object, so that they do not write over each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

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
    uid: String,
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
    /// The ports that it listens on.
    pub(super) bound: &'a BTreeSet<u16>,
}

/// What has to be done about the slices of this Pod.
pub(super) fn of_this_pod(own: &Own<'_>, wants: &Wants, services: &Services, slices: &Slices) -> Vec<Step> {
    let mut wanted = BTreeMap::new();
    for service in services.values().filter(|service| service.serves(wants)) {
        let sent = service.ports.iter().filter(|(_, target)| own.bound.contains(target));
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
