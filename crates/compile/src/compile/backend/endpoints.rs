//! Builds the endpoints of an upstream, sorted, from its Service and EndpointSlices.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use super::endpoint_weights::endpoint_weights;
use super::forbidden_addresses::ForbiddenAddresses;
use super::locality::{self, LocalityScope, ProcessLocation, Proximity};
use super::traffic_distribution::TrafficDistribution;
use super::{has_any_port, numbered_port, unnamed_port};
use crate::api::core::{Endpoint, EndpointPort, EndpointSlice, IntOrString, Service, ServicePort};
use crate::api::gateway::XBackend;
use crate::api::names::{ADDRESS_ANNOTATION, BALANCE_ANNOTATION, ENTITY_NAME_ANNOTATION, x_backend_service_name};
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};
use crate::diagnostic::{Diagnostic, NO_ENDPOINT, Reason};
use crate::ssrf_guard::AddressSources;
use crate::store::Store;
use crate::transport_protocol::TransportProtocol;
use crate::upstream::settings::{Balancing, BalancingAlgorithm};
use crate::upstream::{BackendTraffic, EndpointAddress, EndpointIdentities, Endpoints, UpstreamKey, UpstreamSource};

/// The current endpoints of an upstream. Empty for a Service or port that does not exist.
pub(in crate::compile) fn build(
    store: &Store,
    key: &UpstreamKey,
    forbidden: &ForbiddenAddresses,
    location: &ProcessLocation,
    balance: Balancing,
    traffic: BackendTraffic,
) -> Endpoints {
    let scope = LocalityScope { location, failover: &balance.locality.failover };
    let endpoints = configured_endpoints(store, key, forbidden, scope).unwrap_or_default();
    let object = ObjectKey { namespace: key.namespace.clone(), name: key.service.clone() };
    let pod = |endpoint: &ConfiguredEndpoint| match endpoint.address {
        EndpointAddress::Ip(address) => Some((address, endpoint.pod.clone()?)),
        EndpointAddress::Name { .. } => None,
    };
    let identities = EndpointIdentities {
        service: match key.source {
            UpstreamSource::Service => store.services.get(&object).and_then(|service| service.meta.uid.clone()),
            UpstreamSource::XBackend => store.x_backends.get(&object).and_then(|backend| backend.meta.uid.clone()),
        },
        pods: endpoints.iter().filter_map(pod).collect(),
    };
    let near = |endpoint: &ConfiguredEndpoint| match endpoint.address {
        EndpointAddress::Ip(address) => Some((address, endpoint.proximity)),
        EndpointAddress::Name { .. } => None,
    };
    let distribution = match key.source {
        UpstreamSource::Service => store
            .services
            .get(&object)
            .and_then(|service| TrafficDistribution::of(service, &slices_of(store, &service.meta.key))),
        UpstreamSource::XBackend => None,
    };
    let levels =
        locality::levels(balance.locality.mode, distribution, &endpoints.iter().filter_map(near).collect::<Vec<_>>());
    // A list of exactly this capacity: collecting in place would keep the larger memory of `endpoints`.
    let mut addresses = Vec::with_capacity(endpoints.len());
    addresses.extend(endpoints.into_iter().map(|endpoint| endpoint.address));
    let unready = unready_addresses(store, key, forbidden);
    let weights = match key.source {
        UpstreamSource::Service => store.services.get(&object).and_then(|service| endpoint_weights(&service.meta).ok()),
        UpstreamSource::XBackend => None,
    };
    let is_weighted =
        |(address, weight): &(EndpointAddress, u32)| *weight != 1 && addresses.binary_search(address).is_ok();
    let weights = weights.into_iter().flatten().filter(is_weighted).collect();
    Endpoints { addresses, unready, levels, weights, balance, identities, traffic }
}

/// An endpoint as its objects describe it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ConfiguredEndpoint {
    address: EndpointAddress,
    /// The UID of its Pod.
    pod: Option<Arc<str>>,
    proximity: Proximity,
}

