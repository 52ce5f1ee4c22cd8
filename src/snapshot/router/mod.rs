//! The router of one host: finds the matching rule of highest precedence without scanning all rules.
//!
//! ```text
//!   path ─▶ ExactPaths (map) ─▶ RegexPaths (one automaton) ─▶ PrefixTree (segments, deepest first)
//!                 └──────────── runs of entries with that path ────────────┘
//!                 └──────────── runs of entries with that path ────────────┘
//!                               └ the first whose conditions match: method, headers, query
//!
//! Every part returns positions in one list that is sorted by precedence, so the first match wins.

mod header;
mod path;
mod precedence;
mod query;
mod regex;

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Method};

pub use self::header::{HeaderMatch, ValueMatch};
use self::path::{ExactPaths, PrefixTree};
pub use self::query::QueryMatch;
pub(super) use self::query::{QueryNames, QueryParameters};
use self::regex::RegexPaths;
pub use self::regex::{Regex, RegexError, compile_regex};
pub(super) use self::regex::{RegexAnchor, build_regex, build_regexes};
use super::escape::decode_unreserved;
use super::kong::{self, Captures, HostName};
use super::redirect::Scheme;
use super::rule::RouteRule;

/// The rules of one host pattern of one listener.
#[derive(Debug)]
pub struct HostRouter {
    /// In order of precedence: all exact paths, all regular expressions, all prefixes; equal paths are adjacent.
    entries: Box<[Candidate]>,
    exact: ExactPaths,
    regexes: Option<Box<RegexPaths>>,
    prefixes: PrefixTree,
    parameters: QueryNames,
}

impl HostRouter {
    /// Drops regular expressions that do not compile; the compiler has reported them before.
    pub fn build(mut candidates: Vec<Candidate>) -> Self {
        candidates.retain(|candidate| match &candidate.path {
            PathMatch::Regex(pattern) => regex::is_valid(pattern),
            PathMatch::Exact(_) | PathMatch::Prefix(_) => true,
        });
        candidates.iter_mut().for_each(Candidate::normalize);
        candidates.sort_by(precedence::compare);
        let entries = candidates.into_boxed_slice();

        let exact_end = entries.partition_point(|entry| matches!(entry.path, PathMatch::Exact(_)));
        let regex_end = entries.partition_point(|entry| !matches!(entry.path, PathMatch::Prefix(_)));
        HostRouter {
            exact: ExactPaths::build(&entries[..exact_end]),
            regexes: RegexPaths::build(&entries[exact_end..regex_end], exact_end).map(Box::new),
            prefixes: PrefixTree::build(&entries[regex_end..], regex_end),
            parameters: QueryNames::from_matches(entries.iter().flat_map(|entry| &entry.query)),
            entries,
        }
    }

    /// The matching entry of highest precedence.
    pub fn find(&self, request: &RoutingRequest<'_>) -> Option<Matched<'_>> {
        let parameters = QueryParameters::new(&self.parameters, request.query);
        let admits = |entry: &&Candidate| entry.matches(request, &parameters);
        let first_of = |run: path::EntryRange| self.entries[run.range()].iter().find(admits);

        let exact = || self.exact.find(&self.entries, request.path).and_then(first_of);
        let regex = || self.regexes.as_ref()?.matching(request.path).map(|at| &self.entries[at]).find(admits);
        let prefix = || self.prefixes.runs(request.path).find_map(first_of);

        let entry = exact().or_else(regex).or_else(prefix)?;
        Some(Matched { rule: &entry.rule, path: MatchedPath::Gateway(&entry.path) })
    }

    /// All entries in order of precedence.
    pub fn entries(&self) -> &[Candidate] {
        &self.entries
    }
}

/// The parts of a request that select its route, besides the hostname.
#[derive(Clone, Copy, Debug)]
pub struct RoutingRequest<'a> {
    /// Normalized: dot segments resolved, escapes of unreserved characters decoded (docs/routing.md).
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// The host as the client sent it, with its port if it has one.
    pub authority: &'a [u8],
    /// The scheme of the connection.
    pub scheme: Scheme,
    /// The server name (SNI) of the TLS handshake, in lower case.
    pub server_name: Option<&'a str>,
}

impl<'a> RoutingRequest<'a> {
    /// A plain-text request to a host without port.
    pub fn plaintext(path: &'a str, query: Option<&'a str>, method: &'a Method, headers: &'a HeaderMap) -> Self {
        RoutingRequest { path, query, method, headers, authority: b"", scheme: Scheme::Http, server_name: None }
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

/// The result: a rule, and the path match that selected it.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'r> {
    pub rule: &'r Arc<RouteRule>,
    pub path: MatchedPath<'r>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchedPath<'r> {
    Gateway(&'r PathMatch),
    /// `None` if the route has no paths.
    Kong(Option<&'r kong::KongPath>),
}

impl MatchedPath<'_> {
    /// How many bytes of the path are matched; 0 if the path does not match.
    pub fn length(self, path: &str) -> usize {
        match self {
            MatchedPath::Gateway(PathMatch::Exact(_) | PathMatch::Regex(_)) => path.len(),
            MatchedPath::Gateway(PathMatch::Prefix(text)) => text.len().min(path.len()),
            MatchedPath::Kong(matched) => matched.and_then(|matched| matched.matched_length(path)).unwrap_or_default(),
        }
    }

    /// The capture groups of a Kong regular expression; empty for other paths.
    pub fn captures<'p>(self, path: &'p str) -> Captures<'p> {
        match self {
            MatchedPath::Kong(Some(kong::KongPath::Regex(regex))) => regex.captures(path),
            MatchedPath::Kong(_) | MatchedPath::Gateway(_) => Captures::none(path),
        }
    }
}

impl fmt::Display for MatchedPath<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MatchedPath::Gateway(path) => path.fmt(formatter),
            MatchedPath::Kong(Some(path)) => path.fmt(formatter),
            MatchedPath::Kong(None) => formatter.write_str("any path"),
        }
    }
}

/// One match of one rule.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub path: PathMatch,
    pub method: Option<Method>,
    /// Of several entries with the same name only the first counts, for matching and for precedence, as the Gateway API
    /// requires.
    pub headers: Vec<HeaderMatch>,
    /// Likewise; names are case-sensitive here.
    pub query: Vec<QueryMatch>,
    /// If not empty, a TLS client must have sent one of these as SNI.
    pub server_names: Arc<[HostName]>,
    pub age: RouteAge,
    pub rule: Arc<RouteRule>,
}

impl Candidate {
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
            && self.headers.iter().all(|header| header.matches(request.headers))
            && self.query.iter().all(|parameter| parameter.matches(parameters))
            && (self.server_names.is_empty() || kong::matches_server_name(&self.server_names, request))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Compared byte by byte, including a trailing slash. `%7E` and `~` are equal here and in prefixes, as in requests.
    Exact(Box<str>),
    /// Whole segments, with or without trailing slash; the root is the empty string and matches every path.
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

/// The tie-breakers between equal matches: creation time, then name, then order in the route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteAge {
    /// Seconds since 1970. `None` sorts as the oldest.
    pub created: Option<i64>,
    /// `namespace/name`.
    pub route: Arc<str>,
    pub rule: u16,
    pub index: u16,
}

#[cfg(test)]
pub(super) mod tests;
