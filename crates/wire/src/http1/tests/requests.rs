//! Heads of requests: which are read, and which are rejected.

use bytes::BytesMut;
use http::HeaderValue;
use http::header::HOST;

use super::ReadRejection::{Ambiguous, Invalid};
use super::received_requests::read_head;
use super::*;

fn read_all(bytes: &[u8]) -> ReadConnection {
    read_all_ways(bytes, |parts| read_requests(parts, LIMITS))
}

#[test]
fn valid_requests_are_read() {
    let cases = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[("GET / HTTP/1.1", "")][..]),
        (
            "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
            &[("GET /a HTTP/1.1", ""), ("GET /b HTTP/1.1", "")],
        ),
        (
            "\r\n\r\nGET /a HTTP/1.1\r\n\r\n\r\nGET /b HTTP/1.1\r\n\r\n\r\n",
            &[("GET /a HTTP/1.1", ""), ("GET /b HTTP/1.1", "")],
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\n#\n\nGET / HTTP/1.1\r\n\r\n",
            &[("POST / HTTP/1.1", "\n#\n\n"), ("GET / HTTP/1.1", "")],
        ),
        (
            "POST / HTTP/1.1\r\ncontent-length:0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            &[("POST / HTTP/1.1", ""), ("GET / HTTP/1.1", "")],
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=\"1\"\r\n\n\n\n\r\n0\r\nA: b\r\n\r\n\
             GET / HTTP/1.1\r\n\r\n",
            &[("POST / HTTP/1.1", "\n\n\n"), ("GET / HTTP/1.1", "")],
        ),
        ("PUT / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab", &[("PUT / HTTP/1.0", "ab")]),
        ("x-Method! / HTTP/1.1\r\n\r\n", &[("x-Method! / HTTP/1.1", "")]),
        ("GET /half HTTP/1.1\r\nHo", &[]),
    ];
    for (bytes, expected) in cases {
        let read = read_all(bytes.as_bytes());
        let complete =
            read.complete.iter().map(|message| (&*message.first_line, str::from_utf8(&message.body).unwrap()));
        assert_eq!(complete.collect::<Vec<_>>(), expected, "{bytes:?}");
        assert_eq!((read.incomplete, read.rejection), (None, None), "{bytes:?}");
    }
}

#[test]
fn ambiguous_framing_is_rejected() {
    let valid = "POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\nx";
    let cases = [
        ("GET / HTTP/1.1\n\n", Ambiguous(Ambiguity::BareLineFeed)),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Ambiguous(Ambiguity::BareLineFeed)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Ambiguous(Ambiguity::BareLineFeed)),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", Ambiguous(Ambiguity::BareLineFeed)),
        ("\nGET / HTTP/1.1\r\n\r\n", Ambiguous(Ambiguity::BareLineFeed)),
        ("\r\n\n\r\nGET / HTTP/1.1\r\n\r\n", Ambiguous(Ambiguity::BareLineFeed)),
        ("GET /#x HTTP/1.1\r\n\r\n", Ambiguous(Ambiguity::Fragment)),
        (
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            Ambiguous(Ambiguity::LengthAndCoding),
        ),
        (
            "POST / HTTP/1.1\r\nTRANSFER-ENCODING:chunked\r\nContent-Length: 0\r\n\r\n",
            Ambiguous(Ambiguity::LengthAndCoding),
        ),
        ("POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n", Ambiguous(Ambiguity::InvalidLength)),
        ("POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", Ambiguous(Ambiguity::InvalidLength)),
        ("POST / HTTP/1.1\r\ncontent-length: 0x1\r\n\r\n", Ambiguous(Ambiguity::InvalidLength)),
        ("POST / HTTP/1.1\r\ncontent-length: 1 1\r\n\r\n", Ambiguous(Ambiguity::InvalidLength)),
        ("POST / HTTP/1.1\r\ncontent-length:\r\n\r\n", Ambiguous(Ambiguity::InvalidLength)),
        ("POST / HTTP/1.1\r\ncontent-length: 1, 1\r\n\r\n", Ambiguous(Ambiguity::InvalidLength)),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: x\r\n\r\n", Ambiguous(Ambiguity::InvalidLength)),
        ("POST / HTTP/1.1\r\ncontent-length: x\r\ncontent-length: 1\r\n\r\n", Ambiguous(Ambiguity::InvalidLength)),
        ("POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n", Ambiguous(Ambiguity::InvalidLength)),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nContent-Length: :\r\n\r\n",
            Ambiguous(Ambiguity::InvalidLength),
        ),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\n", Invalid(InvalidMessage::ChunkSize)),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            Invalid(InvalidMessage::ChunkSize),
        ),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\nx\r\n", Invalid(InvalidMessage::ChunkSize)),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\n", Invalid(InvalidMessage::Trailers)),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: b\n\r\n", Invalid(InvalidMessage::Trailers)),
    ];
    for (bytes, rejection) in cases {
        let read = read_all(bytes.as_bytes());
        assert_eq!((read.complete.len(), read.rejection), (0, Some(rejection)), "{bytes:?}");
        // Also after a valid request.
        let after_valid = format!("{valid}{bytes}");
        let read = read_all(after_valid.as_bytes());
        assert_eq!((read.complete.len(), read.rejection), (1, Some(rejection)), "{after_valid:?}");
    }
}

