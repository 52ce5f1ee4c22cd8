//! External authorization by HTTP: what the server gets, what it may change, and that no request passes without its
//! consent.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use portico::limits::ProxyLimits;
use portico::plugin_api::{AccessOutcome, Reply};
use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::cors::{AllowedOrigins, CorsFilter, CorsList};
use portico::snapshot::external_auth::{AuthorizationProtocol, ExternalAuthFilter, HttpAuthorization};
use portico::snapshot::path_edit::PathEdit;
use portico::snapshot::redirect::RedirectAction;
use portico::snapshot::rule::{
    Action, Backend, BackendTarget, Filters, HeaderEdits, Rewrite, RouteFailure, WeightedBackends,
};
use portico::upstream::Upstream;

use crate::accounting::{access_log_records, scrape};
use crate::h2::Http2Client;
use crate::h2_upstream::echo_endpoint;
use crate::harness::{
    Endpoint, Options, Route, TEST_TIMEOUT, TestServer, forward, h2c_upstream, header, reserve_address, route, upstream,
};
use crate::plugins::{ScriptedPlugin, chain};

/// A filter whose server gets Authorization and Cookie, and decides about `X-User`.
pub(crate) fn http_filter(upstream: Arc<Upstream>) -> ExternalAuthFilter {
    http_filter_for(upstream, &["x-user"])
}

/// A filter whose server gets Authorization and Cookie, and decides about these headers.
fn http_filter_for(upstream: Arc<Upstream>, decided: &[&'static str]) -> ExternalAuthFilter {
    let names = |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect::<Vec<_>>();
    let protocol = AuthorizationProtocol::Http(HttpAuthorization {
        path_prefix: "/check".into(),
        request_headers: names(&["authorization", "cookie"]).into(),
        response_headers: Some(names(decided).iter().collect()),
    });
    ExternalAuthFilter { name: "the server".into(), upstream, protocol, max_body: 0 }
}

/// Like [`http_filter`], and the server may decide about all headers.
pub(crate) fn http_filter_for_all(upstream: Arc<Upstream>, name: &str) -> ExternalAuthFilter {
    let mut filter = ExternalAuthFilter { name: name.into(), ..http_filter(upstream) };
    if let AuthorizationProtocol::Http(settings) = &mut filter.protocol {
        settings.response_headers = None;
    }
    filter
}

pub(crate) fn filters(filter: ExternalAuthFilter) -> Filters {
    Filters { external_auth: Some(Box::new(filter)), ..Filters::default() }
}

/// All requests go to the endpoint if the server of the filter allows them.
pub(crate) fn guarded_routes(filter: ExternalAuthFilter, endpoint: &Endpoint) -> Vec<Route> {
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    vec![Route { filters: filters(filter), ..route(action) }]
}

fn server_of(authorization: &Endpoint) -> Arc<Upstream> {
    upstream("auth", &[authorization.address])
}

/// Allows requests as the user `eve`, and denies those to `/denied`, `/login` and `/empty`.
pub(crate) async fn authorization_server() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let response = match request.split([' ', '?']).nth(1).unwrap() {
                "/check/denied" => {
                    "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\
                     keep-alive: timeout=5\r\ntransfer-encoding: chunked\r\n\r\n4\r\nwho?\r\n0\r\n\r\n"
                }
                "/check/login" => "HTTP/1.1 302 Found\r\nlocation: https://login.example/\r\ncontent-length: 0\r\n\r\n",
                "/check/empty" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/check/anonymous" => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                _ => {
                    "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nx-user: eve\r\nx-other: o\r\n\
                     host: evil\r\ncontent-type: text/plain\r\ncontent-length: 7\r\n\r\nallowed"
                }
            };
            let response = if request.starts_with("HEAD ") {
                response.split_inclusive("\r\n\r\n").next().unwrap()
            } else {
                response
            };
            stream.send(response).await;
        }
    })
    .await
}

