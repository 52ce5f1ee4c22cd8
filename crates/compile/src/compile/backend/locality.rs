//! Which endpoints of an upstream are near: their levels, by zones, nodes, and the hints of EndpointSlices.
//!
//! The rules are those of kube-proxy, with one difference: endpoints that kube-proxy would not use are on later levels,
//! which get requests if the nearer endpoints are ejected. A policy may order these levels by zones and regions.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::traffic_distribution::TrafficDistribution;
use crate::api::core::{Endpoint, EndpointPlace};
use crate::api::{Kind, ObjectId};
use crate::store::Store;
use crate::upstream::settings::{FailoverLevel, LocalityMode};

/// Where this process is. `None` for what is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessLocation {
    pub zone: Option<Arc<str>>,
    pub node: Option<Arc<str>>,
}

/// By what an endpoint is near: the place of this process, and the levels of the policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalityScope<'l> {
    pub(super) location: &'l ProcessLocation,
    pub(super) failover: &'l [FailoverLevel],
}

impl LocalityScope<'static> {
    /// For callers that need the addresses only.
    pub(super) const NOWHERE: Self =
        LocalityScope { location: &ProcessLocation { zone: None, node: None }, failover: &[] };
}

/// Where this process is, and how that is found out: its own entry in the EndpointSlices of its Service says it.
#[derive(Debug, Default)]
pub(in crate::compile) struct LocationFinder {
    /// The namespace of this Pod; `None` outside of a cluster.
    namespace: Option<Arc<str>>,
    /// What applies to what no slice says.
    configured: ProcessLocation,
    current: ProcessLocation,
}

impl LocationFinder {
    pub(in crate::compile) fn new(namespace: Option<Arc<str>>, configured: ProcessLocation) -> Self {
        LocationFinder { namespace, current: configured.clone(), configured }
    }

    pub(in crate::compile) fn current(&self) -> &ProcessLocation {
        &self.current
    }

    /// Reads the slices of the namespace of this Pod again if one of them has changed. `own_addresses`: those of this
    /// Pod. Returns whether the process is elsewhere now.
    pub(in crate::compile) fn update<'c>(
        &mut self,
        store: &Store,
        changes: impl IntoIterator<Item = &'c ObjectId>,
        own_addresses: &BTreeSet<IpAddr>,
    ) -> bool {
        let Some(namespace) = &self.namespace else { return false };
        let is_own = |id: &ObjectId| id.kind == Kind::EndpointSlice && id.key.namespace == *namespace;
        if !changes.into_iter().any(is_own) {
            return false;
        }
        let slices = store.endpoint_slices.values().filter(|slice| slice.meta.key.namespace == *namespace);
        let is_own_address = |text: &str| {
            text.parse().is_ok_and(|address: IpAddr| !address.is_loopback() && own_addresses.contains(&address))
        };
        let own_entries = slices
            .flat_map(|slice| slice.endpoints.iter().flatten())
            .filter(|endpoint| endpoint.addresses.first().is_some_and(|text| is_own_address(text)));
        // An entry without a place says nothing.
        let place = own_entries
            .filter_map(|endpoint| endpoint.place.as_deref())
            .max_by_key(|place| [place.zone.is_some(), place.node.is_some()]);
        let named = |name: Option<&Box<str>>, configured: &Option<Arc<str>>| {
            name.map(|name| Arc::from(&**name)).or_else(|| configured.clone())
        };
        let location = ProcessLocation {
            zone: named(place.and_then(|place| place.zone.as_ref()), &self.configured.zone),
            node: named(place.and_then(|place| place.node.as_ref()), &self.configured.node),
        };
        let has_moved = location != self.current;
        self.current = location;
        has_moved
    }
}

/// How near an endpoint is to this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Proximity {
    is_in_zone: bool,
    is_on_node: bool,
    zone_hint: Hint,
    node_hint: Hint,
    /// The position of the first level of the policy with the zone of the endpoint.
    failover: Option<u8>,
}

/// What the hints of an endpoint say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Hint {
    #[default]
    Absent,
    /// They name other zones or nodes.
    Others,
    /// They name the zone or node of this process.
    Own,
}

