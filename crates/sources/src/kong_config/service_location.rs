//! Where a service is: its protocol, host, port and path.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::fields::EntityFields;
use super::host_header::default_port;
use super::paths::path_problem;

/// Where a service is.
pub(super) struct ServiceLocation {
    pub(super) protocol: String,
    pub(super) host: String,
    pub(super) port: i64,
    pub(super) path: Option<String>,
}

impl ServiceLocation {
    pub(super) fn uses_tls(&self) -> bool {
        ["https", "grpcs", "wss", "tls"].contains(&&*self.protocol)
    }
}

/// The fields of a service that say where it is.
struct GivenLocation {
    protocol: Option<String>,
    host: Option<String>,
    port: Option<i64>,
    path: Option<String>,
}

/// Reads `url`, or the fields that it stands for. `None` if they do not say where the service is, for which the file is
/// rejected.
pub(super) fn read(fields: &mut EntityFields<'_>) -> Option<ServiceLocation> {
    let url = fields.text("url");
    let given = GivenLocation {
        protocol: fields.text("protocol"),
        host: fields.text("host"),
        port: fields.number("port", 0, 65_535),
        path: fields.text("path"),
    };
    match url {
        Some(url) => convert_url(fields, &url, &given),
        None => convert_fields(fields, given),
    }
}

fn convert_url(fields: &EntityFields<'_>, url: &str, given: &GivenLocation) -> Option<ServiceLocation> {
    let field = fields.field("url");
    let location = parse_url(url);
    match &location {
        Some(location) => {
            check_path(fields, &field, location.path.as_deref());
            report_overridden(fields, location, given);
        }
        None => fields.findings.reject(&field, "this is not a URL", "write it like http://backend.example:8080/path"),
    }
    location
}

fn convert_fields(fields: &EntityFields<'_>, given: GivenLocation) -> Option<ServiceLocation> {
    let GivenLocation { protocol, host, port, path } = given;
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        if !fields.is_mistyped("url") {
            fields.reject_missing("host", "the host is missing", "write host or url");
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

const PROTOCOLS: [&str; 10] = ["http", "https", "grpc", "grpcs", "ws", "wss", "tcp", "tls", "tls_passthrough", "udp"];
