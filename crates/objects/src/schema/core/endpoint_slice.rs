//! EndpointSlice: addresses match the address type, port names are unique.
//!
//! Loopback and link-local addresses, which the API server rejects, are accepted: without a cluster, backends may have
//! such addresses, and in a cluster the API server has already validated the object.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::service::check_app_protocol;
use crate::schema::path::ObjectPath;
use crate::schema::report::ViolationReport;
use crate::schema::syntax::{DNS_LABEL, DNS_NAME, check_grammar};

pub(super) fn check(object: &mut Value, report: &mut ViolationReport) {
    let address_type = object["addressType"].as_str().unwrap_or_default();
    let path = ObjectPath::Root.field("endpoints");
    for (index, endpoint) in object["endpoints"].as_array().into_iter().flatten().enumerate() {
        let endpoint_path = path.index(index);
        let addresses = endpoint_path.field("addresses");
        for (index, address) in endpoint["addresses"].as_array().into_iter().flatten().enumerate() {
            // An invalid address type has been reported.
            if let Some(address) = address.as_str().filter(|_| ["IPv4", "IPv6", "FQDN"].contains(&address_type)) {
                check_address(address_type, address, &addresses.index(index), report);
            }
        }
        if let Some(hostname) = endpoint["hostname"].as_str().filter(|hostname| !hostname.is_empty()) {
            check_grammar(DNS_LABEL, hostname, "a DNS label", &endpoint_path.field("hostname"), report);
        }
    }
    check_ports(object, report);
}

fn check_address(address_type: &str, address: &str, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let is_v4 = address.parse::<Ipv4Addr>().is_ok();
    let is_v6 = address.parse::<Ipv6Addr>().is_ok();
    let (is_valid, noun, example) = match address_type {
        "IPv4" => (is_v4, "an IPv4 address", "192.0.2.1"),
        "IPv6" => (is_v6, "an IPv6 address", "2001:db8::1"),
        _ => (!is_v4 && !is_v6 && is_fully_qualified(address), "a full DNS name", "web.example.com"),
    };
    if is_valid {
        return;
    }
    let actual_type = match (is_v4, is_v6) {
        (true, _) => Some("IPv4"),
        (_, true) => Some("IPv6"),
        _ if is_fully_qualified(address) && !ends_in_number(address) => Some("FQDN"),
        _ => None,
    };
    let remedy = match actual_type {
        Some(actual_type) => {
            format!("move it to an EndpointSlice of `addressType: {actual_type}`, or change `addressType`")
        }
        None if address.contains(':')
            && address.rsplit_once(':').is_some_and(|(host, _)| host.parse::<Ipv4Addr>().is_ok()) =>
        {
            "remove the port: it belongs under `ports`".to_owned()
        }
        None => format!("write one, for example `{example}`"),
    };
    report.add(path, format!("{} is not {noun}", report.quote_text(address)), remedy);
}

/// Whether the text is a DNS name with at least two labels.
fn is_fully_qualified(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    (DNS_NAME.accepts)(text) && text.contains('.')
}

/// Whether the last label is a number, as in an invalid IPv4 address: no top-level domain is a number.
fn ends_in_number(text: &str) -> bool {
    text.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
}

fn check_ports(object: &Value, report: &mut ViolationReport) {
    let path = ObjectPath::Root.field("ports");
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (index, port) in object["ports"].as_array().into_iter().flatten().enumerate() {
        let port_path = path.index(index);
        let name = port["name"].as_str().unwrap_or_default();
        if !name.is_empty() {
            check_grammar(DNS_LABEL, name, "the name of a port", &port_path.field("name"), report);
        }
        if let Some(first) = names.get(name) {
            let message = format!("duplicate value: {}", report.quote_text(name));
            report.add(
                &port_path.field("name"),
                message,
                format!("{} has the same name; change one", path.index(*first)),
            );
        } else {
            names.insert(name, index);
        }
        check_app_protocol(port, &port_path, report);
    }
}
