//! The conditions of a route for requests.

use serde_json::Value;

use super::super::fields::EntityFields;
use super::super::objects::Draft;
use super::super::route_hosts::annotation_host;
use super::headers::{self, HeaderConditions};
use super::protocols::{RouteProtocol, RouteProtocols};
use crate::api::kong::annotations::{METHODS, SNIS};

/// The conditions of a route, without those that are reported.
pub(super) struct RouteConditions {
    pub(super) hosts: Vec<String>,
    pub(super) paths: Vec<String>,
    methods: Vec<String>,
    snis: Vec<String>,
    headers: HeaderConditions,
    /// Whether there is one, whether or not it is valid.
    pub(super) exist: bool,
}

impl RouteConditions {
    pub(super) fn read(fields: &mut EntityFields<'_>, protocols: &RouteProtocols) -> Self {
        let names_hosts = fields.peek("hosts").and_then(Value::as_array).is_some_and(|hosts| !hosts.is_empty());
        let hosts = read_hosts(fields);
        let paths = fields.texts("paths").unwrap_or_default();
        let methods = read_methods(fields);
        let snis = fields.texts("snis").unwrap_or_default();
        let headers = headers::read(fields, protocols.is_websocket);
        report_addresses(fields, protocols.protocol);
        let exist =
            names_hosts || !(paths.is_empty() && methods.is_empty() && snis.is_empty()) || headers.are_in_the_file;
        RouteConditions { hosts, paths, methods, snis, headers, exist }
    }

    /// Writes the conditions that an Ingress has no fields for, except the hosts.
    pub(super) fn annotate(&self, draft: &mut Draft) {
        for (annotation, list) in [(METHODS, &self.methods), (SNIS, &self.snis)] {
            if !list.is_empty() {
                draft.annotate(annotation, list.join(","));
            }
        }
        self.headers.annotate(draft);
    }
}

fn read_hosts(fields: &mut EntityFields<'_>) -> Vec<String> {
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
    hosts
}

fn read_methods(fields: &mut EntityFields<'_>) -> Vec<String> {
    let methods = fields.texts("methods").unwrap_or_default();
    let is_method = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase());
    if let Some(invalid) = methods.iter().find(|name| !is_method(name)) {
        let message = format!("{invalid:?} is not a method");
        fields.findings.reject(fields.field("methods"), message, "write methods in capital letters");
    }
    methods
}

/// Reports conditions of streams.
fn report_addresses(fields: &mut EntityFields<'_>, protocol: RouteProtocol) {
    for name in ["sources", "destinations"] {
        if !fields.has_entries(name) {
            continue;
        }
        if protocol == RouteProtocol::Http {
            let message = format!("{name} are conditions of streams, which Kong does not accept for HTTP");
            fields.findings.reject(fields.field(name), message, "remove them, or use the plugin ip-restriction");
        } else {
            let message = "routes by source or destination address are not supported";
            let remedy = "write a TCPRoute on a listener with that port, and a NetworkPolicy for the addresses";
            fields.findings.leave_out(fields.field(name), message, remedy);
        }
    }
}
