//! Services: each becomes a Service whose annotations have its settings, and whose endpoints are its host or the
//! targets of its upstream.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::certificates::CertificateSecrets;
use super::fields::{EntityFields, EntityReference, FileFindings};
use super::host_header::with_port;
use super::model::{Entity, EntityIndex, EntityKind};
use super::names::Names;
use super::objects::Draft;
use super::service_location::{self, ServiceLocation};
use super::upstreams::{TargetAddress, UpstreamPlan};
use crate::api::kong::annotations::{
    CA_CERTIFICATES_SECRETS, CLIENT_CERT, CONNECT_TIMEOUT, HOST_HEADER, PATH, PROTOCOL, READ_TIMEOUT, RETRIES,
    TLS_VERIFY, TLS_VERIFY_DEPTH, UPSTREAM_POLICY, WRITE_TIMEOUT,
};
use crate::api::names::{ADDRESS_ANNOTATION, ENDPOINT_WEIGHTS_ANNOTATION, SERVICE_NAME_LABEL};

/// What became of a service.
pub(super) struct ServicePlan {
    /// `None` if it is not served; then neither are its routes.
    pub(super) draft: Option<Draft>,
    /// `tcp` or `udp` for a service of connections or datagrams.
    pub(super) stream: Option<&'static str>,
    pub(super) port: i64,
    pub(super) slices: Vec<Draft>,
    /// Its name in the file, for messages.
    pub(super) label: String,
}

/// What services refer to.
pub(super) struct ServiceContext<'a> {
    pub(super) index: &'a EntityIndex,
    pub(super) upstreams: &'a [UpstreamPlan],
    pub(super) certificates: &'a CertificateSecrets,
}

pub(super) fn plan(
    service: Entity<'_>,
    position: usize,
    context: &ServiceContext<'_>,
    names: &mut Names,
) -> ServicePlan {
    let label = service.label(&format!("service-{position}"));
    let findings = service.fields.findings;
    let ReadService { draft, location, is_enabled, has_certificate } = read(service, &label, context, names);
    let port = location.as_ref().map_or(80, |location| location.port);
    let unserved = |label| ServicePlan { draft: None, stream: None, port, slices: Vec::new(), label };
    let Some(location) = location.filter(|_| is_enabled) else { return unserved(label) };
    let Some(mut draft) = annotate_protocol(draft, &location, findings) else { return unserved(label) };
    let stream = STREAMS.into_iter().find(|stream| *stream == location.protocol);
    if let Some(prefix) = location.path.as_deref().filter(|prefix| *prefix != "/" && stream.is_none()) {
        draft.annotate(PATH, prefix);
    }
    let upstream = context.index.find(EntityKind::Upstream, &location.host);
    let slices = match upstream.map(|position| &context.upstreams[position]) {
        Some(upstream) => {
            if let Some(policy) = &upstream.policy {
                draft.annotate(UPSTREAM_POLICY, policy.as_str());
            }
            let certificate = upstream.client_certificate.filter(|_| location.uses_tls() && !has_certificate);
            if let Some(certificate) = certificate {
                draft.annotate(CLIENT_CERT, context.certificates.certificate(certificate));
            }
            if let Some(weights) = upstream.endpoint_weights() {
                draft.annotate(ENDPOINT_WEIGHTS_ANNOTATION, weights);
            }
            if stream.is_none() {
                annotate_host_of_upstream(&mut draft, upstream, &location, findings);
            }
            add_endpoints(&mut draft, &upstream.targets, &location)
        }
        None => {
            if stream.is_none() {
                draft.annotate(HOST_HEADER, with_port(&location.host, port, &location.protocol));
            }
            let target = TargetAddress { host: location.host.clone(), port };
            add_endpoints(&mut draft, std::slice::from_ref(&target), &location)
        }
    };
    ServicePlan { draft: Some(draft), stream, port, slices, label }
}

/// The fields of a service.
struct ReadService {
    /// With the annotations that do not depend on where the service is.
    draft: Draft,
    /// `None` if it cannot be read, for which the file is rejected.
    location: Option<ServiceLocation>,
    is_enabled: bool,
    /// Whether the service has a client certificate of its own.
    has_certificate: bool,
}