impl From<EndpointAddress> for ConfiguredEndpoint {
    fn from(address: EndpointAddress) -> Self {
        ConfiguredEndpoint { address, pod: None, proximity: Proximity::default() }
    }
}

/// The current addresses of an upstream. `None` for a Service or port that does not exist.
pub(in crate::compile) fn addresses_of(
    store: &Store,
    key: &UpstreamKey,
    forbidden: &ForbiddenAddresses,
) -> Option<Vec<EndpointAddress>> {
    let endpoints = configured_endpoints(store, key, forbidden, LocalityScope::NOWHERE)?;
    Some(endpoints.into_iter().map(|endpoint| endpoint.address).collect())
}

/// The endpoints of an upstream, sorted by address. `None` for a Service or port that does not exist.
fn configured_endpoints(
    store: &Store,
    key: &UpstreamKey,
    forbidden: &ForbiddenAddresses,
    scope: LocalityScope<'_>,
) -> Option<Vec<ConfiguredEndpoint>> {
    let sources = forbidden.address_sources();
    let from_addresses =
        |addresses: Vec<EndpointAddress>| addresses.into_iter().map(ConfiguredEndpoint::from).collect();
    let mut endpoints: Vec<_> = match key.source {
        UpstreamSource::XBackend => {
            let backend = ObjectKey { namespace: key.namespace.clone(), name: key.service.clone() };
            x_backend_endpoints(store, store.x_backends.get(&backend)?, key.port, sources, scope)
        }
        UpstreamSource::Service => {
            let (service, port) = service_port(store, key)?;
            match key.via_cluster_ip {
                true => from_addresses(cluster_ip_address(service, &port, sources)),
                false => endpoints_of_port(store, service, &port, sources, scope),
            }
        }
    };
    endpoints.retain(|endpoint| !forbidden.contains(&key.namespace, &endpoint.address));
    endpoints.sort();
    endpoints.dedup_by(|second, first| second.address == first.address);
    Some(endpoints)
}

fn service_port<'s>(store: &'s Store, key: &UpstreamKey) -> Option<(&'s Object<Service>, Cow<'s, ServicePort>)> {
    let service = ObjectKey { namespace: key.namespace.clone(), name: key.service.clone() };
    let service = store.services.get(&service)?;
    Some((service, numbered_port(service, i32::from(key.port), key.transport)?))
}

/// The endpoints in EndpointSlices that are not ready. They include the terminating ones that are used while no other
/// is ready.
fn unready_addresses(store: &Store, key: &UpstreamKey, forbidden: &ForbiddenAddresses) -> Vec<SocketAddr> {
    let Some((service, port)) = sliced_port(store, key, forbidden.address_sources()) else { return Vec::new() };
    let is_unready = |endpoint: &Endpoint| endpoint.conditions.ready == Some(false);
    let slices = slices_of(store, &service);
    let endpoints =
        slices.into_iter().flat_map(|slice| selected_endpoints(slice, &port, LocalityScope::NOWHERE, &is_unready));
    let mut unready: Vec<_> = endpoints
        .map(|endpoint| endpoint.address)
        .filter(|address| !forbidden.contains(&key.namespace, address))
        .filter_map(|address| match address {
            EndpointAddress::Ip(address) => Some(address),
            EndpointAddress::Name { .. } => None,
        })
        .collect();
    unready.sort();
    unready.dedup();
    unready
}

