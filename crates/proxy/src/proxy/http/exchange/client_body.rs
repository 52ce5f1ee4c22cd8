//! The body of a request as its client sends it, over HTTP/1 or HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::unread_body::UnreadBody;
use crate::http1::InvalidMessage;

pub(in crate::proxy) enum ClientBody {
    Empty,
    Http1(UnreadBody),
    Library(Incoming),
}

/// Why the body is not received to its end.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum ClientBodyError {
    #[error(transparent)]
    Http1(#[from] InvalidMessage),
    #[error(transparent)]
    Library(#[from] hyper::Error),
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        match self.get_mut() {
            ClientBody::Empty => Poll::Ready(None),
            ClientBody::Http1(body) => body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            ClientBody::Library(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ClientBody::Empty => true,
            ClientBody::Http1(body) => body.is_end_stream(),
            ClientBody::Library(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ClientBody::Empty => SizeHint::with_exact(0),
            ClientBody::Http1(body) => body.size_hint(),
            ClientBody::Library(incoming) => incoming.size_hint(),
        }
    }
}
