//! Filters of response bodies. A plugin adds them in the response phase, and the proxy runs them.
//!
//! ```text
//!   Plugin::response ──push_body_filter──▶ BodyFilter::Buffered ──whole body, before the head is sent──▶ new body
//!                                        ├ BodyFilter::Converted ──whole body and trailers─────────────▶ status, body
//!                                        ├ BodyFilter::Streaming ──each part, as it arrives────────────▶ new parts
//!                                        └ BodyFilter::Coding ──the last, decides by the final head────▶ encoded parts
//! ```
//!
//! The proxy handles what all filters need: lengths, `ETag` and digests, HEAD, ranges, trailers and content codings.
//! Filters run in the order in which they were added, and the one that encodes the body runs after all others, whatever
//! the priority of its plugin: no filter reads what Portico itself has encoded. No filter runs on a response without a
//! body, on a range (206 or `Content-Range`) or on an upgraded connection.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::reply::Reply;

/// A filter of one response body.
pub enum BodyFilter {
    /// Gets the whole body before the head of the response is sent. Not applied to server-sent events and gRPC, whose
    /// messages must not wait for the end of the body.
    Buffered(BufferedFilter),
    /// Reads the whole body as a buffered filter does, and may replace the response instead of changing the body.
    Checked(BodyCheck),
    /// Gets the whole body and its trailers, also of gRPC, and returns the status and the body of the response.
    Converted(BodyConversion),
    /// Gets each part of the body as it arrives, without content decoding.
    Streaming(Box<dyn StreamingFilter>),
    /// Decides by the final head of the response whether and how the body is encoded.
    Coding(Box<dyn FnOnce(CodedHead<'_>) -> Option<BodyCoding>>),
}

/// The head of a response whose body may be encoded, after all other filters. Its body may be missing: for HEAD, whose
/// head is that of the response to GET, and for a status or a range without a whole body, which is not encoded.
pub struct CodedHead<'h> {
    pub status: StatusCode,
    pub headers: &'h mut HeaderMap,
    /// The length of the body, if it is known.
    pub length: Option<u64>,
}

/// How a body is encoded.
pub struct BodyCoding {
    /// The value of `Content-Encoding`.
    pub name: HeaderValue,
    /// How many bytes the encoder keeps until the end of the body. They count as bytes of bodies that are kept; without
    /// room for them, the body is sent as it is.
    pub memory_bytes: usize,
    /// Creates the encoder. `None` if that fails; the body is then sent as it is.
    pub start: Box<dyn FnOnce() -> Option<Box<dyn StreamingFilter>>>,
}

/// A filter that needs the whole body.
pub struct BufferedFilter {
    /// The largest body in bytes, both as the endpoint sent it and without its content coding.
    pub max_bytes: usize,
    pub beyond_limit: BeyondLimit,
    /// Whether the filter reads text. The content codings gzip, deflate, br and zstd are then removed first, and a
    /// changed body is sent without a coding. A body with another coding passes unchanged.
    pub reads_text: bool,
    pub transform: BodyTransform,
}

/// Returns the new body, or `None` to leave the response as it is.
pub type BodyTransform = Box<dyn FnOnce(&[u8]) -> Option<Bytes>>;

/// A check of the whole body.
pub struct BodyCheck {
    /// The largest body in bytes, as in [`BufferedFilter`].
    pub max_bytes: usize,
    /// What happens to a body that is larger, or whose content coding is not gzip or deflate or is invalid.
    pub unreadable: BeyondLimit,
    /// Returns what replaces the response, without the response phase of the plugins, or `None` to leave it as it is.
    pub check: CheckOfBody,
}

/// Returns what replaces the response, or `None` to leave it as it is.
pub type CheckOfBody = Box<dyn FnOnce(&[u8]) -> Option<Box<Reply>>>;

/// A conversion of the whole body together with its trailers, which do not follow the new body. The conversion is for
/// a plugin that has translated the request: the client cannot read the response of the endpoint.
pub struct BodyConversion {
    /// The largest body in bytes.
    pub max_bytes: usize,
    /// Replaces a response whose body is larger, or cannot be kept.
    pub too_large: Box<Reply>,
    pub convert: ConvertBody,
}

pub type ConvertBody = Box<dyn FnOnce(&[u8], Option<&HeaderMap>) -> ConvertedBody>;

/// The outcome of a [`BodyConversion`].
#[derive(Debug, PartialEq)]
pub struct ConvertedBody {
    pub status: StatusCode,
    pub body: Bytes,
}

/// What happens to a body that is larger than `max_bytes`.
pub enum BeyondLimit {
    PassUnchanged,
    /// The reply replaces the response. The response phase of the plugins does not run on it.
    Replace(Box<Reply>),
}

/// A filter that processes a body in parts.
pub trait StreamingFilter {
    /// Returns what is sent in place of this part, which may be empty.
    fn part(&mut self, data: Bytes) -> Bytes;

    /// Gets the trailers of a complete body, before `end`, and returns those that follow the filtered body.
    fn trailers(&mut self, trailers: HeaderMap) -> Option<HeaderMap> {
        Some(trailers)
    }

    /// Returns what is sent after the last part. Not called if the body is incomplete.
    fn end(&mut self) -> Bytes {
        Bytes::new()
    }

    /// Returns what the filter has kept back, because the source of the body has no more data at the moment, so that
    /// the client does not wait for it.
    fn pause(&mut self) -> Bytes {
        Bytes::new()
    }

    /// The most bytes that `part` gets at once. After each part of a filter with a limit, other requests of the worker
    /// run.
    fn max_part(&self) -> Option<usize> {
        None
    }

    /// Whether the filter has failed, so that the rest of the body cannot be sent. The response is then aborted.
    fn has_failed(&self) -> bool {
        false
    }

    /// Whether the filter only observes the body, so that its length, `ETag` and digests stay valid. `part` then
    /// returns its argument, and `end` returns nothing.
    fn keeps_bytes(&self) -> bool {
        false
    }
}

/// A filter and the plugin that added it.
pub struct PluginBodyFilter {
    pub plugin: &'static str,
    pub filter: BodyFilter,
}
