//! Filters of response bodies. A plugin adds them in the response phase, and the proxy runs them.
//!
//! ```text
//!   Plugin::response ──push_body_filter──▶ BodyFilter::Buffered ──whole body, before the head is sent──▶ new body
//!                                        └ BodyFilter::Streaming ──each part, as it arrives────────────▶ new parts
//! ```
//!
//! The proxy handles what all filters need: lengths, `ETag` and digests, HEAD, ranges, trailers and content codings.
//! Filters run in the order in which they were added. No filter runs on a response without a body, on a range (206 or
//! `Content-Range`) or on an upgraded connection.

use bytes::Bytes;

use super::reply::Reply;

/// A filter of one response body.
pub enum BodyFilter {
    /// Gets the whole body before the head of the response is sent. Not applied to server-sent events and gRPC, whose
    /// messages must not wait for the end of the body.
    Buffered(BufferedFilter),
    /// Reads the whole body as a buffered filter does, and may replace the response instead of changing the body.
    Checked(BodyCheck),
    /// Gets each part of the body as it arrives, without content decoding.
    Streaming(Box<dyn StreamingFilter>),
}

/// A filter that needs the whole body.
pub struct BufferedFilter {
    /// The largest body in bytes, both as the endpoint sent it and without its content coding.
    pub max_bytes: usize,
    pub beyond_limit: BeyondLimit,
    /// Whether the filter reads text. The content codings gzip and deflate are then removed first, and a changed body
    /// is sent without a coding. A body with another coding passes unchanged.
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
    pub check: Box<dyn FnOnce(&[u8]) -> Option<Box<Reply>>>,
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

    /// Returns what is sent after the last part. Not called if the body is incomplete.
    fn end(&mut self) -> Bytes {
        Bytes::new()
    }

    /// Whether the filter only observes the body, so that its length, `ETag` and digests stay valid. `part` then
    /// returns its argument, and `end` returns nothing.
    fn keeps_bytes(&self) -> bool {
        false
    }
}

/// A filter and the plugin that added it.
pub(crate) struct PluginBodyFilter {
    pub(crate) plugin: &'static str,
    pub(crate) filter: BodyFilter,
}
