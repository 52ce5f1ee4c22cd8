//! The order by conditions: a route with more kinds of conditions precedes one with fewer, whatever their hosts. This
//! is the order of Kong's router.
//!
//! ```text
//!   ConditionRoute ──split by path, ranked──▶ entries ──▶ ConditionsRouter ─ find ─▶ Matched: rule and path condition
//! ```
//!
//! The number of condition kinds is compared over all hosts first, and lengths later. But only entries of hosts that
//! match the same request are ever compared, so each host has a list of its own, sorted by rank. A request searches the
//! lists of the exact host, of the wildcards, and of entries for any host; ranks decide between their results. So a
//! change of a route affects the lists of its hosts only, and a copy of the router shares the other lists.

mod index;
mod rank;
mod route;

use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use self::index::HostIndex;
use self::rank::Rank;
pub use self::rank::RouterFlavor;
use self::route::normalize_path;
pub use self::route::{
    ConditionRoute, HEADER_REGEX_PREFIX, HeaderCondition, HeaderPattern, HostCondition, HostName, PathCondition,
};
use super::matched::{Matched, MatchedPath};
use super::request::RoutingRequest;
use super::request_fields::Candidate;
use crate::snapshot::redirect::Scheme;
use crate::snapshot::regex_steps::RegexInput;

/// The routes of a listener, in the order by conditions.
#[derive(Clone, Debug, Default)]
pub struct ConditionsRouter {
    flavor: RouterFlavor,
    hosts: HostIndex,
    /// See [`ConditionsRouter::requests_client_certificate`]. Determined when a TLS handshake needs it.
    requests_client_certificate: OnceLock<bool>,
}

/// A route with one of its paths.
#[derive(Clone, Debug)]
pub struct RouteEntry {
    pub route: Arc<ConditionRoute>,
    /// The index of the path in the route; `None` if the route has no paths.
    path: Option<u32>,
    rank: Rank,
}

impl ConditionsRouter {
    /// A router of routes in any order.
    pub fn build(flavor: RouterFlavor, routes: impl IntoIterator<Item: Into<Arc<ConditionRoute>>>) -> Self {
        let routes: Vec<Arc<ConditionRoute>> = routes.into_iter().map(Into::into).collect();
        ConditionsRouter { flavor, ..ConditionsRouter::default() }.with_routes(&[], &routes)
    }

    /// A copy with the routes in `added`, and without those in `removed`, which are found by identity. A route in both
    /// was replaced before it was served. The lists of hosts that none of these routes names are shared.
    #[must_use]
    pub fn with_routes(&self, removed: &[Arc<ConditionRoute>], added: &[Arc<ConditionRoute>]) -> Self {
        let mut changed = ConditionsRouter { requests_client_certificate: OnceLock::new(), ..self.clone() };
        changed.hosts.replace(self.flavor, removed, added);
        changed
    }

    /// The first matching entry, after duplicate slashes of the path are merged ([`Matched::normalized`]). The host is
    /// in lower case and has no port. Must not be used if the request exceeds its [`RegexSteps`].
    ///
    /// [`RegexSteps`]: crate::snapshot::regex_steps::RegexSteps
    pub fn find(&self, host: &str, request: &RoutingRequest<'_>) -> Option<Matched<'_>> {
        let normalized = normalize_path(request.path);
        let path = normalized.as_deref().unwrap_or(request.path);
        let entry = self.hosts.find(host, path, &request.regex_steps, |entry| entry.matches(host, path, request))?;
        if let Some(PathCondition::Regex(regex)) = entry.path() {
            // The expression is matched twice more, for the length of the matched part and for its groups.
            request.regex_steps.admit(regex.states().saturating_mul(2), path.len(), RegexInput::Target);
        }
        Some(Matched {
            rule: &entry.route.rule,
            path: MatchedPath::ByConditions(entry.path()),
            normalized,
            names_method: !entry.route.methods.is_empty(),
        })
    }

    /// The entries of these routes in the order in which they are tried. Takes less time and memory than a router.
    pub fn ordered_entries<'r>(
        flavor: RouterFlavor,
        routes: impl IntoIterator<Item = &'r Arc<ConditionRoute>>,
    ) -> Vec<RouteEntry> {
        let mut entries: Vec<_> = routes.into_iter().flat_map(|route| RouteEntry::of_route(flavor, route)).collect();
        entries.sort_by(RouteEntry::compare);
        entries
    }

