//! A socket to an endpoint, with or without TLS. It holds a permit of the connection limit and records whether the
//! endpoint has sent data.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::socket_budget::SocketPermit;
use crate::endpoint_tls::{UpstreamServerName, is_alert};

/// A socket with its permit, which is released when the socket is closed: a tunnel holds it as long as it lasts.
#[derive(Debug)]
pub(super) struct UpstreamSocket {
    stream: SocketStream,
    monitor: ResponseMonitor,
    _permit: SocketPermit,
}

#[derive(Debug)]
pub(super) enum SocketStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl UpstreamSocket {
    pub(super) fn new(stream: SocketStream, permit: SocketPermit, server_name: Option<UpstreamServerName>) -> Self {
        let monitor = ResponseMonitor(Arc::new(ResponseState { server_name, ..ResponseState::default() }));
        UpstreamSocket { stream, monitor, _permit: permit }
    }

    /// Makes closing the socket reset the connection.
    pub(super) fn set_zero_linger(&self) -> io::Result<()> {
        match &self.stream {
            SocketStream::Plain(stream) => stream.set_zero_linger(),
            SocketStream::Tls(stream) => stream.get_ref().0.set_zero_linger(),
        }
    }

    /// The socket of a connection without TLS.
    pub(super) fn plain_socket(&self) -> Option<&TcpStream> {
        match &self.stream {
            SocketStream::Plain(stream) => Some(stream),
            SocketStream::Tls(_) => None,
        }
    }

    /// Whether bytes or the end of the connection have arrived, of which the runtime may not know yet. Takes a system
    /// call.
    pub(super) fn has_received(&self) -> bool {
        let socket = match &self.stream {
            SocketStream::Plain(stream) => stream,
            SocketStream::Tls(stream) => stream.get_ref().0,
        };
        recv(socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT).err() != Some(Errno::AGAIN)
    }

    pub(super) fn monitor(&self) -> &ResponseMonitor {
        &self.monitor
    }
}

/// What the socket knows of the response to the last request.
#[derive(Clone, Debug)]
pub(super) struct ResponseMonitor(Arc<ResponseState>);

#[derive(Debug, Default)]
struct ResponseState {
    /// The TLS server name. It is stored here because every request already references a [`ResponseMonitor`].
    server_name: Option<UpstreamServerName>,
    /// The endpoint has sent data since the last request.
    has_data: AtomicBool,
    /// An earlier request on this connection got a response.
    has_responded: AtomicBool,
    /// The endpoint has sent a TLS alert.
    has_alert: AtomicBool,
    /// A request was begun and is not finished.
    in_progress: AtomicBool,
}

impl ResponseMonitor {
    pub(super) fn server_name(&self) -> Option<&UpstreamServerName> {
        self.0.server_name.as_ref()
    }

    pub(super) fn start_request(&self) {
        if self.0.has_data.swap(false, Relaxed) {
            self.0.has_responded.store(true, Relaxed);
        }
        self.0.in_progress.store(true, Relaxed);
    }

    /// The response is complete, or the connection is a tunnel from now on.
    pub(super) fn finish_request(&self) {
        self.0.in_progress.store(false, Relaxed);
    }

    pub(super) fn has_response_data(&self) -> bool {
        self.0.has_data.load(Relaxed)
    }

    /// Whether the endpoint sent a TLS alert after the handshake and before its first response.
    pub(super) fn was_rejected(&self) -> bool {
        self.0.has_alert.load(Relaxed) && !self.0.has_responded.load(Relaxed)
    }
}

/// Resets the connection if a request on it was abandoned. An orderly end would keep its local port in TIME_WAIT for a
/// minute: clients that begin requests and abandon them could use up all ports, and the search for a free one would use
/// up the CPU.
impl Drop for UpstreamSocket {
    fn drop(&mut self) {
        if self.monitor.0.in_progress.load(Relaxed) {
            // If the socket option cannot be set, the connection ends in order.
            drop(self.set_zero_linger());
        }
    }
}

impl AsyncRead for UpstreamSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let length_before = buffer.filled().len();
        let result = match &mut self.stream {
            SocketStream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            SocketStream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        // With TLS, only application data counts: tickets and the like are not part of a response.
        if buffer.filled().len() > length_before {
            self.monitor.0.has_data.store(true, Relaxed);
        } else if matches!(result, Poll::Ready(Ok(()))) {
            // The endpoint has closed first, so the port that waits is its own.
            self.monitor.finish_request();
        }
        if let Poll::Ready(Err(error)) = &result
            && is_alert(error)
        {
            self.monitor.0.has_alert.store(true, Relaxed);
        }
        result
    }
}

impl AsyncWrite for UpstreamSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            SocketStream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            SocketStream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            SocketStream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            SocketStream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            SocketStream::Plain(stream) => stream.is_write_vectored(),
            SocketStream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            SocketStream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            SocketStream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            SocketStream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            SocketStream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
