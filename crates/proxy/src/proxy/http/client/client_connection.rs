//! Serves one client connection from its first request until it closes.
//!
//! ```text
//!   ClientStream ─ Http1ClientConnection ─ request::serve        one task; each wake-up polls all of it
//!         └───────────── Activity ──────────────┘ ◀─ one timer: idle, slow head, slow response, stall
//! ```
//!
//! What serves requests has buffers and state that an idle connection does not need. Therefore a connection is parked
//! when it is idle for [`ProxyLimits::park_after`]: only its `ClientStream` exists until the next bytes arrive. A new
//! connection is parked until its first bytes arrive, so a client that sends nothing gets no buffers.
//!
//! [`ProxyLimits::park_after`]: crate::limits::ProxyLimits::park_after

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Request;
use tokio::time::{Instant, Sleep, sleep_until};

use super::client_stream::ClientStream;
use super::deadlines::{SHUTDOWN_TIMEOUT, deadline, first_deadline, idle_timeout, poll_timeout};
use super::http1::connection::{Http1ClientConnection, Http1End};
use super::http2;
use super::malformed_request::{lingering_close, reject};
use super::tunnel::Tunnel;
use crate::http1::{InvalidMessage, NextInput, poll_receive};
use crate::proxy::connection::listener_connections::ConnectionRegistration;
use crate::proxy::connection::moving_deadline::poll_until;
use crate::proxy::connection::transport::Transport;
use crate::proxy::http::exchange::activity::{ActivityPhase, UploadState};
use crate::proxy::http::exchange::client_body::ClientBody;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::steps::request::{self, ServedRequest};
use crate::proxy::telemetry::stats::OpenGuard;
use crate::rewound::Rewound;
use crate::turn_clock::Turn;

/// Serves all requests of a connection. The future is small, since every open connection has one: what only a
/// connection in use needs is boxed.
pub(in crate::proxy) fn serve(
    transport: Transport,
    exchange: Rc<ClientExchange>,
    mut registration: ConnectionRegistration,
) -> impl Future<Output = ()> {
    let idle_state: Weak<ClientExchange> = Rc::downgrade(&exchange);
    registration.begin_serving(idle_state);
    let mut stream = ClientStream::new(transport, Rc::clone(&exchange));
    // Not an `async fn`, whose future would contain its arguments twice.
    async move {
        let mut timer = pin!(sleep_until(first_deadline(&exchange)));
        loop {
            let parked = park(&mut stream, &exchange, &mut registration, timer.as_mut()).await;
            let ParkingEnd::Resume(received) = parked else { return };
            let context = (&exchange, &mut registration);
            let serving = Box::pin(serve_requests((stream, received), context, timer.as_mut()));
            let Some(ServedRequests { end, stream: served, unread, tunnel }) = serving.await else { return };
            match end {
                ConnectionEnd::Parked => stream = served,
                ConnectionEnd::Aborted => return,
                ConnectionEnd::Finished | ConnectionEnd::MalformedRequest(_) => {
                    if let Some(next) = after_http1(end, served, unread, tunnel, exchange, registration) {
                        next.await;
                    }
                    return;
                }
            }
        }
    }
}

/// Why a connection is no longer parked.
#[derive(Debug)]
enum ParkingEnd {
    /// These bytes have arrived. With TLS, there may be something to read. Or the idle timeout has expired and the
    /// connection must be closed in order.
    Resume(BytesMut),
    /// The connection was aborted or evicted, the client has closed it, or its socket has failed.
    Close,
}

/// Waits until the connection must be served again or closed.
async fn park(
    stream: &mut ClientStream,
    exchange: &ClientExchange,
    registration: &mut ConnectionRegistration,
    mut timer: Pin<&mut Sleep>,
) -> ParkingEnd {
    let _counted = OpenGuard::new(&exchange.worker().counters, |stats| &stats.parked);
    poll_fn(|cx| {
        registration.set_waker(cx.waker());
        if exchange.connections.is_aborted() {
            return Poll::Ready(ParkingEnd::Close);
        }
        // First, so that a request that has arrived is served even if the connection was evicted.
        if let Poll::Ready(end) = poll_received(stream, cx) {
            return Poll::Ready(end);
        }
        if registration.take_eviction() {
            return Poll::Ready(ParkingEnd::Close);
        }
        let expired = poll_timeout(exchange, idle_timeout(exchange), timer.as_mut(), cx);
        expired.map(|()| ParkingEnd::Resume(BytesMut::new()))
    })
    .await
}

