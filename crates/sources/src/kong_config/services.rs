//! Services: each becomes a Service whose annotations have its settings, and whose endpoints are its host or the
//! targets of its upstream.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::certificates::CertificateSecrets;
use super::fields::{EntityFields, EntityReference};
use super::host_header::{default_port, with_port};
use super::model::{Entity, EntityIndex, EntityKind};
use super::names::Names;
use super::objects::Draft;
use super::paths::path_problem;
use super::upstreams::{TargetAddress, UpstreamPlan};
use crate::api::kong::annotations::{
    CA_CERTIFICATES_SECRETS, CLIENT_CERT, CONNECT_TIMEOUT, HOST_HEADER, PATH, PROTOCOL, READ_TIMEOUT, RETRIES,
    TLS_VERIFY, TLS_VERIFY_DEPTH, UPSTREAM_POLICY, WRITE_TIMEOUT,
};
use crate::api::names::{ADDRESS_ANNOTATION, ENDPOINT_WEIGHTS_ANNOTATION, ENTITY_NAME_ANNOTATION, SERVICE_NAME_LABEL};

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

/// Where a service is.
struct ServiceLocation {
    protocol: String,
    host: String,
    port: i64,
    path: Option<String>,
}

pub(super) fn plan(
    mut service: Entity<'_>,
    position: usize,
    index: &EntityIndex,
    upstreams: &[UpstreamPlan],
    secrets: &CertificateSecrets,
    names: &mut Names,
) -> ServicePlan {
    let label = service.label(&format!("service-{position}"));
    let findings = service.fields.findings;
    let path = service.path().to_owned();
    let fields = &mut service.fields;
    let location = read_location(fields);
    let is_enabled = fields.flag("enabled").unwrap_or(true);
    let name = names.label("Service", &label);
    let mut draft = Draft::new("v1", "Service", &name, &path);
    if let Some(name) = &service.name {
        fields.check_name("name", name);
        draft.annotate(ENTITY_NAME_ANNOTATION, name.as_str());
    }
    draft.tag(fields);
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
    let protocol = location.as_ref().map_or("http", |location| &location.protocol);
    let uses_tls = ["https", "grpcs", "wss", "tls"].contains(&protocol);
    if !uses_tls {
        reject_tls(fields, protocol);
    }
    let has_path = location.as_ref().is_some_and(|location| location.path.is_some());
    if has_path && !["http", "https", "ws", "wss"].contains(&protocol) {
        let message = format!("a service of protocol {protocol} has no path");
        findings.reject(fields.field("path"), message, "remove it");
    }
    let has_certificate = read_tls(fields, &mut draft, index, secrets);
    service.fields.finish();
    let unserved = |port| ServicePlan { draft: None, stream: None, port, slices: Vec::new(), label: label.clone() };
    let Some(ServiceLocation { protocol, host, port, path: prefix }) = location else { return unserved(80) };
    if !is_enabled {
        return unserved(port);
    }
    match &*protocol {
        "http" | "tcp" | "udp" => {}
        "https" | "grpc" | "grpcs" | "ws" | "wss" => draft.annotate(PROTOCOL, protocol.as_str()),
        _ => {
            let message = format!("a service of protocol {protocol} is not served on the listener of Ingresses");
            findings.leave_out(&path, message, "write a TCPRoute, TLSRoute or UDPRoute for it");
            return unserved(port);
        }
    }
    let stream = STREAMS.into_iter().find(|stream| *stream == protocol);
    if let Some(prefix) = prefix.filter(|prefix| prefix != "/" && stream.is_none()) {
        draft.annotate(PATH, prefix);
    }
    let endpoint_protocol = if stream == Some("udp") { "UDP" } else { "TCP" };
    let upstream = index.find(EntityKind::Upstream, &host).map(|position| &upstreams[position]);
    let slices = match upstream {
        Some(upstream) => {
            if let Some(policy) = &upstream.policy {
                draft.annotate(UPSTREAM_POLICY, policy.as_str());
            }
            if let Some(certificate) = upstream.client_certificate.filter(|_| uses_tls && !has_certificate) {
                draft.annotate(CLIENT_CERT, secrets.certificate(certificate));
            }
            if let Some(weights) = upstream.endpoint_weights() {
                draft.annotate(ENDPOINT_WEIGHTS_ANNOTATION, weights);
            }
            let hosts = upstream.host_headers(&protocol);
            match &hosts[..] {
                _ if stream.is_some() => {}
                [only] => draft.annotate(HOST_HEADER, only.as_str()),
                [] => draft.annotate(HOST_HEADER, with_port(&host, port, &protocol)),
                _ => {
                    let message = format!(
                        "Host is {host} for all targets of upstream {host}, while in Kong each target gets its own"
                    );
                    findings.differs(&path, message, "set host_header of the upstream, or preserve_host of the routes");
                    draft.annotate(HOST_HEADER, host.as_str());
                }
            }
            add_endpoints(&mut draft, &name, &path, &upstream.targets, port, endpoint_protocol)
        }
        None => {
            if stream.is_none() {
                draft.annotate(HOST_HEADER, with_port(&host, port, &protocol));
            }
            let target = TargetAddress { host, port };
            add_endpoints(&mut draft, &name, &path, std::slice::from_ref(&target), port, endpoint_protocol)
        }
    };
    ServicePlan { draft: Some(draft), stream, port, slices, label }
}