    /// Whether a plugin of some rule reads the certificates of clients.
    pub(in crate::snapshot) fn requests_client_certificate(&self) -> bool {
        let requests = || self.hosts.entries().any(|entry| entry.route.rule.requests_client_certificate());
        *self.requests_client_certificate.get_or_init(requests)
    }

    /// All entries in the order in which they are tried.
    pub fn entries(&self) -> Vec<&RouteEntry> {
        let mut entries: Vec<_> = self.hosts.entries().collect();
        entries.sort_by(|a, b| a.compare(b));
        // An entry with several hosts is in the list of each.
        entries.dedup_by(|a, b| Arc::ptr_eq(&a.route, &b.route) && a.path == b.path);
        entries
    }
}

impl RouteEntry {
    /// One entry for each path of the route.
    fn of_route(flavor: RouterFlavor, route: &Arc<ConditionRoute>) -> impl Iterator<Item = RouteEntry> {
        indices_or_none(route.paths.len()).map(move |index| {
            let path = index.map(|index| u32::try_from(index).expect("fewer than 2^32 paths fit in memory"));
            let rank = Rank::new(flavor, route, index.map(|index| &route.paths[index]));
            RouteEntry { route: Arc::clone(route), path, rank }
        })
    }

    pub fn path(&self) -> Option<&PathCondition> {
        self.route.paths.get(self.path_index()?)
    }

    /// The index of the path among those of the route.
    pub fn path_index(&self) -> Option<usize> {
        self.path.map(|index| index as usize)
    }

    /// An empty slice means any host.
    pub fn hosts(&self) -> &[HostCondition] {
        &self.route.hosts
    }

    /// Orders by rank, the greatest first. Of entries of equal rank, by creation time, then name, then position in the
    /// object, then path.
    fn compare(&self, other: &RouteEntry) -> Ordering {
        other
            .rank
            .cmp(&self.rank)
            .then_with(|| self.route.tie_breaker.cmp(&other.route.tie_breaker))
            .then(self.path.cmp(&other.path))
    }

    /// Checks the conditions that the index does not check: all except the path and the hostname.
    fn matches(&self, host: &str, path: &str, request: &RoutingRequest<'_>) -> bool {
        let ConditionRoute { methods, headers, server_names, rule, .. } = &*self.route;
        let candidate = || Candidate { rule, matched: MatchedPath::ByConditions(self.path()), path };
        (methods.is_empty() || methods.contains(request.method))
            && (server_names.is_empty() || matches_server_name(server_names, request))
            && self.matches_host_and_port(host, request)
            && headers.iter().all(|header| header.applies(request, candidate()))
    }

    /// Checks the hosts that have a port. Hosts without port have been matched by the index.
    fn matches_host_and_port(&self, host: &str, request: &RoutingRequest<'_>) -> bool {
        let matches = |pattern: &HostCondition| match pattern.port {
            None => pattern.name.matches(host),
            Some(port) => port == request.port() && pattern.name.matches(host),
        };
        self.hosts().iter().all(|pattern| pattern.port.is_none()) || self.hosts().iter().any(matches)
    }
}

/// Whether the SNI matches one of `server_names`. They are ignored for plain-text requests, which have no SNI.
pub(super) fn matches_server_name(server_names: &[HostName], request: &RoutingRequest<'_>) -> bool {
    match request.scheme {
        Scheme::Http => true,
        Scheme::Https => {
            request.server_name.is_some_and(|name| server_names.iter().any(|server_name| server_name.matches(name)))
        }
    }
}

/// `Some` of each index below `count`, or a single `None` if `count` is 0.
fn indices_or_none(count: usize) -> impl Iterator<Item = Option<usize>> {
    (0..count).map(Some).chain((count == 0).then_some(None))
}

#[cfg(test)]
mod tests;
