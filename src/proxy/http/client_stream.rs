//! The socket of a client: records reads and writes for the timeouts, checks the framing of HTTP/1 requests, and joins
//! their small chunks.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::activity::ActivityPhase;
use super::chunk_joining::check_and_join;
use super::client_connection::Peer;
use super::guard::FramingGuard;
use crate::proxy::connection::protocol_detection::{DetectedProtocol, ProtocolDetector};
use crate::proxy::connection::transport::Transport;
use crate::proxy::http1_codec::Http1Codec;

/// Wraps the client's transport: records activity and passes all HTTP/1 bytes through the framing guard.
pub(in crate::proxy) struct ClientStream {
    stream: Transport,
    protocol_detector: ProtocolDetector,
    /// Checks what hyper reads. Portico's own codec needs no guard.
    guard: Option<Box<FramingGuard>>,
    /// hyper has begun to write its own error response. It is discarded, because Portico writes one instead.
    discards_writes: bool,
    peer: Rc<Peer>,
}

impl ClientStream {
    pub(in crate::proxy) fn new(stream: Transport, peer: Rc<Peer>) -> Self {
        let has_guard = peer.worker().limits.http1_codec == Http1Codec::Hyper;
        ClientStream {
            stream,
            protocol_detector: ProtocolDetector::default(),
            guard: has_guard.then(Box::default),
            discards_writes: false,
            peer,
        }
    }

    /// Allows writes again, for Portico's error response.
    pub(in crate::proxy) fn begin_error_response(&mut self) {
        self.discards_writes = false;
        self.peer.activity.responses_flushed.set(false);
        self.peer.activity.enter_phase(ActivityPhase::SendingResponse, Instant::now());
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

    /// Whether to discard writes, because they do not belong to a response to a request.
    fn must_discard_write(&mut self) -> bool {
        self.discards_writes |= self.peer.activity.responses_flushed.get();
        self.discards_writes
    }

    /// Records a write on HTTP/1. HTTP/2 streams and tunnels record their own activity.
    fn record_write(&self) {
        if self.peer.activity.is_http1() {
            self.peer.activity.record_write();
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
                this.peer.activity.record_read();
            }
            if ready!(detected)? == DetectedProtocol::Http2 {
                this.peer.activity.http2.set(true);
                // Otherwise all writes would be discarded: the flag is not maintained on HTTP/2.
                this.peer.activity.responses_flushed.set(false);
            }
        }
        if !this.peer.activity.is_http1() {
            return Poll::Ready(Ok(()));
        }
        let read = &mut buffer.filled_mut()[before..];
        if !read.is_empty() {
            self.peer.activity.record_read();
            let this = &mut *self;
            if let Some(guard) = &mut this.guard {
                let (length, rejection) = check_and_join(guard, read);
                buffer.set_filled(before + length);
                if let Some(rejection) = rejection {
                    this.peer.activity.guard_rejection.set(Some(rejection));
                }
                this.peer.activity.complete_requests.set(guard.complete_requests());
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.must_discard_write() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.record_write();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.must_discard_write() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.record_write();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.peer.activity.record_flush();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper shuts down after its own error response, but Portico's is still to be written.
        if self.discards_writes || self.peer.activity.reset_on_close.get() {
            return Poll::Ready(Ok(()));
        }
        self.peer.activity.shutdown_begun.set(true);
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.peer.activity.reset_on_close.get() {
            // If the socket option cannot be set, the connection closes without a reset.
            drop(self.stream.socket().set_zero_linger());
        }
    }
}