#[tokio::test]
async fn server_gets_the_listed_parts_of_a_request() {
    let (endpoint, authorization) = (Endpoint::ok().await, authorization_server().await);
    let mut routes = guarded_routes(http_filter(server_of(&authorization)), &endpoint);
    // Filters change only what the endpoint gets.
    routes[0].filters.rewrite = Some(Rewrite {
        host: Some(HeaderValue::from_static("internal")),
        path: Some(PathEdit::Full("/rewritten".into())),
    });
    routes[0].filters.request_headers = Some(HeaderEdits {
        set: vec![(HeaderName::from_static("cookie"), HeaderValue::from_static("set=1"))],
        ..HeaderEdits::default()
    });
    let server = TestServer::with_routes(routes).await;
    let fields = "host: a.example:80\r\nauthorization: Basic x\r\ncookie: c=1\r\nx-secret: s\r\nte: trailers\r\n\
                  connection: te\r\ncontent-length: 5";
    let response = server.request(&format!("PUT /a/../b?q=1 HTTP/1.1\r\n{fields}\r\n\r\nhello")).await;
    assert_eq!(response.text(), "ok");
    let asked = authorization.log.requests().remove(0);
    let mut lines: Vec<_> = asked.trim_end().lines().collect();
    lines[1..].sort();
    assert_eq!(
        lines,
        [
            "PUT /check/b?q=1 HTTP/1.1",
            "authorization: Basic x",
            "content-length: 0",
            "cookie: c=1",
            "host: a.example:80",
            "portico-hops: 1",
        ]
    );
    let received = endpoint.log.requests().remove(0);
    assert!(
        received.starts_with("PUT /rewritten?q=1 HTTP/1.1\r\n") && received.ends_with("\r\n\r\nhello"),
        "{received}"
    );
    assert_eq!((header(&received, "cookie"), header(&received, "x-user")), (Some("set=1"), Some("eve")));
    assert_eq!((header(&received, "host"), header(&received, "x-secret")), (Some("internal"), Some("s")));
}

#[tokio::test]
async fn clients_cannot_spoof_headers_of_the_server() {
    let (endpoint, authorization) = (Endpoint::ok().await, authorization_server().await);
    let listed = http_filter(server_of(&authorization));
    let mut all = listed.clone();
    if let AuthorizationProtocol::Http(http) = &mut all.protocol {
        http.response_headers = None;
    }
    let spoofed = "x-user: admin\r\nx-user: root\r\nx_user: admin\r\nx-other: mine\r\ncontent-type: image/png";
    // (filter, path, X-User, X-Other) at the endpoint.
    let cases = [
        (&listed, "/", Some("eve"), Some("mine")),
        (&listed, "/anonymous", None, Some("mine")),
        (&all, "/", Some("eve"), Some("o")),
        (&all, "/anonymous", Some("admin"), Some("mine")),
    ];
    for (index, (filter, path, user, other)) in cases.into_iter().enumerate() {
        let server = TestServer::with_routes(guarded_routes(filter.clone(), &endpoint)).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n{spoofed}\r\n\r\n");
        assert_eq!(server.request(&request).await.status, 200);
        let received = endpoint.log.requests().remove(index);
        assert_eq!((header(&received, "x-user"), header(&received, "x-other")), (user, other), "{received}");
        assert_eq!(received.matches("x-user:").count(), if user == Some("admin") { 2 } else { user.iter().len() });
        assert_eq!(header(&received, "x_user").is_some(), user == Some("admin"), "{received}");
        assert_eq!(header(&received, "host"), Some("a.example"));
        assert_eq!(header(&received, "content-type"), Some("image/png"));
    }
}

