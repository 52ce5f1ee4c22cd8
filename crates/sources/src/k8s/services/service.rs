//! The Service of a Gateway: the desired object, and the parsed existing one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{DesiredService, GatewayExposure, names, ports};
use crate::api::core::ServiceType;
use crate::api::names::{CONTROLLER_ANNOTATION, GATEWAY_CLASS_LABEL, GATEWAY_NAME_LABEL, MANAGED_BY, MANAGED_BY_LABEL};
use crate::api::portico::GatewayServiceSettings;
use crate::api::{Kind, ObjectKey};
use crate::transport_protocol::{TransportPort, TransportProtocol};

/// The part of a Service that is used.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KnownService {
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    /// Seconds since 1970.
    pub(super) created: i64,
    pub(super) owner: OwnerGateway,
    /// The controller name of the installation that created it.
    pub(super) controller: Option<String>,
    /// Whether it is being deleted.
    pub(super) terminating: bool,
    pub(super) headless: bool,
    pub(super) service_type: Option<ServiceType>,
    /// The target port of each port.
    pub(super) ports: BTreeMap<TransportPort, u16>,
    /// The cluster IPs, for clients within the cluster.
    pub(super) cluster_ips: Vec<String>,
    /// The IP addresses or hostnames of its load balancer.
    pub(super) ingress: Vec<String>,
    /// The complete object, to compare with the desired one.
    pub(super) object: Value,
}

/// The Gateway that owns an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnerGateway {
    pub(super) gateway: ObjectKey,
    pub(super) uid: Arc<str>,
}

impl KnownService {
    /// None if Portico did not make the Service for a Gateway.
    pub(super) fn read(service: &Service) -> Option<KnownService> {
        let meta = &service.metadata;
        let spec = service.spec.as_ref();
        let spec_ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let ports = spec_ports.iter().filter_map(|port| {
            let Some(IntOrString::Int(target)) = &port.target_port else { return None };
            // Users who may edit Services must not choose arbitrary ports for Portico to listen on.
            let target = u16::try_from(*target).ok().filter(|target| ports::POD_PORT_RANGE.contains(target))?;
            let transport = TransportProtocol::from_field(port.protocol.as_deref())?;
            Some((TransportPort { transport, number: u16::try_from(port.port).ok()? }, target))
        });
        let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
        let cluster_ips = spec.and_then(|spec| spec.cluster_ips.clone()).unwrap_or_default();
        Some(KnownService {
            key: ObjectKey::new(meta.namespace.as_deref()?, meta.name.as_deref()?),
            uid: meta.uid.clone()?,
            created: meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            owner: owner(meta, Kind::Gateway).map(|(gateway, uid)| OwnerGateway { gateway, uid })?,
            controller: meta
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(CONTROLLER_ANNOTATION).cloned()),
            terminating: meta.deletion_timestamp.is_some(),
            headless: cluster_ips.iter().any(|ip| ip == "None"),
            service_type: spec.and_then(|spec| spec.type_.as_deref()).and_then(ServiceType::from_name),
            ports: ports.collect(),
            cluster_ips: cluster_ips.into_iter().filter(|ip| ip != "None" && !ip.is_empty()).collect(),
            ingress: ingress.iter().filter_map(|entry| entry.ip.clone().or_else(|| entry.hostname.clone())).collect(),
            object: serde_json::to_value(service).ok()?,
        })
    }
}

/// The key and uid of the object of this kind for which Portico made an object; None if it did not.
pub(super) fn owner(meta: &ObjectMeta, kind: Kind) -> Option<(ObjectKey, Arc<str>)> {
    if meta.labels.as_ref()?.get(MANAGED_BY_LABEL).map(String::as_str) != Some(MANAGED_BY) {
        return None;
    }
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let owner = owners.iter().find(|owner| {
        let group = owner.api_version.split_once('/').map(|(group, _)| group);
        owner.controller == Some(true) && owner.kind == kind.name() && group == Some(kind.group())
    })?;
    Some((ObjectKey::new(meta.namespace.as_deref()?, &owner.name), Arc::from(&*owner.uid)))
}

