//! A stream that accepts odd amounts of bytes, is not always ready, and may fail.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

pub(super) struct OddStream<'i> {
    pattern: &'i [u8],
    next: usize,
    was_pending: bool,
    is_flushed: bool,
    pub(super) received: Vec<u8>,
}

impl<'i> OddStream<'i> {
    /// The bytes of the pattern say in turn what a write does. A digit: accepts an amount that it stands for; `-`: not
    /// ready; `x`: fails; `z`: accepts nothing. Others have no meaning, and without a pattern all is accepted.
    pub(super) fn new(pattern: &'i [u8]) -> Self {
        OddStream { pattern, next: 0, was_pending: false, is_flushed: true, received: Vec::new() }
    }

    /// Whether all bytes were flushed after they were received.
    pub(super) fn is_flushed(&self) -> bool {
        self.is_flushed
    }

    /// How many bytes are accepted now. Pending at most once in sequence.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        for _ in 0..self.pattern.len() {
            let byte = self.pattern[self.next % self.pattern.len()];
            self.next += 1;
            match byte {
                b'9' => break,
                b'0'..=b'8' => {
                    self.was_pending = false;
                    return Poll::Ready(Ok(1 + usize::from(byte - b'0').pow(4)));
                }
                b'-' => return self.pending_once(cx).map(|()| Ok(1)),
                b'x' => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                b'z' => return Poll::Ready(Ok(0)),
                _ => {}
            }
        }
        self.was_pending = false;
        Poll::Ready(Ok(usize::MAX))
    }

    fn pending_once(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.was_pending = !self.was_pending;
        if self.was_pending {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl AsyncWrite for OddStream<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        assert!(slices.iter().any(|slice| !slice.is_empty()), "a write has bytes");
        let accepted = std::task::ready!(self.poll_accept(cx))?;
        let mut remaining = accepted;
        for slice in slices {
            let length = slice.len().min(remaining);
            self.received.extend_from_slice(&slice[..length]);
            remaining -= length;
        }
        self.is_flushed = false;
        Poll::Ready(Ok(accepted - remaining))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pattern.contains(&b'f') {
            std::task::ready!(self.pending_once(cx));
        }
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
