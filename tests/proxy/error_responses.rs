//! Error responses that the proxy generates: which requests get them, and in which format.

use std::sync::Arc;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use portico::bind_address::BindAddress;
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::redirect::RedirectAction;
use portico::snapshot::rule::{Action, Filters, HeaderEdits};
use portico::snapshot::{Bind, Snapshot};

use crate::harness::{
    Endpoint, Options, Route, TestServer, forward, listener, reserve_address, route, routes_to, upstream,
};
use crate::transport::{GET_ROOT, Transport, TransportRequest};

// docs/kong-compatibility.md, 3.9
#[tokio::test]
async fn no_route_error_follows_the_accept_header() {
    let server = TestServer::with_routes(vec![]).await;
    let cases = [
        (
            "",
            "application/json; charset=utf-8",
            r#"{"message":"no Route matched with those values","request_id":"ID"}"#,
        ),
        ("accept: text/html\r\n", "text/html; charset=utf-8", "<p>request_id: ID</p>"),
        ("accept: text/xml\r\n", "application/xml; charset=utf-8", "<requestid>ID</requestid>"),
        ("accept: text/plain\r\n", "text/plain; charset=utf-8", "no Route matched with those values\nrequest_id: ID\n"),
    ];
    for (accept, content_type, body) in cases {
        let response = server.request(&format!("GET / HTTP/1.1\r\nhost: a.example\r\n{accept}\r\n")).await;
        assert_eq!(response.status, 404);
        assert_eq!(response.header("content-type"), Some(content_type));
        let body = body.replace("ID", response.header("x-request-id").unwrap());
        assert!(response.text().contains(&body), "{}", response.text());
    }
}

// docs/kong-compatibility.md, 3.9
#[tokio::test]
async fn head_request_gets_an_error_without_body() {
    let server = TestServer::with_routes(vec![]).await;
    let mut client = server.connect().await;
    let request = "HEAD / HTTP/1.1\r\nhost: a.example\r\n\r\n";
    client.send(request).await;
    let response = client.response_to(request).await;
    assert_eq!(response.status, 404);
    assert_eq!(response.header("content-length"), Some("96"));
    // The next response follows immediately, so the first response had no body.
    let response = client.get("/").await;
    assert_eq!((response.status, response.body.len()), (404, 96));
}

// docs/kong-compatibility.md, 3.9
#[tokio::test]
async fn grpc_clients_get_a_grpc_status() {
    let server = TestServer::with_routes(vec![]).await;
    for (http2, expected) in [(false, (404, None)), (true, (200, Some("12")))] {
        let transport = Transport { http2, tls: false };
        let fields = &[("content-type", "application/grpc")];
        let request = TransportRequest { method: "POST", path: "/a.B/C", fields, body: Some(""), ..GET_ROOT };
        let response = transport.send(&server, &request).await.unwrap();
        assert_eq!((response.status, response.header("grpc-status").as_deref()), expected, "{http2}");
        let message = response.header("grpc-message");
        assert_eq!(message.as_deref(), http2.then_some("no Route matched with those values"));
    }
}

