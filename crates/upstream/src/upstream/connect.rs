//! Opens connections to endpoints, with a timeout and all protocol limits set.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

#[cfg(target_os = "linux")]
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::local_shortage::LocalShortage;
use super::settings::OverloadLimit;
use super::socket::{SocketStream, UpstreamSocket};
use super::socket_budget::{MAX_SOCKET_WAIT, SocketBudget, SocketLimit, SocketPermit};
use super::{Outcome, OutcomeClass, OwnSocket, OwnSockets, Upstream, UpstreamCounters, UpstreamTarget};
use crate::endpoint_tls::{SessionUse, UpstreamHandshakeError, UpstreamServerName, UpstreamTlsClient};
use crate::http1::NameCase;

/// How connections to endpoints are opened.
#[derive(Clone, Debug)]
pub struct EndpointConnector {
    pub timeout: Duration,
    /// The connections to endpoints that the process may have.
    pub sockets: Arc<SocketBudget>,
    /// The sockets to which no connections are opened.
    pub own_sockets: Arc<OwnSockets>,
    /// Maximum size of the head of a response, and of its trailers.
    pub max_head: usize,
    /// Maximum number of header fields of a response, for HTTP/1.
    pub max_fields: usize,
    /// The case in which the names of header fields are forwarded, for HTTP/1.
    pub name_case: NameCase,
    /// Maximum number of concurrent requests per connection, for HTTP/2.
    pub max_streams: usize,
    /// How long the endpoint of an HTTP/2 connection may send nothing before it is pinged, and how long Portico waits
    /// for the acknowledgment.
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
}

/// Why no connection was established. The request was not sent, so another endpoint may be tried.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("connecting to {0} timed out after {1:?}; check whether a NetworkPolicy blocks it")]
    TimedOut(SocketAddr, Duration),
    #[error("{0} refused the connection; check that the container listens on this port")]
    Refused(SocketAddr),
    /// The endpoint closed the connection before it sent SETTINGS, or did not send them in time.
    #[error("{0} does not support HTTP/2; check the appProtocol of the Service port, or the protocol of the Service")]
    NotHttp2(SocketAddr),
    #[error("no connection to {0} was opened, because {1}; {remedy}", remedy = .1.remedy())]
    LimitReached(SocketAddr, SocketLimit),
    #[error(transparent)]
    OwnSocket(OwnSocket),
    #[error("no connection to {0} was opened, because {1}")]
    LocalShortage(SocketAddr, LocalShortage),
    #[error("TLS handshake with {0} failed: {1}")]
    TlsHandshake(SocketAddr, UpstreamHandshakeError),
    #[error("cannot connect to {0}: {1}")]
    Failed(SocketAddr, Arc<io::Error>),
}

impl ConnectError {
    fn new(address: SocketAddr, error: io::Error, timeout: Duration) -> Self {
        if let Some(shortage) = LocalShortage::of_connect_error(&error, address) {
            return ConnectError::LocalShortage(address, shortage);
        }
        match error.kind() {
            io::ErrorKind::TimedOut => ConnectError::TimedOut(address, timeout),
            io::ErrorKind::ConnectionRefused => ConnectError::Refused(address),
            _ => ConnectError::Failed(address, Arc::new(error)),
        }
    }

    /// The error of a request that gets no connection, which is counted.
    pub(super) fn limit_reached(
        upstream: &Upstream,
        address: SocketAddr,
        limit: SocketLimit,
        counters: &UpstreamCounters,
    ) -> Self {
        match limit {
            SocketLimit::Process { .. } => counters.limited.add(1),
            SocketLimit::Upstream { .. } => upstream.overload.count_rejection(OverloadLimit::Connections),
            SocketLimit::Share { .. }
            | SocketLimit::Namespace { .. }
            | SocketLimit::Client { .. }
            | SocketLimit::Queue { .. } => counters.share_limited.add(1),
        }
        if upstream.should_warn() {
            tracing::warn!(upstream = %upstream.key, "Requests fail, because {limit}; {}", limit.remedy());
        }
        ConnectError::LimitReached(address, limit)
    }

