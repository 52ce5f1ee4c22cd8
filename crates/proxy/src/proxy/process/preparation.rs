//! Prepares an accepted connection for what its port serves, unless that is plain HTTP without a PROXY header. The
//! PROXY header and the TLS handshake, which includes the ClientHello, have a timeout each, and are counted by outcome.
//!
//! ```text
//!   accepted ─▶ PROXY header, if the peer is a trusted proxy
//!                ├ plain HTTP ────────────────────────▶ client_connection::serve
//!                ├ TLS: ClientHello ┬ TLS handshake ┬─▶ client_connection::serve or http2::serve, by ALPN
//!                │                  │               └─▶ stream::serve
//!                │                  └ passthrough ────▶ stream::serve
//!                └ TCP ───────────────────────────────▶ stream::serve
//! ```

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

use crate::proxy::connection::client_hello::{FirstBytes, ReceivedHello};
use crate::proxy::connection::listener_connections::{ConnectionRegistration, ListenerConnections};
use crate::proxy::connection::proxy_header::{self, ProxyHeaderError, ProxyHeaderSource};
use crate::proxy::connection::tls::{self, ClientHandshakeError, FailedHandshake, TlsSession};
use crate::proxy::connection::transport::Transport;
use crate::proxy::http::client::client_connection;
use crate::proxy::http::client::http2;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::exchange::http_worker::HttpWorker;
use crate::proxy::stream::{self, AssignedStream, ClientAddress, StreamClient};
use crate::proxy::telemetry::stats::ProxyHeaderOutcome;
use crate::proxy::worker::Worker;
use crate::snapshot::certs::Certificates;
use crate::snapshot::handshake_limits::HandshakeLimits;
use crate::snapshot::port_tls::{PortTls, TlsAction};

/// The steps that this connection needs before its first request.
#[derive(Clone, Copy)]
pub(super) struct PreparationSteps {
    pub(super) proxy_header: bool,
    pub(super) tls: bool,
}

/// Prepares a connection of a port for HTTP or TLS, and serves it.
pub(super) async fn prepare_and_serve(
    stream: TcpStream,
    address: SocketAddr,
    steps: PreparationSteps,
    http: Rc<HttpWorker>,
    connections: Rc<ListenerConnections>,
    mut registration: ConnectionRegistration,
) {
    // Boxed, so that the memory for the steps is freed when they end.
    let preparing = Box::pin(prepare_connection(stream, address, steps, &http.worker, &connections));
    match while_listening(&connections, &mut registration, preparing).await.flatten() {
        Some(PreparedConnection::Http { transport, address, session }) => {
            let http2 = session.as_ref().is_some_and(|session| session.http2);
            let exchange = Rc::new(ClientExchange::new(http, connections, address, session));
            if http2 {
                // Boxed, because most connections do not need it.
                Box::pin(http2::serve(transport, exchange, registration)).await;
            } else {
                client_connection::serve(transport, exchange, registration).await;
            }
        }
        Some(PreparedConnection::Stream { client, assigned, .. }) => {
            registration.begin_stream();
            Box::pin(stream::serve(client, assigned, &http.worker, &http.pools, connections, registration)).await;
        }
        None => {}
    }
}

/// Reads the PROXY header of a connection of a port for TCP, if there is one, and forwards it.
pub(super) async fn prepare_and_forward(
    mut stream: TcpStream,
    peer: SocketAddr,
    proxy_header: bool,
    assigned: AssignedStream,
    http: Rc<HttpWorker>,
    connections: Rc<ListenerConnections>,
    mut registration: ConnectionRegistration,
) {
    let mut address = ClientAddress::Peer(peer);
    if proxy_header {
        registration.begin_preparing();
        // Boxed, so that the memory for the step is freed when it ends.
        let reading = Box::pin(read_proxy_header(&mut stream, peer, &http.worker, &connections));
        match while_listening(&connections, &mut registration, reading).await.flatten() {
            Some(client) => address = client,
            None => return,
        }
    }
    registration.begin_stream();
    let client = StreamClient::tcp(stream, address);
    stream::serve(client, assigned, &http.worker, &http.pools, connections, registration).await;
}

/// A connection that is ready to be served by its protocol.
enum PreparedConnection {
    Http {
        transport: Transport,
        /// The client's address. It differs from the peer's address behind a load balancer that sends a PROXY header.
        address: SocketAddr,
        session: Option<TlsSession>,
    },
    /// `resumed`: whether the handshake resumed a session; `None` without a handshake.
    Stream { client: StreamClient, assigned: AssignedStream, resumed: Option<bool> },
}

