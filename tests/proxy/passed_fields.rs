//! The fields of responses that are passed on as they were received, without a map: clients get the same either way.
//!
//! Each response is received over two routes, of which one has a filter that removes a field which no response has. Its
//! responses have a map. What arrives is the same but for the order of the fields.

use http::HeaderName;
use portico::http1::NameCase;
use portico::snapshot::rule::{Filters, HeaderEdits};

use crate::harness::{Endpoint, Options, Route, TestServer, forward, route, routes_to, upstream};
use crate::sessions::{cookie, with_session};

/// With fields that stay lines, and with some that do not.
const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nX-Number: aB\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nETag: \"x\"\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX-Request-ID: theirs\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nConnection: close\r\nA: b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 02\r\nA: b\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nConnection: x-hop, close\r\nX-Hop: 1\r\nA: b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nProxy-Connection: close\r\nTE: trailers\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nA:b\r\nC: d \r\nE:\tf\r\nG: \r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\nA: b\nContent-Length: 2\n\nok",
    "HTTP/1.1 200 OK\r\na b: c\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nGrpc-Status: 0\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nPortico-Hops: 3\r\nVia: 1.1 other\r\nX-Forwarded-For: 1\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 301 \r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nA: b\r\n\r\n",
    "HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\nA: b\r\nContent-Length: 2\r\n\r\nno",
    "HTTP/1.1 503 No\r\nRetry-After: 5\r\nContent-Length: 2\r\n\r\nno",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.0 200 OK\r\nA: b\r\n\r\nuntil the end",
    "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
];

const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nconnection: te\r\nte: trailers\r\n\r\n",
    "GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n",
    "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
];

/// The response, with the lines of its head in order and without what differs between two responses.
async fn received(server: &TestServer, request: &str) -> (Vec<String>, String) {
    let response = server.request(request).await;
    let mut lines: Vec<String> = response.head.trim_end().split("\r\n").map(str::to_owned).collect();
    for line in &mut lines {
        match line.split_once(": ") {
            Some((name, "theirs" | "Mon, 01 Jan 2024 00:00:00 GMT")) => *line = format!("{name}: that of the endpoint"),
            Some((name @ ("x-request-id" | "date" | "X-Request-Id" | "Date"), _)) => *line = format!("{name}: ours"),
            _ => {}
        }
    }
    lines.sort();
    let mut text = response.text();
    // Of the responses that Portico generates.
    if let Some(id) = text.find("request_id") {
        text.truncate(id);
    }
    (lines, text)
}

/// Removes a field which no response has.
fn without_absent_field() -> Filters {
    let edits = HeaderEdits { remove: vec![HeaderName::from_static("x-absent")], ..HeaderEdits::default() };
    Filters { response_headers: Some(edits), ..Filters::default() }
}

#[tokio::test]
async fn clients_get_the_same_fields() {
    for name_case in [NameCase::Lower, NameCase::Received] {
        for response in RESPONSES {
            let response = response.to_string();
            let endpoint = Endpoint::scripted(move |mut stream, _| {
                let response = response.clone();
                async move {
                    stream.request().await;
                    stream.send(&*response).await;
                }
            })
            .await;
            let action = || forward(vec![(1, upstream("web", &[endpoint.address]))]);
            let with = |filters| {
                let options = Options { name_case, ..Options::default() };
                TestServer::with_options(options, vec![Route { filters, ..route(action()) }])
            };
            let (passing, with_map) = (with(Filters::default()).await, with(without_absent_field()).await);
            for request in REQUESTS {
                let (found, expected) = (received(&passing, request).await, received(&with_map, request).await);
                assert_eq!(found, expected, "{request}{name_case:?}");
            }
        }
    }
}

/// Over one connection each, so that what one response leaves behind would change the next one.
#[tokio::test]
async fn responses_on_the_same_connections_have_their_own_fields() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        for number in 0.. {
            let Some(request) = stream.request().await else { return };
            let method = request.split(' ').next().unwrap_or_default();
            let body = if method == "HEAD" { "" } else { "ok" };
            let fields = if number % 3 == 2 { "x-odd:1" } else { "x-plain: 1" };
            stream
                .send(format!("HTTP/1.1 200 OK\r\nX-{number}: {number}\r\n{fields}\r\ncontent-length: 2\r\n\r\n{body}"))
                .await;
        }
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    for number in 0..12 {
        let method = if number % 4 == 3 { "HEAD" } else { "GET" };
        let request = format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.send(&request).await;
        let head = client.response_to(&request).await.head;
        let own: Vec<&str> =
            head.lines().filter(|line| line.starts_with("x-") && !line.starts_with("x-request-id")).collect();
        let kind = if number % 3 == 2 { "x-odd: 1" } else { "x-plain: 1" };
        assert_eq!(own, [&*format!("x-{number}: {number}"), kind], "{head}");
    }
}

/// Trap: removing fields from a map changes the order of others, so this also shows that the fields have no map.
#[tokio::test]
async fn passed_fields_keep_their_order() {
    let endpoint = Endpoint::responding_with(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nA: 1\r\nB: 2\r\nA: 3\r\nC: 4\r\n\
         Content-Length: 0\r\n\r\n",
    )
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let head = server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.head;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\na: 1\r\nb: 2\r\na: 3\r\nc: 4\r\nx-request-id: "), "{head}");
}

#[tokio::test]
async fn steps_see_the_fields() {
    let endpoint = Endpoint::responding_with("HTTP/1.1 200 OK\r\nX-Own: 1\r\nContent-Length: 2\r\n\r\nok").await;
    let web = || forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let name = || HeaderName::from_static("x-own");
    let removing = HeaderEdits { remove: vec![name()], ..HeaderEdits::default() };
    let filters = Filters { response_headers: Some(removing), ..Filters::default() };
    for (what, route, has_field, has_cookie) in [
        ("a plain route", route(web()), true, false),
        ("a filter", Route { filters, ..route(web()) }, false, false),
        ("a session", route(with_session(web(), cookie(1))), true, true),
    ] {
        let server = TestServer::with_routes(vec![route]).await;
        let head = server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.head;
        let has = |name: &str| head.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(
            (has("x-own: 1"), has("set-cookie: ")),
            (usize::from(has_field), usize::from(has_cookie)),
            "{what}: {head}"
        );
        assert_eq!((has("x-request-id: "), has("content-length: 2")), (1, 1), "{what}: {head}");
    }
}
