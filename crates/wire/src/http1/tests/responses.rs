//! Heads of responses: their bodies, informational responses before them, and which are rejected.

use bytes::BytesMut;
use http::StatusCode;

use super::ReadRejection::Invalid;
use super::*;

/// Reads one head, which must be complete.
fn read_head(method: &Method, head: &str) -> Result<ReceivedResponse, InvalidMessage> {
    let mut input = BytesMut::from(head);
    ResponseReader::new(LIMITS, method).read(&mut input).map(|response| response.expect("the head is complete"))
}

#[test]
fn status_method_and_fields_decide_the_body() {
    let cases = [
        (Method::GET, "200", "", "until close"),
        (Method::GET, "200", "Content-Length: 5\r\n", "5 bytes"),
        (Method::GET, "200", "Content-Length: 0\r\n", "empty"),
        (Method::GET, "200", "Content-Length: 5\r\nContent-Length: 5\r\n", "5 bytes"),
        (Method::GET, "200", "Transfer-Encoding: chunked\r\n", "chunked"),
        (Method::GET, "200", "Transfer-Encoding: Chunked\r\nContent-Length: 5\r\n", "chunked"),
        (Method::GET, "200", "Transfer-Encoding: chunked\r\nContent-Length: x\r\n", "chunked"),
        (Method::POST, "404", "Content-Length: 5\r\n", "5 bytes"),
        (Method::GET, "999", "Content-Length: 5\r\n", "5 bytes"),
        (Method::HEAD, "200", "", "empty"),
        (Method::HEAD, "200", "Content-Length: 5\r\n", "empty"),
        (Method::HEAD, "200", "Transfer-Encoding: chunked\r\n", "empty"),
        (Method::HEAD, "500", "Content-Length: x\r\n", "empty"),
        (Method::GET, "204", "", "empty"),
        (Method::GET, "204", "Content-Length: 5\r\n", "empty"),
        (Method::GET, "204", "Transfer-Encoding: chunked\r\n", "empty"),
        (Method::GET, "205", "", "until close"),
        (Method::GET, "304", "Content-Length: 5\r\n", "empty"),
        (Method::GET, "304", "Transfer-Encoding: gzip\r\n", "empty"),
        (Method::GET, "101", "Content-Length: 5\r\n", "empty"),
        (Method::GET, "101", "Transfer-Encoding: chunked\r\n", "empty"),
    ];
    for (method, status, fields, body) in cases {
        let response = read_head(&method, &format!("HTTP/1.1 {status} X\r\n{fields}\r\n")).unwrap();
        assert_eq!(response.head.status().as_str(), status);
        assert_eq!(describe_body(&response.body), body, "{method} {status} {fields}");
    }
}

