//! Every filter and field of a rule over every wire: what the endpoint sees and what the client gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use portico::snapshot::cors::{Cors, List, Origins};
use portico::snapshot::path_edit::PathEdit;
use portico::snapshot::redirect::{Redirect, Scheme};
use portico::snapshot::rule::{Action, Backend, Filters, HeaderEdits, Mirror, Rewrite, Split, Target};
use portico::snapshot::tries::{Retry, Tries};

use crate::harness::{Endpoint, Options, Route, forward, header, route, trying, upstream};
use crate::wire::{ASK, Ask, WIRES};

struct Case {
    ask: Ask,
    status: u16,
    /// Fields of the answer, None for those that must not be there.
    fields: &'static [(&'static str, Option<&'static str>)],
    /// The request line at the endpoint, and fields of it; an empty line if it must not get there.
    line: &'static str,
    sees: &'static [(&'static str, Option<&'static str>)],
}

const ORIGIN: (&str, &str) = ("origin", "https://app.example");
const CASE: Case = Case { ask: ASK, status: 200, fields: &[], line: "", sees: &[] };

/// `SCHEME` and `PORT` stand for those of the wire.
const CASES: &[Case] = &[
    Case {
        ask: Ask {
            path: "/plain?x=%20",
            fields: &[("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6")],
            ..ASK
        },
        line: "GET /plain?x=%20 HTTP/1.1",
        sees: &[
            ("host", Some("a.example")),
            ("x-forwarded-for", Some("127.0.0.1")),
            ("x-forwarded-proto", Some("SCHEME")),
            ("x-forwarded-port", Some("PORT")),
            ("x-forwarded-host", Some("a.example")),
            ("forwarded", None),
        ],
        ..CASE
    },
    Case {
        ask: Ask { path: "/edit", fields: &[("x-set", "client"), ("x-gone", "1")], ..ASK },
        fields: &[("x-set", Some("rule")), ("x-add", Some("backend, rule")), ("x-gone", None)],
        line: "GET /edit HTTP/1.1",
        sees: &[("x-set", Some("backend")), ("x-add", Some("rule")), ("x-gone", None)],
        ..CASE
    },
    Case {
        ask: Ask { path: "/prefix/x?y=1", ..ASK },
        line: "GET /v2/x?y=1 HTTP/1.1",
        sees: &[("host", Some("inner.example")), ("x-forwarded-host", Some("a.example"))],
        ..CASE
    },
    Case { ask: Ask { path: "/full/x?y=1", ..ASK }, line: "GET /all?y=1 HTTP/1.1", ..CASE },
    Case {
        ask: Ask { method: "POST", path: "/mirror", body: Some("hello"), ..ASK },
        line: "POST /mirror HTTP/1.1",
        ..CASE
    },
    Case {
        ask: Ask {
            method: "OPTIONS",
            path: "/cors",
            fields: &[ORIGIN, ("access-control-request-method", "PUT")],
            ..ASK
        },
        fields: &[
            ("access-control-allow-origin", Some("https://app.example")),
            ("access-control-allow-methods", Some("PUT")),
            ("access-control-max-age", Some("5")),
        ],
        ..CASE
    },
    Case {
        ask: Ask { path: "/cors", fields: &[ORIGIN], ..ASK },
        fields: &[("access-control-allow-origin", Some("https://app.example")), ("access-control-max-age", None)],
        line: "GET /cors HTTP/1.1",
        ..CASE
    },
    Case { ask: Ask { path: "/retry", ..ASK }, line: "GET /retry HTTP/1.1", ..CASE },
    Case {
        ask: Ask { method: "PUT", path: "/retry", body: Some("hello"), ..ASK },
        line: "PUT /retry HTTP/1.1",
        ..CASE
    },
    Case {
        ask: Ask { path: "/to/301?q=1", ..ASK },
        status: 301,
        fields: &[("location", Some("SCHEME://a.example/new?q=1"))],
        ..CASE
    },
    Case {
        ask: Ask { path: "/to/302", ..ASK },
        status: 302,
        fields: &[("location", Some("SCHEME://b.example/to/302"))],
        ..CASE
    },
    Case {
        ask: Ask { path: "/to/303/x", ..ASK },
        status: 303,
        fields: &[("location", Some("SCHEME://a.example/v2/x"))],
        ..CASE
    },
    Case {
        ask: Ask { path: "/to/307", ..ASK },
        status: 307,
        fields: &[("location", Some("https://a.example/to/307"))],
        ..CASE
    },
    Case {
        ask: Ask { path: "/to/308", ..ASK },
        status: 308,
        fields: &[("location", Some("http://a.example:8080/to/308"))],
        ..CASE
    },
];

fn redirect(status: StatusCode) -> Redirect {
    Redirect { scheme: None, host: None, path: None, port: None, status }
}

fn edits(level: &'static str) -> HeaderEdits {
    let field = |name| (HeaderName::from_static(name), HeaderValue::from_static(level));
    HeaderEdits {
        set: vec![field("x-set")],
        add: vec![field("x-add")],
        remove: vec![HeaderName::from_static("x-gone")],
    }
}