/// A backend that has no server gets what the endpoint of another backend believes, too.
#[tokio::test]
async fn clients_cannot_spoof_headers_of_the_server_of_another_backend() {
    let (guarded, open, authorization) = (Endpoint::ok().await, Endpoint::ok().await, authorization_server().await);
    // The server replaces the credential that it reads.
    let filter = http_filter_for(server_of(&authorization), &["x-user", "authorization"]);
    let backend = |filters, endpoint: &Endpoint| Backend {
        weight: 1,
        filters,
        target: BackendTarget::Upstream(upstream("web", &[endpoint.address])),
    };
    let backends = vec![backend(filters(filter), &guarded), backend(Filters::default(), &open)];
    // What plugins set is not from the client.
    let plugin = ScriptedPlugin::access(|cx| {
        assert!(!cx.head.headers.contains_key("x-user"), "plugins do not get it either");
        cx.head.headers.insert("x-user", HeaderValue::from_static("of-plugin"));
        AccessOutcome::Continue
    });
    for (plugins, user_at_open) in [(None, None), (chain(vec![plugin]), Some("of-plugin"))] {
        let split = WeightedBackends::new(backends_of(&backends)).unwrap();
        let server = TestServer::with_routes(vec![Route { plugins, ..route(Action::Forward(split)) }]).await;
        let (before, authorized) = (open.log.requests().len(), authorization.log.requests().len());
        while open.log.requests().len() < before + 3 || authorization.log.requests().len() < authorized + 3 {
            let request = "GET / HTTP/1.1\r\nhost: a.example\r\nauthorization: Bearer forged\r\nx-user: admin\r\n\
                           x_user: admin\r\nx-kept: 1\r\n\r\n";
            assert_eq!(server.request(request).await.status, 200);
        }
        for received in &open.log.requests()[before..] {
            assert_eq!((header(received, "x-user"), header(received, "x_user")), (user_at_open, None), "{received}");
            assert_eq!(
                (header(received, "authorization"), header(received, "x-kept")),
                (None, Some("1")),
                "{received}"
            );
        }
        for asked in &authorization.log.requests()[authorized..] {
            assert_eq!(header(asked, "authorization"), Some("Bearer forged"), "the server reads it: {asked}");
        }
    }
    for received in guarded.log.requests() {
        assert_eq!((header(&received, "x-user"), header(&received, "authorization")), (Some("eve"), None));
    }
}

/// A plugin could count by it, or pass it on in another field, before the server has decided.
#[tokio::test]
async fn plugins_get_no_header_from_the_client_that_the_server_of_the_rule_decides_about() {
    let (endpoint, authorization) = (Endpoint::ok().await, authorization_server().await);
    let plugin = ScriptedPlugin::access(|cx| {
        let claimed = ["x-user", "x_user"].iter().find_map(|name| cx.head.headers.get(*name)).cloned();
        cx.head.headers.insert("x-seen", claimed.unwrap_or(HeaderValue::from_static("absent")));
        AccessOutcome::Continue
    });
    let mut routes = guarded_routes(http_filter(server_of(&authorization)), &endpoint);
    routes[0].plugins = chain(vec![plugin]);
    let server = TestServer::with_routes(routes).await;
    let request = "GET / HTTP/1.1\r\nhost: a.example\r\nx-user: admin\r\nx_user: admin\r\n\r\n";
    assert_eq!(server.request(request).await.status, 200);
    let received = endpoint.log.requests().pop().unwrap();
    assert_eq!((header(&received, "x-seen"), header(&received, "x-user")), (Some("absent"), Some("eve")), "{received}");
}

/// The same backends once more.
fn backends_of(backends: &[Backend]) -> Vec<Backend> {
    let again = |backend: &Backend| {
        let BackendTarget::Upstream(upstream) = &backend.target else { panic!("the backend is valid") };
        let (filters, target) = (backend.filters.clone(), BackendTarget::Upstream(Arc::clone(upstream)));
        Backend { weight: backend.weight, filters, target }
    };
    backends.iter().map(again).collect()
}

