//! The precedence of Kong routes, for each of Kong's router flavors.

use super::route::{KongPath, KongRoute};

/// Kong's router flavors, as in `--kong-router`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouterFlavor {
    /// Kong's default. Every path of a route has its own rank.
    #[default]
    TraditionalCompatible,
    /// The priorities that Kong's ingress controller computes: a route ranks by all of its paths together.
    Expressions,
}

/// Compared from left to right; the greater rank is tried first. Equal ranks are ordered by age.
pub(super) type Rank = [i64; 7];

/// 1. The number of condition kinds: methods, hosts, headers, paths, server names.
/// 2. Whether there are hosts, all without wildcard.
/// 3. More headers.
/// 4. An exact path or regular expression. Kong translates exact paths to regular expressions, so both rank alike.
/// 5. Among these, the higher `regex_priority`. Their length does not count.
/// 6. Otherwise the longer prefix.
pub(super) fn traditional_compatible(route: &KongRoute, path: Option<&KongPath>) -> Rank {
    let is_regex = path.is_some_and(is_regex);
    let prefix = match path {
        Some(KongPath::Prefix(text)) => saturating_rank(text.len(), MAX_TRADITIONAL_LENGTH),
        Some(KongPath::Exact(_) | KongPath::Regex(_)) | None => 0,
    };
    [
        i64::from(!route.is_default_backend),
        condition_kinds(route),
        i64::from(has_plain_hosts_only(route)),
        saturating_rank(route.headers.len(), MAX_HEADERS),
        i64::from(is_regex),
        if is_regex { route.regex_priority } else { 0 },
        prefix,
    ]
}

/// 1. The number of condition kinds. 2. More headers. 3. Whether there are hosts, all without wildcard.
/// 4. An exact path or regular expression among its paths. 5. The longest of its paths, whichever matches.
pub(super) fn expressions(route: &KongRoute) -> Rank {
    let longest = route.paths.iter().map(KongPath::length).max().unwrap_or_default();
    [
        i64::from(!route.is_default_backend),
        condition_kinds(route),
        saturating_rank(route.headers.len(), MAX_HEADERS),
        i64::from(has_plain_hosts_only(route)),
        i64::from(route.paths.iter().any(is_regex)),
        saturating_rank(longest, MAX_EXPRESSIONS_LENGTH),
        0,
    ]
}

impl KongPath {
    fn length(&self) -> usize {
        match self {
            KongPath::Exact(text) | KongPath::Prefix(text) => text.len(),
            KongPath::Regex(regex) => regex.as_str().len(),
        }
    }
}

fn is_regex(path: &KongPath) -> bool {
    matches!(path, KongPath::Exact(_) | KongPath::Regex(_))
}

fn condition_kinds(route: &KongRoute) -> i64 {
    let KongRoute { hosts, paths, methods, headers, server_names, .. } = route;
    let kinds = [hosts.is_empty(), paths.is_empty(), methods.is_empty(), headers.is_empty(), server_names.is_empty()];
    kinds.iter().map(|is_empty| i64::from(!is_empty)).sum()
}

fn has_plain_hosts_only(route: &KongRoute) -> bool {
    !route.hosts.is_empty() && route.hosts.iter().all(|host| host.name.is_exact())
}

/// Saturates: numbers above Kong's bit width compare as equal.
fn saturating_rank(number: usize, most: i64) -> i64 {
    i64::try_from(number).map_or(most, |number| number.min(most))
}

const MAX_HEADERS: i64 = 255;
const MAX_TRADITIONAL_LENGTH: i64 = 0x7_FFFF;
const MAX_EXPRESSIONS_LENGTH: i64 = 0xFFFF;
