//! Opening a connection to an endpoint, within a time limit, with every limit of the protocol set.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::socket::{Heard, Socket, Stream};
use super::tls::HandshakeFailure;
use super::{Aim, Traffic};

/// How connections to endpoints are made.
#[derive(Clone, Debug)]
pub struct Dial {
    pub timeout: Duration,
    /// One permit per connection of the whole process to an endpoint.
    pub sockets: Arc<Semaphore>,
    /// Size of the head of an answer, and of the trailers.
    pub max_head: usize,
    pub max_fields: usize,
    /// Of HTTP/2: requests at a time on one connection, and how a silent one is found out about.
    pub streams: usize,
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
}

/// Why there is no connection. The request was not sent, so another endpoint may be tried.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectFailure {
    #[error("connect to {0} timed out after {1:?}; is a NetworkPolicy in the way?")]
    TimedOut(SocketAddr, Duration),
    #[error("{0} refused the connection; does the container listen on this port?")]
    Refused(SocketAddr),
    #[error(
        "{0} does not speak HTTP/2; is the appProtocol of the Service port, or the protocol of the Service, right?"
    )]
    Foreign(SocketAddr),
    #[error("no connection to {0} was begun, since there were too many for {1:?}; see --max-connections")]
    NoRoom(SocketAddr, Duration),
    #[error("no TLS with {0}: {1}")]
    Handshake(SocketAddr, HandshakeFailure),
    #[error("cannot connect to {0}: {1}")]
    Failed(SocketAddr, Arc<io::Error>),
}

impl ConnectFailure {
    fn new(address: SocketAddr, error: io::Error, patience: Duration) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => ConnectFailure::TimedOut(address, patience),
            io::ErrorKind::ConnectionRefused => ConnectFailure::Refused(address),
            _ => ConnectFailure::Failed(address, Arc::new(error)),
        }
    }

    /// Of a connection that was made: in TLS the endpoint has been told the name by then.
    pub(super) fn once_connected(aim: &Aim<'_>, address: SocketAddr, error: hyper::Error) -> Self {
        if aim.upstream.client.is_some() {
            ConnectFailure::Handshake(address, HandshakeFailure::Other(error.to_string()))
        } else {
            ConnectFailure::Failed(address, Arc::new(io::Error::other(error)))
        }
    }

    /// Whether it says something about the endpoint, which is then passed over for a while. A connection in TLS is not made
    /// before the endpoint has been told a name, which may be up to the client.
    pub(super) fn blames_endpoint(&self, aim: &Aim<'_>) -> bool {
        let is_proven = || aim.name.as_deref().is_some_and(|name| aim.upstream.is_proven(name));
        match self {
            ConnectFailure::NoRoom(..) => false,
            ConnectFailure::Handshake(_, failure) => failure.blames_endpoint(is_proven()),
            // Which protocol an endpoint agrees to may depend on the name.
            ConnectFailure::Foreign(_) => aim.upstream.client.is_none() || is_proven(),
            ConnectFailure::TimedOut(..) | ConnectFailure::Refused(_) | ConnectFailure::Failed(..) => true,
        }
    }
}

impl Dial {
    /// A socket to the endpoint. Hands are shaken within the same time.
    pub(super) async fn open(
        &self,
        aim: &Aim<'_>,
        address: SocketAddr,
        traffic: &Arc<Traffic>,
    ) -> Result<Socket, ConnectFailure> {
        // Without a limit, streams that cost a client nothing would take the sockets that other clients need.
        let Ok(Ok(place)) = timeout(self.timeout, Arc::clone(&self.sockets).acquire_owned()).await else {
            traffic.no_room.add(1);
            return Err(ConnectFailure::NoRoom(address, self.timeout));
        };
        let end = Instant::now() + self.timeout;
        let outcome = match timeout_at(end, self.reach(address)).await {
            Err(_) => Err(ConnectFailure::TimedOut(address, self.timeout)),
            Ok(Err(failure)) => Err(failure),
            Ok(Ok(stream)) => self.secure(aim, address, stream, end).await,
        };
        let name = aim.name.as_deref().cloned();
        outcome.map(|stream| Socket::new(stream, place, name)).inspect_err(|failure| {
            let count = match failure {
                ConnectFailure::TimedOut(..) | ConnectFailure::Handshake(_, HandshakeFailure::TimedOut(_)) => {
                    &traffic.timed_out
                }
                ConnectFailure::Refused(_) => &traffic.refused,
                ConnectFailure::Handshake(..) => &traffic.handshake,
                ConnectFailure::Foreign(_) | ConnectFailure::NoRoom(..) | ConnectFailure::Failed(..) => &traffic.failed,
            };
            count.add(1);
        })
    }

    async fn reach(&self, address: SocketAddr) -> Result<TcpStream, ConnectFailure> {
        let connected = TcpStream::connect(address).await;
        let stream = connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        stream.map_err(|error| ConnectFailure::new(address, error, self.timeout))
    }

    /// In TLS, if the upstream is spoken to in that.
    async fn secure(
        &self,
        aim: &Aim<'_>,
        address: SocketAddr,
        stream: TcpStream,
        end: Instant,
    ) -> Result<Stream, ConnectFailure> {
        let Some(client) = &aim.upstream.client else { return Ok(Stream::Plain(stream)) };
        let shaken = timeout_at(end, client.shake_hands(stream, address, aim.name.as_deref())).await;
        shaken
            .unwrap_or_else(|_| Err(HandshakeFailure::TimedOut(self.timeout)))
            .map(|stream| Stream::Tls(Box::new(stream)))
            .map_err(|failure| ConnectFailure::Handshake(address, failure))
    }

    /// A connection of HTTP/1.
    pub(super) async fn connect<B>(
        &self,
        aim: &Aim<'_>,
        address: SocketAddr,
        traffic: &Arc<Traffic>,
    ) -> Result<(SendRequest<B>, Heard), ConnectFailure>
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = self.open(aim, address, traffic).await?;
        let heard = stream.heard();
        let mut http = Builder::new();
        http.http09_responses(false).max_header_size(self.max_head).max_buf_size(self.max_head.max(BUFFER));
        if self.max_fields != HYPER_FIELDS {
            http.max_headers(self.max_fields);
        }
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(|error| {
            traffic.failed.add(1);
            ConnectFailure::once_connected(aim, address, error)
        })?;
        traffic.connected.add(1);
        let traffic = Arc::clone(traffic);
        // Owned by its sender: the task ends when the sender is dropped or the endpoint closes. What went wrong reaches
        // whoever waits for the answer or reads its body, so there is nothing to say here.
        tokio::task::spawn_local(async move {
            drop(connection.with_upgrades().await);
            traffic.closed.add(1);
        });
        Ok((sender, heard))
    }
}

/// Asking hyper for exactly its own default makes it keep the fields of every message on the heap.
pub const HYPER_FIELDS: usize = 100;

/// What may be read ahead of the reader of a body.
pub const BUFFER: usize = 64 * 1024;
