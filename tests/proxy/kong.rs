//! Kong-class routes on the wire: what endpoints and clients see of them.

use std::sync::Arc;

use http::{HeaderValue, Request, StatusCode};
use portico::plugin::Outcome;
use portico::plugin::chain::Protocols;
use portico::proxy::{KongHeaders, Product};
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::kong::{self, Flavor, HttpsRedirect, Manner, Path, Router, Source, ToHost, UriTemplate};
use portico::snapshot::router::Age;
use portico::snapshot::rule::{Action, Failure, Filters, Rewrite, Rule, RuleId};
use portico::snapshot::{Bind, Listener, Routes, Snapshot};
use portico::upstream::Protocol;

use crate::books::scrape;
use crate::h2;
use crate::harness::{Answer, Endpoint, Gate, Options, Route, forward, header, reserve, route, upstream, upstream_of};
use crate::plugins::{Script, chain};
use crate::secure::{Caller, Secure, certificate, open};

/// Of an Ingress of Kong's class, by one path.
fn ingress(path: Path, manner: Manner, action: Action) -> kong::Route {
    let name: Arc<str> = "Ingress/default/a".into();
    let id = RuleId { route: Arc::clone(&name), rule: path.to_string().into() };
    let rule = Rule { id, filters: Filters::default(), plugins: None, action, kong: Some(Box::new(manner)) };
    let age = Age { created: None, route: name, rule: 0, index: 0 };
    kong::Route { paths: vec![path], ..kong::Route::new(Source::Ingress, age, Arc::new(rule)) }
}

/// The only listener takes every host and says its port is 80.
async fn gate(options: Options, routes: Vec<kong::Route>) -> Gate {
    let (address, reserved) = reserve();
    let routes = Routes::Kong(Arc::new(Router::build(Flavor::default(), routes)));
    let listener = Listener { gateway: "ingress".into(), name: "http".into(), port: 80, routes };
    let bind = Bind { listeners: HostMap::new([(HostPattern::Any, Arc::new(listener))]), tls: None };
    let snapshot = Snapshot { binds: [(address, Arc::new(bind))].into(), ..Snapshot::default() };
    let gate = Gate::start(options, address, reserved, snapshot);
    gate.proxy.reconcile().await;
    gate
}

fn web(endpoint: &Endpoint) -> Action {
    forward(vec![(1, upstream("web", &[endpoint.address]))])
}

fn trusting() -> Options {
    Options { trusted: vec!["127.0.0.0/8"], ..Options::default() }
}

/// Lines of the last head that the endpoint saw, sorted and in lower case but for values, without those of this name.
fn seen(endpoint: &Endpoint, without: &[&str]) -> String {
    let request = endpoint.log.requests().pop().unwrap();
    let head = request.split("\r\n\r\n").next().unwrap();
    let lines = head.lines().filter(|line| {
        let name = line.split(':').next().unwrap();
        !without.iter().any(|other| name.eq_ignore_ascii_case(other))
    });
    let mut lines: Vec<_> = lines.collect();
    lines[1..].sort_unstable();
    lines.join("\n")
}

const IDS: &[&str] = &["x-request-id", "x-kong-request-id"];
const VIA: &str = concat!("via: 1.1 portico/", env!("CARGO_PKG_VERSION"));

