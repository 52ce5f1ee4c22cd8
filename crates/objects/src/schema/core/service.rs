//! The checks and defaults of the API server for Services that a schema cannot express.

use std::collections::HashMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::schema::path::ObjectPath;
use crate::schema::report::ViolationReport;
use crate::schema::syntax::{DNS_LABEL, DNS_NAME, PORT_NAME, QUALIFIED_NAME, check_grammar};

pub(super) fn check(object: &mut Value, report: &mut ViolationReport) {
    let Some(spec) = object.get_mut("spec") else { return };
    let path = ObjectPath::Root.field("spec");
    let service_type = spec["type"].as_str().unwrap_or_default();
    let is_external_name = service_type == "ExternalName";
    let is_headless = spec["clusterIP"] == "None";
    if is_external_name {
        check_external_name(spec, &path, report);
    } else if !["ClusterIP", "NodePort", "LoadBalancer"].contains(&service_type) {
        // The invalid type has been reported already. Whether ports are required depends on the correct type.
    } else if !is_headless && spec["ports"].as_array().is_none_or(Vec::is_empty) {
        report.add(
            &path.field("ports"),
            "is missing",
            "add at least one port; only a headless Service (`clusterIP: None`) may have none",
        );
    }
    check_cluster_ip(spec, is_external_name, &path, report);
    check_ports(spec, &path.field("ports"), report);
}

fn check_external_name(spec: &Value, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let path = path.field("externalName");
    // A trailing dot marks a fully qualified name.
    let name = spec["externalName"].as_str().unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        report.add(&path, "is missing", "a Service of type ExternalName needs the DNS name it stands for");
    } else {
        check_grammar(DNS_NAME, name, "a DNS name", &path, report);
    }
}

fn check_cluster_ip(spec: &Value, is_external_name: bool, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let path = path.field("clusterIP");
    match spec["clusterIP"].as_str() {
        None | Some("") => {}
        Some(_) if is_external_name => {
            report.add(&path, "is set on a Service of type ExternalName", "remove it, or change the type");
        }
        Some("None") => {}
        Some(text) if text.parse::<IpAddr>().is_ok() => {}
        Some(text) => report.add(
            &path,
            format!("{} is not an address", report.quote_text(text)),
            "write `None` for a headless Service, or leave it out to have an address assigned",
        ),
    }
}

fn check_ports(spec: &mut Value, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return };
    let has_several_ports = ports.len() > 1;
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut numbers: HashMap<(String, i64), usize> = HashMap::new();
    for (index, port) in ports.iter_mut().enumerate() {
        let port_path = path.index(index);
        let name = port["name"].as_str().unwrap_or_default().to_owned();
        let protocol = port["protocol"].as_str().unwrap_or_default().to_owned();
        let number = port["port"].as_i64().unwrap_or_default();
        if name.is_empty() {
            if has_several_ports {
                report.add(
                    &port_path.field("name"),
                    "is missing",
                    "each port needs a name when there are several, for example `name: http`",
                );
            }
        } else {
            check_grammar(DNS_LABEL, &name, "the name of a port", &port_path.field("name"), report);
            if let Some(first) = names.get(&name) {
                let message = format!("duplicate value: {}", report.quote_text(&name));
                report.add(
                    &port_path.field("name"),
                    message,
                    format!("{} has the same name; change one", path.index(*first)),
                );
            } else {
                names.insert(name, index);
            }
        }
        if let Some(first) = numbers.get(&(protocol.clone(), number)) {
            let message = format!("duplicate value: port {number} of {protocol}");
            report.add(
                &port_path,
                message,
                format!("{} has the same number and protocol; change one or remove it", path.index(*first)),
            );
        } else {
            numbers.insert((protocol, number), index);
        }
        check_target_port(port, number, &port_path, report);
        check_app_protocol(port, &port_path, report);
    }
}

/// Checks `targetPort`, which defaults to a valid `port`. 0 and the empty name count as absent.
fn check_target_port(port: &mut Value, number: i64, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let field = path.field("targetPort");
    match &port["targetPort"] {
        Value::String(name) if !name.is_empty() => {
            check_grammar(PORT_NAME, name, "the name of a container's port", &field, report);
        }
        Value::Number(target) if target.as_i64() != Some(0) => {
            if !target.as_i64().is_some_and(|target| (1..=65535).contains(&target)) {
                report.add(&field, format!("is {target}, which is not a valid port"), "use a number from 1 to 65535");
            }
        }
        Value::Null | Value::String(_) | Value::Number(_) => {
            if let Value::Object(port) = port
                && (1..=65535).contains(&number)
            {
                port.insert("targetPort".to_owned(), json!(number));
            }
        }
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => {}
    }
}

pub(super) fn check_app_protocol(port: &Value, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    if let Some(protocol) = port["appProtocol"].as_str() {
        check_grammar(QUALIFIED_NAME, protocol, "an application protocol", &path.field("appProtocol"), report);
    }
}