    /// The error of a connection that failed after it was established. With TLS it counts as an error of the handshake,
    /// since the endpoint may have reacted to the server name.
    pub(super) fn after_connect(target: &UpstreamTarget<'_>, address: SocketAddr, error: hyper::Error) -> Self {
        if target.upstream.tls_client.is_some() {
            ConnectError::TlsHandshake(address, UpstreamHandshakeError::Other(error.to_string()))
        } else {
            ConnectError::Failed(address, Arc::new(io::Error::other(error)))
        }
    }

    /// Whether this process, and not the endpoint, lacks something for a connection.
    pub(crate) fn is_shortage(&self) -> bool {
        matches!(self, ConnectError::LimitReached(..) | ConnectError::LocalShortage(..))
    }

    /// Whether the endpoint is to be ejected. A TLS handshake depends on the server name, which the client may have
    /// chosen.
    pub(super) fn ejects_endpoint(&self, target: &UpstreamTarget<'_>) -> bool {
        let has_tls_success = || target.has_tls_success();
        match self {
            ConnectError::LimitReached(..) | ConnectError::LocalShortage(..) => false,
            ConnectError::TlsHandshake(_, error) => error.ejects_endpoint(has_tls_success()),
            // ALPN selection of an endpoint may depend on the server name.
            ConnectError::NotHttp2(_) => target.upstream.tls_client.is_none() || has_tls_success(),
            // Otherwise requests would be sent there again and again, although other endpoints exist.
            ConnectError::OwnSocket(_) => true,
            ConnectError::TimedOut(..) | ConnectError::Refused(_) | ConnectError::Failed(..) => true,
        }
    }
}

impl EndpointConnector {
    /// Until when a request that begins now waits for its client's share and for a socket together.
    pub(super) fn socket_deadline(&self) -> Instant {
        Instant::now() + self.timeout.min(MAX_SOCKET_WAIT)
    }

    /// Waits until `socket_deadline` for permission to open a socket to the endpoint.
    pub(super) async fn permit_socket(
        &self,
        target: &UpstreamTarget<'_>,
        address: SocketAddr,
        socket_deadline: Instant,
        counters: &Arc<UpstreamCounters>,
    ) -> Result<SocketPermit, ConnectError> {
        // Without a limit, HTTP/2 streams, which cost a client nothing, could take the sockets that other clients need.
        let upstream = target.upstream;
        let acquiring = self.sockets.acquire(&upstream.sockets, &upstream.key.namespace, socket_deadline);
        let permit = target.place_wait.during(acquiring).await;
        permit.map_err(|limit| ConnectError::limit_reached(upstream, address, limit, counters))
    }

    /// Opens a socket to the endpoint; the timeout includes the TLS handshake. `proxy_header` is sent before it.
    pub(super) async fn open_socket(
        &self,
        target: &UpstreamTarget<'_>,
        address: SocketAddr,
        proxy_header: &[u8],
        permit: SocketPermit,
        counters: &Arc<UpstreamCounters>,
    ) -> Result<UpstreamSocket, ConnectError> {
        let upstream = target.upstream;
        let opener = StreamOpener { timeout: self.timeout, own_sockets: &self.own_sockets };
        let server_name = target.server_name.as_deref();
        let has_begun = Cell::new(false);
        let tls = upstream.tls_client.as_ref().map(|client| ConnectionTls {
            client,
            server_name,
            has_begun: Some(&has_begun),
        });
        let opening = opener.open(address, proxy_header, tls, &target.handshake_time);
        let says_little = || has_begun.get() && !target.is_usual_handshake();
        let outcome = suspect_if_slow(upstream, address, opening, says_little).await;
        let server_name = target.server_name.as_deref().cloned();
        outcome.map(|stream| UpstreamSocket::new(stream, permit, server_name)).inspect_err(|error| {
            let counter = match error {
                ConnectError::TimedOut(..) | ConnectError::TlsHandshake(_, UpstreamHandshakeError::TimedOut(_)) => {
                    &counters.timed_out
                }
                ConnectError::Refused(_) => &counters.refused,
                ConnectError::TlsHandshake(..) => &counters.tls_failed,
                ConnectError::NotHttp2(_)
                | ConnectError::LimitReached(..)
                | ConnectError::LocalShortage(..)
                | ConnectError::OwnSocket(_)
                | ConnectError::Failed(..) => &counters.failed,
            };
            counter.add(1);
            if matches!(error, ConnectError::LocalShortage(..) | ConnectError::OwnSocket(_))
                && target.upstream.should_warn()
            {
                tracing::warn!(upstream = %target.upstream.key, %error, "Requests fail");
            }
        })
    }
}