// kong-compat §3.6
// kong-compat §7.23
#[tokio::test]
async fn what_the_endpoint_is_told() {
    let endpoint = Endpoint::ok().await;
    let strips = Manner { strip_path: true, ..Manner::default() };
    // (trusted, request, what the endpoint sees)
    let cases = [
        (
            false,
            "GET /keep/%7Ea?b HTTP/1.1\r\nhost: A.example:99\r\n\r\n",
            "GET /keep/~a?b HTTP/1.1\nhost: A.example:99\nVIA\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: a.example\n\
             x-forwarded-path: /keep/%7Ea\nx-forwarded-port: 80\nx-forwarded-proto: http\nx-real-ip: 127.0.0.1",
        ),
        // X-Forwarded-For grows, trusted or not. Of the others nobody is believed.
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
        // Not stripped, so nobody says so.
        (
            false,
            "GET /keep HTTP/1.1\r\nhost: a.example\r\nx-forwarded-prefix: /evil\r\n\r\n",
            "GET /keep HTTP/1.1\nhost: a.example\nVIA\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: a.example\n\
             x-forwarded-path: /keep\nx-forwarded-port: 80\nx-forwarded-proto: http\nx-real-ip: 127.0.0.1",
        ),
        // A trusted peer is believed.
        (
            true,
            "GET /strip/a HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: 1.1.1.1\r\nx-forwarded-proto: https\r\n\
             x-forwarded-host: b.example\r\nx-forwarded-port: 444\r\nx-forwarded-path: /before\r\n\
             x-forwarded-prefix: /prefix\r\n\r\n",
            "GET /a HTTP/1.1\nhost: a.example\nVIA\nx-forwarded-for: 1.1.1.1, 127.0.0.1\n\
             x-forwarded-host: b.example\nx-forwarded-path: /before\nx-forwarded-port: 444\n\
             x-forwarded-prefix: /prefix\nx-forwarded-proto: https\nx-real-ip: 1.1.1.1",
        ),
        // Without a list, the list begins with whom it names.
        (
            true,
            "GET /keep HTTP/1.1\r\nhost: a.example\r\nx-real-ip: 3.3.3.3\r\n\r\n",
            "GET /keep HTTP/1.1\nhost: a.example\nVIA\nx-forwarded-for: 3.3.3.3\nx-forwarded-host: a.example\n\
             x-forwarded-path: /keep\nx-forwarded-port: 80\nx-forwarded-proto: http\nx-real-ip: 3.3.3.3",
        ),
        // What belongs to one connection ends here, and the rest does not.
        (
            false,
            "GET /keep HTTP/1.1\r\nhost: a.example\r\nconnection: close, x-hop\r\nx-hop: 1\r\nclose: stays\r\n\
             keep-alive: 1\r\nproxy-connection: 1\r\nproxy-authorization: stays\r\nproxy-authenticate: stays\r\n\
             te: gzip, trailers\r\nx-consumer-username: stays\r\n\r\n",
            "GET /keep HTTP/1.1\nclose: stays\nhost: a.example\nproxy-authenticate: stays\nproxy-authorization: stays\n\
             te: trailers\nVIA\nx-consumer-username: stays\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: a.example\n\
             x-forwarded-path: /keep\nx-forwarded-port: 80\nx-forwarded-proto: http\nx-real-ip: 127.0.0.1",
        ),
    ];
    for (trusted, request, expected) in cases {
        let options = if trusted { trusting() } else { Options::default() };
        let routes = vec![
            ingress(Path::prefix("/keep"), Manner::default(), web(&endpoint)),
            ingress(Path::prefix("/strip"), strips.clone(), web(&endpoint)),
        ];
        let gate = gate(options, routes).await;
        assert_eq!(gate.ask(request).await.status, 200, "{request}");
        let expected = expected.replace("VIA", VIA).replace("VALUE", &VIA["via: ".len()..]);
        assert_eq!(seen(&endpoint, IDS), expected, "{request}");
        let head = endpoint.log.requests().pop().unwrap();
        let id = header(&head, "x-kong-request-id").unwrap();
        assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    }
}