#[test]
fn version_options_and_framing_decide_whether_another_request_may_follow() {
    let cases = [
        ("HTTP/1.1", "Content-Length: 1\r\n", true),
        ("HTTP/1.1", "Transfer-Encoding: chunked\r\n", true),
        ("HTTP/1.1", "Content-Length: 1\r\nConnection: x-hop, close\r\n", false),
        ("HTTP/1.1", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", false),
        ("HTTP/1.1", "", false),
        ("HTTP/1.1", "Connection: keep-alive\r\n", false),
        ("HTTP/1.0", "Content-Length: 1\r\n", false),
        ("HTTP/1.0", "Content-Length: 1\r\nConnection: Keep-Alive\r\n", true),
        ("HTTP/1.0", "Content-Length: 1\r\nConnection: keep-alive, close\r\n", false),
        ("HTTP/1.0", "Connection: keep-alive\r\n", false),
    ];
    for (version, fields, is_persistent) in cases {
        let response = read_head(&Method::GET, &format!("{version} 200 OK\r\n{fields}\r\n")).unwrap();
        assert_eq!(format!("{:?}", response.head.version()), version);
        assert_eq!(response.is_persistent, is_persistent, "{version} {fields}");
    }
}

/// RFC 9112, section 6.1: the connection is closed after an HTTP/1.0 message with a Transfer-Encoding.
#[test]
fn no_request_follows_a_transfer_coding_of_http_1_0() {
    let head = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(!read_head(&Method::HEAD, head).unwrap().is_persistent);
}

/// What follows may be that body, and not the next response.
#[test]
fn no_request_follows_a_response_without_body_that_announces_one() {
    for (method, status, fields, is_persistent) in [
        (Method::GET, 204, "", true),
        (Method::GET, 204, "Content-Length: 0\r\n", true),
        (Method::GET, 204, "Content-Length: 5\r\n", false),
        (Method::GET, 204, "Content-Length: x\r\n", false),
        (Method::GET, 204, "Transfer-Encoding: chunked\r\n", false),
        (Method::GET, 204, "Transfer-Encoding: gzip\r\n", false),
        (Method::HEAD, 204, "Content-Length: 5\r\n", false),
        // These describe the response to GET (RFC 9110, sections 8.6 and 15.4.5; RFC 9112, section 6.1).
        (Method::HEAD, 200, "Content-Length: 5\r\n", true),
        (Method::HEAD, 200, "Transfer-Encoding: chunked\r\n", true),
        (Method::GET, 304, "Content-Length: 5\r\n", true),
        (Method::GET, 304, "Transfer-Encoding: chunked\r\n", true),
        (Method::HEAD, 200, "Content-Length: x\r\n", false),
        (Method::HEAD, 200, "Content-Length: 5\r\nContent-Length: 6\r\n", false),
        (Method::GET, 304, "Content-Length: 5, 6\r\n", false),
    ] {
        let response = read_head(&method, &format!("HTTP/1.1 {status} X\r\n{fields}\r\n")).unwrap();
        assert!(response.body.is_ended() && response.may_be_followed_by_body, "{method} {status} {fields}");
        assert_eq!(response.is_persistent, is_persistent, "{method} {status} {fields}");
    }
    assert!(!read_head(&Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap().may_be_followed_by_body);
}

#[test]
fn responses_are_read_in_order() {
    let bytes = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab\
                 HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\
                 HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\nSum: 1\r\n\r\n\
                 HTTP/1.0 404 Not Found\r\n\r\nrest\r\n\r\n";
    let methods = [Method::GET, Method::HEAD, Method::GET, Method::GET];
    let read = read_all_ways(bytes.as_bytes(), |parts| read_responses(&methods, parts, LIMITS));
    let complete: Vec<_> = read
        .complete
        .iter()
        .map(|response| (&*response.first_line, str::from_utf8(&response.body).unwrap(), response.trailers.is_some()))
        .collect();
    let expected = [
        ("HTTP/1.1 200 OK", "ab", false),
        ("HTTP/1.1 200 OK", "", false),
        ("HTTP/1.1 200 OK", "c", true),
        ("HTTP/1.0 404 Not Found", "rest\r\n\r\n", false),
    ];
    assert_eq!(complete, expected);
    assert_eq!(read.rejection, None);
}

#[test]
fn informational_responses_are_skipped() {
    let bytes = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 9\r\n\r\n\
                 HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 1\r\n\r\nx";
    let read = read_all_ways(bytes.as_bytes(), |parts| read_responses(&[Method::GET], parts, LIMITS));
    assert_eq!((read.complete.len(), read.rejection), (1, None));
    let response = &read.complete[0];
    assert_eq!((&*response.first_line, &*response.body), ("HTTP/1.1 200 OK", &b"x"[..]));
    assert_eq!(fields_of(&response.fields), [("a", "b"), ("content-length", "1")].map(|(n, v)| (n.into(), v.into())));
}

#[test]
fn switched_protocols_leave_the_rest_in_the_input() {
    let mut input = BytesMut::from("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/");
    let response = ResponseReader::new(LIMITS, &Method::GET).read(&mut input).unwrap().unwrap();
    assert_eq!(response.head.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(input, "HTTP/");
}

#[test]
fn empty_lines_before_a_response_are_skipped() {
    let bytes = b"\r\n\nHTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    let read = read_all_ways(bytes, |parts| read_responses(&[Method::GET], parts, LIMITS));
    assert_eq!((read.complete.len(), read.rejection), (1, None));
}

#[test]
fn many_informational_responses_are_skipped() {
    let bytes = format!("{}HTTP/1.1 204 \r\n\r\n", "HTTP/1.1 102 \r\n\r\n".repeat(1000));
    for part in [bytes.len(), 100, 1] {
        let read = read_responses(&[Method::GET], &bytes.as_bytes().chunks(part).collect::<Vec<_>>(), LIMITS);
        assert_eq!((read.complete.len(), read.rejection), (1, None), "in parts of {part}");
    }
}

/// The body and the heads have two line ends in succession where a line feed alone has ended a head before.
#[test]
fn heads_with_unusual_line_ends_are_as_long_as_their_lines() {
    let early = ["HTTP/1.1 103 \nA: b\n\n", "HTTP/1.1 102 \r\nA: b\n\r\n", "HTTP/1.1 102 \r\n\r\n"].concat();
    for early in ["", &early, &early.repeat(20)] {
        let bytes = format!("{early}HTTP/1.1 200 OK\nA: b\r\nContent-Length: 6\n\n\r\n\r\nxyHTTP/1.1 204 \r\n\r\n");
        let methods = [Method::GET, Method::GET];
        let read = read_all_ways(bytes.as_bytes(), |parts| read_responses(&methods, parts, LIMITS));
        assert_eq!((read.complete.len(), read.rejection), (2, None));
        assert_eq!(read.complete[0].body, b"\r\n\r\nxy");
        let fields = [("a", "b"), ("content-length", "6")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(fields_of(&read.complete[0].fields), fields);
    }
}

#[test]
fn invalid_heads_are_rejected() {
    let cases = [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", InvalidMessage::TransferEncoding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", InvalidMessage::TransferEncoding),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", InvalidMessage::TransferEncoding),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", InvalidMessage::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n", InvalidMessage::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", InvalidMessage::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\nContent-Length: 1\r\n\r\n", InvalidMessage::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551614\r\n\r\n", InvalidMessage::Length),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", InvalidMessage::Field),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", InvalidMessage::Field),
        ("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", InvalidMessage::Field),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", InvalidMessage::Field),
        ("HTTP/1.1 100 Continue\r\nno colon\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", InvalidMessage::Field),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2x0 OK\r\n\r\n", InvalidMessage::FirstLine),
        ("HTTP/1.1 099 X\r\n\r\n", InvalidMessage::FirstLine),
        ("HTTP/1.1 20 X\r\n\r\n", InvalidMessage::FirstLine),
        ("HTTP/1.1 2000 X\r\n\r\n", InvalidMessage::FirstLine),
        ("HTTP/1.1  200 OK\r\n\r\n", InvalidMessage::FirstLine),
        ("HTTP/1.1 200 a\x01b\r\n\r\n", InvalidMessage::FirstLine),
        ("HTTP/2.0 200 OK\r\n\r\n", InvalidMessage::FirstLine),
        ("HTTP/1.1\r\n\r\n", InvalidMessage::FirstLine),
        ("\rHTTP/1.1 200 OK\r\n\r\n", InvalidMessage::FirstLine),
        ("GET / HTTP/1.1\r\n\r\n", InvalidMessage::FirstLine),
    ];
    for (bytes, error) in cases {
        let read = read_all_ways(bytes.as_bytes(), |parts| read_responses(&[Method::GET], parts, LIMITS));
        assert_eq!((read.complete.len(), read.rejection), (0, Some(Invalid(error))), "{bytes:?}");
    }
}

#[test]
fn garbage_is_rejected_before_the_end_of_its_head() {
    for bytes in ["SSH-2.0-OpenSSH_9.2p1\r\n", "\x15\x03\x03", "HTTP/1.1 ok", "HTTP/1.1 200 OK\r\nno colon\r\n"] {
        let mut input = BytesMut::from(bytes);
        assert!(ResponseReader::new(LIMITS, &Method::GET).read(&mut input).is_err(), "{bytes:?}");
        let (mut reader, mut input) = (ResponseReader::new(LIMITS, &Method::GET), BytesMut::new());
        let slowly = bytes.bytes().chain(std::iter::repeat(b'x'));
        let rejected_at = slowly.take(2 * bytes.len()).position(|byte| {
            input.extend_from_slice(&[byte]);
            reader.read(&mut input).is_err()
        });
        assert!(rejected_at.is_some(), "{bytes:?} is rejected before twice its bytes have arrived");
    }
}

#[test]
fn line_feeds_alone_end_lines_too() {
    let bytes = b"HTTP/1.1 200 OK\nA: b\r\nContent-Length: 1\n\nx";
    let read = read_all_ways(bytes, |parts| read_responses(&[Method::GET], parts, LIMITS));
    assert_eq!((read.complete.len(), read.rejection), (1, None));
    let response = &read.complete[0];
    assert_eq!((response.fields["a"].as_bytes(), &*response.body), (&b"b"[..], &b"x"[..]));
}

#[test]
fn reasons_other_than_the_usual_ones_are_kept() {
    let cases = [
        ("200 OK", None),
        ("200 Fine, thanks", Some("Fine, thanks")),
        ("200 ok", Some("ok")),
        ("200 ", Some("")),
        ("200", Some("")),
        ("404 Not Found", None),
        ("599 Unusual", Some("Unusual")),
    ];
    for (status, expected) in cases {
        let response = read_head(&Method::GET, &format!("HTTP/1.1 {status}\r\n\r\n")).unwrap();
        let reason = response.head.extensions().get::<ReasonPhrase>().map(ReasonPhrase::as_bytes);
        assert_eq!(reason, expected.map(str::as_bytes), "{status}");
    }
}

#[test]
fn bytes_and_fields_are_limited_in_each_head() {
    let head = "HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\n";
    let after_hints = format!("HTTP/1.1 103 \r\nA: b\r\nC: d\r\n\r\n{head}body");
    let too_large = Some(Invalid(InvalidMessage::TooLarge));
    let cases = [
        (head, head.len(), 2, None),
        (&after_hints, head.len(), 2, None),
        (head, head.len() - 1, 2, too_large),
        (&head[..head.len() - 1], head.len() - 1, 2, too_large),
        (head, head.len(), 1, too_large),
        (&after_hints, head.len(), 1, too_large),
    ];
    for (bytes, limit, fields, rejection) in cases {
        let limits = HeadLimits { bytes: limit, fields };
        let read = read_all_ways(bytes.as_bytes(), |parts| read_responses(&[Method::GET], parts, limits));
        assert_eq!((read.complete.len(), read.rejection), (usize::from(rejection.is_none()), rejection), "{bytes:?}");
    }
}
