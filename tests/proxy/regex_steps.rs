//! The limit of the work that the regular expressions of routes may cause for one request. See "Regular expressions" in
//! docs/routing.md.

use std::sync::Arc;

use http::{HeaderName, StatusCode};
use portico::bind_address::BindAddress;
use portico::plugin_chain::testing::chain;
use portico::plugins::REGISTRY;
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::regex::RegexLimit;
use portico::snapshot::router::by_conditions::{ConditionRoute, HeaderCondition, PathCondition};
use portico::snapshot::router::{
    HeaderMatch, HostRouter, PathMatch, QueryMatch, RouteMatch, TieBreaker, ValueMatch, compile_regex,
};
use portico::snapshot::rule::{Action, Filters, RouteFailure, RouteRule, RuleId};
use portico::snapshot::rule_options::UnmatchedStyle;
use portico::snapshot::{Bind, HttpListener, Routes, Snapshot};
use serde_json::json;

use crate::accounting::scrape;
use crate::harness::{Options, TestServer, reserve_address};
use crate::kong::{ingress_route, server};

/// About 10,000 states: a request with more than 200 bytes would take more than 2,000,000 steps.
const LARGE: &str = "a*a{10000}";
/// The status of the rules. Every request has a route, so another status is that of the limit.
const ROUTED: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

fn rule() -> Arc<RouteRule> {
    let id = RuleId { route: "HTTPRoute/default/a".into(), rule: "0".into() };
    let action = Action::Fail(RouteFailure::NoService);
    Arc::new(RouteRule { id, filters: Filters::default(), plugins: None, action, options: None })
}

/// A match with this path, and no other conditions.
fn route_match(path: PathMatch) -> RouteMatch {
    RouteMatch {
        path,
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
        call: None,
        server_names: Arc::default(),
        tie_breaker: TieBreaker { created: None, route: "default/a".into(), rule: 0, index: 0 },
        rule: rule(),
    }
}

async fn gateway(matches: Vec<RouteMatch>) -> TestServer {
    let (address, reserved) = reserve_address();
    let prefix = route_match(PathMatch::Prefix("".into()));
    let router = HostRouter::build(matches.into_iter().chain([prefix]).collect());
    let listener = HttpListener {
        gateway: "default/web".into(),
        name: "http".into(),
        port: 80,
        routes: Routes::ByHost(HostMap::new([(HostPattern::Any, Arc::new(router))])),
        unmatched: UnmatchedStyle::default(),
    };
    let bind = Bind::with_http(HostMap::new([(HostPattern::Any, Arc::new(listener))]), None);
    let snapshot = Snapshot { binds: [(BindAddress::tcp(address), Arc::new(bind))].into(), ..Snapshot::default() };
    let server = TestServer::start(Options::default(), address, reserved, snapshot);
    server.proxy.reconcile().await;
    server
}

/// The statuses of requests for `/a` with 100 and with 60,000 letters in the path, in a query parameter, and in a
/// header.
async fn statuses(server: &TestServer) -> [[u16; 3]; 2] {
    let mut statuses = [[0; 3]; 2];
    for (row, length) in statuses.iter_mut().zip([100, 60_000]) {
        let text = "a".repeat(length);
        let requests = [
            format!("GET /{text} HTTP/1.1\r\nhost: a.example\r\n\r\n"),
            format!("GET /?x={text} HTTP/1.1\r\nhost: a.example\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nhost: a.example\r\nx: {text}\r\n\r\n"),
        ];
        for (status, request) in row.iter_mut().zip(requests) {
            *status = server.request(&request).await.status;
        }
    }
    statuses
}

