//! Tracks the last activity of a connection, and fails writes that make no progress and responses that take too long.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::ServerLimits;

/// Time of the last completed read or write.
pub(super) struct LastActivity(Mutex<Instant>);

impl LastActivity {
    pub(super) fn now() -> Self {
        LastActivity(Mutex::new(Instant::now()))
    }

    pub(super) fn get(&self) -> Instant {
        *self.0.lock()
    }

    fn update(&self) {
        *self.0.lock() = Instant::now();
    }
}

/// A stream that records its activity. A write fails if the client accepts no bytes for `write_timeout`, or if a
/// response is not written completely within `response_timeout` after its first blocked write.
pub(super) struct MonitoredStream<S> {
    stream: S,
    last_activity: Arc<LastActivity>,
    write_timeout: Duration,
    response_timeout: Duration,
    /// The earlier of both timeouts, which runs while a write is blocked.
    write_timer: Option<Pin<Box<Sleep>>>,
    /// When the response must be written, if one of its writes was blocked.
    response_deadline: Option<Instant>,
}

impl<S> MonitoredStream<S> {
    pub(super) fn new(stream: S, last_activity: Arc<LastActivity>, limits: ServerLimits) -> Self {
        let ServerLimits { write_timeout, response_timeout, .. } = limits;
        let (write_timer, response_deadline) = (None, None);
        MonitoredStream { stream, last_activity, write_timeout, response_timeout, write_timer, response_deadline }
    }

    /// Records a completed write. Fails a blocked one when a timeout has expired.
    fn after_write(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.last_activity.update();
            self.write_timer = None;
            return written;
        }
        let now = Instant::now();
        let response_deadline = *self.response_deadline.get_or_insert(now + self.response_timeout);
        let deadline = response_deadline.min(now + self.write_timeout);
        let write_timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        ready!(write_timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read the response")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MonitoredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.last_activity.update();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MonitoredStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.after_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.after_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The server flushes when it has written all of a response.
        self.response_deadline = None;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
