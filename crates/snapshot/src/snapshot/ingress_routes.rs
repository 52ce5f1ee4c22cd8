//! The routes of Ingresses of several dialects on one listener.
//!
//! ```text
//!   host, port ─▶ HostOrders: which order has the most specific host?
//!                     │
//!                     ├─▶ by host ───────▶ by conditions ─▶ locations ─┐
//!                     ├─▶ by conditions ─▶ by host ───────▶ locations ─┴─▶ default backend
//!                     └─▶ locations, which match every path of their hosts
//! ```
//!
//! A request that no rule of the first order matches is matched by the others, so that no rule is unreachable
//! because of a host. The default backend comes after all rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::dump::{HostDump, dump_by_conditions, dump_by_host, dump_locations};
use super::host::{HostMap, HostPattern, MAX_DNS_NAME_LENGTH};
use super::router::by_conditions::{ConditionsRouter, HostName};
use super::router::locations::LocationRouter;
use super::router::{HostRouter, Matched, RoutingRequest};
use super::rule::RouteRule;

/// The routes of Ingresses in several orders. Copies share the routes of each host.
#[derive(Clone, Debug, Default)]
pub struct IngressRoutes {
    /// The most specific host first, then the path. A wildcard matches exactly one label.
    pub by_host: HostMap<Arc<HostRouter>>,
    /// One order for all hosts.
    pub by_conditions: Arc<ConditionsRouter>,
    /// The most specific host first, then its locations. A wildcard matches exactly one label.
    pub locations: HostMap<Arc<LocationRouter>>,
    /// The locations of hosts that no rule names.
    pub unnamed_hosts: Option<Arc<LocationRouter>>,
    /// Which order comes first for a host.
    pub orders: HostOrders,
    /// The route for requests that no rule matches.
    pub default_backend: Option<DefaultBackend>,
}

/// The route of the default backend, with the router of its order.
#[derive(Clone, Debug)]
pub enum DefaultBackend {
    ByHost(Arc<HostRouter>),
    ByConditions(Arc<ConditionsRouter>),
}

/// One of the orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteOrder {
    ByHost,
    ByConditions,
    ByLocation,
}

/// A host that rules name; `None` for every host.
pub type NamedHost = Option<HostName>;

/// A rule for a host.
#[derive(Clone, Copy, Debug)]
pub struct HostRule {
    /// `None` for every port.
    pub port: Option<u16>,
    pub order: RouteOrder,
}

/// Which order comes first, by host.
#[derive(Clone, Debug, Default)]
pub struct HostOrders {
    hosts: HostMap<OrdersOfHost>,
    /// Names such as `example` of `example.*`, which only the order by conditions has.
    trailing_wildcards: Arc<BTreeSet<Arc<str>>>,
}

/// The orders that have rules for one host pattern.
#[derive(Clone, Debug)]
struct OrdersOfHost {
    pattern: HostPattern,
    /// The order that named the host first.
    first: RouteOrder,
    has_by_host: bool,
    has_locations: bool,
    by_conditions: Option<Ports>,
}

/// The ports of the rules for one host.
#[derive(Clone, Debug)]
enum Ports {
    All,
    Some(BTreeSet<u16>),
}

