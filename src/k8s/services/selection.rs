//! Selects each Gateway's Service and the ports of it that count: one rule for writing it, listening for it, and
//! sending clients to it.
//!
//! A user who may write Services can create one that looks like Portico's, or edit Portico's own. Neither gives access
//! to a port of another Gateway: only the oldest Service that names a Gateway counts, only with ports that the Gateway
//! has, and a disputed target port stays with the Gateway for which it is bound, else with the older Service.

use std::collections::{BTreeMap, BTreeSet};

use super::DesiredServices;
use super::plan::ServicesByKey;
use super::service::KnownService;
use crate::api::ObjectKey;

/// The ports that this process listens on, on all interfaces, each with its Gateway.
pub type ListeningPorts = BTreeMap<u16, ObjectKey>;

/// The Service of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SelectedService<'a> {
    pub(super) service: &'a KnownService,
    /// The target ports of the Gateway's ports, as far as they count.
    pub(super) ports: BTreeMap<u16, u16>,
}

/// The Service of each desired Gateway that has one.
pub(super) fn select_services<'a>(
    wants: &'a DesiredServices,
    services: &'a ServicesByKey,
    bound: &ListeningPorts,
) -> BTreeMap<&'a ObjectKey, SelectedService<'a>> {
    let mut by_age: Vec<&KnownService> = services.values().map(|service| &**service).collect();
    by_age.sort_by_key(|service| (service.created, &service.key));
    let mut chosen: BTreeMap<&ObjectKey, SelectedService<'_>> = BTreeMap::new();
    let mut claims = Vec::new();
    for service in by_age {
        let Some((gateway, want)) = wants.gateways.get_key_value(&service.owner.gateway) else { continue };
        if want.uid != service.owner.uid || chosen.contains_key(gateway) {
            continue;
        }
        chosen.insert(gateway, SelectedService { service, ports: BTreeMap::new() });
        let requested = service.ports.iter().filter(|(port, _)| want.ports.contains(port));
        claims.extend(requested.map(|(port, target)| (gateway, *port, *target)));
    }
    // The sort is stable, so ties keep the order by age.
    claims.sort_by_key(|(gateway, _, target)| bound.get(target) != Some(*gateway));
    let mut taken = BTreeSet::new();
    for (gateway, port, target) in claims {
        if taken.insert(target)
            && let Some(chosen) = chosen.get_mut(gateway)
        {
            chosen.ports.insert(port, target);
        }
    }
    chosen
}

impl SelectedService<'_> {
    /// Whether clients connect through it.
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

    fn wants(gateways: &[(&str, &[u16])]) -> DesiredServices {
        let want = |(namespace, ports): &(&str, &[u16])| {
            let key = gateway(namespace);
            let uid = Arc::from(format!("uid of {key}"));
            (key, DesiredService { uid, ports: ports.iter().copied().collect(), ..DesiredService::default() })
        };
        DesiredServices { gateways: gateways.iter().map(want).collect(), foreign: BTreeMap::new() }
    }

    /// The selected Services and ports, as `NAMESPACE SERVICE PORT>TARGET`.
    fn chosen(wants: &DesiredServices, services: Vec<KnownService>, bound: &[(u16, &str)]) -> Vec<String> {
        let services = services.into_iter().map(|service| (service.key.clone(), Arc::new(service))).collect();
        let bound = bound.iter().map(|(port, namespace)| (*port, gateway(namespace))).collect();
        let chosen = select_services(wants, &services, &bound);
        let describe = |(gateway, chosen): (&&ObjectKey, &SelectedService<'_>)| {
            let ports: Vec<_> = chosen.ports.iter().map(|(port, target)| format!(" {port}>{target}")).collect();
            format!("{} {}{}", gateway.namespace, chosen.service.key.name, ports.concat())
        };
        chosen.iter().map(describe).collect()
    }

    #[test]
    fn services_cannot_claim_ports_of_another_gateway() {
        let both: &[(&str, &[u16])] = &[("a", &[80]), ("v", &[80])];
        let victim = || service("v", "web-portico", 5, &[(80, 10_001)]);
        let own = |target| service("a", "web-portico", 1, &[(80, target)]);
        let mut other_uid = service("a", "before", 0, &[(80, 10_001)]);
        other_uid.owner.uid = Arc::from("of a deleted one");
        type Case<'a> = (&'a str, Vec<KnownService>, &'a [(u16, &'a str)], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            ("each its own", vec![own(10_000), victim()], &[], &["a web-portico 80>10000", "v web-portico 80>10001"]),
            (
                "a second Service for one Gateway",
                vec![own(10_000), victim(), service("a", "zzz", 9, &[(80, 10_001)])],
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
                vec![own(10_001), victim()],
                &[(10_000, "a"), (10_001, "v")],
                &["a web-portico", "v web-portico 80>10001"],
            ),
            ("nothing is bound yet", vec![own(10_001), victim()], &[], &["a web-portico 80>10001", "v web-portico"]),
            (
                "two ports with one target",
                vec![service("v", "web-portico", 1, &[(80, 10_001), (443, 10_001)])],
                &[],
                &["v web-portico 80>10001"],
            ),
            ("of an earlier Gateway of the same name", vec![other_uid, victim()], &[], &["v web-portico 80>10001"]),
        ];
        for (what, services, bound, expected) in cases {
            assert_eq!(chosen(&wants(both), services.clone(), bound), *expected, "{what}");
        }
        let others = vec![service("a", "web-portico", 1, &[(80, 10_001)]), victim()];
        let one = wants(&[("v", &[80])]);
        assert_eq!(chosen(&one, others, &[]), ["v web-portico 80>10001"], "foreign Gateways claim nothing");
    }
}
