//! The checks of the API server for new Ingresses and IngressClasses that a schema cannot express.

use std::net::IpAddr;

use serde_json::Value;

use crate::api::kong::annotations::INGRESS_CLASS;
use crate::schema::path::ObjectPath;
use crate::schema::pattern_description;
use crate::schema::report::ViolationReport;
use crate::schema::syntax::{DNS_LABEL, DNS_LABEL_1035, DNS_NAME, PORT_NAME, check_grammar};

pub(super) fn check(object: &Value, report: &mut ViolationReport) {
    check_class(object, report);
    let path = ObjectPath::Root.field("spec");
    let spec = &object["spec"];
    let rules = spec["rules"].as_array().map_or(&[][..], Vec::as_slice);
    if rules.is_empty() && spec["defaultBackend"].is_null() {
        report.add(&path, "has neither `rules` nor `defaultBackend`", "add at least one of them");
    }
    if !spec["defaultBackend"].is_null() {
        check_backend(&spec["defaultBackend"], &path.field("defaultBackend"), report);
    }
    let rules_path = path.field("rules");
    for (index, rule) in rules.iter().enumerate() {
        let rule_path = rules_path.index(index);
        check_host(&rule["host"], &rule_path.field("host"), report);
        let http_path = rule_path.field("http");
        let entries_path = http_path.field("paths");
        for (index, entry) in rule["http"]["paths"].as_array().into_iter().flatten().enumerate() {
            let entry_path = entries_path.index(index);
            check_url_path(entry, &entry_path.field("path"), report);
            check_backend(&entry["backend"], &entry_path.field("backend"), report);
        }
    }
    let tls_list_path = path.field("tls");
    for (index, tls) in spec["tls"].as_array().into_iter().flatten().enumerate() {
        let tls_path = tls_list_path.index(index);
        let hosts_path = tls_path.field("hosts");
        for (index, host) in tls["hosts"].as_array().into_iter().flatten().enumerate() {
            check_dns_name(host.as_str().unwrap_or_default(), &hosts_path.index(index), report);
        }
        if let Some(secret) = tls["secretName"].as_str().filter(|secret| !secret.is_empty()) {
            check_grammar(DNS_NAME, secret, "the name of a Secret", &tls_path.field("secretName"), report);
        }
    }
}

/// Checks `spec.ingressClassName`. If the object also has the older annotation [`INGRESS_CLASS`], both must be equal.
fn check_class(object: &Value, report: &mut ViolationReport) {
    let Some(class) = object["spec"]["ingressClassName"].as_str() else { return };
    let spec = ObjectPath::Root.field("spec");
    check_grammar(DNS_NAME, class, "the name of an IngressClass", &spec.field("ingressClassName"), report);
    let annotated = object["metadata"]["annotations"][INGRESS_CLASS].as_str().filter(|annotated| !annotated.is_empty());
    if annotated.is_some_and(|annotated| annotated != class) {
        report.add(
            &ObjectPath::Root.field("metadata").field("annotations").key(INGRESS_CLASS),
            "differs from `spec.ingressClassName`",
            "keep one of the two, or write the same in both",
        );
    }
}

fn check_host(host: &Value, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let Some(host) = host.as_str().filter(|host| !host.is_empty()) else { return };
    if host.parse::<IpAddr>().is_ok() {
        let message = format!("{} is an IP address", report.quote_text(host));
        report.add(path, message, "write a host name, or leave it out to match every host");
    } else {
        check_dns_name(host, path, report);
    }
}

/// A DNS name whose first label may be `*`.
fn check_dns_name(name: &str, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    if !(DNS_NAME.accepts)(name.strip_prefix("*.").unwrap_or(name)) {
        let (message, remedy) = pattern_description::not_a_host_name(name, report);
        report.add(path, message, remedy);
    }
}

/// Sequences that paths of type Exact and Prefix must not contain, each with the problem and the remedy.
const INVALID_SEQUENCES: [(&str, &str, &str); 5] = [
    ("//", "has an empty segment", "write `/` in place of `//`"),
    ("/./", "has a segment `.`", "leave it out"),
    ("/../", "has a segment `..`", "write the resolved path"),
    ("%2f", "has an escaped `/`", "use pathType ImplementationSpecific for it"),
    ("%2F", "has an escaped `/`", "use pathType ImplementationSpecific for it"),
];

/// Sequences that paths of type Exact and Prefix must not end with, each with the problem and the remedy.
const INVALID_ENDS: [(&str, &str, &str); 2] =
    [("/..", "ends with a segment `..`", "write the resolved path"), ("/.", "ends with a segment `.`", "leave it out")];

