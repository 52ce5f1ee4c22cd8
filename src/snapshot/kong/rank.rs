//! Which of two routes is asked first: one reading for each of Kong's routers (`kong-compat.md` §3.4).

use super::route::{Path, Route, Source};

/// How `--kong-router` names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flavor {
    /// Kong's own default. Every path of a route has a rank of its own.
    #[default]
    TraditionalCompatible,
    /// What Kong's ingress controller makes of routes: those of an Ingress rank by all of their paths together, and before
    /// every HTTPRoute.
    Expressions,
}

/// What counts first stands first; the greater is asked first. Equal ranks are decided by age.
pub(super) type Rank = [i64; 8];

/// 1. How many kinds of conditions there are: methods, hosts, headers, paths, server names.
/// 2. Hosts, and all of them without wildcard.
/// 3. More headers.
/// 4. An exact path or regular expression. Kong writes the one as the other, so neither is the more specific.
/// 5. Among these, the higher `regex_priority`. Their length does not count.
/// 6. Else the longer prefix.
pub(super) fn traditional_compatible(route: &Route, path: Option<&Path>) -> Rank {
    let is_regex = path.is_some_and(is_regex);
    let prefix = match path {
        Some(Path::Prefix(text)) => count(text.len(), MOST_TRADITIONAL_LENGTH),
        Some(Path::Exact(_) | Path::Regex(_)) | None => 0,
    };
    [
        i64::from(!route.is_last),
        kinds(route),
        i64::from(has_plain_hosts_only(route)),
        count(route.headers.len(), MOST_HEADERS),
        i64::from(is_regex),
        if is_regex { route.regex_priority } else { 0 },
        prefix,
        0,
    ]
}

/// An Ingress before an HTTPRoute before a GRPCRoute. Of an Ingress:
///
/// 1. How many kinds of conditions there are. 2. More headers. 3. Hosts, and all of them without wildcard.
/// 4. An exact path or regular expression among its paths. 5. The longest of its paths, whichever matches.
///
/// Of routes of the Gateway API, host by host and path by path:
///
/// 1. A host without wildcard; 2. the longer host. 3. An exact path, then a regular expression; 4. the longer path.
/// 5. A method. 6. More headers; 7. more query parameters.
pub(super) fn expressions(route: &Route, path: Option<&Path>, host: Option<usize>) -> Rank {
    let is_first = i64::from(!route.is_last);
    match route.source {
        Source::Ingress => {
            let longest = route.paths.iter().map(Path::length).max().unwrap_or_default();
            [
                is_first,
                INGRESS,
                kinds(route),
                count(route.headers.len(), MOST_HEADERS),
                i64::from(has_plain_hosts_only(route)),
                i64::from(route.paths.iter().any(is_regex)),
                count(longest, MOST_EXPRESSIONS_LENGTH),
                0,
            ]
        }
        Source::HttpRoute | Source::GrpcRoute => {
            let name = host.and_then(|at| route.hosts.get(at)).map(|host| &host.name);
            // Host and kind of path are few bits each, so they share a place.
            let host = name.map_or(0, |name| i64::from(name.is_exact()) << 9 | count(name.to_string().len(), 256));
            let kind = match path {
                Some(Path::Exact(_)) => 2,
                Some(Path::Regex(_)) => 1,
                Some(Path::Prefix(_)) | None => 0,
            };
            [
                is_first,
                if route.source == Source::HttpRoute { HTTP_ROUTE } else { GRPC_ROUTE },
                host,
                kind,
                count(path.map_or(0, Path::length), MOST_ROUTE_LENGTH),
                i64::from(!route.methods.is_empty()),
                count(route.headers.len(), MOST_CONDITIONS),
                count(route.query.len(), MOST_CONDITIONS),
            ]
        }
    }
}

impl Path {
    fn length(&self) -> usize {
        match self {
            Path::Exact(text) | Path::Prefix(text) => text.len(),
            Path::Regex(regex) => regex.as_str().len(),
        }
    }
}

fn is_regex(path: &Path) -> bool {
    matches!(path, Path::Exact(_) | Path::Regex(_))
}

fn kinds(route: &Route) -> i64 {
    let Route { hosts, paths, methods, headers, server_names, .. } = route;
    let kinds = [hosts.is_empty(), paths.is_empty(), methods.is_empty(), headers.is_empty(), server_names.is_empty()];
    kinds.iter().map(|is_empty| i64::from(!is_empty)).sum()
}

fn has_plain_hosts_only(route: &Route) -> bool {
    !route.hosts.is_empty() && route.hosts.iter().all(|host| host.name.is_exact())
}

/// Numbers above what Kong has room for count as equal.
fn count(number: usize, most: i64) -> i64 {
    i64::try_from(number).map_or(most, |number| number.min(most))
}

const INGRESS: i64 = 3;
const HTTP_ROUTE: i64 = 2;
const GRPC_ROUTE: i64 = 1;

const MOST_HEADERS: i64 = 255;
const MOST_TRADITIONAL_LENGTH: i64 = 0x7_FFFF;
const MOST_EXPRESSIONS_LENGTH: i64 = 0xFFFF;
const MOST_ROUTE_LENGTH: i64 = 0x3FF;
const MOST_CONDITIONS: i64 = 31;