/// The Service whose EndpointSlices contain the endpoints, and their port. `None` if no EndpointSlices do.
fn sliced_port<'s>(
    store: &'s Store,
    key: &UpstreamKey,
    sources: AddressSources,
) -> Option<(ObjectKey, Cow<'s, ServicePort>)> {
    match key.source {
        UpstreamSource::XBackend => {
            let backend = ObjectKey { namespace: key.namespace.clone(), name: key.service.clone() };
            let service = selecting_service(store.x_backends.get(&backend)?)?;
            Some((service, Cow::Owned(unnamed_port(i32::from(key.port), TransportProtocol::Tcp))))
        }
        UpstreamSource::Service => {
            let (service, port) = service_port(store, key).filter(|_| !key.via_cluster_ip)?;
            let is_sliced = annotated_hosts(service, sources).is_none() && !is_external_name(service);
            is_sliced.then(|| (service.meta.key.clone(), port))
        }
    }
}

/// The host outside of the cluster, or the endpoints of the Service that selects the Pods.
fn x_backend_endpoints(
    store: &Store,
    backend: &Object<XBackend>,
    port: u16,
    sources: AddressSources,
    scope: LocalityScope<'_>,
) -> Vec<ConfiguredEndpoint> {
    if let Some(host) = backend.spec.external_hostname.as_ref().filter(|_| sources.external_names) {
        return external_host(&host.hostname, port).into_iter().map(ConfiguredEndpoint::from).collect();
    }
    let Some(service) = selecting_service(backend) else { return Vec::new() };
    slice_endpoints(store, &service, &unnamed_port(i32::from(port), TransportProtocol::Tcp), scope)
}

/// The Service that selects the Pods of an XBackend.
fn selecting_service(backend: &Object<XBackend>) -> Option<ObjectKey> {
    backend.spec.pod_selector()?;
    let uid = backend.meta.uid.as_deref()?;
    Some(ObjectKey::new(&backend.meta.key.namespace, &x_backend_service_name(uid)))
}

/// A name that is not an IP address; `None` if it is not valid.
pub(super) fn external_host(host: &str, port: u16) -> Option<EndpointAddress> {
    external_address(host, port).filter(|address| matches!(address, EndpointAddress::Name { .. }))
}

