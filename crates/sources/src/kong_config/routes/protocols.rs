//! The protocols of a route, which decide what it becomes.

use std::collections::BTreeSet;

use super::super::fields::{EntityFields, FileFindings};

/// What a route serves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteProtocol {
    Http,
    /// `tcp` or `udp`.
    Stream(&'static str),
    /// Another protocol of streams, which is reported.
    Unserved,
}

pub(super) struct RouteProtocols {
    pub(super) protocol: RouteProtocol,
    /// The value of the annotation, if it is needed.
    pub(super) annotation: Option<String>,
    /// Whether the route serves only requests that open a WebSocket.
    pub(super) is_websocket: bool,
}

impl From<RouteProtocol> for RouteProtocols {
    fn from(protocol: RouteProtocol) -> Self {
        RouteProtocols { protocol, annotation: None, is_websocket: false }
    }
}

pub(super) fn read(fields: &mut EntityFields<'_>) -> RouteProtocols {
    let Some(protocols) = fields.texts("protocols") else { return RouteProtocol::Http.into() };
    let field = fields.field("protocols");
    if protocols.is_empty() {
        fields.findings.reject(&field, "the list is empty, so the route would serve nothing", "remove it");
    }
    if let Some(unknown) = protocols.iter().find(|protocol| !KNOWN.contains(&&***protocol)) {
        let remedy = format!("write some of {}", KNOWN.join(", "));
        fields.findings.reject(field, format!("protocol {unknown:?} is unknown"), remedy);
        return RouteProtocol::Http.into();
    }
    let stream = ["tcp", "udp"].into_iter().find(|stream| protocols.iter().all(|protocol| protocol == stream));
    if let Some(stream) = stream {
        return RouteProtocol::Stream(stream).into();
    }
    match protocols.iter().find(|protocol| !is_http(protocol)) {
        Some(stream) => {
            report_stream(&field, stream, protocols.iter().any(|protocol| is_http(protocol)), fields.findings);
            RouteProtocol::Unserved.into()
        }
        None => convert_http(&field, &protocols, fields.findings),
    }
}

const KNOWN: [&str; 10] = ["http", "https", "grpc", "grpcs", "tcp", "udp", "tls", "tls_passthrough", "ws", "wss"];

fn is_http(protocol: &str) -> bool {
    ["http", "https", "ws", "wss", "grpc", "grpcs"].contains(&protocol)
}

/// Reports a protocol of streams that has no equivalent, or that is mixed with those of HTTP.
fn report_stream(field: &str, stream: &str, has_http: bool, findings: &FileFindings) {
    if has_http {
        findings.reject(field, "a route serves either HTTP or streams", "write two routes");
    }
    let message = format!("a route of protocol {stream} is not served on the listener of Ingresses");
    findings.leave_out(field, message, "write a TCPRoute, TLSRoute or UDPRoute for it");
}

/// The protocols of a route that has no others than those of HTTP.
fn convert_http(field: &str, protocols: &[String], findings: &FileFindings) -> RouteProtocols {
    let is_websocket = !protocols.is_empty() && protocols.iter().all(|protocol| protocol.starts_with("ws"));
    let set: BTreeSet<&str> = protocols.iter().map(|protocol| opening_protocol(protocol)).collect();
    let [has_http, has_grpc] = [["http", "https"], ["grpc", "grpcs"]].map(|pair| pair.iter().any(|p| set.contains(p)));
    if has_http && has_grpc {
        findings.reject(field, "a route serves either HTTP or gRPC", "write two routes");
    }
    let needs_annotation = set != BTreeSet::from(["http", "https"]);
    let annotation = needs_annotation.then(|| set.into_iter().collect::<Vec<_>>().join(","));
    RouteProtocols { protocol: RouteProtocol::Http, annotation, is_websocket }
}

/// The protocol of the requests that open a WebSocket; any other protocol as it is.
fn opening_protocol(protocol: &str) -> &str {
    match protocol {
        "ws" => "http",
        "wss" => "https",
        other => other,
    }
}
