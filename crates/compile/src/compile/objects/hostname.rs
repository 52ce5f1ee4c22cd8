//! Intersection of listener and route hostnames, as Gateway API defines it.

use crate::snapshot::host::HostPattern;

/// Symmetric: `*.example.com` intersects `api.example.com`, `*.eu.example.com` and itself, but not `example.com`.
pub(in crate::compile) fn intersects(a: &HostPattern, b: &HostPattern) -> bool {
    use HostPattern::{Any, Exact, Wildcard};
    match (a, b) {
        (Any, _) | (_, Any) => true,
        (Exact(a), Exact(b)) => a == b,
        (Exact(host), Wildcard(suffix)) | (Wildcard(suffix), Exact(host)) => is_below(host, suffix),
        (Wildcard(a), Wildcard(b)) => a == b || is_below(a, b) || is_below(b, a),
    }
}

/// Whether `host` is `suffix` with at least one more label in front.
fn is_below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix).and_then(|labels| labels.strip_suffix('.')).is_some_and(|labels| !labels.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_several_labels_but_not_the_bare_domain() {
        for (a, b, expected) in [
            ("", "a.example", true),
            ("a.example", "A.example", true),
            ("a.example", "b.example", false),
            ("*.example", "a.example", true),
            ("*.example", "a.b.example", true),
            ("*.example", "example", false),
            ("*.example", "aexample", false),
            ("*.example", "*.b.example", true),
            ("*.a.example", "*.b.example", false),
            ("*.example", "*.other", false),
        ] {
            let (left, right) = (HostPattern::parse(Some(a)), HostPattern::parse(Some(b)));
            assert_eq!(intersects(&left, &right), expected, "{a} and {b}");
            assert_eq!(intersects(&right, &left), expected, "{b} and {a}");
        }
    }
}
