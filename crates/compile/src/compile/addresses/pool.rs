//! Assigns addresses from a pool: the requested one, the previous one, or the lowest free one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::{AddressRequest, AddressState, AssignedAddresses, ClientPath, parse_request, requested_addresses};
use crate::api::ObjectKey;
use crate::api::gateway::GatewaySpec;
use crate::diagnostic::Diagnostic;

/// The addresses that Gateways may get.
#[derive(Clone, Debug)]
pub struct GatewayAddressPool {
    ranges: Vec<IpNet>,
    /// Whether the operator configured the ranges; if so, addresses outside of them are not usable.
    is_explicit: bool,
    /// Reported for a Gateway that listens on all interfaces, unless the Pods of Portico are known. Without explicit
    /// ranges, any Gateway may request an unspecified address, which means all interfaces.
    host_addresses: Vec<IpAddr>,
}

impl GatewayAddressPool {
    /// 127.0.0.1, 127.0.0.2 and so on, for local use. `host_addresses` as for `explicit`.
    pub fn loopback(host_addresses: Vec<IpAddr>) -> Self {
        let loopback_range = Ipv4Net::new(Ipv4Addr::LOCALHOST, 8).expect("8 is a prefix length of IPv4").trunc();
        GatewayAddressPool { ranges: vec![IpNet::V4(loopback_range)], is_explicit: false, host_addresses }
    }

    /// The operator's ranges, in their order. An unspecified address (`0.0.0.0`, `::`) means all interfaces and is
    /// reported as `host_addresses`.
    pub fn explicit(ranges: Vec<IpNet>, host_addresses: Vec<IpAddr>) -> Self {
        GatewayAddressPool { ranges, is_explicit: true, host_addresses }
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ranges.iter().flat_map(|range| {
            let is_loopback_range = !self.is_explicit;
            // 127.0.0.0, the network address of the loopback range, cannot be listened on.
            range
                .hosts()
                .filter(move |address| !is_loopback_range || *address != IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)))
        })
    }

    /// Whether a Gateway may request the address. If all interfaces are in the pool, it may request any address.
    fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address) || range.addr().is_unspecified())
    }

    /// The unspecified addresses in the pool.
    fn all_interfaces(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ranges.iter().map(IpNet::addr).filter(IpAddr::is_unspecified)
    }

    /// Whether all addresses of the pool are unspecified. All Gateways share such addresses, so replicas need not agree
    /// on the assignment.
    fn is_shared(&self) -> bool {
        self.ranges.iter().all(|range| range.addr().is_unspecified())
    }

    /// The pool's address for an address in a status; `None` if the pool no longer contains it. An address that is not
    /// in a range of single addresses may be a host address, which stands for all interfaces.
    fn pool_address(&self, status_address: IpAddr) -> Option<IpAddr> {
        let contains_it = |range: &&IpNet| !range.addr().is_unspecified() && range.contains(&status_address);
        self.ranges.iter().find(contains_it).map(|_| status_address).or_else(|| self.all_interfaces().next())
    }

    /// The addresses for the status of a Gateway that listens on this address. `of_all_interfaces`: those of a Gateway
    /// on all interfaces.
    fn reported(address: IpAddr, of_all_interfaces: &[IpAddr]) -> Vec<IpAddr> {
        if address.is_unspecified() {
            of_all_interfaces.iter().copied().filter(|host| host.is_ipv4() == address.is_ipv4()).collect()
        } else {
            vec![address]
        }
    }

    /// The addresses of a Gateway that listens on all interfaces, sorted. They are the same on all replicas: those of
    /// the ready Pods. While no Pod is ready, the addresses in the status of the Gateway remain, so that a restart does
    /// not withdraw them.
    fn of_all_interfaces(&self, state: &AddressState, gateway: &ObjectKey) -> Vec<IpAddr> {
        match &state.ready_addresses {
            None => self.host_addresses.clone(),
            Some(ready) if !ready.is_empty() => ready.iter().copied().collect(),
            Some(_) => {
                let written = state.status_addresses.get(gateway).into_iter().flatten().copied();
                let stands_for_all =
                    |address: &IpAddr| self.pool_address(*address).is_some_and(|own| own.is_unspecified());
                written.filter(stands_for_all).collect()
            }
        }
    }
}