impl IngressRoutes {
    /// The rule that serves this request. The host is lower case and has no port.
    pub fn find(&self, host: &str, request: &RoutingRequest<'_>) -> Option<Matched<'_>> {
        let by_host = || self.by_host.single_label_candidates(host).find_map(|router| router.find(request));
        let by_conditions = || self.by_conditions.find(host, request);
        let by_location = || self.locations.single_label_candidates(host).find_map(|router| router.find(request));
        let matched = match self.first_order(host, request) {
            Some(RouteOrder::ByHost) => by_host().or_else(by_conditions).or_else(by_location),
            Some(RouteOrder::ByConditions) => by_conditions().or_else(by_host).or_else(by_location),
            // A host of this order belongs to it: its root is a location, too.
            Some(RouteOrder::ByLocation) => return by_location(),
            // No rule has a host that matches.
            None => self.unnamed_hosts.as_ref().and_then(|router| router.find(request)),
        };
        matched.or_else(|| match self.default_backend.as_ref()? {
            DefaultBackend::ByHost(router) => router.find(request),
            DefaultBackend::ByConditions(router) => router.find(host, request),
        })
    }

    /// The order with the most specific host that matches; `None` if no rule has such a host.
    pub(crate) fn first_order(&self, host: &str, request: &RoutingRequest<'_>) -> Option<RouteOrder> {
        self.orders.first(host, || request.port())
    }

    /// Whether a plugin of a rule that may serve this host reads the certificates of clients.
    pub(super) fn requests_client_certificate(&self, host: Option<&str>) -> bool {
        let by_host = match host {
            Some(host) => self.by_host.single_label_candidates(host).any(|router| router.requests_client_certificate()),
            None => self.by_host.iter().any(|(_, router)| router.requests_client_certificate()),
        };
        let by_location = match host {
            Some(host) => {
                self.locations.single_label_candidates(host).any(|router| router.requests_client_certificate())
            }
            None => self.locations.iter().any(|(_, router)| router.requests_client_certificate()),
        };
        by_host
            || by_location
            || self.by_conditions.requests_client_certificate()
            || self.unnamed_hosts.as_ref().is_some_and(|router| router.requests_client_certificate())
            || self.default_backend.as_ref().is_some_and(|backend| match backend {
                DefaultBackend::ByHost(router) => router.requests_client_certificate(),
                DefaultBackend::ByConditions(router) => router.requests_client_certificate(),
            })
    }

    /// Whether a host verifies the certificates of its clients, as an annotation for all its locations says.
    pub(super) fn verifies_clients(&self, host: &str) -> bool {
        self.locations.single_label_candidates(host).next().is_some_and(|router| router.verifies_clients())
    }

    /// The rule of each match, in the order of the dump.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Arc<RouteRule>> {
        let default_backend = match &self.default_backend {
            Some(DefaultBackend::ByHost(router)) => router.matches().first().map(|route_match| &route_match.rule),
            Some(DefaultBackend::ByConditions(router)) => router.entries().first().map(|entry| &entry.route.rule),
            None => None,
        };
        let of_locations = self.locations.sorted().into_iter().flat_map(|(_, router)| router.locations());
        rules_by_host(&self.by_host)
            .chain(rules_by_conditions(&self.by_conditions))
            .chain(of_locations.map(|location| &location.rule))
            .chain(default_backend)
    }

    /// The routes of the order by host, those of the order by conditions, the locations, and the default backend.
    pub(super) fn dump(&self) -> Vec<HostDump> {
        let mut hosts = dump_by_host(&self.by_host);
        hosts.extend(dump_by_conditions(&self.by_conditions));
        hosts.extend(dump_locations(&self.locations));
        match &self.default_backend {
            Some(DefaultBackend::ByHost(router)) => {
                hosts.extend(dump_by_host(&HostMap::new([(HostPattern::Any, Arc::clone(router))])));
            }
            Some(DefaultBackend::ByConditions(router)) => hosts.extend(dump_by_conditions(router)),
            None => {}
        }
        hosts
    }

    /// The hosts that rules of several orders name, each with the order that comes first.
    pub fn contested_hosts(&self) -> Vec<String> {
        let hosts = self.orders.hosts.sorted().into_iter();
        let hosts = hosts.filter(|(_, orders)| {
            let OrdersOfHost { has_by_host, has_locations, by_conditions, .. } = orders;
            [*has_by_host, *has_locations, by_conditions.is_some()].iter().filter(|has_rules| **has_rules).count() > 1
        });
        let line = |(host, orders): (&HostPattern, &OrdersOfHost)| match orders.first {
            RouteOrder::ByHost => format!("{host}: by host"),
            RouteOrder::ByConditions => format!("{host}: by conditions"),
            RouteOrder::ByLocation => format!("{host}: by location"),
        };
        hosts.map(line).collect()
    }
}

