//! A socket to an endpoint, in TLS or not, with its place among those that the process may have, which it gives back when it is
//! closed. It notes whether the endpoint says anything.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::client::TlsStream;

use super::tls::{Name, is_refusal};

/// What it is used for does not matter: a tunnel that it has become holds the place like a request does.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    heard: Heard,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    pub(super) fn new(stream: Stream, place: OwnedSemaphorePermit, name: Option<Name>) -> Self {
        let heard = Heard(Arc::new(Said { name, ..Said::default() }));
        Socket { stream, heard, _place: place }
    }

    pub(super) fn heard(&self) -> Heard {
        self.heard.clone()
    }
}

/// Whether the endpoint has said anything since it was asked. hyper does not tell half a status line from none.
#[derive(Clone, Debug)]
pub(super) struct Heard(Arc<Said>);

#[derive(Debug, Default)]
struct Said {
    /// In TLS, the name that the endpoint was asked for. It is here because every request holds a `Heard` as it is.
    name: Option<Name>,
    anything: AtomicBool,
    /// Something was answered before.
    answered: AtomicBool,
    alert: AtomicBool,
}

impl Heard {
    pub(super) fn name(&self) -> Option<&Name> {
        self.0.name.as_ref()
    }

    pub(super) fn ask(&self) {
        if self.0.anything.swap(false, Relaxed) {
            self.0.answered.store(true, Relaxed);
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.anything.load(Relaxed)
    }

    /// Whether the endpoint ended TLS with an alert after hands were shaken, and has never answered anything.
    pub(super) fn was_refused(&self) -> bool {
        self.0.alert.load(Relaxed) && !self.0.answered.load(Relaxed)
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let state = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        // Of TLS what is said within it: tickets and the like are no answer.
        if buffer.filled().len() > before {
            self.heard.0.anything.store(true, Relaxed);
        }
        if let Poll::Ready(Err(error)) = &state
            && is_refusal(error)
        {
            self.heard.0.alert.store(true, Relaxed);
        }
        state
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
