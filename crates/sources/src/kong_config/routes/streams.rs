//! Routes of connections and datagrams, which become TCPIngresses and UDPIngresses.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::fields::EntityFields;
use super::super::model::Entity;
use super::super::objects::Draft;
use super::super::services::ServicePlan;

/// The object. `None` if the route has no equivalent. `stream`: `tcp` or `udp`.
pub(super) fn plan(
    mut route: Entity<'_>,
    mut draft: Draft,
    service: Option<&ServicePlan>,
    stream: &str,
) -> Option<Draft> {
    let conditions = StreamConditions::read(&mut route.fields);
    let is_served = convert(&conditions, service, stream, &route.fields, &mut draft);
    reject_conditions_of_requests(&mut route.fields);
    route.fields.finish();
    is_served.then_some(draft)
}

/// The conditions of a route of connections or datagrams.
struct StreamConditions {
    ports: BTreeSet<i64>,
    /// Whether the ports are all conditions. The others are reported.
    is_complete: bool,
}

impl StreamConditions {
    fn read(fields: &mut EntityFields<'_>) -> Self {
        let findings = fields.findings;
        let mut conditions = StreamConditions { ports: BTreeSet::new(), is_complete: true };
        if fields.has_entries("sources") {
            let remedy = "attach ip-restriction, or write a NetworkPolicy for the addresses";
            findings.leave_out(fields.field("sources"), "routes by source address are not supported", remedy);
            conditions.is_complete = false;
        }
        for mut destination in fields.entities("destinations", None) {
            if destination.text("ip").is_some() {
                let remedy = "remove ip, and restrict the addresses of the listener";
                findings.leave_out(&destination.path, "routes by destination address are not supported", remedy);
                conditions.is_complete = false;
            }
            conditions.ports.extend(destination.number("port", 1, 65_535));
            destination.finish();
        }
        conditions
    }
}

/// Writes the rules of the object. Returns whether the route has an equivalent.
fn convert(
    conditions: &StreamConditions,
    service: Option<&ServicePlan>,
    stream: &str,
    fields: &EntityFields<'_>,
    draft: &mut Draft,
) -> bool {
    let StreamConditions { ports, is_complete } = conditions;
    let (field, findings) = (fields.field("destinations"), fields.findings);
    if ports.is_empty() {
        let message = format!("a route of protocol {stream} needs ports");
        findings.leave_out(&field, message, "write destinations with ports");
        return false;
    }
    let Some(service) = service else {
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
    if *is_complete {
        let suffix = if stream == "udp" { "/udp" } else { "" };
        let entries: Vec<String> = ports.iter().map(|port| format!("{port}{suffix}")).collect();
        let entries = entries.join(",");
        let message = format!("the ports of this route are open only with --ingress-stream-ports {entries}");
        findings.differs(&field, message, "add the flag");
    }
    *is_complete
}

/// Reads what has no meaning for streams.
fn reject_conditions_of_requests(fields: &mut EntityFields<'_>) {
    for name in ["strip_path", "preserve_host", "request_buffering", "response_buffering"] {
        fields.flag(name);
    }
    for name in ["regex_priority", "https_redirect_status_code", "path_handling"] {
        fields.value(name);
    }
    for name in ["hosts", "paths", "methods", "snis", "headers"] {
        let is_empty = |value: &Value| match value {
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if fields.value(name).is_some_and(|value| !is_empty(&value)) {
            let message = "this is no condition of connections or datagrams";
            fields.findings.reject(fields.field(name), message, "remove it");
        }
    }
}
