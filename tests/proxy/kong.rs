//! Routes of Ingresses of Kong's class, and HTTPRoutes with Kong's annotations, on the wire: what endpoints receive and
//! clients get.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode};
use portico::bind_address::BindAddress;
use portico::compile::kong::rule_options::{self, PRODUCT_HEADERS, UNMATCHED};
use portico::endpoint_tls::UpstreamProtocol;
use portico::plugin_api::AccessOutcome;
use portico::proxy::{ProductHeaderMode, ProductToken};
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::ingress_routes::{HostOrders, HostRule, IngressRoutes, RouteOrder};
use portico::snapshot::router::by_conditions::{
    ConditionRoute, ConditionsRouter, HostName, PathCondition, RouterFlavor,
};
use portico::snapshot::router::{HostRouter, PathMatch, RouteMatch, TieBreaker};
use portico::snapshot::rule::{Action, Filters, Rewrite, RouteFailure, RouteRule, RuleId};
use portico::snapshot::rule_options::{HttpsRedirect, Protocols, RuleOptions, UpstreamHost};
use portico::snapshot::timeouts_and_retries::{TimeoutSetting, TimeoutsAndRetries};
use portico::snapshot::upstream_path::UpstreamPath;
use portico::snapshot::uri_template::UriTemplate;
use portico::snapshot::{Bind, HttpListener, Routes, Snapshot};

use crate::accounting::scrape;
use crate::h2;
use crate::harness::{
    Endpoint, Options, Route, TestResponse, TestServer, forward, header, reserve_address, route, upstream,
    upstream_with_protocol, with_timeouts_and_retries,
};
use crate::plugins::{ScriptedPlugin, chain};
use crate::tls_harness::{TestTlsConnector, TlsListener, certificate, start_tls_server};

/// A route of an Ingress of Kong's class with one path.
pub(crate) fn ingress_route(path: PathCondition, options: RuleOptions, action: Action) -> ConditionRoute {
    let name: Arc<str> = "Ingress/default/a".into();
    let id = RuleId { route: Arc::clone(&name), rule: path.to_string().into() };
    let rule = RouteRule { id, filters: Filters::default(), plugins: None, action, options: Some(Box::new(options)) };
    let age = TieBreaker { created: None, route: name, rule: 0, index: 0 };
    ConditionRoute { paths: vec![path], ..ConditionRoute::new(age, Arc::new(rule)) }
}

/// The options of an Ingress of Kong's class, with the path of its annotations.
fn with_path(strip_matched: bool, prefix: &str) -> RuleOptions {
    let upstream_path = UpstreamPath { strip_matched, prefix: prefix.into(), template: None };
    RuleOptions { upstream_path: Some(upstream_path), ..rule_options::defaults() }
}

/// A proxy with a listener of Kong's class on port 80 for all hosts.
pub(crate) async fn server(options: Options, routes: Vec<ConditionRoute>) -> TestServer {
    let routes = Routes::ByConditions(Arc::new(ConditionsRouter::build(RouterFlavor::default(), routes)));
    ingress_server(options, routes).await
}

/// A proxy with these routes on the listener of Ingresses.
async fn ingress_server(options: Options, routes: Routes) -> TestServer {
    let (address, reserved) = reserve_address();
    let listener =
        HttpListener { gateway: "ingress".into(), name: "http".into(), port: 80, routes, unmatched: UNMATCHED };
    let bind = Bind::with_http(HostMap::new([(HostPattern::Any, Arc::new(listener))]), None);
    let snapshot = Snapshot { binds: [(BindAddress::tcp(address), Arc::new(bind))].into(), ..Snapshot::default() };
    let server = TestServer::start(options, address, reserved, snapshot);
    server.proxy.reconcile().await;
    server
}

fn forward_to(endpoint: &Endpoint) -> Action {
    forward(vec![(1, upstream("web", &[endpoint.address]))])
}

/// Trusts the forwarding headers of every client.
fn trusting_options() -> Options {
    Options { trusted: vec!["127.0.0.0/8"], ..Options::default() }
}

/// Lines of the last head that the endpoint received, sorted after the first, without the headers in `omitted`.
fn received_head(endpoint: &Endpoint, omitted: &[&str]) -> String {
    let request = endpoint.log.requests().pop().unwrap();
    let head = request.split("\r\n\r\n").next().unwrap();
    let lines = head.lines().filter(|line| {
        let name = line.split(':').next().unwrap();
        !omitted.iter().any(|header| name.eq_ignore_ascii_case(header))
    });
    let mut lines: Vec<_> = lines.collect();
    lines[1..].sort_unstable();
    lines.join("\n")
}

/// Headers of all requests whose values are random, or belong to Portico only.
const OMITTED_HEADERS: &[&str] = &["x-request-id", "x-kong-request-id", "portico-hops"];
/// The header that Portico adds to HTTP/1.1 requests.
const VIA: &str = concat!("via: 1.1 portico/", env!("CARGO_PKG_VERSION"));

