//! One match of one rule of a route: its conditions.

use std::sync::Arc;

use http::Method;

use super::by_conditions::{HostName, matches_server_name};
use super::call::CallMatch;
use super::header::{self, HeaderMatch};
use super::matched::MatchedPath;
use super::path_match::PathMatch;
use super::query::{QueryMatch, QueryParameters};
use super::request::RoutingRequest;
use super::request_fields::Candidate;
use super::tie_breaker::TieBreaker;
use crate::request_target::path_encoding::{decode_unreserved, upper_case_escapes};
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
    pub fn path_expression(&self) -> Option<(Box<[u8]>, u32)> {
        match &self.path {
            PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
            PathMatch::Regex(pattern) => literal_prefix_and_states(pattern, RegexAnchor::Whole),
        }
    }

    /// Whether the other match has the same conditions, so that of both only the first one gets requests.
    pub(super) fn has_conditions_of(&self, other: &RouteMatch) -> bool {
        let RouteMatch { path, method, headers, query, call, server_names, tie_breaker: _, rule: _ } = self;
        (path, method, headers, query) == (&other.path, &other.method, &other.headers, &other.query)
            && (call, server_names) == (&other.call, &other.server_names)
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
