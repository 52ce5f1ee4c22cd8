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
mod path;
mod precedence;
mod query;
mod request_fields;

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Method};
use smallvec::SmallVec;

use self::by_conditions::{HostName, PathCondition, matches_server_name};
pub use self::call::{CallMatch, is_call, is_grpc};
pub use self::header::{HeaderMatch, ValueMatch};
use self::path::{ExactPaths, PrefixTree};
pub use self::query::QueryMatch;
pub(super) use self::query::{QueryNames, QueryParameters};
pub use self::request_fields::ForwardedFields;
use super::path_regex::Captures;
use super::path_regexes::PathRegexes;
use super::redirect::Scheme;
pub use super::regex::{Regex, RegexError, compile_regex};
use super::regex::{RegexAnchor, RegexLimit, RegexSize, literal_prefix_and_states};
use super::regex_steps::RegexSteps;
use super::rule::RouteRule;
use crate::plugin_api::path_encoding::decode_unreserved;

/// The matches of all rules for one host pattern of one listener.
#[derive(Debug)]
pub struct HostRouter {
    /// All exact paths, all regular expressions, all prefixes; equal paths are adjacent.
    matches: RouteMatches,
    exact: ExactPaths,
    regexes: Option<Box<PathRegexes>>,
    prefixes: PrefixTree,
    query_names: QueryNames,
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
            matches: sorted,
        }
    }

    /// The match of highest precedence that applies to the request. Must not be used if the request exceeds its
    /// [`RegexSteps`]: then a match of higher precedence may apply.
    pub fn find(&self, request: &RoutingRequest<'_>) -> Option<Matched<'_>> {
        let parameters = QueryParameters::new(&self.query_names, request.query);
        let applies = |route_match: &&RouteMatch| route_match.matches(request, &parameters);
        let matches = self.matches();
        let first_of = |run: path::PathRun| matches[run.range()].iter().find(applies);

        let exact = || self.exact.find(matches, request.path).and_then(first_of);
        let regex = || {
            let mut positions: SmallVec<[u32; 16]> = SmallVec::new();
            let regexes = self.regexes.as_ref()?;
            regexes.for_each_match(request.path, &request.regex_steps, |found| positions.extend_from_slice(found));
            positions.sort_unstable();
            positions.iter().map(|position| &matches[*position as usize]).find(applies)
        };
        let prefix = || self.prefixes.runs(request.path).find_map(first_of);

        let route_match = exact().or_else(regex).or_else(prefix)?;
        Some(Matched {
            rule: &route_match.rule,
            path: MatchedPath::ByHost(&route_match.path),
            normalized: None,
            names_method: route_match.method.is_some(),
        })
    }

    /// All matches in order of precedence.
    pub fn matches(&self) -> &[RouteMatch] {
        &self.matches.0
    }
}

/// What selects the rule of a request, in addition to the hostname without port, which is passed separately.
#[derive(Clone, Debug)]
pub struct RoutingRequest<'a> {
    /// Normalized: dot segments resolved, escapes of unreserved characters decoded (docs/routing.md).
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub method: &'a Method,
    /// As the client sent them. Conditions see some of them as they will be forwarded.
    pub headers: &'a HeaderMap,
    /// The fields that the proxy changes. `None` if it changes none.
    pub forwarded: Option<&'a dyn ForwardedFields>,
    /// The host as the client sent it, with its port if it has one. The port may be a condition of a route.
    pub authority: &'a [u8],
    /// The scheme of the connection.
    pub scheme: Scheme,
    /// The server name (SNI) of the TLS handshake, in lower case.
    pub server_name: Option<&'a str>,
    /// The work that its regular expressions may still cause.
    pub regex_steps: RegexSteps,
}

impl<'a> RoutingRequest<'a> {
    /// A plain-text request without an authority.
    pub fn plaintext(path: &'a str, query: Option<&'a str>, method: &'a Method, headers: &'a HeaderMap) -> Self {
        RoutingRequest {
            path,
            query,
            method,
            headers,
            forwarded: None,
            authority: b"",
            scheme: Scheme::Http,
            server_name: None,
            regex_steps: RegexSteps::default(),
        }
    }

    /// The port in the request's authority, or the scheme's default.
    pub(super) fn port(&self) -> u16 {
        let digits = self.authority.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let (host, port) = self.authority.split_at(self.authority.len() - digits);
        let port =
            if host.ends_with(b":") { str::from_utf8(port).ok().and_then(|port| port.parse().ok()) } else { None };
        port.unwrap_or(self.scheme.port())
    }
}

/// The rule that serves a request, and the path match that selected it.
#[derive(Clone, Debug)]
pub struct Matched<'r> {
    pub rule: &'r Arc<RouteRule>,
    pub path: MatchedPath<'r>,
    /// The path that was matched, if it is not [`RoutingRequest::path`]: the order by conditions normalizes it further.
    /// The endpoint gets this path.
    pub normalized: Option<String>,
    /// Whether the method of the request is a condition of the match.
    pub names_method: bool,
}

