//! Connections to endpoints that have switched protocols.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::admission::Admission;
use super::counted_connection::CountedConnection;
use super::socket::UpstreamSocket;
use super::socket_budget::client_slots::ClientRequest;
use crate::rewound::Rewound;

/// The bytes of both directions, after the response that accepts the upgrade.
pub struct UpgradedConnection {
    stream: Rewound<UpstreamSocket>,
    _open: CountedConnection,
    /// Counts the connection for its client.
    _client: Option<ClientRequest>,
    _admission: Admission,
}

impl UpgradedConnection {
    pub(super) fn new(stream: Rewound<UpstreamSocket>, open: CountedConnection) -> Self {
        UpgradedConnection { stream, _open: open, _client: None, _admission: Admission::default() }
    }

    /// Counts the connection for the client of the request that it belongs to.
    pub(super) fn counted_for(self, client: ClientRequest) -> Self {
        UpgradedConnection { _client: Some(client), ..self }
    }

    /// Holds the admission of the request until the connection ends.
    pub fn hold(&mut self, mut admission: Admission) {
        admission.become_tunnel();
        self._admission = admission;
    }
}

impl AsyncRead for UpgradedConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for UpgradedConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