#[tokio::test]
async fn clients_get_the_response_that_denies_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (endpoint, authorization) = (Endpoint::ok().await, authorization_server().await);
    let options = Options { log: AccessLogDestination::File(path.clone()), ..Options::default() };
    let server =
        TestServer::with_options(options, guarded_routes(http_filter(server_of(&authorization)), &endpoint)).await;
    // The connection stays open after each denial, also if the body of the request was not read.
    let mut client = server.connect().await;
    client.send("POST /denied HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n\r\nhello").await;
    let denied = client.response().await;
    assert_eq!((denied.status, denied.text()), (401, "who?".to_owned()));
    assert_eq!(denied.header("www-authenticate"), Some("Basic"));
    assert_eq!(denied.head.matches("set-cookie:").count(), 2, "{}", denied.head);
    assert!(denied.header("x-request-id").is_some() && denied.header("keep-alive").is_none(), "{}", denied.head);
    let login = client.get("/login").await;
    assert_eq!((login.status, login.header("location")), (302, Some("https://login.example/")));
    assert_eq!(client.get("/empty").await.status, 204);
    let head = "HEAD /denied HTTP/1.1\r\nhost: a.example\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.response_to(head).await.status, 401);
    assert_eq!(client.get("/").await.text(), "ok");
    let http2 = Http2Client::connect(server.address).await;
    let denied = http2.get("/denied").await;
    assert_eq!((denied.status, &denied.body[..]), (401, &b"who?"[..]));
    assert_eq!(http2.get("/").await.body, b"ok");
    assert_eq!((endpoint.log.requests().len(), authorization.log.connections()), (2, 1));
    assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"external_auth_denied\"}"], 5.0);
    drop((client, http2));
    server.proxy.drain(TEST_TIMEOUT).await;
    server.log.finish();
    let records = access_log_records(&path);
    let errors: Vec<_> = records.iter().map(|record| record["error"].as_str().unwrap_or("-")).collect();
    let denied = "external_auth_denied";
    assert_eq!(errors, [denied, denied, denied, denied, "-", denied, "-"]);
    // The endpoint of the authorization server is not that of the request.
    let addresses: Vec<_> = records.iter().filter_map(|record| record["address"].as_str()).collect();
    assert_eq!(addresses, [&*endpoint.address.to_string(); 2]);
}

#[tokio::test]
async fn bodies_are_sent_to_server_and_endpoint() {
    let (endpoint, authorization) = (Endpoint::ok().await, authorization_server().await);
    let filter = ExternalAuthFilter { max_body: 10, ..http_filter(server_of(&authorization)) };
    let server = TestServer::with_routes(guarded_routes(filter, &endpoint)).await;
    for (framing, status, sent) in [
        ("content-length: 10\r\n\r\n0123456789", 200, "0123456789"),
        ("transfer-encoding: chunked\r\n\r\n4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n", 200, "0123456789"),
        ("content-length: 0\r\n\r\n", 200, ""),
        ("content-length: 11\r\n\r\n0123456789a", 413, ""),
        ("transfer-encoding: chunked\r\n\r\n4\r\n0123\r\n7\r\n456789a\r\n0\r\n\r\n", 413, ""),
    ] {
        let [asked_before, received_before] = [&authorization, &endpoint].map(|server| server.log.requests().len());
        let response = server.request(&format!("POST / HTTP/1.1\r\nhost: a.example\r\n{framing}")).await;
        assert_eq!(response.status, status, "{framing}");
        let asked = authorization.log.requests().split_off(asked_before);
        let received = endpoint.log.requests().split_off(received_before);
        assert_eq!((asked.len(), received.len()), if status == 200 { (1, 1) } else { (0, 0) }, "{framing}");
        for request in asked.iter().chain(&received) {
            assert!(request.ends_with(&format!("\r\n\r\n{sent}")), "{request}");
        }
        if let [asked] = &asked[..] {
            assert_eq!(header(asked, "content-length"), Some(&*sent.len().to_string()), "{asked}");
        }
    }
    assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"body_too_large\"}"], 2.0);
    // The worker keeps a slab for later bodies.
    assert_eq!(scrape(&server)["portico_buffered_bytes"], 16384.0);
}

#[tokio::test]
async fn bodies_stream_past_a_server_that_gets_none() {
    const LENGTH: usize = 1 << 20;
    let (endpoint, authorization) = (Endpoint::ok().await, authorization_server().await);
    let limits = ProxyLimits { max_buffered_bytes: 1000, ..ProxyLimits::default() };
    let routes = guarded_routes(http_filter(server_of(&authorization)), &endpoint);
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    let mut client = server.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
    authorization.log.wait_for("the request for authorization", |log| log.requests().len() == 1).await;
    client.send(vec![b'x'; LENGTH]).await;
    assert_eq!(client.response().await.status, 200);
    assert!(endpoint.log.requests()[0].len() > LENGTH);
}

