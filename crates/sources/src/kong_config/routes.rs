//! Routes: each becomes an Ingress whose annotations have the conditions that an Ingress has no fields for, or a
//! TCPIngress or UDPIngress.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::fields::EntityFields;
use super::model::{Entity, EntityIndex, EntityKind, FormatVersion};
use super::names::Names;
use super::objects::Draft;
use super::paths::{escape_brackets_in_classes, has_invalid_escape, regex_error};
use super::route_hosts::annotation_host;
use super::services::ServicePlan;
use super::settings::TranslationSettings;
use crate::api::kong::annotations::{
    HEADERS_PREFIX, HEADERS_SEPARATOR, HOST_ALIASES, HTTPS_REDIRECT_STATUS_CODE, METHODS, PRESERVE_HOST, PROTOCOLS,
    REGEX_PRIORITY, SNIS, STRIP_PATH,
};
use crate::api::names::{ANY_PATH_ANNOTATION, ENTITY_NAME_ANNOTATION, NO_SERVICE_ANNOTATION};

/// What became of a route.
pub(super) struct ConvertedRoute {
    /// `None` if it is not served.
    pub(super) draft: Option<Draft>,
    pub(super) service: Option<usize>,
    /// Its name in the file, for messages and names.
    pub(super) label: String,
}

/// The name of the Service without endpoints that the Ingresses of routes without a service name.
pub(super) const NO_SERVICE: &str = "no-service";

pub(super) struct RouteContext<'a> {
    pub(super) settings: &'a TranslationSettings,
    pub(super) version: FormatVersion,
    pub(super) index: &'a EntityIndex,
    pub(super) services: &'a [ServicePlan],
}

pub(super) fn plan(
    mut route: Entity<'_>,
    position: usize,
    context: &RouteContext<'_>,
    names: &mut Names,
) -> ConvertedRoute {
    let service = route.parent(EntityKind::Service, context.index);
    let findings = route.fields.findings;
    let otherwise = match service {
        Some(service) => format!("{}-route-{position}", context.services[service].label),
        None => format!("route-{position}"),
    };
    let (label, path) = (route.label(&otherwise), route.path().to_owned());
    let fields = &mut route.fields;
    let name = names.name("Ingress", &label);
    let RouteProtocols { protocol, annotation, is_websocket } = read_protocols(fields);
    let (api_version, kind) = match protocol {
        RouteProtocol::Stream("udp") => ("configuration.konghq.com/v1beta1", "UDPIngress"),
        RouteProtocol::Stream(_) => ("configuration.konghq.com/v1beta1", "TCPIngress"),
        RouteProtocol::Http | RouteProtocol::Unserved => ("networking.k8s.io/v1", "Ingress"),
    };
    let mut draft = Draft::new(api_version, kind, &name, &path).of_class(context.settings);
    if let RouteProtocol::Stream(stream) = protocol {
        let is_served = read_stream(fields, &mut draft, context, service, stream);
        return finish_stream(route, draft, is_served, service, label);
    }
    if let Some(name) = &route.name {
        fields.check_name("name", name);
        draft.annotate(ENTITY_NAME_ANNOTATION, name.as_str());
    }
    draft.tag(fields);
    if let Some(annotation) = &annotation {
        draft.annotate(PROTOCOLS, annotation.as_str());
    }
    let serves_grpc = annotation.as_ref().is_some_and(|protocols| protocols.contains("grpc"));
    if serves_grpc && fields.list("methods").is_some_and(|methods| !methods.is_empty()) {
        findings.reject(fields.field("methods"), "all requests of gRPC have the method POST", "remove it");
    }
    let is_http = protocol == RouteProtocol::Http;
    let names_hosts = fields.peek("hosts").and_then(Value::as_array).is_some_and(|hosts| !hosts.is_empty());
    let has_conditions = names_hosts | read_conditions(fields, &mut draft, context, service, is_http, is_websocket);
    read_options(fields, &mut draft, serves_grpc);
    let is_expression = fields.value("expression").is_some() | fields.value("priority").is_some();
    route.fields.finish();
    if is_expression {
        let message = "routes with expressions are not supported, and without one the order of all routes would change";
        findings.reject(&path, message, "write its conditions as hosts, paths, methods and headers");
    }
    let stream = service.and_then(|service| context.services[service].stream);
    if let Some(stream) = stream.filter(|_| is_http) {
        let message = format!("a route of HTTP has a service of protocol {stream}");
        findings.leave_out(&path, message, "set protocols of the route, or protocol of the service");
    }
    let is_served = service.is_none_or(|service| context.services[service].draft.is_some() && stream.is_none());
    if is_http && !has_conditions && !is_expression {
        let message = "the route has no condition, and Kong does not accept such a route";
        findings.reject(&path, message, "add hosts, paths, methods, headers or snis; paths: [/] matches everything");
    }
    ConvertedRoute { draft: Some(draft).filter(|_| is_http && is_served), service, label }
}