/// Awaits a connection that is being opened. If nothing has come of it after a second, the endpoint is suspect: other
/// requests do not wait until the timeout, which a rule may set to minutes. `says_little`: whether it waits for what
/// other connections may not have to wait for.
async fn suspect_if_slow<T>(
    upstream: &Upstream,
    address: SocketAddr,
    opening: impl Future<Output = T>,
    says_little: impl Fn() -> bool,
) -> T {
    let mut opening = pin!(opening);
    if let Ok(opened) = timeout(SUSPECT_AFTER, opening.as_mut()).await {
        return opened;
    }
    if !says_little() {
        upstream.report(address, &Outcome::of(OutcomeClass::Stale));
    }
    opening.await
}

/// Opens connections to endpoints, for requests and for health checks, which have limits of their own.
pub(super) struct StreamOpener<'a> {
    /// For the connection with its TLS handshake.
    pub(super) timeout: Duration,
    /// The sockets to which no connections are opened.
    pub(super) own_sockets: &'a OwnSockets,
}

/// How a connection is encrypted.
#[derive(Clone, Copy)]
pub(super) struct ConnectionTls<'a> {
    pub(super) client: &'a UpstreamTlsClient,
    pub(super) server_name: Option<&'a UpstreamServerName>,
    /// Set when the handshake begins.
    pub(super) has_begun: Option<&'a Cell<bool>>,
}

impl StreamOpener<'_> {
    /// Opens a connection, which begins with `proxy_header`, and performs the TLS handshake, whose duration is set.
    pub(super) async fn open(
        &self,
        address: SocketAddr,
        proxy_header: &[u8],
        tls: Option<ConnectionTls<'_>>,
        handshake_time: &Cell<Option<Duration>>,
    ) -> Result<SocketStream, ConnectError> {
        let deadline = Instant::now() + self.timeout;
        let connected = timeout_at(deadline, self.connect_tcp(address, proxy_header)).await;
        let stream = connected.unwrap_or(Err(ConnectError::TimedOut(address, self.timeout)))?;
        let Some(tls) = tls else { return Ok(SocketStream::Plain(stream)) };
        let began = Instant::now();
        if let Some(has_begun) = tls.has_begun {
            has_begun.set(true);
        }
        let outcome = self.connect_tls(tls, address, stream, proxy_header, deadline).await;
        if matches!(outcome, Ok(_) | Err(ConnectError::TlsHandshake(..))) {
            handshake_time.set(Some(began.elapsed()));
        }
        outcome
    }

    async fn connect_tcp(&self, address: SocketAddr, proxy_header: &[u8]) -> Result<TcpStream, ConnectError> {
        let failed = |error| ConnectError::new(address, error, self.timeout);
        self.own_sockets.check(address).map_err(ConnectError::OwnSocket)?;
        let mut stream = TcpStream::connect(address).await.map_err(failed)?;
        let local = || stream.local_addr().ok().map(|local| local.ip());
        self.own_sockets.check_connected(address, local).map_err(ConnectError::OwnSocket)?;
        stream.set_nodelay(true).map_err(failed)?;
        notice_dead_peer(&stream).map_err(failed)?;
        stream.write_all(proxy_header).await.map_err(failed)?;
        Ok(stream)
    }

    async fn connect_tls(
        &self,
        tls: ConnectionTls<'_>,
        address: SocketAddr,
        stream: TcpStream,
        proxy_header: &[u8],
        deadline: Instant,
    ) -> Result<SocketStream, ConnectError> {
        let handshake = async |stream, session_use| {
            timeout_at(deadline, tls.client.handshake(stream, address, tls.server_name, session_use))
                .await
                .unwrap_or_else(|_| Err(UpstreamHandshakeError::TimedOut(self.timeout)))
        };
        let mut outcome = handshake(stream, SessionUse::Resume).await;
        if let Err(UpstreamHandshakeError::SessionOutdated) = outcome {
            let stream = timeout_at(deadline, self.connect_tcp(address, proxy_header))
                .await
                .unwrap_or(Err(ConnectError::TimedOut(address, self.timeout)))?;
            outcome = handshake(stream, SessionUse::Full).await;
        }
        outcome
            .map(|stream| SocketStream::Tls(Box::new(stream)))
            .map_err(|error| ConnectError::TlsHandshake(address, error))
    }
}

