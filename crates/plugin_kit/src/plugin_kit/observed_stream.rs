//! A connection that notes how many bytes were sent and received. Errors of the HTTP client do not say whether a server
//! has got a part of a request, or sent a part of a response.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::plugin_api::remote::RemoteStream;

/// The stream. Reads and writes are those of the stream within.
pub(super) struct ObservedStream {
    stream: Box<dyn RemoteStream>,
    traffic: Arc<Traffic>,
}

/// The bytes of a connection, within TLS.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

/// The bytes until some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TrafficSoFar {
    sent: u64,
    received: u64,
}

impl Traffic {
    pub(super) fn so_far(&self) -> TrafficSoFar {
        TrafficSoFar { sent: self.sent.load(Relaxed), received: self.received.load(Relaxed) }
    }
}

impl TrafficSoFar {
    /// Whether a request that has failed may be sent on another connection (RFC 9110, section 9.2.2; RFC 9112, section
    /// 9.3.1). `before`: the bytes before the request. `is_harmless`: whether the server may get it twice.
    pub(super) fn may_repeat(self, before: TrafficSoFar, is_harmless: bool) -> bool {
        self.received == before.received && (is_harmless || self.sent == before.sent)
    }
}

impl ObservedStream {
    pub(super) fn new(stream: Box<dyn RemoteStream>) -> (Self, Arc<Traffic>) {
        let traffic = Arc::<Traffic>::default();
        (ObservedStream { stream, traffic: Arc::clone(&traffic) }, traffic)
    }

    fn note_sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(length)) = &written {
            self.traffic.sent.fetch_add(*length as u64, Relaxed);
        }
        written
    }
}

impl AsyncRead for ObservedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.traffic.received.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        read
    }
}

impl AsyncWrite for ObservedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
