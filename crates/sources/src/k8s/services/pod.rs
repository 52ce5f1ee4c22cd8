//! Pods of Portico: their addresses, and whether clients should be sent to them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1;

use crate::api::ObjectKey;

/// The part of a Pod that is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReplicaPod {
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    pub(super) ips: Vec<IpAddr>,
    /// Addresses of its node.
    pub(super) host_ips: Vec<IpAddr>,
    pub(super) node: Option<String>,
    /// The labels of its template. Replicas have the same ones.
    pub(super) labels: BTreeMap<String, String>,
    /// Whether ports of its node lead to it.
    pub(super) has_host_ports: bool,
    pub(super) ready: bool,
    /// Whether it is being deleted.
    pub(super) terminating: bool,
    /// Whether none of its containers will run again.
    pub(super) finished: bool,
}

impl ReplicaPod {
    /// None if the object has no name, namespace or uid.
    pub(super) fn read(pod: &v1::Pod) -> Option<ReplicaPod> {
        let meta = &pod.metadata;
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let ips = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
        let host_ips = status.and_then(|status| status.host_ips.as_deref()).unwrap_or_default();
        // A kubelet without dual-stack support sets only the field for a single address.
        let parse_single = |ip: Option<&String>| ip.and_then(|ip| ip.parse().ok()).into_iter().collect::<Vec<IpAddr>>();
        let containers = pod.spec.as_ref().map_or(&[][..], |spec| &spec.containers);
        let mut ports = containers.iter().flat_map(|container| container.ports.as_deref().unwrap_or_default());
        let mut labels = meta.labels.clone().unwrap_or_default();
        labels.retain(|label, _| !LABELS_OF_REVISIONS.contains(&label.as_str()));
        let mut replica = ReplicaPod {
            key: ObjectKey::new(meta.namespace.as_deref()?, meta.name.as_deref()?),
            uid: meta.uid.clone()?,
            ips: ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect(),
            host_ips: host_ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            labels,
            has_host_ports: ports.any(|port| port.host_port.is_some()),
            ready: conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            terminating: meta.deletion_timestamp.is_some(),
            finished: matches!(phase, "Succeeded" | "Failed"),
        };
        if replica.ips.is_empty() {
            replica.ips = parse_single(status.and_then(|status| status.pod_ip.as_ref()));
        }
        if replica.host_ips.is_empty() {
            replica.host_ips = parse_single(status.and_then(|status| status.host_ip.as_ref()));
        }
        Some(replica)
    }

    /// The addresses at which clients reach its listeners without a Service. On the host's network, the addresses of
    /// the Pod are those of its node.
    pub(super) fn client_ips(&self) -> &[IpAddr] {
        if self.has_host_ports { &self.host_ips } else { &self.ips }
    }

    /// Whether clients should be sent to it.
    pub(super) fn is_available(&self) -> bool {
        self.ready && !self.terminating && !self.finished
    }
}

/// Labels that differ between Pods of one workload, or between its revisions.
const LABELS_OF_REVISIONS: &[&str] = &[
    "app.kubernetes.io/version",
    "helm.sh/chart",
    "apps.kubernetes.io/pod-index",
    "controller-revision-hash",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_and_state_of_a_pod_are_read() {
        let read = |status| {
            let metadata = json!({"namespace": "portico-system", "name": "portico-1", "uid": "u"});
            let pod = json!({"metadata": metadata, "spec": {"nodeName": "n", "containers": []}, "status": status});
            ReplicaPod::read(&serde_json::from_value(pod).unwrap()).unwrap()
        };
        let dual = read(json!({
            "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "hostIP": "192.0.2.1", "hostIPs": [{"ip": "192.0.2.1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }));
        let ips: Vec<_> = dual.ips.iter().chain(&dual.host_ips).map(ToString::to_string).collect();
        assert_eq!(ips, ["10.0.0.1", "fd00::1", "192.0.2.1"]);
        assert!(dual.is_available() && dual.node.as_deref() == Some("n"));
        let mut mapped = dual.clone();
        mapped.has_host_ports = true;
        assert_eq!((dual.client_ips(), mapped.client_ips()), (&dual.ips[..], &dual.host_ips[..]));
        let single = read(json!({"podIP": "10.0.0.1", "hostIP": "192.0.2.1"}));
        assert_eq!((single.ips.len(), single.host_ips.len(), single.is_available()), (1, 1, false));
        let failed = read(json!({"phase": "Failed", "conditions": [{"type": "Ready", "status": "True"}]}));
        assert!(failed.finished && !failed.is_available() && failed.ips.is_empty());
    }
}
