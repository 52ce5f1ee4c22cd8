//! A parked connection: an idle HTTP/1 connection without buffers.
//!
//! hyper keeps buffers of 8 KiB for reading and for writing while a connection is idle, and up to 64 KiB after a large
//! upload. Therefore a connection is taken out of hyper when it is idle for [`ProxyLimits::park_after`], and returned
//! to it when the next bytes arrive. A new connection is parked until its first bytes arrive, so a client that sends
//! nothing gets no buffers.
//!
//! [`ProxyLimits::park_after`]: crate::proxy::limits::ProxyLimits::park_after

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use tokio::time::{Instant, Sleep};

use super::client_connection::{Peer, idle_timeout};
use super::client_stream::ClientStream;
use crate::proxy::connection::listener_connections::ConnectionRegistration;
use crate::proxy::record::stats::OpenGuard;

/// Why a connection is no longer parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ParkingEnd {
    /// hyper is needed: something can be read, or the idle timeout has expired and hyper closes the connection.
    Resume,
    /// The connection was aborted or evicted, or its socket has failed.
    Close,
}

/// Waits until the connection must be served again or closed.
pub(in crate::proxy) async fn park(
    stream: &mut ClientStream,
    peer: &Peer,
    registration: &mut ConnectionRegistration,
    mut timer: Pin<&mut Sleep>,
) -> ParkingEnd {
    let _counted = OpenGuard::new(&peer.worker().counters, |stats| &stats.parked);
    poll_fn(|cx| {
        registration.set_waker(cx.waker());
        if peer.connections.is_aborted() {
            return Poll::Ready(ParkingEnd::Close);
        }
        // First, so that a request that has arrived is served even if the connection was evicted.
        if let Poll::Ready(readable) = stream.poll_readable(cx) {
            return Poll::Ready(if readable.is_ok() { ParkingEnd::Resume } else { ParkingEnd::Close });
        }
        if registration.take_eviction() {
            return Poll::Ready(ParkingEnd::Close);
        }
        peer.activity.poll_timeout(&peer.http, idle_timeout(peer), timer.as_mut(), cx).map(|()| ParkingEnd::Resume)
    })
    .await
}

/// When the connection must be parked, unless it is used until then. None if hyper is needed to close it, or holds
/// something of it. `resumed_at` is when hyper got the connection: what it has read since may have been no data.
pub(in crate::proxy) fn park_at(peer: &Peer, resumed_at: Instant) -> Option<Instant> {
    let may_park = peer.activity.is_settled() && !peer.connections.is_closing();
    may_park.then(|| peer.activity.last_progress().max(resumed_at) + peer.worker().limits.park_after)
}