/// Returns None if the connection has failed; the reason has been recorded by then.
async fn prepare_connection(
    mut stream: TcpStream,
    peer: SocketAddr,
    steps: PreparationSteps,
    worker: &Worker,
    connections: &ListenerConnections,
) -> Option<PreparedConnection> {
    let mut client_address = ClientAddress::Peer(peer);
    if steps.proxy_header {
        client_address = read_proxy_header(&mut stream, peer, worker, connections).await?;
    }
    let address = client_address.socket();
    if !steps.tls {
        return Some(PreparedConnection::Http { transport: Transport::Plain(stream), address, session: None });
    }
    // The reason if the time runs out now.
    let mut timeout_reason = ClientHandshakeError::Timeout;
    let handshake = async {
        let first = FirstBytes::read(stream).await?;
        if let Some((assigned, server_name)) = passthrough(worker, connections, &first) {
            let client = StreamClient::tls(first.into_parts(), Some(server_name), client_address);
            return Ok(PreparedConnection::Stream { client, assigned, resumed: None });
        }
        // Boxed, so that connections that pass through do not reserve the memory of a handshake.
        Box::pin(accept_tls(first, client_address, worker, connections, &mut timeout_reason)).await
    };
    let outcome = timeout(worker.limits.handshake_timeout, handshake).await;
    let (outcome, refused) = match outcome.unwrap_or(Err(timeout_reason.into())) {
        Ok(prepared) => (Ok(prepared), None),
        Err(FailedHandshake { reason, refused }) => (Err(reason), refused),
    };
    record_handshake(worker, connections, address, &outcome);
    // After the permit is released: refused clients that stay connected must not delay the handshakes of others.
    if let Some(socket) = refused {
        tls::deliver_alert(socket).await;
    }
    outcome.ok()
}

/// Reads the ClientHello, and completes the handshake unless the connection passes through. Sets the reason if the time
/// runs out from now on.
async fn accept_tls(
    first: FirstBytes,
    client_address: ClientAddress,
    worker: &Worker,
    connections: &ListenerConnections,
    timeout_reason: &mut ClientHandshakeError,
) -> Result<PreparedConnection, FailedHandshake> {
    let hello = ReceivedHello::read(first).await?;
    match tls_action(worker, connections, &hello) {
        AssignedTls::Terminate | AssignedTls::TerminateStream => {}
        AssignedTls::Passthrough(assigned) => {
            let server_name = hello.server_name.clone();
            let client = StreamClient::tls(hello.into_parts(), server_name, client_address);
            return Ok(PreparedConnection::Stream { client, assigned, resumed: None });
        }
        AssignedTls::Reset => {
            // If the option cannot be set, the connection closes without a reset.
            drop(hello.into_parts().0.set_zero_linger());
            return Err(ClientHandshakeError::UnknownName.into());
        }
        AssignedTls::Alert => {
            tls::reject_server_name(hello).await;
            return Err(ClientHandshakeError::UnknownName.into());
        }
    }
    // Only clients that have sent their ClientHello get a permit, so that idle connections delay no others. Waiting for
    // it counts toward the handshake timeout.
    *timeout_reason = ClientHandshakeError::Overload;
    let permit = worker.handshake_permits.acquire(client_address.socket().ip()).await;
    *timeout_reason = ClientHandshakeError::Timeout;
    let performed = permit.perform(perform_handshake(hello, client_address, worker, connections)).await;
    performed.unwrap_or_else(|| Err(ClientHandshakeError::Stalled.into()))
}

/// Completes the handshake of a connection that has a permit.
async fn perform_handshake(
    hello: ReceivedHello,
    client_address: ClientAddress,
    worker: &Worker,
    connections: &ListenerConnections,
) -> Result<PreparedConnection, FailedHandshake> {
    let certificates = certificates(worker, connections, &hello);
    // Again, because the connection may have waited for its permit.
    let AssignedTls::TerminateStream = tls_action(worker, connections, &hello) else {
        let asks_client = requests_client_certificate(worker, connections, &hello);
        let limits = handshake_limits(worker, connections, &hello);
        let (stream, session) = worker.tls.accept(hello, certificates, asks_client, limits.as_deref()).await?;
        let (transport, address) = (Transport::Tls(Box::new(stream)), client_address.socket());
        return Ok(PreparedConnection::Http { transport, address, session: Some(session) });
    };
    let (stream, session) = worker.tls.accept_stream(hello, certificates).await?;
    let Some(assigned) = assigned_stream(worker, connections, session.server_name.as_deref()) else {
        return Err(ClientHandshakeError::UnknownName.into());
    };
    let resumed = Some(session.resumed);
    let client = StreamClient::decrypted(Transport::Tls(Box::new(stream)), client_address, session);
    Ok(PreparedConnection::Stream { client, assigned, resumed })
}