/// Both levels set; only the rule adds to the request, so that the order of two is a question of the answer.
fn edited(address: std::net::SocketAddr) -> Route {
    let of_request =
        |level| HeaderEdits { add: if level == "rule" { edits(level).add } else { vec![] }, ..edits(level) };
    let filters = |level| Filters {
        request_headers: Some(of_request(level)),
        response_headers: Some(edits(level)),
        ..Filters::default()
    };
    let target = Target::Upstream(upstream("web", &[address]));
    let backend = Backend { weight: 1, filters: filters("backend"), target };
    Route { path: "/edit", filters: filters("rule"), ..route(Action::Forward(Split::new(vec![backend]).unwrap())) }
}

fn routes(address: std::net::SocketAddr, copies: std::net::SocketAddr) -> Vec<Route> {
    let web = || forward(vec![(1, upstream("web", &[address]))]);
    let rule = |path, filters| Route { path, filters, ..route(web()) };
    let rewrite = |host: Option<&'static str>, path| Filters {
        rewrite: Some(Rewrite { host: host.map(HeaderValue::from_static), path: Some(path) }),
        ..Filters::default()
    };
    let cors = Cors {
        origins: Origins::Any,
        credentials: false,
        methods: List::of(["PUT"]).unwrap(),
        headers: List::None,
        expose: List::None,
        max_age: HeaderValue::from(5),
    };
    let mirror = Mirror { upstream: upstream("copies", &[copies]), share: 1, of: 1 };
    let retry = Retry { attempts: 1, codes: [503].into(), backoff: Duration::from_millis(1) };
    let tries = Tries { retry: Some(retry), ..Tries::default() };
    let to = |path, redirect| Route { path, ..route(Action::Redirect(redirect)) };
    vec![
        rule("/plain", Filters::default()),
        edited(address),
        rule("/prefix", rewrite(Some("inner.example"), PathEdit::prefix("/prefix", "/v2"))),
        rule("/full", rewrite(None, PathEdit::full("/all"))),
        rule("/mirror", Filters { mirrors: [mirror].into(), ..Filters::default() }),
        rule("/cors", Filters { cors: Some(Box::new(cors)), ..Filters::default() }),
        Route { path: "/retry", ..route(trying(web(), tries)) },
        to("/to/301", Redirect { path: Some(PathEdit::full("/new")), ..redirect(StatusCode::MOVED_PERMANENTLY) }),
        to("/to/302", Redirect { host: Some("b.example".into()), ..redirect(StatusCode::FOUND) }),
        to("/to/303", Redirect { path: Some(PathEdit::prefix("/to/303", "/v2")), ..redirect(StatusCode::SEE_OTHER) }),
        to("/to/307", Redirect { scheme: Some(Scheme::Https), ..redirect(StatusCode::TEMPORARY_REDIRECT) }),
        to(
            "/to/308",
            Redirect { scheme: Some(Scheme::Http), port: Some(8080), ..redirect(StatusCode::PERMANENT_REDIRECT) },
        ),
    ]
}

/// Answers with what it got. Of requests that are to be tried again it refuses every other.
async fn web() -> Endpoint {
    let refused = Arc::new(AtomicUsize::new(0));
    Endpoint::scripted(move |mut stream, _| {
        let refused = Arc::clone(&refused);
        async move {
            while let Some(request) = stream.request().await {
                let again = request.contains(" /retry ") && refused.fetch_add(1, SeqCst).is_multiple_of(2);
                let status = if again { "503 No" } else { "200 OK" };
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
async fn every_filter_works_alike_over_every_wire() {
    let (endpoint, copies) = (web().await, Endpoint::ok().await);
    for wire in WIRES {
        let gate = wire.open(Options::default(), routes(endpoint.address, copies.address)).await;
        let (scheme, port) = if wire.tls { ("https", "443") } else { ("http", "80") };
        for case in CASES {
            let what = format!("{} {} over {wire:?}", case.ask.method, case.ask.path);
            let meant = |text: &str| text.replace("SCHEME", scheme).replace("PORT", port);
            let copied = copies.log.requests().len();
            let reply = wire.ask(&gate, &case.ask).await.expect(&what);
            assert_eq!(reply.status, case.status, "{what}");
            for (name, value) in case.fields {
                assert_eq!(reply.field(name), value.map(meant), "{what}: {name}");
            }
            assert!(reply.field("x-request-id").is_some(), "{what}");
            assert_eq!(reply.body.lines().next().unwrap_or_default(), case.line, "{what}");
            for (name, value) in case.sees {
                assert_eq!(header(&reply.body, name).map(str::to_owned), value.map(meant), "{what}: {name}");
            }
            if let (Some(body), false) = (case.ask.body, case.line.is_empty()) {
                assert!(reply.body.ends_with(&format!("\r\n\r\n{body}")), "{what}: {}", reply.body);
            }
            if case.ask.path == "/mirror" {
                copies.log.until("the copy", |log| log.requests().len() == copied + 1).await;
                let copy = copies.log.requests().pop().unwrap();
                assert!(copy.starts_with("POST /mirror HTTP/1.1\r\n") && copy.ends_with("\r\n\r\nhello"), "{copy}");
            }
        }
    }
}