/// How long a connection may take before its endpoint is suspect.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);
/// Lets the system end a connection whose peer acknowledges nothing, so that requests on it fail. What it must
/// acknowledge is data, or probes of TCP while there is none, which cost the endpoint's program nothing. Otherwise, a
/// node that has disappeared keeps requests until their timeouts.
#[cfg(target_os = "linux")]
fn notice_dead_peer(stream: &TcpStream) -> io::Result<()> {
    let probes = TcpKeepalive::new().with_time(IDLE_BEFORE_PROBES).with_interval(PROBE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&probes)?;
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, DEAD_PEER_MILLIS)?)
}

/// Other systems have no such option; there, the timeouts of requests apply.
#[cfg(not(target_os = "linux"))]
fn notice_dead_peer(_stream: &TcpStream) -> io::Result<()> {
    Ok(())
}

/// It also ends probes: they are given up after this time instead of a number.
#[cfg(target_os = "linux")]
const DEAD_PEER_MILLIS: u32 = 20_000;
#[cfg(target_os = "linux")]
const IDLE_BEFORE_PROBES: Duration = Duration::from_secs(30);
#[cfg(target_os = "linux")]
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::upstream::{ClientSlot, UpstreamKey, UpstreamRegistry};

    #[test]
    fn errors_of_this_machine_eject_no_endpoint() {
        let registry = UpstreamRegistry::default();
        let upstream = registry.upstream(&UpstreamKey::default());
        let target = UpstreamTarget {
            upstream: &upstream,
            server_name: None,
            client: ClientSlot::of([127, 0, 0, 1].into()),
            handshake_time: Default::default(),
            place_wait: Default::default(),
        };
        let local = SocketAddr::from(([127, 0, 0, 1], 80));
        // A link-local address without an interface, for which no machine has a source address.
        let without_source: SocketAddr = "[fe80::1]:80".parse().unwrap();
        for (errno, address, ejects) in [
            (Errno::MFILE, local, false),
            (Errno::NFILE, local, false),
            (Errno::NOMEM, local, false),
            (Errno::NOBUFS, local, false),
            (Errno::ADDRNOTAVAIL, local, false),
            (Errno::ADDRNOTAVAIL, without_source, true),
            (Errno::CONNREFUSED, local, true),
            (Errno::TIMEDOUT, local, true),
            (Errno::HOSTUNREACH, local, true),
        ] {
            let error = ConnectError::new(address, errno.into(), Duration::from_secs(1));
            assert_eq!(error.ejects_endpoint(&target), ejects, "{errno:?}, {address}: {error}");
        }
    }
}
