//! The router of one host: finds the matching rule of highest precedence without scanning all rules.
//!
//! ```text
//!   path ─▶ ExactPaths (map) ─▶ PathRegexes (automata) ─▶ PrefixTree (segments, deepest first)
//!                 └───────────── the matches with that path ───────────────┘
//!                               └ the first whose other conditions match: method, call, headers, query, server names
//! ```
//!
//! Every part returns positions in one list of matches that is sorted by precedence, so the first one that applies
//! wins.

pub mod by_conditions;
mod call;
mod header;
pub mod locations;
mod matched;
mod path;
mod path_match;
mod path_pattern;
mod precedence;
mod query;
mod request;
mod request_fields;
mod route_match;
mod tie_breaker;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

pub use self::call::{CallMatch, is_call};
pub use self::header::{HeaderMatch, ValueMatch};
pub use self::matched::{Matched, MatchedPath};
use self::path::{ExactPaths, PrefixTree};
pub use self::path_match::PathMatch;
pub use self::path_pattern::PathPattern;
pub use self::query::QueryMatch;
pub(super) use self::query::{QueryNames, QueryParameters};
pub use self::request::{ForwardedFields, RoutingRequest};
pub use self::route_match::RouteMatch;
pub use self::tie_breaker::TieBreaker;
use super::path_regexes::PathRegexes;
pub use super::regex::{Regex, RegexError, compile_regex};
use super::regex::{RegexAnchor, RegexLimit, RegexSize};
use crate::request_target::path_encoding::{lower_case_escapes, upper_case_escapes};

/// The matches of all rules for one host pattern of one listener.
#[derive(Debug)]
pub struct HostRouter {
    /// All exact paths, all regular expressions, all prefixes; equal paths are adjacent.
    matches: RouteMatches,
    exact: ExactPaths,
    regexes: Option<Box<PathRegexes>>,
    prefixes: PrefixTree,
    query_names: QueryNames,
    /// See [`HostRouter::requests_client_certificate`]. Determined when a TLS handshake needs it.
    requests_client_certificate: OnceLock<bool>,
}

/// Matches in order of precedence, normalized. Copies share them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteMatches(Arc<[RouteMatch]>);

impl RouteMatches {
    /// Drops matches with a path expression that does not compile. The status of their route reports them.
    pub fn new(mut matches: Vec<RouteMatch>) -> Self {
        matches.retain(|route_match| match &route_match.path {
            PathMatch::Regex(pattern) => RegexSize::of(pattern, RegexAnchor::Whole, RegexLimit::MEMORY_ONLY).is_ok(),
            PathMatch::Exact(_) | PathMatch::Prefix(_) => true,
        });
        matches.iter_mut().for_each(RouteMatch::normalize);
        matches.sort_by(precedence::compare);
        RouteMatches(matches.into())
    }

    /// The rules of the matches; a rule with several matches is repeated.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<super::RouteRule>> {
        self.0.iter().map(|route_match| &route_match.rule)
    }

    /// The literal prefix and the number of states of each path that is a regular expression.
    pub fn path_expressions(&self) -> impl Iterator<Item = (Box<[u8]>, u32)> {
        self.0.iter().filter_map(RouteMatch::path_expression)
    }

    /// The matches of several routes together. Those of a single one are not copied.
    pub fn join<'m>(routes: impl IntoIterator<Item = &'m RouteMatches>) -> Self {
        let routes: SmallVec<[&RouteMatches; 4]> = routes.into_iter().collect();
        if let [only] = routes[..] {
            return only.clone();
        }
        let mut matches: Vec<RouteMatch> = routes.iter().flat_map(|matches| matches.0.iter().cloned()).collect();
        matches.sort_by(precedence::compare);
        RouteMatches(matches.into())
    }
}

impl HostRouter {
    /// A router of matches in any order.
    pub fn build(matches: Vec<RouteMatch>) -> Self {
        HostRouter::of(RouteMatches::new(matches))
    }

