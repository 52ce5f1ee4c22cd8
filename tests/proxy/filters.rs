//! Every filter of a rule, redirects and retries over every transport: what the endpoint receives and the client gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::{HeaderName, HeaderValue, StatusCode};
use portico::snapshot::cors::{AllowedOrigins, CorsFilter, CorsList};
use portico::snapshot::path_edit::PathEdit;
use portico::snapshot::redirect::{RedirectAction, Scheme};
use portico::snapshot::rule::{
    Action, Backend, BackendTarget, Filters, HeaderEdits, Mirror, Rewrite, WeightedBackends,
};

use crate::harness::{Endpoint, Options, Route, forward, header, retries, route, upstream, with_timeouts_and_retries};
use crate::transport::{GET_ROOT, TRANSPORTS, TransportRequest};

struct Case {
    request: TransportRequest,
    status: u16,
    /// Headers that the client receives; None for those that must be absent.
    response_headers: &'static [(&'static str, Option<&'static str>)],
    /// The request line that the endpoint receives; empty if the endpoint must receive nothing.
    request_line: &'static str,
    /// Headers that the endpoint receives; None for those that must be absent.
    request_headers: &'static [(&'static str, Option<&'static str>)],
}

const ORIGIN: (&str, &str) = ("origin", "https://app.example");
const DEFAULT_CASE: Case =
    Case { request: GET_ROOT, status: 200, response_headers: &[], request_line: "", request_headers: &[] };

/// `SCHEME` and `PORT` in values stand for the scheme and port of the listener.
const CASES: &[Case] = &[
    Case {
        request: TransportRequest {
            path: "/plain?x=%20",
            fields: &[("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6")],
            ..GET_ROOT
        },
        request_line: "GET /plain?x=%20 HTTP/1.1",
        request_headers: &[
            ("host", Some("a.example")),
            ("x-forwarded-for", Some("127.0.0.1")),
            ("x-forwarded-proto", Some("SCHEME")),
            ("x-forwarded-port", Some("PORT")),
            ("x-forwarded-host", Some("a.example")),
            ("forwarded", None),
        ],
        ..DEFAULT_CASE
    },
    Case {
        request: TransportRequest { path: "/edit", fields: &[("x-set", "client"), ("x-gone", "1")], ..GET_ROOT },
        response_headers: &[("x-set", Some("rule")), ("x-add", Some("backend, rule")), ("x-gone", None)],
        request_line: "GET /edit HTTP/1.1",
        request_headers: &[("x-set", Some("backend")), ("x-add", Some("rule")), ("x-gone", None)],
        ..DEFAULT_CASE
    },
    // Escapes are compared without regard to their case, and forwarded as the client wrote them.
    Case {
        request: TransportRequest { path: "/caf%c3%a9/a%2fb?y=%c3", ..GET_ROOT },
        request_line: "GET /caf%c3%a9/a%2fb?y=%c3 HTTP/1.1",
        request_headers: &[("x-guard", Some("escaped"))],
        ..DEFAULT_CASE
    },
    Case {
        request: TransportRequest { path: "/%c3%BCber/a%2fb", ..GET_ROOT },
        request_line: "GET /v2/a%2fb HTTP/1.1",
        ..DEFAULT_CASE
    },
    Case {
        request: TransportRequest { path: "/prefix/x?y=1", ..GET_ROOT },
        request_line: "GET /v2/x?y=1 HTTP/1.1",
        request_headers: &[("host", Some("inner.example")), ("x-forwarded-host", Some("a.example"))],
        ..DEFAULT_CASE
    },
    Case {
        request: TransportRequest { path: "/full/x?y=1", ..GET_ROOT },
        request_line: "GET /all?y=1 HTTP/1.1",
        ..DEFAULT_CASE
    },
    Case {
        request: TransportRequest { method: "POST", path: "/mirror", body: Some("hello"), ..GET_ROOT },
        request_line: "POST /mirror HTTP/1.1",
        ..DEFAULT_CASE
    },
    Case {
        request: TransportRequest {
            method: "OPTIONS",
            path: "/cors",
            fields: &[ORIGIN, ("access-control-request-method", "PUT")],
            ..GET_ROOT
        },
        response_headers: &[
            ("access-control-allow-origin", Some("https://app.example")),
            ("access-control-allow-methods", Some("PUT")),
            ("access-control-max-age", Some("5")),
        ],
        ..DEFAULT_CASE
    },
    Case {
        request: TransportRequest { path: "/cors", fields: &[ORIGIN], ..GET_ROOT },
        response_headers: &[
            ("access-control-allow-origin", Some("https://app.example")),
            ("access-control-max-age", None),
        ],
        request_line: "GET /cors HTTP/1.1",
        ..DEFAULT_CASE
    },
    Case {
        request: TransportRequest { path: "/retry", ..GET_ROOT },
        request_line: "GET /retry HTTP/1.1",
        ..DEFAULT_CASE
    },
    Case {
        request: TransportRequest { method: "PUT", path: "/retry", body: Some("hello"), ..GET_ROOT },
        request_line: "PUT /retry HTTP/1.1",
        ..DEFAULT_CASE
    },
    Case {
        request: TransportRequest { path: "/to/301?q=1", ..GET_ROOT },
        status: 301,
        response_headers: &[("location", Some("SCHEME://a.example/new?q=1"))],
        ..DEFAULT_CASE
    },
    Case {
        request: TransportRequest { path: "/to/302", ..GET_ROOT },
        status: 302,
        response_headers: &[("location", Some("SCHEME://b.example/to/302"))],
        ..DEFAULT_CASE
    },
    Case {
        request: TransportRequest { path: "/to/303/x", ..GET_ROOT },
        status: 303,
        response_headers: &[("location", Some("SCHEME://a.example/v2/x"))],
        ..DEFAULT_CASE
    },
    Case {
        request: TransportRequest { path: "/to/307", ..GET_ROOT },
        status: 307,
        response_headers: &[("location", Some("https://a.example/to/307"))],
        ..DEFAULT_CASE
    },
    Case {
        request: TransportRequest { path: "/to/308", ..GET_ROOT },
        status: 308,
        response_headers: &[("location", Some("http://a.example:8080/to/308"))],
        ..DEFAULT_CASE
    },
];

