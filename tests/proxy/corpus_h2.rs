//! HTTP/2 requests as an HTTP/1.1 backend receives them. A message that is unambiguous in HTTP/2 must not become
//! ambiguous in HTTP/1.1. The frames are written by hand; the backend is the strict one of `corpus.rs`.

use std::sync::{Arc, Mutex};

use crate::corpus::recording_backend;
use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, RawConnection, frame, header_block};
use crate::harness::{TestServer, routes_to};

/// Name, differences from `GET /` to a.example, the optional body, and the request that the backend receives (None if
/// it must receive none).
type Case = (&'static str, &'static [(&'static str, &'static str)], Option<&'static str>, Option<&'static str>);

#[rustfmt::skip] // A table.
const CASES: &[Case] = &[
    ("plain", &[], None, Some("GET / HTTP/1.1\nhost: a.example")),
    ("dot segments", &[(":path", "/a/../b/%2e%2e/c")], None, Some("GET /c HTTP/1.1\nhost: a.example")),
    ("dots beyond the root", &[(":path", "/../../x")], None, Some("GET /x HTTP/1.1\nhost: a.example")),
    ("an escaped slash", &[(":path", "/a%2f..%2fb")], None, Some("GET /a%2f..%2fb HTTP/1.1\nhost: a.example")),
    ("a NUL that is escaped", &[(":path", "/%00")], None, None),
    ("an invalid escape", &[(":path", "/%zz")], None, None),
    ("a fragment", &[(":path", "/a#b")], None, None),
    ("a fragment after a query", &[(":path", "/a?b#c")], None, None),
    ("an escaped number sign", &[(":path", "/a%23b")], None, Some("GET /a%23b HTTP/1.1\nhost: a.example")),
    ("a number sign in a value", &[("x", "a#b")], None, Some("GET / HTTP/1.1\nhost: a.example\nx: a#b")),
    ("less-than in a path", &[(":path", "/a<b")], None, None),
    ("greater-than in a path", &[(":path", "/a>b")], None, None),
    ("a double quote in a path", &[(":path", "/a\"b")], None, None),
    ("a backtick in a path", &[(":path", "/a`b")], None, None),
    ("less-than in a query", &[(":path", "/?a<b")], None, None),
    ("greater-than in a query", &[(":path", "/?a>b")], None, None),
    ("a double quote in a query", &[(":path", "/?a\"b")], None, None),
    ("a backtick in a query", &[(":path", "/?a`b")], None, Some("GET /?a`b HTTP/1.1\nhost: a.example")),
    ("other delimiters", &[(":path", "/{}|^?{}|^")], None, Some("GET /{}|^?{}|^ HTTP/1.1\nhost: a.example")),
    ("two slashes", &[(":path", "//evil.example/x")], None, Some("GET //evil.example/x HTTP/1.1\nhost: a.example")),
    ("an absolute path", &[(":path", "http://b.example/x")], None, None),
    ("a line end in the path", &[(":path", "/ HTTP/1.1\r\nx: y")], None, None),
    ("a request line in the path", &[(":path", "/x HTTP/1.1")], None, None),
    ("a line end in the method", &[(":method", "GET / HTTP/1.1\r\n")], None, None),
    ("a line end in the authority", &[(":authority", "a\r\nx: y")], None, None),
    ("a port", &[(":authority", "a.example:81")], None, Some("GET / HTTP/1.1\nhost: a.example:81")),
    ("a line end in a value", &[("x", "y\r\ntransfer-encoding: chunked")], None, None),
    ("a line end in a name", &[("x: y\r\nz", "1")], None, None),
    ("a colon in a name", &[("x: y", "1")], None, None),
    ("a coding", &[(":method", "POST"), ("transfer-encoding", "chunked")], Some("0\r\n\r\n"), None),
    ("a connection field", &[("connection", "x-forwarded-for")], None, None),
    ("a length without a body", &[("content-length", "44")], None, None),
    ("a length shorter than the body", &[(":method", "POST"), ("content-length", "1")], Some("abc"), None),
    ("a length longer than the body", &[(":method", "POST"), ("content-length", "4")], Some("abc"), None),
    ("lengths that differ", &[(":method", "POST"), ("content-length", "3"), ("content-length", "4")], Some("abc"), None),
    ("a length with zeros", &[(":method", "POST"), ("content-length", "003")], Some("abc"),
        Some("POST / HTTP/1.1\ncontent-length: 3\nhost: a.example\n| abc")),
    ("a body of known length", &[(":method", "POST"), ("content-length", "3")], Some("abc"),
        Some("POST / HTTP/1.1\ncontent-length: 3\nhost: a.example\n| abc")),
    ("a body of unknown length", &[(":method", "POST")], Some("abc"),
        Some("POST / HTTP/1.1\nhost: a.example\ntransfer-encoding: chunked\n| abc")),
    ("a body with a GET", &[], Some("GET /x HTTP/1.1\r\n\r\n"),
        Some("GET / HTTP/1.1\nhost: a.example\ntransfer-encoding: chunked\n| GET /x HTTP/1.1\\r\\n\\r\\n")),
    ("a body that looks like chunks", &[(":method", "POST")], Some("0\r\n\r\n"),
        Some("POST / HTTP/1.1\nhost: a.example\ntransfer-encoding: chunked\n| 0\\r\\n\\r\\n")),
    ("split cookie fields are joined", &[("cookie", "a=1"), ("cookie", "b=2")], None,
        Some("GET / HTTP/1.1\ncookie: a=1; b=2\nhost: a.example")),
    ("te", &[("te", "trailers")], None, Some("GET / HTTP/1.1\nconnection: TE\nhost: a.example\nte: trailers")),
    ("forged forwarding headers", &[("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6")], None,
        Some("GET / HTTP/1.1\nhost: a.example")),
    ("forged forwarding headers with underscores", &[("x_forwarded_for", "6.6.6.6"), ("x-request_id", "1"), ("x_user", "me")], None,
        Some("GET / HTTP/1.1\nhost: a.example\nx_user: me")),
    ("an expectation", &[(":method", "POST"), ("expect", "100-continue")], Some("abc"),
        Some("POST / HTTP/1.1\nhost: a.example\ntransfer-encoding: chunked\n| abc")),
];

