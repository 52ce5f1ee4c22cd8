//! A parked connection: an idle HTTP/1 connection without buffers.
//!
//! What serves requests has buffers and state that an idle connection does not need. Therefore a connection is parked
//! when it is idle for [`ProxyLimits::park_after`], until the next bytes arrive. A new connection is parked until its
//! first bytes arrive, so a client that sends nothing gets no buffers.
//!
//! [`ProxyLimits::park_after`]: crate::proxy::limits::ProxyLimits::park_after

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use tokio::time::{Instant, Sleep};

use super::activity::{ActivityPhase, UploadState};
use super::client_connection::{Peer, idle_timeout};
use super::client_stream::ClientStream;
use crate::proxy::connection::listener_connections::ConnectionRegistration;
use crate::proxy::record::stats::OpenGuard;

/// Why a connection is no longer parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ParkingEnd {
    /// Something can be read, or the idle timeout has expired and the connection must be closed in order.
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

/// When a connection between two requests must be parked, unless it is used until then. None if it is still active, or
/// closing. `resumed_at` is when it was unparked: what was read since may have been no data.
pub(in crate::proxy) fn park_at(peer: &Peer, resumed_at: Instant) -> Option<Instant> {
    let is_idle = peer.activity.phase() == ActivityPhase::Idle && peer.activity.upload.get() == UploadState::Complete;
    let may_park = is_idle && !peer.connections.is_closing();
    may_park.then(|| peer.activity.last_progress().max(resumed_at) + peer.worker().limits.park_after)
}
