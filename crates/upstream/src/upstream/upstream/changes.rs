//! Changes of the endpoints of an upstream: by the configuration, and by DNS.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use tracing::warn;

use super::Upstream;
use super::checks::check_of;
use crate::ssrf_guard::BlockedAddress;
use crate::upstream::affinity::AffinityEndpoints;
use crate::upstream::configured_endpoints::{EndpointAddress, Endpoints};
use crate::upstream::load_balancing::{EndpointSet, ResolvedEndpoint, SetSettings};
use crate::upstream::locality::PriorityLevels;

impl Upstream {
    /// The hosts to resolve by DNS.
    pub fn names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = hosts(&self.configured.load()).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// Sets the configured endpoints. Resolved addresses of remaining names are kept.
    pub fn set_endpoints(&self, endpoints: Endpoints) {
        let mut resolved = self.resolved.lock();
        if **self.configured.load() == endpoints {
            return;
        }
        resolved.retain(|host, _| hosts(&endpoints).any(|name| name == host));
        self.configure(&endpoints.traffic);
        let known_check = check_of(&self.configured.load()).cloned();
        let has_other_check = known_check.as_ref() != check_of(&endpoints);
        let has_other_identities = self.configured.load().identities != endpoints.identities;
        let lacks_affinity_endpoints = endpoints.traffic.affinity.is_some() && self.affinity_endpoints.load().is_none();
        self.configured.store(Arc::new(endpoints));
        self.revision.fetch_add(1, Release);
        let is_published = self.publish(&resolved);
        if !is_published && (has_other_identities || lacks_affinity_endpoints) {
            self.publish_affinity_endpoints();
        }
        if has_other_check {
            self.announce_checks(known_check.is_some());
        }
        self.announce_health();
    }

    /// Sets the resolved addresses of a host; an empty list makes it unreachable. Ignored if no endpoint has this name.
    pub fn set_resolved(&self, host: &str, addresses: Vec<IpAddr>) {
        let mut resolved = self.resolved.lock();
        let Some(name) = hosts(&self.configured.load()).find(|name| &***name == host).cloned() else { return };
        if resolved.get(&name) == Some(&addresses) {
            return;
        }
        let check_blocked = |address: &IpAddr| Some((*address, BlockedAddress::check(*address, &self.addresses)?));
        if let Some((address, blocked)) = addresses.iter().find_map(check_blocked)
            && self.should_warn()
        {
            let remedy = blocked.remedy();
            warn!(
                upstream = %self.key,
                "{host} resolves to {address}, which is {blocked}; no requests are sent there; {remedy}"
            );
        }
        resolved.insert(name, addresses);
        self.publish(&resolved);
    }

    /// Takes over the DNS results of the upstream that this one replaces, and shares the health of the endpoints with
    /// it.
    pub(in crate::upstream) fn inherit_endpoints(&mut self, other: &Upstream) {
        self.detection = Arc::clone(&other.detection);
        let resolved = other.resolved.lock().clone();
        *self.resolved.lock() = resolved;
    }

    /// Whether the SSRF guard allows this address.
    pub(super) fn is_allowed(&self, address: IpAddr) -> bool {
        BlockedAddress::check(address, &self.addresses).is_none()
    }

