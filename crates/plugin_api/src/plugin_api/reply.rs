//! The response of a plugin that replies in place of the endpoint, or that replaces a response.

use std::borrow::Cow;
use std::fmt;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::stream::{LocalBoxStream, Stream, StreamExt};
use http::header::VARY;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Status, headers and body of the response. The proxy adds the headers that all of its responses have.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: ReplyBody,
    /// Reason code for the access log and for `portico_request_errors_total`, for example `no_credentials`. It is a
    /// literal where the reply is built, so that `tests/tidy` can compare it with `docs/request-errors.md`.
    pub reason: &'static str,
}

/// The body of a reply, and its format.
#[derive(Debug, PartialEq)]
pub enum ReplyBody {
    Empty,
    /// Kong's error format: `message` and `request_id` in the media type that the client accepts; for gRPC, status and
    /// message.
    Negotiated(Cow<'static, str>),
    /// Kong's plain format: always `{"message": …}`, whatever the client accepts.
    Plain(Cow<'static, str>),
    /// Sent unchanged. `Content-Type` is in `headers`.
    Raw(Bytes),
    /// Like [`ReplyBody::Raw`], for bytes that only this reply has in memory, in place of a response of the backend.
    /// They count as a body in memory until the client has them.
    Collected(Bytes),
    /// Sent as the stream yields it. `Content-Type` is in `headers`.
    Stream(ReplyStream),
}

/// The body of a reply that is produced while it is sent. The stream is polled when the client can receive more.
pub struct ReplyStream {
    stream: LocalBoxStream<'static, Result<Bytes, ReplyStreamError>>,
    /// How many bytes follow, if that is known.
    remaining: Option<u64>,
}

impl ReplyStream {
    pub fn new(stream: impl Stream<Item = Result<Bytes, ReplyStreamError>> + 'static) -> Self {
        ReplyStream::with_length(stream, None)
    }

    /// A body of this length, if it is known. A stream with another length is an error.
    pub fn with_length(
        stream: impl Stream<Item = Result<Bytes, ReplyStreamError>> + 'static,
        length: Option<u64>,
    ) -> Self {
        ReplyStream { stream: stream.boxed_local(), remaining: length }
    }

    /// How many bytes follow, if that is known.
    pub fn remaining(&self) -> Option<u64> {
        self.remaining
    }

    /// Polls the next part.
    pub fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReplyStreamError>>> {
        let part = ready!(self.stream.as_mut().poll_next(cx));
        let followed = part.as_ref().map(|part| part.as_ref().map_or(0, |data| data.len() as u64));
        match (&mut self.remaining, followed) {
            (Some(remaining), Some(length)) => match remaining.checked_sub(length) {
                Some(rest) => *remaining = rest,
                None => return Poll::Ready(Some(Err(ReplyStreamError))),
            },
            (Some(1..), None) => return Poll::Ready(Some(Err(ReplyStreamError))),
            _ => {}
        }
        Poll::Ready(part)
    }
}

impl fmt::Debug for ReplyStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ReplyStream")
    }
}

/// No two streams are equal.
impl PartialEq for ReplyStream {
    fn eq(&self, _: &ReplyStream) -> bool {
        false
    }
}

/// The stream of a reply ended before its body was complete. The client's connection or stream is aborted, so that the
/// client notices the truncation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream of the reply failed")]
pub struct ReplyStreamError;

impl Reply {
    /// The reason of a reply that stands for a response of the backend. It is counted and logged like that one, and not
    /// as an error.
    pub const NO_REASON: &'static str = "";
    /// The reason of a stored response, which is none either: it reports latencies as that of an endpoint does.
    pub const STORED: &'static str = "stored";

    /// Whether every response that replaces another one keeps the field, so that the reply need not have it.
    pub fn is_kept_by_proxy(name: &HeaderName) -> bool {
        *name == VARY || name == "x-request-id" || name.as_str().starts_with("access-control-")
    }

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
