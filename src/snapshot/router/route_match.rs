//! One match of one rule of a route: its conditions.

use std::fmt;
use std::sync::Arc;

use http::Method;

use super::by_conditions::{HostName, matches_server_name};
use super::call::CallMatch;
use super::header::{self, HeaderMatch};
use super::query::{QueryMatch, QueryParameters};
use super::matched::MatchedPath;
use super::request::RoutingRequest;
use super::request_fields::Candidate;
use crate::plugin_api::path_encoding::{decode_unreserved, upper_case_escapes};
use crate::snapshot::regex::{RegexAnchor, literal_prefix_and_states};
use crate::snapshot::rule::RouteRule;

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
    pub(super) fn path_expression(&self) -> Option<(Box<[u8]>, u32)> {
        match &self.path {
            PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
            PathMatch::Regex(pattern) => literal_prefix_and_states(pattern, RegexAnchor::Whole),
        }
    }

    pub(super) fn normalize(&mut self) {
        match &mut self.path {
            PathMatch::Exact(path) => *path = upper_case_escapes(&decode_unreserved(path)).into(),
            PathMatch::Prefix(path) => {
                *path = upper_case_escapes(&decode_unreserved(path.strip_suffix('/').unwrap_or(path))).into();
            }
            PathMatch::Regex(_) => {}
        }
        header::keep_first_of_each(&mut self.headers, |header| &header.name);
        header::keep_first_of_each(&mut self.query, |parameter| &parameter.name);
    }

    /// Checks everything except the path.
    pub(super) fn matches(&self, request: &RoutingRequest<'_>, parameters: &QueryParameters<'_>) -> bool {
        let candidate = || Candidate { rule: &self.rule, matched: MatchedPath::ByHost(&self.path), path: request.path };
        self.method.as_ref().is_none_or(|method| method == request.method)
            && self.call.as_ref().is_none_or(|call| call.matches(request))
            && self.headers.iter().all(|header| header.applies(request, candidate()))
            && self.query.iter().all(|parameter| parameter.matches(parameters, &request.regex_steps))
            && (self.server_names.is_empty() || matches_server_name(&self.server_names, request))
    }
}

/// A condition on the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Escapes of unreserved characters are decoded first (`%7E` is `~`), as in requests and prefixes, and other
    /// escapes written in upper case. Then every byte must be equal, including a trailing slash.
    Exact(Box<str>),
    /// Matches whole segments, with or without trailing slash. The root is the empty string and matches every path.
    Prefix(Box<str>),
    /// Must match the whole path, in which the case of escapes may be another one.
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
