//! Bodies on their way through: counted, with the back-pressure of whoever reads slower, and never longer or shorter than
//! what was sent.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::connection::Peer;
use super::exchange::Exchange;
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

/// The body of the request will not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the body of the request is broken: {0}")]
    Read(hyper::Error),
    #[error("the body of the request can be read in two ways")]
    Refused,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        // The guard has seen these bytes before hyper made something of them.
        if this.peer.activity.refused().is_some() {
            this.peer.activity.broken.set(true);
            return Poll::Ready(Some(Err(Broken::Refused)));
        }
        match frame {
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
                Poll::Ready(Some(Err(Broken::Read(error))))
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

/// Where the body of an answer comes from.
pub(crate) enum Source {
    /// Our own answer, if it has a body.
    Ours(Bytes),
    Upstream {
        incoming: Incoming,
        /// Goes back to its pool when the body was read to its end.
        connection: Option<Connection<RequestBody>>,
    },
}

/// The body of an answer, with the entry in the books that its end closes.
pub(crate) struct ResponseBody {
    source: Source,
    exchange: Exchange,
    version: Version,
}

impl ResponseBody {
    /// `version` is that of the request: a client of HTTP/1.0 knows the end of a body by the end of the connection.
    pub(crate) fn new(source: Source, exchange: Exchange, version: Version) -> Self {
        ResponseBody { source, exchange, version }
    }

    fn end(&mut self) {
        if let Source::Upstream { connection, .. } = &mut self.source
            && let Some(connection) = connection.take()
        {
            connection.keep();
        }
        self.exchange.close();
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
                this.exchange.bytes_out += bytes.len() as u64;
                this.end();
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Source::Upstream { incoming, .. } => match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    this.exchange.peer.activity.moved();
                    if let Some(data) = frame.data_ref() {
                        this.exchange.bytes_out += data.len() as u64;
                    }
                    if incoming.is_end_stream() {
                        this.end();
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Some(Err(error)) => {
                    this.exchange.fault = Some("truncated");
                    this.exchange.peer.activity.reset.set(this.version == Version::HTTP_10);
                    this.exchange.close();
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
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Ours(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upstream { incoming, .. } => incoming.size_hint(),
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