// docs/kong-compatibility.md, 3.6
// docs/kong-compatibility.md, 7.23
#[tokio::test]
async fn forwarding_headers_match_kong() {
    let endpoint = Endpoint::ok().await;
    let stripping = with_path(true, "/");
    // (whether the peer is trusted, request, head that the endpoint receives; VIA stands for the Via header, VALUE for
    // its value)
    let cases = [
        (
            false,
            "GET /keep/%7Ea?b HTTP/1.1\r\nhost: A.example:99\r\n\r\n",
            "GET /keep/~a?b HTTP/1.1\nhost: A.example:99\nVIA\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: a.example\n\
             x-forwarded-path: /keep/%7Ea\nx-forwarded-port: 80\nx-forwarded-proto: http\nx-real-ip: 127.0.0.1",
        ),
        // Every peer's X-Forwarded-For is extended. The other forwarding headers of an untrusted peer are replaced.
        (
            false,
            "GET /strip/a HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2\r\n\
             x-forwarded-proto: https\r\nx-forwarded-host: evil\r\nx-forwarded-port: 6\r\nx-forwarded-path: /evil\r\n\
             x-forwarded-prefix: /evil\r\nx-real-ip: 6.6.6.6\r\nx_real_ip: 6.6.6.6\r\nx-forwarded_prefix: /evil\r\n\
             forwarded: for=x\r\nproxy: evil\r\nvia: 1.0 fred, 1.1 p\r\n\r\n",
            "GET /a HTTP/1.1\nhost: a.example\nvia: 1.0 fred, 1.1 p, VALUE\n\
             x-forwarded-for: 1.1.1.1, 2.2.2.2, 127.0.0.1\nx-forwarded-host: a.example\nx-forwarded-path: /strip/a\n\
             x-forwarded-port: 80\nx-forwarded-prefix: /strip\nx-forwarded-proto: http\nx-real-ip: 127.0.0.1",
        ),
        // Without `strip_path`, X-Forwarded-Prefix is removed.
        (
            false,
            "GET /keep HTTP/1.1\r\nhost: a.example\r\nx-forwarded-prefix: /evil\r\n\r\n",
            "GET /keep HTTP/1.1\nhost: a.example\nVIA\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: a.example\n\
             x-forwarded-path: /keep\nx-forwarded-port: 80\nx-forwarded-proto: http\nx-real-ip: 127.0.0.1",
        ),
        // The forwarding headers of a trusted peer are kept.
        (
            true,
            "GET /strip/a HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: 1.1.1.1\r\nx-forwarded-proto: https\r\n\
             x-forwarded-host: b.example\r\nx-forwarded-port: 444\r\nx-forwarded-path: /before\r\n\
             x-forwarded-prefix: /prefix\r\nforwarded: for=1.1.1.1\r\n\r\n",
            "GET /a HTTP/1.1\nforwarded: for=1.1.1.1, for=127.0.0.1\nhost: a.example\nVIA\n\
             x-forwarded-for: 1.1.1.1, 127.0.0.1\n\
             x-forwarded-host: b.example\nx-forwarded-path: /before\nx-forwarded-port: 444\n\
             x-forwarded-prefix: /prefix\nx-forwarded-proto: https\nx-real-ip: 1.1.1.1",
        ),
        // Without X-Forwarded-For, the X-Real-IP of a trusted peer becomes the first entry of X-Forwarded-For.
        (
            true,
            "GET /keep HTTP/1.1\r\nhost: a.example\r\nx-real-ip: 3.3.3.3\r\n\r\n",
            "GET /keep HTTP/1.1\nhost: a.example\nVIA\nx-forwarded-for: 3.3.3.3\nx-forwarded-host: a.example\n\
             x-forwarded-path: /keep\nx-forwarded-port: 80\nx-forwarded-proto: http\nx-real-ip: 3.3.3.3",
        ),
        // Only hop-by-hop headers are removed.
        (
            false,
            "GET /keep HTTP/1.1\r\nhost: a.example\r\nconnection: close, x-hop\r\nx-hop: 1\r\nclose: stays\r\n\
             keep-alive: 1\r\nproxy-connection: 1\r\nproxy-authorization: stays\r\nproxy-authenticate: stays\r\n\
             te: gzip, trailers\r\nx-consumer-username: stays\r\n\r\n",
            "GET /keep HTTP/1.1\nclose: stays\nconnection: TE\nhost: a.example\nproxy-authenticate: stays\nproxy-authorization: stays\n\
             te: trailers\nVIA\nx-consumer-username: stays\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: a.example\n\
             x-forwarded-path: /keep\nx-forwarded-port: 80\nx-forwarded-proto: http\nx-real-ip: 127.0.0.1",
        ),
    ];
    for (trusted, request, expected) in cases {
        let options = if trusted { trusting_options() } else { Options::default() };
        let routes = vec![
            ingress_route(PathCondition::prefix("/keep"), rule_options::defaults(), forward_to(&endpoint)),
            ingress_route(PathCondition::prefix("/strip"), stripping.clone(), forward_to(&endpoint)),
        ];
        let server = server(options, routes).await;
        assert_eq!(server.request(request).await.status, 200, "{request}");
        let expected = expected.replace("VIA", VIA).replace("VALUE", &VIA["via: ".len()..]);
        assert_eq!(received_head(&endpoint, OMITTED_HEADERS), expected, "{request}");
        let head = endpoint.log.requests().pop().unwrap();
        let id = header(&head, "x-kong-request-id").unwrap();
        assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    }
}

