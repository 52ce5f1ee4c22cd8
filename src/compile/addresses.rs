//! Which addresses a Gateway listens on: what it asks for, or the lowest free one of the pool.
//!
//! The only part of compiling with a memory, so it is an input of `compile` and not a part of it: a Gateway keeps its
//! address for as long as the process lives, whatever comes and goes beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::verdict::Problem;
use crate::api::ObjectKey;
use crate::api::gateway::GatewaySpec;

/// The addresses that Gateways may have.
#[derive(Clone, Debug)]
pub struct Pool {
    ranges: Vec<IpNet>,
    /// Given by the operator: then an address outside of it is not usable, whether or not it could be bound.
    explicit: bool,
    /// What is reported for a Gateway that listens on all interfaces, which any Gateway may ask for without explicit ranges.
    host: Vec<IpAddr>,
}

impl Pool {
    /// 127.0.0.1, 127.0.0.2 and so on, for use without a cluster. `host` as for `explicit`.
    pub fn loopback(host: Vec<IpAddr>) -> Self {
        let all = Ipv4Net::new(Ipv4Addr::LOCALHOST, 8).expect("8 is a prefix length of IPv4").trunc();
        Pool { ranges: vec![IpNet::V4(all)], explicit: false, host }
    }

    /// The operator's ranges, in their order. An unspecified address (`0.0.0.0`, `::`) means all interfaces and is
    /// reported as `host`.
    pub fn explicit(ranges: Vec<IpNet>, host: Vec<IpAddr>) -> Self {
        Pool { ranges, explicit: true, host }
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ranges.iter().flat_map(|range| {
            let whole = !self.explicit;
            // The network address of the loopback range, 127.0.0.0, is not one to listen on.
            range.hosts().filter(move |address| !whole || *address != IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)))
        })
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address) || range.addr().is_unspecified())
    }

    fn reported(&self, address: IpAddr) -> Vec<IpAddr> {
        if address.is_unspecified() {
            self.host.iter().copied().filter(|host| host.is_ipv4() == address.is_ipv4()).collect()
        } else {
            vec![address]
        }
    }
}

/// The addresses of every Gateway of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    assigned: BTreeMap<ObjectKey, Assigned>,
}

/// What became of one Gateway's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// To listen on; empty if anything is wrong.
    pub bind: Vec<IpAddr>,
    /// To tell the world.
    pub reported: Vec<IpAddr>,
    /// Addresses of a type that cannot be used.
    pub unsupported: Vec<Problem>,
    /// Addresses that are not ours to use.
    pub unusable: Vec<Problem>,
    /// No address was free.
    pub exhausted: Vec<Problem>,
    /// Those of `bind` that came from the pool and not from the Gateway; they stay with it.
    from_pool: Vec<IpAddr>,
}

impl Addresses {
    pub fn of(&self, gateway: &ObjectKey) -> Option<&Assigned> {
        self.assigned.get(gateway)
    }

    /// Gives every Gateway its addresses, in the order given, and says whether anything changed. Gateways that are no
    /// longer there give theirs back.
    pub fn assign<'a>(
        &mut self,
        pool: &Pool,
        gateways: impl Iterator<Item = (&'a ObjectKey, &'a GatewaySpec)> + Clone,
    ) -> bool {
        let present: BTreeSet<_> = gateways.clone().map(|(key, _)| key).collect();
        let mut kept: BTreeMap<ObjectKey, Vec<IpAddr>> = BTreeMap::new();
        for (key, assigned) in &self.assigned {
            if present.contains(key) {
                kept.insert(key.clone(), assigned.from_pool.clone());
            }
        }
        let mut taken: BTreeSet<IpAddr> = kept.values().flatten().copied().collect();
        for (_, spec) in gateways.clone() {
            taken.extend(spec.addresses.iter().filter_map(|address| address.value.as_ref()?.parse::<IpAddr>().ok()));
        }
        let mut next = BTreeMap::new();
        for (key, spec) in gateways {
            let own = kept.remove(key).unwrap_or_default();
            next.insert(key.clone(), assign_one(pool, spec, own, &mut taken));
        }
        let changed = self.assigned != next;
        self.assigned = next;
        changed
    }
}

