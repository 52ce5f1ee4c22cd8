//! Requests: however their bytes arrive, the codec reads the same ones. A strict server reads them alike, and hyper
//! too, which accepts no others except for known differences.

use http::Version;

use super::found_message::{FoundMessage, FoundRequestLine, expect_same_fields, has_bare_line_feed};
use super::portico_reader::{PorticoRequests, ReadingEnd, read_requests};
use super::strict_reader::StrictRequest;
use super::{LIMITS, hyper_reader, strict_reader};
use crate::http1::{HeadLimits, InvalidMessage};

/// The input is what a client sends on a connection.
pub(crate) fn requests(input: &[u8]) {
    let step = 1 + input.len() % 11;
    read_in_steps(input, step, LIMITS);
    // The other servers do not read later minor versions.
    let input = &with_known_versions(input);
    let whole = read_in_steps(input, step, LIMITS);
    let small = HeadLimits { bytes: 32 + input.len() % 64, fields: 3 };
    expect_fewer(&read_in_steps(input, step, small), &whole);
    let strict = strict_reader::read(input);
    for (index, request) in whole.requests.iter().enumerate() {
        let strict = strict.get(index);
        expect_strict(request, strict.unwrap_or_else(|| panic!("a strict server does not read {request:?}")));
    }
    // Either at once or in small parts, so that both are tested at the speed of one.
    let hyper_step = if input.len().is_multiple_of(2) { input.len().max(1) } else { step };
    compare_with_hyper(&whole, &hyper_reader::read_requests(input, hyper_step), input.len());
}

/// The input is a chunked body, followed by another request.
pub(crate) fn chunked_body(input: &[u8]) {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n";
    requests(&[HEAD, input, NEXT].concat());
}

/// The input, with HTTP/1.1 in place of later minor versions.
fn with_known_versions(input: &[u8]) -> Vec<u8> {
    let mut known = input.to_vec();
    for start in 0..input.len() {
        if let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'2'..=b'9', ..] = &mut known[start..] {
            *minor = b'1';
        }
    }
    known
}

/// Reads the requests at once, byte by byte, and a number of bytes at a time.
fn read_in_steps(input: &[u8], step: usize, limits: HeadLimits) -> PorticoRequests {
    let whole = read_requests(input, input.len().max(1), limits);
    for step in [1, step] {
        let in_parts = read_requests(input, step, limits);
        assert_eq!(in_parts.requests, whole.requests, "the requests if {step} bytes arrive at a time");
        assert!(
            is_same_end(in_parts.end, whole.end),
            "{:?} if {step} bytes arrive at a time, {:?} if all do",
            in_parts.end,
            whole.end
        );
    }
    whole
}

/// Whether the reading ended for the same reason. A head that is invalid in two ways is rejected for the one that was
/// found first, and an incomplete head may be found to be invalid later.
pub(super) fn is_same_end(in_parts: ReadingEnd, at_once: ReadingEnd) -> bool {
    use InvalidMessage::{Field, FirstLine, MajorVersion, TooLarge};
    // The version is at the end of the first line, which may be invalid before and after it.
    let without_version =
        |end| if end == ReadingEnd::Invalid(MajorVersion) { ReadingEnd::Invalid(FirstLine) } else { end };
    let (in_parts, at_once) = (without_version(in_parts), without_version(at_once));
    in_parts == at_once
        || matches!(
            (in_parts, at_once),
            (ReadingEnd::Invalid(FirstLine | Field), ReadingEnd::Invalid(TooLarge))
                | (ReadingEnd::EndOfInput, ReadingEnd::Invalid(FirstLine | Field | TooLarge))
        )
}

/// Smaller limits only lead to rejections.
fn expect_fewer(small: &PorticoRequests, whole: &PorticoRequests) {
    if let ReadingEnd::Invalid(InvalidMessage::TooLarge | InvalidMessage::Trailers) = small.end {
        let complete = small.requests.iter().filter(|request| request.is_complete).count();
        assert_eq!(small.requests[..complete], whole.requests[..complete], "requests before the rejection");
    } else {
        assert_eq!(small, whole, "requests that are within smaller limits");
    }
}

