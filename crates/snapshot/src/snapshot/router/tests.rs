//! Readable cases for each routing rule, and limits; complements the property test in `tests/router.rs`.

use http::{HeaderMap, Method};

use super::by_conditions::HostName;
use super::*;
use crate::snapshot::redirect::Scheme;
use crate::snapshot::rule::{Action, Filters, RouteFailure, RouteRule, RuleId};

/// A match whose path is written as in the route table, for the rule at this position of the only route.
fn route_match(index: u16, path: &str) -> RouteMatch {
    let (kind, text) = path.split_once(' ').unwrap();
    let path = match kind {
        "Exact" => PathMatch::Exact(text.into()),
        "PathPrefix" => PathMatch::Prefix(text.into()),
        "RegularExpression" => PathMatch::Regex(text.into()),
        other => panic!("{other} is not a path type"),
    };
    let action = Action::Fail(RouteFailure::NoBackends);
    let mut route_match = match_for_path(path, rule("a", &index.to_string(), Filters::default(), action));
    route_match.tie_breaker.rule = index;
    route_match
}

/// The first match of the first rule of a route, with a condition on the path only.
pub(in crate::snapshot) fn match_for_path(path: PathMatch, rule: RouteRule) -> RouteMatch {
    let tie_breaker = TieBreaker { created: None, route: rule.id.route.clone(), rule: 0, index: 0 };
    RouteMatch {
        path,
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
        call: None,
        server_names: Arc::default(),
        tie_breaker,
        rule: Arc::new(rule),
    }
}

/// A rule without plugins and with default options.
pub(in crate::snapshot) fn rule(route: &str, name: &str, filters: Filters, action: Action) -> RouteRule {
    let id = RuleId { route: format!("HTTPRoute/default/{route}").into(), rule: name.into() };
    RouteRule { id, filters, plugins: None, action, options: None }
}

fn router(paths: &[&str]) -> HostRouter {
    HostRouter::build((0..).zip(paths).map(|(index, path)| route_match(index, path)).collect())
}

fn get<'r>(router: &'r HostRouter, path: &str) -> Option<Matched<'r>> {
    router.find(&RoutingRequest::plaintext(path, None, &Method::GET, &HeaderMap::new()))
}

#[test]
fn match_with_a_method_names_it() {
    let mut trace = route_match(0, "PathPrefix /a");
    trace.method = Some(Method::TRACE);
    let router = HostRouter::build(vec![trace, route_match(1, "PathPrefix /")]);
    for (path, names_method) in [("/a", true), ("/b", false)] {
        let headers = HeaderMap::new();
        let matched = router.find(&RoutingRequest::plaintext(path, None, &Method::TRACE, &headers)).unwrap();
        assert_eq!(matched.names_method, names_method, "{path}");
    }
}

#[test]
fn path_matching() {
    // (paths of the rules, path of the request, path of the match that wins)
    let cases: [(&[&str], &str, Option<&str>); 31] = [
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
        (&["Exact /%7Ea%2Fb"], "/~a%2Fb", Some("Exact /~a%2Fb")),
        (&["PathPrefix /%7Ea/"], "/~a/b", Some("PathPrefix /~a")),
        (&["PathPrefix /a", "RegularExpression /.*", "Exact /a"], "/a", Some("Exact /a")),
        (&["PathPrefix /a/b", "RegularExpression /.*"], "/a/b", Some("RegularExpression /.*")),
        (&["RegularExpression /a.*", "RegularExpression /a/b.*"], "/a/b", Some("RegularExpression /a/b.*")),
        (&["RegularExpression /a"], "/ab", None),
        (&["RegularExpression ("], "(", None),
        (&[], "/", None),
    ];
    for (rules, path, expected) in cases {
        let found = get(&router(rules), path).map(|matched| matched.path.to_string());
        assert_eq!(found.as_deref(), expected, "{rules:?} requested with {path}");
    }
}

#[test]
fn routing_does_not_depend_on_construction_order() {
    let paths =
        ["PathPrefix /a", "PathPrefix /a", "Exact /a", "RegularExpression /b", "RegularExpression /a", "PathPrefix /b"];
    let listed = |matches: Vec<RouteMatch>| -> Vec<String> {
        let router = HostRouter::build(matches);
        router
            .matches()
            .iter()
            .map(|route_match| format!("{} {}", route_match.path, route_match.tie_breaker.rule))
            .collect()
    };
    let matches: Vec<RouteMatch> = (0..).zip(paths).map(|(index, path)| route_match(index, path)).collect();
    let expected = [
        "Exact /a 2",
        "RegularExpression /b 3",
        "RegularExpression /a 4",
        "PathPrefix /a 0",
        "PathPrefix /a 1",
        "PathPrefix /b 5",
    ];
    for rotation in 0..matches.len() {
        let mut rotated = matches.clone();
        rotated.rotate_left(rotation);
        assert_eq!(listed(rotated), expected);
    }
}

#[test]
fn thousands_of_paths_on_one_host_are_found() {
    let mut paths: Vec<String> = vec!["PathPrefix /".into()];
    for number in 0..1_000 {
        paths.push(format!("Exact /exact/{number}"));
        paths.push(format!("PathPrefix /prefix/{number}/deep"));
        paths.push(format!("PathPrefix /prefix/{number}/deep/er"));
    }
    let router = router(&paths.iter().map(String::as_str).collect::<Vec<_>>());
    let cases = [
        ("/exact/7", "Exact /exact/7"),
        ("/exact/7/", "PathPrefix /"),
        ("/exact/1000", "PathPrefix /"),
        ("/prefix/999/deep", "PathPrefix /prefix/999/deep"),
        ("/prefix/999/deeper", "PathPrefix /"),
        ("/prefix/999/deep/er/est", "PathPrefix /prefix/999/deep/er"),
        ("/prefix/0", "PathPrefix /"),
    ];
    for (path, expected) in cases {
        assert_eq!(get(&router, path).unwrap().path.to_string(), expected, "{path}");
    }
}

