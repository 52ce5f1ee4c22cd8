//! Rejects or normalizes message framing that is valid and that the next hop may interpret differently.
//!
//! The [codec](crate::http1) itself rejects invalid and ambiguous framing. The remaining cases are rejected here.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};

use crate::proxy::http::client::response_body::BodySource;
use crate::proxy::http::record::request_error::RequestError;

/// Rejects ambiguous framing and unknown expectations. Removes leading zeros from the length.
pub(in crate::proxy) fn check_request<B>(request: &mut Request<B>) -> Result<(), RequestError> {
    match transfer_coding(request.headers()) {
        TransferCoding::None | TransferCoding::Chunked => {}
        // The proxy would have to decode the other coding too; forwarding it undecoded would change the message.
        TransferCoding::Other => {
            return Err(RequestError::AmbiguousFraming("the only supported Transfer-Encoding is chunked"));
        }
    }
    if let Some(length) = request.headers_mut().get_mut(CONTENT_LENGTH)
        && let [b'0', _, ..] = length.as_bytes()
    {
        // Some parsers read a number with a leading zero as octal.
        let number = length.to_str().ok().and_then(|length| length.parse::<u64>().ok());
        *length = number
            .map(HeaderValue::from)
            .ok_or(RequestError::AmbiguousFraming("the Content-Length is not a number"))?;
    }
    if let Some(expectation) = request.headers().get(EXPECT)
        && request.version() >= Version::HTTP_11
        && !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(RequestError::UnsupportedExpectation);
    }
    Ok(())
}

/// Normalizes the framing headers of a response so that they are unambiguous.
pub(in crate::proxy) fn normalize_response(headers: &mut HeaderMap) -> Result<(), RequestError> {
    match transfer_coding(headers) {
        TransferCoding::None => Ok(()),
        TransferCoding::Chunked => {
            headers.remove(CONTENT_LENGTH);
            Ok(())
        }
        TransferCoding::Other => Err(RequestError::InvalidResponse),
    }
}

/// Removes what a response with its status, or to HEAD, does not have, in all versions of HTTP: 204 and 304 have no
/// body, and 204 has no length either (RFC 9110, sections 8.6 and 15). The length in a 304, and in a response to HEAD,
/// is that of another response.
pub(in crate::proxy) fn fit_to_status(response: &mut Response<BodySource>, is_head: bool) {
    let status = response.status();
    let has_no_content = status == StatusCode::NO_CONTENT;
    if has_no_content {
        response.headers_mut().remove(CONTENT_LENGTH);
        response.headers_mut().remove(TRAILER);
    }
    // The length of a body that Portico made for a response to HEAD is not in a field yet.
    let drops_body = has_no_content
        || status == StatusCode::NOT_MODIFIED
        || is_head && matches!(response.body(), BodySource::Upstream(_) | BodySource::Filtered(_));
    // A complete body keeps its connection. An endpoint with HTTP/2 that sends data nevertheless gets a reset.
    if drops_body && !response.body().is_end_stream() {
        *response.body_mut() = BodySource::Local(Bytes::new());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransferCoding {
    None,
    Chunked,
    Other,
}

fn transfer_coding(headers: &HeaderMap) -> TransferCoding {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => TransferCoding::None,
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => TransferCoding::Chunked,
        _ => TransferCoding::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_without_content_have_no_body() {
        // (status, to HEAD, the length in the field and of the body afterwards)
        let cases = [
            (200, false, Some("3"), 3),
            (204, false, None, 0),
            (205, false, Some("3"), 3),
            (304, false, Some("3"), 0),
            (200, true, Some("3"), 3),
            (204, true, None, 0),
        ];
        for (status, is_head, length, body_length) in cases {
            let mut response = Response::new(BodySource::Local(Bytes::from_static(b"abc")));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("3"));
            response.headers_mut().insert(TRAILER, HeaderValue::from_static("x-sum"));
            fit_to_status(&mut response, is_head);
            let found = response.headers().get(CONTENT_LENGTH).map(|length| length.to_str().unwrap());
            assert_eq!(found, length, "{status}, to HEAD: {is_head}");
            assert_eq!(response.headers().contains_key(TRAILER), status != 204, "{status}");
            assert_eq!(response.body().size_hint().exact(), Some(body_length), "{status}, to HEAD: {is_head}");
        }
    }
}
