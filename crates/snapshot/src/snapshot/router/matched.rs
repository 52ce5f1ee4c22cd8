//! The result of routing: a rule, and what selected it.

use std::fmt;
use std::sync::Arc;

use super::by_conditions::PathCondition;
use super::path_match::PathMatch;
use crate::snapshot::location_path::LocationPath;
use crate::snapshot::path_regex::Captures;
use crate::snapshot::rule::{Action, RouteRule};
use crate::snapshot::rule_options::ForwardingHeaderStyle;

/// The rule that serves a request, and the path match that selected it.
#[derive(Clone, Debug)]
pub struct Matched<'r> {
    pub rule: &'r Arc<RouteRule>,
    pub path: MatchedPath<'r>,
    /// The path that was matched, if it is not [`super::RoutingRequest::path`]: the order by conditions normalizes it
    /// further. The endpoint gets this path.
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
    ByLocation(&'r LocationPath),
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
            // It is compared with the decoded path, and never removed from this one.
            MatchedPath::ByLocation(_) => 0,
        }
    }

    /// The part of `path` that the rule removes and reports in `X-Forwarded-Prefix`, unless the request has that field.
    pub fn forwarded_prefix<'p>(self, rule: &RouteRule, path: &'p str) -> Option<&'p str> {
        let options = rule.options();
        // A filter that rewrites the path applies to the matched path, so nothing is removed before.
        let is_rewritten = rule.filters.rewrite.as_ref().is_some_and(|rewrite| rewrite.path.is_some());
        let strips = options.upstream_path.as_ref().is_some_and(|upstream| upstream.strip_matched);
        let reports = options.forwarding_headers == ForwardingHeaderStyle::RealIp;
        if !reports || !strips || is_rewritten || !matches!(rule.action, Action::Forward(_)) {
            return None;
        }
        path.get(..self.length(path)).filter(|prefix| !matches!(*prefix, "" | "/"))
    }

    /// The capture groups of a path that is a regular expression; empty for other paths. In the order by host, only
    /// expressions with named groups have any.
    pub fn captures<'p>(self, path: &'p str) -> Captures<'p> {
        match self {
            MatchedPath::ByConditions(Some(PathCondition::Regex(regex))) => regex.captures(path),
            MatchedPath::ByHost(PathMatch::Regex(pattern)) => pattern.captures(path),
            MatchedPath::ByConditions(_)
            | MatchedPath::ByLocation(_)
            | MatchedPath::ByHost(PathMatch::Exact(_) | PathMatch::Prefix(_)) => Captures::none(path),
        }
    }
}

impl fmt::Display for MatchedPath<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MatchedPath::ByHost(path) => path.fmt(formatter),
            MatchedPath::ByConditions(Some(path)) => path.fmt(formatter),
            MatchedPath::ByConditions(None) => formatter.write_str("any path"),
            MatchedPath::ByLocation(path) => path.fmt(formatter),
        }
    }
}
