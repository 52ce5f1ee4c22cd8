//! What an HTTP/2 connection and the reader of its frames know of its streams.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use h2::Reason;
use tokio::time::Instant;

use super::malformed_input::{MalformedInput, PartialHead, record_malformed};
use crate::proxy::connection::listener_connections::{IdleState, Idleness};
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::exchange::open_streams::{OpenStream, OpenStreams};
use crate::proxy::http::record::request_error::{HTTP2_FLOOD, HTTP2_FLOOD_STATUS, RequestError};

/// The streams of one connection.
pub(in crate::proxy) struct StreamTracker {
    pub(in crate::proxy) open: Rc<OpenStreams>,
    /// The stream whose task is about to be started.
    pub(in crate::proxy) next_stream: RefCell<Option<Rc<ClientExchange>>>,
    pub(in crate::proxy) flooded: Cell<bool>,
    /// When the preface or the current header block began, if it is incomplete.
    pub(in crate::proxy) header_since: Cell<Option<Instant>>,
    /// Request heads that arrived.
    pub(in crate::proxy) heads_received: Cell<u64>,
    /// Requests that hyper passed to the service.
    pub(in crate::proxy) requests_served: Cell<u64>,
    /// Request heads that the library has rejected, as of the last deferred read.
    pub(in crate::proxy) rejected: Cell<u64>,
    /// The stream of the request with a body whose head ended the last read, until the next read.
    pub(in crate::proxy) next_body: Cell<Option<u32>>,
    /// A read waits until the library has passed on or rejected the requests that have arrived.
    pub(in crate::proxy) read_deferred: Cell<bool>,
}

impl StreamTracker {
    pub(in crate::proxy) fn new(connection: Rc<ClientExchange>) -> Rc<Self> {
        Rc::new(StreamTracker {
            open: OpenStreams::new(connection),
            next_stream: RefCell::default(),
            flooded: Cell::new(false),
            header_since: Cell::new(Some(Instant::now())),
            heads_received: Cell::new(0),
            requests_served: Cell::new(0),
            rejected: Cell::new(0),
            next_body: Cell::new(None),
            read_deferred: Cell::new(false),
        })
    }

    /// Records the end of the connection if the client has violated the protocol.
    pub(in crate::proxy) fn record_violation(&self, error: Option<&hyper::Error>) {
        let violation = error.and_then(client_protocol_error);
        let (status, reason) = if self.flooded.get() || violation == Some(Reason::ENHANCE_YOUR_CALM) {
            (HTTP2_FLOOD_STATUS, HTTP2_FLOOD)
        } else if violation.is_some() {
            let details = RequestError::MalformedRequest.details();
            (details.status, details.reason)
        } else {
            return;
        };
        let input = MalformedInput { head: PartialHead::default(), status, reason, id: None, bytes_out: 0 };
        record_malformed(&self.open.connection, input);
    }

    /// Whether the library may pass on another request of those whose heads have arrived. Also true after the library
    /// has rejected one, until a deferred read.
    pub(in crate::proxy) fn is_request_pending(&self) -> bool {
        self.requests_served.get() + self.rejected.get() < self.heads_received.get()
    }

    /// Opens the stream of the request that the library has just passed on.
    pub(in crate::proxy) fn open_stream(&self, has_body: bool, expects_continue: bool) -> OpenStream {
        let body = self.next_body.get().filter(|_| has_body);
        self.open.open(self.requests_served.get(), body, expects_continue)
    }
}

/// The HTTP/2 error code if the library closed the connection because of a protocol violation by the client.
fn client_protocol_error(error: &hyper::Error) -> Option<Reason> {
    let error = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
    error.is_library().then(|| error.reason()).flatten()
}

impl IdleState for StreamTracker {
    fn idleness(&self) -> Option<Idleness> {
        let is_idle = self.open.count() == 0;
        let had_request = self.heads_received.get() > 0;
        is_idle.then(|| Idleness { had_request, since: self.open.connection.activity.last_progress() })
    }
}

impl std::fmt::Debug for StreamTracker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("StreamTracker").field("connection", &self.open.connection).finish_non_exhaustive()
    }
}
