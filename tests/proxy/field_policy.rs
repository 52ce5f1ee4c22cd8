//! One policy for fields in all sections of messages: what the proxy, filters, plugins and authorization servers set or
//! remove in heads does not arrive in trailers and informational responses either, whatever the versions of HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use portico::plugin_api::AnyPluginKind;
use portico::plugin_chain::testing;
use portico::plugins::REGISTRY;
use portico::proxy::ProductHeaderMode;
use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::external_auth::AuthorizationProtocol;
use portico::snapshot::rule::{Action, Backend, BackendTarget, Filters, HeaderEdits, WeightedBackends};
use portico::snapshot::rule_options::ProductHeaderNames;
use serde_json::{Value, json};

use crate::accounting::access_log_records;
use crate::external_auth::{authorization_server, http_filter};
use crate::h2::{Http2Client, get_request, post_request, read_body, read_response};
use crate::h2_upstream::{EndpointCall, http2_endpoint};
use crate::harness::{
    Endpoint, Options, Route, TEST_TIMEOUT, TestServer, forward, h2c_upstream, header, route, upstream,
};

/// Whether the client and the endpoint use HTTP/2.
const PAIRS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

/// A field that all recipients get.
const KEPT: (&str, &str) = ("x-sum", "7");

/// Fields that belong to one connection, which cannot be sent over HTTP/2.
const OF_CONNECTION: [(&str, &str); 6] = [
    ("connection", "close"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "close"),
    ("te", "gzip"),
    ("transfer-encoding", "gzip"),
    ("upgrade", "websocket"),
];

/// What a test changes of a route that forwards everything to one endpoint.
type Change<'c> = &'c (dyn Fn(&mut Route) + Sync);

fn unchanged(_: &mut Route) {}

