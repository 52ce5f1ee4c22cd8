//! A connection to an endpoint whose bytes the caller reads and writes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::admission::Admission;
use super::counted_connection::CountedConnection;
use super::socket::UpstreamSocket;
use super::socket_budget::client_slots::ClientRequest;
use super::{ActiveRequest, UpstreamCounters};

/// A connection that is used for one client connection, and closed when dropped.
#[derive(Debug)]
pub struct RawConnection {
    socket: UpstreamSocket,
    _open: CountedConnection,
    /// Counts the connection for least-requests balancing.
    _active_request: Option<ActiveRequest>,
    /// Counts the connection for its client.
    _client: ClientRequest,
    _admission: Admission,
}

impl RawConnection {
    pub(super) fn new(
        socket: UpstreamSocket,
        counters: &Arc<UpstreamCounters>,
        active_request: Option<ActiveRequest>,
        client: ClientRequest,
    ) -> Self {
        RawConnection {
            socket,
            _open: CountedConnection::new(counters),
            _active_request: active_request,
            _client: client,
            _admission: Admission::default(),
        }
    }

    /// Holds the admission of the connection until it ends.
    pub(super) fn hold(&mut self, mut admission: Admission) {
        admission.become_tunnel();
        self._admission = admission;
    }

    /// The socket of a connection without TLS.
    pub fn plain_socket(&self) -> Option<&TcpStream> {
        self.socket.plain_socket()
    }

    /// Closes the connection with a reset, so that the endpoint does not take the end for a complete transfer.
    pub fn reset(self) {
        // If the option cannot be set, the connection closes without a reset.
        drop(self.socket.set_zero_linger());
    }
}

impl AsyncRead for RawConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for RawConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
