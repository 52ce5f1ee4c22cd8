//! Endpoints of an upstream from its Service and EndpointSlices, in an order that does not depend on theirs.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::super::forbidden_addresses::ForbiddenAddresses;
use super::super::ingress::policy;
use super::super::ingress::policy_conflicts::PolicyConflicts;
use super::is_tcp;
use crate::api::core::{Endpoint, EndpointPort, EndpointSlice, IntOrString, Service, ServicePort};
use crate::api::names::{ADDRESS_ANNOTATION, BALANCE_ANNOTATION};
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::store::Store;
use crate::upstream::{EndpointAddress, Endpoints, LoadBalancing, UpstreamKey};

/// The current endpoints of an upstream. Empty for a Service or port that does not exist.
pub(in crate::compile) fn build(
    store: &Store,
    key: &UpstreamKey,
    forbidden: &ForbiddenAddresses,
    conflicts: &PolicyConflicts,
) -> Endpoints {
    let service = ObjectKey { namespace: key.namespace.clone(), name: key.service.clone() };
    let Some(service) = store.services.get(&service) else { return Endpoints::default() };
    let port = service.spec.ports.iter().find(|port| port.port == i32::from(key.port) && is_tcp(port));
    let Some(port) = port else { return Endpoints::default() };
    let mut addresses =
        if key.via_cluster_ip { cluster_ip_address(service, port) } else { configured_addresses(store, service, port) };
    addresses.retain(|address| !forbidden.contains(&key.namespace, address));
    addresses.sort();
    addresses.dedup();
    let facade = key.facade.as_ref().map(|name| ObjectKey { namespace: key.namespace.clone(), name: name.clone() });
    let facade = facade.and_then(|key| store.kong_service_facades.get(&key)).map(|facade| &facade.meta);
    let source = facade.unwrap_or(&service.meta);
    let agrees = facade.is_some() || conflicts.for_service(&service.meta.key).is_none();
    let balance = annotated_balance(source).ok().flatten().or_else(|| policy::balance(store, source, agrees));
    Endpoints { addresses, balance: balance.unwrap_or_default() }
}

/// The address of the Service itself, which balances the load by itself. Outside of a cluster, a Service has one only
/// if the annotation gives it.
fn cluster_ip_address(service: &Object<Service>, port: &ServicePort) -> Vec<EndpointAddress> {
    if let Some(written) = service.meta.annotations.get(ADDRESS_ANNOTATION) {
        return parse_addresses(service, port, written).unwrap_or_default();
    }
    if service.spec.kind.as_deref() == Some("ExternalName") {
        return external_name(service, port);
    }
    let ObjectKey { namespace, name: service } = &service.meta.key;
    let number = u16::try_from(port.port).unwrap_or_default();
    parse_host_name(&format!("{service}.{namespace}.svc"), number).into_iter().collect()
}

/// Whether the Service has no ClusterIP: its name resolves to its endpoints, which listen on their own ports.
pub(in crate::compile) fn is_headless(service: &Service) -> bool {
    service.spec.cluster_ip.as_deref() == Some("None") && service.spec.kind.as_deref() != Some("ExternalName")
}

/// The addresses that the objects contain, without checking whether they are allowed.
fn configured_addresses(store: &Store, service: &Object<Service>, port: &ServicePort) -> Vec<EndpointAddress> {
    if let Some(written) = service.meta.annotations.get(ADDRESS_ANNOTATION) {
        parse_addresses(service, port, written).unwrap_or_default()
    } else if service.spec.kind.as_deref() == Some("ExternalName") {
        external_name(service, port)
    } else {
        slice_endpoints(store, &service.meta.key, port)
    }
}

/// Notes on the endpoints of a Service. `via_cluster_ip`: whether all requests go to its ClusterIP instead.
pub(in crate::compile) fn notes(
    store: &Store,
    service: &Object<Service>,
    forbidden: &ForbiddenAddresses,
    conflicts: &PolicyConflicts,
    via_cluster_ip: bool,
) -> Vec<Diagnostic> {
    let annotation = format!("metadata.annotations[{ADDRESS_ANNOTATION}]");
    let ObjectKey { namespace, name } = &service.meta.key;
    let mut notes = Vec::new();
    for (index, port) in service.spec.ports.iter().enumerate().filter(|(_, port)| is_tcp(port)) {
        let written = configured_addresses(store, service, port);
        let field = format!("spec.ports[{index}]");
        let hosts = if service.meta.annotations.contains_key(ADDRESS_ANNOTATION) {
            &*annotation
        } else if service.spec.kind.as_deref() == Some("ExternalName") {
            "spec.externalName"
        } else {
            &*field
        };
        if let Some(problem) = forbidden.problem(namespace, hosts, &field, &written).map(Diagnostic::into_warning) {
            // Report once per Service, also if it has many ports.
            if !notes.contains(&problem) {
                notes.push(problem);
            }
            continue;
        }
        if let Some(written) = service.meta.annotations.get(ADDRESS_ANNOTATION) {
            if let Err(problem) = parse_addresses(service, port, written) {
                notes.push(problem.at(annotation.clone()).into_warning());
            }
            continue;
        }
        let Ok(number) = u16::try_from(port.port) else { continue };
        let key =
            UpstreamKey { namespace: namespace.clone(), service: name.clone(), port: number, ..UpstreamKey::default() };
        if !via_cluster_ip && build(store, &key, forbidden, conflicts).addresses.is_empty() {
            notes.push(Diagnostic::warning(
                field,
                format!("port {number} has no ready endpoint, so requests to it get status 503"),
                "add an EndpointSlice with label kubernetes.io/service-name and a port of the same name",
            ));
        }
    }
    notes
}

