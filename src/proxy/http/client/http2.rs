//! Serves one HTTP/2 client connection and its streams.
//!
//! ```text
//!   FrameStream ─ hyper ─┬─ stream: a task with its own Peer and timer; request::serve, then the response body
//!        │               └─ stream: …
//!        └ flood protection        connection: idle timeout without streams, graceful shutdown, abort
//! ```

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

use h2::Reason;
use http::header::EXPECT;
use http::{Method, Request};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use super::activity::ActivityPhase;
use super::client_body::ClientBody;
use super::client_connection::{Peer, SHUTDOWN_TIMEOUT};
use super::continuations::Continuations;
use super::frames::FrameStream;
use super::malformed_request::PartialHead;
use super::unforwarded_bodies::UnforwardedBodies;
use super::unsent_responses::UnsentResponses;
use crate::proxy::connection::listener_connections::{ConnectionRegistration, IdleState, Idleness};
use crate::proxy::connection::moving_deadline::poll_until;
use crate::proxy::http::record::request_error::{HTTP2_FLOOD, HTTP2_FLOOD_STATUS, REFUSED_STREAM, RequestError};
use crate::proxy::http::record::request_record::{MalformedInput, record_malformed};
use crate::proxy::http::steps::request;
use crate::proxy::limits::ProxyLimits;
use crate::proxy::record::stats::OpenGuard;
use crate::turn_clock::Turn;

/// The streams of one connection.
pub(in crate::proxy) struct StreamTracker {
    /// The connection itself, which has no request.
    connection: Rc<Peer>,
    open_count: Cell<usize>,
    /// The stream whose task is about to be started.
    next_stream: RefCell<Option<Rc<Peer>>>,
    pub(in crate::proxy) flooded: Cell<bool>,
    /// When the preface or the current header block began, if it is incomplete.
    pub(in crate::proxy) header_since: Cell<Option<Instant>>,
    /// Request heads that arrived.
    pub(in crate::proxy) heads_received: Cell<u64>,
    /// Requests that hyper passed to the service.
    requests_served: Cell<u64>,
    /// Request heads that the library has rejected, as of the last deferred read.
    rejected: Cell<u64>,
    /// The stream of the request with a body whose head ended the last read, until the next read.
    pub(in crate::proxy) next_body: Cell<Option<u32>>,
    /// A read waits until the library has passed on or rejected the requests that have arrived.
    pub(in crate::proxy) read_deferred: Cell<bool>,
    pub(in crate::proxy) unforwarded: UnforwardedBodies,
    pub(in crate::proxy) continuations: Continuations,
    unsent: Rc<UnsentResponses>,
}

