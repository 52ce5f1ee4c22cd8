//! Which Service is a Gateway's, and which of its ports count: one answer for whoever writes it, listens for it, or sends
//! clients to it.
//!
//! Whoever may write Services in a namespace can make one that looks like ours, and may edit those that are. That gets him
//! no port that clients of another Gateway come in through: of the Services that name a Gateway only the oldest is its own,
//! of its ports only those that the Gateway asks for count, and a port that two claim stays with the one for whom it is
//! open already, else with the older Service.

use std::collections::{BTreeMap, BTreeSet};

use super::Wants;
use super::plan::Services;
use super::service::Known;
use crate::api::ObjectKey;

/// The ports that this process listens on, on all interfaces, each with the Gateway whose clients it takes there.
pub type Bound = BTreeMap<u16, ObjectKey>;

/// The Service of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chosen<'a> {
    pub(super) service: &'a Known,
    /// Where it sends each of the Gateway's ports, as far as that counts.
    pub(super) ports: BTreeMap<u16, u16>,
}

/// The Service of each Gateway that is wanted and has one.
pub(super) fn of_gateways<'a>(
    wants: &'a Wants,
    services: &'a Services,
    bound: &Bound,
) -> BTreeMap<&'a ObjectKey, Chosen<'a>> {
    let mut by_age: Vec<&Known> = services.values().map(|service| &**service).collect();
    by_age.sort_by_key(|service| (service.created, &service.key));
    let mut chosen: BTreeMap<&ObjectKey, Chosen<'_>> = BTreeMap::new();
    let mut claims = Vec::new();
    for service in by_age {
        let Some((gateway, want)) = wants.gateways.get_key_value(&service.owner.gateway) else { continue };
        if want.uid != service.owner.uid || chosen.contains_key(gateway) {
            continue;
        }
        chosen.insert(gateway, Chosen { service, ports: BTreeMap::new() });
        let asked_for = service.ports.iter().filter(|(port, _)| want.ports.contains(port));
        claims.extend(asked_for.map(|(port, target)| (gateway, *port, *target)));
    }
    // A sort keeps the order of age among equals.
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

impl Chosen<'_> {
    /// Whether clients come in through it.
    pub(super) fn serves(&self) -> bool {
        !self.service.going && !self.service.headless
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::k8s::services::Want;

    /// A Service that says to be that of Gateway `namespace/web`.
    fn service(namespace: &str, name: &str, created: i64, ports: &[(u16, u16)]) -> Known {
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
        Known::read(&serde_json::from_value(object).unwrap()).unwrap()
    }

    fn gateway(namespace: &str) -> ObjectKey {
        ObjectKey::new(namespace, "web")
    }

    fn wants(gateways: &[(&str, &[u16])]) -> Wants {
        let want = |(namespace, ports): &(&str, &[u16])| {
            let key = gateway(namespace);
            let uid = Arc::from(format!("uid of {key}"));
            (key, Want { uid, ports: ports.iter().copied().collect(), ..Want::default() })
        };
        Wants { gateways: gateways.iter().map(want).collect(), foreign: BTreeMap::new() }
    }

    /// What counts, as `NAMESPACE SERVICE PORT>TARGET`.
    fn chosen(wants: &Wants, services: Vec<Known>, bound: &[(u16, &str)]) -> Vec<String> {
        let services = services.into_iter().map(|service| (service.key.clone(), Arc::new(service))).collect();
        let bound = bound.iter().map(|(port, namespace)| (*port, gateway(namespace))).collect();
        let chosen = of_gateways(wants, &services, &bound);
        let describe = |(gateway, chosen): (&&ObjectKey, &Chosen<'_>)| {
            let ports: Vec<_> = chosen.ports.iter().map(|(port, target)| format!(" {port}>{target}")).collect();
            format!("{} {}{}", gateway.namespace, chosen.service.key.name, ports.concat())
        };
        chosen.iter().map(describe).collect()
    }

    #[test]
    fn nobody_takes_a_port_of_another_gateway_by_writing_it_into_a_service() {
        let both: &[(&str, &[u16])] = &[("a", &[80]), ("v", &[80])];
        let victim = || service("v", "web-portico", 5, &[(80, 10_001)]);
        let own = |target| service("a", "web-portico", 1, &[(80, target)]);
        let mut other_uid = service("a", "before", 0, &[(80, 10_001)]);
        other_uid.owner.uid = Arc::from("of one that is gone");
        type Case<'a> = (&'a str, Vec<Known>, &'a [(u16, &'a str)], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            ("each its own", vec![own(10_000), victim()], &[], &["a web-portico 80>10000", "v web-portico 80>10001"]),
            (
                "another Service beside the right one",
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
                "his own Service edited, which is the older one",
                vec![own(10_001), victim()],
                &[(10_000, "a"), (10_001, "v")],
                &["a web-portico", "v web-portico 80>10001"],
            ),
            ("nobody is served yet", vec![own(10_001), victim()], &[], &["a web-portico 80>10001", "v web-portico"]),
            (
                "two ports to one place",
                vec![service("v", "web-portico", 1, &[(80, 10_001), (443, 10_001)])],
                &[],
                &["v web-portico 80>10001"],
            ),
            ("of a Gateway that was called the same", vec![other_uid, victim()], &[], &["v web-portico 80>10001"]),
        ];
        for (what, services, bound, expected) in cases {
            assert_eq!(chosen(&wants(both), services.clone(), bound), *expected, "{what}");
        }
        let others = vec![service("a", "web-portico", 1, &[(80, 10_001)]), victim()];
        let one = wants(&[("v", &[80])]);
        assert_eq!(chosen(&one, others, &[]), ["v web-portico 80>10001"], "Gateways that are not ours claim nothing");
    }
}
