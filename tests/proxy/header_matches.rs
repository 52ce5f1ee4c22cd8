//! Conditions on header fields see the fields that the endpoint gets: no untrusted client selects a rule by a field
//! that is replaced or removed, and the host is the same in all versions of HTTP.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use portico::bind_address::BindAddress;
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::regex::RegexLimit;
use portico::snapshot::router::by_conditions::{
    ConditionRoute, ConditionsRouter, HeaderCondition, PathCondition, RouterFlavor,
};
use portico::snapshot::router::{HeaderMatch, HostRouter, PathMatch, RouteMatch, TieBreaker, ValueMatch};
use portico::snapshot::rule::{Action, Filters, HeaderEdits, RouteRule, RuleId};
use portico::snapshot::rule_options::{ForwardingHeaderStyle, RuleOptions, UnmatchedStyle};
use portico::snapshot::upstream_path::UpstreamPath;
use portico::snapshot::{Bind, HttpListener, Routes, Snapshot};

use crate::h2::{Http2Client, get_request};
use crate::harness::{Endpoint, Options, TestServer, forward, reserve_address, upstream};

/// A condition on a field, and its value.
type Condition = Option<(&'static str, &'static str)>;

fn tie_breaker(index: u16) -> TieBreaker {
    TieBreaker { created: None, route: format!("default/r{index}").into(), rule: 0, index }
}

/// A rule whose responses have the field `x-rule` with the number.
fn rule(endpoint: &Endpoint, number: u16, style: ForwardingHeaderStyle) -> Arc<RouteRule> {
    let name = (HeaderName::from_static("x-rule"), HeaderValue::from(number));
    let edits = HeaderEdits { set: vec![name], ..HeaderEdits::default() };
    Arc::new(RouteRule {
        id: RuleId { route: format!("HTTPRoute/default/r{number}").into(), rule: "0".into() },
        filters: Filters { response_headers: Some(edits), ..Filters::default() },
        plugins: None,
        action: action(endpoint),
        options: Some(Box::new(RuleOptions { forwarding_headers: style, ..RuleOptions::default() })),
    })
}

fn action(endpoint: &Endpoint) -> Action {
    forward(vec![(1, upstream("web", &[endpoint.address]))])
}

/// Rules by host, as of HTTPRoutes, or by conditions, as of Ingresses.
fn routes(endpoint: &Endpoint, by_conditions: bool, style: ForwardingHeaderStyle, conditions: &[Condition]) -> Routes {
    let numbered = || (0_u16..).zip(conditions);
    if by_conditions {
        let routes = numbered().map(|(number, condition)| {
            let mut route = ConditionRoute::new(tie_breaker(number), rule(endpoint, number, style));
            let condition = condition.map(|(name, value)| {
                HeaderCondition::parse(HeaderName::from_static(name), [value], RegexLimit::MEMORY_ONLY).unwrap()
            });
            route.headers = condition.into_iter().collect();
            route
        });
        return Routes::ByConditions(Arc::new(ConditionsRouter::build(
            RouterFlavor::TraditionalCompatible,
            routes.collect::<Vec<_>>(),
        )));
    }
    let matches = numbered().map(|(number, condition)| RouteMatch {
        path: PathMatch::Prefix("".into()),
        method: None,
        headers: condition
            .map(|(name, value)| HeaderMatch {
                name: HeaderName::from_static(name),
                value: ValueMatch::Exact(HeaderValue::from_static(value)),
            })
            .into_iter()
            .collect(),
        query: vec![],
        call: None,
        server_names: Arc::default(),
        tie_breaker: tie_breaker(number),
        rule: rule(endpoint, number, style),
    });
    Routes::ByHost(HostMap::new([(HostPattern::Any, Arc::new(HostRouter::build(matches.collect())))]))
}