fn read(mut service: Entity<'_>, label: &str, context: &ServiceContext<'_>, names: &mut Names) -> ReadService {
    let mut draft = Draft::new("v1", "Service", &names.label("Service", label), service.path());
    let location = service_location::read(&mut service.fields);
    let is_enabled = service.fields.flag("enabled").unwrap_or(true);
    draft.identify(&mut service);
    read_limits(&mut service.fields, &mut draft);
    check_protocol(&service.fields, location.as_ref());
    let has_certificate = read_tls(&mut service.fields, &mut draft, context);
    service.fields.finish();
    ReadService { draft, location, is_enabled, has_certificate }
}

fn read_limits(fields: &mut EntityFields<'_>, draft: &mut Draft) {
    for (field, annotation, max) in [
        ("retries", RETRIES, 32_767),
        ("connect_timeout", CONNECT_TIMEOUT, MAX_TIMEOUT),
        ("write_timeout", WRITE_TIMEOUT, MAX_TIMEOUT),
        ("read_timeout", READ_TIMEOUT, MAX_TIMEOUT),
    ] {
        let min = i64::from(field != "retries");
        if let Some(number) = fields.number(field, min, max) {
            draft.annotate(annotation, number.to_string());
        }
    }
}

/// Rejects fields that have no meaning for the protocol, which is `http` if it cannot be read.
fn check_protocol(fields: &EntityFields<'_>, location: Option<&ServiceLocation>) {
    let protocol = location.map_or("http", |location| &location.protocol);
    if !location.is_some_and(ServiceLocation::uses_tls) {
        reject_tls(fields, protocol);
    }
    let has_path = location.is_some_and(|location| location.path.is_some());
    if has_path && !["http", "https", "ws", "wss"].contains(&protocol) {
        let message = format!("a service of protocol {protocol} has no path");
        fields.findings.reject(fields.field("path"), message, "remove it");
    }
}

/// Writes the protocol if it is not that of a Service without the annotation. `None` if the protocol is not served.
fn annotate_protocol(mut draft: Draft, location: &ServiceLocation, findings: &FileFindings) -> Option<Draft> {
    match &*location.protocol {
        "http" | "tcp" | "udp" => {}
        "https" | "grpc" | "grpcs" | "ws" | "wss" => draft.annotate(PROTOCOL, location.protocol.as_str()),
        protocol => {
            let message = format!("a service of protocol {protocol} is not served on the listener of Ingresses");
            findings.leave_out(&*draft.source, message, "write a TCPRoute, TLSRoute or UDPRoute for it");
            return None;
        }
    }
    Some(draft)
}

/// Writes the `Host` that Kong sends to the targets of an upstream.
fn annotate_host_of_upstream(
    draft: &mut Draft,
    upstream: &UpstreamPlan,
    location: &ServiceLocation,
    findings: &FileFindings,
) {
    let ServiceLocation { protocol, host, port, .. } = location;
    match &upstream.host_headers(protocol)[..] {
        [only] => draft.annotate(HOST_HEADER, only.as_str()),
        [] => draft.annotate(HOST_HEADER, with_port(host, *port, protocol)),
        _ => {
            let message =
                format!("Host is {host} for all targets of upstream {host}, while in Kong each target gets its own");
            let remedy = "set host_header of the upstream, or preserve_host of the routes";
            findings.differs(&*draft.source, message, remedy);
            draft.annotate(HOST_HEADER, host.as_str());
        }
    }
}

/// Rejects what has a meaning only for TLS.
fn reject_tls(fields: &EntityFields<'_>, protocol: &str) {
    for name in ["tls_verify", "tls_verify_depth", "ca_certificates", "client_certificate"] {
        if fields.has(name) {
            let message = format!("a service of protocol {protocol} does not use TLS");
            fields.findings.reject(fields.field(name), message, "remove it, or set protocol to https");
        }
    }
}

