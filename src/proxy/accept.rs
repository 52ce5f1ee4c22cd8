//! Prepares an accepted connection for its first request. Each step has its own timeout and is counted by outcome.
//!
//! ```text
//!   accepted ─▶ PROXY header ─▶ TLS handshake ─▶ protocol ─▶ connection::serve
//!               if the peer is   if the port has  by ALPN
//!               a trusted proxy  HTTPS listeners
//! ```

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

use super::connection::{self, Peer};
use super::http2;
use super::listener_connections::{ConnectionRegistration, ListenerConnections};
use super::proxy_header::{self, ProxyHeaderError, ProxyHeaderSource};
use super::stats::ProxyHeaderOutcome;
use super::tls::{ClientHandshakeError, TlsSession};
use super::transport::Transport;
use super::worker::Worker;

/// A connection that is ready to serve HTTP.
struct AcceptedConnection {
    transport: Transport,
    /// The client's address. It differs from the peer's address behind a load balancer that sends a PROXY header.
    address: SocketAddr,
    session: Option<TlsSession>,
}

/// Spawns the task that serves a connection until it closes. `held` is dropped at that point.
pub(super) fn spawn(
    stream: TcpStream,
    address: SocketAddr,
    worker: &Rc<Worker>,
    group: &Rc<ListenerConnections>,
    held: impl Sized + 'static,
) {
    let (worker, group) = (Rc::clone(worker), Rc::clone(group));
    // Register before the task runs, so that a listener that closes in the meantime already knows the connection.
    let membership = group.register();
    let steps = AcceptSteps { proxy_header: worker.requires_proxy_header(address), tls: serves_tls(&worker, &group) };
    if steps.proxy_header || steps.tls {
        run(prepare_and_serve(stream, address, steps, worker, group, membership), held);
    } else {
        // A separate future type: plain connections should not reserve the memory that only the extra steps need.
        let peer = Rc::new(Peer::new(worker, group, address, None));
        run(connection::serve(Transport::Plain(stream), peer, membership), held);
    }
}

fn run(connection: impl Future<Output = ()> + 'static, held: impl Sized + 'static) {
    tokio::task::spawn_local(async move {
        connection.await;
        drop(held);
    });
}

async fn prepare_and_serve(
    stream: TcpStream,
    address: SocketAddr,
    steps: AcceptSteps,
    worker: Rc<Worker>,
    group: Rc<ListenerConnections>,
    mut membership: ConnectionRegistration,
) {
    // Boxed, so that the memory for the steps is freed when they end.
    let preparing = Box::pin(prepare(stream, address, steps, &worker, &group));
    let ready = unless_listener_closes(&group, &mut membership, preparing).await.flatten();
    if let Some(AcceptedConnection { transport, address, session }) = ready {
        let http2 = session.as_ref().is_some_and(|session| session.http2);
        let peer = Rc::new(Peer::new(worker, group, address, session));
        if http2 {
            // Boxed, because most connections do not need it.
            Box::pin(http2::serve(transport, peer, membership)).await;
        } else {
            connection::serve(transport, peer, membership).await;
        }
    }
}

#[derive(Clone, Copy)]
struct AcceptSteps {
    proxy_header: bool,
    tls: bool,
}

/// Whether connections to this address start with a TLS handshake. After the address has left the snapshot, connections
/// that are still in its accept queue use the previous setting.
fn serves_tls(worker: &Worker, group: &ListenerConnections) -> bool {
    if let Some(bind) = worker.view().bind(&group.address) {
        group.tls.set(bind.tls.is_some());
    }
    group.tls.get()
}

/// Returns None if the connection has ended; the reason has been recorded by then.
async fn prepare(
    mut stream: TcpStream,
    mut address: SocketAddr,
    steps: AcceptSteps,
    worker: &Worker,
    group: &ListenerConnections,
) -> Option<AcceptedConnection> {
    if steps.proxy_header {
        let outcome = timeout(worker.limits.proxy_header_timeout, proxy_header::read(&mut stream)).await;
        record_proxy_header(worker, group, address, &outcome);
        match outcome {
            Ok(Ok(ProxyHeaderSource::Client(client))) => address = client,
            Ok(Ok(ProxyHeaderSource::Peer)) => {}
            Ok(Err(_)) | Err(_) => return None,
        }
    }
    if !steps.tls {
        return Some(AcceptedConnection { transport: Transport::Plain(stream), address, session: None });
    }
    let mut permit = None;
    let handshake = async {
        // The semaphore is first come, first served. Waiting for a permit counts toward the handshake timeout.
        permit = worker.handshakes.acquire().await.ok();
        worker
            .tls
            .accept(stream, |name| {
                let view = worker.view();
                let bind = view.bind(&group.address)?;
                bind.certificates(name).cloned()
            })
            .await
    };
    let outcome = timeout(worker.limits.handshake_timeout, handshake).await;
    let outcome = outcome.unwrap_or_else(|_| {
        Err(if permit.is_some() { ClientHandshakeError::Timeout } else { ClientHandshakeError::Overload })
    });
    record_handshake(worker, group, address, &outcome);
    let (stream, session) = outcome.ok()?;
    Some(AcceptedConnection { transport: Transport::Tls(Box::new(stream)), address, session: Some(session) })
}