/// What a route serves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RouteProtocol {
    Http,
    /// `tcp` or `udp`.
    Stream(&'static str),
    /// Another protocol of streams, which is reported.
    Unserved,
}

struct RouteProtocols {
    protocol: RouteProtocol,
    /// The value of the annotation, if it is needed.
    annotation: Option<String>,
    /// Whether the route serves only requests that open a WebSocket.
    is_websocket: bool,
}

impl From<RouteProtocol> for RouteProtocols {
    fn from(protocol: RouteProtocol) -> Self {
        RouteProtocols { protocol, annotation: None, is_websocket: false }
    }
}

fn read_protocols(fields: &mut EntityFields<'_>) -> RouteProtocols {
    let field = fields.field("protocols");
    let Some(protocols) = fields.texts("protocols") else { return RouteProtocol::Http.into() };
    if protocols.is_empty() {
        fields.findings.reject(&field, "the list is empty, so the route would serve nothing", "remove it");
    }
    const KNOWN: [&str; 10] = ["http", "https", "grpc", "grpcs", "tcp", "udp", "tls", "tls_passthrough", "ws", "wss"];
    if let Some(unknown) = protocols.iter().find(|protocol| !KNOWN.contains(&&***protocol)) {
        let remedy = format!("write some of {}", KNOWN.join(", "));
        fields.findings.reject(field, format!("protocol {unknown:?} is unknown"), remedy);
        return RouteProtocol::Http.into();
    }
    let stream = ["tcp", "udp"].into_iter().find(|stream| protocols.iter().all(|protocol| protocol == stream));
    if let Some(stream) = stream {
        return RouteProtocol::Stream(stream).into();
    }
    let is_http = |protocol: &&String| ["http", "https", "ws", "wss", "grpc", "grpcs"].contains(&&***protocol);
    if let Some(stream) = protocols.iter().find(|protocol| !is_http(protocol)) {
        if protocols.iter().any(|protocol| is_http(&protocol)) {
            let message = "a route serves either HTTP or streams";
            fields.findings.reject(&field, message, "write two routes");
        }
        let message = format!("a route of protocol {stream} is not served on the listener of Ingresses");
        fields.findings.leave_out(field, message, "write a TCPRoute, TLSRoute or UDPRoute for it");
        return RouteProtocol::Unserved.into();
    }
    let is_websocket = !protocols.is_empty() && protocols.iter().all(|protocol| protocol.starts_with("ws"));
    let set: BTreeSet<&str> = protocols.iter().map(|protocol| opening_protocol(protocol)).collect();
    let [has_http, has_grpc] = [["http", "https"], ["grpc", "grpcs"]].map(|pair| pair.iter().any(|p| set.contains(p)));
    if has_http && has_grpc {
        let message = "a route serves either HTTP or gRPC";
        fields.findings.reject(field, message, "write two routes");
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

/// The ports of a route of connections or datagrams. Returns whether it has an equivalent.
fn read_stream(
    fields: &mut EntityFields<'_>,
    draft: &mut Draft,
    context: &RouteContext<'_>,
    service: Option<usize>,
    stream: &str,
) -> bool {
    let findings = fields.findings;
    let (sources_field, field) = (fields.field("sources"), fields.field("destinations"));
    let mut is_complete = true;
    if fields.list("sources").is_some_and(|list| !list.is_empty()) {
        let remedy = "attach ip-restriction, or write a NetworkPolicy for the addresses";
        findings.leave_out(sources_field, "routes by source address are not supported", remedy);
        is_complete = false;
    }
    let mut ports = BTreeSet::new();
    for mut destination in fields.entities("destinations", None) {
        let path = destination.path.clone();
        if destination.text("ip").is_some() {
            let remedy = "remove ip, and restrict the addresses of the listener";
            findings.leave_out(&path, "routes by destination address are not supported", remedy);
            is_complete = false;
        }
        ports.extend(destination.number("port", 1, 65_535));
        destination.finish();
    }
    if ports.is_empty() {
        findings.leave_out(
            &field,
            format!("a route of protocol {stream} needs ports"),
            "write destinations with ports",
        );
        return false;
    }
    let Some(service) = service.map(|service| &context.services[service]) else {
        let message = format!("a route of protocol {stream} without a service has no effect");
        findings.leave_out(&field, message, "write its service");
        return false;
    };
    let Some(service_draft) = &service.draft else { return false };
    if service.stream != Some(stream) {
        let message = format!("the service of this route has another protocol than {stream}");
        findings.leave_out(&field, message, format!("set protocol of the service to {stream}"));
        return false;
    }
    let backend = json!({"serviceName": service_draft.name, "servicePort": service.port});
    let rules: Vec<Value> = ports.iter().map(|port| json!({"port": port, "backend": backend})).collect();
    draft.fields.insert("spec".to_owned(), json!({ "rules": rules }));
    if is_complete {
        let suffix = if stream == "udp" { "/udp" } else { "" };
        let entries: Vec<String> = ports.iter().map(|port| format!("{port}{suffix}")).collect();
        let entries = entries.join(",");
        let message = format!("the ports of this route are open only with --ingress-stream-ports {entries}");
        findings.differs(&field, message, "add the flag");
    }
    is_complete
}

/// Reads what has no meaning for streams.
fn finish_stream(
    mut route: Entity<'_>,
    draft: Draft,
    is_served: bool,
    service: Option<usize>,
    label: String,
) -> ConvertedRoute {
    for name in ["strip_path", "preserve_host", "request_buffering", "response_buffering"] {
        route.fields.flag(name);
    }
    for name in ["regex_priority", "https_redirect_status_code", "path_handling"] {
        route.fields.value(name);
    }
    for name in ["hosts", "paths", "methods", "snis", "headers"] {
        let is_empty = |value: &Value| match value {
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if route.fields.value(name).is_some_and(|value| !is_empty(&value)) {
            let field = route.fields.field(name);
            route.fields.findings.reject(field, "this is no condition of connections or datagrams", "remove it");
        }
    }
    route.fields.finish();
    ConvertedRoute { draft: Some(draft).filter(|_| is_served), service, label }
}

/// Returns whether there are any.
fn read_conditions(
    fields: &mut EntityFields<'_>,
    draft: &mut Draft,
    context: &RouteContext<'_>,
    service: Option<usize>,
    is_http: bool,
    is_websocket: bool,
) -> bool {
    let mut hosts = Vec::new();
    for (index, host) in fields.texts("hosts").unwrap_or_default().into_iter().enumerate() {
        if let Some(host) = annotation_host(&host) {
            hosts.push(host);
        } else {
            let message = format!("{host:?} is not a host of a route");
            let remedy = "write a name, also as *.example.com or example.*, or an address, and a port if it counts";
            fields.findings.reject(format!("{}[{index}]", fields.field("hosts")), message, remedy);
        }
    }
    let paths_field = fields.field("paths");
    let paths = fields.texts("paths").unwrap_or_default();
    let methods = fields.texts("methods").unwrap_or_default();
    if let Some(invalid) = methods.iter().find(|name| name.is_empty() || !name.bytes().all(|b| b.is_ascii_uppercase()))
    {
        let message = format!("{invalid:?} is not a method");
        fields.findings.reject(fields.field("methods"), message, "write methods in capital letters");
    }
    let snis = fields.texts("snis").unwrap_or_default();
    for (annotation, list) in [(METHODS, &methods), (SNIS, &snis)] {
        if !list.is_empty() {
            draft.annotate(annotation, list.join(","));
        }
    }
    let mut headers = fields.object("headers").unwrap_or_default();
    let has_headers = !headers.is_empty();
    if is_websocket && !headers.keys().any(|name| name.eq_ignore_ascii_case("upgrade")) {
        headers.insert("Upgrade".to_owned(), json!(["websocket"]));
    }
    read_headers(fields, headers, draft);
    for name in ["sources", "destinations"] {
        if fields.list(name).is_some_and(|list| !list.is_empty()) {
            if is_http {
                let message = format!("{name} are conditions of streams, which Kong does not accept for HTTP");
                fields.findings.reject(fields.field(name), message, "remove them, or use the plugin ip-restriction");
            } else {
                let message = "routes by source or destination address are not supported";
                let remedy = "write a TCPRoute on a listener with that port, and a NetworkPolicy for the addresses";
                fields.findings.leave_out(fields.field(name), message, remedy);
            }
        }
    }
    // The first host is one of the rule if Kubernetes accepts it; a host with a port is not.
    let (rule_host, aliases) = match hosts.split_first() {
        Some((first, rest)) if is_rule_host(first) => (Some(first.to_ascii_lowercase()), rest),
        _ => (None, &hosts[..]),
    };
    if !aliases.is_empty() {
        draft.annotate(HOST_ALIASES, aliases.join(","));
    }
    if paths.is_empty() {
        draft.annotate(ANY_PATH_ANNOTATION, "true");
    }
    if service.is_none() {
        draft.annotate(NO_SERVICE_ANNOTATION, "true");
    }
    let (service_name, port) = match service.map(|service| &context.services[service]) {
        Some(service) => (service.draft.as_ref().map_or(NO_SERVICE, |draft| &draft.name), service.port),
        None => (NO_SERVICE, 80),
    };
    let backend = json!({"service": {"name": service_name, "port": {"number": port}}});
    let mut entries = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        match ingress_path(path, context.version) {
            Ok(path) => {
                entries.push(json!({"path": path, "pathType": "ImplementationSpecific", "backend": backend.clone()}));
            }
            Err((message, remedy)) => fields.findings.reject(format!("{paths_field}[{index}]"), message, remedy),
        }
    }
    if paths.is_empty() {
        entries.push(json!({"path": "/", "pathType": "ImplementationSpecific", "backend": backend}));
    }
    let mut rule = Map::new();
    if let Some(host) = rule_host {
        rule.insert("host".to_owned(), json!(host));
    }
    rule.insert("http".to_owned(), json!({"paths": entries}));
    draft.fields.insert("spec".to_owned(), json!({"rules": [rule]}));
    !(hosts.is_empty() && paths.is_empty() && methods.is_empty() && snis.is_empty()) || has_headers
}

/// The path of an Ingress with the same meaning.
fn ingress_path(path: &str, version: FormatVersion) -> Result<String, (String, String)> {
    if let Some(pattern) = path.strip_prefix('~') {
        if !pattern.starts_with('/') {
            let message = format!("{path:?} does not start with ~/");
            return Err((message, format!("write ~/{pattern}")));
        }
        let pattern = escape_brackets_in_classes(pattern);
        if let Some(error) = regex_error(&pattern) {
            return Err((format!("the regular expression is invalid: {error}"), "correct it".to_owned()));
        }
        return Ok(format!("/~{pattern}"));
    }
    if has_invalid_escape(path) {
        let message = format!("{path:?} has a percent sign that two hexadecimal digits do not follow");
        return Err((message, "write %25 for a percent sign".to_owned()));
    }
    if !path.starts_with('/') {
        let message = format!("{path:?} does not start with a slash");
        return Err((message, format!("write /{path}, or ~/{path} for a regular expression")));
    }
    // Kong's migration of older files adds the ~ to such paths.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~/%-".contains(&byte);
    if version != FormatVersion::V3 && !path.bytes().all(is_plain) {
        return Ok(format!("/~{}", escape_brackets_in_classes(path)));
    }
    if path.starts_with("/~") {
        let message = "a plain path that starts with /~ would be a regular expression in an Ingress";
        return Err((message.to_owned(), format!("write the regular expression ~{path}")));
    }
    if path.contains("//") {
        let message = "no request matches this path, because slashes of requests are merged";
        return Err((message.to_owned(), "write a single slash".to_owned()));
    }
    Ok(path.to_owned())
}

fn is_rule_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        !label.is_empty()
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    name.split('.').all(is_label) && name.parse::<std::net::IpAddr>().is_err()
}

fn read_headers(fields: &EntityFields<'_>, headers: Map<String, Value>, draft: &mut Draft) {
    let mut lists: Vec<(String, Vec<String>)> = Vec::new();
    for (name, values) in headers {
        if name.eq_ignore_ascii_case("host") {
            let field = format!("{}.{name}", fields.field("headers"));
            fields.findings.reject(field, "Kong does not accept `host` here", "write hosts");
            continue;
        }
        let field = format!("{}.{name}", fields.field("headers"));
        let values: Option<Vec<String>> = match values {
            Value::Array(values) => values.into_iter().map(|value| value.as_str().map(str::to_owned)).collect(),
            Value::String(value) => Some(vec![value]),
            _ => None,
        };
        match values {
            Some(values) if !values.is_empty() && values.iter().all(|v| !v.is_empty() && v.trim() == v) => {
                lists.push((name, values));
            }
            _ => fields.findings.reject(field, "these are not values of a header", "write a list of texts"),
        }
    }
    // The values of all headers share one separator.
    let is_free = |separator: &&&str| lists.iter().flat_map(|(_, values)| values).all(|v| !v.contains(**separator));
    let Some(separator) = [",", ";", "|", "\u{1f}"].iter().find(is_free) else {
        let message = "the values of headers contain every separator";
        fields.findings.reject(fields.field("headers"), message, "write one value without a comma, a semicolon or |");
        return;
    };
    if *separator != "," {
        draft.annotate(HEADERS_SEPARATOR, *separator);
    }
    for (name, values) in lists {
        draft.annotate(&format!("{HEADERS_PREFIX}{name}"), values.join(separator));
    }
}

fn read_options(fields: &mut EntityFields<'_>, draft: &mut Draft, serves_grpc: bool) {
    let strip_path = fields.flag("strip_path").unwrap_or(!serves_grpc);
    if strip_path && serves_grpc {
        fields.findings.reject(fields.field("strip_path"), "the path of a gRPC call is its method", "remove it");
    }
    draft.annotate(STRIP_PATH, strip_path.to_string());
    draft.annotate(PRESERVE_HOST, fields.flag("preserve_host").unwrap_or(false).to_string());
    if let Some(status) = fields.number("https_redirect_status_code", 301, 426).filter(|status| *status != 426) {
        if ![301, 302, 307, 308].contains(&status) {
            let message = format!("{status} is not a status of redirects to https");
            let field = fields.field("https_redirect_status_code");
            fields.findings.reject(field, message, "write 426, 301, 302, 307 or 308");
        }
        draft.annotate(HTTPS_REDIRECT_STATUS_CODE, status.to_string());
    }
    if let Some(priority) = fields.number("regex_priority", i64::MIN, i64::MAX).filter(|priority| *priority != 0) {
        draft.annotate(REGEX_PRIORITY, priority.to_string());
    }
    let path_handling = fields.text("path_handling").unwrap_or_else(|| "v0".to_owned());
    if !["v0", "v1"].contains(&&*path_handling) {
        let message = format!("{path_handling:?} is unknown");
        fields.findings.reject(fields.field("path_handling"), message, "write v0 or v1, or remove it");
    }
    if path_handling == "v1" {
        let message = "paths are joined as with v0, as Kong does unless router_flavor is traditional";
        fields.findings.differs(fields.field("path_handling"), message, "remove it, and check the path of the service");
    }
    // Bodies always stream, so these have no effect on what endpoints and clients get.
    for name in ["request_buffering", "response_buffering"] {
        fields.flag(name);
    }
}
