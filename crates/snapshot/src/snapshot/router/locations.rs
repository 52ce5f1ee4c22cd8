//! The locations of one host, in the order in which nginx selects them.
//!
//! ```text
//!   path, decoded ─▶ exact paths ─▶ expressions, the first of the list ─▶ prefixes, the longest
//! ```
//!
//! Locations of a host are exact paths and prefixes, or expressions, which match regardless of case. A prefix ends with
//! a slash, so that it matches whole segments.

use std::sync::{Arc, OnceLock};

use super::matched::{Matched, MatchedPath};
use super::request::RoutingRequest;
use crate::snapshot::location_path::{BacktrackingRegex, LocationExpression, LocationPath, decoded_path};
use crate::snapshot::path_regexes::PathRegexes;
use crate::snapshot::regex::RegexAnchor;
use crate::snapshot::rule::RouteRule;

/// One location of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostLocation {
    pub path: LocationPath,
    pub rule: Arc<RouteRule>,
}

/// Finds the location of a request among those of one host.
#[derive(Debug)]
pub struct LocationRouter {
    /// Exact paths, sorted; then expressions in the order in which they are tried; then prefixes, sorted.
    locations: Box<[HostLocation]>,
    exact_end: usize,
    expressions: Option<Box<PathRegexes>>,
    /// The expressions that are matched one by one, in their order, each with its position.
    backtracking: Box<[(u32, BacktrackingRegex)]>,
    prefix_start: usize,
    /// For each prefix, the index among the prefixes of the longest other one that it begins with.
    parents: Box<[Option<u32>]>,
    /// See [`LocationRouter::requests_client_certificate`]. Determined when a TLS handshake needs it.
    requests_client_certificate: OnceLock<bool>,
    /// See [`LocationRouter::verifies_clients`].
    verifies_clients: bool,
}

impl LocationRouter {
    /// A router of locations with different paths. Of expressions with the same path, the first one is used.
    pub fn new(mut locations: Vec<HostLocation>) -> Self {
        // Longer paths of Ingresses come first, whatever their parts mean; of equal length, the later one in the
        // alphabet. The sort is stable.
        locations.sort_by(|a, b| match (&a.path, &b.path) {
            (LocationPath::Expression { written: a, .. }, LocationPath::Expression { written: b, .. }) => {
                (b.len(), b).cmp(&(a.len(), a))
            }
            (LocationPath::Exact(a), LocationPath::Exact(b)) | (LocationPath::Prefix(a), LocationPath::Prefix(b)) => {
                a.cmp(b)
            }
            (a, b) => rank(a).cmp(&rank(b)),
        });
        let exact_end = locations.partition_point(|location| rank(&location.path) == 0);
        let prefix_start = locations.partition_point(|location| rank(&location.path) < 2);
        let mut backtracking = Vec::new();
        let expressions =
            (0..).zip(&locations).filter_map(|(position, location)| match location.path.expression()? {
                LocationExpression::Automaton(pattern) => Some((position, &**pattern)),
                LocationExpression::Backtracking(regex) => {
                    backtracking.push((position, regex.clone()));
                    None
                }
            });
        let expressions = PathRegexes::build(expressions, RegexAnchor::StartOfAnyCase).map(Box::new);
        let parents = parents(&locations[prefix_start..]);
        LocationRouter {
            locations: locations.into(),
            exact_end,
            expressions,
            backtracking: backtracking.into(),
            prefix_start,
            parents,
            requests_client_certificate: OnceLock::new(),
            verifies_clients: false,
        }
    }

    /// The same router, for a host that verifies the certificates of its clients.
    pub fn with_client_verification(self, verifies_clients: bool) -> Self {
        LocationRouter { verifies_clients, ..self }
    }

