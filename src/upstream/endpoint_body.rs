//! The body of an endpoint's response, with the connection that it arrives on.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::UpstreamConnection;
use super::admission::Admission;
use super::endpoint_error::{EndpointError, RequestFailure};

/// Where the body of a response is read.
pub enum IncomingBody {
    /// From the connection itself.
    Connection,
    Library(Incoming),
}

/// What the library has received.
pub(super) fn received<B>(
    outcome: Result<Response<Incoming>, TrySendError<Request<B>>>,
) -> Result<Response<IncomingBody>, RequestFailure<B>> {
    Ok(outcome?.map(IncomingBody::Library))
}

pub struct EndpointBody<B> {
    incoming: IncomingBody,
    connection: UpstreamConnection<B>,
    _admission: Admission,
}

impl<B> EndpointBody<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    pub fn new(incoming: IncomingBody, connection: UpstreamConnection<B>) -> Self {
        EndpointBody { incoming, connection, _admission: Admission::default() }
    }

    /// Holds the admission of the request until the body ends.
    pub fn hold(&mut self, admission: Admission) {
        self._admission = admission;
    }

    /// Polls the next frame. None at the end of the body, which may be too early on HTTP/2: see
    /// [`EndpointBody::is_reset`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EndpointError>>> {
        match &mut self.incoming {
            IncomingBody::Connection => self.connection.poll_frame(cx),
            IncomingBody::Library(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(EndpointError::from)))
            }
        }
    }

    /// Whether the body is known to be complete.
    pub fn is_end_stream(&self) -> bool {
        match &self.incoming {
            IncomingBody::Connection => self.connection.body_is_ended(),
            IncomingBody::Library(incoming) => incoming.is_end_stream(),
        }
    }

    /// Whether a body that yields no more frames is incomplete: the stream of HTTP/2 was reset without an error.
    pub fn is_reset(&self) -> bool {
        self.connection.is_http2() && !self.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        match &self.incoming {
            IncomingBody::Connection => self.connection.body_size_hint(),
            IncomingBody::Library(incoming) => incoming.size_hint(),
        }
    }

    pub fn is_http2(&self) -> bool {
        self.connection.is_http2()
    }

    /// Returns the connection to its pool. To be called only after the whole response: a connection that is dropped is
    /// reset.
    pub fn release(self) {
        self.connection.release();
    }
}
