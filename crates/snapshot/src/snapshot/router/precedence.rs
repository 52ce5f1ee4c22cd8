//! The order of precedence of matches in the Gateway API.

use std::cmp::{Ordering, Reverse};

use super::call::CallMatch;
use super::path_match::PathMatch;
use super::route_match::RouteMatch;

/// Compares by precedence. The match of higher precedence is the lesser one, so that sorting puts it first.
///
/// 1. Exact path, then regular expression, then prefix. The API leaves the rank of regular expressions open; here they
///    rank between exact paths and prefixes.
/// 2. The longer regular expression or prefix, in characters.
/// 3. The one for gRPC calls; of two of them, the one with the longer method.
/// 4. The one with a method of HTTP.
/// 5. More headers; 6. more query parameters.
/// 7. The older route; 8. the `namespace/name` that sorts first; 9. the earlier rule; 10. the earlier match.
pub(super) fn compare(a: &RouteMatch, b: &RouteMatch) -> Ordering {
    sort_key(a).cmp(&sort_key(b))
}

fn sort_key(route_match: &RouteMatch) -> impl Ord + use<'_> {
    let RouteMatch { path, method, headers, query, call, tie_breaker, .. } = route_match;
    // The path text makes equal paths adjacent, as `ExactPaths` and `PrefixTree` require. It does not change which
    // match wins: two different exact paths, or prefixes of equal length, never match the same request.
    let path = (kind(path), Reverse(length(path)), grouping_text(path));
    let call = Reverse(CallMatch::precedence(call.as_deref()));
    (path, call, method.is_none(), Reverse(headers.len()), Reverse(query.len()), tie_breaker)
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum PathKind {
    Exact,
    Regex,
    Prefix,
}

fn kind(path: &PathMatch) -> PathKind {
    match path {
        PathMatch::Exact(_) => PathKind::Exact,
        PathMatch::Regex(_) => PathKind::Regex,
        PathMatch::Prefix(_) => PathKind::Prefix,
    }
}

fn length(path: &PathMatch) -> usize {
    match path {
        PathMatch::Exact(text) | PathMatch::Prefix(text) => text.chars().count(),
        PathMatch::Regex(pattern) => pattern.chars().count(),
    }
}

fn grouping_text(path: &PathMatch) -> &str {
    match path {
        PathMatch::Exact(text) | PathMatch::Prefix(text) => text,
        // Two regular expressions of equal length may match the same request, so the text must not decide.
        PathMatch::Regex(_) => "",
    }
}
