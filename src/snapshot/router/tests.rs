//! What the property test does not say in words: one readable case per rule, and limits.

use super::*;
use crate::snapshot::rule::{Action, Failure, Filters, RuleId};

/// A match written like a line of the table, at this place of the only route.
fn candidate(index: u16, path: &str) -> Candidate {
    let (kind, text) = path.split_once(' ').unwrap();
    let path = match kind {
        "Exact" => PathMatch::Exact(text.into()),
        "PathPrefix" => PathMatch::Prefix(text.into()),
        "RegularExpression" => PathMatch::Regex(text.into()),
        other => panic!("{other} is no kind of path"),
    };
    let id = RuleId { route: "HTTPRoute/default/a".into(), rule: index.to_string().into() };
    Candidate {
        path,
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
        age: Age { created: None, route: "default/a".into(), rule: index, index: 0 },
        rule: Arc::new(Rule { id, filters: Filters::default(), action: Action::Fail(Failure::NoBackends) }),
    }
}

fn router(paths: &[&str]) -> HostRouter {
    HostRouter::build((0..).zip(paths).map(|(index, path)| candidate(index, path)).collect())
}

fn get<'r>(router: &'r HostRouter, path: &str) -> Option<Matched<'r>> {
    router.find(&Question { path, query: None, method: &Method::GET, headers: &HeaderMap::new() })
}

#[test]
fn paths() {
    // (rules, request, which wins)
    let cases: [(&[&str], &str, Option<&str>); 29] = [
        (&["PathPrefix /"], "/", Some("PathPrefix /")),
        (&["PathPrefix /"], "/a/b", Some("PathPrefix /")),
        (&["PathPrefix /"], "*", Some("PathPrefix /")),
        (&["PathPrefix /"], "", Some("PathPrefix /")),
        (&["PathPrefix /a"], "/a", Some("PathPrefix /a")),
        (&["PathPrefix /a"], "/a/", Some("PathPrefix /a")),
        (&["PathPrefix /a"], "/a/b", Some("PathPrefix /a")),
        (&["PathPrefix /a"], "/ab", None),
        (&["PathPrefix /a"], "/A", None),
        (&["PathPrefix /a"], "/", None),
        (&["PathPrefix /a"], "//a", None),
        (&["PathPrefix /a/"], "/a", Some("PathPrefix /a")),
        (&["PathPrefix /a/"], "/ab", None),
        (&["PathPrefix /a", "PathPrefix /a/b/c"], "/a/b", Some("PathPrefix /a")),
        (&["PathPrefix /", "PathPrefix /a/b/c"], "/a/b/d", Some("PathPrefix /")),
        (&["PathPrefix /a/b/c"], "/a/b", None),
        (&["PathPrefix /a", "PathPrefix /a/b"], "/a/b/c", Some("PathPrefix /a/b")),
        (&["Exact /a"], "/a", Some("Exact /a")),
        (&["Exact /a"], "/a/", None),
        (&["Exact /a/"], "/a", None),
        (&["Exact /a/"], "/a/", Some("Exact /a/")),
        (&["Exact /a"], "/A", None),
        (&["Exact /"], "/a", None),
        (&["PathPrefix /a", "RegularExpression /.*", "Exact /a"], "/a", Some("Exact /a")),
        (&["PathPrefix /a/b", "RegularExpression /.*"], "/a/b", Some("RegularExpression /.*")),
        (&["RegularExpression /a.*", "RegularExpression /a/b.*"], "/a/b", Some("RegularExpression /a/b.*")),
        (&["RegularExpression /a"], "/ab", None),
        (&["RegularExpression ("], "(", None),
        (&[], "/", None),
    ];
    for (rules, path, expected) in cases {
        let found = get(&router(rules), path).map(|matched| matched.path.to_string());
        assert_eq!(found.as_deref(), expected, "{rules:?} asked for {path}");
    }
}
