//! Changes of the endpoints of an upstream: by the configuration, and by DNS.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use tracing::warn;

use super::Upstream;
use crate::upstream::affinity::AffinityEndpoints;
use crate::upstream::configured_endpoints::{BackendTraffic, EndpointAddress, Endpoints};
use crate::upstream::load_balancing::ResolvedEndpoint;
use crate::upstream::locality::PriorityLevels;
use crate::upstream::settings::BalancingAlgorithm;
use crate::upstream::ssrf_guard::BlockedAddress;

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
        self.counts_requests.store(endpoints.balance.algorithm == BalancingAlgorithm::LeastRequests, Relaxed);
        self.hashes_requests.store(endpoints.balance.hash.is_some(), Relaxed);
        let BackendTraffic { retry_limits, affinity, .. } = &endpoints.traffic;
        self.retries.set_limits(*retry_limits);
        self.affinity.store(affinity.clone());
        if affinity.is_some() {
            self.keeps_affinity.store(true, Relaxed);
        }
        let has_other_identities = self.configured.load().identities != endpoints.identities;
        let lacks_affinity_endpoints = affinity.is_some() && self.affinity_endpoints.load().is_none();
        self.configured.store(Arc::new(endpoints));
        self.revision.fetch_add(1, Release);
        let has_other_reachable = self.publish(&resolved);
        // Also if the addresses are the same, since their levels may be others.
        self.publish_levels();
        if !has_other_reachable && (has_other_identities || lacks_affinity_endpoints) {
            self.publish_affinity_endpoints();
        }
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
        if self.publish(&resolved) {
            self.publish_levels();
        }
    }

    /// Copies the DNS results of the upstream that this one replaces.
    pub(in crate::upstream) fn inherit_resolved(&self, other: &Upstream) {
        let resolved = other.resolved.lock().clone();
        *self.resolved.lock() = resolved;
    }

    /// Whether the SSRF guard allows this address.
    pub(super) fn is_allowed(&self, address: IpAddr) -> bool {
        BlockedAddress::check(address, &self.addresses).is_none()
    }

    /// Recomputes the reachable addresses; the health of an address that stays is kept. Returns whether they changed.
    pub(super) fn publish(&self, resolved: &BTreeMap<Arc<str>, Vec<IpAddr>>) -> bool {
        let mut addresses = Vec::new();
        for address in &self.configured.load().addresses {
            match address {
                EndpointAddress::Ip(address) => addresses.push(*address),
                EndpointAddress::Name { host, port } => {
                    let resolved = resolved.get(host).into_iter().flatten();
                    addresses.extend(resolved.map(|address| SocketAddr::new(*address, *port)));
                }
            }
        }
        addresses.retain(|address| self.is_allowed(address.ip()));
        // Two names may resolve to one address, which must not get a double share.
        addresses.sort();
        addresses.dedup();
        if self.reachable.load().iter().map(|endpoint| endpoint.address).eq(addresses.iter().copied()) {
            return false;
        }
        let reachable = addresses
            .into_iter()
            .map(|address| ResolvedEndpoint { address, state: self.state(address).unwrap_or_default() })
            .collect();
        self.reachable.store(Arc::new(reachable));
        self.update_ejected();
        self.publish_affinity_endpoints();
        true
    }

    /// Recomputes the levels of the reachable endpoints. The caller holds the lock of the setters.
    fn publish_levels(&self) {
        let (reachable, configured) = (self.reachable.load(), self.configured.load());
        let Endpoints { levels, balance, .. } = &**configured;
        let percent = balance.locality.overprovisioning_percent;
        let levels = PriorityLevels::new(&reachable, levels, percent, |endpoints| endpoints).map(Arc::new);
        self.has_levels.store(levels.is_some(), Relaxed);
        self.levels.store(levels);
        // An endpoint whose health has changed meanwhile has updated the former levels.
        self.update_ejected();
    }

    /// Recomputes how sessions name the reachable endpoints. The caller holds the lock of the setters.
    pub(super) fn publish_affinity_endpoints(&self) {
        if self.keeps_affinity.load(Relaxed) {
            let (reachable, configured) = (self.reachable.load(), self.configured.load());
            let endpoints = AffinityEndpoints::new(&self.key, &reachable, &configured.identities);
            self.affinity_endpoints.store(Some(Arc::new(endpoints)));
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