fn redirect(status: StatusCode) -> RedirectAction {
    RedirectAction::new(status)
}

fn edits(level: &'static str) -> HeaderEdits {
    let field = |name| (HeaderName::from_static(name), HeaderValue::from_static(level));
    HeaderEdits {
        set: vec![field("x-set")],
        add: vec![field("x-add")],
        remove: vec![HeaderName::from_static("x-gone")],
    }
}

/// A route whose rule and backend edit the same headers. To the request, only the rule adds a header; to the response,
/// both do, which shows the order.
fn edit_route(address: std::net::SocketAddr) -> Route {
    let request_edits =
        |level| HeaderEdits { add: if level == "rule" { edits(level).add } else { vec![] }, ..edits(level) };
    let filters = |level| Filters {
        request_headers: Some(request_edits(level)),
        response_headers: Some(edits(level)),
        ..Filters::default()
    };
    let target = BackendTarget::Upstream(upstream("web", &[address]));
    let backend = Backend { weight: 1, filters: filters("backend"), target };
    Route {
        path: "/edit",
        filters: filters("rule"),
        ..route(Action::Forward(WeightedBackends::new(vec![backend]).unwrap()))
    }
}

fn routes(address: std::net::SocketAddr, mirror_address: std::net::SocketAddr) -> Vec<Route> {
    let web = || forward(vec![(1, upstream("web", &[address]))]);
    let filtered = |path, filters| Route { path, filters, ..route(web()) };
    let rewrite = |host: Option<&'static str>, path| Filters {
        rewrite: Some(Rewrite { host: host.map(HeaderValue::from_static), path: Some(path) }),
        ..Filters::default()
    };
    let cors = CorsFilter {
        origins: AllowedOrigins::Any,
        credentials: false,
        methods: CorsList::from_names(["PUT"]).unwrap(),
        headers: CorsList::Empty,
        expose: CorsList::Empty,
        max_age: HeaderValue::from(5),
    };
    let mirror = Mirror { upstream: upstream("copies", &[mirror_address]), numerator: 1, denominator: 1 };
    let guard = (HeaderName::from_static("x-guard"), HeaderValue::from_static("escaped"));
    let guard = HeaderEdits { set: vec![guard], ..HeaderEdits::default() };
    let redirecting = |path, redirect| Route { path, ..route(Action::Redirect(redirect)) };
    vec![
        filtered("/plain", Filters::default()),
        edit_route(address),
        filtered("/prefix", rewrite(Some("inner.example"), PathEdit::prefix("/prefix", "/v2"))),
        filtered("/caf%C3%A9", Filters { request_headers: Some(guard), ..Filters::default() }),
        filtered("/%C3%bcber", rewrite(None, PathEdit::prefix("/%C3%bcber", "/v2"))),
        filtered("/full", rewrite(None, PathEdit::full("/all"))),
        filtered("/mirror", Filters { mirrors: [mirror].into(), ..Filters::default() }),
        filtered("/cors", Filters { cors: Some(Box::new(cors)), ..Filters::default() }),
        Route { path: "/retry", ..route(with_timeouts_and_retries(web(), retries(1, &[503]))) },
        redirecting(
            "/to/301",
            RedirectAction { path: Some(PathEdit::full("/new")), ..redirect(StatusCode::MOVED_PERMANENTLY) },
        ),
        redirecting("/to/302", RedirectAction { host: Some("b.example".into()), ..redirect(StatusCode::FOUND) }),
        redirecting(
            "/to/303",
            RedirectAction { path: Some(PathEdit::prefix("/to/303", "/v2")), ..redirect(StatusCode::SEE_OTHER) },
        ),
        redirecting(
            "/to/307",
            RedirectAction { scheme: Some(Scheme::Https), ..redirect(StatusCode::TEMPORARY_REDIRECT) },
        ),
        redirecting(
            "/to/308",
            RedirectAction { scheme: Some(Scheme::Http), port: Some(8080), ..redirect(StatusCode::PERMANENT_REDIRECT) },
        ),
    ]
}