fn expect_strict(request: &FoundMessage<FoundRequestLine>, strict: &StrictRequest) {
    assert_eq!(request.line.method.as_str().as_bytes(), strict.method, "method");
    assert_eq!(request.fields, strict.fields, "fields");
    let target = std::str::from_utf8(&strict.target).expect("an accepted target is text");
    let uri = &request.line.uri;
    if target.starts_with('/') {
        assert_eq!(uri.path_and_query().map(|path| path.as_str()), Some(target), "target");
    } else {
        let query = target.split_once('?').map(|(_, query)| query);
        assert_eq!(uri.query(), query, "query of the target {target}");
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        assert!(target.contains(authority), "the target {target} has the authority {authority}");
    }
    if request.is_complete {
        assert!(strict.is_complete, "only Portico finds the end of the body: {request:?} {strict:?}");
        assert_eq!(request.body, strict.body, "body");
        expect_same_fields(&request.trailers, &strict.trailers);
    } else {
        assert!(strict.body.starts_with(&request.body), "beginning of the body: {request:?} {strict:?}");
    }
}

fn compare_with_hyper(portico: &PorticoRequests, hyper: &[FoundMessage<FoundRequestLine>], input_length: usize) {
    let both = portico.requests.iter().zip(hyper);
    for (index, (ours, theirs)) in both.enumerate() {
        let is_last = index + 1 == portico.requests.len();
        if is_last && !ours.is_complete && hyper_reads_more(portico.end, &portico.rest) {
            assert_eq!((&ours.line, &ours.fields), (&theirs.line, &theirs.fields));
            assert!(theirs.body.starts_with(&ours.body), "beginning of the body: {ours:?} {theirs:?}");
            return;
        }
        if ours.is_complete && !theirs.is_complete && input_length > LIMITS.bytes {
            // hyper also counts the line ends after the trailers.
            return;
        }
        ours.expect_same(theirs);
    }
    if let Some(ours) = portico.requests.get(hyper.len()) {
        let previous = hyper.len().checked_sub(1).map(|index| &portico.requests[index]);
        let is_known = ours.has_other_bytes("transfer-encoding")
            || previous.is_some_and(is_read_as_last)
            // hyper also counts the empty lines before a request.
            || input_length > LIMITS.bytes;
        assert!(is_known, "only Portico reads {ours:?}");
    }
    if let Some(theirs) = hyper.get(portico.requests.len()) {
        let last = portico.requests.last();
        let is_known = match portico.end {
            ReadingEnd::Ambiguous(_) => true,
            ReadingEnd::NotPersistent => last.is_some_and(|last| last.has_other_bytes("connection")),
            ReadingEnd::EndOfInput | ReadingEnd::Invalid(_) => false,
        };
        assert!(is_known, "only hyper reads {theirs:?}; Portico: {:?}", portico.end);
    }
}

/// Whether hyper reads no request after this one, although the codec does: in a Connection field with other bytes than
/// ASCII, hyper does not find `keep-alive`.
fn is_read_as_last(request: &FoundMessage<FoundRequestLine>) -> bool {
    request.line.version == Version::HTTP_10 && request.has_other_bytes("connection")
}

/// Whether hyper accepts more than the codec of a body that is invalid, from `rest` on: longer lines with the size of a
/// chunk, the largest sizes, and lines of trailers that end in a line feed alone.
pub(super) fn hyper_reads_more(end: ReadingEnd, rest: &[u8]) -> bool {
    match end {
        ReadingEnd::Invalid(InvalidMessage::LongChunkLine) => true,
        ReadingEnd::Invalid(InvalidMessage::ChunkSize) => {
            let zeros = rest.iter().take_while(|byte| **byte == b'0').count();
            let digits = &rest[zeros..];
            digits.get(..15).is_some_and(|digits| digits.eq_ignore_ascii_case(b"fffffffffffffff"))
        }
        ReadingEnd::Invalid(InvalidMessage::Trailers) => has_bare_line_feed(rest),
        _ => false,
    }
}