/// The backend of a connection that passes through, with its server name. `None` if it does not, or if rustls has to
/// read the ClientHello to know it.
fn passthrough(
    worker: &Worker,
    connections: &ListenerConnections,
    first: &FirstBytes,
) -> Option<(AssignedStream, Arc<str>)> {
    let view = worker.view();
    let tls = view.http_bind(&connections.address).and_then(|bind| bind.tls.as_ref())?;
    if !tls.has_passthrough() {
        return None;
    }
    let server_name = first.server_name()?;
    match tls.action(Some(&server_name))? {
        TlsAction::Passthrough(rule) => Some((AssignedStream::new(worker, &view, rule), server_name)),
        TlsAction::Terminate(_) | TlsAction::TerminateStream(_) => None,
    }
}

/// What happens with a TLS connection.
enum AssignedTls {
    Terminate,
    /// After the handshake, the decrypted bytes are forwarded.
    TerminateStream,
    Passthrough(AssignedStream),
    /// No listener has the server name, and some listener of the port terminates TLS. The client gets an alert.
    Alert,
    /// No listener has the server name, and all listeners of the port pass TLS through. The connection is reset.
    Reset,
}

/// What the listener of the server name does, in the snapshot that is current at the ClientHello.
fn tls_action(worker: &Worker, connections: &ListenerConnections, hello: &ReceivedHello) -> AssignedTls {
    let view = worker.view();
    let tls = view.http_bind(&connections.address).and_then(|bind| bind.tls.as_ref());
    match tls.and_then(|tls| tls.action(hello.server_name.as_deref())) {
        Some(TlsAction::Terminate(_)) => AssignedTls::Terminate,
        Some(TlsAction::TerminateStream(_)) => AssignedTls::TerminateStream,
        Some(TlsAction::Passthrough(rule)) => AssignedTls::Passthrough(AssignedStream::new(worker, &view, rule)),
        None if tls.is_some_and(PortTls::only_passes_through) => AssignedTls::Reset,
        None => AssignedTls::Alert,
    }
}

/// The backend for the decrypted bytes of a connection, in the snapshot that is current after the handshake. `None` if
/// the listener does not forward them any more.
fn assigned_stream(worker: &Worker, connections: &ListenerConnections, name: Option<&str>) -> Option<AssignedStream> {
    let view = worker.view();
    let tls = view.http_bind(&connections.address).and_then(|bind| bind.tls.as_ref())?;
    match tls.action(name)? {
        TlsAction::TerminateStream(rule) => Some(AssignedStream::new(worker, &view, rule)),
        TlsAction::Terminate(_) | TlsAction::Passthrough(_) => None,
    }
}

/// The current certificates for the server name, which may have changed while the connection waited for a permit. Empty
/// if the listener no longer terminates TLS.
fn certificates(worker: &Worker, connections: &ListenerConnections, hello: &ReceivedHello) -> Arc<Certificates> {
    let view = worker.view();
    let bind = view.http_bind(&connections.address);
    bind.and_then(|bind| bind.certificates(hello.server_name.as_deref())).cloned().unwrap_or_default()
}

/// The current limits for the server name.
fn handshake_limits(
    worker: &Worker,
    connections: &ListenerConnections,
    hello: &ReceivedHello,
) -> Option<Arc<HandshakeLimits>> {
    let view = worker.view();
    let tls = view.http_bind(&connections.address).and_then(|bind| bind.tls.as_ref())?;
    tls.limits_for(hello.server_name.as_deref()).cloned()
}

/// Whether a plugin reads the certificate of the client.
fn requests_client_certificate(worker: &Worker, connections: &ListenerConnections, hello: &ReceivedHello) -> bool {
    let view = worker.view();
    let (bind, name) = (view.http_bind(&connections.address), hello.server_name.as_deref());
    let listener = bind.and_then(|bind| bind.listener_by_server_name(name));
    listener.is_some_and(|listener| listener.requests_client_certificate(name))
}

/// Reads the PROXY header and returns the client's address. None if the header is missing or invalid.
async fn read_proxy_header(
    stream: &mut TcpStream,
    peer: SocketAddr,
    worker: &Worker,
    connections: &ListenerConnections,
) -> Option<ClientAddress> {
    let outcome = timeout(worker.limits.proxy_header_timeout, proxy_header::read(stream)).await;
    record_proxy_header(worker, connections, peer, &outcome);
    match outcome {
        Ok(Ok(ProxyHeaderSource::Client(ends))) => Some(ClientAddress::Reported(ends)),
        Ok(Ok(ProxyHeaderSource::Peer)) => Some(ClientAddress::Peer(peer)),
        Ok(Err(_)) | Err(_) => None,
    }
}

