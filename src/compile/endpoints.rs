//! Endpoints of an upstream: what its Service and EndpointSlices say, in an order that does not depend on theirs.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::backends::is_tcp;
use super::forbidden::Forbidden;
use super::ingress::disagreements::Disagreements;
use super::ingress::service_settings::Speech;
use super::ingress::{policy, service_settings, upstream_tls};
use super::verdict::Problem;
use crate::api::core::{Endpoint, EndpointPort, EndpointSlice, IntOrString, Service, ServicePort};
use crate::api::kong::annotations::SERVICE_UPSTREAM;
use crate::api::names::{ADDRESS_ANNOTATION, BALANCE_ANNOTATION};
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};
use crate::store::Store;
use crate::upstream::{Address, Balance, Endpoints, UpstreamKey};

/// Where requests for this upstream may be sent now. None for a Service or port that does not exist.
pub(super) fn of(store: &Store, key: &UpstreamKey, forbidden: &Forbidden, disagreements: &Disagreements) -> Endpoints {
    let service = ObjectKey { namespace: key.namespace.clone(), name: key.service.clone() };
    let Some(service) = store.services.get(&service) else { return Endpoints::default() };
    let port = service.spec.ports.iter().find(|port| port.port == i32::from(key.port) && is_tcp(port));
    let Some(port) = port else { return Endpoints::default() };
    let mut addresses = if key.whole { whole(service, port) } else { written_down(store, service, port) };
    addresses.retain(|address| !forbidden.contains(&key.namespace, address));
    addresses.sort();
    addresses.dedup();
    let facade = key.facade.as_ref().map(|name| ObjectKey { namespace: key.namespace.clone(), name: name.clone() });
    let facade = facade.and_then(|key| store.kong_service_facades.get(&key)).map(|facade| &facade.meta);
    let speaks = facade.unwrap_or(&service.meta);
    let agrees = facade.is_some() || disagreements.of(&service.meta.key).is_none();
    let balance = balance(speaks).ok().flatten().or_else(|| policy::balance(store, speaks, agrees));
    Endpoints { addresses, balance: balance.unwrap_or_default() }
}

/// The address of the Service, which shares requests out by itself. Outside of a cluster it has one only if that is
/// written down.
fn whole(service: &Object<Service>, port: &ServicePort) -> Vec<Address> {
    if let Some(written) = service.meta.annotations.get(ADDRESS_ANNOTATION) {
        return written_addresses(service, port, written).unwrap_or_default();
    }
    if service.spec.kind.as_deref() == Some("ExternalName") {
        return external_name(service, port);
    }
    let ObjectKey { namespace, name: service } = &service.meta.key;
    let number = u16::try_from(port.port).unwrap_or_default();
    name(&format!("{service}.{namespace}.svc"), number).into_iter().collect()
}

/// Whether the Service has no address of its own: its name leads to its endpoints, which listen on ports of their own.
pub(super) fn is_headless(service: &Service) -> bool {
    service.spec.cluster_ip.as_deref() == Some("None") && service.spec.kind.as_deref() != Some("ExternalName")
}

/// What the objects say, wherever that may lead.
fn written_down(store: &Store, service: &Object<Service>, port: &ServicePort) -> Vec<Address> {
    if let Some(written) = service.meta.annotations.get(ADDRESS_ANNOTATION) {
        written_addresses(service, port, written).unwrap_or_default()
    } else if service.spec.kind.as_deref() == Some("ExternalName") {
        external_name(service, port)
    } else {
        slices(store, &service.meta.key, port)
    }
}

