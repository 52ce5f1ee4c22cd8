//! Compares the text forms of snapshots with routes in both orders with the expected ones.

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::*;
use crate::snapshot::host::HostPattern;
use crate::snapshot::regex::RegexLimit;
use crate::snapshot::router::by_conditions::{
    ConditionRoute, ConditionsRouter, HeaderCondition, HostCondition, HostName, PathCondition, RouterFlavor,
};
use crate::snapshot::router::tests::{match_for_path, rule};
use crate::snapshot::router::{HeaderMatch, HostRouter, PathMatch, QueryMatch, TieBreaker, compile_regex};
use crate::snapshot::rule::{HeaderEdits, PathEdit, RouteFailure, Scheme, WeightedBackends};
use crate::snapshot::rule_options::{HttpsRedirect, Protocols, RuleOptions, UnmatchedStyle, UpstreamHost};
use crate::snapshot::upstream_path::UpstreamPath;
use crate::snapshot::uri_template::UriTemplate;
use crate::upstream::{UpstreamKey, UpstreamRegistry};

#[derive(Clone, Copy, PartialEq)]
enum ConstructionOrder {
    AsWritten,
    Reversed,
}

#[test]
fn dump_lists_rules_in_order_of_precedence() {
    let dump = serde_saphyr::to_string(&snapshot(ConstructionOrder::AsWritten).dump()).unwrap();
    assert_eq!(dump, include_str!("expected.yaml"), "{dump}");
}

#[test]
fn dump_does_not_depend_on_construction_order() {
    assert_eq!(snapshot(ConstructionOrder::AsWritten).dump(), snapshot(ConstructionOrder::Reversed).dump());
    assert_eq!(snapshot(ConstructionOrder::AsWritten).rows(), snapshot(ConstructionOrder::Reversed).rows());
}

#[test]
fn route_table_rows() {
    let text = |row: &RouteTableRow| {
        let RouteTableRow { address, listener, host, matches, route, rule, backends, action } = row;
        format!("{address} {listener} {host} | {matches} | {route} {rule} | {backends} | {action}")
    };
    let rows: Vec<String> = snapshot(ConstructionOrder::AsWritten).rows().iter().map(text).collect();
    assert_eq!(
        rows,
        [
            "127.0.0.1:8080 default/gateway/http a.example | Exact /a GET x-a: 1 x-b ~ [0-9]+ ?q=1 ?r ~ b+ \
             | HTTPRoute/default/a 0 | default/one:80 90%, invalid backend 10% | forward",
            "127.0.0.1:8080 default/gateway/http a.example | RegularExpression /b.* | HTTPRoute/default/a old \
             |  | redirect 301",
            "127.0.0.1:8080 default/gateway/http a.example | PathPrefix / | HTTPRoute/default/a 2 \
             | default/two:8080 | forward",
            "127.0.0.1:8080 default/gateway/http * | PathPrefix / | HTTPRoute/default/b 0 |  | fail: unsupported",
        ]
    );
}

#[test]
fn sensitive_header_values_are_hidden() {
    let mut secret = HeaderValue::from_static("password");
    secret.set_sensitive(true);
    assert_eq!(header_line(&HeaderName::from_static("authorization"), &secret), "authorization: (secret)");
}

/// A snapshot built with its hosts and matches in the given or the reversed order.
fn snapshot(order: ConstructionOrder) -> Snapshot {
    let registry = UpstreamRegistry::default();
    let upstream = |service: &str, port| {
        let key = UpstreamKey { namespace: "default".into(), service: service.into(), port, ..UpstreamKey::default() };
        BackendTarget::Upstream(registry.upstream(&key))
    };
    let backend = |weight, target| Backend { weight, filters: Filters::default(), target };
    let header = |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));

    let edits = HeaderEdits {
        set: vec![header("x-set", "1")],
        add: vec![header("x-add", "2")],
        remove: vec![HeaderName::from_static("x-remove")],
    };
    let backend_one = Backend {
        filters: Filters { request_headers: Some(edits.clone()), ..Filters::default() },
        ..backend(9, upstream("one", 80))
    };
    let rewrite = Rewrite {
        host: Some(HeaderValue::from_static("inside.example")),
        path: Some(PathEdit::prefix("/", "/inside")),
    };
    let split = |backends| Action::Forward(WeightedBackends::new(backends).unwrap());
    let mut matches_a = vec![
        RouteMatch {
            method: Some(Method::GET),
            headers: vec![
                HeaderMatch {
                    name: HeaderName::from_static("x-a"),
                    value: ValueMatch::Exact(HeaderValue::from_static("1")),
                },
                HeaderMatch {
                    name: HeaderName::from_static("x-b"),
                    value: ValueMatch::Regex(compile_regex("[0-9]+").unwrap()),
                },
            ],
            query: vec![
                QueryMatch { name: "q".into(), value: ValueMatch::Exact("1".into()) },
                QueryMatch { name: "r".into(), value: ValueMatch::Regex(compile_regex("b+").unwrap()) },
            ],
            ..match_for_path(
                PathMatch::Exact("/a".into()),
                rule(
                    "a",
                    "0",
                    Filters::default(),
                    split(vec![backend_one, backend(1, BackendTarget::Fail(RouteFailure::InvalidBackend))]),
                ),
            )
        },
        match_for_path(
            PathMatch::Regex("/b.*".into()),
            rule(
                "a",
                "old",
                Filters::default(),
                Action::Redirect(RedirectAction {
                    scheme: Some(Scheme::Https),
                    host: Some("b.example".into()),
                    path: Some(PathEdit::full("/new")),
                    port: Some(8443),
                    ..RedirectAction::new(StatusCode::MOVED_PERMANENTLY)
                }),
            ),
        ),
        match_for_path(
            PathMatch::Prefix("/".into()),
            rule(
                "a",
                "2",
                Filters { response_headers: Some(edits), rewrite: Some(rewrite), ..Filters::default() },
                split(vec![backend(1, upstream("two", 8080))]),
            ),
        ),
    ];
    let matches_b = vec![match_for_path(
        PathMatch::Prefix("".into()),
        rule("b", "0", Filters::default(), Action::Fail(RouteFailure::Unsupported)),
    )];
    if order == ConstructionOrder::Reversed {
        matches_a.reverse();
    }
    let mut hosts = vec![("a.example", matches_a), ("", matches_b)];
    if order == ConstructionOrder::Reversed {
        hosts.reverse();
    }
    let hosts =
        hosts.into_iter().map(|(host, matches)| (HostPattern::parse(Some(host)), Arc::new(HostRouter::build(matches))));
    let listener = HttpListener {
        gateway: "default/gateway".into(),
        name: "http".into(),
        port: 80,
        routes: Routes::ByHost(hosts.collect()),
        unmatched: UnmatchedStyle::default(),
    };
    let listeners = [(HostPattern::Any, Arc::new(listener))].into_iter().collect();
    Snapshot {
        binds: [(BindAddress::tcp("127.0.0.1:8080".parse().unwrap()), Arc::new(Bind::with_http(listeners, None)))]
            .into_iter()
            .collect(),
        ..Snapshot::default()
    }
}

