//! Reads from a stream into the buffer of a connection.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

thread_local! {
    static RECEIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_RECEIVED].into());
}

/// Appends what has arrived to `buffer`, up to 64 KiB, and returns its length: 0 at the end of the stream. A connection
/// that waits needs no memory, since the bytes are read into memory of the thread first. If many are expected, they are
/// read in place.
pub fn poll_receive(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    expected: usize,
) -> Poll<io::Result<usize>> {
    if buffer.is_empty() {
        // Releases the memory of what was read before: others may still refer to it.
        *buffer = BytesMut::new();
        if expected >= LARGE {
            return poll_receive_in_place(stream, cx, buffer, expected);
        }
    }
    RECEIVED.with_borrow_mut(|memory| {
        let mut received = ReadBuf::new(memory);
        ready!(Pin::new(stream).poll_read(cx, &mut received))?;
        buffer.extend_from_slice(received.filled());
        Poll::Ready(Ok(received.filled().len()))
    })
}

fn poll_receive_in_place(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    expected: usize,
) -> Poll<io::Result<usize>> {
    buffer.reserve(expected.min(MAX_RECEIVED));
    let polled = pin!(stream.read_buf(buffer)).poll(cx);
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
    polled
}

const MAX_RECEIVED: usize = 64 * 1024;
/// From here on, copying costs more than memory of the connection's own.
const LARGE: usize = 16 * 1024;