/// What there is to say about a Service's endpoints.
pub(super) fn notes(
    store: &Store,
    service: &Object<Service>,
    forbidden: &Forbidden,
    disagreements: &Disagreements,
) -> Vec<Problem> {
    let annotation = format!("metadata.annotations[{ADDRESS_ANNOTATION}]");
    let ObjectKey { namespace, name } = &service.meta.key;
    let mut notes: Vec<_> = balance(&service.meta).err().into_iter().collect();
    let tls_port = service.spec.ports.iter().any(upstream_tls::is_tls_port);
    let settings = service_settings::read(&service.meta, "a Service", tls_port);
    notes.extend(settings.notes);
    if settings.whole && is_headless(service) {
        notes.push(Problem::new(
            format!("metadata.annotations[{SERVICE_UPSTREAM}]"),
            "a Service whose clusterIP is None has no address of its own, so requests go to its endpoints",
            "remove the annotation, or give the Service an address by leaving clusterIP out",
        ));
    }
    if settings.protocol.map_or(tls_port, Speech::is_tls) {
        notes.extend(upstream_tls::notes(store, &service.meta, &settings.tls));
    }
    notes.extend(policy::notes(store, &service.meta));
    notes.extend(disagreements.of(&service.meta.key));
    for (index, port) in service.spec.ports.iter().enumerate().filter(|(_, port)| is_tcp(port)) {
        let written = written_down(store, service, port);
        let field = format!("spec.ports[{index}]");
        let hosts = if service.meta.annotations.contains_key(ADDRESS_ANNOTATION) {
            &*annotation
        } else if service.spec.kind.as_deref() == Some("ExternalName") {
            "spec.externalName"
        } else {
            &*field
        };
        if let Some(problem) = forbidden.problem(namespace, hosts, &field, &written) {
            // Of a Service of many ports once.
            if !notes.contains(&problem) {
                notes.push(problem);
            }
            continue;
        }
        if let Some(written) = service.meta.annotations.get(ADDRESS_ANNOTATION) {
            if let Err(problem) = written_addresses(service, port, written) {
                notes.push(Problem::new(annotation.clone(), problem.message, problem.remedy));
            }
            continue;
        }
        let Ok(number) = u16::try_from(port.port) else { continue };
        let key =
            UpstreamKey { namespace: namespace.clone(), service: name.clone(), port: number, ..UpstreamKey::default() };
        // Nobody asks for endpoints of a Service that is sent everything as a whole.
        if (!settings.whole || is_headless(service)) && of(store, &key, forbidden, disagreements).addresses.is_empty() {
            notes.push(Problem::new(
                field,
                format!("port {number} has no endpoint that is ready, so requests to it answer 503"),
                "add an EndpointSlice with label kubernetes.io/service-name and a port of the same name",
            ));
        }
    }
    notes
}

/// What the annotation says, or that it says nothing we know. Then it is as if it were not there.
fn balance(service: &Meta) -> Result<Option<Balance>, Problem> {
    match service.annotations.get(BALANCE_ANNOTATION).map(|written| &**written) {
        None => Ok(None),
        Some("round-robin") => Ok(Some(Balance::RoundRobin)),
        Some("least-requests") => Ok(Some(Balance::LeastRequests)),
        Some(other) => Err(Problem::new(
            format!("metadata.annotations[{BALANCE_ANNOTATION}]"),
            format!("{other:?} is no way to share requests, so each endpoint gets one in turn"),
            "write round-robin or least-requests",
        )),
    }
}