/// Serves all requests of a connection whose client sent the HTTP/2 preface or negotiated HTTP/2.
pub(in crate::proxy) async fn serve<S>(stream: S, peer: Rc<Peer>, mut registration: ConnectionRegistration)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let _counted = OpenGuard::new(&peer.worker().counters, |stats| &stats.http2);
    let streams = Rc::new(StreamTracker {
        connection: Rc::clone(&peer),
        open_count: Cell::new(0),
        next_stream: RefCell::default(),
        flooded: Cell::new(false),
        header_since: Cell::new(Some(Instant::now())),
        heads_received: Cell::new(0),
        requests_served: Cell::new(0),
        rejected: Cell::new(0),
        next_body: Cell::new(None),
        read_deferred: Cell::new(false),
        unforwarded: UnforwardedBodies::new(&peer.worker().unforwarded, peer.worker().limits.stream_window),
        continuations: Continuations::default(),
        unsent: UnsentResponses::new(&peer.worker().unforwarded),
    });
    let idle_state: Weak<StreamTracker> = Rc::downgrade(&streams);
    registration.begin_serving(idle_state);
    let service = {
        let streams = Rc::clone(&streams);
        service_fn(move |request: Request<Incoming>| {
            streams.requests_served.set(streams.requests_served.get() + 1);
            let has_body = !request.body().is_end_stream() || request.method() == Method::CONNECT;
            let expects_continue = has_body && request.headers().contains_key(EXPECT);
            let stream = Rc::new(streams.connection.for_stream(streams.open_stream(has_body, expects_continue)));
            streams.next_stream.replace(Some(Rc::clone(&stream)));
            // Boxed, because the library and the runtime move the future of a stream several times.
            Box::pin(request::serve(stream, request.map(ClientBody::Library)))
        })
    };
    let limits = &peer.worker().limits;
    let socket = FrameStream::new(stream, Rc::clone(&streams));
    let http = builder(limits, StreamExecutor(Rc::clone(&streams))).serve_connection(TokioIo::new(socket), service);
    let mut http = pin!(http);
    let activity = &peer.activity;
    activity.enter_phase(ActivityPhase::Idle, Instant::now());
    let mut timer = pin!(sleep_until(activity.deadline(limits, limits.client_idle_timeout)));
    let mut is_shutting_down = false;
    poll_fn(|cx| {
        let _turn = Turn::begin();
        registration.set_waker(cx.waker());
        loop {
            if peer.connections.is_aborted() {
                return Poll::Ready(());
            }
            if let Poll::Ready(outcome) = http.as_mut().poll(cx) {
                streams.record_violation(outcome.err().as_ref());
                return Poll::Ready(());
            }
            if streams.read_deferred.take() {
                // The library has asked for more bytes, so it has decoded all heads, and hyper has taken all requests
                // that the library passed on. Without a deferred read, the library may have stopped before a head: it
                // decodes nothing while the socket takes no response to a PING or SETTINGS frame.
                streams.rejected.set(streams.heads_received.get().saturating_sub(streams.requests_served.get()));
                continue;
            }
            let is_evicted = registration.take_eviction() && streams.open_count.get() == 0;
            if (peer.connections.is_closing() || is_evicted) && !is_shutting_down {
                is_shutting_down = true;
                // Sends a GOAWAY that still accepts all streams, and after a round trip one with the last stream id.
                http.as_mut().graceful_shutdown();
                continue;
            }
            let idle_timeout = if is_shutting_down { SHUTDOWN_TIMEOUT } else { limits.client_idle_timeout };
            let idle_deadline = activity.deadline(limits, idle_timeout);
            let header_deadline = streams.header_since.get().map(|since| since + limits.header_timeout);
            let recheck_at = streams.unforwarded.recheck_at();
            let deadline = [header_deadline, recheck_at].into_iter().flatten().fold(idle_deadline, Instant::min);
            std::task::ready!(poll_until(deadline, timer.as_mut(), cx));
            if recheck_at == Some(deadline) {
                streams.unforwarded.begin_recheck();
                continue;
            }
            if header_deadline == Some(deadline) {
                // The connection closes, as on HTTP/1: nothing else can be read from it before the header block is
                // complete.
                return Poll::Ready(());
            }
            if streams.open_count.get() > 0 {
                // Each stream has its own timer.
                activity.record_progress();
            } else if is_shutting_down {
                return Poll::Ready(());
            } else {
                is_shutting_down = true;
                activity.record_progress();
                http.as_mut().graceful_shutdown();
            }
        }
    })
    .await;
    // Counted after the connection has ended, because until then hyper may hold heads that it has not passed to the
    // service yet.
    peer.worker()
        .count_errors(REFUSED_STREAM, streams.heads_received.get().saturating_sub(streams.requests_served.get()));
}

fn builder(limits: &ProxyLimits, executor: StreamExecutor) -> Builder<StreamExecutor> {
    let mut http = Builder::new(executor);
    http.timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.max_request_head).unwrap_or(u32::MAX))
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(MAX_FRAME_SIZE)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_timeout)
        // WebSocket over HTTP/2 (RFC 8441).
        .enable_connect_protocol();
    http
}

/// The HTTP/2 error code if the library closed the connection because of a protocol violation by the client.
fn client_protocol_error(error: &hyper::Error) -> Option<Reason> {
    let error = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
    error.is_library().then(|| error.reason()).flatten()
}

impl IdleState for StreamTracker {
    fn idleness(&self) -> Option<Idleness> {
        let is_idle = self.open_count.get() == 0;
        let had_request = self.heads_received.get() > 0;
        is_idle.then(|| Idleness { had_request, since: self.connection.activity.last_progress() })
    }
}

impl std::fmt::Debug for StreamTracker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("StreamTracker").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl StreamTracker {
    /// Records the end of the connection if the client has violated the protocol.
    fn record_violation(&self, error: Option<&hyper::Error>) {
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
        record_malformed(&self.connection, input);
    }

    /// Whether the library may pass on another request of those whose heads have arrived. Also true after the library
    /// has rejected one, until a deferred read.
    pub(in crate::proxy) fn is_request_pending(&self) -> bool {
        self.requests_served.get() + self.rejected.get() < self.heads_received.get()
    }

    /// Opens the stream of the request that the library has just passed on.
    fn open_stream(self: &Rc<Self>, has_body: bool, expects_continue: bool) -> OpenStream {
        self.open_count.set(self.open_count.get() + 1);
        let request = self.requests_served.get();
        let body = self.next_body.get().filter(|_| has_body);
        if let Some(stream) = body {
            self.unforwarded.open(stream, request);
        }
        let expecting = body.filter(|_| expects_continue);
        if let Some(stream) = expecting {
            self.continuations.expect(stream);
        }
        OpenStream { connection: Rc::clone(self), body: body.map(|_| request), expecting }
    }
}

