//! Rejects or normalizes message framing that is valid and that the next hop may interpret differently.
//!
//! The [codec](crate::http1) itself rejects invalid and ambiguous framing. The remaining cases are rejected here.

use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Version};

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