/// Addresses of the annotation: `host:port` for a Service of one port, else hosts, with the port's numeric target.
fn written_addresses(service: &Service, port: &ServicePort, written: &str) -> Result<Vec<Address>, Problem> {
    let problem = |message: String, remedy: &str| Err(Problem::new("", message, remedy));
    let mut addresses = Vec::new();
    for entry in written.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        if let Ok(address) = entry.parse::<SocketAddr>() {
            addresses.push((Address::Ip(address), true));
        } else if let Ok(ip) = entry.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            addresses.push((Address::Ip(SocketAddr::new(ip, target_port(port)?)), false));
        } else if let Some((host, number)) = entry.rsplit_once(':') {
            let Ok(number) = number.parse() else {
                return problem(
                    format!("{entry:?} has no port number after the colon"),
                    "write it like backend.example:8080",
                );
            };
            addresses.push((name(host, number)?, true));
        } else {
            addresses.push((name(entry, target_port(port)?)?, false));
        }
    }
    if addresses.is_empty() {
        return problem("no address is given".to_owned(), "write it like 127.0.0.1:9000, or remove the annotation");
    }
    if service.spec.ports.len() > 1 && addresses.iter().any(|(_, with_port)| *with_port) {
        let remedy = "leave the port out; the targetPort of each port is used";
        return problem("a port can be given only for a Service of one port".to_owned(), remedy);
    }
    Ok(addresses.into_iter().map(|(address, _)| address).collect())
}

fn name(host: &str, port: u16) -> Result<Address, Problem> {
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if host.len() <= 253 && host.split('.').all(label) {
        Ok(Address::Name { host: Arc::from(host.to_ascii_lowercase()), port })
    } else {
        let message = format!("{host:?} is neither an IP address nor a host name");
        Err(Problem::new("", message, "write it like 127.0.0.1:9000 or backend.example:8080"))
    }
}

fn target_port(port: &ServicePort) -> Result<u16, Problem> {
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let message = format!("targetPort {name:?} is a name, which says no number here");
            return Err(Problem::new("", message, "give targetPort as a number, or write host:port"));
        }
    };
    Ok(u16::try_from(number).unwrap_or_default())
}

fn external_name(service: &Service, port: &ServicePort) -> Vec<Address> {
    let Some(host) = service.spec.external_name.as_deref() else { return Vec::new() };
    let number = target_port(port).unwrap_or_else(|_| u16::try_from(port.port).unwrap_or_default());
    match host.parse::<IpAddr>() {
        Ok(ip) => vec![Address::Ip(SocketAddr::new(ip, number))],
        Err(_) => name(host.trim_end_matches('.'), number).into_iter().collect(),
    }
}

/// Ready endpoints; terminating ones that still serve, if there is no other.
fn slices(store: &Store, service: &ObjectKey, port: &ServicePort) -> Vec<Address> {
    let id = ObjectId::new(Kind::Service, service.clone());
    let slices: Vec<_> = store
        .refs()
        .dependents(&id)
        .filter(|id| id.kind == Kind::EndpointSlice)
        .filter_map(|id| store.endpoint_slices.get(&id.key))
        .collect();
    let select = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<Address> {
        slices.iter().flat_map(|slice| slice_addresses(slice, port, wanted)).collect()
    };
    let ready = select(&|endpoint| endpoint.conditions.ready != Some(false));
    if !ready.is_empty() {
        return ready;
    }
    select(&|endpoint| endpoint.conditions.serving == Some(true) && endpoint.conditions.terminating == Some(true))
}

fn slice_addresses(slice: &EndpointSlice, port: &ServicePort, wanted: &dyn Fn(&Endpoint) -> bool) -> Vec<Address> {
    let is_port = |candidate: &&EndpointPort| {
        candidate.name.as_deref().unwrap_or_default() == port.name
            && candidate.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
    };
    let number = slice.ports.iter().flatten().find(is_port).and_then(|port| u16::try_from(port.port?).ok());
    let Some(number) = number else { return Vec::new() };
    let addresses = |endpoint: &Endpoint| {
        let parse = |text: &String| match &*slice.address_type {
            "FQDN" => name(text, number).ok(),
            _ => text.parse::<IpAddr>().ok().map(|ip| Address::Ip(SocketAddr::new(ip, number))),
        };
        // Kubernetes: several addresses of one endpoint are the same endpoint, and the first is to be used.
        endpoint.addresses.first().and_then(parse)
    };
    slice.endpoints.iter().flatten().filter(|endpoint| wanted(endpoint)).filter_map(addresses).collect()
}