#[test]
fn ambiguous_requests_have_their_head_but_no_body() {
    let cases = [
        (
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            Ambiguity::LengthAndCoding,
        ),
        ("POST /x HTTP/1.1\r\nHost: a\nContent-Length: 3\r\n\r\n", Ambiguity::BareLineFeed),
        ("POST /x#y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Ambiguity::Fragment),
    ];
    for (head, ambiguity) in cases {
        let request = read_head(head).unwrap();
        assert_eq!(request.ambiguity, Some(ambiguity));
        assert_eq!((request.head.uri().path(), &request.head.headers()[HOST]), ("/x", &HeaderValue::from_static("a")));
        assert!(request.body.is_ended() && !request.is_persistent, "{head:?}");
    }
}

#[test]
fn invalid_heads_are_rejected_and_stay_in_the_input() {
    let cases = [
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", InvalidMessage::TransferEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", InvalidMessage::TransferEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked,\r\n\r\n", InvalidMessage::TransferEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", InvalidMessage::TransferEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n", InvalidMessage::TransferEncoding),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n",
            InvalidMessage::TransferEncoding,
        ),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", InvalidMessage::TransferEncoding),
        (
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            InvalidMessage::TransferEncoding,
        ),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", InvalidMessage::Length),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\nContent-Length: 1\r\n\r\n",
            InvalidMessage::Length,
        ),
        ("POST / HTTP/1.1\r\nContent-Length: 18446744073709551614\r\n\r\n", InvalidMessage::Length),
        ("POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n", InvalidMessage::Length),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", InvalidMessage::Field),
        ("GET / HTTP/1.1\r\nContent-Length : 1\r\n\r\n", InvalidMessage::Field),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", InvalidMessage::Field),
        ("GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n", InvalidMessage::Field),
        ("GET / HTTP/1.1\r\n A: b\r\n\r\n", InvalidMessage::Field),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", InvalidMessage::Field),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", InvalidMessage::Field),
        ("GET / HTTP/1.1\r\nA(: a\r\n\r\n", InvalidMessage::Field),
        ("GET / HTTP/1.1\r\nA: \0\r\n\r\n", InvalidMessage::Field),
        ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", InvalidMessage::Field),
        ("GET / HTTP/1.1\r\nA: b\r\r\n\r\n", InvalidMessage::Field),
        ("GET / HTTP/1.1\r\nA: \x7f\r\n\r\n", InvalidMessage::Field),
        ("GET /\r\n\r\n", InvalidMessage::FirstLine),
        ("GET / HTTP/1.25\r\n\r\n", InvalidMessage::FirstLine),
        ("GET / HTTP/1.2 \r\n\r\n", InvalidMessage::FirstLine),
        ("G(T / HTTP/1.2\r\n\r\n", InvalidMessage::FirstLine),
        ("GET / HTTP/3.0\r\n\r\n", InvalidMessage::MajorVersion),
        ("GET / HTTP/0.9\r\n\r\n", InvalidMessage::MajorVersion),
        ("GET / http/1.1\r\n\r\n", InvalidMessage::FirstLine),
        ("GET / HTTP/1.1 \r\n\r\n", InvalidMessage::FirstLine),
        ("GET / HTTP/1.1\r\r\n\r\n", InvalidMessage::FirstLine),
        ("GET  / HTTP/1.1\r\n\r\n", InvalidMessage::FirstLine),
        ("GET /  HTTP/1.1\r\n\r\n", InvalidMessage::FirstLine),
        ("GET\t/ HTTP/1.1\r\n\r\n", InvalidMessage::FirstLine),
        ("GET  HTTP/1.1\r\n\r\n", InvalidMessage::FirstLine),
        (" / HTTP/1.1\r\n\r\n", InvalidMessage::FirstLine),
        ("G(T / HTTP/1.1\r\n\r\n", InvalidMessage::FirstLine),
        ("GET http:// HTTP/1.1\r\n\r\n", InvalidMessage::FirstLine),
        ("GET /a\0b HTTP/1.1\r\n\r\n", InvalidMessage::FirstLine),
        ("\rGET / HTTP/1.1\r\n\r\n", InvalidMessage::FirstLine),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", InvalidMessage::MajorVersion),
    ];
    for (bytes, error) in cases {
        let read = read_all(bytes.as_bytes());
        assert_eq!((read.complete.len(), read.rejection), (0, Some(Invalid(error))), "{bytes:?}");
        let mut input = BytesMut::from(&*format!("\r\n{bytes}rest"));
        assert_eq!(RequestReader::new(LIMITS).read(&mut input).unwrap_err(), error, "{bytes:?}");
        assert_eq!(input, format!("{bytes}rest"), "the bytes of the head and of what follows");
    }
}