// kong-compat §3.5
#[tokio::test]
async fn paths_and_hosts_on_their_way_to_the_endpoint() {
    let endpoint = Endpoint::ok().await;
    let manner = |strip_path, path: &str, host: Option<&'static str>| Manner {
        strip_path,
        path: path.into(),
        host: host.map_or(ToHost::Preserved, |host| ToHost::Named(HeaderValue::from_static(host))),
        ..Manner::default()
    };
    let gate = gate(
        Options::default(),
        vec![
            ingress(Path::prefix("/plain"), manner(false, "/", None), web(&endpoint)),
            ingress(Path::prefix("/named"), manner(false, "/", Some("web.default.80.svc:8080")), web(&endpoint)),
            ingress(Path::prefix("/strip"), manner(true, "/service", None), web(&endpoint)),
            ingress(Path::regex(r"/re/\d+").unwrap(), manner(true, "/", None), web(&endpoint)),
            ingress(Path::exact("/whole"), manner(true, "/base/", None), web(&endpoint)),
        ],
    )
    .await;
    // (target, Host of the request, target and Host that the endpoint sees)
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
        let answer = gate.ask(&format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(answer.status, 200, "{target}");
        let request = endpoint.log.requests().pop().unwrap();
        assert_eq!(request.split(' ').nth(1), Some(expected), "{target}");
        assert_eq!(header(&request, "host"), Some(expected_host), "{target}");
    }
}

// kong-compat §2.2
#[tokio::test]
async fn a_template_takes_the_place_of_the_path() {
    let endpoint = Endpoint::ok().await;
    let rewrites = |template: &str| Manner {
        strip_path: true,
        // It takes the place of the service's path as well.
        path: "/base".into(),
        rewrite: Some(UriTemplate::parse(template).unwrap()),
        ..Manner::default()
    };
    let regex = |pattern| Path::regex(pattern).unwrap();
    let gate = gate(
        Options::default(),
        vec![
            ingress(regex("/users/([^/]+)/(.*)"), rewrites("/v2/$2/of/$1"), web(&endpoint)),
            ingress(Path::prefix("/fixed"), rewrites("/there?from=here"), web(&endpoint)),
            ingress(regex("/bad/(.*)"), rewrites("$1"), web(&endpoint)),
        ],
    )
    .await;
    let ask = async |target: &str| gate.ask(&format!("GET {target} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
    for (target, expected) in [
        ("/users/ann/cart/1?a=%20b", "/v2/cart/1/of/ann?a=%20b"),
        ("/users/ann/?", "/v2//of/ann?"),
        ("/users/%61nn/x%2Fy", "/v2/x%2Fy/of/ann"),
        ("/fixed/more", "/there?from=here"),
        ("/fixed?to=there", "/there?from=here&to=there"),
    ] {
        assert_eq!(ask(target).await.status, 200, "{target}");
        let sent = endpoint.log.requests().pop().unwrap();
        assert_eq!(sent.split(' ').nth(1), Some(expected), "{target}");
    }
    let before = endpoint.log.requests().len();
    let answer = ask("/bad/x").await;
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("An unexpected error occurred"), "{}", answer.text());
    assert_eq!(endpoint.log.requests().len(), before, "nothing is sent");
}

/// What a plugin writes is what counts; what it is told is what the client wrote.
#[tokio::test]
async fn plugins_see_the_path_that_was_matched() {
    let endpoint = Endpoint::ok().await;
    let script = |change: Option<&'static str>| {
        Script::access(move |cx| {
            let told = format!("{} {} {}", cx.path, cx.client.host, cx.head.uri);
            cx.head.headers.insert("x-told", HeaderValue::try_from(told).unwrap());
            if let Some(change) = change {
                cx.head.uri = change.parse().unwrap();
            }
            Outcome::Next
        })
    };
    let rule = |path, change| {
        let host = ToHost::Named(HeaderValue::from_static("web"));
        let manner = Manner { strip_path: true, path: "/base".into(), host, ..Manner::default() };
        let mut route = ingress(Path::prefix(path), manner, web(&endpoint));
        let rule = Arc::get_mut(&mut route.rule).unwrap();
        rule.plugins = chain(vec![script(change)]);
        route
    };
    let routes =
        vec![rule("/a", None), rule("/query", Some("/base/x?less")), rule("/other", Some("/wholly//different"))];
    let gate = gate(Options::default(), routes).await;
    for (target, told, sent) in [
        ("//a/x?q", "/a/x a.example:1 /base/x?q", "/base/x?q"),
        ("/query/x?more", "/query/x a.example:1 /base/x?more", "/base/x?less"),
        ("/other/x?q", "/other/x a.example:1 /base/x?q", "/wholly//different"),
    ] {
        let answer = gate.ask(&format!("GET {target} HTTP/1.1\r\nhost: a.example:1\r\n\r\n")).await;
        assert_eq!(answer.status, 200);
        let request = endpoint.log.requests().pop().unwrap();
        assert_eq!(header(&request, "x-told"), Some(told), "{target}");
        assert_eq!(request.split(' ').nth(1), Some(sent), "{target}");
        assert_eq!(header(&request, "host"), Some("web"), "{target}");
    }
}

