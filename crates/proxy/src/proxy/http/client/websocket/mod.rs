//! WebSockets whose messages have a limit: one side of the relay, which looks at the frames that the side sends.
//!
//! ```text
//!   client ─ LimitedSide ─ frames ─▶ relay ─▶ endpoint      a message is too long:
//!      ▲          │                                           its sender gets a close frame 1009, the other side 1001,
//!      └──────────┴─────── relay ◀─ frames ─ LimitedSide      and both have a few seconds to close
//! ```
//!
//! Bytes are forwarded as they arrive. Of a header that is incomplete, nothing is forwarded until the rest arrives, so
//! that a close frame never follows a part of a frame. What a side sends after its close frame is discarded.

mod close_frame;
mod frames;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use self::close_frame::{CloseFrame, CloseReason};
use self::frames::{FrameScanner, FrameSender, FrameViolation, MAX_HEADER_BYTES, ScannedBytes};
use crate::plugin_api::message_limits::MessageLimits;
use crate::proxy::connection::relay_direction::RelaySide;
use crate::proxy::http::record::request_error::{
    CLIENT_MESSAGE_TOO_LARGE, ENDPOINT_MESSAGE_TOO_LARGE, INVALID_CLIENT_FRAME, INVALID_ENDPOINT_FRAME,
};

/// The first frame that was not forwarded, which both sides of a relay share.
#[derive(Debug, Default)]
pub(super) struct RefusedFrame(Cell<Option<FoundViolation>>);

#[derive(Clone, Copy, Debug)]
struct FoundViolation {
    sender: FrameSender,
    violation: FrameViolation,
}

impl RefusedFrame {
    /// The reason for the log.
    pub(super) fn reason(&self) -> Option<&'static str> {
        let FoundViolation { sender, violation } = self.0.get()?;
        Some(match (sender, violation) {
            (FrameSender::Client, FrameViolation::TooLarge) => CLIENT_MESSAGE_TOO_LARGE,
            (FrameSender::Client, FrameViolation::Invalid) => INVALID_CLIENT_FRAME,
            (FrameSender::Endpoint, FrameViolation::TooLarge) => ENDPOINT_MESSAGE_TOO_LARGE,
            (FrameSender::Endpoint, FrameViolation::Invalid) => INVALID_ENDPOINT_FRAME,
        })
    }
}

/// One side of a relay.
pub(super) struct LimitedSide<'a, S> {
    stream: S,
    /// What this side sends.
    sender: FrameSender,
    scanner: FrameScanner,
    /// The beginning of a header whose rest is still to come.
    held: [u8; MAX_HEADER_BYTES],
    held_length: usize,
    refused: &'a RefusedFrame,
    state: ReadState,
    /// Until when this side may close, or take what is sent to it, as soon as it has to.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// What a read from the side returns.
#[derive(Debug)]
enum ReadState {
    /// The bytes that it sends.
    Forwarding,
    /// Its end, after it has sent a close frame. What it sends until then is discarded.
    Closed,
    /// A close frame for the other side, of which this much was read.
    Closing(CloseFrame, usize),
    /// Its end, when it has closed. What it sends until then is discarded.
    Draining,
    /// The same, but its frames are no longer readable.
    DrainingUnread,
}

impl<'a, S> LimitedSide<'a, S> {
    pub(super) fn client(stream: S, limits: MessageLimits, refused: &'a RefusedFrame) -> Self {
        LimitedSide::new(stream, FrameSender::Client, limits.client.get(), refused)
    }

    pub(super) fn endpoint(stream: S, limits: MessageLimits, refused: &'a RefusedFrame) -> Self {
        LimitedSide::new(stream, FrameSender::Endpoint, limits.endpoint.get(), refused)
    }