/// A server that responds with these bytes, and then closes the connection.
async fn responding_once(response: &'static str) -> Endpoint {
    Endpoint::scripted(move |mut stream, _| async move {
        stream.request().await;
        stream.send(response).await;
    })
    .await
}

#[tokio::test]
async fn requests_without_a_decision_fail() {
    let endpoint = Endpoint::ok().await;
    let silent = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.read_to_end().await;
    })
    .await;
    let endless = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegin").await;
        stream.read_to_end().await;
    })
    .await;
    let (nonsense, closing) = (responding_once("nonsense\r\n\r\n").await, responding_once("").await);
    let switching =
        responding_once("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
    let (refusing, _reserved) = reserve_address();
    let routes = |upstream| guarded_routes(http_filter(upstream), &endpoint);
    let timeout = |authorization_timeout| async move {
        let limits = ProxyLimits { authorization_timeout, ..ProxyLimits::default() };
        TestServer::with_options(Options { limits, ..Options::default() }, Vec::new()).await
    };
    let (impatient, server) = (timeout(Duration::from_millis(100)).await, timeout(Duration::from_secs(60)).await);
    let mut counts = std::collections::BTreeMap::new();
    for (server, upstream, status, reason) in [
        (&impatient, server_of(&silent), 503, "external_auth_timeout"),
        (&impatient, server_of(&endless), 503, "external_auth_timeout"),
        (&server, upstream("none", &[]), 503, "external_auth_unavailable"),
        (&server, upstream("refusing", &[refusing]), 503, "external_auth_unavailable"),
        (&server, server_of(&closing), 503, "external_auth_unavailable"),
        (&server, server_of(&nonsense), 500, "external_auth_invalid"),
        (&server, server_of(&switching), 500, "external_auth_invalid"),
        // A server of another protocol.
        (&server, h2c_upstream(closing.address), 500, "external_auth_invalid"),
    ] {
        server.replace_routes(routes(upstream));
        assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, status, "{reason}");
        let count = counts.entry(reason).or_insert(0.0);
        *count += 1.0;
        assert_eq!(scrape(server)[&format!("portico_request_errors_total{{reason=\"{reason}\"}}")], *count);
    }
    server.replace_routes(vec![route(Action::Fail(RouteFailure::NoAuthorizationServer))]);
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 500);
    let name = "portico_request_errors_total{reason=\"no_authorization_server\"}";
    assert_eq!(scrape(&server)[name], 1.0);
    assert!(endpoint.log.requests().is_empty());
}

#[tokio::test]
async fn another_endpoint_of_the_server_decides_if_one_is_down() {
    let (endpoint, authorization) = (Endpoint::ok().await, authorization_server().await);
    let (refusing, _reserved) = reserve_address();
    let servers = upstream("auth", &[authorization.address, refusing]);
    let server = TestServer::with_routes(guarded_routes(http_filter(servers), &endpoint)).await;
    for _ in 0..4 {
        assert_eq!(server.connect().await.get("/").await.status, 200);
    }
    assert_eq!(authorization.log.requests().len(), 4);
}

#[tokio::test]
async fn servers_may_use_http2() {
    let (endpoint, authorization) = (Endpoint::ok().await, echo_endpoint().await);
    let mut filter = http_filter(h2c_upstream(authorization.address));
    if let AuthorizationProtocol::Http(http) = &mut filter.protocol {
        http.response_headers = Some(["x-uri", "x-fields"].map(HeaderName::from_static).iter().collect());
    }
    let server = TestServer::with_routes(guarded_routes(filter, &endpoint)).await;
    let request = "POST /a?b HTTP/1.1\r\nhost: a.example\r\ncookie: c\r\ncontent-length: 1\r\n\r\nx";
    assert_eq!(server.request(request).await.status, 200);
    let received = endpoint.log.requests().remove(0);
    assert_eq!(header(&received, "x-uri"), Some("http://a.example/check/a?b"), "{received}");
    assert_eq!(header(&received, "x-fields"), Some("cookie content-length portico-hops"), "{received}");
}

