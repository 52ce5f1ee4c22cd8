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
    // The side to which writing has failed. What it sent before it closed is still forwarded.
    let mut ending: Option<EndingSide> = None;
    let mut timer = pin!(sleep_until(idle_deadline()));
    let mut grace_deadline = None;
    poll_fn(|cx| {
        registration.set_waker(cx.waker());
        if connections.is_aborted() {
            return Poll::Ready(RelayEnd::ListenerClosed);
        }
        if ending.is_none() {
            let forwarded = to_endpoint.poll(client, endpoint, cx);
            let returned = to_client.poll(endpoint, client, cx);
            let read_until = || Instant::now() + MAX_READ_AFTER_FAILED_WRITE;
            match (forwarded, returned) {
                (Poll::Ready(Err(_)), Poll::Pending) if !to_endpoint.has_source_failed() => {
                    ending = Some(EndingSide::Endpoint { read_until: read_until() });
                }
                (Poll::Pending, Poll::Ready(Err(_))) if !to_client.has_source_failed() => {
                    ending = Some(EndingSide::Client { read_until: read_until() });
                }
                (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(RelayEnd::Failed),
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(RelayEnd::Completed),
                _ => {}
            }
        }
        let end_deadline = match ending {
            None => None,
            Some(EndingSide::Endpoint { read_until }) => {
                if to_client.poll_rest(endpoint, client, cx).is_ready() {
                    return Poll::Ready(RelayEnd::Failed);
                }
                Some(read_until)
            }
            Some(EndingSide::Client { read_until }) => {
                if to_endpoint.poll_rest(client, endpoint, cx).is_ready() {
                    return Poll::Ready(RelayEnd::Failed);
                }
                Some(read_until)
            }
        };
        if grace_deadline.is_none() && connections.is_closing() {
            grace_deadline = closing_grace.map(|grace| Instant::now() + grace);
        }
        let removed_deadline =
            removed_endpoint_grace.and_then(|grace| Some(registration.endpoint_removed_at()? + grace));
        loop {
            let idle_deadline = idle_deadline();
            let deadlines = [grace_deadline, removed_deadline, end_deadline];
            let deadline = deadlines.into_iter().flatten().fold(idle_deadline, Instant::min);
            ready!(poll_until(deadline, Pin::as_mut(&mut timer), cx));
            let now = Instant::now();
            if end_deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(RelayEnd::Failed);
            }
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

/// A side that takes no more bytes. It may have sent some before, such as an error to a client that is still sending,
/// which were received or will be. The relay ends when it has none left.
enum EndingSide {
    Client { read_until: Instant },
    Endpoint { read_until: Instant },
}

/// How long a relay reads from a side after writing to it has failed. The operating system reports its end soon after
/// the failure, so only a side that takes long to read the rest needs more.
const MAX_READ_AFTER_FAILED_WRITE: Duration = Duration::from_secs(5);

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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::bind_address::BindAddress;

    /// A side that takes no bytes. It has sent some before it closed, of which the system notifies after the first
    /// read.
    struct Closed {
        is_notified: bool,
        sent: VecDeque<u8>,
    }

    /// A side that has sent a byte and waits, and what it has received.
    struct Waiting {
        sent: Option<u8>,
        received: Vec<u8>,
    }

    impl AsyncRead for Closed {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if !std::mem::replace(&mut self.is_notified, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            buffer.put_slice(self.sent.make_contiguous());
            self.sent.clear();
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncRead for Waiting {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let Some(byte) = self.sent.take() else { return Poll::Pending };
            buffer.put_slice(&[byte]);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Closed {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Waiting {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.received.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            panic!("the transfer is not complete");
        }
    }

    async fn run<C, E>(client: C, endpoint: E) -> (RelayEnd, C, E)
    where
        C: AsyncRead + AsyncWrite + Unpin,
        E: AsyncRead + AsyncWrite + Unpin,
    {
        let connections = ListenerConnections::new(BindAddress::tcp(([127, 0, 0, 1], 80).into()));
        let mut registration = connections.register();
        let (bytes_in, bytes_out) = (Cell::new(0), Cell::new(0));
        let mut client = CountedStream::new(client, &bytes_in, || {});
        let mut endpoint = CountedStream::new(endpoint, &bytes_out, || {});
        let idle = Instant::now() + Duration::from_secs(3600);
        let limits = RelayLimits { idle_deadline: || idle, closing_grace: None, removed_endpoint_grace: None };
        let end = relay(&mut client, &mut endpoint, &connections, &mut registration, limits).await;
        (end, client.into_inner(), endpoint.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_of_an_endpoint_that_was_reset_reach_the_client() {
        let waiting = || Waiting { sent: Some(b'x'), received: Vec::new() };
        let closed = || Closed { is_notified: false, sent: b"sorry".to_vec().into() };
        let begin = Instant::now();
        let (end, client, _) = run(waiting(), closed()).await;
        assert_eq!((end, &client.received[..]), (RelayEnd::Failed, &b"sorry"[..]));
        let (end, _, endpoint) = run(closed(), waiting()).await;
        assert_eq!((end, &endpoint.received[..]), (RelayEnd::Failed, &b"sorry"[..]), "of a client");
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn relay_ends_if_nothing_follows_a_failed_write() {
        /// Takes no bytes, and never reports its end.
        struct Stuck;
        impl AsyncRead for Stuck {
            fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                Poll::Pending
            }
        }
        impl AsyncWrite for Stuck {
            fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        let begin = Instant::now();
        let (end, _, _) = run(Waiting { sent: Some(b'x'), received: Vec::new() }, Stuck).await;
        assert_eq!((end, begin.elapsed().as_secs()), (RelayEnd::Failed, MAX_READ_AFTER_FAILED_WRITE.as_secs()));
    }
}