/// Responds with the request that it received. Every other request for `/retry` gets 503.
async fn echo_endpoint() -> Endpoint {
    let retry_requests = Arc::new(AtomicUsize::new(0));
    Endpoint::scripted(move |mut stream, _| {
        let retry_requests = Arc::clone(&retry_requests);
        async move {
            while let Some(request) = stream.request().await {
                let is_unavailable =
                    request.contains(" /retry ") && retry_requests.fetch_add(1, SeqCst).is_multiple_of(2);
                let status = if is_unavailable { "503 No" } else { "200 OK" };
                let length = request.len();
                stream
                    .send(format!("HTTP/1.1 {status}\r\nx-gone: 1\r\ncontent-length: {length}\r\n\r\n{request}"))
                    .await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn filters_work_alike_over_every_transport() {
    let (endpoint, mirror_endpoint) = (echo_endpoint().await, Endpoint::ok().await);
    for transport in TRANSPORTS {
        let server =
            transport.start_server(Options::default(), routes(endpoint.address, mirror_endpoint.address)).await;
        let (scheme, port) = if transport.tls { ("https", "443") } else { ("http", "80") };
        for case in CASES {
            let what = format!("{} {} over {transport:?}", case.request.method, case.request.path);
            let expanded = |text: &str| text.replace("SCHEME", scheme).replace("PORT", port);
            let copies_before = mirror_endpoint.log.requests().len();
            let reply = transport.send(&server, &case.request).await.expect(&what);
            assert_eq!(reply.status, case.status, "{what}");
            for (name, value) in case.response_headers {
                assert_eq!(reply.header(name), value.map(expanded), "{what}: {name}");
            }
            assert!(reply.header("x-request-id").is_some(), "{what}");
            assert_eq!(reply.body.lines().next().unwrap_or_default(), case.request_line, "{what}");
            for (name, value) in case.request_headers {
                assert_eq!(header(&reply.body, name).map(str::to_owned), value.map(expanded), "{what}: {name}");
            }
            if let (Some(body), false) = (case.request.body, case.request_line.is_empty()) {
                assert!(reply.body.ends_with(&format!("\r\n\r\n{body}")), "{what}: {}", reply.body);
            }
            if case.request.path == "/mirror" {
                mirror_endpoint.log.wait_for("the copy", |log| log.requests().len() == copies_before + 1).await;
                let copy = mirror_endpoint.log.requests().pop().unwrap();
                assert!(copy.starts_with("POST /mirror HTTP/1.1\r\n") && copy.ends_with("\r\n\r\nhello"), "{copy}");
            }
        }
    }
}
