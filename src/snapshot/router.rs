//! One host's rules in the order of precedence (`gateway-api.md` §3.1), found without looking at all of them.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use regex_automata::meta::Regex;

use super::rule::Rule;

/// One match of one rule: a way for a request to get there.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub path: PathMatch,
    pub method: Option<Method>,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
    pub age: Age,
    pub rule: Arc<Rule>,
}

#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(Box<str>),
    /// Whole segments, without its trailing slash; the root is the empty string.
    Prefix(Box<str>),
    /// Must match the whole path.
    Regex(Box<str>),
}

#[derive(Clone, Debug)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: ValueMatch<HeaderValue>,
}

#[derive(Clone, Debug)]
pub struct QueryMatch {
    pub name: Box<str>,
    pub value: ValueMatch<Box<str>>,
}

#[derive(Clone, Debug)]
pub enum ValueMatch<T> {
    Exact(T),
    /// Must match the whole value.
    Regex(Regex),
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

/// What of a request decides its route.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Normalized as `interface.md` §4 says.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
}

/// The rules of one host pattern of one listener.
#[derive(Debug)]
pub struct HostRouter {}

impl HostRouter {
    /// Total: a regular expression that does not compile must have been refused before, and never matches here.
    pub fn build(_candidates: Vec<Candidate>) -> Self {
        HostRouter {}
    }

    pub fn find(&self, _question: &Question<'_>) -> Option<&Arc<Rule>> {
        None
    }
}