#[test]
fn garbage_is_rejected_before_the_end_of_its_head() {
    let cases: &[(&[u8], InvalidMessage)] = &[
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", InvalidMessage::FirstLine),
        (b"nonsense\r\n", InvalidMessage::FirstLine),
        (b"{\"json\"", InvalidMessage::FirstLine),
        (b"HTTP/1.1 200 OK\r\n", InvalidMessage::FirstLine),
        (b"PRI * HTTP/2.0\r\n", InvalidMessage::MajorVersion),
        (b"GET / FTP", InvalidMessage::FirstLine),
        (b"GET / HTTP/1.1\r\nno colon\r\n", InvalidMessage::Field),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded", InvalidMessage::Field),
        (b"GET / HTTP/1.1\r\nA: \0", InvalidMessage::Field),
    ];
    for (bytes, error) in cases {
        let mut input = BytesMut::from(*bytes);
        assert_eq!(RequestReader::new(LIMITS).read(&mut input).unwrap_err(), *error, "{bytes:?}");
        assert_eq!(input, *bytes);
        let (mut reader, mut input) = (RequestReader::new(LIMITS), BytesMut::new());
        let slowly = bytes.iter().chain([b'x'].iter().cycle());
        let rejected_at = slowly.take(2 * bytes.len()).position(|byte| {
            input.extend_from_slice(&[*byte]);
            reader.read(&mut input).is_err()
        });
        assert!(rejected_at.is_some(), "{bytes:?} is rejected before twice its bytes have arrived");
    }
}

#[test]
fn the_number_of_bytes_is_limited() {
    let head = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let pipelined = format!("\r\n\r\n{head}{head}");
    let cases = [
        (head, head.len(), 1, None),
        (&pipelined, head.len(), 2, None),
        (head, head.len() - 1, 0, Some(Invalid(InvalidMessage::TooLarge))),
        (&pipelined, head.len() - 1, 0, Some(Invalid(InvalidMessage::TooLarge))),
        (&head[..head.len() - 1], head.len() - 1, 0, Some(Invalid(InvalidMessage::TooLarge))),
        (&head[..head.len() - 1], head.len(), 0, None),
    ];
    for (bytes, limit, complete, rejection) in cases {
        let limits = HeadLimits { bytes: limit, ..LIMITS };
        let read = read_all_ways(bytes.as_bytes(), |parts| read_requests(parts, limits));
        assert_eq!((read.complete.len(), read.rejection), (complete, rejection), "{bytes:?} with {limit}");
    }
}

#[test]
fn the_number_of_fields_is_limited() {
    for fields in [0, 1, 3, 100, 101, 130] {
        let limits = HeadLimits { fields, ..LIMITS };
        let head = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
        let read = |count| read_all_ways(head(count).as_bytes(), |parts| read_requests(parts, limits));
        let at_limit = read(fields);
        assert_eq!((at_limit.complete.len(), at_limit.rejection), (1, None), "{fields}");
        assert_eq!(at_limit.complete[0].fields.len(), fields);
        assert_eq!(read(fields + 1).rejection, Some(Invalid(InvalidMessage::TooLarge)), "{fields}");
    }
}

#[test]
fn the_length_of_a_target_is_limited() {
    let limits = HeadLimits { bytes: 128 * 1024, ..LIMITS };
    let longest = u16::MAX as usize - 1;
    for (length, rejection) in [(longest, None), (longest + 1, Some(Invalid(InvalidMessage::TooLarge)))] {
        let head = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length - 1));
        for parts in [vec![head.as_bytes()], head.as_bytes().chunks(1000).collect()] {
            let read = read_requests(&parts, limits);
            assert_eq!(
                (read.complete.len(), read.rejection),
                (usize::from(rejection.is_none()), rejection),
                "{length}"
            );
        }
    }
}

#[test]
fn the_next_request_stays_in_the_input() {
    let mut input = BytesMut::from("GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET");
    let mut reader = RequestReader::new(LIMITS);
    assert_eq!(reader.read(&mut input).unwrap().unwrap().head.uri(), "/a");
    assert_eq!(input, "GET /b HTTP/1.1\r\n\r\nGET");
    assert_eq!(reader.read(&mut input).unwrap().unwrap().head.uri(), "/b");
    assert!(reader.read(&mut input).unwrap().is_none());
    assert_eq!(input, "GET");
}
