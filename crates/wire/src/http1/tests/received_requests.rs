//! What is reported about a request: its target, fields and body, and what the client accepts.

use bytes::BytesMut;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue};

use super::super::recycle_map;
use super::*;

/// Reads one head, which must be complete.
pub(super) fn read_head(head: &str) -> Result<ReceivedRequest, InvalidMessage> {
    let mut input = BytesMut::from(head);
    RequestReader::new(LIMITS).read(&mut input).map(|request| request.expect("the head is complete"))
}

#[test]
fn version_and_connection_options_decide_whether_another_request_may_follow() {
    let cases = [
        ("HTTP/1.1", "", true),
        ("HTTP/1.1", "Connection: close\r\n", false),
        ("HTTP/1.1", "connection:CLOSE\r\n", false),
        ("HTTP/1.1", "Connection: keep-alive\r\n", true),
        ("HTTP/1.1", "Connection: x-hop, Close\r\n", false),
        ("HTTP/1.1", "Connection: ,, close ,\r\n", false),
        ("HTTP/1.1", "Connection: close, x-hop\r\n", false),
        ("HTTP/1.1", "Connection: close\r\nConnection: x-hop\r\n", false),
        ("HTTP/1.1", "Connection: x-hop\r\nConnection: close\r\n", false),
        ("HTTP/1.1", "Connection: keep-alive, close\r\n", false),
        ("HTTP/1.1", "Connection: closed\r\n", true),
        ("HTTP/1.1", "X-Connection: close\r\n", true),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: keep-alive\r\n", true),
        ("HTTP/1.0", "Connection: x-hop, Keep-Alive\r\n", true),
        ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
        ("HTTP/1.0", "Connection: keep-alive, x-hop\r\n", true),
        ("HTTP/1.0", "Connection: keep-alives\r\n", false),
    ];
    for (version, fields, is_persistent) in cases {
        let request = read_head(&format!("GET / {version}\r\n{fields}\r\n")).unwrap();
        assert_eq!(request.is_persistent, is_persistent, "{version} {fields}");
    }
}

#[test]
fn framing_fields_decide_the_body() {
    let cases = [
        ("GET", "", "empty", &[][..]),
        ("GET", "Content-Length: 5\r\n", "5 bytes", &["5"]),
        ("HEAD", "Content-Length: 5\r\n", "5 bytes", &["5"]),
        ("POST", "Content-Length: 0\r\n", "empty", &["0"]),
        ("POST", "Content-Length: 5 \t\r\n", "5 bytes", &["5"]),
        ("POST", "Content-Length: 5\r\nContent-Length: 5\r\nContent-Length:5\r\n", "5 bytes", &["5"]),
        ("POST", "Content-Length: 18446744073709551613\r\n", "18446744073709551613 bytes", &["18446744073709551613"]),
        ("POST", "Transfer-Encoding: chunked\r\n", "chunked", &[]),
        ("GET", "transfer-encoding:\t CHUNKED \r\n", "chunked", &[]),
        // The coding before the chunks is left to the caller.
        ("POST", "Transfer-Encoding: gzip, chunked\r\n", "chunked", &[]),
        ("POST", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "chunked", &[]),
    ];
    for (method, fields, body, lengths) in cases {
        let request = read_head(&format!("{method} / HTTP/1.1\r\n{fields}\r\n")).unwrap();
        assert_eq!(describe_body(&request.body), body, "{fields}");
        let kept: Vec<_> = request.head.headers().get_all(CONTENT_LENGTH).into_iter().collect();
        assert_eq!(kept, lengths, "{fields}");
    }
}

#[test]
fn targets_keep_their_form() {
    let cases = [
        ("GET", "/"),
        ("GET", "/a/../b//c?d=e&f=%2F?g"),
        ("GET", "//a.example/b"),
        ("GET", "/a[]|\"{}"),
        ("GET", "http://a.example:8080/b?c"),
        ("OPTIONS", "*"),
        ("CONNECT", "a.example:443"),
    ];
    for (method, target) in cases {
        let request = read_head(&format!("{method} {target} HTTP/1.1\r\n\r\n")).unwrap();
        assert_eq!((request.head.method().as_str(), &*request.head.uri().to_string()), (method, target));
        assert_eq!(request.ambiguity, None, "{target}");
    }
}

#[test]
fn clients_of_http_1_1_may_wait_for_100_continue() {
    let cases = [
        ("HTTP/1.1", "Expect: 100-continue\r\n", true),
        ("HTTP/1.1", "expect: 100-Continue\r\n", true),
        ("HTTP/1.1", "Expect: 100-continue, x\r\n", false),
        ("HTTP/1.1", "Expect: x\r\n", false),
        ("HTTP/1.1", "", false),
        ("HTTP/1.0", "Expect: 100-continue\r\n", false),
    ];
    for (version, field, expected) in cases {
        let request = read_head(&format!("POST / {version}\r\n{field}Content-Length: 1\r\n\r\n")).unwrap();
        assert_eq!(request.expects_continue, expected, "{version} {field}");
    }
}

#[test]
fn clients_may_accept_trailers() {
    let cases = [
        ("TE: trailers\r\n", true),
        ("te: deflate;q=0.5, Trailers\r\n", true),
        ("TE: deflate\r\nTE: trailers\r\n", true),
        ("TE: deflate\r\n", false),
        ("TE:\r\n", false),
        ("Trailer: x\r\n", false),
        ("", false),
    ];
    for (fields, expected) in cases {
        let request = read_head(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).unwrap();
        assert_eq!(request.accepts_trailers, expected, "{fields}");
    }
}

#[test]
fn field_values_are_kept_without_blanks_around_them() {
    let head = b"GET / HTTP/1.1\r\nA:b\r\nA: \t c \t d\t \r\nEmpty:\r\nBlank: \t\r\nText: \xff\xc3\xbc\"\\:\r\n\r\n";
    let fields = &read_all_ways(head, |parts| read_requests(parts, LIMITS)).complete[0].fields;
    let expected: &[(&str, &[u8])] =
        &[("a", b"b"), ("a", b"c \t d"), ("empty", b""), ("blank", b""), ("text", b"\xff\xc3\xbc\"\\:")];
    let read: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(read, expected);
}

#[test]
fn recycled_maps_have_no_earlier_fields() {
    let mut map = HeaderMap::new();
    map.insert("earlier", HeaderValue::from_static("x"));
    recycle_map(map);
    let request = read_head("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(fields_of(request.head.headers()), [("host".to_owned(), "a".to_owned())]);
}
