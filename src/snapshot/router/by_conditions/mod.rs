//! The order by conditions: a route with more kinds of conditions precedes one with fewer, whatever their hosts. This
//! is the order of Kong's router.
//!
//! ```text
//!   ConditionRoute ──split by path, ranked──▶ entries ──▶ ConditionsRouter ─ find ─▶ Matched: rule and path condition
//! ```
//!
//! The number of condition kinds is compared over all hosts first, and lengths later. So one list holds the entries of
//! all hosts, sorted by rank, and an index gives positions in it.

mod index;
mod rank;
mod route;

use std::sync::Arc;

use self::index::{HostIndex, IndexedEntry};
use self::rank::Rank;
pub use self::rank::RouterFlavor;
use self::route::normalize_path;
pub use self::route::{
    ConditionRoute, HEADER_REGEX_PREFIX, HeaderCondition, HeaderPattern, HostCondition, HostName, PathCondition,
};
use super::{Matched, MatchedPath, RoutingRequest};
use crate::snapshot::redirect::Scheme;
use crate::snapshot::regex_steps::RegexInput;

/// The routes of a listener, in the order by conditions.
#[derive(Debug)]
pub struct ConditionsRouter {
    /// In the order in which they are tried.
    entries: Box<[RouteEntry]>,
    /// Positions in `entries` by host and path.
    index: HostIndex,
}

/// A route with one of its paths.
#[derive(Clone, Debug)]
pub struct RouteEntry {
    pub route: Arc<ConditionRoute>,
    /// The index of the path in the route; `None` if the route has no paths.
    path: Option<usize>,
}

impl ConditionsRouter {
    /// Splits the routes by path and sorts the entries by rank.
    pub fn build(flavor: RouterFlavor, routes: impl IntoIterator<Item: Into<Arc<ConditionRoute>>>) -> Self {
        let mut ranked: Vec<(Rank, RouteEntry)> = Vec::new();
        for route in routes {
            let route: Arc<ConditionRoute> = route.into();
            for path in indices_or_none(route.paths.len()) {
                let entry = RouteEntry { route: Arc::clone(&route), path };
                let rank = match flavor {
                    RouterFlavor::TraditionalCompatible => rank::traditional_compatible(&route, entry.path()),
                    RouterFlavor::Expressions => rank::expressions(&route),
                };
                ranked.push((rank, entry));
            }
        }
        ranked.sort_by(|(rank, entry), (other_rank, other)| {
            other_rank.cmp(rank).then_with(|| entry.order_in_rank().cmp(&other.order_in_rank()))
        });
        let entries: Box<[RouteEntry]> = ranked.into_iter().map(|(_, entry)| entry).collect();
        let position = |index| u32::try_from(index).expect("fewer than 2^32 routes fit in memory");
        let index = HostIndex::build(entries.iter().enumerate().map(|(index, entry)| IndexedEntry {
            position: position(index),
            hosts: entry.hosts(),
            path: entry.path(),
        }));
        ConditionsRouter { entries, index }
    }

    /// The first matching entry, after duplicate slashes of the path are merged ([`Matched::normalized`]). The host is
    /// in lower case and has no port. Must not be used if the request exceeds its [`RegexSteps`].
    ///
    /// [`RegexSteps`]: crate::snapshot::regex_steps::RegexSteps
    pub fn find(&self, host: &str, request: &RoutingRequest<'_>) -> Option<Matched<'_>> {
        let normalized = normalize_path(request.path);
        let path = normalized.as_deref().unwrap_or(request.path);
        let admits = |position: u32| self.entries[position as usize].matches(host, request);
        let position = self.index.find(host, path, &request.regex_steps, admits)?;
        let entry = &self.entries[position as usize];
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

    /// All entries in the order in which they are tried.
    pub fn entries(&self) -> &[RouteEntry] {
        &self.entries
    }
}

impl RouteEntry {
    pub fn path(&self) -> Option<&PathCondition> {
        self.route.paths.get(self.path?)
    }

    /// An empty slice means any host.
    pub fn hosts(&self) -> &[HostCondition] {
        &self.route.hosts
    }

    /// Orders entries of equal rank: by creation time, then name, then position in the object, then path.
    fn order_in_rank(&self) -> impl Ord + use<'_> {
        (&self.route.tie_breaker, self.path)
    }

    /// Checks the conditions that the index does not check: all except the path and the hostname.
    fn matches(&self, host: &str, request: &RoutingRequest<'_>) -> bool {
        let ConditionRoute { methods, headers, server_names, .. } = &*self.route;
        (methods.is_empty() || methods.contains(request.method))
            && (server_names.is_empty() || matches_server_name(server_names, request))
            && self.matches_host_and_port(host, request)
            && headers.iter().all(|header| header.matches(request.headers, &request.regex_steps))
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