/// Ready when the client has sent something, or closed the connection.
fn poll_received(stream: &mut ClientStream, cx: &mut Context<'_>) -> Poll<ParkingEnd> {
    let mut received = BytesMut::new();
    if stream.has_tls() {
        // Reading takes memory, which a parked connection does not need.
        let readable = ready!(stream.poll_readable(cx));
        return Poll::Ready(if readable.is_ok() { ParkingEnd::Resume(received) } else { ParkingEnd::Close });
    }
    // Into memory of the thread, without a system call that only looks whether there is something.
    match poll_receive(stream, cx, &mut received, NextInput::Unknown) {
        Poll::Pending if !stream.holds_bytes() => Poll::Pending,
        Poll::Pending | Poll::Ready(Ok(1..)) => Poll::Ready(ParkingEnd::Resume(received)),
        Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(ParkingEnd::Close),
    }
}

/// When a connection between two requests must be parked, unless it is used until then. None if it is still active, or
/// closing. `resumed_at` is when it was unparked: what was read since may have been no data.
fn park_at(exchange: &ClientExchange, resumed_at: Instant) -> Option<Instant> {
    let is_idle =
        exchange.activity.phase() == ActivityPhase::Idle && exchange.activity.upload() == UploadState::Complete;
    let may_park = is_idle && !exchange.connections.is_closing();
    may_park.then(|| exchange.activity.last_progress().max(resumed_at) + exchange.worker().limits.park_after)
}

/// What remains of a connection whose requests were served.
struct ServedRequests {
    end: ConnectionEnd,
    stream: ClientStream,
    /// Bytes that were received, but not decoded.
    unread: Bytes,
    /// The tunnel that the connection becomes.
    tunnel: Option<Box<Tunnel>>,
}

/// Serves requests until the connection ends or must be parked. `received` has what was received already. Not an `async
/// fn`, whose future would contain its arguments twice.
fn serve_requests(
    (stream, received): (ClientStream, BytesMut),
    (exchange, registration): (&Rc<ClientExchange>, &mut ConnectionRegistration),
    mut timer: Pin<&mut Sleep>,
) -> impl Future<Output = Option<ServedRequests>> {
    let serve_request = move |request| request::serve(Rc::clone(exchange), request);
    let mut http = Http1ClientConnection::new(stream, received, exchange, serve_request);
    async move {
        let resumed_at = Instant::now();
        let mut shutdown = ShutdownProgress::NotStarted;
        let end = poll_fn(|cx| {
            let _turn = Turn::begin();
            registration.set_waker(cx.waker());
            let end = poll_connection(exchange, &mut http, resumed_at, timer.as_mut(), &mut shutdown, cx);
            // A request that has arrived in the meantime is served, and a response is sent to its end.
            let is_idle = http.is_between_requests() && exchange.activity.phase() == ActivityPhase::Idle;
            if end.is_pending() && registration.take_eviction() && is_idle {
                return Poll::Ready(ConnectionEnd::Aborted);
            }
            end
        })
        .await;
        let (stream, unread, tunnel) = http.into_stream()?;
        Some(ServedRequests { end, stream, unread, tunnel })
    }
}

/// What follows when HTTP/1 ends: an error response, a tunnel, HTTP/2 or a lingering close. Boxed, so that plain
/// connections do not reserve memory for it.
fn after_http1(
    end: ConnectionEnd,
    stream: ClientStream,
    unread: Bytes,
    tunnel: Option<Box<Tunnel>>,
    exchange: Rc<ClientExchange>,
    registration: ConnectionRegistration,
) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
    if let ConnectionEnd::MalformedRequest(error) = end {
        return Some(Box::pin(reject(stream, unread, error, exchange, registration)));
    }
    if let Some(tunnel) = tunnel {
        exchange.activity.enter_phase(ActivityPhase::Tunnel, Instant::now());
        return Some(Box::pin(tunnel.run(Rewound::new(unread, stream), registration)));
    }
    if exchange.activity.http2.get() {
        return Some(Box::pin(http2::serve(Rewound::new(unread, stream), exchange, registration)));
    }
    exchange.activity.body_unread.get().then(|| Box::pin(lingering_close(stream)) as _)
}

/// Progress of the graceful shutdown of a connection.
enum ShutdownProgress {
    NotStarted,
    /// The task yields once to the reactor, so that a request that has already arrived is still served.
    Yielding(Pin<Box<dyn Future<Output = ()>>>),
    Yielded,
    /// The connection closes after the current response.
    Closing,
}