/// RFC 3986, section 6.2.2.1: the hex digits of an escape are case-insensitive.
#[test]
fn case_of_escapes_does_not_matter() {
    let router = router(&[
        "Exact /caf%c3%a9",
        "PathPrefix /caf%C3%a9/x%2fy/",
        "RegularExpression /r%2f.*",
        "RegularExpression /s%2F.*",
        "RegularExpression /c%[0-9a-f]{2}",
        "PathPrefix /",
    ]);
    for (path, expected) in [
        ("/caf%C3%A9", "Exact /caf%C3%A9"),
        ("/caf%c3%a9", "Exact /caf%C3%A9"),
        ("/caf%c3%A9", "Exact /caf%C3%A9"),
        ("/CAF%c3%a9", "PathPrefix /"),
        ("/caf%C3%A9/x%2Fy/z", "PathPrefix /caf%C3%A9/x%2Fy"),
        ("/caf%c3%a9/x%2fy", "PathPrefix /caf%C3%A9/x%2Fy"),
        ("/caf%c3%a9/x/y", "PathPrefix /"),
        ("/r%2fa", "RegularExpression /r%2f.*"),
        ("/r%2Fa", "RegularExpression /r%2f.*"),
        ("/r%2Fa%c3", "RegularExpression /r%2f.*"),
        ("/s%2fa", "RegularExpression /s%2F.*"),
        ("/s%2Fa%c3", "RegularExpression /s%2F.*"),
        ("/c%c3", "RegularExpression /c%[0-9a-f]{2}"),
        ("/c%C3", "RegularExpression /c%[0-9a-f]{2}"),
        ("/c%2C", "RegularExpression /c%[0-9a-f]{2}"),
    ] {
        assert_eq!(get(&router, path).unwrap().path.to_string(), expected, "{path}");
    }
    // An expression takes more steps only for a path that has several spellings.
    let router = self::router(&["RegularExpression /s.*"]);
    let steps_left = |path| {
        let headers = HeaderMap::new();
        let request = RoutingRequest::plaintext(path, None, &Method::GET, &headers);
        router.find(&request);
        request.regex_steps.remaining()
    };
    assert_eq!(steps_left("/s%20a"), steps_left("/sxxxa"));
    assert!(steps_left("/s%2fa") < steps_left("/sxxxa"));
}

/// With thousands of hosts, the size of an almost empty router dominates.
#[test]
fn a_router_of_one_rule_is_small() {
    assert!(size_of::<HostRouter>() <= 160, "{}", size_of::<HostRouter>());
    assert!(size_of::<RouteMatch>() <= 168, "{}", size_of::<RouteMatch>());
}

proptest::proptest! {
    #[test]
    fn arbitrary_rules_and_requests_do_not_panic(
        rules in proptest::collection::vec(("Exact|PathPrefix|RegularExpression", "[/a%.*é?(]{0,6}"), 0..6),
        path in "[/a%é]{0,8}",
        query in proptest::option::of("[a&=%+é]{0,12}"),
    ) {
        let rules: Vec<String> = rules.into_iter().map(|(kind, text)| format!("{kind} {text}")).collect();
        let mut matches: Vec<RouteMatch> = (0..).zip(&rules).map(|(index, path)| route_match(index, path)).collect();
        for route_match in matches.iter_mut().step_by(2) {
            route_match.query.push(QueryMatch { name: "a".into(), value: ValueMatch::Exact("é".into()) });
        }
        let router = HostRouter::build(matches);
        let headers = HeaderMap::new();
        let request = RoutingRequest::plaintext(&path, query.as_deref(), &Method::GET, &headers);
        let matched = router.find(&request).map(|matched| matched.path);
        if let Some(MatchedPath::ByHost(PathMatch::Exact(exact))) = matched {
            proptest::prop_assert_eq!(&**exact, upper_case_escapes(&path));
        }
    }
}

// docs/kong-compatibility.md, 2.2
#[test]
fn server_names_apply_to_tls_only() {
    let named = |index, names: &[&str]| RouteMatch {
        server_names: names.iter().map(|name| HostName::parse(name).unwrap()).collect(),
        ..route_match(index, "Exact /a")
    };
    let router =
        HostRouter::build(vec![named(0, &["a.example", "*.b.example"]), named(1, &["c.example"]), named(2, &[])]);
    let headers = HeaderMap::new();
    for (scheme, server_name, expected) in [
        (Scheme::Http, None, "0"),
        (Scheme::Https, Some("a.example"), "0"),
        (Scheme::Https, Some("x.b.example"), "0"),
        (Scheme::Https, Some("c.example"), "1"),
        (Scheme::Https, Some("d.example"), "2"),
        (Scheme::Https, None, "2"),
    ] {
        let request =
            RoutingRequest { scheme, server_name, ..RoutingRequest::plaintext("/a", None, &Method::GET, &headers) };
        assert_eq!(&*router.find(&request).unwrap().rule.id.rule, expected, "{server_name:?}");
    }
}