fn read_location(fields: &mut EntityFields<'_>) -> Option<ServiceLocation> {
    let url = fields.text("url");
    let (protocol, host) = (fields.text("protocol"), fields.text("host"));
    let (port, path) = (fields.number("port", 0, 65_535), fields.text("path"));
    if let Some(url) = url {
        let field = fields.field("url");
        let location = parse_url(&url);
        match &location {
            Some(location) => {
                check_path(fields, &field, location.path.as_deref());
                report_overridden(fields, location, &GivenLocation { protocol, host, port, path });
            }
            None => {
                fields.findings.reject(&field, "this is not a URL", "write it like http://backend.example:8080/path");
            }
        }
        return location;
    }
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        if !["url", "host"].iter().any(|name| fields.is_mistyped(name)) {
            fields.findings.reject(fields.field("host"), "the host is missing", "write host or url");
        }
        return None;
    };
    let protocol = protocol.unwrap_or_else(|| "http".to_owned());
    if !PROTOCOLS.contains(&&*protocol) {
        let message = format!("protocol {protocol:?} is unknown");
        let remedy = format!("write one of {}", PROTOCOLS.join(", "));
        fields.findings.reject(fields.field("protocol"), message, remedy);
        return None;
    }
    if host.contains(|c: char| c.is_whitespace() || c == '/') || host.contains(':') && host.parse::<IpAddr>().is_err() {
        let message = format!("{host:?} is not a host");
        fields.findings.reject(fields.field("host"), message, "write a DNS name or an address, without a port");
    }
    check_path(fields, &fields.field("path"), path.as_deref());
    Some(ServiceLocation { protocol, host, port: port.unwrap_or(80), path })
}

/// What a service has in addition to its `url`.
struct GivenLocation {
    protocol: Option<String>,
    host: Option<String>,
    port: Option<i64>,
    path: Option<String>,
}

/// As in Kong, `url` replaces the fields that it stands for. Those that disagree are reported, unless they are
/// defaults.
fn report_overridden(fields: &EntityFields<'_>, used: &ServiceLocation, given: &GivenLocation) {
    let GivenLocation { protocol, host, port, path } = given;
    let root = |path: Option<&str>| path.unwrap_or("/").to_owned();
    for (name, disagrees, used) in [
        ("protocol", protocol.as_ref().is_some_and(|given| *given != used.protocol), used.protocol.clone()),
        ("host", host.as_ref().is_some_and(|given| *given != used.host), used.host.clone()),
        ("port", port.is_some_and(|given| given != used.port), used.port.to_string()),
        (
            "path",
            path.as_ref().is_some_and(|given| root(Some(given)) != root(used.path.as_deref())),
            root(used.path.as_deref()),
        ),
    ] {
        if disagrees && !fields.is_default(name) {
            let message = format!("url takes precedence, so the {name} is {used}");
            fields.findings.differs(fields.field(name), message, "remove it, or correct url");
        }
    }
}