#[tokio::test]
async fn http2_requests_become_one_http1_message_or_none() {
    let received = Arc::new(Mutex::new(Vec::new()));
    let endpoint = recording_backend(&received).await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut failures = Vec::new();
    for &(name, fields, body, expected) in CASES {
        let mut request_fields =
            vec![(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
        for field in fields {
            match request_fields.iter_mut().find(|(name, _)| *name == field.0 && name.starts_with(':')) {
                Some(default_field) => *default_field = *field,
                None => request_fields.push(*field),
            }
        }
        let end_stream = if body.is_none() { END_STREAM } else { 0 };
        let mut bytes = frame(HEADERS, END_HEADERS | end_stream, 1, &header_block(&request_fields));
        if let Some(body) = body {
            bytes.extend(frame(DATA, END_STREAM, 1, body.as_bytes()));
        }
        let mut raw = RawConnection::connect(server.address).await;
        raw.send(bytes).await;
        // Waits for the end of the response, a reset, or the end of the connection.
        while let Some(frame) = raw.next_frame().await {
            if frame.stream == 1
                && (frame.kind == RST_STREAM || frame.flags & END_STREAM != 0 && [DATA, HEADERS].contains(&frame.kind))
            {
                break;
            }
        }
        let messages: Vec<String> = received.lock().unwrap().drain(..).collect();
        let expected: Vec<&str> = expected.into_iter().collect();
        if messages != expected {
            failures.push(format!("{name}: expected {expected:?}, got {messages:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
