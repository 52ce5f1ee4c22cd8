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
use tokio::time::timeout;

use super::Traffic;

/// How connections to endpoints are made.
#[derive(Clone, Debug)]
pub struct Dial {
    pub timeout: Duration,
    /// Size of the head of an answer, and of the trailers.
    pub max_head: usize,
    pub max_fields: usize,
}

/// Why there is no connection. The request was not sent, so another endpoint may be tried.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    #[error("connect to {0} timed out after {1:?}; is a NetworkPolicy in the way?")]
    TimedOut(SocketAddr, Duration),
    #[error("{0} refused the connection; does the container listen on this port?")]
    Refused(SocketAddr),
    #[error("cannot connect to {0}: {1}")]
    Failed(SocketAddr, io::Error),
}

impl Dial {
    pub(super) async fn connect<B>(
        &self,
        address: SocketAddr,
        traffic: &Arc<Traffic>,
    ) -> Result<SendRequest<B>, ConnectFailure>
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = match timeout(self.timeout, TcpStream::connect(address)).await {
            Err(_) => {
                traffic.timed_out.add(1);
                return Err(ConnectFailure::TimedOut(address, self.timeout));
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                traffic.refused.add(1);
                return Err(ConnectFailure::Refused(address));
            }
            Ok(Err(error)) => {
                traffic.failed.add(1);
                return Err(ConnectFailure::Failed(address, error));
            }
            Ok(Ok(stream)) => stream,
        };
        let failed = |error| {
            traffic.failed.add(1);
            ConnectFailure::Failed(address, error)
        };
        stream.set_nodelay(true).map_err(failed)?;
        let mut http = Builder::new();
        http.http09_responses(false).max_header_size(self.max_head).max_buf_size(self.max_head.max(BUFFER));
        if self.max_fields != HYPER_FIELDS {
            http.max_headers(self.max_fields);
        }
        let (sender, connection) =
            http.handshake(TokioIo::new(stream)).await.map_err(|error| failed(io::Error::other(error)))?;
        traffic.connected.add(1);
        let traffic = Arc::clone(traffic);
        // Owned by its sender: the task ends when the sender is dropped or the endpoint closes. What went wrong reaches
        // whoever waits for the answer or reads its body, so there is nothing to say here.
        tokio::task::spawn_local(async move {
            drop(connection.await);
            traffic.closed.add(1);
        });
        Ok(sender)
    }
}

/// Asking hyper for exactly its own default makes it keep the fields of every answer on the heap.
const HYPER_FIELDS: usize = 100;

/// What may be read ahead of the reader of a body.
const BUFFER: usize = 64 * 1024;