/// Returns whether the service has a client certificate.
fn read_tls(fields: &mut EntityFields<'_>, draft: &mut Draft, context: &ServiceContext<'_>) -> bool {
    let ServiceContext { index, certificates, .. } = context;
    if let Some(verify) = fields.flag("tls_verify") {
        draft.annotate(TLS_VERIFY, verify.to_string());
    }
    if let Some(depth) = fields.number("tls_verify_depth", 0, 64) {
        draft.annotate(TLS_VERIFY_DEPTH, depth.to_string());
    }
    let field = fields.field("ca_certificates");
    let keys = fields.texts("ca_certificates").unwrap_or_default();
    let authorities: Vec<&str> = keys
        .into_iter()
        .enumerate()
        .filter_map(|(position, key)| {
            let reference = EntityReference { key, field: format!("{field}[{position}]") };
            let position = index.resolve(EntityKind::Authority, &reference, fields.findings)?;
            Some(certificates.authority(position))
        })
        .collect();
    if !authorities.is_empty() {
        draft.annotate(CA_CERTIFICATES_SECRETS, authorities.join(","));
    }
    let reference = fields.reference("client_certificate");
    let position = reference.and_then(|reference| index.resolve(EntityKind::Certificate, &reference, fields.findings));
    if let Some(position) = position {
        draft.annotate(CLIENT_CERT, certificates.certificate(position));
    }
    position.is_some()
}

/// Adds the endpoints to a Service, or returns the EndpointSlices that have them.
fn add_endpoints(draft: &mut Draft, targets: &[TargetAddress], location: &ServiceLocation) -> Vec<Draft> {
    let protocol = if location.protocol == "udp" { "UDP" } else { "TCP" };
    let ports = json!([{"port": location.port, "protocol": protocol}]);
    if let [TargetAddress { host, port }] = targets
        && host.parse::<IpAddr>().is_err()
        && *port == location.port
    {
        let spec = json!({"type": "ExternalName", "externalName": host.to_ascii_lowercase(), "ports": ports});
        draft.fields.insert("spec".to_owned(), spec);
        return Vec::new();
    }
    draft.fields.insert("spec".to_owned(), json!({"clusterIP": "None", "ports": ports}));
    // An EndpointSlice has only names with dots.
    if targets.iter().any(|target| target.host.parse::<IpAddr>().is_err() && !target.host.contains('.')) {
        let list: Vec<String> = targets.iter().map(TargetAddress::with_port).collect();
        draft.annotate(ADDRESS_ANNOTATION, list.join(","));
        return Vec::new();
    }
    endpoint_slices(draft, targets, protocol)
}

/// An EndpointSlice for each type of address and port.
fn endpoint_slices(service: &Draft, targets: &[TargetAddress], protocol: &str) -> Vec<Draft> {
    let mut slices: Vec<((&'static str, i64), Vec<&str>)> = Vec::new();
    for TargetAddress { host, port } in targets {
        let address_type = match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => "IPv4",
            Ok(IpAddr::V6(_)) => "IPv6",
            Err(_) => "FQDN",
        };
        match slices.iter_mut().find(|(key, _)| *key == (address_type, *port)) {
            Some((_, hosts)) => hosts.push(host),
            None => slices.push(((address_type, *port), vec![host])),
        }
    }
    let draft_of = |(number, ((address_type, port), hosts)): (usize, ((&str, i64), Vec<&str>))| {
        let endpoints: Vec<Value> = hosts.iter().map(|host| json!({"addresses": [host]})).collect();
        let name = format!("{}-{}", service.name, number + 1);
        let mut slice = Draft::new("discovery.k8s.io/v1", "EndpointSlice", &name, &service.source)
            .with("addressType", json!(address_type))
            .with("endpoints", json!(endpoints))
            .with("ports", json!([{"port": port, "protocol": protocol}]));
        slice.label(SERVICE_NAME_LABEL, &service.name);
        slice
    };
    slices.into_iter().enumerate().map(draft_of).collect()
}

const STREAMS: [&str; 2] = ["tcp", "udp"];
const MAX_TIMEOUT: i64 = 2_147_483_646;