/// The Service that a Gateway needs. `ports` holds the target of each port.
pub(super) fn desired_service(
    gateway: &ObjectKey,
    desired: &DesiredService,
    name: &str,
    exposure: GatewayExposure,
    ports: &BTreeMap<TransportPort, u16>,
) -> Value {
    let mut labels = desired.labels.clone();
    // Set after the labels of `spec.infrastructure`, so that users cannot change the labels that Portico selects by.
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    labels.insert(GATEWAY_NAME_LABEL.to_owned(), names::label_value(&gateway.name));
    labels.insert(GATEWAY_CLASS_LABEL.to_owned(), names::label_value(&desired.class));
    let mut annotations = desired.annotations.clone();
    annotations.insert(CONTROLLER_ANNOTATION.to_owned(), desired.controller.clone());
    let metadata = json!({
        "name": name,
        "namespace": &*gateway.namespace,
        "labels": labels,
        "annotations": annotations,
        "ownerReferences": [{
            // For garbage collection. blockOwnerDeletion is not set: it needs a permission and would delay the deletion
            // of a Gateway.
            "apiVersion": format!("{}/{}", Kind::Gateway.group(), Kind::Gateway.versions()[0]),
            "kind": Kind::Gateway.name(),
            "name": &*gateway.name,
            "uid": &*desired.uid,
            "controller": true,
        }],
    });
    let spec = match desired.exposure(exposure) {
        GatewayExposure::Headless => json!({"clusterIP": "None"}),
        GatewayExposure::Exposed(kind) => {
            let ports = ports.iter().map(|(port, target)| {
                let TransportPort { transport, number } = *port;
                let protocol = transport.name();
                let mut entry =
                    json!({"name": port_name(*port), "port": number, "protocol": protocol, "targetPort": target});
                let node_port = desired.settings.node_port(number);
                if let Some(node_port) = node_port.filter(|_| kind != ServiceType::ClusterIp) {
                    entry["nodePort"] = json!(node_port);
                }
                entry
            });
            let mut spec = json!({
                "type": kind.name(),
                "ipFamilyPolicy": "PreferDualStack",
                "ports": ports.collect::<Vec<_>>(),
            });
            if let Some(address) = desired.address.filter(|_| kind == ServiceType::LoadBalancer) {
                spec["loadBalancerIP"] = json!(address);
            }
            add_settings(&mut spec, &desired.settings, kind);
            spec
        }
    };
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

/// Adds the settings that a Service of this type has. The API server rejects the others.
fn add_settings(spec: &mut Value, settings: &GatewayServiceSettings, kind: ServiceType) {
    let without_effect = settings.fields_without_effect(kind);
    let mut add = |field: &'static str, value: Option<Value>| {
        if let Some(value) = value.filter(|_| !without_effect.contains(&field)) {
            spec[field] = value;
        }
    };
    add("externalTrafficPolicy", settings.external_traffic_policy.as_ref().map(|policy| json!(policy)));
    add("internalTrafficPolicy", settings.internal_traffic_policy.as_ref().map(|policy| json!(policy)));
    add("loadBalancerClass", settings.load_balancer_class.as_ref().map(|class| json!(class)));
    // An empty list would be the same as an absent one, except that the API server does not return it.
    let ranges = settings.load_balancer_source_ranges.as_ref().filter(|ranges| !ranges.is_empty());
    add("loadBalancerSourceRanges", ranges.map(|ranges| json!(ranges)));
    add("allocateLoadBalancerNodePorts", settings.allocate_load_balancer_node_ports.map(|allocate| json!(allocate)));
}

/// The name that links a port of a Service to its EndpointSlices.
pub(super) fn port_name(port: TransportPort) -> String {
    match port.transport {
        TransportProtocol::Tcp => format!("tcp-{}", port.number),
        TransportProtocol::Udp => format!("udp-{}", port.number),
    }
}

/// Where clients reach a Service of a type. `nodes` are the addresses of the nodes that have ready endpoints of the
/// Service.
pub(super) fn addresses(known: &KnownService, kind: ServiceType, nodes: &[IpAddr]) -> Vec<String> {
    let mut addresses = match kind {
        ServiceType::LoadBalancer => known.ingress.clone(),
        ServiceType::NodePort => nodes.iter().map(IpAddr::to_string).collect(),
        ServiceType::ClusterIp => known.cluster_ips.clone(),
    };
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

/// The limit of `status.addresses` of a Gateway.
const MAX_ADDRESSES: usize = 16;