/// Counts a stream as open until this is dropped, which is when its bodies and its tunnel have ended.
pub(in crate::proxy) struct OpenStream {
    connection: Rc<StreamTracker>,
    /// The number of the request, if the client sends more than the head.
    body: Option<u64>,
    /// The stream, if the client expects `100 Continue`.
    expecting: Option<u32>,
}

impl OpenStream {
    /// The bytes of the body that are not forwarded, with the number of the request.
    pub(in crate::proxy) fn unforwarded(&self) -> Option<(&UnforwardedBodies, u64)> {
        Some((&self.connection.unforwarded, self.body?))
    }

    /// The body is read, and has not arrived.
    pub(in crate::proxy) fn request_continuation(&self) {
        if let Some(stream) = self.expecting {
            self.connection.continuations.request(stream);
        }
    }

    /// The bytes of responses that the connection holds.
    pub(in crate::proxy) fn unsent(&self) -> &Rc<UnsentResponses> {
        &self.connection.unsent
    }

    /// Whether the connection is not read.
    pub(in crate::proxy) fn is_paused(&self) -> bool {
        self.connection.unforwarded.is_paused()
    }

    /// How long the connection was not read so far.
    pub(in crate::proxy) fn paused(&self) -> Duration {
        self.connection.unforwarded.paused()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if let Some((bodies, request)) = self.unforwarded() {
            bodies.close(request);
        }
        if let Some(stream) = self.expecting {
            self.connection.continuations.forget(stream);
        }
        let streams = &self.connection;
        streams.open_count.set(streams.open_count.get() - 1);
        if streams.open_count.get() == 0 {
            streams.connection.activity.record_progress();
        }
    }
}

/// The executor on which hyper spawns the task of a stream, directly after it has called the service with the request.
/// hyper ends the tasks when their connection ends.
#[derive(Clone)]
struct StreamExecutor(Rc<StreamTracker>);

impl<F: Future<Output = ()> + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, future: F) {
        match self.0.next_stream.take() {
            // Boxed, because the runtime moves the future of a task several times.
            Some(peer) => drop(tokio::task::spawn_local(run_stream(peer, Box::pin(future)))),
            // The task that carries the bytes of a tunnel, which has its own timer.
            None => drop(tokio::task::spawn_local(future)),
        }
    }
}

/// Runs a stream until it completes or one of its timeouts expires.
async fn run_stream(peer: Rc<Peer>, mut stream: Pin<Box<impl Future<Output = ()>>>) {
    let activity = &peer.activity;
    let limits = &peer.worker().limits;
    // Not later than a response that is being sent needs it, so that it is not reset for that.
    let stall_check = activity.last_progress() + limits.scarce_stall_timeout;
    let mut timer = pin!(sleep_until(stall_check.min(activity.deadline(limits, limits.stall_timeout))));
    poll_fn(|cx| {
        let _turn = Turn::begin();
        loop {
            if stream.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            // A response that the service has completed may still wait for the client's flow-control window.
            std::task::ready!(activity.poll_timeout(&peer.http, limits.stall_timeout, Pin::as_mut(&mut timer), cx));
            if activity.exclude_pauses(peer.is_paused(), || peer.paused()) {
                continue;
            }
            match activity.phase() {
                // The request handler sees the flag when it is polled, and responds with an error. If it does not
                // respond at once, the next round ends the stream.
                ActivityPhase::AwaitingResponse if !activity.timed_out.replace(true) => {}
                // Dropping the future resets the stream.
                _ => return Poll::Ready(()),
            }
        }
    })
    .await;
    activity.abandon_body();
}

/// The smallest value that the protocol allows, which is also what clients use in practice.
const MAX_FRAME_SIZE: u32 = 16 * 1024;
/// How much of a response is buffered ahead of the socket, per stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Limit of streams that the client opened and reset before they were processed.
const MAX_PENDING_RESETS: usize = 20;
/// Limit of streams that are reset because of protocol errors of the client. Above it the connection closes.
const MAX_ERROR_RESETS: usize = 128;

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// The memory of an HTTP/2 connection in addition to the library's, and of a stream in addition to its request.
    #[test]
    fn connection_and_stream_futures_are_small() {
        let connection = size(serve::<TcpStream>);
        let stream = size(|peer, stream: Pin<Box<std::future::Pending<()>>>, ()| run_stream(peer, stream));
        assert!(connection <= 2400 && stream <= 250, "a connection takes {connection} bytes, a stream in it {stream}");
    }
}