fn check_path(fields: &EntityFields<'_>, field: &str, path: Option<&str>) {
    if let Some(problem) = path.and_then(path_problem) {
        let remedy = "write a path such as /base, in which other characters are percent-encoded";
        fields.findings.reject(field, format!("the path {problem}"), remedy);
    }
}

/// The fields that a URL stands for.
pub(super) fn split_url(url: &str) -> Option<[(String, Value); 4]> {
    let ServiceLocation { protocol, host, port, path } = parse_url(url)?;
    let fields = [("protocol", json!(protocol)), ("host", json!(host)), ("port", json!(port)), ("path", json!(path))];
    Some(fields.map(|(name, value)| (name.to_owned(), value)))
}

/// `protocol://host[:port][/path]`
fn parse_url(url: &str) -> Option<ServiceLocation> {
    let (protocol, rest) = url.split_once("://")?;
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, Some(format!("/{path}"))),
        None => (rest, None),
    };
    let is_ipv6_without_port = authority.ends_with(']');
    let (host, port) = match authority.rsplit_once(':').filter(|_| !is_ipv6_without_port) {
        Some((host, port)) => (host, i64::from(port.parse::<u16>().ok()?)),
        None => (authority, default_port(protocol)),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_valid = PROTOCOLS.contains(&protocol) && !host.is_empty() && !host.contains(['@', '?', '#']);
    let is_plain = path.as_ref().is_none_or(|path| !path.contains(['?', '#']));
    (is_valid && is_plain).then(|| ServiceLocation { protocol: protocol.to_owned(), host: host.to_owned(), port, path })
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
fn read_tls(
    fields: &mut EntityFields<'_>,
    draft: &mut Draft,
    index: &EntityIndex,
    secrets: &CertificateSecrets,
) -> bool {
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
            Some(secrets.authority(position))
        })
        .collect();
    if !authorities.is_empty() {
        draft.annotate(CA_CERTIFICATES_SECRETS, authorities.join(","));
    }
    let reference = fields.reference("client_certificate");
    let position = reference.and_then(|reference| index.resolve(EntityKind::Certificate, &reference, fields.findings));
    if let Some(position) = position {
        draft.annotate(CLIENT_CERT, secrets.certificate(position));
    }
    position.is_some()
}

/// Adds the endpoints to a Service, or returns the EndpointSlices that have them.
fn add_endpoints(
    draft: &mut Draft,
    name: &str,
    source: &str,
    targets: &[TargetAddress],
    port: i64,
    protocol: &str,
) -> Vec<Draft> {
    let ports = json!([{"port": port, "protocol": protocol}]);
    if let [TargetAddress { host, port: target_port }] = targets
        && host.parse::<IpAddr>().is_err()
        && *target_port == port
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
        let mut slice = Draft::new("discovery.k8s.io/v1", "EndpointSlice", &format!("{name}-{}", number + 1), source)
            .with("addressType", json!(address_type))
            .with("endpoints", json!(endpoints))
            .with("ports", json!([{"port": port, "protocol": protocol}]));
        slice.label(SERVICE_NAME_LABEL, name);
        slice
    };
    slices.into_iter().enumerate().map(draft_of).collect()
}

const PROTOCOLS: [&str; 10] = ["http", "https", "grpc", "grpcs", "ws", "wss", "tcp", "tls", "tls_passthrough", "udp"];
const STREAMS: [&str; 2] = ["tcp", "udp"];
const MAX_TIMEOUT: i64 = 2_147_483_646;
