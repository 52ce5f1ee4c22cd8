//! Sends a message: its head, its body as it becomes available, and its trailers.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use tokio::io::AsyncWrite;

use super::BodyFraming;
use super::recycled::recycle_buffer;
use super::trailer_names::is_permitted_trailer;
use crate::fast_cgi::{MAX_CONTENT, push_stdin_header};

/// A message that is being sent. It has its body until it is dropped, so that what the body holds stays as long as its
/// bytes wait to be sent.
#[derive(Debug)]
pub struct OutgoingMessage<B> {
    queue: SendQueue,
    body: B,
    /// The body is to be polled further.
    is_body_open: bool,
    framing: BodyFraming,
    /// Why the body does not continue. Reported when everything before it was sent.
    failure: Option<SendFailure>,
}

/// Why a message was not sent to its end. The recipient must not take it for a complete one.
#[derive(Debug, thiserror::Error)]
pub enum SendFailure {
    /// The stream has failed.
    #[error("cannot send: {0}")]
    Stream(io::Error),
    /// The body has failed.
    #[error("{0}")]
    Body(Box<dyn Error + Send + Sync>),
    /// The body has ended before its length.
    #[error("the body is shorter than its Content-Length")]
    TooShort,
}

/// Bytes to send: parts that are not copied, then small ones together.
#[derive(Debug)]
struct SendQueue {
    parts: VecDeque<Bytes>,
    joined: BytesMut,
    /// How many bytes of `joined` were sent.
    joined_sent: usize,
    /// Bytes of `parts`.
    length: usize,
}

impl<B> OutgoingMessage<B>
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// `head` has the head as it was written, which returned the framing.
    pub fn new(head: BytesMut, framing: BodyFraming, body: B) -> Self {
        let is_body_open = !matches!(framing, BodyFraming::None);
        let queue = SendQueue { parts: VecDeque::new(), joined: head, joined_sent: 0, length: 0 };
        OutgoingMessage { queue, body, is_body_open, framing, failure: None }
    }

    /// Whether the end of the connection is the end of the message for its recipient.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.framing, BodyFraming::UntilClose)
    }

    /// Sends as much as possible. Ready when the message is complete, and the stream flushed.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), SendFailure>> {
        self.poll_send_observed(cx, stream, |_, _| {})
    }

    /// The same. Before each write after all of the body was taken, `before_write` gets the body and how many bytes are
    /// not sent yet.
    pub fn poll_send_observed(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
        mut before_write: impl FnMut(&mut B, usize),
    ) -> Poll<Result<(), SendFailure>> {
        let (mut frames, mut awaits_body) = (0, false);
        for _ in 0..MAX_ROUNDS {
            // A body that is pending wakes the task. It may be pending so that others have their turn.
            awaits_body = awaits_body || self.poll_body(cx, &mut frames).is_pending();
            if !self.queue.is_empty() {
                if !self.is_body_open {
                    before_write(&mut self.body, self.queue.len());
                }
                ready!(self.queue.poll_send(cx, stream)).map_err(SendFailure::Stream)?;
                continue;
            }
            let flushed = Pin::new(&mut *stream).poll_flush(cx).map_err(SendFailure::Stream)?;
            if awaits_body {
                return Poll::Pending;
            }
            ready!(flushed);
            return Poll::Ready(self.failure.take().map_or(Ok(()), Err));
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves what is available of the body into the queue. Ready if the body has ended, or the queue is full. `frames`
    /// counts those that were taken.
    fn poll_body(&mut self, cx: &mut Context<'_>, frames: &mut usize) -> Poll<()> {
        while self.is_body_open {
            if self.queue.len() >= MAX_QUEUED {
                return Poll::Ready(());
            }
            if *frames >= MAX_FRAMES {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            *frames += 1;
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(mut data) => {
                        let is_last = self.body.is_end_stream();
                        let length = data.remaining();
                        self.push_data(data.copy_to_bytes(length));
                        if is_last || matches!(self.framing, BodyFraming::Length(0) | BodyFraming::Records(Some(0))) {
                            self.end(None);
                        }
                    }
                    Err(frame) => self.end(frame.into_trailers().ok()),
                },
                Some(Err(error)) => {
                    self.is_body_open = false;
                    self.failure = Some(SendFailure::Body(error.into()));
                }
                None => self.end(None),
            }
        }
        Poll::Ready(())
    }

    fn push_data(&mut self, mut data: Bytes) {
        if data.is_empty() {
            return;
        }
        match &mut self.framing {
            BodyFraming::Chunked { .. } => {
                self.queue.push_chunk_size(data.len());
                self.queue.push(data);
                self.queue.joined.put_slice(b"\r\n");
            }
            BodyFraming::Length(remaining) => {
                let permitted = usize::try_from(*remaining).unwrap_or(usize::MAX);
                data.truncate(permitted);
                *remaining -= data.len() as u64;
                self.queue.push(data);
            }
            BodyFraming::Records(remaining) => {
                if let Some(remaining) = remaining {
                    data.truncate(usize::try_from(*remaining).unwrap_or(usize::MAX));
                    *remaining -= data.len() as u64;
                }
                while !data.is_empty() {
                    let part = data.split_to(data.len().min(MAX_CONTENT));
                    push_stdin_header(part.len(), &mut self.queue.joined);
                    self.queue.push(part);
                }
            }
            BodyFraming::UntilClose => self.queue.push(data),
            BodyFraming::None => {}
        }
    }

    fn end(&mut self, trailers: Option<HeaderMap>) {
        self.is_body_open = false;
        match &self.framing {
            BodyFraming::Length(1..) | BodyFraming::Records(Some(1..)) => self.failure = Some(SendFailure::TooShort),
            BodyFraming::Chunked { trailers: declared } => {
                let out = &mut self.queue.joined;
                out.put_slice(b"0\r\n");
                for (name, value) in trailers.iter().flatten() {
                    if declared.contains(name) && is_permitted_trailer(name) {
                        out.put_slice(name.as_str().as_bytes());
                        out.put_slice(b": ");
                        out.put_slice(value.as_bytes());
                        out.put_slice(b"\r\n");
                    }
                }
                out.put_slice(b"\r\n");
            }
            BodyFraming::Records(_) => push_stdin_header(0, &mut self.queue.joined),
            BodyFraming::Length(0) | BodyFraming::UntilClose | BodyFraming::None => {}
        }
    }
}