async fn server(options: Options, routes: Routes) -> TestServer {
    let (address, reserved) = reserve_address();
    let listener = HttpListener {
        gateway: "default/gw".into(),
        name: "http".into(),
        port: 80,
        routes,
        unmatched: UnmatchedStyle::default(),
    };
    let listeners = HostMap::new([(HostPattern::Any, Arc::new(listener))]);
    let snapshot = Snapshot {
        binds: [(BindAddress::tcp(address), Arc::new(Bind::with_http(listeners, None)))].into(),
        ..Snapshot::default()
    };
    let server = TestServer::start(options, address, reserved, snapshot);
    server.proxy.reconcile().await;
    server
}

const STYLES: [ForwardingHeaderStyle; 2] = [ForwardingHeaderStyle::Forwarded, ForwardingHeaderStyle::RealIp];

/// The number of the rule that serves an HTTP/1 request with these lines.
async fn rule_of(server: &TestServer, first_line: &str, lines: &str) -> String {
    let response = server.request(&format!("{first_line}\r\n{lines}connection: close\r\n\r\n")).await;
    assert_eq!(response.status, 200, "{first_line} {lines}");
    response.header("x-rule").unwrap().to_owned()
}

/// The number of the rule that serves an HTTP/2 request with these fields.
async fn rule_of_http2(server: &TestServer, fields: &[(&'static str, &'static str)]) -> String {
    let mut request = get_request("/");
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    let response = Http2Client::connect(server.address).await.request(request).await.unwrap();
    response.headers["x-rule"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn host_is_that_of_the_request_in_all_versions() {
    for by_conditions in [false, true] {
        let endpoint = Endpoint::ok().await;
        let conditions = [Some(("host", "a.example")), None];
        let routes = routes(&endpoint, by_conditions, ForwardingHeaderStyle::Forwarded, &conditions);
        let server = server(Options::default(), routes).await;
        let cases = [
            ("GET / HTTP/1.1", "host: a.example\r\n", "0"),
            ("GET / HTTP/1.1", "host: b.example\r\n", "1"),
            ("GET / HTTP/1.0", "host: a.example\r\n", "0"),
            ("GET / HTTP/1.0", "", "1"),
            // The target overrides the field.
            ("GET http://a.example/ HTTP/1.1", "host: b.example\r\n", "0"),
            ("GET http://b.example/ HTTP/1.1", "host: a.example\r\n", "1"),
        ];
        for (first_line, lines, expected) in cases {
            let found = rule_of(&server, first_line, lines).await;
            assert_eq!(found, expected, "by conditions: {by_conditions}, {first_line} {lines}");
        }
        assert_eq!(rule_of_http2(&server, &[]).await, "0", "by conditions: {by_conditions}");
    }
}

#[tokio::test]
async fn untrusted_clients_cannot_select_a_rule_by_forwarding_headers() {
    let forged = [
        ("forwarded", "for=10.0.0.1"),
        ("x-real-ip", "10.0.0.1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-host", "internal"),
        ("x-forwarded-path", "/internal"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-prefix", "/internal"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "1"),
        ("x_real_ip", "10.0.0.1"),
    ];
    for (by_conditions, style) in [false, true].into_iter().flat_map(|order| STYLES.map(|style| (order, style))) {
        for (name, value) in forged {
            let endpoint = Endpoint::ok().await;
            let conditions = [Some((name, value)), None];
            let untrusted = server(Options::default(), routes(&endpoint, by_conditions, style, &conditions)).await;
            let line = format!("host: a.example\r\n{name}: {value}\r\n");
            let context = format!("{name}, by conditions: {by_conditions}, {style:?}");
            assert_eq!(rule_of(&untrusted, "GET / HTTP/1.1", &line).await, "1", "{context}");
            assert_eq!(rule_of_http2(&untrusted, &[(name, value)]).await, "1", "{context}");
            // A trusted peer reports its client, except in a spelling of another header.
            let options = Options { trusted: vec!["127.0.0.1/32"], ..Options::default() };
            let trusted = server(options, routes(&endpoint, by_conditions, style, &conditions)).await;
            let expected = if name.contains('_') { "1" } else { "0" };
            assert_eq!(rule_of(&trusted, "GET / HTTP/1.1", &line).await, expected, "{context}");
            // Its client cannot hide that.
            let line = format!("{line}connection: {name}\r\n");
            assert_eq!(rule_of(&trusted, "GET / HTTP/1.1", &line).await, expected, "{context}");
        }
    }
}

#[tokio::test]
async fn conditions_see_the_forwarding_headers_that_the_endpoint_gets() {
    let of_both = [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "a.example"),
        ("x-forwarded-port", "80"),
        ("x-forwarded-proto", "http"),
    ];
    let of_real_ip = [("x-real-ip", "127.0.0.1"), ("x-forwarded-path", "/")];
    for by_conditions in [false, true] {
        let all = [&of_both[..], &of_real_ip].concat();
        for (style, fields) in [(STYLES[0], &of_both[..]), (STYLES[1], &all)] {
            for (name, value) in fields {
                let endpoint = Endpoint::ok().await;
                let server =
                    server(Options::default(), routes(&endpoint, by_conditions, style, &[Some((*name, *value)), None]))
                        .await;
                assert_eq!(rule_of(&server, "GET / HTTP/1.1", "host: a.example\r\n").await, "0", "{name} {style:?}");
                assert_eq!(rule_of_http2(&server, &[]).await, "0", "{name} {style:?}");
            }
        }
    }
}

/// A condition on a field that Portico sets or removes, or on one that a backend could mistake for it, sees what the
/// endpoint gets, whichever other fields the request has.
#[tokio::test]
async fn conditions_and_endpoints_see_the_same_fields() {
    const NAMES: [&str; 24] = [
        "forwarded",
        "proxy",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-path",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
        "x_forwarded_for",
        "x_forwarded_host",
        "x_forwarded_path",
        "x_forwarded_port",
        "x_forwarded_prefix",
        "x_forwarded_proto",
        "x_real_ip",
        "x_request_id",
        "x-forwarded_for",
        "x.forwarded.for",
        // These are those of the application.
        "x-forwarded",
        "x-forwarded-by",
        "x-real",
        "proxy-canary",
    ];
    let all: String = NAMES.iter().map(|name| format!("{name}: forged\r\n")).collect();
    let (mut seen, mut unseen) = (0, 0);
    for (by_conditions, style) in [false, true].into_iter().flat_map(|order| STYLES.map(|style| (order, style))) {
        for name in NAMES {
            let endpoint = Endpoint::ok().await;
            let conditions = [Some((name, "forged")), None];
            let server = server(Options::default(), routes(&endpoint, by_conditions, style, &conditions)).await;
            for fields in [format!("{name}: forged\r\n"), all.clone()] {
                let found = rule_of(&server, "GET / HTTP/1.1", &format!("host: a.example\r\n{fields}")).await;
                let request = endpoint.log.requests().pop().unwrap().to_ascii_lowercase();
                let is_received = request.contains(&format!("\r\n{name}: forged\r\n"));
                let context = format!("{name}, by conditions: {by_conditions}, {style:?}: {request}");
                assert_eq!(found == "0", is_received, "{context}");
                if is_received { seen += 1 } else { unseen += 1 }
            }
        }
    }
    assert!(seen > 0 && unseen > 0, "{seen} were seen, {unseen} were not");
}

/// It depends on the rule: it is what the rule removes from the path.
#[tokio::test]
async fn conditions_see_the_prefix_that_the_endpoint_gets() {
    const PREFIX: &str = "x-forwarded-prefix";
    let upstream_path = Some(UpstreamPath { strip_matched: true, ..UpstreamPath::default() });
    for by_conditions in [false, true] {
        let endpoint = Endpoint::ok().await;
        let stripping = |number| {
            let options = RuleOptions {
                forwarding_headers: ForwardingHeaderStyle::RealIp,
                upstream_path: upstream_path.clone(),
                ..RuleOptions::default()
            };
            let rule = Arc::into_inner(rule(&endpoint, number, ForwardingHeaderStyle::RealIp)).unwrap();
            Arc::new(RouteRule { options: Some(Box::new(options)), ..rule })
        };
        let routes = if by_conditions {
            let route = |number, paths: &[&str], condition: Option<&str>| {
                let mut route = ConditionRoute::new(tie_breaker(number), stripping(number));
                route.paths = paths.iter().map(|path| PathCondition::prefix(path)).collect();
                let condition = condition.map(|value| {
                    HeaderCondition::parse(HeaderName::from_static(PREFIX), [value], RegexLimit::MEMORY_ONLY).unwrap()
                });
                route.headers = condition.into_iter().collect();
                route
            };
            let routes = vec![route(0, &["/api", "/v1"], Some("/api")), route(1, &["/"], None)];
            Routes::ByConditions(Arc::new(ConditionsRouter::build(RouterFlavor::TraditionalCompatible, routes)))
        } else {
            let route = |number, path: &str, condition: Option<&'static str>| RouteMatch {
                path: PathMatch::Prefix(path.into()),
                method: None,
                headers: condition
                    .map(|value| HeaderMatch {
                        name: HeaderName::from_static(PREFIX),
                        value: ValueMatch::Exact(HeaderValue::from_static(value)),
                    })
                    .into_iter()
                    .collect(),
                query: vec![],
                call: None,
                server_names: Arc::default(),
                tie_breaker: tie_breaker(number),
                rule: stripping(number),
            };
            let matches = vec![route(0, "/api", Some("/api")), route(0, "/v1", Some("/api")), route(1, "", None)];
            Routes::ByHost(HostMap::new([(HostPattern::Any, Arc::new(HostRouter::build(matches)))]))
        };
        let server = server(Options::default(), routes).await;
        for (path, lines, expected) in [
            ("/api/x", "", "0"),
            ("/api/x", "x-forwarded-prefix: /other\r\n", "0"),
            ("/v1/x", "", "1"),
            ("/v1/x", "x-forwarded-prefix: /api\r\n", "1"),
            ("/", "x-forwarded-prefix: /api\r\n", "1"),
        ] {
            let lines = format!("host: a.example\r\n{lines}");
            let found = rule_of(&server, &format!("GET {path} HTTP/1.1"), &lines).await;
            assert_eq!(found, expected, "by conditions: {by_conditions}, {path} {lines}");
            let request = endpoint.log.requests().pop().unwrap();
            assert_eq!(request.contains("\r\nx-forwarded-prefix: /api\r\n"), expected == "0", "{request}");
        }
    }
}

#[tokio::test]
async fn fields_of_the_connection_select_no_rule() {
    for by_conditions in [false, true] {
        let endpoint = Endpoint::ok().await;
        let conditions = [Some(("x-canary", "always")), None];
        let routes = routes(&endpoint, by_conditions, ForwardingHeaderStyle::Forwarded, &conditions);
        let server = server(Options::default(), routes).await;
        let canary = "host: a.example\r\nx-canary: always\r\n";
        assert_eq!(rule_of(&server, "GET / HTTP/1.1", canary).await, "0");
        let named = format!("{canary}connection: X-Canary\r\n");
        assert_eq!(rule_of(&server, "GET / HTTP/1.1", &named).await, "1", "by conditions: {by_conditions}");
    }
}

/// The endpoint gets them from Portico nevertheless.
#[tokio::test]
async fn forwarding_headers_that_the_connection_names_select_rules() {
    for by_conditions in [false, true] {
        let endpoint = Endpoint::ok().await;
        let conditions = [Some(("x-forwarded-proto", "http")), None];
        let routes = routes(&endpoint, by_conditions, ForwardingHeaderStyle::Forwarded, &conditions);
        let server = server(Options::default(), routes).await;
        let named = "host: a.example\r\nconnection: x-forwarded-proto\r\n";
        assert_eq!(rule_of(&server, "GET / HTTP/1.1", named).await, "0", "by conditions: {by_conditions}");
    }
}
