//! A socket to an endpoint with its place among those that the process may have, which it gives back when it is closed. It
//! notes whether the endpoint says anything.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// What it is used for does not matter: a tunnel that it has become holds the place like a request does.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    heard: Heard,
    _place: OwnedSemaphorePermit,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Self {
        Socket { stream, heard: Heard::default(), _place: place }
    }

    pub(super) fn heard(&self) -> Heard {
        self.heard.clone()
    }
}

/// Whether the endpoint has said anything since it was asked. hyper does not tell half a status line from none.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<AtomicBool>);

impl Heard {
    pub(super) fn ask(&self) {
        self.0.store(false, Relaxed);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let state = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.heard.0.store(true, Relaxed);
        }
        state
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
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