#[test]
fn routes_by_conditions_are_dumped_in_their_order() {
    let options = RuleOptions {
        upstream_path: Some(UpstreamPath {
            strip_matched: true,
            prefix: "/base".into(),
            template: Some(UriTemplate::parse("/new/$1").unwrap()),
        }),
        host: UpstreamHost::Fixed(HeaderValue::from_static("web:8080")),
        protocols: Protocols::from_names(["https"]),
        https_redirect: HttpsRedirect { status: StatusCode::FOUND, port: 8443, plain_port: None },
        ..RuleOptions::default()
    };
    let route = |name: &str, hosts: &[&str], paths: Vec<PathCondition>, options| {
        let mut rule = rule(name, "0", Filters::default(), Action::Fail(RouteFailure::NoService));
        rule.options = Some(Box::new(options));
        let tie_breaker = TieBreaker { created: None, route: name.into(), rule: 0, index: 0 };
        let hosts = hosts.iter().map(|host| HostCondition::parse(host).unwrap()).collect();
        ConditionRoute { hosts, paths, ..ConditionRoute::new(tie_breaker, Arc::new(rule)) }
    };
    let route_with_all_conditions = ConditionRoute {
        methods: vec![Method::GET, Method::PUT],
        headers: vec![
            HeaderCondition::parse(HeaderName::from_static("x"), ["a", "~*b"], RegexLimit::MEMORY_ONLY).unwrap(),
        ]
        .into(),
        server_names: vec![HostName::parse("a.example").unwrap()].into(),
        ..route(
            "all",
            &["a.example", "*.b.example:81"],
            vec![PathCondition::prefix("/a"), PathCondition::exact("/b")],
            options,
        )
    };
    let any = route("any", &[], Vec::new(), RuleOptions::default());
    let routes = Routes::ByConditions(Arc::new(ConditionsRouter::build(
        RouterFlavor::default(),
        [any, route_with_all_conditions],
    )));
    let listener = HttpListener {
        gateway: "ingress".into(),
        name: "http".into(),
        port: 80,
        routes,
        unmatched: UnmatchedStyle::default(),
    };
    let listeners = [(HostPattern::Any, Arc::new(listener))].into_iter().collect();
    let bind = Arc::new(Bind::with_http(listeners, None));
    let snapshot =
        Snapshot { binds: [(BindAddress::tcp("127.0.0.1:8000".parse().unwrap()), bind)].into(), ..Snapshot::default() };
    let lines: Vec<_> =
        snapshot.rows().into_iter().map(|row| format!("{} {} {}", row.host, row.matches, row.action)).collect();
    let conditions_and_action = "GET | PUT x: a | ~*b sni a.example fail: no service";
    let hosts = "a.example, *.b.example:81";
    assert_eq!(
        lines,
        [
            format!("{hosts} Exact /b {conditions_and_action}"),
            format!("{hosts} Prefix /a {conditions_and_action}"),
            "* any path fail: no service".into()
        ]
    );
    let dump = snapshot.dump();
    let options = |host_index: usize| &dump.binds[0].listeners[0].hosts[host_index].matches[0].options;
    assert_eq!(
        *options(0),
        [
            "strip path",
            "path /base",
            "rewrite /new/$1",
            "host web:8080",
            "protocols https",
            "https redirect 302 to port 8443",
            "requests with normalized path",
        ]
    );
    assert!(options(1).is_empty());
}