#[tokio::test]
async fn preflights_end_before_authorization_and_redirects_after_it() {
    let authorization = authorization_server().await;
    let cors = CorsFilter {
        origins: AllowedOrigins::Any,
        credentials: false,
        methods: CorsList::from_names(["PUT"]).unwrap(),
        headers: CorsList::Any,
        expose: CorsList::Empty,
        max_age: HeaderValue::from(5),
    };
    let redirect = RedirectAction { host: Some("elsewhere.example".into()), ..RedirectAction::new(StatusCode::FOUND) };
    let filters = Filters { cors: Some(Box::new(cors)), ..filters(http_filter(server_of(&authorization))) };
    let server = TestServer::with_routes(vec![Route { filters, ..route(Action::Redirect(redirect)) }]).await;
    let origin = "host: a.example\r\norigin: https://app.example\r\n";
    let preflight = format!("OPTIONS /denied HTTP/1.1\r\n{origin}access-control-request-method: PUT\r\n\r\n");
    assert_eq!(server.request(&preflight).await.status, 200);
    assert!(authorization.log.requests().is_empty());
    // Web pages can read the denial.
    let denied = server.request(&format!("PUT /denied HTTP/1.1\r\n{origin}\r\n")).await;
    assert_eq!((denied.status, denied.header("access-control-allow-origin")), (401, Some("https://app.example")));
    let redirected = server.request(&format!("PUT / HTTP/1.1\r\n{origin}\r\n")).await;
    assert_eq!((redirected.status, redirected.header("location")), (302, Some("http://elsewhere.example/")));
}

#[tokio::test]
async fn rule_and_backend_have_servers_of_their_own() {
    let (endpoint, of_rule, of_backend) =
        (Endpoint::ok().await, authorization_server().await, authorization_server().await);
    let backend = |path: &'static str, target| {
        let backend = Backend { weight: 1, filters: filters(http_filter(server_of(&of_backend))), target };
        Route {
            path,
            filters: filters(http_filter(server_of(&of_rule))),
            ..route(Action::Forward(WeightedBackends::new(vec![backend]).unwrap()))
        }
    };
    let server = TestServer::with_routes(vec![
        backend("/", BackendTarget::Upstream(upstream("web", &[endpoint.address]))),
        backend("/broken", BackendTarget::Fail(RouteFailure::InvalidBackend)),
    ])
    .await;
    let asked = || [&of_rule, &of_backend].map(|server| server.log.requests().len());
    assert_eq!((server.connect().await.get("/").await.status, asked()), (200, [1, 1]));
    assert_eq!((server.connect().await.get("/denied").await.status, asked()), (401, [2, 1]));
    // Clients without permission do not learn that the backend is invalid.
    assert_eq!((server.connect().await.get("/broken").await.status, asked()), (500, [3, 2]));
    assert_eq!(endpoint.log.requests().len(), 1);
}

#[tokio::test]
async fn plugins_run_before_authorization() {
    let (endpoint, authorization) = (Endpoint::ok().await, authorization_server().await);
    let plugin = ScriptedPlugin::access(|cx| {
        if cx.path == "/replied" {
            return AccessOutcome::Reply(Reply::negotiated(StatusCode::IM_A_TEAPOT, "from the plugin", "test"));
        }
        cx.head.headers.insert("cookie", HeaderValue::from_static("from=plugin"));
        AccessOutcome::Continue
    });
    let mut routes = guarded_routes(http_filter(server_of(&authorization)), &endpoint);
    routes[0].plugins = chain(vec![plugin]);
    let server = TestServer::with_routes(routes).await;
    assert_eq!(server.connect().await.get("/replied").await.status, 418);
    assert!(authorization.log.requests().is_empty());
    assert_eq!(server.connect().await.get("/denied").await.status, 401);
    assert_eq!(header(&authorization.log.requests()[0], "cookie"), Some("from=plugin"));
}

/// A plugin that has the content of the backend, as a cache has.
fn standing_in_for_the_backend() -> ScriptedPlugin {
    ScriptedPlugin::before_forward(|cx| {
        let user = cx.head.headers.get("x-user").and_then(|user| user.to_str().ok()).unwrap_or("nobody");
        AccessOutcome::Reply(Reply::negotiated(StatusCode::OK, format!("for {user}"), "test"))
    })
}

