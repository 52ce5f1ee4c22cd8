//! Computes frontends and targets of Services, and renders them as an nft ruleset.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::LOAD_BALANCER_RANGE;

/// The address, protocol and port that clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Frontend {
    address: Ipv4Addr,
    protocol: Protocol,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Protocol {
    Tcp,
    Udp,
}

/// Addresses and ports of endpoints.
pub(super) type Targets = BTreeSet<(Ipv4Addr, u16)>;

/// The frontends of a Service with this address, and the targets of each from the Service's EndpointSlices.
pub(super) fn frontends<'a>(
    service: &Service,
    address: Ipv4Addr,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> BTreeMap<Frontend, Targets> {
    let slices: Vec<&EndpointSlice> = slices.filter(|slice| is_slice_of(slice, service)).collect();
    let mut targets_by_frontend = BTreeMap::new();
    for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
        let Some(protocol) = parse_protocol(port.protocol.as_deref()) else { continue };
        let Ok(number) = u16::try_from(port.port) else { continue };
        targets_by_frontend.insert(Frontend { address, protocol, port: number }, targets(port, protocol, &slices));
    }
    targets_by_frontend
}

/// Renders the ruleset as one transaction, so that packets are never without rules. A rule for each target instead of a
/// map of targets: a packet that is in a chain during the transaction finds the elements of neither map.
pub(super) fn render(targets_by_frontend: &BTreeMap<Frontend, Targets>) -> String {
    // The table is created first, so that flushing it succeeds even if there was none.
    let mut text =
        String::from("table ip balancer\nflush table ip balancer\ntable ip balancer {\n chain choose_target {\n");
    for (Frontend { address, protocol, port }, targets) in targets_by_frontend {
        let protocol = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        for (number, (ip, target_port)) in targets.iter().enumerate() {
            // All targets are equally likely: the first of n with a probability of 1/n, the next of what is left with
            // 1/(n-1), and the last always.
            let left = targets.len() - number;
            // Writing to a string cannot fail.
            _ = writeln!(
                text,
                "  ip daddr {address} {protocol} dport {port} numgen random mod {left} 0 dnat ip to {ip}:{target_port}"
            );
        }
    }
    // The hooks prerouting and forward get packets from Pods, the hook output those of programs in the cluster's
    // network namespace.
    text.push_str(&format!(
        " }}
 chain refuse {{
  ip daddr {LOAD_BALANCER_RANGE} meta l4proto tcp reject with tcp reset
  ip daddr {LOAD_BALANCER_RANGE} reject
 }}
 chain prerouting_nat {{
  type nat hook prerouting priority -100
  jump choose_target
 }}
 chain output_nat {{
  type nat hook output priority -100
  jump choose_target
 }}
 chain forward_filter {{
  type filter hook forward priority 0
  jump refuse
 }}
 chain output_filter {{
  type filter hook output priority 0
  jump refuse
 }}
}}
"
    ));
    text
}

fn is_slice_of(slice: &EndpointSlice, service: &Service) -> bool {
    let labels = slice.metadata.labels.as_ref();
    slice.address_type == "IPv4"
        && slice.metadata.namespace == service.metadata.namespace
        && labels.and_then(|labels| labels.get("kubernetes.io/service-name")) == service.metadata.name.as_ref()
        && service.metadata.name.is_some()
}

/// The targets of a Service port: its ready endpoints; if there are none, those that are terminating but still serving.
fn targets(port: &ServicePort, protocol: Protocol, slices: &[&EndpointSlice]) -> Targets {
    let (mut ready, mut terminating) = (Targets::new(), Targets::new());
    for slice in slices {
        // Ports of Services and EndpointSlices match by name.
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let mut ports = slice.ports.iter().flatten();
        let slice_port = ports.find(|slice_port| {
            name(&slice_port.name) == name(&port.name)
                && parse_protocol(slice_port.protocol.as_deref()) == Some(protocol)
        });
        let Some(number) = slice_port.and_then(|port| port.port).and_then(|port| u16::try_from(port).ok()) else {
            continue;
        };
        for endpoint in slice.endpoints.iter().flatten() {
            let addresses = endpoint.addresses.iter().filter_map(|address| Some((address.parse().ok()?, number)));
            match readiness(endpoint) {
                Readiness::Ready => ready.extend(addresses),
                Readiness::Terminating => terminating.extend(addresses),
                Readiness::NotReady => {}
            }
        }
    }
    if ready.is_empty() { terminating } else { ready }
}

enum Readiness {
    Ready,
    Terminating,
    NotReady,
}

fn readiness(endpoint: &Endpoint) -> Readiness {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    if conditions.ready.unwrap_or(true) {
        Readiness::Ready
    } else if conditions.serving == Some(true) && conditions.terminating == Some(true) {
        Readiness::Terminating
    } else {
        Readiness::NotReady
    }
}

fn parse_protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 64, 1);

    fn slice(service: &str, port: &Value, endpoints: &Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": { "namespace": "space", "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4",
            "ports": [port],
            "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn endpoint(address: &str, ready: bool, terminating: bool) -> Value {
        let conditions = json!({ "ready": ready, "serving": ready || terminating, "terminating": terminating });
        json!({ "addresses": [address], "conditions": conditions })
    }

    #[test]
    fn ports_match_by_name_and_ready_endpoints_are_preferred() {
        let service = json!({
            "metadata": { "namespace": "space", "name": "web" },
            "spec": { "ports": [
                { "name": "http", "port": 80 },
                { "name": "dns", "port": 53, "protocol": "UDP" },
                { "name": "none", "port": 81 },
            ] },
        });
        let service: Service = serde_json::from_value(service).unwrap();
        let http = json!({ "name": "http", "port": 3000 });
        let dns = json!({ "name": "dns", "port": 5353, "protocol": "UDP" });
        let (a, b, c) = ("198.18.128.1", "198.18.128.2", "198.18.128.3");
        for (slices, expected) in [
            (
                vec![slice("web", &http, &json!([endpoint(a, true, false), endpoint(b, false, false)]))],
                vec![("tcp", 80, vec![(a, 3000)])],
            ),
            (
                vec![slice("web", &http, &json!([endpoint(a, true, false), endpoint(b, false, true)]))],
                vec![("tcp", 80, vec![(a, 3000)])],
            ),
            (vec![slice("web", &http, &json!([endpoint(b, false, true)]))], vec![("tcp", 80, vec![(b, 3000)])]),
            (
                vec![
                    slice("web", &http, &json!([endpoint(a, true, false)])),
                    slice("web", &http, &json!([endpoint(c, true, false), { "addresses": [b] }])),
                    slice("web", &dns, &json!([endpoint(a, true, false)])),
                    slice("other", &http, &json!([endpoint("198.18.128.9", true, false)])),
                ],
                vec![("tcp", 80, vec![(a, 3000), (b, 3000), (c, 3000)]), ("udp", 53, vec![(a, 5353)])],
            ),
        ] {
            let rules = render(&frontends(&service, VIP, slices.iter()));
            let rendered: Vec<&str> = rules.lines().filter(|line| line.contains("dnat")).map(str::trim).collect();
            let expected: Vec<String> = expected
                .into_iter()
                .flat_map(|(protocol, port, targets)| {
                    let left = (1..=targets.len()).rev();
                    targets.into_iter().zip(left).map(move |((ip, target_port), left)| {
                        format!("ip daddr {VIP} {protocol} dport {port} numgen random mod {left} 0 dnat ip to {ip}:{target_port}")
                    })
                })
                .collect();
            assert_eq!(rendered, expected);
        }
    }
}
