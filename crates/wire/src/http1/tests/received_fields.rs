//! Fields of responses that stay lines, compared with those of the map.

use proptest::prelude::*;

use super::super::fuzzing::received_fields::compare;
use super::super::{NameCase, ResponseReader};
use super::*;

/// Reads a head both ways, and returns whether its fields stay lines.
fn stays_lines(head: &str) -> bool {
    let [lines, in_parts] = [head.len(), 7].map(|step| compare(head.as_bytes(), &Method::GET, step));
    assert_eq!(lines.is_some(), in_parts.is_some(), "{head:?}");
    lines.is_some()
}

#[test]
fn fields_of_plain_heads_stay_lines() {
    for (fields, expected) in [
        ("", ""),
        ("a: b", "a: b\r\n"),
        (
            "Content-Length: 5\r\nX-Number: aB\r\nSet-Cookie: a\r\nset-cookie: b",
            "x-number: aB\r\nset-cookie: a\r\nset-cookie: b\r\n",
        ),
        ("A: b\r\nConnection: Keep-Alive\r\nKeep-Alive: timeout=5\r\nC: d", "a: b\r\nc: d\r\n"),
        ("Connection: close\r\nA: b", "a: b\r\n"),
        ("Transfer-Encoding: chunked\r\nA: b\r\nDate: today", "a: b\r\ndate: today\r\n"),
        (
            "X-Request-Id: 1\r\nEmpty: \r\nContent-Type: text/html",
            "x-request-id: 1\r\nempty: \r\ncontent-type: text/html\r\n",
        ),
        ("a: \u{e9}\r\nContent-Length: 0", "a: \u{e9}\r\n"),
    ] {
        let end = if fields.is_empty() { "" } else { "\r\n" };
        for first in ["HTTP/1.1 200 OK", "HTTP/1.1 302 ", "HTTP/1.1 200 Own reason", "HTTP/1.1 399"] {
            let head = format!("{first}\r\n{fields}{end}\r\n");
            assert!(stays_lines(&head), "{head:?}");
            let lines = compare(head.as_bytes(), &Method::GET, head.len()).unwrap();
            assert_eq!(String::from_utf8_lossy(lines.lines()), expected);
        }
    }
}

#[test]
fn fields_of_other_heads_are_in_the_map() {
    for fields in [
        "a:b",
        "a:  b",
        "a: b ",
        "a:\tb",
        "a:",
        "a: b\nc: d",
        "content-length: 05",
        "content-length: 00",
        "content-length: 5\r\ncontent-length: 5",
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "connection: close, x-other",
        "connection: upgrade",
        "proxy-connection: close",
        "TE: trailers",
        "upgrade: h2c",
        "Trailer: a",
        "grpc-status: 0",
        "content-type: Application/grpc+proto",
        "content-type: application/grpc-web",
    ] {
        assert!(!stays_lines(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n")), "{fields:?}");
    }
    for status in [204, 304, 400, 404, 429, 503, 999] {
        assert!(!stays_lines(&format!("HTTP/1.1 {status} \r\na: b\r\n\r\n")), "{status}");
    }
    assert!(!stays_lines("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"));
    assert!(!stays_lines("HTTP/1.1 101 \r\nconnection: upgrade\r\nupgrade: a\r\n\r\n"));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(129));
    assert!(!stays_lines(&many));
    let head = "HTTP/1.1 200 OK\r\na: b\r\n\r\n";
    assert!(compare(head.as_bytes(), &Method::HEAD, 1).is_none());
    let names = ResponseReader::new(LIMITS, &Method::GET).with_name_case(NameCase::Received);
    let received = { names }.with_passed_fields(true).read(&mut head.into()).unwrap().unwrap();
    assert!(received.fields.is_none());
}

#[test]
fn informational_responses_have_maps() {
    let mut reader = ResponseReader::new(LIMITS, &Method::GET).with_passed_fields(true);
    let bytes = "HTTP/1.1 103 \r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\na: b\r\n\r\n";
    assert!(reader.read(&mut bytes.into()).unwrap().unwrap().fields.is_some());
    assert_eq!(reader.take_informational()[0].headers()["link"], "a");
}

/// Heads of which many are plain.
fn heads() -> impl Strategy<Value = String> {
    const NAMES: &str = "a|X-Number|x-number|Content-Length|content-length|Transfer-Encoding|Connection|Keep-Alive|\
         Proxy-Connection|TE|Upgrade|Trailer|Date|date|X-Request-ID|x-request-id|Content-Type|Grpc-Status|Set-Cookie|\
         Etag|portico-hops|x-forwarded-for|a!#$%&'*+.^_`|~";
    const VALUES: &str = "5|0|05|abc|chunked|Chunked|gzip, chunked|close|keep-alive|Keep-Alive, close|x-number|timeout=5|\
         timeout=7, max=3|trailers|text/html|application/grpc|a: b|a=\"b, c\"; d|\u{e9}||18446744073709551615|\
         99999999999999999999|5, 5|-1|+1";
    let names = prop::sample::select(NAMES.split('|').collect::<Vec<_>>());
    let values = prop::sample::select(VALUES.split('|').collect::<Vec<_>>());
    let separators = prop_oneof![12 => Just(": "), 1 => Just(":"), 1 => Just(":  "), 1 => Just(":\t")];
    let ends = prop_oneof![20 => Just("\r\n"), 1 => Just("\n"), 1 => Just(" \r\n")];
    let lines = prop::collection::vec((names, separators, values, ends), 0..6);
    let first = prop::sample::select(&["HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/1.1 301 ", "HTTP/1.1 404 No"][..]);
    (first, lines).prop_map(|(first, lines)| {
        let lines: String =
            lines.into_iter().flat_map(|(name, separator, value, end)| [name, separator, value, end]).collect();
        format!("{first}\r\n{lines}\r\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn lines_are_the_fields_of_the_map(head in heads()) {
        stays_lines(&head);
    }
}

/// Bytes that a name or a value may have, with one that may be any, so that the parts of a long text are examined that
/// httparse reads in blocks.
fn nearly_valid(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(b'a'..=b'z', length), any::<prop::sample::Index>(), any::<u8>()).prop_map(
        |(mut text, place, byte)| {
            if !text.is_empty() {
                let place = place.index(text.len());
                text[place] = byte;
            }
            text
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    /// Whatever httparse accepts as a name or a value.
    #[test]
    fn every_line_is_a_field_of_a_map(name in nearly_valid(1..40), value in nearly_valid(0..80)) {
        let head = [b"HTTP/1.1 200 OK\r\n", &name[..], b": ", &value, b"\r\n\r\n"].concat();
        compare(&head, &Method::GET, head.len());
    }
}
