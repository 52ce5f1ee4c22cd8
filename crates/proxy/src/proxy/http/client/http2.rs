//! Serves one HTTP/2 client connection and its streams.
//!
//! ```text
//!   FrameStream ─ hyper ─┬─ stream: a task with its ClientExchange and timer; request::serve, then the body
//!        │               └─ stream: …
//!        └ flood protection        connection: idle timeout without streams, responses that streams have passed to
//!                                  hyper, graceful shutdown, abort
//! ```

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::Poll;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use http::header::EXPECT;
use http::{Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::deadlines::{
    LINGER_BYTES, LINGER_TIMEOUT, SHUTDOWN_TIMEOUT, deadline, exclude_pauses, poll_timeout, stall_check_interval,
};
use super::http2_flood_guard::FrameStream;
use super::response_body::ResponseBody;
use super::stream_tracker::StreamTracker;
use crate::limits::ProxyLimits;
use crate::proxy::connection::listener_connections::ConnectionRegistration;
use crate::proxy::connection::moving_deadline::poll_until;
use crate::proxy::http::exchange::activity::{ActivityPhase, UploadState};
use crate::proxy::http::exchange::client_body::ClientBody;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::exchange::client_protocol::ClientProtocol;
use crate::proxy::http::exchange::unforwarded_bodies::MIN_FRAME;
use crate::proxy::http::record::request_error::REFUSED_STREAM;
use crate::proxy::http::steps::request::{self, ServedRequest};
use crate::proxy::telemetry::stats::OpenGuard;
use crate::turn_clock::Turn;

/// Serves all requests of a connection whose client sent the HTTP/2 preface or negotiated HTTP/2.
pub(in crate::proxy) async fn serve<S>(stream: S, peer: Rc<ClientExchange>, mut registration: ConnectionRegistration)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let _counted = OpenGuard::new(&peer.worker().counters, |stats| &stats.http2);
    let streams = StreamTracker::new(Rc::clone(&peer));
    let idle_state: Weak<StreamTracker> = Rc::downgrade(&streams);
    registration.begin_serving(idle_state);
    let service = {
        let streams = Rc::clone(&streams);
        service_fn(move |request: Request<Incoming>| {
            streams.requests_served.set(streams.requests_served.get() + 1);
            let has_body = !request.body().is_end_stream() || request.method() == Method::CONNECT;
            let expects_continue = has_body && request.headers().contains_key(EXPECT);
            let open = streams.open_stream(has_body, expects_continue);
            let stream = Rc::new(streams.open.connection.for_stream(ClientProtocol::Http2, open));
            streams.next_stream.replace(Some(Rc::clone(&stream)));
            // Boxed, because the library and the runtime move the future of a stream several times.
            Box::pin(request::serve(stream, request.map(ClientBody::Library)).map(response_of_stream))
        })
    };
    // Dropped after the connection itself, which drops the data that it has not sent.
    let _closing = ClosingResponses(Rc::clone(&streams));
    let limits = &peer.worker().limits;
    let socket = FrameStream::new(stream, Rc::clone(&streams));
    let http = builder(limits, StreamExecutor(Rc::clone(&streams))).serve_connection(TokioIo::new(socket), service);
    let mut http = pin!(http);
    let activity = &peer.activity;
    activity.enter_phase(ActivityPhase::Idle, Instant::now());
    let mut timer = pin!(sleep_until(deadline(activity, limits, limits.client_idle_timeout)));
    let mut is_shutting_down = false;
    // The client did not read a response that only the library has, at the last check.
    let mut stalled_since = None;
    poll_fn(|cx| {
        let _turn = Turn::begin();
        registration.set_waker(cx.waker());
        loop {
            if peer.connections.is_aborted() {
                return Poll::Ready(());
            }
            let polled = http.as_mut().poll(cx);
            streams.open.unsent().drop_ended();
            if let Poll::Ready(outcome) = polled {
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
            let is_evicted = registration.take_eviction() && streams.open.count() == 0;
            if (peer.connections.is_closing() || is_evicted) && !is_shutting_down {
                is_shutting_down = true;
                // Sends a GOAWAY that still accepts all streams, and after a round trip one with the last stream id.
                http.as_mut().graceful_shutdown();
                continue;
            }
            let idle_timeout = if is_shutting_down { SHUTDOWN_TIMEOUT } else { limits.client_idle_timeout };
            let idle_deadline = deadline(activity, limits, idle_timeout);
            let header_deadline = streams.header_since.get().map(|since| since + limits.header_timeout);
            let recheck_at = streams.open.unforwarded.recheck_at();
            let stall_check = streams.open.unsent().next_check(stall_check_interval(limits));
            let others = [header_deadline, recheck_at, stall_check];
            let deadline = others.into_iter().flatten().fold(idle_deadline, Instant::min);
            std::task::ready!(poll_until(deadline, timer.as_mut(), cx));
            if recheck_at == Some(deadline) {
                streams.open.unforwarded.begin_recheck();
                continue;
            }
            if header_deadline == Some(deadline) {
                // The connection closes, as on HTTP/1: nothing else can be read from it before the header block is
                // complete.
                return Poll::Ready(());
            }
            if stall_check == Some(deadline) {
                if !streams.open.unsent().has_stalled(SHUTDOWN_TIMEOUT) {
                    stalled_since = None;
                    continue;
                }
                // The library can no longer reset the stream. Requests in progress on others have as much time again:
                // they may be those of other clients of a proxy.
                let given = if streams.open.in_service() > 0 { limits.stall_timeout } else { SHUTDOWN_TIMEOUT };
                if deadline >= *stalled_since.get_or_insert(deadline) + given {
                    return Poll::Ready(());
                }
                if !is_shutting_down {
                    is_shutting_down = true;
                    activity.record_progress();
                    http.as_mut().graceful_shutdown();
                }
                continue;
            }
            if streams.open.in_service() > 0 {
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

/// Ends the responses whose last data the connection had not sent when it was dropped.
struct ClosingResponses(Rc<StreamTracker>);

impl Drop for ClosingResponses {
    fn drop(&mut self) {
        self.0.open.unsent().close();
    }
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

/// The response to the request of a stream. If it accepts an upgrade, a task runs the tunnel as soon as the response
/// has been sent; it ends with the connection or with the tunnel.
fn response_of_stream(served: ServedRequest) -> Result<Response<ResponseBody>, Infallible> {
    let (head, body, tunnel) = ResponseBody::attach(served);
    if let Some(tunnel) = tunnel {
        tunnel.spawn_on_stream();
    }
    Ok(head.map(|()| body))
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

/// Runs a stream until it completes or one of its timeouts expires. What its client sends of a request body that is not
/// forwarded is discarded, for a limited time that may go on after the response.
async fn run_stream(peer: Rc<ClientExchange>, mut stream: Pin<Box<impl Future<Output = ()>>>) {
    let activity = &peer.activity;
    let limits = &peer.worker().limits;
    // Not later than a response that is being sent needs it, so that it is not reset for that.
    let stall_check = activity.last_progress() + limits.scarce_stall_timeout;
    let mut timer = pin!(sleep_until(stall_check.min(deadline(activity, limits, limits.stall_timeout))));
    // Boxed, because few streams need it.
    let start_discarding = || Box::pin(discard_body(&peer).fuse());
    let mut discarding = None;
    let has_responded = poll_fn(|cx| {
        let _turn = Turn::begin();
        loop {
            if stream.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            if activity.body_unread.get() {
                let _ended = discarding.get_or_insert_with(start_discarding).poll_unpin(cx);
            } else if activity.upload() != UploadState::Complete
                && let Some(stream) = peer.open_stream()
            {
                // Another task may drop the body.
                stream.unread.wake_when_kept(cx.waker());
            }
            // A response that the service has completed may still wait for the client's flow-control window.
            std::task::ready!(poll_timeout(&peer, limits.stall_timeout, Pin::as_mut(&mut timer), cx));
            if exclude_pauses(activity, peer.is_paused(), || peer.paused()) {
                continue;
            }
            match activity.phase() {
                // The request handler sees the flag when it is polled, and responds with an error. If it does not
                // respond at once, the next round ends the stream.
                ActivityPhase::AwaitingResponse if !activity.timed_out.replace(true) => {}
                // Dropping the future resets the stream.
                _ => return Poll::Ready(false),
            }
        }
    })
    .await;
    drop(stream);
    activity.abandon_body();
    if !activity.body_unread.get() && activity.upload() == UploadState::Complete {
        return;
    }
    if has_responded {
        // Another task may have the body. It drops it soon, because it is abandoned.
        let discarding = discarding.get_or_insert_with(start_discarding);
        if !discarding.is_terminated() {
            discarding.await;
        }
    } else if let Some(stream) = peer.open_stream() {
        stream.unread.close();
    }
}

/// Reads and discards the rest of a request body, up to limits. Then the library resets the stream, once it has sent
/// the response.
async fn discard_body(peer: &ClientExchange) {
    let Some(stream) = peer.open_stream() else { return };
    let end = Instant::now() + LINGER_TIMEOUT;
    let taken = timeout_at(end, poll_fn(|cx| stream.unread.poll_take(cx))).await;
    stream.unread.close();
    // While another task has the body, its bytes count.
    let Ok(Some(mut body)) = taken else { return };
    let discard = async {
        let mut discarded = 0;
        while discarded < LINGER_BYTES
            && let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
        {
            let length = frame.data_ref().map_or(0, Bytes::len);
            discarded += length.max(MIN_FRAME);
            if let Some((bodies, request)) = stream.unforwarded() {
                bodies.forward_frame(request, length);
            }
        }
    };
    drop(timeout_at(end, discard).await);
    drop(body);
    if let Some((bodies, request)) = stream.unforwarded() {
        bodies.close(request);
    }
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
