//! The order of precedence of matches in the Gateway API.

use std::cmp::{Ordering, Reverse};

use super::{Candidate, PathMatch};

/// The match of higher precedence compares as less, so that sorting puts it first.
///
/// 1. Exact path, then regular expression, then prefix. The API leaves the rank of regular expressions open; here they
///    rank between exact paths and prefixes.
/// 2. The longer regular expression or prefix, in characters.
/// 3. The one with a method.
/// 4. More headers; 5. more query parameters.
/// 6. The older route; 7. its `namespace/name`; 8. the earlier rule; 9. the earlier match.
pub(super) fn compare(a: &Candidate, b: &Candidate) -> Ordering {
    key(a).cmp(&key(b))
}

fn key(candidate: &Candidate) -> impl Ord + use<'_> {
    let Candidate { path, method, headers, query, age, .. } = candidate;
    // The text breaks ties only to make equal paths adjacent, as the path tables require: two different exact paths, or
    // prefixes of equal length, never match the same request.
    let path = (kind(path), Reverse(length(path)), grouping(path));
    (path, method.is_none(), Reverse(headers.len()), Reverse(query.len()), age)
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
        PathMatch::Exact(text) | PathMatch::Regex(text) | PathMatch::Prefix(text) => text.chars().count(),
    }
}

fn grouping(path: &PathMatch) -> &str {
    match path {
        PathMatch::Exact(text) | PathMatch::Prefix(text) => text,
        // Two regular expressions of equal length may match the same request, so the text must not decide.
        PathMatch::Regex(_) => "",
    }
}
