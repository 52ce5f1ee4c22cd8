//! Routes: each becomes an Ingress whose annotations have the conditions that an Ingress has no fields for.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::fields::EntityFields;
use super::model::{Entity, EntityIndex, EntityKind, FormatVersion};
use super::names::Names;
use super::objects::Draft;
use super::services::ServicePlan;
use super::settings::TranslationSettings;
use crate::api::kong::annotations::{
    HEADERS_PREFIX, HEADERS_SEPARATOR, HOST_ALIASES, HTTPS_REDIRECT_STATUS_CODE, METHODS, PRESERVE_HOST, PROTOCOLS,
    REGEX_PRIORITY, SNIS, STRIP_PATH,
};
use crate::api::names::ANY_PATH_ANNOTATION;

/// What became of a route.
pub(super) struct ConvertedRoute {
    /// `None` if it is not served.
    pub(super) draft: Option<Draft>,
    pub(super) service: Option<usize>,
    /// Its name in the file, for messages and names.
    pub(super) label: String,
}

/// The name of the Service without endpoints, for routes without a service.
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
    let mut draft = Draft::new("networking.k8s.io/v1", "Ingress", &name, &path).of_class(context.settings);
    let is_http = read_protocols(fields, &mut draft);
    let has_conditions = read_conditions(fields, &mut draft, context, service, is_http);
    read_options(fields, &mut draft);
    let is_expression = fields.value("expression").is_some() | fields.value("priority").is_some();
    route.fields.finish();
    if is_expression {
        let message = "routes with expressions are not supported, and without one the order of all routes would change";
        findings.reject(&path, message, "write its conditions as hosts, paths, methods and headers");
    }
    let is_served = service.is_none_or(|service| context.services[service].draft.is_some());
    if is_http && !has_conditions && !is_expression {
        let message = "the route has no condition, and Kong does not accept such a route";
        findings.reject(&path, message, "add hosts, paths, methods, headers or snis; paths: [/] matches everything");
    }
    ConvertedRoute { draft: Some(draft).filter(|_| is_http && is_served), service, label }
}

/// Whether the route is one of HTTP requests.
fn read_protocols(fields: &mut EntityFields<'_>, draft: &mut Draft) -> bool {
    let field = fields.field("protocols");
    let Some(protocols) = fields.texts("protocols").filter(|protocols| !protocols.is_empty()) else { return true };
    const KNOWN: [&str; 9] = ["http", "https", "grpc", "grpcs", "tcp", "udp", "tls", "tls_passthrough", "ws"];
    if let Some(unknown) = protocols.iter().find(|protocol| !KNOWN.contains(&&***protocol)) {
        let remedy = format!("write some of {}", KNOWN.join(", "));
        fields.findings.reject(field, format!("protocol {unknown:?} is unknown"), remedy);
        return true;
    }
    if let Some(stream) = protocols.iter().find(|protocol| !["http", "https", "grpc", "grpcs"].contains(&&***protocol))
    {
        let message = format!("a route of protocol {stream} is not served on the listener of Ingresses");
        fields.findings.leave_out(field, message, "write a TCPRoute, TLSRoute or UDPRoute for it");
        return false;
    }
    let set: BTreeSet<&str> = protocols.iter().map(String::as_str).collect();
    let [has_http, has_grpc] = [["http", "https"], ["grpc", "grpcs"]].map(|pair| pair.iter().any(|p| set.contains(p)));
    if has_http && has_grpc {
        let message = "a route serves either HTTP or gRPC";
        fields.findings.reject(field, message, "write two routes");
    }
    if set != BTreeSet::from(["http", "https"]) {
        draft.annotate(PROTOCOLS, protocols.join(","));
    }
    true
}

/// Returns whether there are any.
fn read_conditions(
    fields: &mut EntityFields<'_>,
    draft: &mut Draft,
    context: &RouteContext<'_>,
    service: Option<usize>,
    is_http: bool,
) -> bool {
    let hosts = fields.texts("hosts").unwrap_or_default();
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
    let headers = fields.object("headers").unwrap_or_default();
    let has_headers = !headers.is_empty();
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
        return Ok(format!("/~{pattern}"));
    }
    if !path.starts_with('/') {
        let message = format!("{path:?} does not start with a slash");
        return Err((message, format!("write /{path}, or ~/{path} for a regular expression")));
    }
    // Kong's migration of older files adds the ~ to such paths.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~/%-".contains(&byte);
    if version != FormatVersion::V3 && !path.bytes().all(is_plain) {
        return Ok(format!("/~{path}"));
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

fn read_options(fields: &mut EntityFields<'_>, draft: &mut Draft) {
    draft.annotate(STRIP_PATH, fields.flag("strip_path").unwrap_or(true).to_string());
    draft.annotate(PRESERVE_HOST, fields.flag("preserve_host").unwrap_or(false).to_string());
    if let Some(status) = fields.number("https_redirect_status_code", 301, 426).filter(|status| *status != 426) {
        draft.annotate(HTTPS_REDIRECT_STATUS_CODE, status.to_string());
    }
    if let Some(priority) = fields.number("regex_priority", i64::MIN, i64::MAX).filter(|priority| *priority != 0) {
        draft.annotate(REGEX_PRIORITY, priority.to_string());
    }
    if fields.text("path_handling").as_deref() == Some("v1") {
        let message = "paths are joined as with v0, as Kong does unless router_flavor is traditional";
        fields.findings.differs(fields.field("path_handling"), message, "remove it, and check the path of the service");
    }
    // Bodies always stream, so these have no effect on what endpoints and clients get.
    for name in ["request_buffering", "response_buffering"] {
        fields.flag(name);
    }
}
