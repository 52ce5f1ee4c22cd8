//! An answer that a plugin gives instead of an endpoint.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Status, headers and body. The proxy adds what all of its answers have.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: ReplyBody,
    /// One word for the access log and for `portico_faults_total`, for example `no_credentials`.
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyBody {
    Empty,
    /// E1 of Kong: `message` and `request_id`, in the form that the client accepts; for gRPC as status and message.
    Negotiated(Cow<'static, str>),
    /// E2 of Kong: `{"message": …}` and nothing else, whatever the client accepts.
    Plain(Cow<'static, str>),
    /// Sent as it is. `Content-Type` is among the headers.
    Raw(Bytes),
}

impl Reply {
    /// A negotiated message.
    pub fn negotiated(status: StatusCode, message: impl Into<Cow<'static, str>>, reason: &'static str) -> Box<Self> {
        Reply::new(status, ReplyBody::Negotiated(message.into()), reason)
    }

    pub fn plain(status: StatusCode, message: impl Into<Cow<'static, str>>, reason: &'static str) -> Box<Self> {
        Reply::new(status, ReplyBody::Plain(message.into()), reason)
    }

    pub fn new(status: StatusCode, body: ReplyBody, reason: &'static str) -> Box<Self> {
        Box::new(Reply { status, headers: HeaderMap::new(), body, reason })
    }

    #[must_use]
    pub fn with(mut self: Box<Self>, name: HeaderName, value: HeaderValue) -> Box<Self> {
        self.headers.append(name, value);
        self
    }
}