/// The rule of each match.
pub(super) fn rules_by_host(hosts: &HostMap<Arc<HostRouter>>) -> impl Iterator<Item = &Arc<RouteRule>> {
    hosts.sorted().into_iter().flat_map(|(_, router)| router.matches()).map(|route_match| &route_match.rule)
}

/// The rule of each entry.
pub(super) fn rules_by_conditions(router: &ConditionsRouter) -> impl Iterator<Item = &Arc<RouteRule>> {
    router.entries().into_iter().map(|entry| &entry.route.rule)
}

impl HostOrders {
    /// Replaces the rules of a host, those of the oldest Ingress first. Of several orders, that of the first rule comes
    /// first.
    pub fn set(&mut self, host: NamedHost, rules: &[HostRule]) {
        let pattern = match host {
            None => HostPattern::Any,
            Some(HostName::Exact(name)) => HostPattern::Exact(name),
            Some(HostName::LeadingWildcard(suffix)) => HostPattern::Wildcard(suffix),
            Some(HostName::TrailingWildcard(prefix)) => {
                let is_known = self.trailing_wildcards.contains(&prefix);
                match rules.is_empty() {
                    true if is_known => drop(Arc::make_mut(&mut self.trailing_wildcards).remove(&prefix)),
                    false if !is_known => drop(Arc::make_mut(&mut self.trailing_wildcards).insert(prefix)),
                    _ => {}
                }
                return;
            }
        };
        let mut by_conditions = None;
        for rule in rules.iter().filter(|rule| rule.order == RouteOrder::ByConditions) {
            Ports::add(&mut by_conditions, rule.port);
        }
        let orders = rules.first().map(|first| OrdersOfHost {
            pattern: pattern.clone(),
            first: first.order,
            has_by_host: rules.iter().any(|rule| rule.order == RouteOrder::ByHost),
            has_locations: rules.iter().any(|rule| rule.order == RouteOrder::ByLocation),
            by_conditions,
        });
        self.hosts.set(pattern, orders);
    }

    fn first(&self, host: &str, port: impl Fn() -> u16) -> Option<RouteOrder> {
        let mut candidates = self.hosts.candidates(host).filter_map(|orders| {
            let is_single_label = is_single_label_match(&orders.pattern, host);
            let has_rules = |order: RouteOrder| match order {
                RouteOrder::ByHost => orders.has_by_host && is_single_label,
                RouteOrder::ByLocation => orders.has_locations && is_single_label,
                RouteOrder::ByConditions => orders.by_conditions.as_ref().is_some_and(|ports| ports.contain(&port)),
            };
            let others = [RouteOrder::ByHost, RouteOrder::ByConditions, RouteOrder::ByLocation];
            let order = [orders.first].into_iter().chain(others).find(|order| has_rules(*order))?;
            Some((&orders.pattern, order))
        });
        match candidates.next() {
            // `example.*` is more specific than no host.
            None | Some((HostPattern::Any, _)) if self.has_trailing_wildcard(host) => Some(RouteOrder::ByConditions),
            found => found.map(|(_, order)| order),
        }
    }

    fn has_trailing_wildcard(&self, host: &str) -> bool {
        !self.trailing_wildcards.is_empty()
            && host.len() <= MAX_DNS_NAME_LENGTH
            && host.match_indices('.').any(|(dot, _)| {
                let labels = &host[dot + 1..];
                !labels.is_empty() && !labels.starts_with('.') && self.trailing_wildcards.contains(&host[..dot])
            })
    }
}

/// Whether a pattern that matches `host` also matches if a wildcard stands for one label.
fn is_single_label_match(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Wildcard(suffix) => host.split_once('.').is_some_and(|(_, rest)| *rest == **suffix),
        HostPattern::Exact(_) | HostPattern::Any => true,
    }
}

