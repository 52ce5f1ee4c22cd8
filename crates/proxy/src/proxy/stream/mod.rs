//! Connections whose bytes are forwarded unparsed, of TCP listeners and of TLS listeners, which pass TLS through or
//! terminate it: a backend by weight, an endpoint by load balancing, then bytes in both directions.
//!
//! ```text
//!   accept ─▶ AssignedStream ─▶ connect ─▶ relay ─▶ ConnectionRecord: metrics, access log
//!              backend          endpoint
//! ```

mod assigned;
mod client;
mod connect;
mod connection_record;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

pub(in crate::proxy) use assigned::{AssignedStream, StreamLog, outcome_of};
pub(in crate::proxy) use client::{ClientAddress, StreamClient};
pub(in crate::proxy) use connection_record::ConnectionRecord;

use super::client_counts::ClientLimitReached;
use super::connection::listener_connections::{ConnectionRegistration, ListenerConnections};
use super::connection::relay::{CountedStream, RelayEnd, RelayLimits, relay};
use super::connection::transport::Transport;
use super::telemetry::stats::{OpenGuard, StreamOutcome};
use super::worker::Worker;
use crate::counted_address::counted_address;
use crate::limits::MAX_ENDPOINTS;
use crate::rewound::Rewound;
use crate::upstream::{ClientSlot, ConnectionPools, RawConnection, RawDestination};

/// Serves a connection until it closes. The client may send its first bytes late or never, so the endpoint is connected
/// at once. `B` is the body type of the requests that share the pools.
pub(in crate::proxy) async fn serve<B>(
    client: StreamClient,
    assigned: AssignedStream,
    worker: &Worker,
    pools: &ConnectionPools<B>,
    connections: Rc<ListenerConnections>,
    mut registration: ConnectionRegistration,
) {
    let _counted = OpenGuard::new(&worker.counters, |stats| &stats.streams);
    // Recorded when it is dropped.
    let StreamClient { stream: client, address, protocol, server_name, tls } = client;
    let series = Arc::clone(&assigned.series);
    let mut record = ConnectionRecord::start(worker, address.socket(), protocol, server_name, series);
    record.log = assigned.log(tls);
    let client_ip = address.socket().ip();
    let admitted = assigned.upstream_for(client_ip).map(Arc::clone).and_then(|upstream| {
        let permit = worker.stream_clients.admit(client_ip);
        permit.map(|permit| (upstream, permit)).map_err(|ClientLimitReached| StreamOutcome::ClientLimit)
    });
    let options = assigned.options.as_deref().copied().unwrap_or_default();
    let idle_timeout = options.idle_timeout.unwrap_or(worker.limits.stream_idle_timeout);
    drop(assigned);
    let (upstream, _permit) = match admitted {
        Ok(admitted) => admitted,
        Err(outcome) => return close(&client, &mut record, outcome),
    };
    let client_slot = ClientSlot::of(counted_address(client_ip));
    let proxy_header = upstream.proxy_header(|| address.ends(client.get_ref().socket()));
    let destination = RawDestination {
        upstream: &upstream,
        client: client_slot,
        hash: upstream.client_hash(client_ip),
        proxy_header: &proxy_header,
        max_endpoints: options.connect_attempts.unwrap_or(MAX_ENDPOINTS),
        no_other_after: options.connect_time.map(|time| Instant::now() + time),
    };
    let connected = connect::to_endpoint(pools, &destination, &mut record, &connections, &mut registration).await;
    drop(proxy_header);
    let endpoint = match connected {
        Ok(endpoint) => endpoint,
        Err(outcome) => return close(&client, &mut record, outcome),
    };
    if let Some(address) = record.address {
        registration.begin_relay(upstream, address);
    }

    let last_progress = Cell::new(Instant::now());
    let on_progress = || last_progress.set(Instant::now());
    let limits = RelayLimits {
        idle_deadline: || last_progress.get() + idle_timeout,
        // The listener aborts its connections after its own grace period.
        closing_grace: None,
        removed_endpoint_grace: Some(worker.limits.listener_grace_period),
    };
    let mut client_side = CountedStream::new(client, &record.bytes_in, on_progress)
        .with_socket(|client| client.rest().and_then(Transport::plain_socket));
    let mut endpoint_side =
        CountedStream::new(endpoint, &record.bytes_out, on_progress).with_socket(RawConnection::plain_socket);
    let end = relay(&mut client_side, &mut endpoint_side, &connections, &mut registration, limits).await;
    let outcome = match end {
        RelayEnd::Completed => StreamOutcome::Completed,
        RelayEnd::Failed if client_side.has_failed() => StreamOutcome::ClientReset,
        RelayEnd::Failed => StreamOutcome::EndpointReset,
        RelayEnd::Idle => StreamOutcome::IdleTimeout,
        RelayEnd::ListenerClosed => StreamOutcome::ListenerClosed,
        RelayEnd::EndpointRemoved => StreamOutcome::EndpointRemoved,
    };
    let (client, endpoint) = (client_side.into_inner(), endpoint_side.into_inner());
    if outcome.resets_peers() {
        endpoint.reset();
    }
    close(&client, &mut record, outcome);
}

/// Closes the connection to the client, with a reset unless the connection is complete or was closed on purpose.
fn close(client: &Rewound<Transport>, record: &mut ConnectionRecord<'_>, outcome: StreamOutcome) {
    record.outcome = Some(outcome);
    if outcome.resets_peers() {
        // If the option cannot be set, the connection closes without a reset.
        drop(client.get_ref().socket().set_zero_linger());
    }
}