type ProxyHeaderResult = Result<Result<ProxyHeaderSource, ProxyHeaderError>, Elapsed>;

fn record_proxy_header(worker: &Worker, group: &ListenerConnections, peer: SocketAddr, outcome: &ProxyHeaderResult) {
    let counted = match outcome {
        Ok(Ok(ProxyHeaderSource::Client(_))) => ProxyHeaderOutcome::Client,
        Ok(Ok(ProxyHeaderSource::Peer)) => ProxyHeaderOutcome::Peer,
        Ok(Err(ProxyHeaderError::ConnectionClosed)) => ProxyHeaderOutcome::Ended,
        Ok(Err(ProxyHeaderError::Malformed)) => ProxyHeaderOutcome::Malformed,
        Ok(Err(ProxyHeaderError::TooLong)) => ProxyHeaderOutcome::TooLong,
        Err(_) => ProxyHeaderOutcome::Timeout,
    };
    worker.counters.proxy_headers[counted as usize].add(1);
    let error: &dyn std::error::Error = match outcome {
        Ok(Ok(_)) => return,
        // Many load balancers check the health of a port this way.
        Ok(Err(ProxyHeaderError::ConnectionClosed)) => {
            return tracing::debug!(%peer, "A load balancer disconnected without sending a PROXY header");
        }
        Ok(Err(invalid)) => invalid,
        Err(elapsed) => elapsed,
    };
    // The operator configures these load balancers, so a failure deserves a warning, but not one per connection.
    let now = Instant::now();
    if worker.proxy_header_warned.get().is_none_or(|last| now - last >= WARN_INTERVAL) {
        worker.proxy_header_warned.set(Some(now));
        tracing::warn!(
            %peer, listener = %group.address, %error,
            "Closed a connection from a load balancer that did not send a valid PROXY header; see --proxy-protocol-from"
        );
    }
}

fn record_handshake<T>(
    worker: &Worker,
    group: &ListenerConnections,
    client: SocketAddr,
    outcome: &Result<(T, TlsSession), ClientHandshakeError>,
) {
    let handshakes = &worker.counters.handshakes;
    match outcome {
        Ok((_, session)) if session.resumed => handshakes.resumed.add(1),
        Ok(_) => handshakes.full.add(1),
        Err(failure) => {
            handshakes.failed[*failure as usize].add(1);
            // Untrusted clients fail all the time, so single failures are logged at debug level only.
            tracing::debug!(%client, listener = %group.address, reason = failure.label(), "TLS handshake failed");
        }
    }
}

/// Runs a step unless the connection is aborted meanwhile. When the listener closes, the step gets a short grace
/// period.
async fn unless_listener_closes<T>(
    group: &ListenerConnections,
    membership: &mut ConnectionRegistration,
    step: impl Future<Output = T>,
) -> Option<T> {
    let mut step = pin!(step);
    let mut grace = None;
    poll_fn(|cx| {
        membership.set_waker(cx.waker());
        if let Poll::Ready(outcome) = step.as_mut().poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        if group.is_aborted() {
            return Poll::Ready(None);
        }
        if group.is_closing() {
            let grace = grace.get_or_insert_with(|| Box::pin(sleep(CLOSING_GRACE)));
            return grace.as_mut().poll(cx).map(|()| None);
        }
        Poll::Pending
    })
    .await
}

/// Grace period for connections that are still being prepared when their listener closes.
const CLOSING_GRACE: Duration = Duration::from_secs(3);
/// Minimum interval between two warnings about missing PROXY headers, per worker.
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
        assert!(bytes <= 1700, "the future of a connection with PROXY header or TLS takes {bytes} bytes");
    }
}
