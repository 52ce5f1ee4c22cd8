//! A parked connection: an idle HTTP/1 connection without buffers.
//!
//! What serves requests has buffers and state that an idle connection does not need. Therefore a connection is parked
//! when it is idle for [`ProxyLimits::park_after`], until the next bytes arrive. A new connection is parked until its
//! first bytes arrive, so a client that sends nothing gets no buffers.
//!
//! [`ProxyLimits::park_after`]: crate::proxy::limits::ProxyLimits::park_after

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::time::{Instant, Sleep};

use super::client_stream::ClientStream;
use super::deadlines::{idle_timeout, poll_timeout};
use crate::http1::{NextInput, poll_receive};
use crate::proxy::connection::listener_connections::ConnectionRegistration;
use crate::proxy::http::exchange::activity::{ActivityPhase, UploadState};
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::telemetry::stats::OpenGuard;

/// Why a connection is no longer parked.
#[derive(Debug)]
pub(in crate::proxy) enum ParkingEnd {
    /// These bytes have arrived. With TLS, there may be something to read. Or the idle timeout has expired and the
    /// connection must be closed in order.
    Resume(BytesMut),
    /// The connection was aborted or evicted, the client has closed it, or its socket has failed.
    Close,
}

/// Waits until the connection must be served again or closed.
pub(in crate::proxy) async fn park(
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
        let expired = poll_timeout(&exchange.activity, &exchange.http, idle_timeout(exchange), timer.as_mut(), cx);
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
pub(in crate::proxy) fn park_at(exchange: &ClientExchange, resumed_at: Instant) -> Option<Instant> {
    let is_idle =
        exchange.activity.phase() == ActivityPhase::Idle && exchange.activity.upload.get() == UploadState::Complete;
    let may_park = is_idle && !exchange.connections.is_closing();
    may_park.then(|| exchange.activity.last_progress().max(resumed_at) + exchange.worker().limits.park_after)
}
