//! Written heads, byte by byte.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{Empty, Full};

use super::super::{AddedFields, BodyLength, NameCase, ResponseContext, write_request_head, write_response_head};
use super::scripts::{BodyStep, ScriptedBody};
use super::*;
use crate::hop_count::HopCount;

static DATE: HeaderValue = HeaderValue::from_static("now");

const HTTP_1_1: ResponseContext<'_> = ResponseContext {
    version: Version::HTTP_11,
    is_head: false,
    is_persistent: true,
    accepts_trailers: true,
    date: &DATE,
    passed: None,
};
const HTTP_1_0: ResponseContext<'_> = ResponseContext { version: Version::HTTP_10, ..HTTP_1_1 };
const HEAD: ResponseContext<'_> = ResponseContext { is_head: true, ..HTTP_1_1 };
/// The connection is closed after the response.
const LAST: ResponseContext<'_> = ResponseContext { is_persistent: false, ..HTTP_1_1 };
const LAST_OF_HTTP_1_0: ResponseContext<'_> = ResponseContext { is_persistent: false, ..HTTP_1_0 };
const WITHOUT_TRAILERS: ResponseContext<'_> = ResponseContext { accepts_trailers: false, ..HTTP_1_1 };

type FieldPairs<'f> = &'f [(&'static str, &'static str)];

fn map(fields: FieldPairs<'_>) -> HeaderMap {
    let pairs = fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name, value);
    }
    map
}

/// The head, with LF as its line ends, its framing, and whether another request may follow.
fn request_head(method: &str, target: &str, fields: FieldPairs<'_>, length: BodyLength) -> (String, String, bool) {
    let mut request = Request::builder().method(method).uri(target).body(()).unwrap();
    *request.headers_mut() = map(fields);
    let mut head = BytesMut::new();
    let (framing, is_persistent) = write_request_head(&request, length, AddedFields::default(), &mut head);
    (with_line_feeds(&head), format!("{framing:?}"), is_persistent)
}

/// The same of a response.
fn response_head(
    status: u16,
    fields: FieldPairs<'_>,
    length: BodyLength,
    context: ResponseContext<'_>,
) -> (String, String, bool) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = map(fields);
    let mut head = BytesMut::new();
    let (framing, is_persistent) = write_response_head(&response, length, context, &mut head);
    (with_line_feeds(&head), format!("{framing:?}"), is_persistent)
}

fn with_line_feeds(head: &[u8]) -> String {
    let text = str::from_utf8(head).unwrap();
    assert_eq!(text.matches("\r\n").count(), text.matches('\n').count(), "{text:?}");
    text.replace("\r\n", "\n")
}