fn is_number(answer: &Answer, name: &str) -> bool {
    answer.header(name).is_some_and(|value| value.parse::<u64>().is_ok())
}

// kong-compat §3.6
#[tokio::test]
async fn what_the_client_is_told() {
    let endpoint = Endpoint::answering(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver: web/1\r\nvia: 1.1 inner\r\ntrailer: x\r\nconnection: x-hop\r\n\
         x-hop: 1\r\nkeep-alive: 5\r\nx-kong-proxy-latency: 99999999\r\n\r\nok",
    )
    .await;
    let routes = vec![
        ingress(Path::prefix("/web"), Manner::default(), web(&endpoint)),
        ingress(Path::prefix("/none"), Manner::default(), Action::Fail(Failure::NoService)),
    ];
    let gate = gate(Options::default(), routes).await;
    let answer = gate.ask("GET /web HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(answer.header("server"), Some("web/1"));
    assert_eq!(answer.header("via"), Some(&*format!("1.1 inner, {}", &VIA["via: ".len()..])));
    assert!(is_number(&answer, "x-kong-upstream-latency") && is_number(&answer, "x-kong-proxy-latency"));
    assert_ne!(answer.header("x-kong-proxy-latency"), Some("99999999"));
    assert_eq!(answer.header("x-kong-request-id"), answer.header("x-request-id"));
    for absent in ["x-kong-response-latency", "trailer", "x-hop", "keep-alive"] {
        assert_eq!(answer.header(absent), None, "{absent}");
    }
    let answer = gate.ask("GET /web HTTP/1.1\r\nhost: a.example\r\nte: trailers\r\n\r\n").await;
    assert_eq!(answer.header("trailer"), Some("x"));

    // Of our own, with and without a route.
    for (path, status, message) in
        [("/none", 503, "no Service found with those values"), ("/else", 404, "no Route matched with those values")]
    {
        let answer = gate.ask(&format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("server"), Some(&VIA["via: 1.1 ".len()..]));
        assert!(is_number(&answer, "x-kong-response-latency"));
        let id = answer.header("x-kong-request-id").unwrap();
        assert_eq!(answer.text(), format!(r#"{{"message":"{message}","request_id":"{id}"}}"#));
        for absent in ["x-kong-upstream-latency", "x-kong-proxy-latency", "via"] {
            assert_eq!(answer.header(absent), None, "{path} {absent}");
        }
    }
}

// kong-compat §3.4
#[tokio::test]
async fn endpoints_that_are_not_there() {
    let (refused, _reserved) = reserve();
    let actions = || {
        [
            ("/none", forward(vec![(1, upstream("none", &[]))])),
            ("/refused", forward(vec![(1, upstream("refused", &[refused]))])),
        ]
    };
    let manner = Manner::default;
    let ingress = actions().map(|(path, action)| ingress(Path::prefix(path), manner(), action));
    let plain = actions().map(|(path, action)| Route { path, ..route(action) });
    let gates = [gate(Options::default(), ingress.into()).await, Gate::open(plain.into()).await];
    let cases = [
        (0, "/none", 503, "failure to get a peer from the ring-balancer"),
        (0, "/refused", 502, "An invalid response was received from the upstream server"),
        (1, "/none", 503, "The upstream server is currently unavailable"),
        (1, "/refused", 503, "The upstream server is currently unavailable"),
    ];
    for (gate, path, status, message) in cases {
        let answer = gates[gate].ask(&format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
        assert_eq!(answer.status, status, "{gate} {path}");
        assert!(answer.text().contains(message), "{gate} {path}: {}", answer.text());
    }
}

fn speaking(names: &[&str], redirect: HttpsRedirect) -> Manner {
    Manner { protocols: Protocols::of(names.iter().copied()), https_redirect: redirect, ..Manner::default() }
}

// kong-compat §3.4
#[tokio::test]
async fn plain_text_where_tls_is_asked_for() {
    let endpoint = Endpoint::ok().await;
    let redirect = |status| HttpsRedirect { status, port: 443 };
    let mut routes: Vec<_> = [301, 302, 307, 308, 426]
        .into_iter()
        .map(|status: u16| {
            let redirect = redirect(StatusCode::from_u16(status).unwrap());
            ingress(Path::prefix(&format!("/{status}")), speaking(&["https"], redirect), web(&endpoint))
        })
        .collect();
    let elsewhere = HttpsRedirect { status: StatusCode::FOUND, port: 8443 };
    routes.push(ingress(Path::prefix("/port"), speaking(&["https"], elsewhere), web(&endpoint)));
    let both = speaking(&["http", "https"], HttpsRedirect::default());
    routes.push(ingress(Path::prefix("/both"), both, web(&endpoint)));
    let strip = Manner { strip_path: true, ..speaking(&["https"], redirect(StatusCode::FOUND)) };
    routes.push(ingress(Path::prefix("/strip"), strip, web(&endpoint)));
    let plain = gate(Options::default(), routes.clone()).await;
    let trusting = gate(trusting(), routes).await;

    // The target goes back as the client wrote it.
    for (target, status, location) in [
        ("/301/a?b", 301, "https://a.example/301/a?b"),
        ("/302//a/%7E?", 302, "https://a.example/302//a/%7E?"),
        ("/307", 307, "https://a.example/307"),
        ("/308", 308, "https://a.example/308"),
        ("/port", 302, "https://a.example:8443/port"),
        ("/strip/x", 302, "https://a.example/strip/x"),
    ] {
        let answer = plain.ask(&format!("GET {target} HTTP/1.1\r\nhost: A.example:8000\r\n\r\n")).await;
        assert_eq!((answer.status, answer.header("location")), (status, Some(location)));
        assert!(answer.body.is_empty() && is_number(&answer, "x-kong-response-latency"));
    }
    let answer = plain.ask("GET /426 HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(answer.status, 426);
    assert_eq!(answer.header("connection"), Some("Upgrade"));
    assert_eq!(answer.header("upgrade"), Some("TLS/1.2, HTTP/1.1"));
    assert!(answer.text().contains("Please use HTTPS protocol"));
    assert_eq!(plain.ask("GET /both HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 200);

    // Whom we trust may have spoken TLS for us, and nobody else.
    let secure =
        "GET /302 HTTP/1.1\r\nhost: a.example\r\nx-forwarded-proto: https\r\nx-forwarded-host: b.example\r\n\r\n";
    assert_eq!(plain.ask(secure).await.status, 302);
    assert_eq!(trusting.ask(secure).await.status, 200);
    let told = "GET /302 HTTP/1.1\r\nhost: a.example\r\nx-forwarded-host: b.example\r\n\r\n";
    assert_eq!(trusting.ask(told).await.header("location"), Some("https://b.example/302"));
    assert_eq!(plain.ask(told).await.header("location"), Some("https://a.example/302"));
}

/// A route of the Gateway API with annotations of Kong's, over TLS.
// kong-compat §3.4
#[tokio::test]
async fn tls_is_what_was_asked_for() {
    let endpoint = Endpoint::ok().await;
    let manner = speaking(&["https"], HttpsRedirect::default());
    let routes = vec![Route { kong: Some(Box::new(manner)), ..route(web(&endpoint)) }];
    let secure = Secure { hostname: "a.example", certificates: vec![certificate(&["a.example"])], routes };
    let gate = open(Options::default(), vec![secure]).await;
    let mut client = Caller::new().connect(&gate, "a.example").await.unwrap();
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(client.answer(false).await.status, 200);
    assert!(seen(&endpoint, IDS).contains("x-forwarded-proto: https"));
}

// kong-compat §3.4
#[tokio::test]
async fn grpc_and_what_is_none() {
    let endpoint = Endpoint::ok().await;
    let usual = HttpsRedirect::default;
    let routes = vec![
        ingress(Path::prefix("/grpc"), speaking(&["grpc", "grpcs"], usual()), web(&endpoint)),
        ingress(Path::prefix("/grpcs"), speaking(&["grpcs"], usual()), web(&endpoint)),
    ];
    let gate = gate(Options::default(), routes).await;
    let answer = gate.ask("GET /grpc HTTP/1.1\r\nhost: a.example\r\ncontent-type: text/plain\r\n\r\n").await;
    assert_eq!((answer.status, answer.header("upgrade")), (426, Some("HTTP/2")));
    assert_eq!(answer.header("connection"), Some("Upgrade"));
    assert!(answer.text().contains("Please use HTTP2 protocol"));

    let client = h2::Client::connect(gate.address).await;
    let ask = |path: &str, content_type: &str| {
        let request = Request::post(format!("http://a.example{path}")).header("content-type", content_type);
        client.ask(request.body(()).unwrap())
    };
    let answer = ask("/grpc", "application/json").await.unwrap();
    assert_eq!(answer.status, 415);
    assert!(String::from_utf8_lossy(&answer.body).contains("Non-gRPC request matched gRPC route"));
    assert_eq!(ask("/grpc", "application/grpc+proto").await.unwrap().status, 200);
    let answer = ask("/grpcs", "application/grpc").await.unwrap();
    assert_eq!((answer.status, &answer.headers["grpc-status"]), (200, &HeaderValue::from_static("1")));
    assert_eq!(answer.headers["grpc-message"], "gRPC request matched gRPCs route");
    assert_eq!(scrape(&gate)["portico_faults_total{reason=\"grpcs_only\"}"], 1.0);
    // Only one got through.
    assert_eq!(endpoint.log.requests().len(), 1);
}

// kong-compat §3.8
#[tokio::test]
async fn only_websocket_is_upgraded_to() {
    let endpoint = Endpoint::ok().await;
    let gate = gate(Options::default(), vec![ingress(Path::prefix("/"), Manner::default(), web(&endpoint))]).await;
    for (connection, protocol, passed) in [
        ("keep-alive, upgrade", "websocket", true),
        ("Upgrade", "WebSocket", true),
        ("upgrade", "other/1", false),
        ("keep-alive", "websocket", false),
    ] {
        let fields = format!("connection: {connection}\r\nupgrade: {protocol}\r\n");
        gate.ask(&format!("GET / HTTP/1.1\r\nhost: a.example\r\n{fields}\r\n")).await;
        let request = endpoint.log.requests().pop().unwrap();
        assert_eq!(header(&request, "upgrade"), passed.then_some(protocol), "{connection} {protocol}");
    }
}

/// Gateway API routes are as they always were, unless they have something of Kong's or headers are wanted of all.
// kong-compat §3.6
#[tokio::test]
async fn who_gets_the_headers() {
    let endpoint = Endpoint::ok().await;
    let request = "GET //a HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: 1.1.1.1\r\n\r\n";
    let with = |kong_headers| Options { kong_headers, ..Options::default() };
    for (when, plain, class) in
        [(KongHeaders::Auto, false, true), (KongHeaders::On, true, true), (KongHeaders::Off, false, false)]
    {
        for (manner, expected) in [(None, plain), (Some(Box::new(Manner::default())), class)] {
            let is_class = manner.is_some();
            let what = format!("{when:?} {is_class}");
            let gate = Gate::with(with(when), vec![Route { kong: manner, ..route(web(&endpoint)) }]).await;
            let answer = gate.ask(request).await;
            for name in ["via", "x-kong-request-id", "x-kong-upstream-latency", "x-kong-proxy-latency"] {
                assert_eq!(answer.header(name).is_some(), expected, "{what} {name}");
            }
            let seen = endpoint.log.requests().pop().unwrap();
            assert_eq!(header(&seen, "via").is_some(), expected, "{what}");
            assert_eq!(header(&seen, "x-kong-request-id").is_some(), expected, "{what}");
            // What the endpoint is told does not depend on that.
            let list = if is_class { "1.1.1.1, 127.0.0.1" } else { "127.0.0.1" };
            assert_eq!(header(&seen, "x-forwarded-for"), Some(list), "{what}");
            assert_eq!(header(&seen, "x-real-ip").is_some(), is_class, "{what}");
            // Slashes are merged where all routes are Kong's, and here they are not.
            assert_eq!(seen.split(' ').nth(1), Some("//a"), "{what}");
        }
    }
}

// kong-compat §3.6
#[tokio::test]
async fn the_product_can_be_another() {
    let endpoint = Endpoint::ok().await;
    let options = Options { product: Product::new("kong/3.9.1").unwrap(), ..Options::default() };
    let gate = gate(options, vec![ingress(Path::prefix("/web"), Manner::default(), web(&endpoint))]).await;
    assert_eq!(gate.ask("GET /web HTTP/1.1\r\nhost: a\r\n\r\n").await.header("via"), Some("1.1 kong/3.9.1"));
    assert_eq!(gate.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.header("server"), Some("kong/3.9.1"));
    let client = h2::Client::connect(gate.address).await;
    assert_eq!(client.get("/web").await.status, 200);
    assert_eq!(header(&endpoint.log.requests().pop().unwrap(), "via"), Some("2 kong/3.9.1"));
}

// kong-compat §3.3
#[tokio::test]
async fn annotations_on_routes_of_the_gateway_api() {
    let endpoint = Endpoint::ok().await;
    // (path of the rule, path of the Service, target, what the endpoint sees)
    let cases = [
        ("/a", "/", "/a/b?c", "/b?c"),
        ("/a", "/", "/a", "/"),
        ("/a", "/", "/a/", "/"),
        ("/a", "/base", "/a/b", "/base/b"),
        ("/a", "/base", "/a/", "/base/"),
        ("/", "/base/", "/a/b", "/base/a/b"),
    ];
    for (path, base, target, expected) in cases {
        let manner = Manner { strip_path: true, path: base.into(), ..Manner::default() };
        let gate = Gate::open(vec![Route { path, kong: Some(Box::new(manner)), ..route(web(&endpoint)) }]).await;
        assert_eq!(gate.ask(&format!("GET {target} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await.status, 200);
        let request = endpoint.log.requests().pop().unwrap();
        assert_eq!(request.split(' ').nth(1), Some(expected), "{path} {base} {target}");
        assert_eq!(header(&request, "x-forwarded-prefix"), (path != "/").then_some(path), "{path} {base} {target}");
    }
}

/// A filter of the Gateway API speaks of the path that was matched, and has the last word.
#[tokio::test]
async fn filters_have_the_last_word() {
    let endpoint = Endpoint::ok().await;
    let path = portico::snapshot::path_edit::PathEdit::prefix("/a", "/z");
    let rewrite = Rewrite { host: Some(HeaderValue::from_static("filter")), path: Some(path) };
    let filters = Filters { rewrite: Some(rewrite), ..Filters::default() };
    let host = ToHost::Named(HeaderValue::from_static("annotation"));
    let manner = Manner { strip_path: true, path: "/base".into(), host, ..Manner::default() };
    let action = forward(vec![(1, upstream_of(Protocol::Http1, "web", &[endpoint.address]))]);
    let gate = Gate::open(vec![Route { path: "/a", filters, kong: Some(Box::new(manner)), ..route(action) }]).await;
    assert_eq!(gate.ask("GET /a/b HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 200);
    let request = endpoint.log.requests().pop().unwrap();
    assert_eq!((request.split(' ').nth(1), header(&request, "host")), (Some("/z/b"), Some("filter")));
}
