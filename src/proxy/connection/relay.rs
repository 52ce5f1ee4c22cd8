//! Copies bytes between a client and an endpoint in both directions: the end of upgraded and of TCP connections.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::listener_connections::{ConnectionRegistration, ListenerConnections};
use super::moving_deadline::poll_until;
use super::relay_direction::{RelayDirection, RelaySide};

/// How a relay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum RelayEnd {
    /// Both sides have closed.
    Completed,
    /// Reading from one side or writing to one side failed.
    Failed,
    /// No bytes were transferred in either direction for too long.
    Idle,
    /// The listener was removed, or the process stops, and the grace period has passed.
    ListenerClosed,
    /// The endpoint was removed from the configuration, and the grace period has passed.
    EndpointRemoved,
}

/// When a relay ends by itself.
pub(in crate::proxy) struct RelayLimits<D> {
    /// Returns when the relay has been idle for too long, as of now.
    pub(in crate::proxy) idle_deadline: D,
    /// Grace period after the listener begins to close. Without one, the relay lasts until the listener aborts it.
    pub(in crate::proxy) closing_grace: Option<Duration>,
    /// Grace period after the endpoint was removed. Without one, that does not end the relay.
    pub(in crate::proxy) removed_endpoint_grace: Option<Duration>,
}

/// Copies bytes until one of the ends of [`RelayEnd`]. When one side ends its direction, the other direction continues.
pub(in crate::proxy) async fn relay<C, E, D>(
    client: &mut C,
    endpoint: &mut E,
    connections: &ListenerConnections,
    registration: &mut ConnectionRegistration,
    limits: RelayLimits<D>,
) -> RelayEnd
where
    C: RelaySide,
    E: RelaySide,
    D: Fn() -> Instant,
{
    let RelayLimits { idle_deadline, closing_grace, removed_endpoint_grace } = limits;
    let (mut to_endpoint, mut to_client) = (RelayDirection::default(), RelayDirection::default());
    let mut timer = pin!(sleep_until(idle_deadline()));
    let mut grace_deadline = None;
    poll_fn(|cx| {
        registration.set_waker(cx.waker());
        if connections.is_aborted() {
            return Poll::Ready(RelayEnd::ListenerClosed);
        }
        match (to_endpoint.poll(client, endpoint, cx), to_client.poll(endpoint, client, cx)) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(RelayEnd::Failed),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(RelayEnd::Completed),
            _ => {}
        }
        if grace_deadline.is_none() && connections.is_closing() {
            grace_deadline = closing_grace.map(|grace| Instant::now() + grace);
        }
        let removed_deadline =
            removed_endpoint_grace.and_then(|grace| Some(registration.endpoint_removed_at()? + grace));
        loop {
            let idle_deadline = idle_deadline();
            let deadline = [grace_deadline, removed_deadline].into_iter().flatten().fold(idle_deadline, Instant::min);
            ready!(poll_until(deadline, Pin::as_mut(&mut timer), cx));
            let now = Instant::now();
            if grace_deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(RelayEnd::ListenerClosed);
            }
            if removed_deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(RelayEnd::EndpointRemoved);
            }
            if idle_deadline <= now {
                return Poll::Ready(RelayEnd::Idle);
            }
        }
    })
    .await
}

/// One side of a relay: counts the bytes read from it, reports progress, and remembers whether it failed.
pub(in crate::proxy) struct CountedStream<'a, S, P> {
    stream: S,
    bytes_read: &'a Cell<u64>,
    /// Called when bytes were read or written.
    on_progress: P,
    /// Finds the socket if the bytes can be spliced.
    plain_socket: fn(&S) -> Option<&TcpStream>,
    has_failed: bool,
}

impl<'a, S, P: Fn()> CountedStream<'a, S, P> {
    pub(in crate::proxy) fn new(stream: S, bytes_read: &'a Cell<u64>, on_progress: P) -> Self {
        CountedStream { stream, bytes_read, on_progress, plain_socket: |_| None, has_failed: false }
    }

    /// Splices bytes from and to the socket that `plain_socket` finds: if there is no TLS, and no bytes were received
    /// that are not yet read.
    pub(in crate::proxy) fn with_socket(self, plain_socket: fn(&S) -> Option<&TcpStream>) -> Self {
        CountedStream { plain_socket, ..self }
    }

    /// Whether an operation on this side failed, as opposed to one on the other side.
    pub(in crate::proxy) fn has_failed(&self) -> bool {
        self.has_failed
    }

    pub(in crate::proxy) fn into_inner(self) -> S {
        self.stream
    }

    fn note<T>(&mut self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.has_failed |= matches!(outcome, Poll::Ready(Err(_)));
        outcome
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, P: Fn() + Unpin> RelaySide for CountedStream<'_, S, P> {
    fn plain_socket(&self) -> Option<&TcpStream> {
        (self.plain_socket)(&self.stream)
    }

    fn record_spliced_read(&mut self, outcome: &io::Result<usize>) {
        match outcome {
            Ok(length) => {
                self.bytes_read.set(self.bytes_read.get() + *length as u64);
                (self.on_progress)();
            }
            Err(_) => self.has_failed = true,
        }
    }

    fn record_spliced_write(&mut self, outcome: &io::Result<usize>) {
        match outcome {
            Ok(_) => (self.on_progress)(),
            Err(_) => self.has_failed = true,
        }
    }
}

impl<S: AsyncRead + Unpin, P: Fn() + Unpin> AsyncRead for CountedStream<'_, S, P> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        ready!(self.note(outcome))?;
        let read = buffer.filled().len() - before;
        self.bytes_read.set(self.bytes_read.get() + read as u64);
        (self.on_progress)();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, P: Fn() + Unpin> AsyncWrite for CountedStream<'_, S, P> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        let written = ready!(self.note(outcome))?;
        (self.on_progress)();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.note(outcome)
    }
}
