//! Connects to an endpoint of an upstream for one client connection.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::connection_record::ConnectionRecord;
use crate::proxy::connection::listener_connections::{ConnectionRegistration, ListenerConnections};
use crate::proxy::limits::MAX_ENDPOINTS;
use crate::proxy::record::stats::StreamOutcome;
use crate::upstream::{ClientSlot, ConnectError, ConnectionPools, RawConnection, Upstream};

/// Connects to the next endpoint, or to another one if that fails. Ends early if the listener aborts its connections.
pub(super) async fn to_endpoint<B>(
    pools: &ConnectionPools<B>,
    upstream: &Arc<Upstream>,
    client: ClientSlot,
    proxy_header: &[u8],
    record: &mut ConnectionRecord<'_>,
    connections: &ListenerConnections,
    registration: &mut ConnectionRegistration,
) -> Result<RawConnection, StreamOutcome> {
    let mut connecting = pin!(try_endpoints(pools, upstream, client, proxy_header, record));
    poll_fn(|cx| {
        registration.set_waker(cx.waker());
        if connections.is_aborted() {
            return Poll::Ready(Err(StreamOutcome::ListenerClosed));
        }
        connecting.as_mut().poll(cx)
    })
    .await
}

async fn try_endpoints<B>(
    pools: &ConnectionPools<B>,
    upstream: &Arc<Upstream>,
    client: ClientSlot,
    proxy_header: &[u8],
    record: &mut ConnectionRecord<'_>,
) -> Result<RawConnection, StreamOutcome> {
    let began = Instant::now();
    let mut failure = StreamOutcome::NoEndpoints;
    let mut tried: SmallVec<[SocketAddr; MAX_ENDPOINTS]> = SmallVec::new();
    while tried.len() < MAX_ENDPOINTS
        && let Some(address) = pools.next_endpoint(upstream, &tried)
    {
        record.address = Some(address);
        let error = match pools.open_raw(upstream, address, client, proxy_header).await {
            Ok(connection) => {
                record.connect_duration = Some(began.elapsed());
                return Ok(connection);
            }
            Err(error) => error,
        };
        tracing::debug!(%error, upstream = %upstream.key, "Cannot connect");
        failure = match error {
            // Another endpoint would need a connection as well.
            ConnectError::LimitReached(..) | ConnectError::LocalShortage(..) => {
                return Err(StreamOutcome::ConnectionLimit);
            }
            ConnectError::OwnSocket(_) => StreamOutcome::LoopDetected,
            ConnectError::TimedOut(..) => StreamOutcome::ConnectTimeout,
            ConnectError::Refused(_)
            | ConnectError::Failed(..)
            | ConnectError::TlsHandshake(..)
            | ConnectError::NotHttp2(_) => StreamOutcome::ConnectionRefused,
        };
        tried.push(address);
    }
    Err(failure)
}