/// The path match that selected a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchedPath<'r> {
    ByHost(&'r PathMatch),
    /// `None` if the route has no paths.
    ByConditions(Option<&'r PathCondition>),
}

impl MatchedPath<'_> {
    /// How many bytes of `path` this path match covers. 0 if the route has no paths, or if its
    /// path condition does not match.
    pub fn length(self, path: &str) -> usize {
        match self {
            MatchedPath::ByHost(PathMatch::Exact(_) | PathMatch::Regex(_)) => path.len(),
            MatchedPath::ByHost(PathMatch::Prefix(text)) => text.len().min(path.len()),
            MatchedPath::ByConditions(matched) => {
                matched.and_then(|matched| matched.matched_length(path)).unwrap_or_default()
            }
        }
    }

    /// The capture groups of a [`PathCondition::Regex`]; empty for other paths.
    pub fn captures<'p>(self, path: &'p str) -> Captures<'p> {
        match self {
            MatchedPath::ByConditions(Some(PathCondition::Regex(regex))) => regex.captures(path),
            MatchedPath::ByConditions(_) | MatchedPath::ByHost(_) => Captures::none(path),
        }
    }
}

impl fmt::Display for MatchedPath<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MatchedPath::ByHost(path) => path.fmt(formatter),
            MatchedPath::ByConditions(Some(path)) => path.fmt(formatter),
            MatchedPath::ByConditions(None) => formatter.write_str("any path"),
        }
    }
}

/// One match of one rule: conditions that all have to be fulfilled.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteMatch {
    pub path: PathMatch,
    pub method: Option<Method>,
    /// Of several conditions with the same name, only the first is used, for matching and for precedence, as the
    /// Gateway API requires.
    pub headers: Vec<HeaderMatch>,
    /// Of several conditions with the same name, only the first is used. Names are case-sensitive.
    pub query: Vec<QueryMatch>,
    /// If set, only gRPC calls match. Boxed, because few matches have it.
    pub call: Option<Box<CallMatch>>,
    /// If not empty, the SNI of a TLS connection must match one of these. Ignored for plain HTTP.
    pub server_names: Arc<[HostName]>,
    pub tie_breaker: TieBreaker,
    pub rule: Arc<RouteRule>,
}

impl RouteMatch {
    /// The literal prefix and the number of states if the path is a regular expression.
    fn path_expression(&self) -> Option<(Box<[u8]>, u32)> {
        match &self.path {
            PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
            PathMatch::Regex(pattern) => literal_prefix_and_states(pattern, RegexAnchor::Whole),
        }
    }

    fn normalize(&mut self) {
        match &mut self.path {
            PathMatch::Exact(path) => *path = decode_unreserved(path).into(),
            PathMatch::Prefix(path) => *path = decode_unreserved(path.strip_suffix('/').unwrap_or(path)).into(),
            PathMatch::Regex(_) => {}
        }
        header::keep_first_of_each(&mut self.headers, |header| &header.name);
        header::keep_first_of_each(&mut self.query, |parameter| &parameter.name);
    }

    /// Checks everything except the path.
    fn matches(&self, request: &RoutingRequest<'_>, parameters: &QueryParameters<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == request.method)
            && self.call.as_ref().is_none_or(|call| call.matches(request))
            && self.headers.iter().all(|header| header.applies(request, &self.rule))
            && self.query.iter().all(|parameter| parameter.matches(parameters, &request.regex_steps))
            && (self.server_names.is_empty() || matches_server_name(&self.server_names, request))
    }
}

/// A condition on the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Escapes of unreserved characters are decoded first (`%7E` is `~`), as in requests and prefixes. Then every byte
    /// must be equal, including a trailing slash.
    Exact(Box<str>),
    /// Matches whole segments, with or without trailing slash. The root is the empty string and matches every path.
    Prefix(Box<str>),
    /// Must match the whole path.
    Regex(Box<str>),
}

/// With the type names of the API: `Exact /a`, `PathPrefix /`, `RegularExpression /a.*`.
impl fmt::Display for PathMatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathMatch::Exact(path) => write!(formatter, "Exact {path}"),
            PathMatch::Prefix(path) if path.is_empty() => formatter.write_str("PathPrefix /"),
            PathMatch::Prefix(path) => write!(formatter, "PathPrefix {path}"),
            PathMatch::Regex(pattern) => write!(formatter, "RegularExpression {pattern}"),
        }
    }
}

/// Decides between equal matches: by creation time, then by name, then by order in the route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TieBreaker {
    /// Seconds since 1970. `None` sorts as the oldest.
    pub created: Option<i64>,
    /// `namespace/name` of the route.
    pub route: Arc<str>,
    /// The position of the rule in the route.
    pub rule: u16,
    /// The position of the match in the rule.
    pub index: u16,
}

#[cfg(test)]
pub(super) mod tests;