/// The address of the Service itself, behind which the cluster's network balances the load. The address annotation, if
/// it is set, takes precedence: outside of a cluster, the name of a Service does not resolve.
fn cluster_ip_address(service: &Object<Service>, port: &ServicePort, sources: AddressSources) -> Vec<EndpointAddress> {
    if let Some(text) = annotated_hosts(service, sources) {
        return parse_addresses(service, port, text).unwrap_or_default();
    }
    if is_external_name(service) {
        return external_name(service, port, sources);
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
fn configured_addresses(
    store: &Store,
    service: &Object<Service>,
    port: &ServicePort,
    sources: AddressSources,
) -> Vec<EndpointAddress> {
    let endpoints = endpoints_of_port(store, service, port, sources, LocalityScope::NOWHERE);
    endpoints.into_iter().map(|endpoint| endpoint.address).collect()
}

fn endpoints_of_port(
    store: &Store,
    service: &Object<Service>,
    port: &ServicePort,
    sources: AddressSources,
    scope: LocalityScope<'_>,
) -> Vec<ConfiguredEndpoint> {
    let addresses = if let Some(text) = annotated_hosts(service, sources) {
        parse_addresses(service, port, text).unwrap_or_default()
    } else if is_external_name(service) {
        external_name(service, port, sources)
    } else {
        return slice_endpoints(store, &service.meta.key, port, scope);
    };
    addresses.into_iter().map(ConfiguredEndpoint::from).collect()
}

/// The address annotation of a Service, if it has an effect.
fn annotated_hosts(service: &Object<Service>, sources: AddressSources) -> Option<&str> {
    service.meta.annotations.get(ADDRESS_ANNOTATION).map(|text| &**text).filter(|_| sources.annotation)
}

/// Whether the Service may have a name outside of the cluster in place of endpoints.
pub(in crate::compile) fn may_be_a_name(service: &Object<Service>, sources: AddressSources) -> bool {
    is_external_name(service) || annotated_hosts(service, sources).is_some()
}

fn is_external_name(service: &Service) -> bool {
    service.spec.kind.as_deref() == Some("ExternalName")
}

/// The Services with an endpoint at an IP address that is selected.
pub(in crate::compile) fn services_with_address(
    store: &Store,
    sources: AddressSources,
    is_selected: impl Fn(IpAddr) -> bool,
) -> impl Iterator<Item = ObjectKey> {
    let is_selected = Rc::new(is_selected);
    let in_slice = Rc::clone(&is_selected);
    let has_selected_text = move |text: &str| text.parse().is_ok_and(|ip| in_slice(ip));
    let slices = store.endpoint_slices.values().filter(move |slice| {
        slice
            .endpoints
            .iter()
            .flatten()
            .filter_map(|endpoint| endpoint.addresses.first())
            .any(|text| has_selected_text(text))
    });
    let of_slices = slices
        .flat_map(|slice| store.services_referenced_by(&ObjectId::new(Kind::EndpointSlice, slice.meta.key.clone())));
    // Other Services contain their addresses themselves.
    let has_own_addresses =
        move |service: &Object<Service>| annotated_hosts(service, sources).is_some() || is_external_name(service);
    let services = store.services.values().filter(move |service| {
        has_own_addresses(service)
            && service
                .spec
                .ports
                .iter()
                .flat_map(|port| configured_addresses(store, service, port, sources))
                .any(|address| matches!(address, EndpointAddress::Ip(address) if is_selected(address.ip())))
    });
    of_slices.chain(services.map(|service| service.meta.key.clone()))
}

/// Notes on the endpoints of a Service. `via_cluster_ip`: whether all requests go to its ClusterIP instead.
pub(in crate::compile) fn notes(
    store: &Store,
    service: &Object<Service>,
    forbidden: &ForbiddenAddresses,
    via_cluster_ip: bool,
) -> Vec<Diagnostic> {
    let annotation = format!("metadata.annotations[{ADDRESS_ANNOTATION}]");
    let ObjectKey { namespace, name } = &service.meta.key;
    let sources = forbidden.address_sources();
    let annotated = annotated_hosts(service, sources);
    let mut notes = Vec::new();
    if annotated.is_none() && service.meta.annotations.contains_key(ADDRESS_ANNOTATION) {
        notes.push(Diagnostic::warning(
            annotation.clone(),
            "the annotation has no effect, because objects come from a cluster",
            "remove it, or start Portico with --allow-address-annotation if all users who can write Services may \
             choose any address",
        ));
    }
    if annotated.is_none() && is_external_name(service) && !sources.external_names {
        notes.push(Diagnostic::warning(
            "spec.externalName",
            "Portico denies ExternalName Services, so requests to it get status 503",
            "use a Service with EndpointSlices, or start Portico without --deny-external-names",
        ));
        return notes;
    }
    if has_any_port(service) && annotated.is_none() {
        // Whether the host is forbidden does not depend on the port.
        let host = service.spec.external_name.as_deref().and_then(|host| external_address(host, 0));
        let problem = forbidden.problem(namespace, "spec.externalName", "spec.externalName", host.as_slice());
        notes.extend(problem.map(Diagnostic::into_warning));
    }
    // It stands for a route without a service.
    if sources.annotation && service.meta.annotations.get(ENTITY_NAME_ANNOTATION).is_some_and(|name| name.is_empty()) {
        return notes;
    }
    for (index, port) in service.spec.ports.iter().enumerate() {
        let Some(transport) = TransportProtocol::from_field(port.protocol.as_deref()) else { continue };
        let addresses = configured_addresses(store, service, port, sources);
        let port_field = format!("spec.ports[{index}]");
        let hosts_field = if annotated.is_some() {
            &*annotation
        } else if is_external_name(service) {
            "spec.externalName"
        } else {
            &*port_field
        };
        let problem = forbidden.problem(namespace, hosts_field, &port_field, &addresses);
        if let Some(problem) = problem.map(Diagnostic::into_warning) {
            // Equal diagnostics of several ports are reported once.
            if !notes.contains(&problem) {
                notes.push(problem);
            }
            continue;
        }
        if let Some(text) = annotated {
            if let Err(problem) = parse_addresses(service, port, text) {
                notes.push(problem.at(annotation.clone()).into_warning());
            }
            continue;
        }
        let Ok(number) = u16::try_from(port.port) else { continue };
        let (namespace, service) = (namespace.clone(), name.clone());
        let key = UpstreamKey { namespace, service, port: number, transport, ..UpstreamKey::default() };
        if !via_cluster_ip && addresses_of(store, &key, forbidden).is_none_or(|addresses| addresses.is_empty()) {
            let note = Diagnostic::warning(
                port_field,
                match transport {
                    TransportProtocol::Tcp => {
                        format!("port {number} has no ready endpoint, so requests to it get status 503")
                    }
                    TransportProtocol::Udp => {
                        format!("UDP port {number} has no ready endpoint, so datagrams to it are dropped")
                    }
                },
                "add an EndpointSlice with label kubernetes.io/service-name and a port of the same name",
            );
            notes.push(note.with_reason(Reason::Named(NO_ENDPOINT)));
        }
    }
    notes
}

/// The load-balancing algorithm in the annotation of a Service or facade. An unknown value is an error, for callers to
/// report or to ignore.
pub(in crate::compile) fn annotated_balance(meta: &Meta) -> Result<Option<BalancingAlgorithm>, Diagnostic> {
    match meta.annotations.get(BALANCE_ANNOTATION).map(|text| &**text) {
        None => Ok(None),
        Some("round-robin") => Ok(Some(BalancingAlgorithm::RoundRobin)),
        Some("least-requests") => Ok(Some(BalancingAlgorithm::LeastRequests)),
        Some(other) => Err(Diagnostic::error(
            format!("metadata.annotations[{BALANCE_ANNOTATION}]"),
            format!("{other:?} is not a load-balancing algorithm, so the annotation has no effect"),
            "write round-robin or least-requests",
        )),
    }
}

/// Parses the address annotation, a list of hosts. The port of each is the numeric targetPort of the Service port. If
/// the Service has only one port, an entry can also be `host:port`.
fn parse_addresses(service: &Service, port: &ServicePort, text: &str) -> Result<Vec<EndpointAddress>, Diagnostic> {
    let problem = |message: String, remedy: &str| Err(Diagnostic::of_object(message, remedy));
    // Each address, and whether its entry has a port.
    let mut addresses = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
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
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if host.len() <= 253 && host.split('.').all(is_label) {
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

fn external_name(service: &Service, port: &ServicePort, sources: AddressSources) -> Vec<EndpointAddress> {
    let host = service.spec.external_name.as_deref().filter(|_| sources.external_names);
    let Some(host) = host else { return Vec::new() };
    let number = target_port(port).unwrap_or_else(|_| u16::try_from(port.port).unwrap_or_default());
    external_address(host, number).into_iter().collect()
}

fn external_address(host: &str, port: u16) -> Option<EndpointAddress> {
    match host.parse::<IpAddr>() {
        Ok(ip) => Some(EndpointAddress::Ip(SocketAddr::new(ip, port))),
        Err(_) => parse_host_name(host.trim_end_matches('.'), port).ok(),
    }
}

/// Ready endpoints or, if there are none, terminating endpoints that still serve.
fn slice_endpoints(
    store: &Store,
    service: &ObjectKey,
    port: &ServicePort,
    scope: LocalityScope<'_>,
) -> Vec<ConfiguredEndpoint> {
    let slices = slices_of(store, service);
    let select = |is_selected: &dyn Fn(&Endpoint) -> bool| -> Vec<ConfiguredEndpoint> {
        slices.iter().flat_map(|slice| selected_endpoints(slice, port, scope, is_selected)).collect()
    };
    let ready = select(&|endpoint| endpoint.conditions.ready != Some(false));
    if !ready.is_empty() {
        return ready;
    }
    select(&|endpoint| endpoint.conditions.serving == Some(true) && endpoint.conditions.terminating == Some(true))
}

fn slices_of<'s>(store: &'s Store, service: &ObjectKey) -> Vec<&'s Object<EndpointSlice>> {
    let id = ObjectId::new(Kind::Service, service.clone());
    let slices = store.dependency_index().dependents_of_kind(&id, Kind::EndpointSlice);
    slices.filter_map(|id| store.endpoint_slices.get(&id.key).map(|slice| &**slice)).collect()
}

fn selected_endpoints(
    slice: &EndpointSlice,
    port: &ServicePort,
    scope: LocalityScope<'_>,
    is_selected: &dyn Fn(&Endpoint) -> bool,
) -> Vec<ConfiguredEndpoint> {
    let transport = TransportProtocol::from_field(port.protocol.as_deref());
    let is_same_port = |slice_port: &&EndpointPort| {
        slice_port.name.as_deref().unwrap_or_default() == port.name
            && TransportProtocol::from_field(slice_port.protocol.as_deref()) == transport
    };
    let number = slice.ports.iter().flatten().find(is_same_port).and_then(|port| u16::try_from(port.port?).ok());
    let Some(number) = number else { return Vec::new() };
    let configured = |endpoint: &Endpoint| {
        let parse = |text: &str| match &*slice.address_type {
            "FQDN" => parse_host_name(text, number).ok(),
            _ => text.parse::<IpAddr>().ok().map(|ip| EndpointAddress::Ip(SocketAddr::new(ip, number))),
        };
        // EndpointSlice API: all addresses of an endpoint are interchangeable, and consumers use the first.
        let address = endpoint.addresses.first().and_then(|text| parse(text))?;
        let pod = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
        Some(ConfiguredEndpoint { address, pod, proximity: Proximity::of(endpoint, scope) })
    };
    slice.endpoints.iter().flatten().filter(|endpoint| is_selected(endpoint)).filter_map(configured).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::{AnyObject, Batch};

    /// The keys of sessions are derived from them.
    #[test]
    fn uids_of_pods_and_of_the_service_are_read() {
        let service = json!({"metadata": {"namespace": "a", "name": "s", "uid": "service"},
            "spec": {"ports": [{"port": 80}]}});
        let target = |uid: &str| json!({"kind": "Pod", "namespace": "a", "name": uid, "uid": uid});
        let slice = json!({
            "metadata": {"namespace": "a", "name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.0.0.3"], "targetRef": target("three")},
                {"addresses": ["10.0.0.1"], "targetRef": target("one")},
                {"addresses": ["10.0.0.2"]},
            ],
            "ports": [{"name": "", "port": 8080}],
        });
        let upserts = vec![
            AnyObject::parse(Kind::Service, service).unwrap(),
            AnyObject::parse(Kind::EndpointSlice, slice).unwrap(),
        ];
        let mut store = Store::default();
        store.apply(Batch { upserts, removes: vec![] });
        let key = UpstreamKey { namespace: "a".into(), service: "s".into(), port: 80, ..UpstreamKey::default() };
        let forbidden = ForbiddenAddresses::default();
        let endpoints = build(
            &store,
            &key,
            &forbidden,
            &ProcessLocation::default(),
            Balancing::default(),
            BackendTraffic::default(),
        );
        let EndpointIdentities { service, pods } = &endpoints.identities;
        assert_eq!((service.as_deref(), endpoints.addresses.len()), (Some("service"), 3));
        let pods: Vec<_> = pods.iter().map(|(address, uid)| (address.to_string(), &**uid)).collect();
        assert_eq!(pods, [("10.0.0.1:8080".to_owned(), "one"), ("10.0.0.3:8080".to_owned(), "three")]);
    }
}
