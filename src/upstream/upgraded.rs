//! Connections to endpoints that have switched protocols.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::counted_connection::CountedConnection;
use super::socket::UpstreamSocket;
use crate::rewound::Rewound;

/// An endpoint that switches protocols.
pub enum EndpointUpgrade {
    Library(OnUpgrade),
    Done(Box<UpgradedConnection>),
}

/// The bytes of both directions, after the response that accepts the upgrade.
pub struct UpgradedConnection(UpgradedStream);

enum UpgradedStream {
    Library(TokioIo<Upgraded>),
    Socket { stream: Rewound<UpstreamSocket>, _open: CountedConnection },
}

impl UpgradedConnection {
    pub(super) fn new(stream: Rewound<UpstreamSocket>, open: CountedConnection) -> Self {
        UpgradedConnection(UpgradedStream::Socket { stream, _open: open })
    }
}

impl EndpointUpgrade {
    /// None if the connection has failed.
    pub async fn connection(self) -> Option<Box<UpgradedConnection>> {
        match self {
            EndpointUpgrade::Library(upgrade) => {
                let stream = TokioIo::new(upgrade.await.ok()?);
                Some(Box::new(UpgradedConnection(UpgradedStream::Library(stream))))
            }
            EndpointUpgrade::Done(connection) => Some(connection),
        }
    }
}

impl AsyncRead for UpgradedConnection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            UpgradedStream::Library(stream) => Pin::new(stream).poll_read(cx, buffer),
            UpgradedStream::Socket { stream, .. } => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for UpgradedConnection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            UpgradedStream::Library(stream) => Pin::new(stream).poll_write(cx, bytes),
            UpgradedStream::Socket { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            UpgradedStream::Library(stream) => Pin::new(stream).poll_flush(cx),
            UpgradedStream::Socket { stream, .. } => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            UpgradedStream::Library(stream) => Pin::new(stream).poll_shutdown(cx),
            UpgradedStream::Socket { stream, .. } => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