#[tokio::test]
async fn response_filters_do_not_change_generated_errors() {
    let filters = Filters {
        response_headers: Some(portico::snapshot::rule::HeaderEdits {
            remove: vec![HeaderName::from_static("x-request-id")],
            ..Default::default()
        }),
        ..Filters::default()
    };
    let server =
        TestServer::with_routes(vec![Route { filters, ..route(forward(vec![(1, upstream("none", &[]))])) }]).await;
    let response = server.request("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(response.status, 503);
    assert_eq!(
        response.text(),
        format!(
            r#"{{"message":"The upstream server is currently unavailable","request_id":"{}"}}"#,
            response.header("x-request-id").unwrap()
        )
    );
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[tokio::test]
async fn response_carries_the_request_id_unless_overridden() {
    let edits = |set: &[&'static str], remove: &[&'static str]| Filters {
        response_headers: Some(HeaderEdits {
            set: set.iter().map(|value| (X_REQUEST_ID, HeaderValue::from_static(value))).collect(),
            remove: remove.iter().map(|name| HeaderName::from_static(name)).collect(),
            ..HeaderEdits::default()
        }),
        ..Filters::default()
    };
    let plain = Endpoint::ok().await;
    let with_request_id =
        Endpoint::responding_with("HTTP/1.1 200 OK\r\nx-request-id: from-backend\r\ncontent-length: 0\r\n\r\n").await;
    let web = |endpoint: &Endpoint| forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let redirect = || Action::Redirect(RedirectAction::new(StatusCode::FOUND));
    let cases = [
        ("forwarded", web(&plain), Filters::default(), Some("from-client")),
        ("set by the backend", web(&with_request_id), Filters::default(), Some("from-backend")),
        ("redirected", redirect(), Filters::default(), Some("from-client")),
        ("set by a filter", web(&with_request_id), edits(&["set"], &[]), Some("set")),
        ("removed by a filter", web(&plain), edits(&[], &["x-request-id"]), None),
        ("removed from a redirect by a filter", redirect(), edits(&[], &["x-request-id"]), None),
    ];
    for (what, action, filters, expected) in cases {
        let server = TestServer::with_options(
            Options { trusted: vec!["127.0.0.1/32"], ..Options::default() },
            vec![Route { filters, ..route(action) }],
        )
        .await;
        let response = server.request("GET / HTTP/1.1\r\nhost: a.example\r\nx-request-id: from-client\r\n\r\n").await;
        assert_eq!(response.header("x-request-id"), expected, "{what}");
    }
}

/// RFC 9112, section 3.3: without a Host field, the authority is the address that the client connected to.
#[tokio::test]
async fn redirect_without_host_uses_the_local_address() {
    let redirect = RedirectAction::new(StatusCode::FOUND);
    let server = TestServer::with_routes(vec![route(Action::Redirect(redirect))]).await;
    for (request, location) in [
        ("GET //evil.example/x HTTP/1.0\r\n\r\n", "http://127.0.0.1//evil.example/x"),
        ("GET /x HTTP/1.0\r\nhost: a.example\r\n\r\n", "http://a.example/x"),
    ] {
        let response = server.request(request).await;
        assert_eq!((response.status, response.header("location")), (302, Some(location)), "{request:?}");
    }
}

#[tokio::test]
async fn routes_are_isolated_by_listener_hostname() {
    let (address, reserved) = reserve_address();
    let (wide, narrow, inner) = (Endpoint::ok().await, Endpoint::ok().await, Endpoint::ok().await);
    let action_to = |endpoint: &Endpoint| routes_to(endpoint.address).remove(0).action;
    let listeners = HostMap::new([
        (HostPattern::Any, Arc::new(listener(vec![route(action_to(&wide))]))),
        (
            HostPattern::parse(Some("*.example")),
            Arc::new(listener(vec![
                Route { path: "/narrow", ..route(action_to(&narrow)) },
                Route { host: "a.example", path: "/inner", ..route(action_to(&inner)) },
            ])),
        ),
    ]);
    let snapshot = Snapshot {
        binds: [(BindAddress::tcp(address), Arc::new(Bind::with_http(listeners, None)))].into(),
        ..Snapshot::default()
    };
    let server = TestServer::start(Options::default(), address, reserved, snapshot);
    server.proxy.reconcile().await;
    let cases = [
        ("other", "/x", 200, [1, 0, 0]),
        // The listener for all hosts has a matching route, but `b.example` belongs to the `*.example` listener.
        ("b.example", "/x", 404, [1, 0, 0]),
        ("B.Example:81", "/narrow", 200, [1, 1, 0]),
        ("a.example", "/inner", 200, [1, 1, 1]),
        ("a.example", "/narrow", 200, [1, 2, 1]),
        ("a.example", "/x", 404, [1, 2, 1]),
    ];
    for (host, path, status, request_counts) in cases {
        let response = server.request(&format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(response.status, status, "{host}{path}");
        assert_eq!(
            [&wide, &narrow, &inner].map(|endpoint| endpoint.log.requests().len()),
            request_counts,
            "{host}{path}"
        );
    }
}

#[tokio::test]
async fn error_response_arrives_despite_an_unread_body() {
    let server = TestServer::with_routes(vec![]).await;
    for size in [10, 300_000, 5_000_000] {
        let mut client = server.connect().await;
        let head = format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {size}\r\n\r\n");
        client.send(head).await;
        let (mut reader, mut writer) = client.socket.split();
        // The client writes its whole body before reading. A failed write must not lose the response.
        let write = async {
            let body = vec![b'x'; size];
            drop(tokio::io::AsyncWriteExt::write_all(&mut writer, &body).await);
        };
        let mut response = vec![0; 12];
        let read = tokio::io::AsyncReadExt::read_exact(&mut reader, &mut response);
        let (_, read) =
            crate::harness::with_timeout("the upload and the response", async { tokio::join!(write, read) }).await;
        read.unwrap();
        assert_eq!(response, b"HTTP/1.1 404", "{size}");
    }
}