/// Why the requests of an HTTP/1 connection are no longer served.
enum ConnectionEnd {
    /// The connection was closed, or its stream is handed over.
    Finished,
    /// The connection is idle and needs no buffers until its next request.
    Parked,
    /// The connection was aborted by a drain or evicted, or a timeout has expired.
    Aborted,
    /// The client sent bytes that do not parse as a request; an error response follows.
    MalformedRequest(InvalidMessage),
}

fn poll_connection<S, F>(
    exchange: &ClientExchange,
    http: &mut Http1ClientConnection<S, F>,
    resumed_at: Instant,
    mut timer: Pin<&mut Sleep>,
    shutdown: &mut ShutdownProgress,
    cx: &mut Context<'_>,
) -> Poll<ConnectionEnd>
where
    S: Fn(Request<ClientBody>) -> F,
    F: Future<Output = ServedRequest>,
{
    let activity = &exchange.activity;
    loop {
        if exchange.connections.is_aborted() {
            return Poll::Ready(ConnectionEnd::Aborted);
        }
        if let Poll::Ready(end) = http.poll(cx) {
            return Poll::Ready(match end {
                Http1End::Malformed(error) => ConnectionEnd::MalformedRequest(error),
                Http1End::Finished => ConnectionEnd::Finished,
            });
        }
        if exchange.connections.is_closing() {
            if let ShutdownProgress::NotStarted = shutdown {
                *shutdown = ShutdownProgress::Yielding(Box::pin(tokio::task::yield_now()));
            }
            if let ShutdownProgress::Yielding(reactor_turn) = shutdown {
                ready!(reactor_turn.as_mut().poll(cx));
                *shutdown = ShutdownProgress::Yielded;
                continue;
            }
            let must_shut_down = match activity.phase() {
                // The next request of a busy client may be in flight; its response will carry `Connection: close`.
                ActivityPhase::Idle | ActivityPhase::ReadingHead => false,
                ActivityPhase::AwaitingResponse | ActivityPhase::SendingResponse | ActivityPhase::Tunnel => true,
            };
            if must_shut_down && !matches!(shutdown, ShutdownProgress::Closing) {
                *shutdown = ShutdownProgress::Closing;
                http.start_shutdown();
                continue;
            }
        }
        let idle_timeout = match shutdown {
            ShutdownProgress::Closing => SHUTDOWN_TIMEOUT,
            ShutdownProgress::NotStarted | ShutdownProgress::Yielding(_) | ShutdownProgress::Yielded => {
                idle_timeout(exchange)
            }
        };
        if let ShutdownProgress::NotStarted = shutdown
            && http.is_between_requests()
            && let Some(park_at) = park_at(exchange, resumed_at)
            && park_at < deadline(activity, &exchange.worker().limits, idle_timeout)
        {
            ready!(poll_until(park_at, timer.as_mut(), cx));
            return Poll::Ready(ConnectionEnd::Parked);
        }
        ready!(poll_timeout(exchange, idle_timeout, timer.as_mut(), cx));
        match activity.phase() {
            // The request handler sees the flag when it is polled, and responds with an error. If it does not respond
            // at once, the next round aborts the connection.
            ActivityPhase::AwaitingResponse if !activity.timed_out.replace(true) => {}
            ActivityPhase::Idle if !matches!(shutdown, ShutdownProgress::Closing) => {
                *shutdown = ShutdownProgress::Closing;
                activity.record_progress();
                http.start_shutdown();
            }
            ActivityPhase::Idle
            | ActivityPhase::ReadingHead
            | ActivityPhase::AwaitingResponse
            | ActivityPhase::Tunnel => return Poll::Ready(ConnectionEnd::Aborted),
            ActivityPhase::SendingResponse => {
                activity.reset_on_close.set(true);
                return Poll::Ready(ConnectionEnd::Aborted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// The memory of every open connection. With 65,536 connections, each 100 bytes cost 6 MiB.
    #[test]
    fn connection_future_is_small() {
        let (connection, exchange) = (size(serve), size_of::<ClientExchange>());
        assert!(
            connection <= 440 && exchange <= 400,
            "an idle connection takes {connection} bytes in its task, and {exchange} for its state"
        );
    }

    /// The memory of a connection in use, in addition to its buffers.
    #[test]
    fn request_futures_are_small() {
        let connection = size(serve_requests);
        let request = size(|exchange, request, ()| request::serve(exchange, request));
        assert!(
            connection <= 1150 && request <= 2450,
            "a connection in use takes {connection} bytes, a request in it {request}"
        );
    }
}
