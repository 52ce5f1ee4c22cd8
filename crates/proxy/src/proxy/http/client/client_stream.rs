//! The socket of a client: detects its protocol, and records reads and writes for the timeouts.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::connection::protocol_detection::{DetectedProtocol, ProtocolDetector};
use crate::proxy::connection::transport::Transport;
use crate::proxy::http::exchange::client_exchange::ClientExchange;

pub(in crate::proxy) struct ClientStream {
    stream: Transport,
    protocol_detector: ProtocolDetector,
    exchange: Rc<ClientExchange>,
}

impl ClientStream {
    pub(in crate::proxy) fn new(stream: Transport, exchange: Rc<ClientExchange>) -> Self {
        ClientStream { stream, protocol_detector: ProtocolDetector::default(), exchange }
    }

    pub(in crate::proxy) fn has_tls(&self) -> bool {
        matches!(self.stream, Transport::Tls(_))
    }

    /// Whether bytes have arrived, but too few to detect the protocol.
    pub(in crate::proxy) fn holds_bytes(&self) -> bool {
        !self.protocol_detector.is_done() && self.protocol_detector.has_begun()
    }

    /// Ready when something can be read, without a buffer to read into: bytes, the end of the stream or an error. With
    /// TLS the bytes may turn out to be no data.
    pub(in crate::proxy) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stream.has_read_ahead() {
            return Poll::Ready(Ok(()));
        }
        // With TLS, the end of a response may still have to be sent.
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        // The readiness that tokio stores may be out of date, in particular for a new socket.
        self.stream.socket().poll_peek(cx, &mut ReadBuf::new(&mut [0])).map_ok(drop)
    }

    /// Records a write on HTTP/1. HTTP/2 streams and tunnels record their own activity.
    fn record_write(&self) {
        if self.exchange.activity.is_http1() {
            self.exchange.activity.record_write();
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let this = &mut *self;
        if this.protocol_detector.is_done() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        } else {
            let detected = this.protocol_detector.read(&mut this.stream, cx, buffer);
            if this.protocol_detector.has_begun() {
                this.exchange.activity.record_read();
            }
            if ready!(detected)? == DetectedProtocol::Http2 {
                this.exchange.activity.http2.set(true);
            }
        }
        if this.exchange.activity.is_http1() && buffer.filled().len() > before {
            this.exchange.activity.record_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.record_write();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.record_write();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.exchange.activity.reset_on_close.get() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.exchange.activity.reset_on_close.get() {
            // If the socket option cannot be set, the connection closes without a reset.
            drop(self.stream.socket().set_zero_linger());
        }
    }
}