    /// Recomputes the reachable endpoints and how they are picked; the state of an endpoint that stays is kept, unless
    /// another Pod has its address. Returns whether endpoints changed.
    pub(super) fn publish(&self, resolved: &BTreeMap<Arc<str>, Vec<IpAddr>>) -> bool {
        let configured = self.configured.load();
        let mut named = Vec::new();
        for (position, name) in configured.addresses.iter().enumerate() {
            match name {
                EndpointAddress::Ip(address) => named.push((*address, position)),
                EndpointAddress::Name { host, port } => {
                    let resolved = resolved.get(host).into_iter().flatten();
                    named.extend(resolved.map(|address| (SocketAddr::new(*address, *port), position)));
                }
            }
        }
        named.retain(|(address, _)| self.is_allowed(address.ip()));
        // Two names may resolve to one address, which must not get a double share.
        named.sort();
        named.dedup_by_key(|(address, _)| *address);
        let former = self.reachable.load_full();
        let weighted = || named.iter().map(|(address, position)| (*address, configured.weight(*position)));
        let limit = configured.traffic.overload.limits.as_ref().filter(|_| !configured.traffic.is_dry_run);
        let max_requests = limit.and_then(|limits| limits.max_requests_per_endpoint).map(|max| max.max(1));
        let settings = SetSettings::new(&configured.balance, max_requests);
        let pods = &*configured.identities.pods;
        let has_same_addresses = former.iter().map(|known| known.address).eq(weighted().map(|(address, _)| address));
        let known_states = former.iter().map(|known| (known.address, &known.state));
        let has_same_endpoints = has_same_addresses && self.detection.confirm(known_states, pods);
        let has_same_weights = || former.iter().map(|known| known.weight).eq(weighted().map(|(_, weight)| weight));
        // The table of an upstream that hashes depends on the names as well.
        let has_same_table = !former.has_table();
        if has_same_endpoints && has_same_table && *former.settings() == settings && has_same_weights() {
            // Their levels may be others.
            self.publish_levels(&named);
            return false;
        }
        let addresses: Vec<_> = named.iter().map(|(address, _)| *address).collect();
        let states = self.detection.set_endpoints(&addresses, pods);
        let endpoints = states.into_iter().zip(weighted());
        let endpoints = endpoints.map(|((address, state), (_, weight))| ResolvedEndpoint { address, weight, state });
        let set =
            EndpointSet::new(endpoints.collect(), settings, |index| configured.addresses[named[index].1].to_string());
        self.apply_balancing(&set);
        let set = Arc::new(set);
        self.reachable.store(Arc::clone(&set));
        for endpoint in set.iter() {
            let known = former.position(endpoint.address).map(|index| &former[index].state);
            if !known.is_some_and(|known| Arc::ptr_eq(known, &endpoint.state)) {
                self.begin(endpoint, &former);
            }
        }
        self.publish_levels(&named);
        // What was seen of the former endpoints is outdated.
        self.detection.set_changed();
        if has_same_endpoints {
            return false;
        }
        self.publish_affinity_endpoints();
        self.announce_checks(false);
        self.announce_health();
        true
    }

    /// Recomputes the levels of the reachable endpoints. `named`: their addresses, sorted, with the positions of their
    /// configured names. The caller holds the lock of the setters.
    fn publish_levels(&self, named: &[(SocketAddr, usize)]) {
        let (reachable, configured) = (self.reachable.load(), self.configured.load());
        let Endpoints { addresses, levels, balance, .. } = &**configured;
        let set = |endpoints: Vec<ResolvedEndpoint>| {
            let of_level: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
            EndpointSet::new(endpoints, reachable.settings().clone(), |index| {
                let position = named.binary_search_by_key(&of_level[index], |(address, _)| *address);
                position.map_or_else(|_| String::new(), |position| addresses[named[position].1].to_string())
            })
        };
        let percent = balance.locality.overprovisioning_percent;
        let levels = PriorityLevels::new(&reachable, levels, percent, set).map(Arc::new);
        self.levels.store(levels);
        // An endpoint whose health has changed meanwhile has updated the former levels.
        self.detection.set_changed();
    }

    /// Recomputes how sessions name the reachable endpoints. The caller holds the lock of the setters.
    pub(super) fn publish_affinity_endpoints(&self) {
        if self.keeps_affinity.load(Relaxed) {
            let (reachable, configured) = (self.reachable.load(), self.configured.load());
            let endpoints = AffinityEndpoints::new(&self.key, &reachable, &configured.identities);
            self.affinity_endpoints.store(Some(Arc::new(endpoints)));
        }
        let keyed = self.keyed_endpoints.load();
        if !keyed.is_empty() {
            let reachable = self.reachable.load();
            let renewed = keyed.iter().map(|keyed| Arc::new(keyed.renewed(&self.key, &reachable)));
            self.keyed_endpoints.store(Arc::new(renewed.collect()));
        }
    }
}

/// The hosts of endpoints with a name.
fn hosts(endpoints: &Endpoints) -> impl Iterator<Item = &Arc<str>> {
    endpoints.addresses.iter().filter_map(|address| match address {
        EndpointAddress::Ip(_) => None,
        EndpointAddress::Name { host, .. } => Some(host),
    })
}