#[tokio::test]
async fn denial_precedes_what_stands_in_for_the_backend() {
    let (endpoint, of_rule, of_backend) =
        (Endpoint::ok().await, authorization_server().await, authorization_server().await);
    let backend = |path: &'static str, server: &Endpoint, target| {
        let backend = Backend { weight: 1, filters: filters(http_filter(server_of(server))), target };
        Route {
            path,
            plugins: chain(vec![standing_in_for_the_backend()]),
            ..route(Action::Forward(WeightedBackends::new(vec![backend]).unwrap()))
        }
    };
    let web = || BackendTarget::Upstream(upstream("web", &[endpoint.address]));
    let mut guarded = guarded_routes(http_filter(server_of(&of_rule)), &endpoint);
    guarded[0].plugins = chain(vec![standing_in_for_the_backend()]);
    let server = TestServer::with_routes(guarded).await;
    assert_eq!(server.connect().await.get("/denied").await.status, 401);
    // The plugin reads what the server has decided about the client.
    let allowed = server.connect().await.get("/").await;
    let body = String::from_utf8_lossy(&allowed.body);
    assert!(allowed.status == 200 && body.contains("for eve"), "{body}");
    let server = TestServer::with_routes(vec![
        backend("/", &of_backend, web()),
        backend("/broken", &of_backend, BackendTarget::Fail(RouteFailure::UnsupportedProtection)),
    ])
    .await;
    assert_eq!(server.connect().await.get("/denied").await.status, 401);
    assert_eq!(server.connect().await.get("/").await.status, 200);
    // The protection of the backend is not known to be in effect, so nothing stands in for it.
    assert_eq!(server.connect().await.get("/broken").await.status, 503);
    assert_eq!((of_rule.log.requests().len(), of_backend.log.requests().len()), (2, 3));
    assert!(endpoint.log.requests().is_empty());
}

#[tokio::test]
async fn rejection_by_a_plugin_precedes_what_stands_in_for_the_backend() {
    let endpoint = Endpoint::ok().await;
    // The plugin that stands in has the higher priority, but the phase of the other one is earlier.
    let rejecting = ScriptedPlugin::access(|cx| match cx.path {
        "/rejected" => AccessOutcome::Reply(Reply::negotiated(StatusCode::FORBIDDEN, "no", "test")),
        _ => AccessOutcome::Continue,
    });
    let server = crate::plugins::server(vec![standing_in_for_the_backend(), rejecting], &endpoint).await;
    assert_eq!(server.connect().await.get("/rejected").await.status, 403);
    assert_eq!(server.connect().await.get("/").await.status, 200);
    assert!(endpoint.log.requests().is_empty());
}

#[tokio::test]
async fn streaming_bodies_of_http2_clients_are_authorized_once() {
    let (endpoint, authorization) = (Endpoint::ok().await, authorization_server().await);
    let filter = ExternalAuthFilter { max_body: 1000, ..http_filter(server_of(&authorization)) };
    let server = TestServer::with_routes(guarded_routes(filter, &endpoint)).await;
    let client = Http2Client::connect(server.address).await;
    let request = Request::builder().method(Method::POST).uri("http://a.example/").body(()).unwrap();
    let (response, mut stream) = client.start_with_body(request).await;
    for part in ["a", "bc", "def"] {
        stream.send_data(bytes::Bytes::from_static(part.as_bytes()), part == "def").unwrap();
    }
    assert_eq!(crate::h2::read_response(response).await.unwrap().status, 200);
    for server in [&authorization, &endpoint] {
        assert!(server.log.requests()[0].ends_with("\r\n\r\nabcdef"), "{:?}", server.log.requests());
    }
    // A larger body is refused as soon as it is too large, without waiting for its end.
    let request = Request::builder().method(Method::POST).uri("http://a.example/").body(()).unwrap();
    let (response, mut stream) = client.start_with_body(request).await;
    stream.send_data(bytes::Bytes::from(vec![b'x'; 1001]), false).unwrap();
    assert_eq!(crate::h2::read_response(response).await.unwrap().status, 413);
    assert_eq!(authorization.log.requests().len(), 1);
}