// docs/kong-compatibility.md, 3.5
#[tokio::test]
async fn path_and_host_are_rewritten_as_kong_does() {
    let endpoint = Endpoint::ok().await;
    let options = |strip_matched, path: &str, host: Option<&'static str>| RuleOptions {
        host: host.map_or(UpstreamHost::Preserved, |host| UpstreamHost::Fixed(HeaderValue::from_static(host))),
        ..with_path(strip_matched, path)
    };
    let server = server(
        Options::default(),
        vec![
            ingress_route(PathCondition::prefix("/plain"), options(false, "/", None), forward_to(&endpoint)),
            ingress_route(
                PathCondition::prefix("/named"),
                options(false, "/", Some("web.default.80.svc:8080")),
                forward_to(&endpoint),
            ),
            ingress_route(PathCondition::prefix("/strip"), options(true, "/service", None), forward_to(&endpoint)),
            ingress_route(PathCondition::regex(r"/re/\d+").unwrap(), options(true, "/", None), forward_to(&endpoint)),
            ingress_route(PathCondition::exact("/whole"), options(true, "/base/", None), forward_to(&endpoint)),
        ],
    )
    .await;
    // (target, Host of the request, target and Host that the endpoint receives)
    let cases = [
        ("/plain/x?y=1", "a.example:8", "/plain/x?y=1", "a.example:8"),
        ("/plain?", "a.example", "/plain?", "a.example"),
        ("//plain///x/../%7e%2f", "a.example", "/plain/~%2F", "a.example"),
        ("/x/../plain", "a.example", "/plain", "a.example"),
        ("http://b.example/plain/x", "a.example", "/plain/x", "b.example"),
        ("/named/x", "a.example", "/named/x", "web.default.80.svc:8080"),
        ("/strip/x?y", "a.example", "/service/x?y", "a.example"),
        ("/strip", "a.example", "/service", "a.example"),
        ("/strip%2E%2E/x", "a.example", "/service/x", "a.example"),
        ("/re/12/x", "a.example", "/x", "a.example"),
        ("/re/12", "a.example", "/", "a.example"),
        ("/whole", "a.example", "/base", "a.example"),
    ];
    for (target, host, expected, expected_host) in cases {
        let response = server.request(&format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(response.status, 200, "{target}");
        let request = endpoint.log.requests().pop().unwrap();
        assert_eq!(request.split(' ').nth(1), Some(expected), "{target}");
        assert_eq!(header(&request, "host"), Some(expected_host), "{target}");
    }
}

