//! Tracks the last activity of a connection and fails writes that make no progress.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

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

/// A stream that records its activity. A write fails if the client accepts no bytes for `write_timeout`.
pub(super) struct MonitoredStream<S> {
    stream: S,
    last_activity: Arc<LastActivity>,
    write_timeout: Duration,
    /// The write timeout, which runs while a write is blocked.
    write_timer: Option<Pin<Box<Sleep>>>,
}

impl<S> MonitoredStream<S> {
    pub(super) fn new(stream: S, last_activity: Arc<LastActivity>, write_timeout: Duration) -> Self {
        MonitoredStream { stream, last_activity, write_timeout, write_timer: None }
    }

    /// Records a completed write. Fails a blocked one when the write timeout has expired.
    fn after_write(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.last_activity.update();
            self.write_timer = None;
            return written;
        }
        let write_timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(self.write_timeout)));
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
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
