//! Which of two matches is looked at first (`gateway-api.md` §3.1).

use std::cmp::{Ordering, Reverse};

use super::{Candidate, PathMatch};

/// The more specific one is less, so that sorting puts it first.
///
/// 1. Exact path, then regular expression, then prefix. Where regular expressions stand is ours to say: whoever writes
///    one means it more than a prefix, and less than a path spelled out.
/// 2. The longer regular expression or prefix, in characters.
/// 3. The one with a method.
/// 4. More headers; 5. more query parameters.
/// 6. The older route; 7. its `namespace/name`; 8. the earlier rule; 9. the earlier match.
pub(super) fn compare(a: &Candidate, b: &Candidate) -> Ordering {
    key(a).cmp(&key(b))
}

fn key(candidate: &Candidate) -> impl Ord + use<'_> {
    let Candidate { path, method, headers, query, age, .. } = candidate;
    // Two exact paths, or two prefixes of one length, never match the same request, so the text between them decides
    // nothing; it puts equal paths together, which the tables of paths need.
    let path = (kind(path), Reverse(length(path)), grouping(path));
    (path, method.is_none(), Reverse(headers.len()), Reverse(query.len()), age)
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Exact,
    Regex,
    Prefix,
}

fn kind(path: &PathMatch) -> Kind {
    match path {
        PathMatch::Exact(_) => Kind::Exact,
        PathMatch::Regex(_) => Kind::Regex,
        PathMatch::Prefix(_) => Kind::Prefix,
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
        // Two regular expressions of one length may well match the same request.
        PathMatch::Regex(_) => "",
    }
}