/// Assigns addresses to every Gateway; earlier Gateways take precedence.
pub(super) fn assign<'a>(
    pool: &GatewayAddressPool,
    state: &AddressState,
    before: &BTreeMap<ObjectKey, AssignedAddresses>,
    gateways: impl Iterator<Item = (&'a ObjectKey, &'a GatewaySpec)> + Clone,
) -> BTreeMap<ObjectKey, AssignedAddresses> {
    let mut kept = kept_addresses(pool, state, before, gateways.clone());
    let owners = owners(&kept, gateways.clone());
    let mut taken: BTreeSet<IpAddr> = kept.values().flatten().copied().collect();
    taken.extend(gateways.clone().flat_map(|(_, spec)| requested_addresses(spec)));
    let assigned = gateways.map(|(key, spec)| {
        let kept_by_gateway = kept.remove(key).unwrap_or_default();
        let must_wait = state.status_addresses.contains_key(key) && !state.is_leader && !pool.is_shared();
        let other_owner = |address: IpAddr| owners.get(&address).copied().filter(|owner| *owner != key);
        let mut assigned = assign_one(pool, spec, kept_by_gateway, must_wait, &other_owner, &mut taken);
        let of_all_interfaces = pool.of_all_interfaces(state, key);
        let reported = assigned
            .bind_addresses
            .iter()
            .flat_map(|address| GatewayAddressPool::reported(*address, &of_all_interfaces));
        assigned.reported_addresses = reported.map(|address| address.to_string()).collect();
        if state.ready_addresses.is_some()
            && !assigned.bind_addresses.is_empty()
            && assigned.reported_addresses.is_empty()
        {
            assigned.unassigned.push(no_ready_pod());
        }
        assigned.notes.extend(state.gateway_services.get(key).and_then(|service| service.problem.clone()));
        (key.clone(), assigned)
    });
    assigned.collect()
}

/// The addresses that each Gateway had before and may keep.
///
/// The leader prefers its own assignment, which may not be written yet; other replicas follow the status. If two
/// Gateways claim the same address, the first keeps it.
fn kept_addresses<'a>(
    pool: &GatewayAddressPool,
    state: &AddressState,
    before: &BTreeMap<ObjectKey, AssignedAddresses>,
    gateways: impl Iterator<Item = (&'a ObjectKey, &'a GatewaySpec)>,
) -> BTreeMap<ObjectKey, Vec<IpAddr>> {
    let mut kept = BTreeMap::new();
    let mut claimed = BTreeSet::new();
    // Addresses that this replica assigned, but no status confirms. They yield to addresses in a status.
    let mut unconfirmed = Vec::new();
    let mut keep = |key: &ObjectKey, addresses: Vec<IpAddr>| {
        let mut unclaimed = Vec::new();
        for address in addresses {
            if address.is_unspecified() || claimed.insert(address) {
                unclaimed.push(address);
            }
        }
        kept.insert(key.clone(), unclaimed);
    };
    for (key, spec) in gateways {
        let previous = before.get(key).map(|assigned| assigned.from_pool.clone()).unwrap_or_default();
        let Some(status_addresses) = state.status_addresses.get(key) else {
            keep(key, previous);
            continue;
        };
        let mut from_status: Vec<IpAddr> = Vec::new();
        for address in
            status_addresses.iter().filter(|address| requested_addresses(spec).all(|requested| requested != **address))
        {
            let address = pool.pool_address(*address).filter(|address| !from_status.contains(address));
            from_status.extend(address.filter(|_| from_status.len() < needed_count(spec)));
        }
        match (state.is_leader, previous.is_empty(), from_status.is_empty()) {
            (true, false, _) => keep(key, previous),
            (true, true, _) | (false, _, false) => keep(key, from_status),
            (false, _, true) => unconfirmed.push((key, previous)),
        }
    }
    for (key, previous) in unconfirmed {
        keep(key, previous);
    }
    kept
}

/// The Gateways to which the pool gave each address. Another Gateway may not request such an address by its value: it
/// would take the ports of its owner if it is older, and the unused ones if it is younger. Gateways that both request
/// an address by its value share it, and its ports go to the older one.
fn owners<'a>(
    kept: &BTreeMap<ObjectKey, Vec<IpAddr>>,
    gateways: impl Iterator<Item = (&'a ObjectKey, &'a GatewaySpec)>,
) -> BTreeMap<IpAddr, &'a ObjectKey> {
    let owned = gateways.flat_map(|(key, spec)| {
        let addresses = kept.get(key).into_iter().flatten().filter(|address| !address.is_unspecified());
        addresses.take(needed_count(spec)).map(move |address| (*address, key))
    });
    owned.collect()
}

