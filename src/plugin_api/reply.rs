//! The response of a plugin that replies in place of the endpoint.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Status, headers and body of the response. The proxy adds the headers that all of its responses have.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: ReplyBody,
    /// Reason code for the access log and for `portico_request_errors_total`, for example `no_credentials`.
    pub reason: &'static str,
}

/// The body of a reply, and its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyBody {
    Empty,
    /// Kong's error format: `message` and `request_id` in the media type that the client accepts; for gRPC, status and
    /// message.
    Negotiated(Cow<'static, str>),
    /// Kong's plain format: always `{"message": …}`, whatever the client accepts.
    Plain(Cow<'static, str>),
    /// Sent unchanged. `Content-Type` is in `headers`.
    Raw(Bytes),
}

impl Reply {
    /// A reply with [`ReplyBody::Negotiated`].
    pub fn negotiated(status: StatusCode, message: impl Into<Cow<'static, str>>, reason: &'static str) -> Box<Self> {
        Reply::new(status, ReplyBody::Negotiated(message.into()), reason)
    }

    /// A reply with [`ReplyBody::Plain`].
    pub fn plain(status: StatusCode, message: impl Into<Cow<'static, str>>, reason: &'static str) -> Box<Self> {
        Reply::new(status, ReplyBody::Plain(message.into()), reason)
    }

    pub fn new(status: StatusCode, body: ReplyBody, reason: &'static str) -> Box<Self> {
        Box::new(Reply { status, headers: HeaderMap::new(), body, reason })
    }

    #[must_use]
    pub fn with_header(mut self: Box<Self>, name: HeaderName, value: HeaderValue) -> Box<Self> {
        self.headers.append(name, value);
        self
    }
}
