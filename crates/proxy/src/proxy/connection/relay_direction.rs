//! One direction of a relay. Bytes are read into a buffer that all relays of a thread share, and are written from
//! there: an idle relay has no buffer, and a large buffer needs few system calls. Only bytes that the target does not
//! take at once are kept in a buffer of the direction.
//!
//! If the source has filled the buffer, and both sides are sockets without TLS, its next bytes are spliced.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::splice::SplicePipe;

/// One side of a relay, whose bytes can be spliced if it is a socket without TLS.
pub(in crate::proxy) trait RelaySide: AsyncRead + AsyncWrite + Unpin {
    /// The socket, if no bytes of it were received and not yet read.
    fn plain_socket(&self) -> Option<&TcpStream>;

    /// Records that bytes were spliced from this side, or could not be.
    fn record_spliced_read(&mut self, outcome: &io::Result<usize>);

    /// Records that bytes were spliced to this side, or could not be.
    fn record_spliced_write(&mut self, outcome: &io::Result<usize>);
}

#[derive(Debug, Default)]
pub(super) struct RelayDirection {
    state: DirectionState,
    /// Whether the source sends so much at a time that its bytes are spliced.
    is_bulk: bool,
    /// What the next bytes are spliced through. An idle direction has none.
    pipe: Option<SplicePipe>,
    /// Bytes that were read and are not yet written, at most as many as the shared buffer has.
    rest: Bytes,
    /// Bytes were written since the last flush.
    needs_flush: bool,
    /// Reading the source has failed.
    has_source_failed: bool,
}

#[derive(Debug, Default)]
enum DirectionState {
    #[default]
    Copying,
    /// The source has ended.
    ShuttingDown,
    Completed,
}