    pub fn of(sorted: RouteMatches) -> Self {
        let matches = &sorted.0;
        let exact_end = matches.partition_point(|route_match| matches!(route_match.path, PathMatch::Exact(_)));
        let regex_end = matches.partition_point(|route_match| !matches!(route_match.path, PathMatch::Prefix(_)));
        let patterns = matches[exact_end..regex_end].iter().enumerate().filter_map(|(index, route_match)| {
            let PathMatch::Regex(pattern) = &route_match.path else { return None };
            let position = u32::try_from(exact_end + index).expect("fewer than 2^32 matches fit in memory");
            Some((position, &**pattern))
        });
        HostRouter {
            exact: ExactPaths::build(&matches[..exact_end]),
            regexes: PathRegexes::build(patterns, RegexAnchor::Whole).map(Box::new),
            prefixes: PrefixTree::build(&matches[regex_end..], regex_end),
            query_names: QueryNames::from_matches(matches.iter().flat_map(|route_match| &route_match.query)),
            requests_client_certificate: OnceLock::new(),
            matches: sorted,
        }
    }

    /// Whether a plugin of some rule reads the certificates of clients.
    pub(super) fn requests_client_certificate(&self) -> bool {
        let requests = || self.matches().iter().any(|route_match| route_match.rule.requests_client_certificate());
        *self.requests_client_certificate.get_or_init(requests)
    }

    /// The match of highest precedence that applies to the request. Must not be used if the request exceeds its
    /// [`RegexSteps`](super::regex_steps::RegexSteps): then a match of higher precedence may apply.
    pub fn find(&self, request: &RoutingRequest<'_>) -> Option<Matched<'_>> {
        let parameters = QueryParameters::new(&self.query_names, request.query);
        let applies = |route_match: &&RouteMatch| route_match.matches(request, &parameters);
        let matches = self.matches();
        let first_of = |run: path::PathRun| matches[run.range()].iter().find(applies);
        // As exact paths and prefixes are stored. The endpoint gets the path as the client wrote it.
        let path = upper_case_escapes(request.path);

        let exact = || self.exact.find(matches, &path).and_then(first_of);
        let regex = || {
            let mut positions: SmallVec<[u32; 16]> = SmallVec::new();
            let regexes = self.regexes.as_ref()?;
            for spelling in spellings(request.path, &path) {
                regexes.for_each_match(&spelling, &request.regex_steps, |found| positions.extend_from_slice(found));
            }
            positions.sort_unstable();
            positions.dedup();
            positions.iter().map(|position| &matches[*position as usize]).find(applies)
        };
        let prefix = || self.prefixes.runs(&path).find_map(first_of);

        let route_match = exact().or_else(regex).or_else(prefix)?;
        Some(Matched {
            rule: &route_match.rule,
            path: MatchedPath::ByHost(&route_match.path),
            normalized: None,
            names_method: route_match.method.is_some(),
        })
    }

    /// The matches that get no request, because one of another route has the same conditions and comes first, each with
    /// that match. Of very many matches for one path, each is compared with those shortly before it.
    pub fn shadowed(&self) -> impl Iterator<Item = (&RouteMatch, &RouteMatch)> {
        let matches = self.matches();
        matches.iter().enumerate().filter_map(move |(index, later)| {
            let before = matches[index.saturating_sub(MAX_COMPARED)..index].iter().rev();
            let first =
                before.take_while(|first| first.path == later.path).filter(|first| first.has_conditions_of(later));
            let first = first.last()?;
            (first.rule.id.route != later.rule.id.route).then_some((later, first))
        })
    }

    /// All matches in order of precedence.
    pub fn matches(&self) -> &[RouteMatch] {
        &self.matches.0
    }
}

/// With how many matches before it [`HostRouter::shadowed`] compares a match.
const MAX_COMPARED: usize = 64;

/// The path of a request as expressions may expect it: as the client wrote it, and with all escapes in upper or all in
/// lower case. A path without escapes is only itself.
fn spellings<'p>(path: &'p str, upper_case: &'p str) -> impl Iterator<Item = Cow<'p, str>> {
    let upper_case = (path != upper_case).then_some(Cow::Borrowed(upper_case));
    let lower_case = Some(lower_case_escapes(path)).filter(|lower_case| **lower_case != *path);
    [Some(Cow::Borrowed(path)), upper_case, lower_case].into_iter().flatten()
}

#[cfg(test)]
pub(super) mod tests;
