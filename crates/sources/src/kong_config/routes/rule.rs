//! The rule of an Ingress, from the hosts and the paths of a route.

use serde_json::{Map, Value, json};

use super::super::fields::EntityFields;
use super::super::model::FormatVersion;
use super::super::objects::Draft;
use super::super::paths::{escape_brackets_in_classes, has_invalid_escape, regex_error};
use super::super::services::ServicePlan;
use super::conditions::RouteConditions;
use crate::api::kong::annotations::HOST_ALIASES;
use crate::api::names::{ANY_PATH_ANNOTATION, NO_SERVICE_ANNOTATION};

/// The name of the Service without endpoints that the Ingresses of routes without a service name.
pub(in crate::kong_config) const NO_SERVICE: &str = "no-service";

/// Adds the rule to the Ingress, and annotations for what a rule does not say. Rejects paths that have no equivalent.
pub(super) fn add(
    conditions: &RouteConditions,
    service: Option<&ServicePlan>,
    version: FormatVersion,
    fields: &EntityFields<'_>,
    draft: &mut Draft,
) {
    let RouteConditions { hosts, paths, .. } = conditions;
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
    let mut rule = Map::new();
    if let Some(host) = rule_host {
        rule.insert("host".to_owned(), json!(host));
    }
    let paths = convert_paths(paths, &backend_of(service), version, fields);
    rule.insert("http".to_owned(), json!({ "paths": paths }));
    draft.fields.insert("spec".to_owned(), json!({"rules": [rule]}));
}

fn backend_of(service: Option<&ServicePlan>) -> Value {
    let (name, port) = match service {
        Some(service) => (service.draft.as_ref().map_or(NO_SERVICE, |draft| &draft.name), service.port),
        None => (NO_SERVICE, 80),
    };
    json!({"service": {"name": name, "port": {"number": port}}})
}

/// The paths of the rule: all of them if the route names none.
fn convert_paths(paths: &[String], backend: &Value, version: FormatVersion, fields: &EntityFields<'_>) -> Vec<Value> {
    let entry = |path: &str| json!({"path": path, "pathType": "ImplementationSpecific", "backend": backend});
    if paths.is_empty() {
        return vec![entry("/")];
    }
    let mut entries = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        match ingress_path(path, version) {
            Ok(path) => entries.push(entry(&path)),
            Err((message, remedy)) => {
                fields.findings.reject(format!("{}[{index}]", fields.field("paths")), message, remedy);
            }
        }
    }
    entries
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