type ProxyHeaderResult = Result<Result<ProxyHeaderSource, ProxyHeaderError>, Elapsed>;

fn record_proxy_header(
    worker: &Worker,
    connections: &ListenerConnections,
    peer: SocketAddr,
    outcome: &ProxyHeaderResult,
) {
    let counted = match outcome {
        Ok(Ok(ProxyHeaderSource::Client(_))) => ProxyHeaderOutcome::Client,
        Ok(Ok(ProxyHeaderSource::Peer)) => ProxyHeaderOutcome::Peer,
        Ok(Err(ProxyHeaderError::ConnectionClosed)) => ProxyHeaderOutcome::ConnectionClosed,
        Ok(Err(ProxyHeaderError::Malformed)) => ProxyHeaderOutcome::Malformed,
        Ok(Err(ProxyHeaderError::TooLong)) => ProxyHeaderOutcome::TooLong,
        Err(_) => ProxyHeaderOutcome::Timeout,
    };
    worker.counters.proxy_headers[counted as usize].add(1);
    let error: &dyn std::error::Error = match outcome {
        Ok(Ok(_)) => return,
        // Many load balancers check the health of a port by connecting and disconnecting.
        Ok(Err(ProxyHeaderError::ConnectionClosed)) => {
            return tracing::debug!(%peer, "A load balancer disconnected without sending a PROXY header");
        }
        Ok(Err(invalid)) => invalid,
        Err(elapsed) => elapsed,
    };
    // The operator configures these load balancers, so a failure deserves a warning, but not one per connection.
    let now = Instant::now();
    if worker.last_proxy_header_warning.get().is_none_or(|last| now - last >= WARN_INTERVAL) {
        worker.last_proxy_header_warning.set(Some(now));
        tracing::warn!(
            %peer, listener = %connections.address, %error,
            "Closed a connection from a load balancer that did not send a valid PROXY header; see --proxy-protocol-from"
        );
    }
}

/// Counts a handshake. A connection that passes through has none; it is counted as a stream.
fn record_handshake(
    worker: &Worker,
    connections: &ListenerConnections,
    client: SocketAddr,
    outcome: &Result<PreparedConnection, ClientHandshakeError>,
) {
    let handshakes = &worker.counters.handshakes;
    match outcome {
        Ok(PreparedConnection::Stream { resumed: None, .. }) => {}
        Ok(PreparedConnection::Http { session: Some(TlsSession { resumed: true, .. }), .. })
        | Ok(PreparedConnection::Stream { resumed: Some(true), .. }) => handshakes.resumed.add(1),
        Ok(PreparedConnection::Http { .. } | PreparedConnection::Stream { .. }) => handshakes.full.add(1),
        Err(failure) => {
            handshakes.failed[*failure as usize].add(1);
            // Untrusted clients fail all the time, so single failures are logged at debug level only.
            tracing::debug!(%client, listener = %connections.address, reason = failure.label(), "TLS handshake failed");
        }
    }
}

/// Runs a step unless the connection is aborted or evicted meanwhile. When the listener closes, the step gets a short
/// grace period.
async fn while_listening<T>(
    connections: &ListenerConnections,
    registration: &mut ConnectionRegistration,
    step: impl Future<Output = T>,
) -> Option<T> {
    let mut step = pin!(step);
    let mut grace = None;
    poll_fn(|cx| {
        registration.set_waker(cx.waker());
        if let Poll::Ready(outcome) = step.as_mut().poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        if connections.is_aborted() || registration.take_eviction() {
            return Poll::Ready(None);
        }
        if connections.is_closing() {
            let grace = grace.get_or_insert_with(|| Box::pin(sleep(CLOSING_GRACE)));
            return grace.as_mut().poll(cx).map(|()| None);
        }
        Poll::Pending
    })
    .await
}

/// Grace period for connections that are still being prepared when their listener closes.
const CLOSING_GRACE: Duration = Duration::from_secs(3);
/// Minimum interval between two warnings about missing or invalid PROXY headers, per worker.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, E, F, G>(_: impl Fn(A, B, C, D, E, F) -> G) -> usize {
        size_of::<G>()
    }

    /// The steps end before the first request, so their state must not occupy memory while the connection is open.
    #[test]
    fn prepared_connection_future_is_small() {
        let bytes = size(prepare_and_serve);
        assert!(bytes <= 860, "the future of a connection with PROXY header or TLS takes {bytes} bytes");
    }
}
