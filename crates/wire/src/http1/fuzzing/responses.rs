//! Responses: however their bytes arrive, the codec reads the same one, with a map or with lines. hyper reads it alike,
//! and accepts no others except for known differences.

use http::{Method, StatusCode, Version};

use super::found_message::{FoundInformational, FoundMessage, FoundStatusLine, expect_same_fields};
use super::hyper_reader::HyperResponse;
use super::portico_reader::{PorticoResponse, ReadingEnd, read_response};
use super::requests::{hyper_reads_more, is_same_end};
use super::{LIMITS, hyper_reader, received_fields};
use crate::http1::{HeadLimits, InvalidMessage};

/// The first line of the input is the method of the request, HEAD if it begins with `H`, otherwise GET. The rest is
/// what an endpoint sends before it closes the connection.
pub(crate) fn responses(input: &[u8]) {
    let line_end = memchr::memchr(b'\n', input).map_or(input.len(), |position| position + 1);
    let (line, input) = input.split_at(line_end);
    let method = if line.starts_with(b"H") { Method::HEAD } else { Method::GET };
    let step = 1 + input.len() % 11;
    let whole = read_in_steps(input, &method, step, LIMITS);
    for step in [input.len(), step] {
        received_fields::compare(input, &method, step);
    }
    let small = HeadLimits { bytes: 32 + input.len() % 64, fields: 3 };
    expect_fewer(&read_in_steps(input, &method, step, small), &whole);
    // Either at once or in small parts, so that both are tested at the speed of one.
    let hyper_step = if input.len().is_multiple_of(2) { input.len().max(1) } else { step };
    match (&whole.response, hyper_reader::read_response(input, &method, hyper_step)) {
        (Some(ours), Ok(HyperResponse { informational, response: mut theirs })) => {
            expect_informational(&whole.informational, &informational);
            if whole.end == ReadingEnd::EndOfInput {
                expect_persistent(&theirs);
            }
            if !theirs.values("transfer-encoding").is_empty() {
                // hyper ignores the length next to a coding too, but leaves the field (RFC 9112, section 6.3).
                theirs.fields.retain(|(name, _)| name != b"content-length");
            }
            compare_with_hyper(&whole, ours, &theirs, input.len());
        }
        (Some(ours), Err(error)) => {
            // hyper also counts bytes of informational responses.
            assert!(input.len() > LIMITS.bytes, "only Portico reads {ours:?}; hyper: {error:?}");
        }
        (None, Ok(HyperResponse { response: theirs, .. })) => {
            assert!(
                hyper_reads_more_heads(&whole, input, &theirs),
                "only hyper reads {theirs:?}; Portico: {:?}",
                whole.end
            );
        }
        (None, Err(_)) => {}
    }
}

/// Reads the response at once, byte by byte, and a number of bytes at a time.
fn read_in_steps(input: &[u8], method: &Method, step: usize, limits: HeadLimits) -> PorticoResponse {
    let whole = read_response(input, method, input.len().max(1), limits);
    for step in [1, step] {
        let in_parts = read_response(input, method, step, limits);
        assert_eq!(in_parts.informational, whole.informational, "before it, if {step} bytes arrive at a time");
        assert_eq!(in_parts.response, whole.response, "the response if {step} bytes arrive at a time");
        assert!(
            is_same_end(in_parts.end, whole.end),
            "{:?} if {step} bytes arrive at a time, {:?} if all do",
            in_parts.end,
            whole.end
        );
    }
    whole
}

/// Smaller limits only lead to rejections.
fn expect_fewer(small: &PorticoResponse, whole: &PorticoResponse) {
    match small.end {
        ReadingEnd::Invalid(InvalidMessage::TooLarge) => {
            assert!(whole.informational.starts_with(&small.informational), "responses before the rejection");
            assert_eq!(small.response, None, "no response");
        }
        ReadingEnd::Invalid(InvalidMessage::Trailers) => {
            let is_complete = small.response.as_ref().is_none_or(|response| response.is_complete);
            assert!(!is_complete, "a response with invalid trailers is incomplete");
        }
        _ => assert_eq!(small, whole, "a response that is within smaller limits"),
    }
}

