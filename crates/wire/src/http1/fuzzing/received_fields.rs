//! Responses whose fields stay lines: they are the same as those of responses with maps, and so is the written head.

use bytes::BytesMut;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Method, Version};
use http_body::SizeHint;
use hyper::ext::ReasonPhrase;

use super::LIMITS;
use crate::forwarding_fields::X_REQUEST_ID;
use crate::http1::{
    BodyLength, InvalidMessage, PassedFields, ReceivedFields, ReceivedResponse, ResponseContext, ResponseReader,
    write_response_head,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Reads the head of a response both ways, `step` bytes at a time. Returns the fields if they stay lines.
pub(crate) fn compare(input: &[u8], method: &Method, step: usize) -> Option<ReceivedFields> {
    let read = |passes_fields| read(input, method, step, passes_fields);
    let (found, expected) = match (read(true), read(false)) {
        ((Ok(Some(found)), rest), (Ok(Some(expected)), other_rest)) if rest == other_rest => (found, expected),
        ((found, rest), (expected, other_rest)) => {
            assert_eq!((format!("{found:?}"), rest), (format!("{expected:?}"), other_rest));
            return None;
        }
    };
    let others = |response: &ReceivedResponse| {
        let ReceivedResponse { head, fields: _, body, is_persistent, keep_alive, may_be_followed_by_body } = response;
        let reason = head.extensions().get::<ReasonPhrase>();
        format!("{} {reason:?} {body:?} {is_persistent} {keep_alive:?} {may_be_followed_by_body}", head.status())
    };
    assert_eq!(others(&found), others(&expected));
    if found.fields.is_none() {
        assert_eq!(found.head.headers(), expected.head.headers());
        return None;
    }
    expect_same_fields(found, expected);
    let (Ok(Some(again)), _) = read(true) else { panic!("the same bytes are read again") };
    again.fields
}

fn expect_same_fields(found: ReceivedResponse, mut expected: ReceivedResponse) {
    assert!(found.head.headers().is_empty(), "fields are either lines or in the map");
    let headers = expected.head.headers_mut();
    // As it is done before the head is written.
    for name in [&CONNECTION, &KEEP_ALIVE, &TRANSFER_ENCODING] {
        headers.remove(name);
    }
    let fields = headers.clone();
    let request_id = HeaderValue::from_static("id-of-request");
    headers.entry(X_REQUEST_ID).or_insert_with(|| request_id.clone());
    for version in [Version::HTTP_10, Version::HTTP_11] {
        for (is_persistent, accepts_trailers) in [(true, true), (false, true), (true, false)] {
            let written = |response| written(response, version, is_persistent, accepts_trailers, &request_id);
            assert_eq!(written(&found), written(&expected));
        }
    }
    let map = found.fields.map(ReceivedFields::into_map);
    assert_eq!(map.transpose().expect("what is passed on fits into a map"), Some(fields));
}

/// The outcome, and what is left of the input.
fn read(
    input: &[u8],
    method: &Method,
    step: usize,
    passes_fields: bool,
) -> (Result<Option<ReceivedResponse>, InvalidMessage>, Vec<u8>) {
    let mut reader = ResponseReader::new(LIMITS, method).with_passed_fields(passes_fields);
    let (mut buffer, mut outcome, mut parts) = (BytesMut::new(), Ok(None), input.chunks(step.max(1)));
    while let (Ok(None), Some(part)) = (&outcome, parts.next()) {
        buffer.extend_from_slice(part);
        outcome = reader.read(&mut buffer);
    }
    (outcome, buffer.to_vec())
}

/// The lines of the written head in order, its framing, and whether another request may follow.
fn written(
    response: &ReceivedResponse,
    version: Version,
    is_persistent: bool,
    accepts_trailers: bool,
    request_id: &HeaderValue,
) -> (Vec<Vec<u8>>, String) {
    let length = match response.body.size_hint() {
        hint if response.body.is_ended() && hint.exact() == Some(0) => BodyLength::None,
        hint => SizeHint::exact(&hint).map_or(BodyLength::Unknown, BodyLength::Bytes),
    };
    let passed = response.fields.as_ref().map(|received| PassedFields { received, request_id });
    let date = &HeaderValue::from_static("now");
    let context = ResponseContext { version, is_head: false, is_persistent, accepts_trailers, date, passed };
    let mut head = BytesMut::new();
    let framing = write_response_head(&response.head, length, context, &mut head);
    let mut lines: Vec<Vec<u8>> = head[..].split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.sort();
    (lines, format!("{framing:?}"))
}