    fn new(stream: S, sender: FrameSender, limit: u32, refused: &'a RefusedFrame) -> Self {
        LimitedSide {
            stream,
            sender,
            scanner: FrameScanner::new(sender, limit.into()),
            held: [0; MAX_HEADER_BYTES],
            held_length: 0,
            refused,
            state: ReadState::Forwarding,
            deadline: None,
        }
    }

    /// Begins to close because of a frame of either side. Nothing may follow a close frame that was forwarded.
    fn close(&mut self, refusal: FoundViolation) {
        let reason = match refusal.violation {
            // The frame is for the other side.
            _ if refusal.sender == self.sender => CloseReason::GoingAway,
            FrameViolation::TooLarge => CloseReason::MessageTooBig,
            FrameViolation::Invalid => CloseReason::ProtocolError,
        };
        self.state = match self.scanner.has_closed() {
            true => ReadState::Draining,
            false => ReadState::Closing(CloseFrame::from(self.sender, reason), 0),
        };
        self.scanner.lift_limit();
    }

    /// Takes bytes that are not forwarded any more.
    fn discard(&mut self, bytes: &[u8]) {
        if matches!(self.state, ReadState::DrainingUnread) {
            return;
        }
        let ScannedBytes { forwardable, result } = self.scanner.scan(bytes);
        match result {
            Ok(()) if self.scanner.has_ended() => {}
            Ok(()) => self.hold(&bytes[forwardable..]),
            Err(_) if matches!(self.state, ReadState::Draining) => self.state = ReadState::DrainingUnread,
            // The frame is refused again when the close frame was read.
            Err(_) => self.hold(&bytes[forwardable..]),
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        let length = bytes.len().min(MAX_HEADER_BYTES);
        self.held[..length].copy_from_slice(&bytes[..length]);
        self.held_length = length;
    }
}

impl<S: AsyncRead + Unpin> LimitedSide<'_, S> {
    /// Reads the next bytes behind those that are held. They are the ones in `buffer` from the returned position on; if
    /// there are no new ones, the side has ended.
    fn poll_stream(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<StreamBytes>> {
        let start = buffer.filled().len();
        if buffer.remaining() <= MAX_HEADER_BYTES {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        }
        buffer.put_slice(&self.held[..self.held_length]);
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let has_ended = buffer.filled().len() == before;
        if has_ended || !matches!(polled, Poll::Ready(Ok(()))) {
            buffer.set_filled(start);
        }
        ready!(polled)?;
        Poll::Ready(Ok(StreamBytes { start, has_ended }))
    }

    /// Reads bytes to forward. Returns false if there are none, because what was read is held or refused.
    fn poll_forward(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let refusal = self.refused.0.get();
        let StreamBytes { start, has_ended } = match self.poll_stream(cx, buffer) {
            Poll::Ready(read) => read?,
            Poll::Pending if refusal.is_some() => return self.poll_deadline(cx).map(Err),
            Poll::Pending => return Poll::Pending,
        };
        if has_ended {
            return Poll::Ready(Ok(true));
        }
        let bytes = &buffer.filled()[start..];
        let forwarded = if let Some(refusal) = refusal {
            // Only the rest of the frame whose beginning was forwarded.
            let rest = self.scanner.skip(bytes.len());
            if self.scanner.is_between_frames() {
                self.close(refusal);
                self.discard(&bytes[rest..]);
            }
            rest
        } else {
            let ScannedBytes { forwardable, result } = self.scanner.scan(bytes);
            match result {
                Ok(()) if self.scanner.has_ended() => {
                    self.held_length = 0;
                    self.state = ReadState::Closed;
                    if forwardable < bytes.len() {
                        self.begin_deadline();
                    }
                }
                Ok(()) => self.hold(&bytes[forwardable..]),
                Err(violation) => {
                    let refusal = FoundViolation { sender: self.sender, violation };
                    self.refused.0.set(Some(refusal));
                    self.close(refusal);
                    self.held_length = 0;
                    self.discard(&bytes[forwardable..]);
                    // The other side may have been polled before.
                    cx.waker().wake_by_ref();
                }
            }
            forwardable
        };
        buffer.set_filled(start + forwarded);
        Poll::Ready(Ok(forwarded > 0))
    }

    /// Reads until the side has ended, which may take long if it has still to receive the rest of what the other side
    /// sends. If it sends anything, it has a deadline.
    fn poll_end(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        for _ in 0..MAX_READS_PER_TURN {
            if self.deadline.is_some()
                && let Poll::Ready(error) = self.poll_deadline(cx)
            {
                return Poll::Ready(Err(error));
            }
            let StreamBytes { start, has_ended } = ready!(self.poll_stream(cx, buffer))?;
            if has_ended {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(start);
            self.begin_deadline();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads until the side has closed.
    fn poll_drain(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Also while bytes arrive faster than they are read.
        if let Poll::Ready(error) = self.poll_deadline(cx) {
            return Poll::Ready(Err(error));
        }
        for _ in 0..MAX_READS_PER_TURN {
            if self.scanner.has_closed() {
                return Poll::Ready(Ok(()));
            }
            match self.poll_stream(cx, buffer) {
                Poll::Ready(Ok(StreamBytes { start, has_ended: false })) => {
                    self.held_length = 0;
                    self.discard(&buffer.filled()[start..]);
                    buffer.set_filled(start);
                }
                // An error is the end of a side that has to close.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S> LimitedSide<'_, S> {
    /// Lets the side end soon, unless it has to already.
    fn begin_deadline(&mut self) {
        self.deadline.get_or_insert_with(closing_time);
    }

    /// Ready with an error, which ends the relay, if the side does not close in time.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.deadline.get_or_insert_with(closing_time).as_mut().poll(cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// The outcome of a write. After a refusal, the side has a deadline to take what it has to: otherwise sides that do
    /// not read would keep the connection until it is idle for too long.
    fn until_deadline<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_pending() && self.refused.0.get().is_some() {
            return self.poll_deadline(cx).map(Err);
        }
        written
    }
}

fn closing_time() -> Pin<Box<Sleep>> {
    Box::pin(sleep(MAX_CLOSING_TIME))
}

/// Where the bytes that were read begin in the buffer.
struct StreamBytes {
    start: usize,
    has_ended: bool,
}

/// How long a side may take to close, or to send the rest of a frame, after a frame was refused.
const MAX_CLOSING_TIME: Duration = Duration::from_secs(5);
/// After so many reads, other connections of the thread get their turn.
const MAX_READS_PER_TURN: usize = 4;

impl<S: AsyncRead + Unpin> AsyncRead for LimitedSide<'_, S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                ReadState::Forwarding => {
                    if let Some(refusal) = this.refused.0.get().filter(|_| this.scanner.is_between_frames()) {
                        this.close(refusal);
                    } else if ready!(this.poll_forward(cx, buffer))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                ReadState::Closed => {
                    let Some(refusal) = this.refused.0.get() else { return this.poll_end(cx, buffer) };
                    this.close(refusal);
                }
                ReadState::Closing(frame, read) => {
                    let rest = &frame.as_bytes()[*read..];
                    let length = rest.len().min(buffer.remaining());
                    buffer.put_slice(&rest[..length]);
                    *read += length;
                    if length == rest.len() {
                        this.state = ReadState::Draining;
                    }
                    return Poll::Ready(Ok(()));
                }
                ReadState::Draining | ReadState::DrainingUnread => return this.poll_drain(cx, buffer),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LimitedSide<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.until_deadline(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.until_deadline(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.until_deadline(cx, ended)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RelaySide for LimitedSide<'_, S> {
    /// Frames must be read, so that they cannot be spliced.
    fn plain_socket(&self) -> Option<&TcpStream> {
        None
    }

    fn record_spliced_read(&mut self, _: &io::Result<usize>) {}

    fn record_spliced_write(&mut self, _: &io::Result<usize>) {}
}
