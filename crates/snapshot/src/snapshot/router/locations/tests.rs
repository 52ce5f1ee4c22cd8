//! Tests of the router of locations.

use http::{HeaderMap, Method};

use super::*;
use crate::snapshot::location_path::LocationExpression;
use crate::snapshot::regex::RegexLimit;
use crate::snapshot::rule::{Action, Filters, RouteFailure, RuleId};

fn location(path: LocationPath) -> HostLocation {
    let id = RuleId { route: "Ingress/a/b".into(), rule: path.to_string().into() };
    let action = Action::Fail(RouteFailure::NoService);
    let rule = RouteRule { id, filters: Filters::default(), plugins: None, action, options: None };
    HostLocation { path, rule: Arc::new(rule) }
}

/// The location of each request, in the notation of nginx.
fn check(paths: &[LocationPath], requests: &[(&str, Option<&str>)]) {
    let router = LocationRouter::new(paths.iter().cloned().map(location).collect());
    let headers = HeaderMap::new();
    for (path, expected) in requests {
        let request = RoutingRequest::plaintext(path, None, &Method::GET, &headers);
        let found = router.find(&request).map(|matched| matched.path.to_string());
        assert_eq!(found.as_deref(), *expected, "{path} among {paths:?}");
    }
}

fn exact(path: &str) -> LocationPath {
    LocationPath::Exact(path.into())
}

fn prefix(path: &str) -> LocationPath {
    LocationPath::Prefix(path.into())
}

fn expression(path: &str) -> LocationPath {
    let expression = LocationExpression::parse(path, RegexLimit::MEMORY_ONLY).unwrap();
    LocationPath::Expression { path: path.into(), written: path.into(), expression }
}

#[test]
fn exact_paths_come_first_then_the_longest_prefix() {
    check(
        &[prefix("/"), prefix("/foo/"), exact("/foo"), prefix("/foo/bar/"), exact("/foo/bar/baz"), prefix("/fop/")],
        &[
            ("/", Some("/")),
            ("/foo", Some("= /foo")),
            ("/foo/", Some("/foo/")),
            ("/foobar", Some("/")),
            ("/foo/bar", Some("/foo/")),
            ("/foo/bar/x", Some("/foo/bar/")),
            ("/foo/bar/baz", Some("= /foo/bar/baz")),
            ("/foo/barz/", Some("/foo/")),
            ("/fop/x", Some("/fop/")),
            ("/FOO", Some("/")),
            // Decoded, and with merged slashes.
            ("//foo//bar%2Fx", Some("/foo/bar/")),
            ("/zzz", Some("/")),
            ("/foo/../..", None),
        ],
    );
    check(&[prefix("/a/b/"), prefix("/a/c/")], &[("/a/", None), ("/a/b/", Some("/a/b/")), ("/a/d/", None)]);
}

#[test]
fn longest_expression_comes_first() {
    check(
        &[expression("/"), expression("/foo/bar/bar"), expression("/foo/bar/[a-z]{3}"), expression("/Foo")],
        &[
            ("/foo/bar/bar", Some("~* ^/foo/bar/[a-z]{3}")),
            ("/foo/bar/ba1", Some("~* ^/Foo")),
            ("/FOObar", Some("~* ^/Foo")),
            ("/", Some("~* ^/")),
            ("/a%2Ffoo", Some("~* ^/")),
        ],
    );
    // Of equal length, the later one in the alphabet.
    check(&[expression("/a.c"), expression("/abc")], &[("/abc", Some("~* ^/abc")), ("/aXc", Some("~* ^/a.c"))]);
}

#[test]
fn expressions_with_look_around_keep_their_place() {
    check(
        &[expression("/"), expression("/api/(?!internal)"), expression("/api/internal/deep/er/still")],
        &[
            ("/api/v1", Some("~* ^/api/(?!internal)")),
            ("/api/internal", Some("~* ^/")),
            ("/api/internal/deep/er/still/x", Some("~* ^/api/internal/deep/er/still")),
        ],
    );
    check(&[expression("/(?=a)")], &[("/a", Some("~* ^/(?=a)")), ("/b", None)]);
}

#[test]
fn dollar_sign_matches_before_a_line_break_at_the_end() {
    check(
        &[expression("/"), expression("/admin$"), expression("/(?!x)shop$")],
        &[
            ("/admin", Some("~* ^/admin$")),
            ("/admin%0A", Some("~* ^/admin$")),
            ("/admin%0A%0A", Some("~* ^/")),
            ("/admin%0Ax", Some("~* ^/")),
            ("/shop%0A", Some("~* ^/(?!x)shop$")),
        ],
    );
}

#[test]
fn exact_root_precedes_expressions() {
    check(&[expression("/"), exact("/")], &[("/", Some("= /")), ("/a", Some("~* ^/"))]);
}

proptest::proptest! {
    /// The index finds what a comparison with all prefixes finds.
    #[test]
    fn index_agrees_with_a_scan(prefixes in proptest::collection::btree_set("(/[ab]{0,2}){0,4}/", 0..12),
                                path in "(/[abc]{0,2}){1,5}") {
        let router = LocationRouter::new(prefixes.iter().map(|path| location(prefix(path))).collect());
        let headers = HeaderMap::new();
        let decoded = decoded_path(&path).unwrap();
        let matching = prefixes.iter().filter(|prefix| decoded.starts_with(&***prefix));
        let expected = matching.max_by_key(|prefix| prefix.len());
        let found = router.find(&RoutingRequest::plaintext(&path, None, &Method::GET, &headers));
        proptest::prop_assert_eq!(found.map(|matched| matched.path.to_string()), expected.cloned());
    }
}
