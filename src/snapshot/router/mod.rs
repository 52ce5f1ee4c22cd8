//! One host's rules in the order of precedence, found without looking at all of them.
//!
//! ```text
//!   path ─▶ ExactPaths (map) ─▶ RegexPaths (one automaton) ─▶ PrefixTree (segments, deepest first)
//!                 └──────────── runs of entries with that path ────────────┘
//!                               └ the first whose predicates hold: method, headers, query
//! ```
//!
//! Every part answers with positions in one list that is sorted by precedence (`gateway-api.md` §3.1), so "first" always
//! means "wins".

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
pub(super) use self::query::{Names, Parameters};
use self::regex::RegexPaths;
pub(super) use self::regex::{Fit, build_regex, build_regexes};
pub use self::regex::{Regex, RegexError, compile_regex};
use super::escape::decode_unreserved;
use super::kong::{self, Captures, HostName};
use super::redirect::Scheme;
use super::rule::Rule;

/// The rules of one host pattern of one listener.
#[derive(Debug)]
pub struct HostRouter {
    /// In order of precedence: all exact paths, all regular expressions, all prefixes; equal paths stand together.
    entries: Box<[Candidate]>,
    exact: ExactPaths,
    regexes: Option<Box<RegexPaths>>,
    prefixes: PrefixTree,
    parameters: Names,
}

impl HostRouter {
    /// Total: a regular expression that does not compile must have been refused before, and never matches here.
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
            parameters: Names::of(entries.iter().flat_map(|entry| &entry.query)),
            entries,
        }
    }

    /// The entry that wins for this request.
    pub fn find(&self, question: &Question<'_>) -> Option<Matched<'_>> {
        let parameters = Parameters::new(&self.parameters, question.query);
        let admits = |entry: &&Candidate| entry.admits(question, &parameters);
        let first_of = |run: path::Run| self.entries[run.range()].iter().find(admits);

        let exact = || self.exact.find(&self.entries, question.path).and_then(first_of);
        let regex = || self.regexes.as_ref()?.matching(question.path).map(|at| &self.entries[at]).find(admits);
        let prefix = || self.prefixes.runs(question.path).find_map(first_of);

        let entry = exact().or_else(regex).or_else(prefix)?;
        Some(Matched { rule: &entry.rule, path: MatchedPath::Gateway(&entry.path) })
    }

    /// All entries in order of precedence.
    pub fn entries(&self) -> &[Candidate] {
        &self.entries
    }
}

/// What of a request decides its route, besides the name of its host.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Normalized as `interface.md` §4 says.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// The host as the client wrote it, with its port if it has one.
    pub authority: &'a [u8],
    /// Of the connection.
    pub scheme: Scheme,
    /// What the client asked for when it shook hands. Lower case.
    pub server_name: Option<&'a str>,
}

impl<'a> Question<'a> {
    /// In plain text, to a host without port.
    pub fn plain(path: &'a str, query: Option<&'a str>, method: &'a Method, headers: &'a HeaderMap) -> Self {
        Question { path, query, method, headers, authority: b"", scheme: Scheme::Http, server_name: None }
    }

    /// The port that the client asked for.
    pub(super) fn port(&self) -> u16 {
        let digits = self.authority.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let (host, port) = self.authority.split_at(self.authority.len() - digits);
        let port =
            if host.ends_with(b":") { str::from_utf8(port).ok().and_then(|port| port.parse().ok()) } else { None };
        port.unwrap_or(self.scheme.port())
    }
}

/// The answer: a rule, and by which path the request got there.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'r> {
    pub rule: &'r Arc<Rule>,
    pub path: MatchedPath<'r>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchedPath<'r> {
    Gateway(&'r PathMatch),
    /// None if the route asks for no path.
    Kong(Option<&'r kong::Path>),
}

impl MatchedPath<'_> {
    /// How many bytes of the path it matches; what it does not match at all it matches none of.
    pub fn length(self, path: &str) -> usize {
        match self {
            MatchedPath::Gateway(PathMatch::Exact(_) | PathMatch::Regex(_)) => path.len(),
            MatchedPath::Gateway(PathMatch::Prefix(text)) => text.len().min(path.len()),
            MatchedPath::Kong(matched) => matched.and_then(|matched| matched.matched(path)).unwrap_or_default(),
        }
    }

    /// What the groups of its regular expression matched, if it is one of Kong's.
    pub fn captures<'p>(self, path: &'p str) -> Captures<'p> {
        match self {
            MatchedPath::Kong(Some(kong::Path::Regex(regex))) => regex.captures(path),
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

/// One match of one rule: a way for a request to get there.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub path: PathMatch,
    pub method: Option<Method>,
    /// Of entries with the same name only the first counts, for matching and for precedence: the specification wants
    /// the others ignored.
    pub headers: Vec<HeaderMatch>,
    /// Likewise; names differ by case here.
    pub query: Vec<QueryMatch>,
    /// One of these has to be what a client over TLS asked for when it shook hands; none is any.
    pub server_names: Arc<[HostName]>,
    pub age: Age,
    pub rule: Arc<Rule>,
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

    /// Everything but the path.
    fn admits(&self, question: &Question<'_>, parameters: &Parameters<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == question.method)
            && self.headers.iter().all(|header| header.admits(question.headers))
            && self.query.iter().all(|parameter| parameter.admits(parameters))
            && (self.server_names.is_empty() || kong::is_greeted(&self.server_names, question))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Byte by byte, a trailing slash included. Here and in prefixes `%7E` and `~` are the same, as they are in requests.
    Exact(Box<str>),
    /// Whole segments, with or without its trailing slash; the root is the empty string and matches every path.
    Prefix(Box<str>),
    /// Must match the whole path.
    Regex(Box<str>),
}

/// As the API names them: `Exact /a`, `PathPrefix /`, `RegularExpression /a.*`.
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

/// Who wins among equal matches: older, then name, then order in the route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age {
    /// Seconds since 1970; none is as old as it gets, and equal for all.
    pub created: Option<i64>,
    /// `namespace/name`.
    pub route: Arc<str>,
    pub rule: u16,
    pub index: u16,
}

#[cfg(test)]
pub(super) mod tests;
