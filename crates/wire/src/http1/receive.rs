//! Reads from a stream into the buffer of a connection.

use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

thread_local! {
    /// Two, so that one is free while a connection still sends what it has received into the other. The second one is
    /// allocated when it is needed.
    static RECEIVED: RefCell<[BytesMut; 2]> =
        RefCell::new([BytesMut::with_capacity(MAX_RECEIVED), BytesMut::new()]);
    /// Memory for small messages of all connections of the thread.
    static SHARED: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(SHARED_LENGTH));
}

/// What probably arrives next. It decides how much is read, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextInput {
    Unknown,
    /// So many bytes.
    Length(usize),
    /// Mostly framing, which takes long to decode.
    SmallChunks,
}

/// Appends what has arrived to `buffer`, up to 128 KiB, and returns its length: 0 at the end of the stream. A
/// connection that waits needs no memory, since the bytes are read into memory of the thread first. If they fill half
/// of it, they are not copied, and the thread uses the memory again as soon as the connection has released them. If
/// fewer are expected, but many, they are read in place.
pub fn poll_receive(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    expected: NextInput,
) -> Poll<io::Result<usize>> {
    if buffer.is_empty() {
        // Releases the memory of what was read before: others may still refer to it.
        *buffer = BytesMut::new();
        if let NextInput::Length(expected @ LARGE..HALF) = expected {
            return poll_receive_in_place(stream, cx, buffer, expected);
        }
    }
    let limit = if let NextInput::SmallChunks = expected { MAX_SMALL_CHUNKS } else { MAX_RECEIVED };
    RECEIVED.with_borrow_mut(|buffers| {
        let received = unused_buffer(buffers);
        let length = ready!(pin!(stream.read_buf(&mut received.limit(limit))).poll(cx))?;
        if !buffer.is_empty() {
            buffer.extend_from_slice(received);
        } else if length <= SMALL {
            *buffer = SHARED.with_borrow_mut(|shared| {
                shared.extend_from_slice(received);
                shared.split()
            });
        } else if length < HALF {
            buffer.extend_from_slice(received);
        } else {
            *buffer = received.split();
        }
        Poll::Ready(Ok(length))
    })
}

/// The first buffer to which no connection refers, emptied. If both are in use, the second is replaced.
#[inline]
fn unused_buffer([first, second]: &mut [BytesMut; 2]) -> &mut BytesMut {
    let is_unused = |buffer: &mut BytesMut| {
        buffer.clear();
        buffer.try_reclaim(MAX_RECEIVED)
    };
    if is_unused(first) {
        return first;
    }
    if !is_unused(second) {
        *second = BytesMut::with_capacity(MAX_RECEIVED);
    }
    second
}

fn poll_receive_in_place(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    expected: usize,
) -> Poll<io::Result<usize>> {
    buffer.reserve(expected);
    let polled = pin!(stream.read_buf(buffer)).poll(cx);
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
    polled
}

/// Enough for a response of 100 kB with its head.
const MAX_RECEIVED: usize = 128 * 1024;
/// From here on, bytes are not copied, although they keep the rest of the memory allocated.
const HALF: usize = MAX_RECEIVED / 2;
/// Small chunks that are read at once, so that others need not wait long while they are decoded.
const MAX_SMALL_CHUNKS: usize = 8 * 1024;
/// Larger messages get memory of their own.
const SMALL: usize = 1024;
/// What a small message may keep allocated as long as something refers to it.
const SHARED_LENGTH: usize = 8 * 1024;
/// From here on, copying costs more than memory of the connection's own.
const LARGE: usize = 16 * 1024;
