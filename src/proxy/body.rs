//! Bodies on their way through: counted, with the back-pressure of whoever reads slower, and never longer or shorter than
//! what was sent.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::connection::Peer;
use super::exchange::Exchange;
use super::upgrade::Upgrade;
use crate::upstream::Connection;

/// The body of a request, as it goes to an endpoint.
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    peer: Rc<Peer>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, peer: &Rc<Peer>) -> Self {
        let incoming = (!incoming.is_end_stream()).then_some(incoming);
        peer.activity.uploading.set(incoming.is_some());
        RequestBody { incoming, peer: Rc::clone(peer) }
    }

    /// The body of a request that is sent a second time, which has none.
    pub(crate) fn empty(peer: &Rc<Peer>) -> Self {
        RequestBody { incoming: None, peer: Rc::clone(peer) }
    }

    fn end(&mut self) {
        self.incoming = None;
        self.peer.activity.uploading.set(false);
        self.peer.activity.moved();
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenUpload;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenUpload>>> {
        let this = self.get_mut();
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        if this.peer.activity.is_abandoned(cx) {
            return Poll::Ready(Some(Err(BrokenUpload::Abandoned)));
        }
        match ready!(Pin::new(incoming).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let activity = &this.peer.activity;
                if let Some(data) = frame.data_ref() {
                    activity.bytes_in.set(activity.bytes_in.get() + data.len() as u64);
                }
                activity.moved();
                if this.is_end_stream() {
                    this.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.peer.activity.broken.set(true);
                Poll::Ready(Some(Err(BrokenUpload::Cut(error))))
            }
            None => {
                this.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.incoming.is_some() {
            self.peer.activity.unread.set(true);
            self.peer.activity.uploading.set(false);
        }
    }
}

/// Why the body of a request does not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenUpload {
    #[error("the body of the request is broken or cut short: {0}")]
    Cut(hyper::Error),
    #[error("the answer is over, so nobody waits for the rest of the request")]
    Abandoned,
}

/// Where the body of an answer comes from.
pub(crate) enum Source {
    /// Our own answer, if it has a body.
    Ours(Bytes),
    Upstream {
        incoming: Incoming,
        /// Goes back to its pool when the body was read to its end.
        connection: Option<Connection<RequestBody>>,
    },
    /// The endpoint switches protocols, as it was asked to.
    Switched(Box<Upgrade>, OnUpgrade),
}

/// The body of an answer, with the entry in the books that its end closes.
pub(crate) struct ResponseBody {
    source: Source,
    /// None if it ends with something else than this body.
    exchange: Option<Exchange>,
    version: Version,
}

impl ResponseBody {
    /// `version` is that of the request: a client of HTTP/1.0 knows the end of a body by the end of the connection.
    pub(crate) fn new(source: Source, exchange: Exchange, version: Version) -> Self {
        ResponseBody { source, exchange: Some(exchange), version }
    }

    /// Of an answer behind which the connection becomes a tunnel.
    pub(crate) fn none() -> Self {
        ResponseBody { source: Source::Ours(Bytes::new()), exchange: None, version: Version::HTTP_11 }
    }

    fn end(&mut self) {
        if let Source::Upstream { connection, .. } = &mut self.source
            && let Some(connection) = connection.take()
        {
            connection.keep();
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.close();
        }
    }

    fn count(&mut self, length: usize) {
        if let Some(exchange) = &mut self.exchange {
            exchange.peer.activity.moved();
            exchange.bytes_out += length as u64;
        }
    }
}

/// The endpoint's body ended before its end. The connection of the client ends with it, so that nobody takes what came for
/// all of it.
#[derive(Debug, thiserror::Error)]
#[error("the body of the answer is incomplete: {0}")]
pub(crate) struct Truncated(hyper::Error);

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Truncated;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Truncated>>> {
        let this = self.get_mut();
        match &mut this.source {
            Source::Ours(bytes) => {
                let bytes = std::mem::take(bytes);
                this.count(bytes.len());
                this.end();
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Source::Switched(..) => Poll::Ready(None),
            Source::Upstream { incoming, .. } => match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let ended = incoming.is_end_stream();
                    this.count(frame.data_ref().map_or(0, Bytes::len));
                    if ended {
                        this.end();
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Some(Err(error)) => {
                    if let Some(exchange) = &mut this.exchange {
                        exchange.fault = Some("truncated");
                        exchange.peer.activity.reset.set(this.version == Version::HTTP_10);
                        exchange.close();
                    }
                    Poll::Ready(Some(Err(Truncated(error))))
                }
                None => {
                    this.end();
                    Poll::Ready(None)
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Ours(bytes) => bytes.is_empty(),
            Source::Upstream { incoming, .. } => incoming.is_end_stream(),
            Source::Switched(..) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Ours(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upstream { incoming, .. } => incoming.size_hint(),
            Source::Switched(..) => SizeHint::with_exact(0),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // An answer without a body is never polled, and one of known length not after its last byte.
        if self.is_end_stream() {
            self.end();
        }
    }
}
