//! One direction of a relay. Bytes are read into a buffer that all relays of a thread share, and are written from
//! there: an idle relay has no buffer, and a large buffer needs few system calls. Only bytes that the target does not
//! take at once are kept in a buffer of the direction.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Debug, Default)]
pub(super) struct RelayDirection {
    state: DirectionState,
    /// Bytes that were read and are not yet written, at most as many as the shared buffer has.
    rest: Bytes,
    /// Bytes were written since the last flush.
    needs_flush: bool,
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
        S: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
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

    /// Ready when the source has ended and the target has all its bytes.
    fn poll_copy<S, T>(&mut self, source: &mut S, target: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        while !self.rest.is_empty() {
            let written = ready!(poll_write(target, &self.rest, cx))?;
            self.rest.advance(written);
        }
        // Releases the memory.
        self.rest = Bytes::new();
        for _ in 0..MAX_READS_PER_TURN {
            match with_shared_buffer(|buffer| self.poll_copy_once(source, target, buffer, cx)) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) if self.rest.is_empty() => {}
                Poll::Ready(Ok(_)) => return Poll::Pending,
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
        ready!(Pin::new(source).poll_read(cx, &mut buffer))?;
        let length = buffer.filled().len();
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
/// After so many reads, other connections of the thread get their turn.
const MAX_READS_PER_TURN: usize = 4;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    async fn copy(
        direction: &mut RelayDirection,
        source: &mut (impl AsyncRead + Unpin),
        target: &mut (impl AsyncWrite + Unpin),
    ) {
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