/// What does not depend on the type of bodies.
impl<B> OutgoingMessage<B> {
    pub fn body_mut(&mut self) -> &mut B {
        &mut self.body
    }

    /// Whether all of the body was taken to be sent.
    pub fn has_whole_body(&self) -> bool {
        !self.is_body_open
    }

    /// How many bytes were taken, of the head, the body and the framing, and are not sent yet.
    pub fn unsent(&self) -> usize {
        self.queue.len()
    }
}

impl SendQueue {
    fn len(&self) -> usize {
        self.length + self.joined.len() - self.joined_sent
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&mut self, data: Bytes) {
        if data.len() <= SMALL {
            self.joined.extend_from_slice(&data);
            return;
        }
        let before = self.joined.split().freeze().split_off(std::mem::take(&mut self.joined_sent));
        for part in [before, data] {
            if !part.is_empty() {
                self.length += part.len();
                self.parts.push_back(part);
            }
        }
    }

    fn push_chunk_size(&mut self, size: usize) {
        let mut digits = [0; usize::BITS as usize / 4];
        let mut first = digits.len();
        let mut rest = size;
        while rest > 0 || first == digits.len() {
            first -= 1;
            digits[first] = b"0123456789abcdef"[rest % 16];
            rest /= 16;
        }
        self.joined.put_slice(&digits[first..]);
        self.joined.put_slice(b"\r\n");
    }

    /// Writes once. Not to be called while the queue is empty.
    fn poll_send(&mut self, cx: &mut Context<'_>, stream: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<()>> {
        let written = if self.parts.is_empty() {
            ready!(Pin::new(stream).poll_write(cx, &self.joined[self.joined_sent..]))?
        } else {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let parts = self.parts.iter().map(|part| &**part).chain([&self.joined[self.joined_sent..]]);
            let mut count = 0;
            for (slice, part) in slices.iter_mut().zip(parts) {
                *slice = IoSlice::new(part);
                count += 1;
            }
            ready!(Pin::new(stream).poll_write_vectored(cx, &slices[..count]))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.remove(written);
        Poll::Ready(Ok(()))
    }

    fn remove(&mut self, mut count: usize) {
        while count > 0
            && let Some(part) = self.parts.front_mut()
        {
            let taken = count.min(part.len());
            part.advance(taken);
            (count, self.length) = (count - taken, self.length - taken);
            if part.is_empty() {
                self.parts.pop_front();
            }
        }
        self.joined_sent += count;
        if self.is_empty() {
            // A message that waits for its body keeps no memory for what it has sent.
            recycle_buffer(std::mem::take(&mut self.joined));
            self.joined_sent = 0;
        }
    }
}

/// Larger parts are not copied.
const SMALL: usize = 1024;
/// Bytes that wait to be sent, before the body is polled for more. Less than a frame that was read at once, because
/// there is seldom more right after it.
const MAX_QUEUED: usize = 48 * 1024;
/// Parts that are written together.
const MAX_SLICES: usize = 16;
/// Frames that are taken from the body before other connections have their turn: each may be what remains of a whole
/// read, if a client sends many small chunks.
const MAX_FRAMES: usize = 8;
/// Writes before other connections have their turn.
const MAX_ROUNDS: usize = 16;
