//! The open streams of an HTTP/2 connection, and what the connection holds of their bodies.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use super::client_exchange::ClientExchange;
use super::continuations::Continuations;
use super::unforwarded_bodies::UnforwardedBodies;
use super::unread_stream::UnreadStream;
use super::unsent_responses::UnsentResponses;

/// The open streams of one connection.
pub(in crate::proxy) struct OpenStreams {
    /// The connection itself, which has no request.
    pub(in crate::proxy) connection: Rc<ClientExchange>,
    count: Cell<usize>,
    pub(in crate::proxy) unforwarded: UnforwardedBodies,
    pub(in crate::proxy) continuations: Continuations,
    unsent: Rc<UnsentResponses>,
}

impl OpenStreams {
    pub(in crate::proxy) fn new(connection: Rc<ClientExchange>) -> Rc<Self> {
        let worker = connection.worker();
        Rc::new(OpenStreams {
            count: Cell::new(0),
            unforwarded: UnforwardedBodies::new(&worker.unforwarded, worker.limits.stream_window),
            continuations: Continuations::default(),
            unsent: UnsentResponses::new(&worker.unforwarded),
            connection,
        })
    }

    pub(in crate::proxy) fn count(&self) -> usize {
        self.count.get()
    }

    /// The streams that have a task with a timer. The others wait until the library has sent their last data.
    pub(in crate::proxy) fn in_service(&self) -> usize {
        self.count.get().saturating_sub(self.unsent.ending())
    }

    /// The bytes of responses that the connection holds.
    pub(in crate::proxy) fn unsent(&self) -> &UnsentResponses {
        &self.unsent
    }

    /// Opens the stream of the request with this number, where the first one is 1. `body` is the stream, if the client
    /// sends more than the head.
    pub(in crate::proxy) fn open(
        self: &Rc<Self>,
        request: u64,
        body: Option<u32>,
        expects_continue: bool,
    ) -> OpenStream {
        self.count.set(self.count.get() + 1);
        if let Some(stream) = body {
            self.unforwarded.open(stream, request);
        }
        let expecting = body.filter(|_| expects_continue);
        if let Some(stream) = expecting {
            self.continuations.expect(stream);
        }
        let body = body.and_then(|_| NonZeroU64::new(request));
        OpenStream { streams: Rc::clone(self), body, expecting, unread: UnreadStream::default() }
    }
}

/// Counts a stream as open until this is dropped, which is when its bodies and its tunnel have ended.
pub(in crate::proxy) struct OpenStream {
    streams: Rc<OpenStreams>,
    /// The number of the request, if the client sends more than the head.
    body: Option<NonZeroU64>,
    /// The stream, if the client expects `100 Continue`.
    expecting: Option<u32>,
    /// What is left of the request body when nothing forwards it any more.
    pub(in crate::proxy) unread: UnreadStream,
}

impl OpenStream {
    /// The bytes of the body that are not forwarded, with the number of the request.
    pub(in crate::proxy) fn unforwarded(&self) -> Option<(&UnforwardedBodies, u64)> {
        Some((&self.streams.unforwarded, self.body?.get()))
    }

    /// Whether the client still waits for `100 Continue`. Then it sends no body after another response.
    pub(super) fn awaits_continue(&self) -> bool {
        self.expecting.is_some_and(|stream| self.streams.continuations.is_awaited(stream))
    }

    /// The body is read, and has not arrived.
    pub(in crate::proxy) fn request_continuation(&self) {
        if let Some(stream) = self.expecting {
            self.streams.continuations.request(stream);
        }
    }

    /// The bytes of responses that the connection holds.
    pub(in crate::proxy) fn unsent(&self) -> &Rc<UnsentResponses> {
        &self.streams.unsent
    }

    /// Whether the connection is not read.
    pub(in crate::proxy) fn is_paused(&self) -> bool {
        self.streams.unforwarded.is_paused()
    }

    /// How long the connection was not read so far.
    pub(in crate::proxy) fn paused(&self) -> Duration {
        self.streams.unforwarded.paused()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if let Some((bodies, request)) = self.unforwarded() {
            bodies.close(request);
        }
        if let Some(stream) = self.expecting {
            self.streams.continuations.forget(stream);
        }
        let streams = &self.streams;
        streams.count.set(streams.count.get() - 1);
        if streams.count.get() == 0 {
            streams.connection.activity.record_progress();
        }
    }
}