impl Proximity {
    pub(super) fn of(endpoint: &Endpoint, scope: LocalityScope<'_>) -> Self {
        let LocalityScope { location, failover } = scope;
        let Some(EndpointPlace { zone, node, zone_hints, node_hints }) = endpoint.place.as_deref() else {
            return Proximity::default();
        };
        let is_own =
            |name: &Option<Box<str>>, own: &Option<Arc<str>>| own.is_some() && name.as_deref() == own.as_deref();
        let hint = |hints: &[Box<str>], own: &Option<Arc<str>>| {
            if hints.is_empty() {
                Hint::Absent
            } else if own.as_deref().is_some_and(|own| hints.iter().any(|hint| **hint == *own)) {
                Hint::Own
            } else {
                Hint::Others
            }
        };
        let level_of_zone = |zone: &str| failover.iter().position(|level| level.contains_zone(zone));
        Proximity {
            is_in_zone: is_own(zone, &location.zone),
            is_on_node: is_own(node, &location.node),
            zone_hint: hint(zone_hints, &location.zone),
            node_hint: hint(node_hints, &location.node),
            failover: zone.as_deref().and_then(level_of_zone).and_then(|level| u8::try_from(level).ok()),
        }
    }
}

/// The level of each endpoint; empty if all are on one level.
pub(super) fn levels(
    mode: LocalityMode,
    distribution: Option<TrafficDistribution>,
    endpoints: &[(SocketAddr, Proximity)],
) -> Box<[(SocketAddr, u8)]> {
    let rule = LevelRule::select(mode, distribution, endpoints);
    let level = |proximity: Proximity| rule.and_then(|rule| rule.level(proximity)).unwrap_or_else(|| later(proximity));
    let first = endpoints.first().map(|(_, proximity)| level(*proximity));
    if endpoints.iter().all(|(_, proximity)| Some(level(*proximity)) == first) {
        return Box::default();
    }
    endpoints.iter().map(|(address, proximity)| (*address, level(*proximity))).collect()
}

/// The level of an endpoint that is not near.
fn later(proximity: Proximity) -> u8 {
    proximity.failover.map_or(REST, |level| FAILOVER.saturating_add(level).min(REST))
}

/// What decides the level of an endpoint.
#[derive(Clone, Copy, Debug)]
enum LevelRule {
    NodeHints,
    ZoneHints,
    /// The node of the endpoint, then its zone.
    Node,
    Zone,
}

impl LevelRule {
    /// Hints have an effect only if all endpoints have them, as in kube-proxy: EndpointSlices may have been written
    /// before the setting. The control plane writes hints for `spec.trafficDistribution`; slices of others have none,
    /// and the places of their endpoints count instead.
    fn select(
        mode: LocalityMode,
        distribution: Option<TrafficDistribution>,
        endpoints: &[(SocketAddr, Proximity)],
    ) -> Option<Self> {
        let of_hints = |hint: fn(&Proximity) -> Hint| {
            let mut hints = endpoints.iter().map(|(_, proximity)| hint(proximity));
            hints.clone().all(|hint| hint != Hint::Absent) && hints.any(|hint| hint == Hint::Own)
        };
        let has_hints = |(_, proximity): &(SocketAddr, Proximity)| {
            proximity.zone_hint != Hint::Absent || proximity.node_hint != Hint::Absent
        };
        match mode {
            LocalityMode::Off => None,
            LocalityMode::Auto if distribution == Some(TrafficDistribution::Anywhere) => None,
            LocalityMode::PreferSameZone => Some(LevelRule::Zone),
            LocalityMode::PreferSameNode => Some(LevelRule::Node),
            LocalityMode::Auto if of_hints(|proximity| proximity.node_hint) => Some(LevelRule::NodeHints),
            LocalityMode::Auto if of_hints(|proximity| proximity.zone_hint) => Some(LevelRule::ZoneHints),
            LocalityMode::Auto if endpoints.iter().any(has_hints) => None,
            LocalityMode::Auto => match distribution? {
                TrafficDistribution::SameZone => Some(LevelRule::Zone),
                TrafficDistribution::SameNode => Some(LevelRule::Node),
                TrafficDistribution::Anywhere => None,
            },
        }
    }

    /// The level of an endpoint that is near.
    fn level(self, proximity: Proximity) -> Option<u8> {
        let Proximity { is_in_zone, is_on_node, zone_hint, node_hint, .. } = proximity;
        match self {
            LevelRule::NodeHints if node_hint == Hint::Own => Some(NODE),
            LevelRule::NodeHints | LevelRule::ZoneHints if zone_hint == Hint::Own => Some(ZONE),
            LevelRule::NodeHints if zone_hint == Hint::Absent && is_in_zone => Some(ZONE),
            LevelRule::Node if is_on_node => Some(NODE),
            LevelRule::Node | LevelRule::Zone if is_in_zone => Some(ZONE),
            _ => None,
        }
    }
}