#[test]
fn request_heads_describe_their_body() {
    let cases: &[(&str, FieldPairs<'_>, BodyLength, &str, &str)] = &[
        ("GET", &[("host", "a"), ("x", "")], BodyLength::None, "GET /x?y HTTP/1.1\nhost: a\nx: \n\n", "None"),
        (
            "POST",
            &[("host", "a"), ("content-length", "0")],
            BodyLength::None,
            "POST /x?y HTTP/1.1\nhost: a\ncontent-length: 0\n\n",
            "None",
        ),
        ("POST", &[("transfer-encoding", "chunked")], BodyLength::None, "POST /x?y HTTP/1.1\n\n", "None"),
        ("PUT", &[], BodyLength::Bytes(5), "PUT /x?y HTTP/1.1\ncontent-length: 5\n\n", "Length(5)"),
        ("PUT", &[], BodyLength::Bytes(0), "PUT /x?y HTTP/1.1\ncontent-length: 0\n\n", "Length(0)"),
        (
            "PUT",
            &[("content-length", "6"), ("a", "b"), ("content-length", "x"), ("transfer-encoding", "chunked")],
            BodyLength::Bytes(5),
            "PUT /x?y HTTP/1.1\na: b\ncontent-length: 5\n\n",
            "Length(5)",
        ),
        (
            "PUT",
            &[("content-length", "6"), ("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")],
            BodyLength::Unknown,
            "PUT /x?y HTTP/1.1\ntransfer-encoding: chunked\n\n",
            "Chunked { trailers: [] }",
        ),
        (
            "GET",
            &[("trailer", "x-a,, X-B , b@d"), ("trailer", "x-c")],
            BodyLength::Unknown,
            "GET /x?y HTTP/1.1\ntrailer: x-a,, X-B , b@d\ntrailer: x-c\ntransfer-encoding: chunked\n\n",
            "Chunked { trailers: [\"x-a\", \"x-b\", \"x-c\"] }",
        ),
        (
            "GET",
            &[("a", "1"), ("b", "2"), ("a", "3")],
            BodyLength::None,
            "GET /x?y HTTP/1.1\na: 1\na: 3\nb: 2\n\n",
            "None",
        ),
    ];
    for (method, fields, length, head, framing) in cases {
        let expected = ((*head).to_owned(), (*framing).to_owned(), true);
        assert_eq!(request_head(method, "/x?y", fields, *length), expected, "{method} {fields:?} {length:?}");
    }
}

#[test]
fn requests_without_a_body_have_no_other_length() {
    for (method, value) in [("POST", "5"), ("GET", "x")] {
        let fields: FieldPairs<'_> = &[("content-length", value)];
        let (head, ..) = request_head(method, "/", fields, BodyLength::None);
        let expected = [format!("{method} / HTTP/1.1\n\n"), format!("{method} / HTTP/1.1\ncontent-length: 0\n\n")];
        assert!(expected.contains(&head), "{head:?}");
    }
}

#[test]
fn requests_may_close_the_connection() {
    let cases: &[(FieldPairs<'_>, bool)] = &[
        (&[("connection", "x-hop, Close")], false),
        (&[("connection", "close"), ("connection", "x-hop")], false),
        (&[("connection", "x-hop"), ("connection", "keep-alive")], true),
        (&[("x-connection", "close")], true),
    ];
    for (fields, is_persistent) in cases {
        let (head, _, persists) = request_head("GET", "/", fields, BodyLength::None);
        let written: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        assert_eq!((head, persists), (format!("GET / HTTP/1.1\n{written}\n"), *is_persistent));
    }
}

#[test]
fn targets_are_written_in_their_form() {
    let cases = [
        ("GET", "/", "/"),
        ("GET", "/a//b/../%2f?c=d?e", "/a//b/../%2f?c=d?e"),
        ("OPTIONS", "*", "*"),
        ("CONNECT", "a.example:443", "a.example:443"),
        ("GET", "http://a.example:8080/b?c", "http://a.example:8080/b?c"),
        ("GET", "http://a.example", "http://a.example/"),
    ];
    for (method, target, written) in cases {
        let (head, ..) = request_head(method, target, &[], BodyLength::None);
        assert_eq!(head, format!("{method} {written} HTTP/1.1\n\n"));
    }
}

#[test]
fn requests_of_other_versions_are_written_as_http_1_1() {
    for version in [Version::HTTP_10, Version::HTTP_2] {
        let request = Request::builder().version(version).uri(Uri::from_static("/")).body(()).unwrap();
        let mut head = BytesMut::from("earlier");
        write_request_head(&request, BodyLength::None, AddedFields::default(), &mut head);
        assert_eq!(head, "earlierGET / HTTP/1.1\r\n\r\n", "appended");
    }
}

#[test]
fn hops_replace_what_the_header_has() {
    let fields = [("portico-hops", "0"), ("accept", "*/*"), ("portico_hops", "0"), ("portico-hops-too", "0")];
    for (name_case, hops, expected) in [
        (NameCase::Lower, 0, ""),
        (NameCase::Lower, 1, "portico-hops: 1\r\n"),
        (NameCase::Lower, 10, "portico-hops: 10\r\n"),
        (NameCase::Received, 0, ""),
        (NameCase::Received, 1, "Portico-Hops: 1\r\n"),
        (NameCase::Received, 255, "Portico-Hops: 255\r\n"),
    ] {
        let reader = RequestReader::new(LIMITS).with_name_case(name_case);
        let mut request = { reader }.read(&mut "GET / HTTP/1.1\r\n\r\n".into()).unwrap().unwrap().head;
        *request.headers_mut() = map(&fields);
        let mut head = BytesMut::new();
        let added = AddedFields { hops: HopCount::new(hops), ..AddedFields::default() };
        write_request_head(&request, BodyLength::None, added, &mut head);
        let names =
            if name_case == NameCase::Lower { ["accept", "portico-hops-too"] } else { ["Accept", "Portico-Hops-Too"] };
        let expected = format!("GET / HTTP/1.1\r\n{}: */*\r\n{}: 0\r\n{expected}\r\n", names[0], names[1]);
        assert_eq!(String::from_utf8_lossy(&head), expected, "{name_case:?} {hops}");
    }
}

#[test]
fn values_are_written_as_they_are() {
    let mut request = Request::new(());
    request.headers_mut().insert("text", HeaderValue::from_bytes(b"\xff\t\xc3").unwrap());
    let mut head = BytesMut::new();
    write_request_head(&request, BodyLength::None, AddedFields::default(), &mut head);
    assert_eq!(&*head, b"GET / HTTP/1.1\r\ntext: \xff\t\xc3\r\n\r\n");
}

#[test]
fn response_heads_describe_their_body() {
    use BodyLength::{Bytes, None, Unknown};
    let cases: &[(u16, FieldPairs<'_>, BodyLength, ResponseContext<'_>, &str, &str)] = &[
        (200, &[("a", "b")], None, HTTP_1_1, "HTTP/1.1 200 OK\na: b\ncontent-length: 0\ndate: now\n\n", "None"),
        (404, &[], Bytes(5), HTTP_1_1, "HTTP/1.1 404 Not Found\ncontent-length: 5\ndate: now\n\n", "Length(5)"),
        (200, &[("date", "x")], Bytes(5), HTTP_1_1, "HTTP/1.1 200 OK\ndate: x\ncontent-length: 5\n\n", "Length(5)"),
        (
            200,
            &[("content-length", "6"), ("content-length", "x"), ("transfer-encoding", "chunked"), ("a", "b")],
            Bytes(5),
            HTTP_1_1,
            "HTTP/1.1 200 OK\na: b\ncontent-length: 5\ndate: now\n\n",
            "Length(5)",
        ),
        (
            200,
            &[("content-length", "6"), ("transfer-encoding", "chunked")],
            None,
            HTTP_1_1,
            "HTTP/1.1 200 OK\ncontent-length: 0\ndate: now\n\n",
            "None",
        ),
        (
            200,
            &[("transfer-encoding", "gzip"), ("content-length", "x"), ("trailer", "Sum,x-b")],
            Unknown,
            HTTP_1_1,
            "HTTP/1.1 200 OK\ntrailer: Sum,x-b\ntransfer-encoding: chunked\ndate: now\n\n",
            "Chunked { trailers: [\"sum\", \"x-b\"] }",
        ),
        (
            200,
            &[("trailer", "sum")],
            Unknown,
            WITHOUT_TRAILERS,
            "HTTP/1.1 200 OK\ntrailer: sum\ntransfer-encoding: chunked\ndate: now\n\n",
            "Chunked { trailers: [] }",
        ),
        (
            200,
            &[("trailer", "sum")],
            Bytes(5),
            HTTP_1_1,
            "HTTP/1.1 200 OK\ntrailer: sum\ncontent-length: 5\ndate: now\n\n",
            "Length(5)",
        ),
        (204, &[("trailer", "sum")], Unknown, HTTP_1_1, "HTTP/1.1 204 No Content\ndate: now\n\n", "None"),
        (304, &[("trailer", "sum")], Unknown, HTTP_1_1, "HTTP/1.1 304 Not Modified\ndate: now\n\n", "None"),
        (
            200,
            &[("content-length", "x"), ("content-length", "6"), ("content-length", "y")],
            Unknown,
            HTTP_1_1,
            "HTTP/1.1 200 OK\ncontent-length: 6\ndate: now\n\n",
            "Length(6)",
        ),
        (
            200,
            &[],
            Bytes(5),
            HTTP_1_0,
            "HTTP/1.0 200 OK\ncontent-length: 5\nconnection: keep-alive\ndate: now\n\n",
            "Length(5)",
        ),
        (200, &[("trailer", "sum")], Unknown, HTTP_1_0, "HTTP/1.0 200 OK\ndate: now\n\n", "UntilClose"),
        (
            200,
            &[("content-length", "6")],
            Unknown,
            HTTP_1_0,
            "HTTP/1.0 200 OK\ncontent-length: 6\nconnection: keep-alive\ndate: now\n\n",
            "Length(6)",
        ),
        (200, &[("content-length", "6")], None, HEAD, "HTTP/1.1 200 OK\ncontent-length: 6\ndate: now\n\n", "None"),
        (200, &[("content-length", "6")], Bytes(5), HEAD, "HTTP/1.1 200 OK\ncontent-length: 6\ndate: now\n\n", "None"),
        (200, &[], Bytes(5), HEAD, "HTTP/1.1 200 OK\ncontent-length: 5\ndate: now\n\n", "None"),
        (200, &[("trailer", "sum")], Unknown, HEAD, "HTTP/1.1 200 OK\ndate: now\n\n", "None"),
        (200, &[], None, HEAD, "HTTP/1.1 200 OK\ndate: now\n\n", "None"),
        (
            204,
            &[("content-length", "0"), ("transfer-encoding", "chunked")],
            None,
            HTTP_1_1,
            "HTTP/1.1 204 No Content\ndate: now\n\n",
            "None",
        ),
        (204, &[], Bytes(5), HTTP_1_1, "HTTP/1.1 204 No Content\ndate: now\n\n", "None"),
        (204, &[], Unknown, HTTP_1_0, "HTTP/1.0 204 No Content\nconnection: keep-alive\ndate: now\n\n", "None"),
        (
            304,
            &[("content-length", "6")],
            None,
            HTTP_1_1,
            "HTTP/1.1 304 Not Modified\ncontent-length: 6\ndate: now\n\n",
            "None",
        ),
        (304, &[("etag", "\"a\"")], None, HTTP_1_1, "HTTP/1.1 304 Not Modified\netag: \"a\"\ndate: now\n\n", "None"),
        (304, &[], Unknown, HTTP_1_1, "HTTP/1.1 304 Not Modified\ndate: now\n\n", "None"),
        (
            101,
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", "0")],
            None,
            HTTP_1_1,
            "HTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: websocket\ndate: now\n\n",
            "None",
        ),
        (
            101,
            &[("connection", "upgrade")],
            Unknown,
            LAST,
            "HTTP/1.1 101 Switching Protocols\nconnection: upgrade\ndate: now\n\n",
            "None",
        ),
        (205, &[], None, HTTP_1_1, "HTTP/1.1 205 Reset Content\ncontent-length: 0\ndate: now\n\n", "None"),
        (599, &[], Bytes(1), HTTP_1_1, "HTTP/1.1 599 <none>\ncontent-length: 1\ndate: now\n\n", "Length(1)"),
    ];
    for (status, fields, length, context, head, framing) in cases {
        let (written, its_framing, _) = response_head(*status, fields, *length, *context);
        assert_eq!((&*written, &*its_framing), (*head, *framing), "{status} {fields:?} {length:?} {context:?}");
    }
}

#[test]
fn connection_fields_agree_with_what_follows() {
    const CLOSE: (&str, &str) = ("connection", "x-hop, Close");
    const KEEP: (&str, &str) = ("connection", "Keep-Alive");
    let cases: &[(FieldPairs<'_>, BodyLength, ResponseContext<'_>, &str, bool)] = &[
        (&[], BodyLength::Bytes(1), HTTP_1_1, "", true),
        (&[], BodyLength::Bytes(1), LAST, "connection: close\n", false),
        (&[CLOSE], BodyLength::Bytes(1), HTTP_1_1, "connection: x-hop, Close\n", false),
        (&[CLOSE], BodyLength::Bytes(1), LAST, "connection: x-hop, Close\n", false),
        (&[KEEP], BodyLength::Bytes(1), HTTP_1_1, "connection: Keep-Alive\n", true),
        (&[], BodyLength::Bytes(1), HTTP_1_0, "connection: keep-alive\n", true),
        (&[], BodyLength::Bytes(1), LAST_OF_HTTP_1_0, "", false),
        (&[CLOSE], BodyLength::Bytes(1), HTTP_1_0, "connection: x-hop, Close\n", false),
        (&[KEEP], BodyLength::Bytes(1), HTTP_1_0, "connection: Keep-Alive\n", true),
        (&[], BodyLength::Unknown, HTTP_1_0, "", false),
        (&[], BodyLength::Unknown, HTTP_1_1, "", true),
        (&[], BodyLength::None, HEAD, "", true),
    ];
    for (fields, length, context, expected, is_persistent) in cases {
        let (head, _, persists) = response_head(200, fields, *length, *context);
        let connection: String = head.split_inclusive('\n').filter(|line| line.starts_with("connection:")).collect();
        assert_eq!((&*connection, persists), (*expected, *is_persistent), "{fields:?} {length:?} {context:?}");
    }
}

#[test]
fn reasons_are_written_as_they_were_read() {
    for reason in ["Fine", "", "a \t b"] {
        let mut response = Response::new(());
        response.extensions_mut().insert(ReasonPhrase::try_from(reason.as_bytes().to_vec()).unwrap());
        let mut head = BytesMut::new();
        write_response_head(&response, BodyLength::None, HTTP_1_1, &mut head);
        assert_eq!(with_line_feeds(&head), format!("HTTP/1.1 200 {reason}\ncontent-length: 0\ndate: now\n\n"));
    }
}

#[test]
fn the_length_of_a_body_is_what_it_reports() {
    let unknown = ScriptedBody::new([BodyStep::Data(Bytes::from_static(b"ab"))]);
    assert_eq!(BodyLength::of(&Empty::<Bytes>::new()), BodyLength::None);
    assert_eq!(BodyLength::of(&Full::new(Bytes::from_static(b"abc"))), BodyLength::Bytes(3));
    assert_eq!(BodyLength::of(&unknown), BodyLength::Unknown);
    assert_eq!(BodyLength::of(&unknown.with_length(2)), BodyLength::Bytes(2));
}
