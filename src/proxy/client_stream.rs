//! The socket of a client: what comes and goes is noted, and what comes is looked at.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::activity::Phase;
use super::connection::Peer;
use super::guard::Guard;
use super::preface::{Opening, Spoken};
use super::transport::Transport;

/// What carries the client's bytes; it notes when bytes move, and lets none by unseen.
pub(crate) struct ClientStream {
    stream: Transport,
    opening: Opening,
    guard: Guard,
    /// hyper has begun to refuse what it could not read. Its words are not passed on; ours follow.
    muted: bool,
    peer: Rc<Peer>,
}

impl ClientStream {
    pub(crate) fn new(stream: Transport, peer: Rc<Peer>) -> Self {
        ClientStream { stream, opening: Opening::default(), guard: Guard::default(), muted: false, peer }
    }

    /// From now on it is we who write.
    pub(crate) fn unmute(&mut self) {
        self.muted = false;
        self.peer.activity.settled.set(false);
        self.peer.activity.enter(Phase::Answering, Instant::now());
    }

    /// Whether what is written is no answer to a request.
    fn mutes(&mut self) -> bool {
        self.muted |= self.peer.activity.settled.get();
        self.muted
    }

    /// The streams of HTTP/2 and a tunnel know for themselves what moves.
    fn told(&self) {
        if self.peer.activity.is_http1() {
            self.peer.activity.told();
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let this = &mut *self;
        if this.opening.is_over() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        } else {
            let spoken = this.opening.read(&mut this.stream, cx, buffer);
            if this.opening.has_begun() {
                this.peer.activity.heard();
            }
            if ready!(spoken)? == Spoken::Http2 {
                this.peer.activity.http2.set(true);
                this.peer.activity.settled.set(false);
            }
        }
        if !this.peer.activity.is_http1() {
            return Poll::Ready(Ok(()));
        }
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            self.peer.activity.heard();
            if let Some(refusal) = self.guard.read(read) {
                self.peer.activity.refusal.set(Some(refusal));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.mutes() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.told();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.mutes() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.told();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.peer.activity.flushed();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.muted || self.peer.activity.reset.get() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.peer.activity.reset.get() {
            // If the system refuses, the connection ends in the ordinary way, which is all there is to do then.
            drop(self.stream.socket().set_zero_linger());
        }
    }
}