impl RelayDirection {
    /// Copies bytes until the source has ended, and then shuts the target down. The source is read only when the target
    /// has taken all previous bytes.
    pub(super) fn poll<S, T>(&mut self, source: &mut S, target: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: RelaySide,
        T: RelaySide,
    {
        if let DirectionState::Copying = self.state {
            ready!(self.poll_copy(source, target, cx))?;
            self.state = DirectionState::ShuttingDown;
        }
        if let DirectionState::ShuttingDown = self.state {
            ready!(Pin::new(target).poll_shutdown(cx))?;
            self.state = DirectionState::Completed;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether an error of this direction is one of its source. Otherwise it is one of its target.
    pub(super) fn has_source_failed(&self) -> bool {
        self.has_source_failed
    }

    /// Like [`RelayDirection::poll`], but the target is not shut down: the source has failed as the target of the other
    /// direction, so its end is not that of a complete transfer.
    pub(super) fn poll_rest<S, T>(
        &mut self,
        source: &mut S,
        target: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>>
    where
        S: RelaySide,
        T: RelaySide,
    {
        if let DirectionState::Copying = self.state {
            ready!(self.poll_copy(source, target, cx))?;
        }
        Pin::new(target).poll_flush(cx)
    }

    /// Ready when the source has ended and the target has all its bytes.
    fn poll_copy<S, T>(&mut self, source: &mut S, target: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: RelaySide,
        T: RelaySide,
    {
        ready!(self.poll_drain_pipe(target, cx))?;
        while !self.rest.is_empty() {
            let written = ready!(poll_write(target, &self.rest, cx))?;
            self.rest.advance(written);
        }
        // Releases the memory.
        self.rest = Bytes::new();
        for _ in 0..MAX_READS_PER_TURN {
            let moved = match self.poll_splice_once(source, target, cx) {
                Some(moved) => moved,
                None => with_shared_buffer(|buffer| self.poll_copy_once(source, target, buffer, cx)),
            };
            match moved {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) if self.holds_bytes() => return Poll::Pending,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.needs_flush {
                        ready!(Pin::new(target).poll_flush(cx))?;
                        self.needs_flush = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the target has not taken all bytes of the source.
    fn holds_bytes(&self) -> bool {
        !self.rest.is_empty() || self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty())
    }

    /// Moves bytes once without reading them. Returns their number; what the target does not take is in `pipe`. `None`
    /// if the bytes are to be copied instead.
    fn poll_splice_once<S, T>(
        &mut self,
        source: &mut S,
        target: &mut T,
        cx: &mut Context<'_>,
    ) -> Option<Poll<io::Result<usize>>>
    where
        S: RelaySide,
        T: RelaySide,
    {
        target.plain_socket().filter(|_| self.is_bulk)?;
        let socket = source.plain_socket()?;
        if self.pipe.is_none() {
            self.pipe = SplicePipe::acquire();
        }
        let Poll::Ready(moved) = self.pipe.as_mut()?.poll_fill(socket, cx) else {
            self.pipe = None;
            return Some(Poll::Pending);
        };
        source.record_spliced_read(&moved);
        let length = match moved {
            Ok(length @ 1..) => length,
            ended => {
                self.pipe = None;
                self.has_source_failed = ended.is_err();
                return Some(Poll::Ready(ended));
            }
        };
        self.is_bulk = length >= MIN_SPLICED;
        Some(match self.poll_drain_pipe(target, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(length)),
        })
    }

    /// Ready when the target has all bytes of the pipe.
    fn poll_drain_pipe<T: RelaySide>(&mut self, target: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| !pipe.is_empty()) {
            // Only bytes for such a socket are spliced.
            let Some(socket) = target.plain_socket() else {
                return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
            };
            let moved = ready!(pipe.poll_drain(socket, cx));
            target.record_spliced_write(&moved);
            moved?;
        }
        if !self.is_bulk {
            self.pipe = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what was read. Returns the number of bytes; what the target does not take is in `rest`.
    fn poll_copy_once<S, T>(
        &mut self,
        source: &mut S,
        target: &mut T,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(source).poll_read(cx, &mut buffer)).inspect_err(|_| self.has_source_failed = true)?;
        let length = buffer.filled().len();
        self.is_bulk = length == SHARED_BUFFER_SIZE;
        let mut unwritten = buffer.filled();
        while !unwritten.is_empty() {
            self.needs_flush = true;
            match poll_write(target, unwritten, cx) {
                Poll::Ready(written) => unwritten = &unwritten[written?..],
                Poll::Pending => {
                    self.rest = Bytes::copy_from_slice(unwritten);
                    break;
                }
            }
        }
        Poll::Ready(Ok(length))
    }
}

fn poll_write<T: AsyncWrite + Unpin>(target: &mut T, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(target).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(Ok(written)),
    }
}

/// Calls the function with the buffer of this thread.
fn with_shared_buffer<R>(copy: impl FnOnce(&mut [u8]) -> R) -> R {
    thread_local! {
        static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    }
    let mut buffer = BUFFER.take().unwrap_or_else(|| vec![0; SHARED_BUFFER_SIZE].into());
    let result = copy(&mut buffer);
    BUFFER.set(Some(buffer));
    result
}

/// In bytes. A message of 64 kB needs two reads.
const SHARED_BUFFER_SIZE: usize = 64 * 1024;
/// Fewer bytes are copied faster than spliced.
const MIN_SPLICED: usize = 16 * 1024;
/// After so many reads, other connections of the thread get their turn.
const MAX_READS_PER_TURN: usize = 4;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpListener;

    use super::*;

    impl RelaySide for DuplexStream {
        fn plain_socket(&self) -> Option<&TcpStream> {
            None
        }

        fn record_spliced_read(&mut self, _: &io::Result<usize>) {}

        fn record_spliced_write(&mut self, _: &io::Result<usize>) {}
    }

    /// A socket that counts spliced bytes.
    struct Socket {
        stream: TcpStream,
        spliced_from: usize,
        spliced_to: usize,
    }

    impl Socket {
        /// Both ends of a connection.
        async fn pair() -> (Socket, TcpStream) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let connecting = TcpStream::connect(listener.local_addr().unwrap());
            let (client, accepted) = tokio::join!(connecting, listener.accept());
            (Socket { stream: accepted.unwrap().0, spliced_from: 0, spliced_to: 0 }, client.unwrap())
        }
    }

    impl RelaySide for Socket {
        fn plain_socket(&self) -> Option<&TcpStream> {
            Some(&self.stream)
        }

        fn record_spliced_read(&mut self, outcome: &io::Result<usize>) {
            self.spliced_from += outcome.as_ref().unwrap();
        }

        fn record_spliced_write(&mut self, outcome: &io::Result<usize>) {
            self.spliced_to += outcome.as_ref().unwrap_or(&0);
        }
    }

    impl AsyncRead for Socket {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Socket {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }

    fn block_on_io<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap().block_on(future)
    }

    /// More than the buffers of the sockets and the pipe hold, of a reader that waits now and then.
    #[test]
    fn bulk_is_spliced_in_order_to_its_end() {
        block_on_io(async {
            let (mut source, mut client) = Socket::pair().await;
            let (mut target, mut endpoint) = Socket::pair().await;
            let sent: Vec<u8> = (0..20_000_000_u32).map(|index| (index % 251) as u8).collect();
            let write = async {
                client.write_all(&sent).await.unwrap();
                client.shutdown().await.unwrap();
            };
            let read = async {
                let (mut received, mut part) = (Vec::new(), vec![0; 100_000]);
                while let length @ 1.. = endpoint.read(&mut part).await.unwrap() {
                    received.extend_from_slice(&part[..length]);
                    tokio::task::yield_now().await;
                }
                received
            };
            let mut direction = RelayDirection::default();
            let ((), (), received) = tokio::join!(write, copy(&mut direction, &mut source, &mut target), read);
            assert!(received == sent, "the bytes differ");
            assert!(direction.pipe.is_none() && direction.rest.is_empty());
            assert_eq!(source.spliced_from, target.spliced_to);
            assert!(source.spliced_from > sent.len() / 2, "{} bytes were spliced", source.spliced_from);
        });
    }

    #[test]
    fn short_messages_are_copied() {
        block_on_io(async {
            let (mut source, mut client) = Socket::pair().await;
            let (mut target, mut endpoint) = Socket::pair().await;
            let exchange = async {
                for _ in 0..10 {
                    client.write_all(&[b'a'; 1000]).await.unwrap();
                    endpoint.read_exact(&mut [0; 1000]).await.unwrap();
                }
                drop(client);
            };
            let mut direction = RelayDirection::default();
            tokio::join!(exchange, copy(&mut direction, &mut source, &mut target));
            assert_eq!((source.spliced_from, target.spliced_to), (0, 0));
        });
    }

    /// The end of the target is an error, whether its bytes are in the pipe or not.
    #[test]
    fn closed_target_ends_splicing() {
        block_on_io(async {
            let (mut source, mut client) = Socket::pair().await;
            let (mut target, endpoint) = Socket::pair().await;
            let write = async { while client.write_all(&[b'a'; 100_000]).await.is_ok() {} };
            let mut direction = RelayDirection::default();
            let relay = async {
                let outcome = poll_fn(|cx| direction.poll(&mut source, &mut target, cx)).await;
                drop(source);
                outcome
            };
            let close = async {
                endpoint.readable().await.unwrap();
                endpoint.set_zero_linger().unwrap();
                drop(endpoint);
            };
            let ((), outcome, ()) = tokio::join!(write, relay, close);
            assert!(outcome.is_err());
        });
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    async fn copy(direction: &mut RelayDirection, source: &mut impl RelaySide, target: &mut impl RelaySide) {
        poll_fn(|cx| direction.poll(source, target, cx)).await.unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Whatever the sizes of writes and of the buffers between them, all bytes arrive in order, and then the end.
        #[test]
        fn all_bytes_arrive_in_order(
            writes in prop::collection::vec(1_usize..200_000, 0..8),
            capacities in (1_usize..100_000, 1_usize..100_000),
        ) {
            block_on(async {
                let (mut client, mut source) = duplex(capacities.0);
                let (mut target, mut endpoint) = duplex(capacities.1);
                let sent: Vec<u8> = (0..writes.iter().sum::<usize>()).map(|index| (index % 251) as u8).collect();
                let mut received = Vec::new();
                let mut direction = RelayDirection::default();
                let write = async {
                    let mut rest = &sent[..];
                    for length in &writes {
                        let (now, later) = rest.split_at(*length);
                        client.write_all(now).await.unwrap();
                        rest = later;
                    }
                    client.shutdown().await.unwrap();
                };
                let ((), (), read) = tokio::join!(
                    write,
                    copy(&mut direction, &mut source, &mut target),
                    endpoint.read_to_end(&mut received)
                );
                assert_eq!(read.unwrap(), sent.len());
                assert!(received == sent, "the bytes differ");
                assert!(direction.rest.is_empty());
            });
        }
    }

    #[test]
    fn source_waits_until_target_has_taken_all_bytes() {
        block_on(async {
            let (mut client, mut source) = duplex(1 << 20);
            let (mut target, mut endpoint) = duplex(10);
            client.write_all(&[b'a'; 300_000]).await.unwrap();
            let mut direction = RelayDirection::default();
            for _ in 0..3 {
                let polled = poll_fn(|cx| Poll::Ready(direction.poll(&mut source, &mut target, cx))).await;
                assert!(polled.is_pending());
                assert_eq!(direction.rest.len(), SHARED_BUFFER_SIZE - 10);
            }
            endpoint.read_exact(&mut [0; 10]).await.unwrap();
            let polled = poll_fn(|cx| Poll::Ready(direction.poll(&mut source, &mut target, cx))).await;
            assert!(polled.is_pending());
            assert_eq!(direction.rest.len(), SHARED_BUFFER_SIZE - 20);
        });
    }

    #[test]
    fn fast_source_lets_other_connections_have_their_turn() {
        block_on(async {
            let (mut client, mut source) = duplex(1 << 20);
            let (mut target, mut endpoint) = duplex(1 << 20);
            client.write_all(&vec![b'a'; 1 << 20]).await.unwrap();
            let mut direction = RelayDirection::default();
            let polled = poll_fn(|cx| Poll::Ready(direction.poll(&mut source, &mut target, cx))).await;
            assert!(polled.is_pending());
            drop(target);
            let mut received = Vec::new();
            endpoint.read_to_end(&mut received).await.unwrap();
            assert_eq!(received.len(), MAX_READS_PER_TURN * SHARED_BUFFER_SIZE);
        });
    }

    #[test]
    fn failed_write_is_reported() {
        block_on(async {
            let (mut client, mut source) = duplex(100);
            let (mut target, endpoint) = duplex(100);
            drop(endpoint);
            client.write_all(b"a").await.unwrap();
            let mut direction = RelayDirection::default();
            let outcome = poll_fn(|cx| direction.poll(&mut source, &mut target, cx)).await;
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        });
    }
}
