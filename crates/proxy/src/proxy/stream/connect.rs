//! Connects to an endpoint of an upstream for one client connection.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::time::Instant;

use super::connection_record::ConnectionRecord;
use crate::proxy::connection::listener_connections::{ConnectionRegistration, ListenerConnections};
use crate::proxy::telemetry::stats::StreamOutcome;
use crate::upstream::{ConnectError, ConnectionPools, RawConnectError, RawConnection, RawDestination};

/// Connects to the next endpoint, or to another one if that fails. Ends early if the listener aborts its connections.
pub(super) async fn to_endpoint<B>(
    pools: &ConnectionPools<B>,
    destination: &RawDestination<'_>,
    record: &mut ConnectionRecord<'_>,
    connections: &ListenerConnections,
    registration: &mut ConnectionRegistration,
) -> Result<RawConnection, StreamOutcome> {
    let mut connecting = pin!(connect(pools, destination, record));
    poll_fn(|cx| {
        registration.set_waker(cx.waker());
        if connections.is_aborted() {
            return Poll::Ready(Err(StreamOutcome::ListenerClosed));
        }
        connecting.as_mut().poll(cx)
    })
    .await
}

async fn connect<B>(
    pools: &ConnectionPools<B>,
    destination: &RawDestination<'_>,
    record: &mut ConnectionRecord<'_>,
) -> Result<RawConnection, StreamOutcome> {
    let began = Instant::now();
    let connected = destination.connect(pools, |address| record.address = Some(address)).await;
    if connected.is_ok() {
        record.connect_duration = Some(began.elapsed());
    }
    connected.map_err(|error| match &error {
        RawConnectError::NoEndpoints => StreamOutcome::NoEndpoints,
        RawConnectError::Overloaded(overloaded) => StreamOutcome::from(*overloaded),
        RawConnectError::Failed(error) => outcome_of(error),
    })
}

/// How a connection ends whose last attempt to connect has failed like this.
fn outcome_of(error: &ConnectError) -> StreamOutcome {
    match error {
        ConnectError::LimitReached(..) | ConnectError::LocalShortage(..) => StreamOutcome::ConnectionLimit,
        ConnectError::OwnSocket(_) => StreamOutcome::LoopDetected,
        ConnectError::TimedOut(..) => StreamOutcome::ConnectTimeout,
        ConnectError::Refused(_)
        | ConnectError::Failed(..)
        | ConnectError::TlsHandshake(..)
        | ConnectError::NotHttp2(_) => StreamOutcome::ConnectionRefused,
    }
}
