//! The precedence of routes in the order by conditions, for each of Kong's router flavors.

use super::route::{ConditionRoute, PathCondition};

/// Kong's router flavors, as in `--kong-router`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouterFlavor {
    /// Kong's default. Every path of a route has its own rank.
    #[default]
    TraditionalCompatible,
    /// The priorities that Kong's ingress controller computes: a route ranks by all of its paths together.
    Expressions,
}

/// Compared from left to right; routes of a greater rank are tried first. The first number puts default backends last.
pub(super) type Rank = [i64; 7];

/// The rank of a route with one of its paths:
///
/// 1. The number of condition kinds: methods, hosts, headers, paths, server names.
/// 2. Whether the route has hosts, all without wildcard.
/// 3. More headers.
/// 4. Whether the path is exact or a regular expression.
/// 5. Among exact paths and regular expressions, the higher `regex_priority`. Their length has no effect.
/// 6. Among prefixes, the longer one.
pub(super) fn traditional_compatible(route: &ConditionRoute, path: Option<&PathCondition>) -> Rank {
    let ranks_as_regex = path.is_some_and(ranks_as_regex);
    let prefix_length = match path {
        Some(PathCondition::Prefix(text)) => saturating_rank(text.len(), MAX_TRADITIONAL_LENGTH),
        Some(PathCondition::Exact(_) | PathCondition::Regex(_)) | None => 0,
    };
    [
        i64::from(!route.is_default_backend),
        condition_kinds(route),
        i64::from(has_only_exact_hosts(route)),
        saturating_rank(route.headers.len(), MAX_HEADERS),
        i64::from(ranks_as_regex),
        if ranks_as_regex { route.regex_priority } else { 0 },
        prefix_length,
    ]
}

/// The rank of a route, the same for all of its paths:
///
/// 1. The number of condition kinds.
/// 2. More headers.
/// 3. Whether the route has hosts, all without wildcard.
/// 4. Whether one of the paths is exact or a regular expression.
/// 5. The length of the longest path, even if another path matches.
pub(super) fn expressions(route: &ConditionRoute) -> Rank {
    let max_path_length = route.paths.iter().map(PathCondition::length).max().unwrap_or_default();
    [
        i64::from(!route.is_default_backend),
        condition_kinds(route),
        saturating_rank(route.headers.len(), MAX_HEADERS),
        i64::from(has_only_exact_hosts(route)),
        i64::from(route.paths.iter().any(ranks_as_regex)),
        saturating_rank(max_path_length, MAX_EXPRESSIONS_LENGTH),
        // Not used.
        0,
    ]
}

impl PathCondition {
    fn length(&self) -> usize {
        match self {
            PathCondition::Exact(text) | PathCondition::Prefix(text) => text.len(),
            PathCondition::Regex(regex) => regex.as_str().len(),
        }
    }
}

/// Kong translates exact paths to regular expressions.
fn ranks_as_regex(path: &PathCondition) -> bool {
    matches!(path, PathCondition::Exact(_) | PathCondition::Regex(_))
}

fn condition_kinds(route: &ConditionRoute) -> i64 {
    let ConditionRoute { hosts, paths, methods, headers, server_names, .. } = route;
    let kinds = [hosts.is_empty(), paths.is_empty(), methods.is_empty(), headers.is_empty(), server_names.is_empty()];
    kinds.iter().map(|is_empty| i64::from(!is_empty)).sum()
}

fn has_only_exact_hosts(route: &ConditionRoute) -> bool {
    !route.hosts.is_empty() && route.hosts.iter().all(|host| host.name.is_exact())
}

/// The number, or `max` if it is greater. Kong stores each number in a few bits, so greater numbers compare as equal.
fn saturating_rank(number: usize, max: i64) -> i64 {
    i64::try_from(number).map_or(max, |number| number.min(max))
}

const MAX_HEADERS: i64 = 255;
const MAX_TRADITIONAL_LENGTH: i64 = 0x7_FFFF;
const MAX_EXPRESSIONS_LENGTH: i64 = 0xFFFF;
