//! Which Ingresses name each host, so that an edit of an Ingress affects only the hosts that it names or named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;

use super::host_conflicts::{host_name, named_hosts};
use super::plan::IngressPlan;
use crate::api::ObjectKey;
use crate::snapshot::host::HostPattern;
use crate::snapshot::ingress_routes::{NamedHost, RouteOrder};
use crate::snapshot::router::by_conditions::HostName;

/// All served Ingresses, and an index of them by host.
#[derive(Debug, Default)]
pub(super) struct PlannedIngresses {
    plans: BTreeMap<ObjectKey, Arc<IngressPlan>>,
    /// The Ingresses with each host, sorted. Most hosts have one Ingress.
    by_host: BTreeMap<ClaimedHost, SmallVec<[ObjectKey; 1]>>,
    /// The number of Ingresses whose routes are ordered by host or by location.
    host_router_count: usize,
    /// Those ordered by location.
    location_count: usize,
}

/// What Ingresses share: of several Ingresses with the same one, the oldest may take precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClaimedHost {
    /// A host of rules or certificates.
    Host(NamedHost),
    /// The requests that no rule matches.
    DefaultBackend,
}

impl ClaimedHost {
    /// The pattern of a host without trailing wildcard.
    pub(super) fn pattern(&self) -> Option<HostPattern> {
        match self {
            ClaimedHost::Host(None) => Some(HostPattern::Any),
            ClaimedHost::Host(Some(HostName::Exact(name))) => Some(HostPattern::Exact(name.clone())),
            ClaimedHost::Host(Some(HostName::LeadingWildcard(suffix))) => Some(HostPattern::Wildcard(suffix.clone())),
            ClaimedHost::Host(Some(HostName::TrailingWildcard(_))) | ClaimedHost::DefaultBackend => None,
        }
    }
}

/// Plans with their Ingresses, the oldest first.
pub(super) type PlansByAge<'p> = Vec<(&'p ObjectKey, &'p Arc<IngressPlan>)>;

impl PlannedIngresses {
    /// Adds, replaces or removes a plan. Adds the hosts that it has or had to `changed`.
    pub(super) fn set(&mut self, key: &ObjectKey, plan: Option<Arc<IngressPlan>>, changed: &mut BTreeSet<ClaimedHost>) {
        let hosts = plan.as_ref().map(|plan| claimed_hosts(plan)).unwrap_or_default();
        self.host_router_count += plan.iter().filter(|plan| plan.order() != RouteOrder::ByConditions).count();
        self.location_count += plan.iter().filter(|plan| plan.order() == RouteOrder::ByLocation).count();
        let before = match plan {
            Some(plan) => self.plans.insert(key.clone(), plan),
            None => self.plans.remove(key),
        };
        let hosts_before = before.as_ref().map(|plan| claimed_hosts(plan)).unwrap_or_default();
        self.host_router_count -= before.iter().filter(|plan| plan.order() != RouteOrder::ByConditions).count();
        self.location_count -= before.iter().filter(|plan| plan.order() == RouteOrder::ByLocation).count();
        for host in hosts_before.difference(&hosts) {
            if let Some(keys) = self.by_host.get_mut(host) {
                keys.retain(|other| *other != *key);
                if keys.is_empty() {
                    self.by_host.remove(host);
                }
            }
        }
        for host in hosts.difference(&hosts_before) {
            let keys = self.by_host.entry(host.clone()).or_default();
            if let Err(position) = keys.binary_search(key) {
                keys.insert(position, key.clone());
            }
        }
        changed.extend(hosts);
        changed.extend(hosts_before);
    }

    /// Replaces a plan by one with the same routes and certificates.
    pub(super) fn replace_equal(&mut self, key: &ObjectKey, plan: Arc<IngressPlan>) {
        if let Some(known) = self.plans.get_mut(key) {
            *known = plan;
        }
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Arc<IngressPlan>> {
        self.plans.get(key)
    }

    /// The keys of those whose routes are ordered by location.
    pub(super) fn with_locations(&self) -> impl Iterator<Item = &ObjectKey> {
        let by_location = |plan: &IngressPlan| plan.order() == RouteOrder::ByLocation;
        self.plans.iter().filter(move |(_, plan)| by_location(plan)).map(|(key, _)| key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.plans.keys()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// Whether a host has a router of its own, because the routes of an Ingress are ordered by host or by location.
    pub(super) fn has_host_routers(&self) -> bool {
        self.host_router_count > 0
    }

    /// Whether an Ingress has locations.
    pub(super) fn has_locations(&self) -> bool {
        self.location_count > 0
    }

    /// All hosts.
    pub(super) fn hosts(&self) -> BTreeSet<ClaimedHost> {
        self.by_host.keys().cloned().collect()
    }

    /// The Ingresses with one of these hosts.
    pub(super) fn with_hosts(&self, hosts: &BTreeSet<ClaimedHost>) -> BTreeSet<&ObjectKey> {
        hosts.iter().filter_map(|host| self.by_host.get(host)).flatten().collect()
    }

    /// The Ingresses that have a host in common with one of these, and these.
    pub(super) fn neighbors(&self, keys: &BTreeSet<&ObjectKey>) -> BTreeSet<&ObjectKey> {
        let plans = keys.iter().filter_map(|key| self.plans.get(*key));
        self.with_hosts(&plans.flat_map(|plan| claimed_hosts(plan)).collect())
    }

    /// The plans of these Ingresses, the oldest first.
    pub(super) fn by_age(&self, keys: &BTreeSet<&ObjectKey>) -> PlansByAge<'_> {
        let mut plans: PlansByAge<'_> = keys.iter().filter_map(|key| self.plans.get_key_value(*key)).collect();
        plans.sort_by_key(|(key, plan)| (plan.created, *key));
        plans
    }

    /// The plan of the oldest Ingress with a default backend.
    pub(super) fn default_backend(&self) -> Option<&Arc<IngressPlan>> {
        let keys = self.by_host.get(&ClaimedHost::DefaultBackend)?;
        let plans = keys.iter().filter_map(|key| self.plans.get_key_value(key));
        plans.min_by_key(|(key, plan)| (plan.created, *key)).map(|(_, plan)| plan)
    }
}

fn claimed_hosts(plan: &IngressPlan) -> BTreeSet<ClaimedHost> {
    let of_rules = named_hosts(plan).into_iter().map(|(name, _)| ClaimedHost::Host(name));
    let of_certificates = plan.certificates.iter().map(|certificate| ClaimedHost::Host(host_name(&certificate.host)));
    let default_backend = plan.has_default_backend().then_some(ClaimedHost::DefaultBackend);
    of_rules.chain(of_certificates).chain(default_backend).collect()
}
