//! Addresses of a pool: what a Gateway asks for or had before, or the lowest free one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::{Assigned, Memory, Wish, explicit, wish};
use crate::api::ObjectKey;
use crate::api::gateway::GatewaySpec;
use crate::compile::verdict::Problem;

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
    /// 127.0.0.1, 127.0.0.2 and so on, for use on one's own machine. `host` as for `explicit`.
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

    /// The addresses of the pool that mean all interfaces.
    fn all_interfaces(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ranges.iter().map(IpNet::addr).filter(IpAddr::is_unspecified)
    }

    /// Whether an address of it can be had by several Gateways only, so that nobody has to agree on who has which.
    fn is_shared(&self) -> bool {
        self.ranges.iter().all(|range| range.addr().is_unspecified())
    }

    /// The address of the pool that was written as this one; None if the pool has it no longer.
    fn behind(&self, written: IpAddr) -> Option<IpAddr> {
        let single = |range: &&IpNet| !range.addr().is_unspecified() && range.contains(&written);
        self.ranges.iter().find(single).map(|_| written).or_else(|| self.all_interfaces().next())
    }

    fn reported(&self, address: IpAddr) -> Vec<IpAddr> {
        if address.is_unspecified() {
            self.host.iter().copied().filter(|host| host.is_ipv4() == address.is_ipv4()).collect()
        } else {
            vec![address]
        }
    }
}

/// Gives every Gateway its addresses, the one that comes first before the others.
pub(super) fn assign<'a>(
    pool: &Pool,
    memory: &Memory,
    before: &BTreeMap<ObjectKey, Assigned>,
    gateways: impl Iterator<Item = (&'a ObjectKey, &'a GatewaySpec)> + Clone,
) -> BTreeMap<ObjectKey, Assigned> {
    let mut kept = settle(pool, memory, before, gateways.clone());
    let mut taken: BTreeSet<IpAddr> = kept.values().flatten().copied().collect();
    taken.extend(gateways.clone().flat_map(|(_, spec)| explicit(spec)));
    let assigned = gateways.map(|(key, spec)| {
        let own = kept.remove(key).unwrap_or_default();
        let wait = memory.written.contains_key(key) && !memory.leading && !pool.is_shared();
        let mut assigned = assign_one(pool, spec, own, wait, &mut taken);
        assigned.remarks.extend(memory.fronts.get(key).and_then(|front| front.problem.clone()));
        (key.clone(), assigned)
    });
    assigned.collect()
}

/// What each Gateway had before and may keep.
///
/// The leader trusts itself first, since what it gave may not be written yet; the others hold to what is written. Of two
/// Gateways with the same claim the first keeps the address.
fn settle<'a>(
    pool: &Pool,
    memory: &Memory,
    before: &BTreeMap<ObjectKey, Assigned>,
    gateways: impl Iterator<Item = (&'a ObjectKey, &'a GatewaySpec)>,
) -> BTreeMap<ObjectKey, Vec<IpAddr>> {
    let mut kept = BTreeMap::new();
    let mut claimed = BTreeSet::new();
    // Without the exclusive right to what others rely on.
    let mut weak = Vec::new();
    let mut grant = |key: &ObjectKey, addresses: Vec<IpAddr>| {
        let mut free = Vec::new();
        for address in addresses {
            if address.is_unspecified() || claimed.insert(address) {
                free.push(address);
            }
        }
        kept.insert(key.clone(), free);
    };
    for (key, spec) in gateways {
        let had = before.get(key).map(|assigned| assigned.from_pool.clone()).unwrap_or_default();
        let Some(written) = memory.written.get(key) else {
            grant(key, had);
            continue;
        };
        let mut remembered: Vec<IpAddr> = Vec::new();
        for address in written.iter().filter(|address| explicit(spec).all(|asked| asked != **address)) {
            let address = pool.behind(*address).filter(|address| !remembered.contains(address));
            remembered.extend(address.filter(|_| remembered.len() < wanted(spec)));
        }
        match (memory.leading, had.is_empty(), remembered.is_empty()) {
            (true, false, _) => grant(key, had),
            (true, true, _) | (false, _, false) => grant(key, remembered),
            (false, _, true) => weak.push((key, had)),
        }
    }
    for (key, had) in weak {
        grant(key, had);
    }
    kept
}

/// How many addresses of the pool a Gateway needs.
fn wanted(spec: &GatewaySpec) -> usize {
    let open = spec.addresses.iter().filter(|address| address.value.as_deref().is_none_or(str::is_empty)).count();
    if spec.addresses.is_empty() { 1 } else { open }
}

fn assign_one(pool: &Pool, spec: &GatewaySpec, own: Vec<IpAddr>, wait: bool, taken: &mut BTreeSet<IpAddr>) -> Assigned {
    let mut result = Assigned::default();
    let mut own = own.into_iter();
    let mut from_pool = |result: &mut Assigned, field: String| {
        let lowest = || pool.addresses().find(|address| address.is_unspecified() || !taken.contains(address));
        let Some(address) = own.next().or_else(|| if wait { None } else { lowest() }) else {
            result.unassigned.push(if wait { not_yet(field) } else { exhausted(field) });
            return;
        };
        taken.insert(address);
        // All interfaces of the other family too, if the pool has them: no Gateway that comes later could use them
        // any better, and this one would be deaf to half of the clients.
        let all = pool.all_interfaces().filter(|_| address.is_unspecified());
        for address in std::iter::once(address).chain(all) {
            if !result.bind.contains(&address) {
                result.bind.push(address);
                result.from_pool.push(address);
            }
        }
    };
    if spec.addresses.is_empty() {
        from_pool(&mut result, "spec.addresses".to_owned());
    }
    for index in 0..spec.addresses.len() {
        let field = format!("spec.addresses[{index}]");
        match wish(spec, index, &mut result) {
            Some(Wish::Any) => from_pool(&mut result, field),
            Some(Wish::This(address)) if !pool.explicit || pool.contains(address) => result.bind.push(address),
            Some(Wish::This(address)) => {
                let message = format!("{address} is not in the address pool of this Portico");
                let remedy = "use an address of --gateway-address-pool, or leave the value out to get one";
                result.unusable.push(Problem::new(format!("{field}.value"), message, remedy));
            }
            None => {}
        }
    }
    if !(result.unsupported.is_empty() && result.unusable.is_empty()) {
        // All or nothing: a Gateway that answers on half of what was asked for is harder to understand than one that
        // does not. What it had from the pool stays reserved.
        result.bind.clear();
    }
    let reported = result.bind.iter().flat_map(|address| pool.reported(*address));
    result.reported = reported.map(|address| address.to_string()).collect();
    result
}

fn exhausted(field: String) -> Problem {
    let remedy = "give --gateway-address-pool more addresses, or delete a Gateway";
    Problem::new(field, "every address of the pool is taken", remedy)
}

fn not_yet(field: String) -> Problem {
    let remedy = "the replica that leads gives it one; see who holds the Lease portico-leader";
    Problem::new(field, "it has no address yet", remedy)
}