/// The annotated load-balancing algorithm, or a note that the value is unknown and therefore ignored.
pub(in crate::compile) fn annotated_balance(service: &Meta) -> Result<Option<LoadBalancing>, Diagnostic> {
    match service.annotations.get(BALANCE_ANNOTATION).map(|written| &**written) {
        None => Ok(None),
        Some("round-robin") => Ok(Some(LoadBalancing::RoundRobin)),
        Some("least-requests") => Ok(Some(LoadBalancing::LeastRequests)),
        Some(other) => Err(Diagnostic::error(
            format!("metadata.annotations[{BALANCE_ANNOTATION}]"),
            format!("{other:?} is not a load-balancing algorithm, so round-robin is used"),
            "write round-robin or least-requests",
        )),
    }
}

/// Addresses in the annotation: `host:port` for a Service with one port; otherwise hosts, with the numeric target port.
fn parse_addresses(service: &Service, port: &ServicePort, written: &str) -> Result<Vec<EndpointAddress>, Diagnostic> {
    let problem = |message: String, remedy: &str| Err(Diagnostic::of_object(message, remedy));
    let mut addresses = Vec::new();
    for entry in written.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        if let Ok(address) = entry.parse::<SocketAddr>() {
            addresses.push((EndpointAddress::Ip(address), true));
        } else if let Ok(ip) = entry.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            addresses.push((EndpointAddress::Ip(SocketAddr::new(ip, target_port(port)?)), false));
        } else if let Some((host, number)) = entry.rsplit_once(':') {
            let Ok(number) = number.parse() else {
                return problem(
                    format!("{entry:?} has no port number after the colon"),
                    "write it like backend.example:8080",
                );
            };
            addresses.push((parse_host_name(host, number)?, true));
        } else {
            addresses.push((parse_host_name(entry, target_port(port)?)?, false));
        }
    }
    if addresses.is_empty() {
        return problem(
            "the annotation has no address".to_owned(),
            "write it like 127.0.0.1:9000, or remove the annotation",
        );
    }
    if service.spec.ports.len() > 1 && addresses.iter().any(|(_, with_port)| *with_port) {
        let remedy = "omit the port; the targetPort of each Service port is used";
        return problem("an address with a port needs a Service with exactly one port".to_owned(), remedy);
    }
    Ok(addresses.into_iter().map(|(address, _)| address).collect())
}

fn parse_host_name(host: &str, port: u16) -> Result<EndpointAddress, Diagnostic> {
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if host.len() <= 253 && host.split('.').all(label) {
        Ok(EndpointAddress::Name { host: Arc::from(host.to_ascii_lowercase()), port })
    } else {
        let message = format!("{host:?} is neither an IP address nor a host name");
        Err(Diagnostic::of_object(message, "write it like 127.0.0.1:9000 or backend.example:8080"))
    }
}

fn target_port(port: &ServicePort) -> Result<u16, Diagnostic> {
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let message = format!("targetPort {name:?} is a name, but an address without a port needs a number");
            return Err(Diagnostic::of_object(message, "set targetPort to a number, or write host:port"));
        }
    };
    Ok(u16::try_from(number).unwrap_or_default())
}

fn external_name(service: &Service, port: &ServicePort) -> Vec<EndpointAddress> {
    let Some(host) = service.spec.external_name.as_deref() else { return Vec::new() };
    let number = target_port(port).unwrap_or_else(|_| u16::try_from(port.port).unwrap_or_default());
    match host.parse::<IpAddr>() {
        Ok(ip) => vec![EndpointAddress::Ip(SocketAddr::new(ip, number))],
        Err(_) => parse_host_name(host.trim_end_matches('.'), number).into_iter().collect(),
    }
}

/// Ready endpoints or, if there are none, terminating endpoints that still serve.
fn slice_endpoints(store: &Store, service: &ObjectKey, port: &ServicePort) -> Vec<EndpointAddress> {
    let id = ObjectId::new(Kind::Service, service.clone());
    let slices: Vec<_> = store
        .dependency_index()
        .dependents(&id)
        .filter(|id| id.kind == Kind::EndpointSlice)
        .filter_map(|id| store.endpoint_slices.get(&id.key))
        .collect();
    let select = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<EndpointAddress> {
        slices.iter().flat_map(|slice| slice_addresses(slice, port, wanted)).collect()
    };
    let ready = select(&|endpoint| endpoint.conditions.ready != Some(false));
    if !ready.is_empty() {
        return ready;
    }
    select(&|endpoint| endpoint.conditions.serving == Some(true) && endpoint.conditions.terminating == Some(true))
}

fn slice_addresses(
    slice: &EndpointSlice,
    port: &ServicePort,
    wanted: &dyn Fn(&Endpoint) -> bool,
) -> Vec<EndpointAddress> {
    let is_port = |candidate: &&EndpointPort| {
        candidate.name.as_deref().unwrap_or_default() == port.name
            && candidate.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
    };
    let number = slice.ports.iter().flatten().find(is_port).and_then(|port| u16::try_from(port.port?).ok());
    let Some(number) = number else { return Vec::new() };
    let addresses = |endpoint: &Endpoint| {
        let parse = |text: &String| match &*slice.address_type {
            "FQDN" => parse_host_name(text, number).ok(),
            _ => text.parse::<IpAddr>().ok().map(|ip| EndpointAddress::Ip(SocketAddr::new(ip, number))),
        };
        // EndpointSlice API: all addresses of an endpoint are interchangeable, and consumers use the first.
        endpoint.addresses.first().and_then(parse)
    };
    slice.endpoints.iter().flatten().filter(|endpoint| wanted(endpoint)).filter_map(addresses).collect()
}