fn assign_one(pool: &Pool, spec: &GatewaySpec, own: Vec<IpAddr>, taken: &mut BTreeSet<IpAddr>) -> Assigned {
    let mut result = Assigned::default();
    let mut own = own.into_iter();
    let mut from_pool = |result: &mut Assigned, field: String| {
        let free = own
            .next()
            .or_else(|| pool.addresses().find(|address| address.is_unspecified() || !taken.contains(address)));
        match free {
            Some(address) => {
                taken.insert(address);
                // All interfaces of the other family too, if the pool has them: no Gateway that comes later could use them
                // any better, and this one would be deaf to half of the clients.
                let all =
                    pool.ranges.iter().map(IpNet::addr).filter(|all| address.is_unspecified() && all.is_unspecified());
                for address in std::iter::once(address).chain(all) {
                    if !result.bind.contains(&address) {
                        result.bind.push(address);
                        result.from_pool.push(address);
                    }
                }
            }
            None => result.exhausted.push(Problem::new(
                field,
                "every address of the pool is taken",
                "give --gateway-address-pool more addresses, or delete a Gateway",
            )),
        }
    };
    if spec.addresses.is_empty() {
        from_pool(&mut result, "spec.addresses".to_owned());
    }
    for (index, wanted) in spec.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{index}]");
        if wanted.kind != "IPAddress" {
            let message = format!("addresses of type {} cannot be served", wanted.kind);
            let remedy = "use type IPAddress, or leave the addresses out to get one of the pool";
            result.unsupported.push(Problem::new(format!("{field}.type"), message, remedy));
            continue;
        }
        if wanted.routability.as_deref().is_some_and(|routability| !routability.is_empty()) {
            let message = "a routability cannot be asked for";
            result.unsupported.push(Problem::new(format!("{field}.routability"), message, "leave it out"));
            continue;
        }
        match wanted.value.as_deref().filter(|value| !value.is_empty()) {
            None => from_pool(&mut result, field),
            Some(value) => match value.parse::<IpAddr>() {
                Ok(address) if !pool.explicit || pool.contains(address) => result.bind.push(address),
                Ok(address) => {
                    let message = format!("{address} is not in the address pool of this Portico");
                    let remedy = "use an address of --gateway-address-pool, or leave the value out to get one";
                    result.unusable.push(Problem::new(format!("{field}.value"), message, remedy));
                }
                Err(_) => {
                    let message = format!("{value:?} is not an IP address");
                    let remedy = "write it like 192.0.2.1 or 2001:db8::1";
                    result.unusable.push(Problem::new(format!("{field}.value"), message, remedy));
                }
            },
        }
    }
    if !(result.unsupported.is_empty() && result.unusable.is_empty()) {
        // All or nothing: a Gateway that answers on half of what was asked for is harder to understand than one that
        // does not. What it had from the pool stays reserved.
        result.bind.clear();
    }
    result.reported = result.bind.iter().flat_map(|address| pool.reported(*address)).collect();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(addresses: Value) -> GatewaySpec {
        serde_json::from_value(json!({"gatewayClassName": "portico", "listeners": [], "addresses": addresses})).unwrap()
    }

    fn assign(addresses: &mut Addresses, pool: &Pool, gateways: &[(&str, Value)]) -> Vec<String> {
        let gateways: Vec<_> =
            gateways.iter().map(|(name, value)| (ObjectKey::new("ns", name), spec(value.clone()))).collect();
        addresses.assign(pool, gateways.iter().map(|(key, spec)| (key, spec)));
        gateways
            .iter()
            .map(|(key, _)| {
                let assigned = addresses.of(key).unwrap();
                let problems = [&assigned.unsupported, &assigned.unusable, &assigned.exhausted];
                let problems = problems.into_iter().flatten().map(|problem| format!("!{}", problem.field));
                let all: Vec<_> = assigned.reported.iter().map(IpAddr::to_string).chain(problems).collect();
                format!("{}={}", key.name, all.join(","))
            })
            .collect()
    }

    #[test]
    fn a_gateway_keeps_its_address_and_the_lowest_free_one_goes_to_the_next() {
        let pool = Pool::loopback(vec![]);
        let mut addresses = Addresses::default();
        let none = json!([]);
        let two = [("b", none.clone()), ("c", none.clone())];
        assert_eq!(assign(&mut addresses, &pool, &two), ["b=127.0.0.1", "c=127.0.0.2"]);
        let three = [("a", none.clone()), ("b", none.clone()), ("c", none.clone())];
        assert_eq!(assign(&mut addresses, &pool, &three), ["a=127.0.0.3", "b=127.0.0.1", "c=127.0.0.2"]);
        assert_eq!(assign(&mut addresses, &pool, &[("c", none.clone())]), ["c=127.0.0.2"]);
        assert_eq!(assign(&mut addresses, &pool, &[("c", none.clone()), ("d", none)]), ["c=127.0.0.2", "d=127.0.0.1"]);
    }

    #[test]
    fn asked_for_addresses_are_honored_or_refused() {
        let explicit = Pool::explicit(vec!["198.18.0.0/30".parse().unwrap()], vec![]);
        let ip = |value: &str| json!({"type": "IPAddress", "value": value});
        for (pool, wanted, expected) in [
            (&explicit, json!([ip("198.18.0.2")]), "g=198.18.0.2"),
            (&explicit, json!([ip("192.0.2.1")]), "g=!spec.addresses[0].value"),
            (&explicit, json!([ip("198.18.0.2"), ip("192.0.2.1")]), "g=!spec.addresses[1].value"),
            (&explicit, json!([ip("nonsense")]), "g=!spec.addresses[0].value"),
            (&explicit, json!([{"type": "Hostname", "value": "a.example"}]), "g=!spec.addresses[0].type"),
            (&explicit, json!([{"type": "IPAddress"}]), "g=198.18.0.1"),
            (&explicit, json!([{"type": "IPAddress", "routability": "Cluster"}]), "g=!spec.addresses[0].routability"),
            (&Pool::loopback(vec![]), json!([ip("192.0.2.1")]), "g=192.0.2.1"),
            (&Pool::loopback(vec!["192.0.2.7".parse().unwrap()]), json!([ip("0.0.0.0")]), "g=192.0.2.7"),
            (
                &Pool::explicit(vec!["0.0.0.0/32".parse().unwrap()], vec!["192.0.2.7".parse().unwrap()]),
                json!([]),
                "g=192.0.2.7",
            ),
            (
                &Pool::explicit(
                    vec!["0.0.0.0/32".parse().unwrap(), "::/128".parse().unwrap()],
                    vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
                ),
                json!([]),
                "g=192.0.2.7,2001:db8::7",
            ),
        ] {
            let mut addresses = Addresses::default();
            let gateways = [("g", wanted)];
            assert_eq!(assign(&mut addresses, pool, &gateways), [expected]);
            assert_eq!(assign(&mut addresses, pool, &gateways), [expected], "it stays");
        }
    }

    #[test]
    fn an_empty_pool_says_so() {
        let pool = Pool::explicit(vec!["198.18.0.1/32".parse().unwrap()], vec![]);
        let gateways = [("a", json!([])), ("b", json!([]))];
        let found = assign(&mut Addresses::default(), &pool, &gateways);
        assert_eq!(found, ["a=198.18.0.1", "b=!spec.addresses"]);
    }
}
