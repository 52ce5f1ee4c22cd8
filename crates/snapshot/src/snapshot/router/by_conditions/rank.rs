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

/// Compared field by field; routes of a greater rank are tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Several small numbers, the first in the highest bits. The highest one puts default backends last.
    class: u16,
    regex_priority: i64,
    length: u32,
    /// Decides if all else is equal.
    kinds: u8,
}

impl Rank {
    /// The rank of a route with one of its paths.
    pub(super) fn new(flavor: RouterFlavor, route: &ConditionRoute, path: Option<&PathCondition>) -> Self {
        match flavor {
            RouterFlavor::TraditionalCompatible => traditional_compatible(route, path),
            RouterFlavor::Expressions => expressions(route),
        }
    }
}

/// The rank of a route with one of its paths:
///
/// 1. The number of condition kinds: methods, hosts, headers, paths, server names.
/// 2. Whether the route has hosts, all without wildcard.
/// 3. More headers.
/// 4. Whether the path is exact or a regular expression.
/// 5. Among exact paths and regular expressions, the higher `regex_priority`. Their length has no effect.
/// 6. Among prefixes, the longer one.
/// 7. As in Kong's router `traditional`; that of this name does not define the order: whether a host has a port, and
///    which kinds the conditions have: hosts, headers, paths, methods.
fn traditional_compatible(route: &ConditionRoute, path: Option<&PathCondition>) -> Rank {
    let ranks_as_regex = path.is_some_and(ranks_as_regex);
    let prefix_length = match path {
        Some(PathCondition::Prefix(text)) => saturating_rank(text.len(), MAX_TRADITIONAL_LENGTH),
        Some(PathCondition::Exact(_) | PathCondition::Regex(_) | PathCondition::Refused { .. }) | None => 0,
    };
    Rank {
        class: u16::from(!route.is_default_backend) << 13
            | condition_kinds(route) << 10
            | u16::from(has_only_exact_hosts(route)) << 9
            | header_count(route) << 1
            | u16::from(ranks_as_regex),
        regex_priority: if ranks_as_regex { route.regex_priority } else { 0 },
        length: prefix_length,
        kinds: u8::from(route.hosts.iter().any(|host| host.port.is_some())) << 4
            | u8::from(!route.hosts.is_empty()) << 3
            | u8::from(!route.headers.is_empty()) << 2
            | u8::from(!route.paths.is_empty()) << 1
            | u8::from(!route.methods.is_empty()),
    }
}

/// The rank of a route, the same for all of its paths:
///
/// 1. The number of condition kinds.
/// 2. More headers.
/// 3. Whether the route has hosts, all without wildcard.
/// 4. Whether one of the paths is exact or a regular expression.
/// 5. The length of the longest path, even if another path matches.
fn expressions(route: &ConditionRoute) -> Rank {
    let max_path_length = route.paths.iter().map(PathCondition::length).max().unwrap_or_default();
    Rank {
        class: u16::from(!route.is_default_backend) << 13
            | condition_kinds(route) << 10
            | header_count(route) << 2
            | u16::from(has_only_exact_hosts(route)) << 1
            | u16::from(route.paths.iter().any(ranks_as_regex)),
        regex_priority: 0,
        length: saturating_rank(max_path_length, MAX_EXPRESSIONS_LENGTH),
        kinds: 0,
    }
}

impl PathCondition {
    fn length(&self) -> usize {
        match self {
            PathCondition::Exact(text) | PathCondition::Prefix(text) => text.len(),
            PathCondition::Regex(regex) => regex.as_str().len(),
            PathCondition::Refused { expression_length, .. } => *expression_length as usize,
        }
    }
}

/// Kong translates exact paths to regular expressions.
fn ranks_as_regex(path: &PathCondition) -> bool {
    matches!(path, PathCondition::Exact(_) | PathCondition::Regex(_) | PathCondition::Refused { .. })
}

/// At most 5, which takes three bits.
fn condition_kinds(route: &ConditionRoute) -> u16 {
    let ConditionRoute { hosts, paths, methods, headers, server_names, .. } = route;
    let kinds = [hosts.is_empty(), paths.is_empty(), methods.is_empty(), headers.is_empty(), server_names.is_empty()];
    kinds.iter().map(|is_empty| u16::from(!is_empty)).sum()
}

fn has_only_exact_hosts(route: &ConditionRoute) -> bool {
    !route.hosts.is_empty() && route.hosts.iter().all(|host| host.name.is_exact())
}

/// The number of header conditions. Kong stores it in eight bits, so greater numbers compare as equal.
fn header_count(route: &ConditionRoute) -> u16 {
    u16::from(u8::try_from(route.headers.len()).unwrap_or(u8::MAX))
}

/// The length, or `max` if it is greater. Kong stores it in a few bits, so greater lengths compare as equal.
fn saturating_rank(length: usize, max: u32) -> u32 {
    u32::try_from(length).map_or(max, |length| length.min(max))
}

const MAX_TRADITIONAL_LENGTH: u32 = 0x7_FFFF;
const MAX_EXPRESSIONS_LENGTH: u32 = 0xFFFF;