    /// The location that serves a request. None serves one whose path leads above the root. Must not be used if the
    /// request exceeds its [`RegexSteps`](crate::snapshot::regex_steps::RegexSteps).
    pub fn find(&self, request: &RoutingRequest<'_>) -> Option<Matched<'_>> {
        let path = decoded_path(request.raw_path)?;
        let found = self.exact(&path).or_else(|| self.by_expression(&path, request)).or_else(|| self.prefix(&path));
        found.map(|location| Matched {
            rule: &location.rule,
            path: MatchedPath::ByLocation(&location.path),
            normalized: None,
            names_method: false,
        })
    }

    /// All locations, in the order in which they are compared; prefixes in alphabetical order.
    pub fn locations(&self) -> &[HostLocation] {
        &self.locations
    }

    /// Whether a plugin of some location reads the certificates of clients.
    pub(in crate::snapshot) fn requests_client_certificate(&self) -> bool {
        let requests = || self.locations.iter().any(|location| location.rule.requests_client_certificate());
        *self.requests_client_certificate.get_or_init(requests)
    }

    /// Whether connections for the host are not used for other hosts, and the reverse, because it verifies the
    /// certificates of its clients.
    pub(in crate::snapshot) fn verifies_clients(&self) -> bool {
        self.verifies_clients
    }

    fn exact(&self, path: &str) -> Option<&HostLocation> {
        let exact = &self.locations[..self.exact_end];
        let index = exact.binary_search_by(|location| text(&location.path).cmp(path)).ok()?;
        Some(&exact[index])
    }

    fn by_expression(&self, path: &str, request: &RoutingRequest<'_>) -> Option<&HostLocation> {
        let (mut first, steps): (Option<u32>, _) = (None, &request.regex_steps);
        // A dollar sign of nginx matches before a line break at the end, too, so that `/admin%0A` is `/admin$`.
        for path in std::iter::once(path).chain(path.strip_suffix('\n')) {
            if let Some(expressions) = &self.expressions {
                expressions.for_each_match(path, steps, |positions| {
                    first = first.into_iter().chain(positions.first().copied()).min();
                });
            }
            for (position, regex) in &self.backtracking {
                if first.is_some_and(|first| first < *position) {
                    break;
                }
                if regex.is_match(path, steps)? {
                    first = Some(*position);
                    break;
                }
            }
        }
        self.locations.get(usize::try_from(first?).ok()?)
    }

    fn prefix(&self, path: &str) -> Option<&HostLocation> {
        let prefixes = &self.locations[self.prefix_start..];
        // Each prefix of the path is the last text that does not sort after it, or a parent of that one.
        let mut index = prefixes.partition_point(|location| text(&location.path) <= path).checked_sub(1)?;
        let last = text(&prefixes[index].path);
        let common = last.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
        while text(&prefixes[index].path).len() > common {
            index = usize::try_from(self.parents[index]?).ok()?;
        }
        Some(&prefixes[index])
    }
}

fn rank(path: &LocationPath) -> u8 {
    match path {
        LocationPath::Exact(_) => 0,
        LocationPath::Expression { .. } => 1,
        LocationPath::Prefix(_) => 2,
    }
}

/// The path as the Ingress has it.
fn text(path: &LocationPath) -> &str {
    match path {
        LocationPath::Exact(path) | LocationPath::Prefix(path) | LocationPath::Expression { path, .. } => path,
    }
}

/// For each of the sorted prefixes, the longest other one that it begins with.
fn parents(prefixes: &[HostLocation]) -> Box<[Option<u32>]> {
    let mut parents: Vec<Option<u32>> = Vec::with_capacity(prefixes.len());
    for (index, location) in prefixes.iter().enumerate() {
        let mut parent = index.checked_sub(1);
        while let Some(candidate) = parent
            && !text(&location.path).starts_with(text(&prefixes[candidate].path))
        {
            parent = parents[candidate].and_then(|next| usize::try_from(next).ok());
        }
        parents.push(parent.and_then(|parent| u32::try_from(parent).ok()));
    }
    parents.into()
}

#[cfg(test)]
mod tests;
