//! Selects the Service of each Gateway, and the ports of that Service that count. The same selection is used to write
//! the Service, to listen on its target ports, and to publish its addresses to clients.
//!
//! A user who may write Services can create one that looks like Portico's, or edit Portico's own. Neither takes a port
//! on which Portico already listens for another Gateway: only the oldest Service that names a Gateway counts, and only
//! its ports that the Gateway has. If several Services have the same target port, the port stays with the Gateway for
//! which Portico listens on it; if Portico does not listen on it yet, the oldest of these Services gets it.

use std::collections::{BTreeMap, BTreeSet};

use super::DesiredServices;
use super::plan::ServicesByKey;
use super::service::KnownService;
use crate::api::ObjectKey;
use crate::transport_protocol::TransportPort;

/// The ports that this process listens on, on all interfaces, each with its Gateway.
pub type ListeningPorts = BTreeMap<u16, ObjectKey>;

/// The Service of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SelectedService<'a> {
    pub(super) service: &'a KnownService,
    /// The ports of the Service that count, each with its target port.
    pub(super) ports: BTreeMap<TransportPort, u16>,
}

/// The Service that counts for each Gateway in `desired_services`, with its ports. Gateways without one are left out.
pub(super) fn select_services<'a>(
    desired_services: &'a DesiredServices,
    services: &'a ServicesByKey,
    listening_ports: &ListeningPorts,
) -> BTreeMap<&'a ObjectKey, SelectedService<'a>> {
    let mut by_age: Vec<&KnownService> = services.values().map(|service| &**service).collect();
    by_age.sort_by_key(|service| (service.created, &service.key));
    let mut selected: BTreeMap<&ObjectKey, SelectedService<'_>> = BTreeMap::new();
    let mut claims = Vec::new();
    for service in by_age {
        let Some((gateway, desired)) = desired_services.gateways.get_key_value(&service.owner.gateway) else {
            continue;
        };
        if desired.uid != service.owner.uid || selected.contains_key(gateway) {
            continue;
        }
        selected.insert(gateway, SelectedService { service, ports: BTreeMap::new() });
        let requested = service.ports.iter().filter(|(port, _)| desired.ports.contains(port));
        claims.extend(requested.map(|(port, target)| (gateway, *port, *target)));
    }
    // Claims of the Gateways for which Portico listens come first (`false` is less than `true`). The sort is stable, so
    // ties keep the order by age.
    claims.sort_by_key(|(gateway, _, target)| listening_ports.get(target) != Some(*gateway));
    let mut taken = BTreeSet::new();
    for (gateway, port, target) in claims {
        if taken.insert(target)
            && let Some(selected) = selected.get_mut(gateway)
        {
            selected.ports.insert(port, target);
        }
    }
    selected
}

impl SelectedService<'_> {
    /// Whether clients connect through the Service.
    pub(super) fn accepts_clients(&self) -> bool {
        !self.service.terminating && !self.service.headless
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::k8s::services::DesiredService;

    /// A Service that claims to belong to Gateway `namespace/web`.
    fn service(namespace: &str, name: &str, created: i64, ports: &[(u16, u16)]) -> KnownService {
        let ports: Vec<_> = ports.iter().map(|(port, target)| json!({"port": port, "targetPort": target})).collect();
        let object = json!({
            "metadata": {
                "namespace": namespace, "name": name, "uid": name,
                "creationTimestamp": jiff::Timestamp::from_second(created).unwrap().to_string(),
                "labels": {"app.kubernetes.io/managed-by": "portico"},
                "ownerReferences": [{
                    "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "web", "controller": true,
                    "uid": format!("uid of {namespace}/web"),
                }],
            },
            "spec": {"ports": ports},
        });
        KnownService::read(&serde_json::from_value(object).unwrap()).unwrap()
    }

    fn gateway(namespace: &str) -> ObjectKey {
        ObjectKey::new(namespace, "web")
    }

    fn desired_services(gateways: &[(&str, &[u16])]) -> DesiredServices {
        let desired = |(namespace, ports): &(&str, &[u16])| {
            let key = gateway(namespace);
            let uid = Arc::from(format!("uid of {key}"));
            let ports = ports.iter().copied().map(TransportPort::tcp).collect();
            (key, DesiredService { uid, ports, ..DesiredService::default() })
        };
        DesiredServices { gateways: gateways.iter().map(desired).collect(), ..DesiredServices::default() }
    }

    /// The selected Services and ports, as `NAMESPACE SERVICE PORT>TARGET`.
    fn selected(
        desired_services: &DesiredServices,
        services: Vec<KnownService>,
        listening_ports: &[(u16, &str)],
    ) -> Vec<String> {
        let services = services.into_iter().map(|service| (service.key.clone(), Arc::new(service))).collect();
        let listening_ports = listening_ports.iter().map(|(port, namespace)| (*port, gateway(namespace))).collect();
        let selected = select_services(desired_services, &services, &listening_ports);
        let describe = |(gateway, selected): (&&ObjectKey, &SelectedService<'_>)| {
            let ports: Vec<_> = selected.ports.iter().map(|(port, target)| format!(" {port}>{target}")).collect();
            format!("{} {}{}", gateway.namespace, selected.service.key.name, ports.concat())
        };
        selected.iter().map(describe).collect()
    }

    #[test]
    fn services_cannot_claim_ports_of_another_gateway() {
        let both: &[(&str, &[u16])] = &[("a", &[80]), ("v", &[80])];
        let victim = || service("v", "web-portico", 5, &[(80, 10_001)]);
        let attacker = |target| service("a", "web-portico", 1, &[(80, target)]);
        let mut other_uid = service("a", "before", 0, &[(80, 10_001)]);
        other_uid.owner.uid = Arc::from("of a deleted one");
        type Case<'a> = (&'a str, Vec<KnownService>, &'a [(u16, &'a str)], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            (
                "each Gateway has its own ports",
                vec![attacker(10_000), victim()],
                &[],
                &["a web-portico 80>10000", "v web-portico 80>10001"],
            ),
            (
                "a second Service for one Gateway",
                vec![attacker(10_000), victim(), service("a", "zzz", 9, &[(80, 10_001)])],
                &[],
                &["a web-portico 80>10000", "v web-portico 80>10001"],
            ),
            (
                "a port that no listener has",
                vec![service("a", "web-portico", 1, &[(80, 10_000), (81, 10_001)]), victim()],
                &[],
                &["a web-portico 80>10000", "v web-portico 80>10001"],
            ),
            (
                "the attacker's own, older Service is edited",
                vec![attacker(10_001), victim()],
                &[(10_000, "a"), (10_001, "v")],
                &["a web-portico", "v web-portico 80>10001"],
            ),
            (
                "Portico does not listen yet, so the older Service gets the target port",
                vec![attacker(10_001), victim()],
                &[],
                &["a web-portico 80>10001", "v web-portico"],
            ),
            (
                "two ports with one target",
                vec![service("v", "web-portico", 1, &[(80, 10_001), (443, 10_001)])],
                &[],
                &["v web-portico 80>10001"],
            ),
            ("the Service of a deleted Gateway", vec![other_uid, victim()], &[], &["v web-portico 80>10001"]),
        ];
        for (what, services, listening_ports, expected) in cases {
            assert_eq!(selected(&desired_services(both), services.clone(), listening_ports), *expected, "{what}");
        }
        let services = vec![attacker(10_001), victim()];
        let only_victim = desired_services(&[("v", &[80])]);
        assert_eq!(selected(&only_victim, services, &[]), ["v web-portico 80>10001"], "other Gateways claim nothing");
    }
}
