//! The precedence of Kong routes, for each of Kong's router flavors.

use super::route::{KongPath, KongRoute, RouteSource};

/// Kong's router flavors, as in `--kong-router`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouterFlavor {
    /// Kong's default. Every path of a route has its own rank.
    #[default]
    TraditionalCompatible,
    /// The priorities that Kong's ingress controller computes: an Ingress route ranks by all of its paths together, and
    /// before every HTTPRoute.
    Expressions,
}

/// Compared from left to right; the greater rank is tried first. Equal ranks are ordered by age.
pub(super) type Rank = [i64; 8];

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
        0,
    ]
}

/// An Ingress before an HTTPRoute before a GRPCRoute. For an Ingress:
///
/// 1. The number of condition kinds. 2. More headers. 3. Whether there are hosts, all without wildcard.
/// 4. An exact path or regular expression among its paths. 5. The longest of its paths, whichever matches.
///
/// For Gateway API routes, by host and path:
///
/// 1. A host without wildcard; 2. the longer host. 3. An exact path, then a regular expression; 4. the longer path.
/// 5. A method. 6. More headers; 7. more query parameters.
pub(super) fn expressions(route: &KongRoute, path: Option<&KongPath>, host: Option<usize>) -> Rank {
    let is_first = i64::from(!route.is_default_backend);
    match route.source {
        RouteSource::Ingress => {
            let longest = route.paths.iter().map(KongPath::length).max().unwrap_or_default();
            [
                is_first,
                INGRESS,
                condition_kinds(route),
                saturating_rank(route.headers.len(), MAX_HEADERS),
                i64::from(has_plain_hosts_only(route)),
                i64::from(route.paths.iter().any(is_regex)),
                saturating_rank(longest, MAX_EXPRESSIONS_LENGTH),
                0,
            ]
        }
        RouteSource::HttpRoute | RouteSource::GrpcRoute => {
            let name = host.and_then(|at| route.hosts.get(at)).map(|host| &host.name);
            // Host and path type need few bits each, so they share one element.
            let host =
                name.map_or(0, |name| i64::from(name.is_exact()) << 9 | saturating_rank(name.to_string().len(), 256));
            let kind = match path {
                Some(KongPath::Exact(_)) => 2,
                Some(KongPath::Regex(_)) => 1,
                Some(KongPath::Prefix(_)) | None => 0,
            };
            [
                is_first,
                if route.source == RouteSource::HttpRoute { HTTP_ROUTE } else { GRPC_ROUTE },
                host,
                kind,
                saturating_rank(path.map_or(0, KongPath::length), MAX_ROUTE_LENGTH),
                i64::from(!route.methods.is_empty()),
                saturating_rank(route.headers.len(), MAX_CONDITIONS),
                saturating_rank(route.query.len(), MAX_CONDITIONS),
            ]
        }
    }
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

const INGRESS: i64 = 3;
const HTTP_ROUTE: i64 = 2;
const GRPC_ROUTE: i64 = 1;

const MAX_HEADERS: i64 = 255;
const MAX_TRADITIONAL_LENGTH: i64 = 0x7_FFFF;
const MAX_EXPRESSIONS_LENGTH: i64 = 0xFFFF;
const MAX_ROUTE_LENGTH: i64 = 0x3FF;
const MAX_CONDITIONS: i64 = 31;