// docs/kong-compatibility.md, 2.2
#[tokio::test]
async fn rewrite_template_replaces_the_path() {
    let endpoint = Endpoint::ok().await;
    let with_template = |template: &str| RuleOptions {
        upstream_path: Some(UpstreamPath {
            strip_matched: true,
            // The template replaces this path of the Service, too.
            prefix: "/base".into(),
            template: Some(UriTemplate::parse(template).unwrap()),
        }),
        ..rule_options::defaults()
    };
    let regex = |pattern| PathCondition::regex(pattern).unwrap();
    let server = server(
        Options::default(),
        vec![
            ingress_route(regex("/users/([^/]+)/(.*)"), with_template("/v2/$2/of/$1"), forward_to(&endpoint)),
            ingress_route(PathCondition::prefix("/fixed"), with_template("/there?from=here"), forward_to(&endpoint)),
            ingress_route(regex("/bad/(.*)"), with_template("$1"), forward_to(&endpoint)),
        ],
    )
    .await;
    let get = async |target: &str| server.request(&format!("GET {target} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
    for (target, expected) in [
        ("/users/ann/cart/1?a=%20b", "/v2/cart/1/of/ann?a=%20b"),
        ("/users/ann/?", "/v2//of/ann?"),
        ("/users/%61nn/x%2Fy", "/v2/x%2Fy/of/ann"),
        ("/fixed/more", "/there?from=here"),
        ("/fixed?to=there", "/there?from=here&to=there"),
    ] {
        assert_eq!(get(target).await.status, 200, "{target}");
        let sent = endpoint.log.requests().pop().unwrap();
        assert_eq!(sent.split(' ').nth(1), Some(expected), "{target}");
    }
    let received_before = endpoint.log.requests().len();
    let response = get("/bad/x").await;
    assert_eq!(response.status, 500);
    assert!(response.text().contains("An unexpected error occurred"), "{}", response.text());
    assert_eq!(endpoint.log.requests().len(), received_before, "an invalid target was sent");
}

/// Plugins see the normalized path of the client's request, and the target after the rewrite; a target that a plugin
/// sets is sent unchanged.
#[tokio::test]
async fn plugins_see_the_matched_path() {
    let endpoint = Endpoint::ok().await;
    let viewing_plugin = |new_target: Option<&'static str>| {
        ScriptedPlugin::access(move |cx| {
            let view = format!("{} {} {}", cx.path, cx.client.host, cx.head.uri);
            cx.head.headers.insert("x-plugin-view", HeaderValue::try_from(view).unwrap());
            if let Some(new_target) = new_target {
                cx.head.uri = new_target.parse().unwrap();
            }
            AccessOutcome::Continue
        })
    };
    let rule = |path, new_target| {
        let host = UpstreamHost::Fixed(HeaderValue::from_static("web"));
        let options = RuleOptions { host, ..with_path(true, "/base") };
        let mut route = ingress_route(PathCondition::prefix(path), options, forward_to(&endpoint));
        let rule = Arc::get_mut(&mut route.rule).unwrap();
        rule.plugins = chain(vec![viewing_plugin(new_target)]);
        route
    };
    let routes =
        vec![rule("/a", None), rule("/query", Some("/base/x?less")), rule("/other", Some("/wholly//different"))];
    let server = server(Options::default(), routes).await;
    for (target, view, sent) in [
        ("//a/x?q", "/a/x a.example:1 /base/x?q", "/base/x?q"),
        ("/query/x?more", "/query/x a.example:1 /base/x?more", "/base/x?less"),
        ("/other/x?q", "/other/x a.example:1 /base/x?q", "/wholly//different"),
    ] {
        let response = server.request(&format!("GET {target} HTTP/1.1\r\nhost: a.example:1\r\n\r\n")).await;
        assert_eq!(response.status, 200);
        let request = endpoint.log.requests().pop().unwrap();
        assert_eq!(header(&request, "x-plugin-view"), Some(view), "{target}");
        assert_eq!(request.split(' ').nth(1), Some(sent), "{target}");
        assert_eq!(header(&request, "host"), Some("web"), "{target}");
    }
}

fn has_number(response: &TestResponse, name: &str) -> bool {
    response.header(name).is_some_and(|value| value.parse::<u64>().is_ok())
}

// docs/kong-compatibility.md, 3.6
#[tokio::test]
async fn response_headers_match_kong() {
    let endpoint = Endpoint::responding_with(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver: web/1\r\nvia: 1.1 inner\r\ntrailer: x\r\nconnection: x-hop\r\n\
         x-hop: 1\r\nkeep-alive: 5\r\nx-kong-proxy-latency: 99999999\r\n\r\nok",
    )
    .await;
    let routes = vec![
        ingress_route(PathCondition::prefix("/web"), rule_options::defaults(), forward_to(&endpoint)),
        ingress_route(PathCondition::prefix("/none"), rule_options::defaults(), Action::Fail(RouteFailure::NoService)),
    ];
    let server = server(Options::default(), routes).await;
    let response = server.request("GET /web HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(response.header("server"), Some("web/1"));
    assert_eq!(response.header("via"), Some(&*format!("1.1 inner, {}", &VIA["via: ".len()..])));
    assert!(has_number(&response, "x-kong-upstream-latency") && has_number(&response, "x-kong-proxy-latency"));
    assert_ne!(response.header("x-kong-proxy-latency"), Some("99999999"));
    assert_eq!(response.header("x-kong-request-id"), response.header("x-request-id"));
    for absent in ["x-kong-response-latency", "trailer", "x-hop", "keep-alive"] {
        assert_eq!(response.header(absent), None, "{absent}");
    }
    let response = server.request("GET /web HTTP/1.1\r\nhost: a.example\r\nte: trailers\r\n\r\n").await;
    assert_eq!(response.header("trailer"), Some("x"));

    // Errors that the proxy generates, with and without a matching route.
    for (path, status, message) in
        [("/none", 503, "no Service found with those values"), ("/else", 404, "no Route matched with those values")]
    {
        let response = server.request(&format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
        assert_eq!(response.status, status);
        assert_eq!(response.header("server"), Some(&VIA["via: 1.1 ".len()..]));
        assert!(has_number(&response, "x-kong-response-latency"));
        let id = response.header("x-kong-request-id").unwrap();
        assert_eq!(response.text(), format!(r#"{{"message":"{message}","request_id":"{id}"}}"#));
        for absent in ["x-kong-upstream-latency", "x-kong-proxy-latency", "via"] {
            assert_eq!(response.header(absent), None, "{path} {absent}");
        }
    }
}

// docs/kong-compatibility.md, 3.4
#[tokio::test]
async fn unavailable_endpoints_get_kong_errors() {
    let (refusing, _reserved) = reserve_address();
    let silent = Endpoint::scripted(|mut stream, _| async move {
        stream.read_to_end().await;
    })
    .await;
    let actions = || {
        let limit = TimeoutSetting::After(Duration::from_millis(20));
        let timeouts = TimeoutsAndRetries { request: limit, ..TimeoutsAndRetries::default() };
        [
            ("/none", forward(vec![(1, upstream("none", &[]))])),
            ("/refused", forward(vec![(1, upstream("refused", &[refusing]))])),
            ("/silent", with_timeouts_and_retries(forward_to(&silent), timeouts)),
        ]
    };
    let ingress_routes =
        actions().map(|(path, action)| ingress_route(PathCondition::prefix(path), rule_options::defaults(), action));
    let gateway_api_routes = actions().map(|(path, action)| Route { path, ..route(action) });
    let servers = [
        server(Options::default(), ingress_routes.into()).await,
        TestServer::with_routes(gateway_api_routes.into()).await,
    ];
    // (index of the server, path, status, message)
    let cases = [
        (0, "/none", 503, "failure to get a peer from the ring-balancer"),
        (0, "/refused", 502, "An invalid response was received from the upstream server"),
        (0, "/silent", 504, "The upstream server is timing out"),
        (1, "/none", 503, "The upstream server is currently unavailable"),
        (1, "/refused", 503, "The upstream server is currently unavailable"),
    ];
    for (server, path, status, message) in cases {
        let response = servers[server].request(&format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
        assert_eq!(response.status, status, "{server} {path}");
        assert!(response.text().contains(message), "{server} {path}: {}", response.text());
        // Kong reports the latency of the endpoint as soon as it has selected one.
        let was_forwarded = status != 503;
        let latencies = ["x-kong-upstream-latency", "x-kong-proxy-latency", "x-kong-response-latency"]
            .map(|name| has_number(&response, name));
        let expected = if server == 0 { [was_forwarded, was_forwarded, !was_forwarded] } else { [false; 3] };
        assert_eq!(latencies, expected, "{server} {path}: {}", response.head);
    }
}

fn with_protocols(names: &[&str], redirect: HttpsRedirect) -> RuleOptions {
    RuleOptions {
        protocols: Protocols::from_names(names.iter().copied()),
        https_redirect: redirect,
        ..rule_options::defaults()
    }
}

// docs/kong-compatibility.md, 3.4
#[tokio::test]
async fn https_only_routes_redirect_or_get_426() {
    let endpoint = Endpoint::ok().await;
    let redirect = |status| HttpsRedirect { status, ..HttpsRedirect::default() };
    let mut routes: Vec<_> = [301, 302, 307, 308, 426]
        .into_iter()
        .map(|status: u16| {
            let redirect = redirect(StatusCode::from_u16(status).unwrap());
            ingress_route(
                PathCondition::prefix(&format!("/{status}")),
                with_protocols(&["https"], redirect),
                forward_to(&endpoint),
            )
        })
        .collect();
    let other_port = HttpsRedirect { status: StatusCode::FOUND, port: 8443, plain_port: Some(8000) };
    routes.push(ingress_route(
        PathCondition::prefix("/port"),
        with_protocols(&["https"], other_port),
        forward_to(&endpoint),
    ));
    let http_and_https = with_protocols(&["http", "https"], HttpsRedirect::default());
    routes.push(ingress_route(PathCondition::prefix("/both"), http_and_https, forward_to(&endpoint)));
    let stripping = RuleOptions {
        upstream_path: with_path(true, "/").upstream_path,
        ..with_protocols(&["https"], redirect(StatusCode::FOUND))
    };
    routes.push(ingress_route(PathCondition::prefix("/strip"), stripping, forward_to(&endpoint)));
    let server_without_trust = server(Options::default(), routes.clone()).await;
    let trusting_server = server(trusting_options(), routes).await;

    // The redirect keeps the target as the client wrote it.
    for (target, status, location) in [
        ("/301/a?b", 301, "https://a.example/301/a?b"),
        ("/302//a/%7E?", 302, "https://a.example/302//a/%7E?"),
        ("/307", 307, "https://a.example/307"),
        ("/308", 308, "https://a.example/308"),
        ("/port", 302, "https://a.example:8443/port"),
        ("/strip/x", 302, "https://a.example/strip/x"),
    ] {
        let response =
            server_without_trust.request(&format!("GET {target} HTTP/1.1\r\nhost: A.example:8000\r\n\r\n")).await;
        assert_eq!((response.status, response.header("location")), (status, Some(location)));
        assert!(response.body.is_empty() && has_number(&response, "x-kong-response-latency"));
    }
    // A client that names no port uses something that maps the ports.
    let response = server_without_trust.request("GET /port HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!((response.status, response.header("location")), (302, Some("https://a.example/port")));
    let response = server_without_trust.request("GET /426 HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(response.status, 426);
    assert_eq!(response.header("connection"), Some("Upgrade"));
    assert_eq!(response.header("upgrade"), Some("TLS/1.2, HTTP/1.1"));
    assert!(response.text().contains("Please use HTTPS protocol"));
    assert_eq!(server_without_trust.request("GET /both HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 200);

    // X-Forwarded-Proto is trusted only from trusted peers.
    let over_https =
        "GET /302 HTTP/1.1\r\nhost: a.example\r\nx-forwarded-proto: https\r\nx-forwarded-host: b.example\r\n\r\n";
    assert_eq!(server_without_trust.request(over_https).await.status, 302);
    assert_eq!(trusting_server.request(over_https).await.status, 200);
    let without_proto = "GET /302 HTTP/1.1\r\nhost: a.example\r\nx-forwarded-host: b.example\r\n\r\n";
    assert_eq!(trusting_server.request(without_proto).await.header("location"), Some("https://b.example/302"));
    // The port that the balancer or the client used for plain text is not the port of HTTPS.
    for (target, host, location) in [
        ("/302", "b.example:8000", "https://b.example/302"),
        ("/port", "B.example:8000", "https://b.example:8443/port"),
        ("/302", "[2001:db8::1]:8000", "https://[2001:db8::1]/302"),
        ("/302", "not a host", "https://a.example/302"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nhost: a.example:8000\r\nx-forwarded-host: {host}\r\n\r\n");
        assert_eq!(trusting_server.request(&request).await.header("location"), Some(location), "{host}");
    }
    assert_eq!(server_without_trust.request(without_proto).await.header("location"), Some("https://a.example/302"));
}

/// A route of the Gateway API with Kong's annotations, on an HTTPS listener.
// docs/kong-compatibility.md, 3.4
#[tokio::test]
async fn https_only_route_accepts_tls() {
    let endpoint = Endpoint::ok().await;
    let options = with_protocols(&["https"], HttpsRedirect::default());
    let routes = vec![Route { options: Some(Box::new(options)), ..route(forward_to(&endpoint)) }];
    let tls_listener = TlsListener { hostname: "a.example", certificates: vec![certificate(&["a.example"])], routes };
    let server = start_tls_server(Options::default(), vec![tls_listener]).await;
    let mut client = TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    assert!(received_head(&endpoint, OMITTED_HEADERS).contains("x-forwarded-proto: https"));
}

// docs/kong-compatibility.md, 3.4
#[tokio::test]
async fn grpc_routes_accept_only_grpc() {
    let endpoint = Endpoint::ok().await;
    let default_redirect = HttpsRedirect::default;
    let routes = vec![
        ingress_route(
            PathCondition::prefix("/grpc"),
            with_protocols(&["grpc", "grpcs"], default_redirect()),
            forward_to(&endpoint),
        ),
        ingress_route(
            PathCondition::prefix("/grpcs"),
            with_protocols(&["grpcs"], default_redirect()),
            forward_to(&endpoint),
        ),
    ];
    let server = server(Options::default(), routes).await;
    let response = server.request("GET /grpc HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(response.status, 415, "the type is examined before the version");
    let request = "POST /grpc HTTP/1.1\r\nhost: a.example\r\ncontent-type: application/grpc\r\n\r\n";
    let response = server.request(request).await;
    assert_eq!((response.status, response.header("upgrade")), (426, Some("HTTP/2")));
    assert_eq!(response.header("connection"), Some("Upgrade"));
    assert_eq!(response.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(response.header("grpc-status"), None);
    assert!(response.text().starts_with("{\"message\":\"Please use HTTP2 protocol\""), "{}", response.text());

    let client = h2::Http2Client::connect(server.address).await;
    let post = |path: &str, content_type: &str| {
        let request = Request::post(format!("http://a.example{path}")).header("content-type", content_type);
        client.request(request.body(()).unwrap())
    };
    let response = post("/grpc", "application/json").await.unwrap();
    assert_eq!(response.status, 415);
    assert!(String::from_utf8_lossy(&response.body).contains("Non-gRPC request matched gRPC route"));
    assert_eq!(post("/grpc", "application/grpc+proto").await.unwrap().status, 200);
    let response = post("/grpcs", "application/grpc").await.unwrap();
    assert_eq!((response.status, &response.headers["grpc-status"]), (200, &HeaderValue::from_static("1")));
    assert_eq!(response.headers["grpc-message"], "gRPC request matched gRPCs route");
    assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"grpcs_only\"}"], 1.0);
    // Only one request was forwarded.
    assert_eq!(endpoint.log.requests().len(), 1);
}

/// RFC 9110, section 9.3.8: TRACE repeats the request, with its cookies and keys.
#[tokio::test]
async fn trace_is_forwarded_only_if_the_route_names_it() {
    let endpoint = Endpoint::ok().await;
    let any_method = ingress_route(PathCondition::prefix("/any"), rule_options::defaults(), forward_to(&endpoint));
    let trace = ingress_route(PathCondition::prefix("/trace"), rule_options::defaults(), forward_to(&endpoint));
    let trace = ConditionRoute { methods: vec![Method::TRACE], ..trace };
    let server = server(Options::default(), vec![any_method, trace]).await;
    let response = server.request("TRACE /any HTTP/1.1\r\nhost: a.example\r\ncookie: secret\r\n\r\n").await;
    assert_eq!(response.status, 405);
    assert_eq!(response.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    assert!(!response.text().contains("secret"), "{}", response.text());
    assert_eq!(endpoint.log.requests().len(), 0);
    assert_eq!(server.request("TRACE /trace HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 200);
    assert!(endpoint.log.requests()[0].starts_with("TRACE /trace HTTP/1.1"));
}

// docs/kong-compatibility.md, 3.8
#[tokio::test]
async fn only_websocket_upgrades_are_forwarded() {
    let endpoint = Endpoint::ok().await;
    let server = server(
        Options::default(),
        vec![ingress_route(PathCondition::prefix("/"), rule_options::defaults(), forward_to(&endpoint))],
    )
    .await;
    for (connection, protocol, is_forwarded) in [
        ("keep-alive, upgrade", "websocket", true),
        ("Upgrade", "WebSocket", true),
        ("upgrade", "other/1", false),
        ("keep-alive", "websocket", false),
    ] {
        let fields = format!("connection: {connection}\r\nupgrade: {protocol}\r\n");
        server.request(&format!("GET / HTTP/1.1\r\nhost: a.example\r\n{fields}\r\n")).await;
        let request = endpoint.log.requests().pop().unwrap();
        assert_eq!(header(&request, "upgrade"), is_forwarded.then_some(protocol), "{connection} {protocol}");
    }
}

/// With the mode `ByRule`, routes of the Gateway API get Kong's headers only if they have Kong's annotations.
// docs/kong-compatibility.md, 3.6
#[tokio::test]
async fn product_headers_follow_annotations_and_flag() {
    let endpoint = Endpoint::ok().await;
    let request = "GET //a HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: 1.1.1.1\r\n\r\n";
    let options = |product_headers| Options { product_headers, ..Options::default() };
    for (mode, without_annotations, with_annotations) in [
        (ProductHeaderMode::ByRule, false, true),
        (ProductHeaderMode::Always(&PRODUCT_HEADERS), true, true),
        (ProductHeaderMode::Never, false, false),
    ] {
        for (rule_options, expected) in
            [(None, without_annotations), (Some(Box::new(rule_options::defaults())), with_annotations)]
        {
            let has_annotations = rule_options.is_some();
            let what = format!("{mode:?} {has_annotations}");
            let server = TestServer::with_options(
                options(mode),
                vec![Route { options: rule_options, ..route(forward_to(&endpoint)) }],
            )
            .await;
            let response = server.request(request).await;
            for name in ["via", "x-kong-request-id", "x-kong-upstream-latency", "x-kong-proxy-latency"] {
                assert_eq!(response.header(name).is_some(), expected, "{what} {name}");
            }
            let received = endpoint.log.requests().pop().unwrap();
            let via = if expected { &VIA["via: ".len()..] } else { "1.1 portico" };
            assert_eq!(header(&received, "via"), Some(via), "{what}");
            assert_eq!(header(&received, "x-kong-request-id").is_some(), expected, "{what}");
            // Forwarding headers do not depend on the flag.
            let forwarded_for = if has_annotations { "1.1.1.1, 127.0.0.1" } else { "127.0.0.1" };
            assert_eq!(header(&received, "x-forwarded-for"), Some(forwarded_for), "{what}");
            assert_eq!(header(&received, "x-real-ip").is_some(), has_annotations, "{what}");
            // Slashes are not merged: only listeners of Kong's class do so.
            assert_eq!(received.split(' ').nth(1), Some("//a"), "{what}");
        }
    }
}

// docs/kong-compatibility.md, 3.6
#[tokio::test]
async fn product_name_can_be_changed() {
    let endpoint = Endpoint::ok().await;
    let options = Options { product: ProductToken::new("kong/3.9.1").unwrap(), ..Options::default() };
    let server = server(
        options,
        vec![ingress_route(PathCondition::prefix("/web"), rule_options::defaults(), forward_to(&endpoint))],
    )
    .await;
    assert_eq!(server.request("GET /web HTTP/1.1\r\nhost: a\r\n\r\n").await.header("via"), Some("1.1 kong/3.9.1"));
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.header("server"), Some("kong/3.9.1"));
    let client = h2::Http2Client::connect(server.address).await;
    assert_eq!(client.get("/web").await.status, 200);
    assert_eq!(header(&endpoint.log.requests().pop().unwrap(), "via"), Some("2 kong/3.9.1"));
}

// docs/kong-compatibility.md, 3.3
#[tokio::test]
async fn kong_annotations_apply_to_http_routes() {
    let endpoint = Endpoint::ok().await;
    // (path of the rule, path of the Service, target, what the endpoint receives)
    let cases = [
        ("/a", "/", "/a/b?c", "/b?c"),
        ("/a", "/", "/a", "/"),
        ("/a", "/", "/a/", "/"),
        ("/a", "/base", "/a/b", "/base/b"),
        ("/a", "/base", "/a/", "/base/"),
        ("/", "/base/", "/a/b", "/base/a/b"),
    ];
    for (path, service_path, target, expected) in cases {
        let options = with_path(true, service_path);
        let server = TestServer::with_routes(vec![Route {
            path,
            options: Some(Box::new(options)),
            ..route(forward_to(&endpoint))
        }])
        .await;
        assert_eq!(server.request(&format!("GET {target} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await.status, 200);
        let request = endpoint.log.requests().pop().unwrap();
        assert_eq!(request.split(' ').nth(1), Some(expected), "{path} {service_path} {target}");
        assert_eq!(
            header(&request, "x-forwarded-prefix"),
            (path != "/").then_some(path),
            "{path} {service_path} {target}"
        );
    }
}

/// A filter of the Gateway API applies to the matched path and overrides annotations.
#[tokio::test]
async fn filters_override_annotations() {
    let endpoint = Endpoint::ok().await;
    let path = portico::snapshot::path_edit::PathEdit::prefix("/a", "/z");
    let rewrite = Rewrite { host: Some(HeaderValue::from_static("filter")), path: Some(path) };
    let filters = Filters { rewrite: Some(rewrite), ..Filters::default() };
    let host = UpstreamHost::Fixed(HeaderValue::from_static("annotation"));
    let options = RuleOptions { host, ..with_path(true, "/base") };
    let action = forward(vec![(1, upstream_with_protocol(UpstreamProtocol::Http1, "web", &[endpoint.address]))]);
    let server =
        TestServer::with_routes(vec![Route { path: "/a", filters, options: Some(Box::new(options)), ..route(action) }])
            .await;
    assert_eq!(server.request("GET /a/b HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 200);
    let request = endpoint.log.requests().pop().unwrap();
    assert_eq!((request.split(' ').nth(1), header(&request, "host")), (Some("/z/b"), Some("filter")));
}

// docs/kong-compatibility.md, 3.9
#[tokio::test]
async fn unmatched_calls_get_the_grpc_status_of_kong() {
    let server = server(Options::default(), vec![]).await;
    let client = h2::Http2Client::connect(server.address).await;
    let mut request = h2::post_request("/a.B/C");
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    assert_eq!(client.request(request).await.unwrap().headers["grpc-status"], "5");
}

/// Ingresses of both dialects share a listener, and each keeps the statuses of its dialect.
// docs/kong-compatibility.md, 3.9
#[tokio::test]
async fn calls_to_ingresses_of_another_dialect_get_the_grpc_status_of_the_gateway_api() {
    let fail = || Action::Fail(RouteFailure::InvalidBackend);
    let kong = ingress_route(PathCondition::prefix("/invalid"), rule_options::of_ingress(), fail());
    let name: Arc<str> = "Ingress/default/kubernetes".into();
    let id = RuleId { route: Arc::clone(&name), rule: "0".into() };
    let rule = RouteRule { id, filters: Filters::default(), plugins: None, action: fail(), options: None };
    let kubernetes = RouteMatch {
        path: PathMatch::Prefix("/invalid".into()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
        call: None,
        server_names: Arc::default(),
        tie_breaker: TieBreaker { created: None, route: name, rule: 0, index: 0 },
        rule: Arc::new(rule),
    };
    let host = HostPattern::parse(Some("kubernetes.example"));
    let mut orders = HostOrders::default();
    orders.set(None, &[HostRule { port: None, order: RouteOrder::ByConditions }]);
    let named = Some(HostName::Exact("kubernetes.example".into()));
    orders.set(named, &[HostRule { port: None, order: RouteOrder::ByHost }]);
    let routes = IngressRoutes {
        by_host: HostMap::new([(host, Arc::new(HostRouter::build(vec![kubernetes])))]),
        by_conditions: Arc::new(ConditionsRouter::build(RouterFlavor::default(), vec![kong])),
        orders,
        default_backend: None,
        ..IngressRoutes::default()
    };
    let server = ingress_server(Options::default(), Routes::Ingresses(Arc::new(routes))).await;
    let client = h2::Http2Client::connect(server.address).await;
    for (host, path, status) in [
        ("kong.example", "/invalid/a.B/C", "13"),
        ("kong.example", "/other", "5"),
        ("kubernetes.example", "/invalid/a.B/C", "14"),
        ("kubernetes.example", "/other", "12"),
    ] {
        let request = Request::post(format!("http://{host}{path}")).header("content-type", "application/grpc");
        let response = client.request(request.body(()).unwrap()).await.unwrap();
        assert_eq!(response.headers["grpc-status"], status, "{host}{path}");
    }
}