/// The number of pool addresses that a Gateway needs.
fn needed_count(spec: &GatewaySpec) -> usize {
    let without_value =
        spec.addresses.iter().filter(|address| address.value.as_deref().is_none_or(str::is_empty)).count();
    if spec.addresses.is_empty() { 1 } else { without_value }
}

/// The addresses of one Gateway. `kept`: those from the pool that it may keep; `must_wait`: whether only the leader may
/// assign it others; `other_owner`: the other Gateway to which the pool gave an address.
fn assign_one<'a>(
    pool: &GatewayAddressPool,
    spec: &GatewaySpec,
    kept: Vec<IpAddr>,
    must_wait: bool,
    other_owner: &dyn Fn(IpAddr) -> Option<&'a ObjectKey>,
    taken: &mut BTreeSet<IpAddr>,
) -> AssignedAddresses {
    let client_path = if pool.is_explicit { ClientPath::Pool } else { ClientPath::Loopback };
    let mut result = AssignedAddresses { client_path, ..AssignedAddresses::default() };
    let mut kept = kept.into_iter();
    let mut take_from_pool = |result: &mut AssignedAddresses, field: String| {
        let lowest_free = || pool.addresses().find(|address| address.is_unspecified() || !taken.contains(address));
        let Some(address) = kept.next().or_else(|| if must_wait { None } else { lowest_free() }) else {
            result.unassigned.push(if must_wait { not_assigned_yet(field) } else { pool_exhausted(field) });
            return;
        };
        taken.insert(address);
        // If the pool has the unspecified addresses of both families, the Gateway gets both, so that clients of both
        // can connect.
        let unspecified = pool.all_interfaces().filter(|_| address.is_unspecified());
        for address in std::iter::once(address).chain(unspecified) {
            if !result.bind_addresses.contains(&address) {
                result.bind_addresses.push(address);
                result.from_pool.push(address);
            }
        }
    };
    if spec.addresses.is_empty() {
        take_from_pool(&mut result, "spec.addresses".to_owned());
    }
    for index in 0..spec.addresses.len() {
        let field = format!("spec.addresses[{index}]");
        match parse_request(spec, index, &mut result) {
            Some(AddressRequest::Any) => take_from_pool(&mut result, field),
            Some(AddressRequest::Specific(address)) if !pool.is_explicit || pool.contains(address) => {
                match other_owner(address) {
                    None => result.bind_addresses.push(address),
                    Some(owner) => {
                        let message = format!("{address} belongs to Gateway {owner}, to which Portico assigned it");
                        let remedy = "use another address, or remove the value to get one assigned";
                        result.unusable.push(Diagnostic::error(format!("{field}.value"), message, remedy));
                    }
                }
            }
            Some(AddressRequest::Specific(address)) => {
                let message = format!("{address} is not in Portico's address pool");
                let remedy = "use an address of --gateway-address-pool, or remove the value to get one assigned";
                result.unusable.push(Diagnostic::error(format!("{field}.value"), message, remedy));
            }
            None => {}
        }
    }
    if !(result.unsupported.is_empty() && result.unusable.is_empty()) {
        // All or nothing: a partially served Gateway is harder to understand than one that is not served. Its addresses
        // from the pool stay reserved.
        result.bind_addresses.clear();
    }
    result
}

fn no_ready_pod() -> Diagnostic {
    let message = "no Pod of Portico is ready, so the Gateway has no address yet";
    let remedy = "wait until one is ready; its ServiceAccount must be able to list Pods, as in manifests/";
    Diagnostic::of_object(message, remedy)
}

fn pool_exhausted(field: String) -> Diagnostic {
    let remedy = "add addresses to --gateway-address-pool, or delete a Gateway";
    Diagnostic::error(field, "all addresses of the pool are in use", remedy)
}

fn not_assigned_yet(field: String) -> Diagnostic {
    let remedy = "the leading replica of Portico assigns one; check the holder of Lease portico-leader";
    Diagnostic::error(field, "the Gateway has no address yet", remedy)
}