fn name(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

fn edits() -> HeaderEdits {
    let field = |field: &'static str| (name(field), HeaderValue::from_static("1"));
    HeaderEdits { set: vec![field("x-set")], add: vec![field("x-add")], remove: vec![name("x-removed"), name("link")] }
}

fn routes(address: SocketAddr, http2: bool, change: Change<'_>) -> Vec<Route> {
    let target = if http2 { h2c_upstream(address) } else { upstream("web", &[address]) };
    let mut changed = route(forward(vec![(1, target)]));
    change(&mut changed);
    vec![changed]
}

/// Sets the filters of the only backend.
fn set_backend_filters(route: &mut Route, filters: Filters) {
    let Action::Forward(split) = &route.action else { panic!("the route forwards") };
    let BackendTarget::Upstream(upstream) = &split.backends()[0].target else { panic!("the backend is valid") };
    let backend = Backend { weight: 1, filters, target: BackendTarget::Upstream(Arc::clone(upstream)) };
    route.action = Action::Forward(WeightedBackends::new(vec![backend]).unwrap());
}

fn plugins(plugins: &[(&str, Value)]) -> Option<Arc<portico::plugin_chain::Chain>> {
    let plugins: Vec<(&dyn AnyPluginKind, Value)> =
        plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    Some(testing::chain(&plugins))
}

fn lines(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

fn names(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
}

fn sorted_names(trailers: Option<&HeaderMap>) -> Vec<String> {
    let mut names: Vec<String> = trailers.into_iter().flat_map(HeaderMap::keys).map(ToString::to_string).collect();
    names.sort();
    names
}

/// The names in the lines after a body.
fn names_after(body: &str, text: &str) -> Vec<String> {
    let (_, trailers) = text.rsplit_once(body).unwrap_or_else(|| panic!("no body {body:?} in {text:?}"));
    let mut names: Vec<String> =
        trailers.lines().map(|line| line.split_once(':').unwrap().0.to_ascii_lowercase()).collect();
    names.sort();
    names
}

/// The names of the trailers that the endpoint gets with a request. `head` are more lines of an HTTP/1 request.
async fn request_trailers(
    (client_http2, endpoint_http2): (bool, bool),
    options: Options,
    change: Change<'_>,
    head: &str,
    sent: &[(&str, &str)],
) -> Vec<String> {
    let received: Arc<Mutex<Vec<Option<HeaderMap>>>> = Arc::default();
    let recorded = Arc::clone(&received);
    let http1_endpoint = Endpoint::ok().await;
    let address = if endpoint_http2 {
        let record = move |mut call: EndpointCall| {
            let recorded = Arc::clone(&recorded);
            async move {
                let Ok((_, trailers)) = read_body(&mut call.request.into_body()).await else { return };
                recorded.lock().unwrap().push(trailers);
                call.response.send_response(Response::new(()), true).unwrap();
            }
        };
        http2_endpoint(server::Builder::new(), record).await.address
    } else {
        http1_endpoint.address
    };
    let server = TestServer::with_options(options, routes(address, endpoint_http2, change)).await;
    let status = if client_http2 {
        let client = Http2Client::connect(server.address).await;
        let mut request = post_request("/");
        request.headers_mut().insert("trailer", names(sent).parse().unwrap());
        let (response, mut stream) = client.start_with_body(request).await;
        stream.send_data(Bytes::from_static(b"body"), false).unwrap();
        stream.send_trailers(map(sent)).unwrap();
        read_response(response).await.unwrap().status
    } else {
        let head = format!("POST / HTTP/1.1\r\nhost: a.example\r\ntrailer: {}\r\n{head}", names(sent));
        let body = format!("transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n{}\r\n", lines(sent));
        server.request(&(head + &body)).await.status
    };
    assert_eq!(status, 200, "the request is complete");
    if endpoint_http2 {
        return sorted_names(received.lock().unwrap()[0].as_ref());
    }
    names_after("body", http1_endpoint.log.requests().last().unwrap())
}

/// The names of the trailers that the client gets with a response. `head` are more lines of an HTTP/1 response.
async fn response_trailers(
    (client_http2, endpoint_http2): (bool, bool),
    options: Options,
    change: Change<'_>,
    head: &str,
    sent: &[(&str, &str)],
) -> Vec<String> {
    let response = format!(
        "HTTP/1.1 200 OK\r\ntrailer: {}\r\n{head}transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n{}\r\n",
        names(sent),
        lines(sent)
    );
    let http1_endpoint = Endpoint::responding_with(response).await;
    let address = if endpoint_http2 {
        let (declared, trailers) = (names(sent), map(sent));
        let respond = move |mut call: EndpointCall| {
            let response = Response::builder().header("trailer", &declared).body(()).unwrap();
            let trailers = trailers.clone();
            async move {
                let mut stream = call.response.send_response(response, false).unwrap();
                stream.send_data(Bytes::from_static(b"body"), false).unwrap();
                stream.send_trailers(trailers).unwrap();
            }
        };
        http2_endpoint(server::Builder::new(), respond).await.address
    } else {
        http1_endpoint.address
    };
    let server = TestServer::with_options(options, routes(address, endpoint_http2, change)).await;
    if client_http2 {
        let response = Http2Client::connect(server.address).await.request(get_request("/")).await.unwrap();
        assert_eq!((response.status, &response.body[..]), (200, &b"body"[..]));
        return sorted_names(response.trailers.as_ref());
    }
    let response = server.request("GET / HTTP/1.1\r\nhost: a.example\r\nconnection: te\r\nte: trailers\r\n\r\n").await;
    assert_eq!(response.status, 200);
    names_after("body", &response.text())
}

async fn expect_no_request_trailers(change: Change<'_>, fields: &[(&str, &str)]) {
    for pair in PAIRS {
        let sent = [&[KEPT][..], fields].concat();
        let received = request_trailers(pair, Options::default(), change, "", &sent).await;
        assert_eq!(received, ["x-sum"], "client and endpoint with HTTP/2: {pair:?}");
    }
}

async fn expect_no_response_trailers(change: Change<'_>, fields: &[(&str, &str)]) {
    for pair in PAIRS {
        let sent = [&[KEPT][..], fields].concat();
        let received = response_trailers(pair, Options::default(), change, "", &sent).await;
        assert_eq!(received, ["x-sum"], "client and endpoint with HTTP/2: {pair:?}");
    }
}

#[tokio::test]
async fn fields_that_are_sanitized_in_heads_are_no_trailers() {
    let forged = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-path", "/"),
        ("x-forwarded-prefix", "/"),
        ("x-real-ip", "6.6.6.6"),
        ("x_real_ip", "6.6.6.6"),
        ("x_forwarded-for", "6.6.6.6"),
        ("x-request-id", "1"),
        ("forwarded", "for=6.6.6.6"),
        ("proxy", "evil"),
        ("via", "1.1 evil"),
        ("authorization", "Basic eA=="),
        ("cookie", "a=1"),
        ("content-type", "text/html"),
    ];
    expect_no_request_trailers(&unchanged, &forged).await;
    // Those of a trusted peer are in its head.
    let options = Options { trusted: vec!["127.0.0.1/32"], ..Options::default() };
    let sent = [&[KEPT][..], &forged[..]].concat();
    assert_eq!(request_trailers((false, false), options, &unchanged, "", &sent).await, ["x-sum"]);
    let of_responses = [
        ("via", "1.1 evil"),
        ("x-request-id", "1"),
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("set-cookie", "a=1"),
        ("cache-control", "public"),
    ];
    expect_no_response_trailers(&unchanged, &of_responses).await;
}

#[tokio::test]
async fn fields_of_the_product_are_no_trailers() {
    static NAMES: ProductHeaderNames = ProductHeaderNames {
        request_id: HeaderName::from_static("x-product-id"),
        response_latency: HeaderName::from_static("x-product-response"),
        upstream_latency: HeaderName::from_static("x-product-upstream"),
        proxy_latency: HeaderName::from_static("x-product-proxy"),
    };
    let options = || Options { product_headers: ProductHeaderMode::Always(&NAMES), ..Options::default() };
    let of_responses = [KEPT, ("x-product-id", "1"), ("x-product-response", "1"), ("x-product-upstream", "1")];
    let of_responses = [&of_responses[..], &[("x-product-proxy", "1")]].concat();
    for pair in PAIRS {
        let received = response_trailers(pair, options(), &unchanged, "", &of_responses).await;
        assert_eq!(received, ["x-sum"], "{pair:?}");
        let sent = [KEPT, ("x-product-id", "1"), ("x_product_id", "1")];
        assert_eq!(request_trailers(pair, options(), &unchanged, "", &sent).await, ["x-sum"], "{pair:?}");
    }
}

#[tokio::test]
async fn fields_of_the_connection_are_no_trailers() {
    for pair in [(false, false), (false, true)] {
        let sent = [&[KEPT][..], &OF_CONNECTION[..]].concat();
        let received = request_trailers(pair, Options::default(), &unchanged, "", &sent).await;
        assert_eq!(received, ["x-sum"], "{pair:?}");
        // Named in the head, and in the trailers themselves.
        let sent = [KEPT, ("x-hop", "1"), ("x-late", "1"), ("connection", "x-late")];
        let received = request_trailers(pair, Options::default(), &unchanged, "connection: x-hop\r\n", &sent).await;
        assert_eq!(received, ["x-sum"], "{pair:?}");
    }
}

#[tokio::test]
async fn responses_with_trailers_of_the_connection_are_complete() {
    for pair in [(false, false), (true, false)] {
        let sent = [&[KEPT][..], &OF_CONNECTION[..], &[("x-hop", "1")]].concat();
        let received = response_trailers(pair, Options::default(), &unchanged, "connection: x-hop\r\n", &sent).await;
        assert_eq!(received, ["x-sum"], "{pair:?}");
    }
    let response =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n{}\r\n", lines(&OF_CONNECTION));
    let endpoint = Endpoint::responding_with(response).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let options = Options { log: AccessLogDestination::File(path.clone()), ..Options::default() };
    let server = TestServer::with_options(options, routes(endpoint.address, false, &unchanged)).await;
    let client = Http2Client::connect(server.address).await;
    assert_eq!(client.get("/").await.body, b"body");
    assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
    server.log.finish();
    let records = access_log_records(&path);
    assert_eq!((&records[0]["status"], &records[0]["error"]), (&json!(200), &Value::Null), "{records:?}");
}

#[tokio::test]
async fn fields_that_filters_change_are_no_trailers() {
    let changed = [("x-set", "2"), ("x-add", "2"), ("x-removed", "2"), ("link", "2"), ("x_set", "2")];
    let of_rule = |route: &mut Route| route.filters.request_headers = Some(edits());
    let of_backend = |route: &mut Route| {
        set_backend_filters(route, Filters { request_headers: Some(edits()), ..Filters::default() });
    };
    expect_no_request_trailers(&of_rule, &changed).await;
    expect_no_request_trailers(&of_backend, &changed).await;
}

#[tokio::test]
async fn filters_of_responses_apply_to_trailers() {
    let changed = [("x-set", "2"), ("x-add", "2"), ("x-removed", "2"), ("link", "2")];
    let of_rule = |route: &mut Route| route.filters.response_headers = Some(edits());
    let of_backend = |route: &mut Route| {
        set_backend_filters(route, Filters { response_headers: Some(edits()), ..Filters::default() });
    };
    expect_no_response_trailers(&of_rule, &changed).await;
    expect_no_response_trailers(&of_backend, &changed).await;
}

#[tokio::test]
async fn fields_that_plugins_change_are_no_trailers() {
    let of_requests = |route: &mut Route| {
        route.plugins = plugins(&[
            ("request-transformer", json!({"add": {"headers": ["x-added:1"]}, "rename": {"headers": ["x-old:x-new"]}})),
            ("correlation-id", json!({"header_name": "x-correlation"})),
        ]);
    };
    let changed = [("x-added", "2"), ("x_added", "2"), ("x-old", "2"), ("x-new", "2"), ("x-correlation", "2")];
    expect_no_request_trailers(&of_requests, &changed).await;
    for name in ["acl", "basic-auth", "jwt", "key-auth"] {
        let config = if name == "acl" { json!({"allow": ["staff"]}) } else { json!({}) };
        let fields = plugins(&[(name, config)]).unwrap().changed_fields();
        for identity in ["x-consumer-id", "x-consumer-groups", "x_authenticated_groups", "x-anonymous-consumer"] {
            assert!(fields.request.contains(&identity.parse().unwrap()), "{name} decides about {identity}");
        }
    }
    let of_responses = |route: &mut Route| {
        route.plugins = plugins(&[
            ("response-transformer", json!({"remove": {"headers": ["x-internal"]}, "add": {"headers": ["x-added:1"]}})),
            ("rate-limiting", json!({"minute": 5})),
        ]);
    };
    let changed = [("x-internal", "2"), ("x-added", "2"), ("ratelimit-remaining", "99"), ("ratelimit-reset", "1")];
    expect_no_response_trailers(&of_responses, &changed).await;
}

#[tokio::test]
async fn fields_about_which_authorization_decides_are_no_trailers() {
    let authorization = authorization_server().await;
    for lists_headers in [true, false] {
        let change = |route: &mut Route| {
            let mut filter = http_filter(upstream("auth", &[authorization.address]));
            if let AuthorizationProtocol::Http(http) = &mut filter.protocol
                && !lists_headers
            {
                http.response_headers = None;
            }
            route.filters.external_auth = Some(Box::new(filter));
        };
        expect_no_request_trailers(&change, &[("x-user", "admin"), ("x_user", "admin")]).await;
    }
}

#[tokio::test]
async fn filters_and_plugins_of_responses_apply_to_early_hints() {
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nx-internal: 1\r\nvia: 1.1 evil\r\nx-request-id: 1\r\n\
                 access-control-allow-origin: *\r\nx-other: 1\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let by_filter = |route: &mut Route| route.filters.response_headers = Some(edits());
    let by_plugin = |route: &mut Route| {
        route.plugins = plugins(&[("response-transformer", json!({"remove": {"headers": ["link", "x-internal"]}}))]);
    };
    let cases: [(Change<'_>, Option<&str>, Option<&str>); 3] =
        [(&unchanged, Some("</a.css>"), Some("1")), (&by_filter, None, Some("1")), (&by_plugin, None, None)];
    for (change, link, internal) in cases {
        let endpoint = Endpoint::responding_with(hints).await;
        let server = TestServer::with_routes(routes(endpoint.address, false, change)).await;
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        let informational = client.try_next_response_to("").await.unwrap();
        assert_eq!(informational.status, 103);
        let found = |name| header(&informational.head, name);
        assert_eq!((found("link"), found("x-internal"), found("x-other")), (link, internal, Some("1")));
        let managed = ["via", "x-request-id", "access-control-allow-origin"];
        assert_eq!(managed.map(found), [None; 3], "{}", informational.head);
        assert_eq!(client.response().await.text(), "ok");
    }
}