const NODE: u8 = 0;
const ZONE: u8 = 1;
/// The first level of the policy; it has at most [`MAX_FAILOVER_LEVELS`].
const FAILOVER: u8 = 2;
const REST: u8 = FAILOVER + MAX_FAILOVER_LEVELS;
/// How many levels the definition of the policy allows.
const MAX_FAILOVER_LEVELS: u8 = 4;
const _: () = assert!((REST as usize) < crate::upstream::MAX_LEVELS, "each level is one of the upstream's");

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::store::{AnyObject, Batch};

    fn location(zone: &str, node: &str) -> ProcessLocation {
        ProcessLocation { zone: Some(zone.into()), node: Some(node.into()) }
    }

    /// The levels of endpoints for a process on node `n1` in zone `a`.
    fn levels_of(mode: LocalityMode, distribution: Option<TrafficDistribution>, endpoints: Value) -> Vec<u8> {
        failover_levels_of(mode, distribution, &[], endpoints)
    }

    fn failover_levels_of(
        mode: LocalityMode,
        distribution: Option<TrafficDistribution>,
        failover: &[FailoverLevel],
        endpoints: Value,
    ) -> Vec<u8> {
        let endpoints: Vec<Endpoint> = serde_json::from_value(endpoints).unwrap();
        let location = location("a", "n1");
        let proximity = |endpoint: &Endpoint| Proximity::of(endpoint, LocalityScope { location: &location, failover });
        let address = |endpoint: &Endpoint| SocketAddr::new(endpoint.addresses[0].parse().unwrap(), 80);
        let endpoints: Vec<_> = endpoints.iter().map(|endpoint| (address(endpoint), proximity(endpoint))).collect();
        levels(mode, distribution, &endpoints).iter().map(|(_, level)| *level).collect()
    }

    fn at(zone: &str, node: &str) -> Value {
        json!({"addresses": ["10.0.0.1"], "zone": zone, "nodeName": node})
    }

    fn hinted(zones: &[&str], nodes: &[&str]) -> Value {
        let named = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        json!({
            "addresses": ["10.0.0.1"], "zone": zones.first(),
            "hints": {"forZones": named(zones), "forNodes": named(nodes)},
        })
    }

    #[test]
    fn hints_count_if_all_endpoints_have_them() {
        let auto = |endpoints| levels_of(LocalityMode::Auto, None, endpoints);
        assert_eq!(auto(json!([hinted(&["a"], &[]), hinted(&["b", "a"], &[]), hinted(&["c"], &[])])), [1, 1, REST]);
        assert!(auto(json!([hinted(&["a"], &[]), at("b", "n2")])).is_empty(), "one has none");
        assert!(auto(json!([hinted(&["b"], &[]), hinted(&["c"], &[])])).is_empty(), "none is for this zone");
        assert!(auto(json!([hinted(&["a"], &[]), hinted(&["a"], &[])])).is_empty(), "all are");
        assert!(auto(json!([at("a", "n1"), at("b", "n2")])).is_empty(), "the Service does not ask for it");
        assert!(auto(json!([])).is_empty());
        let anywhere = json!([hinted(&["a"], &[]), hinted(&["c"], &[])]);
        let anywhere = levels_of(LocalityMode::Auto, Some(TrafficDistribution::Anywhere), anywhere);
        assert!(anywhere.is_empty(), "the Service does not want it");
        let off = json!([hinted(&["a"], &[]), hinted(&["c"], &[])]);
        assert!(levels_of(LocalityMode::Off, Some(TrafficDistribution::SameZone), off).is_empty());
    }

    #[test]
    fn hints_for_nodes_precede_those_for_zones() {
        let auto = |endpoints| levels_of(LocalityMode::Auto, Some(TrafficDistribution::SameNode), endpoints);
        let all = json!([hinted(&["a"], &["n1"]), hinted(&["a"], &["n2"]), hinted(&["b"], &["n3"])]);
        assert_eq!(auto(all), [0, 1, REST]);
        let none_on_node = json!([hinted(&["a"], &["n2"]), hinted(&["b"], &["n3"])]);
        assert_eq!(auto(none_on_node), [1, REST]);
        let some_without = json!([hinted(&["a"], &["n1"]), hinted(&["a"], &[]), hinted(&["b"], &["n3"])]);
        assert_eq!(auto(some_without), [1, 1, REST]);
        let for_nodes_only = json!({"addresses": ["10.0.0.2"], "zone": "a", "hints": {"forNodes": [{"name": "n2"}]}});
        let without_zone_hints = json!([hinted(&[], &["n1"]), for_nodes_only]);
        assert_eq!(auto(without_zone_hints), [0, 1]);
    }

    #[test]
    fn places_count_if_nobody_writes_hints() {
        let endpoints = || json!([at("a", "n1"), at("a", "n2"), at("b", "n3"), {"addresses": ["10.0.0.4"]}]);
        let auto = |distribution| levels_of(LocalityMode::Auto, Some(distribution), endpoints());
        assert_eq!(auto(TrafficDistribution::SameZone), [1, 1, REST, REST]);
        assert_eq!(auto(TrafficDistribution::SameNode), [0, 1, REST, REST]);
        let of_mode = |mode| levels_of(mode, None, endpoints());
        assert_eq!(of_mode(LocalityMode::PreferSameZone), [1, 1, REST, REST]);
        assert_eq!(of_mode(LocalityMode::PreferSameNode), [0, 1, REST, REST]);
    }

    #[test]
    fn unknown_location_prefers_none() {
        let endpoint: Endpoint = serde_json::from_value(hinted(&["a"], &["n1"])).unwrap();
        let proximity = Proximity::of(&endpoint, LocalityScope::NOWHERE);
        assert_eq!(
            (proximity.zone_hint, proximity.node_hint, proximity.is_in_zone),
            (Hint::Others, Hint::Others, false)
        );
        let nowhere: Endpoint = serde_json::from_value(json!({"addresses": ["10.0.0.1"]})).unwrap();
        assert_eq!(Proximity::of(&nowhere, LocalityScope::NOWHERE), Proximity::default());
    }

    #[test]
    fn policy_orders_what_is_not_near() {
        let zone = |name: &str| FailoverLevel::Zone(name.into());
        let failover = [zone("c"), FailoverLevel::Nothing, FailoverLevel::Region("b".into()), zone("b-1")];
        let endpoints = || {
            let nowhere = json!({"addresses": ["10.0.0.4"]});
            json!([at("a", "n1"), at("a", "n2"), at("b-1", "n3"), at("c", "n4"), at("d", "n5"), nowhere])
        };
        let of_mode = |mode| failover_levels_of(mode, None, &failover, endpoints());
        assert_eq!(of_mode(LocalityMode::PreferSameNode), [NODE, ZONE, 4, 2, REST, REST]);
        assert_eq!(of_mode(LocalityMode::PreferSameZone), [ZONE, ZONE, 4, 2, REST, REST]);
        assert_eq!(of_mode(LocalityMode::Off), [REST, REST, 4, 2, REST, REST], "the policy alone");
        assert_eq!(of_mode(LocalityMode::Auto), of_mode(LocalityMode::Off));
        let hinted = json!([hinted(&["a"], &[]), hinted(&["c"], &[]), hinted(&["d"], &[])]);
        assert_eq!(failover_levels_of(LocalityMode::Auto, None, &failover, hinted), [ZONE, 2, REST]);
        let of_one = failover_levels_of(LocalityMode::Off, None, &failover, json!([at("c", "n"), at("c", "n")]));
        assert!(of_one.is_empty(), "all are on one level");
        let beyond: Vec<_> = "qrstuvw".chars().map(|name| zone(&name.to_string())).collect();
        let levels = failover_levels_of(LocalityMode::Off, None, &beyond, json!([at("q", "n"), at("v", "n")]));
        assert_eq!(levels, [FAILOVER, REST], "more than the definition allows");
    }

    #[test]
    fn own_entry_precedes_flags() {
        let slice = |namespace: &str, address: &str, zone: Value, node: Value| {
            let slice = json!({
                "metadata": {"namespace": namespace, "name": "portico-1",
                    "labels": {"kubernetes.io/service-name": "portico"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.9.9.9"], "zone": "z"},
                    {"addresses": [address], "zone": zone, "nodeName": node}],
            });
            AnyObject::parse(Kind::EndpointSlice, slice).unwrap()
        };
        let own_addresses = ["10.0.0.1", "127.0.0.1"].map(|address| address.parse().unwrap()).into();
        let mut store = Store::default();
        let mut finder = LocationFinder::new(Some("system".into()), location("flag", "flag"));
        let mut update = |upsert| {
            let changes = store.apply(Batch { upserts: vec![upsert], removes: vec![] });
            let has_moved = finder.update(&store, &changes, &own_addresses);
            let ProcessLocation { zone, node } = finder.current().clone();
            (has_moved, zone.unwrap().to_string(), node.unwrap().to_string())
        };
        let result = |has_moved, zone: &str, node: &str| (has_moved, zone.to_owned(), node.to_owned());
        let flags = result(false, "flag", "flag");
        assert_eq!(update(slice("other", "10.0.0.1", json!("a"), json!("n"))), flags, "of another namespace");
        assert_eq!(update(slice("system", "10.0.0.2", json!("a"), json!("n"))), flags, "of another replica");
        assert_eq!(update(slice("system", "127.0.0.1", json!("a"), json!("n"))), flags, "loopback");
        assert_eq!(update(slice("system", "10.0.0.1", json!("a"), json!("n"))), result(true, "a", "n"));
        assert_eq!(update(slice("other", "10.0.0.1", json!("b"), json!("m"))), result(false, "a", "n"));
        assert_eq!(update(slice("system", "10.0.0.1", json!(null), json!("m"))), result(true, "flag", "m"));
    }
}