impl Ports {
    fn add(ports: &mut Option<Ports>, port: Option<u16>) {
        match (port, ports) {
            (_, Some(Ports::All)) => {}
            (Some(port), Some(Ports::Some(known))) => drop(known.insert(port)),
            (Some(port), none @ None) => *none = Some(Ports::Some(BTreeSet::from([port]))),
            (None, ports) => *ports = Some(Ports::All),
        }
    }

    fn contain(&self, port: impl Fn() -> u16) -> bool {
        match self {
            Ports::All => true,
            Ports::Some(ports) => ports.contains(&port()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::snapshot::router::by_conditions::HostCondition;

    fn orders(hosts: &[(&str, RouteOrder)]) -> HostOrders {
        let mut rules: BTreeMap<NamedHost, Vec<HostRule>> = BTreeMap::new();
        for (text, order) in hosts {
            let host = HostCondition::parse(text);
            let rule = HostRule { port: host.as_ref().and_then(|host| host.port), order: *order };
            rules.entry(host.map(|host| host.name)).or_default().push(rule);
        }
        let mut orders = HostOrders::default();
        rules.into_iter().for_each(|(host, rules)| orders.set(host, &rules));
        orders
    }

    #[test]
    fn most_specific_host_decides_which_order_comes_first() {
        use RouteOrder::{ByConditions, ByHost};
        let orders = orders(&[
            ("*", ByHost),
            ("*.com", ByConditions),
            ("*.example.com", ByHost),
            ("a.example.com", ByConditions),
            ("b.example.com", ByHost),
            // The same host in both: the first one in the list comes first.
            ("both.example.com", ByHost),
            ("both.example.com", ByConditions),
            ("later.example.com", ByConditions),
            ("later.example.com", ByHost),
            ("*.both.org", ByHost),
            ("*.both.org", ByConditions),
            // One port only.
            ("port.example.com:8080", ByConditions),
            ("example.*", ByConditions),
        ]);
        for (host, port, expected) in [
            ("a.example.com", 80, ByConditions),
            ("b.example.com", 80, ByHost),
            ("c.example.com", 80, ByHost),
            // A wildcard of the order by host matches one label only.
            ("d.c.example.com", 80, ByConditions),
            ("example.com", 80, ByConditions),
            ("both.example.com", 80, ByHost),
            ("later.example.com", 80, ByConditions),
            ("x.both.org", 80, ByHost),
            ("y.x.both.org", 80, ByConditions),
            ("port.example.com", 8080, ByConditions),
            ("port.example.com", 80, ByHost),
            ("example.org", 80, ByConditions),
            ("example.org.uk", 80, ByConditions),
            ("example.", 80, ByHost),
            ("elsewhere.org", 80, ByHost),
            ("", 80, ByHost),
        ] {
            assert_eq!(orders.first(host, || port), Some(expected), "{host}:{port}");
        }
    }

    #[test]
    fn host_without_rules_has_no_order() {
        let orders = orders(&[("a.example", RouteOrder::ByHost), ("b.example:1", RouteOrder::ByConditions)]);
        assert_eq!(orders.first("c.example", || 80), None);
        assert_eq!(orders.first("b.example", || 80), None);
        assert_eq!(HostOrders::default().first("a.example", || 80), None);
    }

    #[test]
    fn host_without_its_last_rule_has_no_order() {
        use RouteOrder::{ByConditions, ByHost};
        let mut orders = orders(&[("a.example", ByHost), ("example.*", ByConditions), ("*", ByHost)]);
        let before = orders.clone();
        let removed = ["a.example", "example.*", "*"].map(|text| HostCondition::parse(text).map(|host| host.name));
        removed.into_iter().for_each(|host| orders.set(host, &[]));
        for (host, expected) in [("a.example", ByHost), ("example.org", ByConditions), ("b.example", ByHost)] {
            assert_eq!((before.first(host, || 80), orders.first(host, || 80)), (Some(expected), None), "{host}");
        }
    }
}