#[tokio::test]
async fn long_values_for_large_expressions_of_gateways_are_rejected() {
    let value = || compile_regex(LARGE).unwrap();
    let header = HeaderMatch { name: HeaderName::from_static("x"), value: ValueMatch::Regex(value()) };
    let parameter = QueryMatch { name: "x".into(), value: ValueMatch::Regex(value()) };
    let any = || route_match(PathMatch::Prefix("".into()));
    let server = gateway(vec![
        route_match(PathMatch::Regex(format!("/{LARGE}").into())),
        RouteMatch { headers: vec![header], ..any() },
        RouteMatch { query: vec![parameter], ..any() },
    ])
    .await;
    let routed = ROUTED.as_u16();
    assert_eq!(statuses(&server).await, [[routed; 3], [414, 414, 431]]);
    let response = server.request(&format!("GET /{} HTTP/1.1\r\nhost: a.example\r\n\r\n", "a".repeat(60_000))).await;
    let body = String::from_utf8_lossy(&response.body);
    assert!(body.contains("too long for the regular expressions"), "{body}");
    let counts = scrape(&server);
    for (reason, count) in [("target_too_long_to_match", 3.0), ("header_too_long_to_match", 1.0)] {
        assert_eq!(counts[&format!("portico_request_errors_total{{reason=\"{reason}\"}}")], count, "{reason}");
    }
    // A path with which no expression begins is not matched with any.
    let server = gateway(vec![route_match(PathMatch::Regex(format!("/b/{LARGE}").into()))]).await;
    assert_eq!(statuses(&server).await, [[routed; 3]; 2]);
}

#[tokio::test]
async fn long_values_for_large_expressions_of_ingresses_are_rejected() {
    let route = |path| ingress_route(path, Default::default(), Action::Fail(RouteFailure::NoService));
    let pattern = "~*^a*a{4000}$";
    let header = HeaderCondition::parse(HeaderName::from_static("x"), [pattern], RegexLimit::MEMORY_ONLY).unwrap();
    let routes = vec![
        route(PathCondition::regex(&format!("/{LARGE}")).unwrap()),
        ConditionRoute { headers: [header].into(), ..route(PathCondition::prefix("/")) },
        route(PathCondition::prefix("/")),
    ];
    let server = server(Options::default(), routes).await;
    let routed = ROUTED.as_u16();
    // No condition is about the query.
    assert_eq!(statuses(&server).await, [[routed; 3], [414, routed, 431]]);
}

/// The steps of all expressions are added up: each alone may be matched with this path.
#[tokio::test]
async fn steps_of_many_expressions_are_added_up() {
    let paths = |count: usize| -> Vec<RouteMatch> {
        (0..count).map(|number| route_match(PathMatch::Regex(format!("/a*{number}[a-z]{{100}}").into()))).collect()
    };
    let request = format!("GET /{} HTTP/1.1\r\nhost: a.example\r\n\r\n", "a".repeat(4_000));
    assert_eq!(gateway(paths(1)).await.request(&request).await.status, ROUTED.as_u16());
    assert_eq!(gateway(paths(10)).await.request(&request).await.status, 414);
}

/// The expressions of plugins take their steps from those that the route leaves.
#[tokio::test]
async fn steps_of_plugins_are_added_to_those_of_the_route() {
    let user_agent = format!("user-agent: {}\r\n", "x".repeat(500));
    let origin = format!("origin: https://{}\r\n", "x".repeat(200));
    let origins = json!({"origins": ["[a-z]*a{1500}", "https://[a-z]*", "https://other.example"]});
    // The expressions for paths leave many steps for the first path, and few for the second.
    for (path, remain) in [("b", true), (&"a".repeat(190), false)] {
        for (plugin, config, header) in [("bot-detection", json!({}), &user_agent), ("cors", origins.clone(), &origin)]
        {
            let chain = chain(&[(REGISTRY.find(plugin).unwrap(), config)]);
            let mut rule = Arc::into_inner(rule()).unwrap();
            rule.plugins = Some(chain);
            let rule = Arc::new(rule);
            let route = |path| RouteMatch { rule: Arc::clone(&rule), ..route_match(path) };
            let server = gateway(vec![
                route(PathMatch::Regex(format!("/{LARGE}").into())),
                route(PathMatch::Regex("/[ab]*".into())),
            ]);
            let response =
                server.await.request(&format!("GET /{path} HTTP/1.1\r\nhost: a.example\r\n{header}\r\n")).await;
            let is_allowed = match plugin {
                "cors" => response.head.contains("access-control-allow-origin"),
                _ => response.status == ROUTED.as_u16(),
            };
            let body = String::from_utf8_lossy(&response.body);
            assert_eq!(is_allowed, remain, "{plugin}: {} {body}", response.head);
            let names_user_agent = body.contains("User-Agent too long");
            assert!(!names_user_agent, "the path is too long, and not the User-Agent: {body}");
        }
    }
}