/// The codec keeps some informational responses, except those that concern this connection only.
pub(super) fn expect_informational(ours: &[FoundInformational], hyper: &[FoundInformational]) {
    let theirs: Vec<_> = hyper.iter().filter(|theirs| theirs.status != StatusCode::CONTINUE).collect();
    assert!(ours.len() <= theirs.len() && (ours.len() == theirs.len() || ours.len() >= 8), "{ours:?} {theirs:?}");
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!((ours.version, ours.status), (theirs.version, theirs.status), "informational response");
        expect_same_fields(&ours.fields, &theirs.fields);
    }
}

/// After this response, as hyper has read it, the connection may be used again (RFC 9112, section 9.3).
fn expect_persistent(response: &FoundMessage<FoundStatusLine>) {
    let values = response.values("connection").join(&b", "[..]).to_ascii_lowercase();
    let options: Vec<&[u8]> = values.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
    assert!(!options.contains(&&b"close"[..]), "the endpoint closes the connection: {response:?}");
    let is_usual = response.line.version == Version::HTTP_11;
    assert!(is_usual || options.contains(&&b"keep-alive"[..]), "HTTP/1.0 has one response: {response:?}");
    let has_two_lengths = ["content-length", "transfer-encoding"].iter().all(|name| !response.values(name).is_empty());
    assert!(!has_two_lengths, "the end of the response may be another one: {response:?}");
}

fn compare_with_hyper(
    portico: &PorticoResponse,
    ours: &FoundMessage<FoundStatusLine>,
    theirs: &FoundMessage<FoundStatusLine>,
    input_length: usize,
) {
    // hyper does not find `chunked` in a field with other bytes than ASCII.
    let is_chunked_here = ours.has_other_bytes("transfer-encoding");
    let accepts_more = !ours.is_complete && hyper_reads_more(portico.end, &portico.rest);
    // hyper also counts the line end after the trailers.
    let accepts_less = ours.is_complete && !theirs.is_complete && input_length > LIMITS.bytes;
    if is_chunked_here || accepts_more || accepts_less {
        assert_eq!((&ours.line, &ours.fields), (&theirs.line, &theirs.fields));
        assert!(is_chunked_here || theirs.body.starts_with(&ours.body), "beginning of the body: {ours:?} {theirs:?}");
    } else {
        ours.expect_same(theirs);
    }
}

/// Whether hyper accepts a response although its head is invalid.
fn hyper_reads_more_heads(portico: &PorticoResponse, input: &[u8], theirs: &FoundMessage<FoundStatusLine>) -> bool {
    let ReadingEnd::Invalid(error) = portico.end else { return false };
    match error {
        // hyper skips empty lines before a response.
        InvalidMessage::FirstLine => ends_with_empty_lines(&input[..input.len() - portico.rest.len()]),
        // Read until the connection is closed, which RFC 9112 permits for other codings.
        InvalidMessage::TransferEncoding => !theirs.values("transfer-encoding").is_empty(),
        // hyper accepts a list of equal lengths.
        InvalidMessage::Length => theirs.values("content-length").iter().any(|value| value.contains(&b',')),
        _ => false,
    }
}

/// Whether the last line is empty, and there is no other line before it, or an empty one too.
fn ends_with_empty_lines(bytes: &[u8]) -> bool {
    let without_line_end = |bytes: &[u8]| -> Option<usize> {
        let line = bytes.strip_suffix(b"\n")?;
        Some(line.strip_suffix(b"\r").unwrap_or(line).len())
    };
    let Some(before) = without_line_end(bytes) else { return false };
    let before = &bytes[..before];
    before.is_empty() || without_line_end(before).is_some_and(|length| length == 0 || before[..length].ends_with(b"\n"))
}
