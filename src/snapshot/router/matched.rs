//! The result of routing: a rule, and what selected it.

use std::fmt;
use std::sync::Arc;

use super::by_conditions::PathCondition;
use super::route_match::PathMatch;
use crate::snapshot::path_regex::Captures;
use crate::snapshot::rule::RouteRule;

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