/// Checks the URL path of an entry of `http.paths`. `field` is the path of the field that contains the URL path.
fn check_url_path(entry: &Value, field: &ObjectPath<'_>, report: &mut ViolationReport) {
    let url_path = entry["path"].as_str().unwrap_or_default();
    let is_literal = matches!(entry["pathType"].as_str(), Some("Exact" | "Prefix"));
    if !url_path.starts_with('/') {
        if url_path.is_empty() && is_literal {
            report.add(field, "is missing", "write a path, for example `/`");
        } else if !url_path.is_empty() {
            report.add(field, format!("{} is not absolute", report.quote_text(url_path)), "begin it with `/`");
        }
    }
    if !is_literal {
        return;
    }
    let contained = INVALID_SEQUENCES.iter().filter(|(sequence, ..)| url_path.contains(sequence));
    let ends = INVALID_ENDS.iter().filter(|(end, ..)| url_path.ends_with(end));
    for (_, problem, remedy) in contained.chain(ends) {
        report.add(field, format!("{} {problem}", report.quote_text(url_path)), *remedy);
    }
}

fn check_backend(backend: &Value, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    match (backend.get("service"), backend.get("resource")) {
        (Some(_), Some(_)) => report.add(path, "has both `service` and `resource`", "keep one of them"),
        (None, None) => {
            report.add(path, "has neither `service` nor `resource`", "name a Service under `service`");
        }
        (Some(service), None) => check_service(service, &path.field("service"), report),
        (None, Some(resource)) => {
            let path = path.field("resource");
            if let Some(group) = resource["apiGroup"].as_str() {
                check_grammar(DNS_NAME, group, "an API group", &path.field("apiGroup"), report);
            }
            for (field, noun) in [("kind", "a kind"), ("name", "a name")] {
                check_path_segment(resource[field].as_str().unwrap_or_default(), noun, &path.field(field), report);
            }
        }
    }
}

fn check_service(service: &Value, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    match service["name"].as_str() {
        None | Some("") => report.add(&path.field("name"), "is empty", "write the name of a Service"),
        Some(name) => check_grammar(DNS_LABEL_1035, name, "the name of a Service", &path.field("name"), report),
    }
    let port = &service["port"];
    let name = port["name"].as_str().filter(|name| !name.is_empty());
    let number = port["number"].as_i64().filter(|number| *number != 0);
    let path = path.field("port");
    match (name, number) {
        (Some(_), Some(_)) => report.add(&path, "has both `name` and `number`", "keep one of them"),
        (None, None) => {
            report.add(&path, "has neither `name` nor `number`", "add one of them, for example `number: 80`")
        }
        (Some(name), None) => check_grammar(PORT_NAME, name, "the name of a port", &path.field("name"), report),
        (None, Some(number)) if !(1..=65535).contains(&number) => {
            report.add(
                &path.field("number"),
                format!("is {number}, which is not a valid port"),
                "use a number from 1 to 65535",
            );
        }
        (None, Some(_)) => {}
    }
}

/// Checks a text that must be usable as a path segment of a URL.
fn check_path_segment(text: &str, noun: &str, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    if text.is_empty() {
        report.add(path, "is empty", format!("write {noun}"));
    } else if text == "." || text == ".." || text.contains(['/', '%']) {
        let message = format!("{} is not {noun}", report.quote_text(text));
        report.add(path, message, "leave `/` and `%` out, and use more than `.` or `..`");
    }
}

/// The maximum length of `spec.controller`.
const MAX_CONTROLLER_LENGTH: usize = 250;

pub(super) fn check_ingress_class(object: &Value, report: &mut ViolationReport) {
    let spec = ObjectPath::Root.field("spec");
    let path = spec.field("controller");
    let controller = object["spec"]["controller"].as_str().unwrap_or_default();
    let remedy = "use a domain, `/` and a path, for example `portico.dev/ingress-controller`";
    if controller.is_empty() {
        report.add(&path, "is missing", remedy);
    } else if !is_domain_and_path(controller) {
        report.add(&path, format!("{} is not the name of a controller", report.quote_text(controller)), remedy);
    }
    if controller.len() > MAX_CONTROLLER_LENGTH {
        let message = format!("has {} bytes, at most {MAX_CONTROLLER_LENGTH} are allowed", controller.len());
        report.add(&path, message, "shorten it");
    }
    let parameters = &object["spec"]["parameters"];
    if parameters.is_null() {
        return;
    }
    let path = spec.field("parameters");
    if let Some(group) = parameters["apiGroup"].as_str() {
        check_grammar(DNS_NAME, group, "an API group", &path.field("apiGroup"), report);
    }
    for (field, noun) in [("kind", "a kind"), ("name", "a name")] {
        check_path_segment(parameters[field].as_str().unwrap_or_default(), noun, &path.field(field), report);
    }
    let namespace = parameters["namespace"].as_str();
    let path = path.field("namespace");
    match (parameters["scope"].as_str(), namespace) {
        (Some("Namespace"), None | Some("")) => {
            report.add(&path, "is missing", "write the namespace of the parameters, or `scope: Cluster`");
        }
        (Some("Namespace"), Some(namespace)) => check_grammar(DNS_LABEL, namespace, "a namespace", &path, report),
        (Some("Cluster"), Some(_)) => {
            report.add(&path, "is set with the scope Cluster", "remove it, or write `scope: Namespace`")
        }
        _ => {}
    }
}

fn is_domain_and_path(text: &str) -> bool {
    let is_path_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    text.split_once('/')
        .is_some_and(|(domain, path)| (DNS_NAME.accepts)(domain) && !path.is_empty() && path.bytes().all(is_path_byte))
}
