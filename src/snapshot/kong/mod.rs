//! The router for Kong routes: matches in Kong's order, found by host and path without scanning all routes.
//!
//! ```text
//!   KongRoute ──split by path, ranked──▶ entries ──▶ Router ─ find ─▶ Matched: rule and path match
//!                                                                      └ RouteRule.kong: KongBehavior
//! ```
//!
//! Kong does not prefer the most specific host: it compares the number of condition kinds over all hosts first, and
//! lengths later. So one list holds the entries of all hosts, sorted by rank, and an index gives positions in it.

mod behavior;
mod index;
mod pattern;
mod rank;
mod route;
mod upstream_path;
mod uri_template;

use std::sync::Arc;

pub use self::behavior::{HttpsRedirect, KongBehavior, UpstreamHost};
use self::index::{HostIndex, IndexedEntry};
pub use self::pattern::{Captures, PathRegex, TextRegex};
use self::rank::Rank;
pub use self::rank::RouterFlavor;
pub use self::route::{HeaderPattern, HostName, KongHeaderMatch, KongHost, KongPath, KongRoute, normalize_path};
pub use self::upstream_path::upstream_path;
pub use self::uri_template::{TemplateError, UriTemplate};
use super::redirect::Scheme;
use super::router::{Matched, MatchedPath, RoutingRequest};

/// The routes of a listener, in Kong's order.
#[derive(Debug)]
pub struct Router {
    /// In the order in which they are tried.
    entries: Box<[KongEntry]>,
    /// Positions in `entries` by host and path.
    index: HostIndex,
}

/// A route with one of its paths.
#[derive(Clone, Debug)]
pub struct KongEntry {
    pub route: Arc<KongRoute>,
    /// The index of the path in the route; `None` if the route has no paths.
    path: Option<usize>,
}

impl Router {
    /// Splits the routes by path and sorts the entries by rank.
    pub fn build(flavor: RouterFlavor, routes: impl IntoIterator<Item: Into<Arc<KongRoute>>>) -> Self {
        let mut ranked: Vec<(Rank, KongEntry)> = Vec::new();
        for route in routes {
            let route: Arc<KongRoute> = route.into();
            for path in indices_or_none(route.paths.len()) {
                let entry = KongEntry { route: Arc::clone(&route), path };
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
        let entries: Box<[KongEntry]> = ranked.into_iter().map(|(_, entry)| entry).collect();
        let position = |index| u32::try_from(index).expect("fewer than 2^32 routes fit in memory");
        let index = HostIndex::build(entries.iter().enumerate().map(|(index, entry)| IndexedEntry {
            position: position(index),
            hosts: entry.hosts(),
            path: entry.path(),
        }));
        Router { entries, index }
    }

    /// The first matching entry. The host is in lower case and has no port.
    pub fn find(&self, host: &str, request: &RoutingRequest<'_>) -> Option<Matched<'_>> {
        let admits = |position: u32| self.entries[position as usize].matches(host, request);
        let entry = &self.entries[self.index.find(host, request.path, admits)? as usize];
        Some(Matched { rule: &entry.route.rule, path: MatchedPath::Kong(entry.path()) })
    }

    /// All entries in the order in which they are tried.
    pub fn entries(&self) -> &[KongEntry] {
        &self.entries
    }
}

impl KongEntry {
    pub fn path(&self) -> Option<&KongPath> {
        self.route.paths.get(self.path?)
    }

    /// An empty slice means any host.
    pub fn hosts(&self) -> &[KongHost] {
        &self.route.hosts
    }

    /// Orders entries of equal rank: by creation time, then name, then position in the object, then path.
    fn order_in_rank(&self) -> impl Ord + use<'_> {
        (&self.route.tie_breaker, self.path)
    }

    /// Checks the conditions that the index does not check: all except the path and the hostname.
    fn matches(&self, host: &str, request: &RoutingRequest<'_>) -> bool {
        let KongRoute { methods, headers, server_names, .. } = &*self.route;
        (methods.is_empty() || methods.contains(request.method))
            && (server_names.is_empty() || matches_server_name(server_names, request))
            && self.matches_host_and_port(host, request)
            && headers.iter().all(|header| header.matches(request.headers))
    }

    /// Checks the hosts that have a port. Hosts without port have been matched by the index.
    fn matches_host_and_port(&self, host: &str, request: &RoutingRequest<'_>) -> bool {
        let matches = |pattern: &KongHost| match pattern.port {
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
