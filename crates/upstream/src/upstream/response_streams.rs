//! The socket of an HTTP/2 endpoint: its responses with pseudo-header fields in their trailers, or with too many
//! informational heads, are malformed, and its frames that no request has caused have a rate limit.
//!
//! A response may have informational heads before its final one, so the second block of a stream need not be trailers.
//! Only those with END_STREAM after the final head are:
//!
//! ```text
//!   written:   HEADERS, the request                                    RST_STREAM
//!                 ▼                                                        ▼
//!              awaits head ── final status, or DATA ──▶ receives body ──▶ forgotten
//!   read:         └──────────────── END_STREAM, RST_STREAM ────┴───────────▲
//! ```
//!
//! The library reports the end of the connection, and the first write that fails, to all its requests at once, also to
//! those whose response has arrived. An endpoint may respond early and close while the request is still being sent, so
//! a failed write is hidden until everything is read, and the end until such responses had time to be used.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::http2_frames::{
    DATA, END_STREAM, FrameAction, FrameHeader, FrameRates, FrameReader, HEADERS, RST_STREAM, Streams, TrailerMarker,
};

/// Reads responses, with the marker in their trailers, and observes which streams the requests open and reset.
pub(super) struct ResponseStream<S> {
    stream: S,
    marker: TrailerMarker<ResponseStreams>,
    written: FrameReader,
    /// How the connection ends, from the first failed write on, or else from the end of what the endpoint sent.
    ending: Option<Box<DelayedEnd>>,
    connection_end: Rc<Http2End>,
}

/// How a connection ends, as far as its requests have to know.
#[derive(Debug, Default)]
pub(super) struct Http2End {
    /// It takes no further requests. Those in flight finish.
    pub(super) is_retired: Cell<bool>,
    /// The endpoint ends it with ENHANCE_YOUR_CALM: it had too many frames, such as resets of requests whose clients
    /// have left.
    pub(super) is_complaint: Cell<bool>,
    /// Portico has sent a PING of its own.
    pub(super) was_pinged: Cell<bool>,
}

/// The end of a connection that is not reported yet. What is written meanwhile is dropped.
#[derive(Debug)]
struct DelayedEnd {
    /// The result of the read that ends the connection.
    result: io::Result<()>,
    /// Everything was read. Otherwise the rest is awaited.
    is_read: bool,
    /// When the end is reported at the latest.
    timer: Pin<Box<Sleep>>,
}

/// The streams whose response is not complete: as many as the connection has requests.
#[derive(Debug)]
struct ResponseStreams {
    newest: u32,
    open: HashMap<u32, OpenExchange, FixedState>,
    /// When the last response was complete of those that were complete before their request.
    last_early_response: Option<Instant>,
    connection_end: Rc<Http2End>,
    rates: FrameRates,
    /// The endpoint has sent more frames than their rate limit permits.
    is_flooding: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OpenExchange {
    response: ResponseState,
    /// All of the request was written.
    is_sent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResponseState {
    /// After this many heads that were not the final one, as far as known.
    AwaitsHead(u8),
    ReceivesBody,
}

impl ResponseStreams {
    fn new(now: Instant, connection_end: Rc<Http2End>) -> Self {
        ResponseStreams {
            newest: 0,
            open: HashMap::default(),
            last_early_response: None,
            connection_end,
            rates: FrameRates::new(now),
            is_flooding: false,
        }
    }
}

impl<S> ResponseStream<S> {
    /// Writes into `connection_end` how the connection ends.
    pub(super) fn new(stream: S, connection_end: Rc<Http2End>) -> Self {
        let streams = ResponseStreams::new(Instant::now(), Rc::clone(&connection_end));
        let marker = TrailerMarker::new(streams, NO_PREFACE);
        ResponseStream { stream, marker, written: FrameReader::with_preface(), ending: None, connection_end }
    }

    fn begin_ending(&mut self, ending: DelayedEnd) -> &mut DelayedEnd {
        self.connection_end.is_retired.set(true);
        self.ending.insert(Box::new(ending))
    }

    /// Hides the error of a write after the first request: reading goes on, for a limited time. Returns what the
    /// library gets instead.
    fn hide_failure<T>(&mut self, error: io::Error, hidden: T, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if self.marker.streams.newest == 0 {
            return Poll::Ready(Err(error));
        }
        let deadline = Instant::now() + MAX_READ_AFTER_FAILED_WRITE;
        let timer = Box::pin(sleep_until(deadline));
        let ending = self.begin_ending(DelayedEnd { result: Err(error), is_read: false, timer });
        // The task that writes is the one that reads. If the time has passed already, its next read reports it.
        if ending.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(hidden))
    }

    /// Delays the end of the connection while early responses may still be used.
    fn end(&mut self, result: io::Result<()>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let used_until = self.marker.streams.last_early_response.map(|arrived| arrived + EARLY_RESPONSE_TIME);
        match used_until.filter(|until| *until > Instant::now()) {
            None => Poll::Ready(result),
            Some(until) => {
                let timer = Box::pin(sleep_until(until));
                self.begin_ending(DelayedEnd { result, is_read: true, timer }).poll(cx)
            }
        }
    }

    fn record_written(&mut self, mut bytes: &[u8]) {
        self.marker.streams.rates.record_written_bytes(bytes.len());
        while !bytes.is_empty() {
            if let Some(frame) = self.written.next(&mut bytes) {
                self.marker.streams.record_written(&frame);
            }
        }
    }
}

impl DelayedEnd {
    /// Ready with the result when its time has come.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(std::mem::replace(&mut self.result, Ok(())))
    }
}

impl ResponseStreams {
    fn record_written(&mut self, frame: &FrameHeader) {
        self.rates.record_written_frame(frame);
        match frame.kind {
            // Trailers of a request do not open a stream.
            HEADERS if frame.stream > self.newest => {
                self.newest = frame.stream;
                let is_sent = frame.has(END_STREAM);
                self.open.insert(frame.stream, OpenExchange { response: ResponseState::AwaitsHead(0), is_sent });
            }
            HEADERS | DATA if frame.has(END_STREAM) => {
                if let Some(stream) = self.open.get_mut(&frame.stream) {
                    stream.is_sent = true;
                }
            }
            RST_STREAM => drop(self.open.remove(&frame.stream)),
            PING if !frame.has(ACK) => self.connection_end.was_pinged.set(true),
            _ => {}
        }
    }

    fn receive_body(&mut self, stream: u32) {
        if let Some(stream) = self.open.get_mut(&stream) {
            stream.response = ResponseState::ReceivesBody;
        }
    }

    fn response(&self, stream: u32) -> Option<ResponseState> {
        self.open.get(&stream).map(|stream| stream.response)
    }

    /// Reads the error code, which follows the last stream (RFC 9113, section 6.8). Whether it has arrived.
    fn read_goaway(&mut self, payload: &[u8]) -> bool {
        let code = payload.get(4..).and_then(|rest| rest.first_chunk::<4>());
        if code.is_some_and(|code| u32::from_be_bytes(*code) == ENHANCE_YOUR_CALM) {
            self.connection_end.is_retired.set(true);
            self.connection_end.is_complaint.set(true);
        }
        code.is_some()
    }

    /// All of the response has arrived.
    fn end_response(&mut self, stream: u32) {
        if self.open.remove(&stream).is_some_and(|stream| !stream.is_sent) {
            self.last_early_response = Some(Instant::now());
        }
    }
}

impl Streams for ResponseStreams {
    fn examine(&mut self, frame: &FrameHeader) -> FrameAction {
        let stream = frame.stream;
        self.is_flooding |= self.rates.count(frame).is_err();
        match frame.kind {
            HEADERS if frame.has(END_STREAM) => {
                if self.response(stream) == Some(ResponseState::ReceivesBody) {
                    return FrameAction::MarkTrailers;
                }
                self.end_response(stream);
            }
            HEADERS => match self.response(stream) {
                // The marker precedes the status of one head too many, so that it is malformed.
                Some(ResponseState::AwaitsHead(MAX_INFORMATIONAL)) => return FrameAction::MarkTrailers,
                Some(ResponseState::AwaitsHead(_)) => return FrameAction::ReadFields,
                Some(ResponseState::ReceivesBody) | None => {}
            },
            DATA if frame.has(END_STREAM) => self.end_response(stream),
            DATA => self.receive_body(stream),
            RST_STREAM => drop(self.open.remove(&stream)),
            // Its payload has no padding, so its fields are all of it.
            GOAWAY => return FrameAction::ReadFields,
            _ => {}
        }
        FrameAction::Pass
    }

    fn read_fields(&mut self, frame: &FrameHeader, fields: &[u8]) -> bool {
        if frame.kind == GOAWAY {
            return self.read_goaway(fields);
        }
        let head = head_kind(fields);
        match head {
            Some(HeadKind::Final) => self.receive_body(frame.stream),
            Some(HeadKind::Informational | HeadKind::Unknown) => {
                if let Some(OpenExchange { response: ResponseState::AwaitsHead(count), .. }) =
                    self.open.get_mut(&frame.stream)
                {
                    *count = count.saturating_add(1);
                }
            }
            None => {}
        }
        head.is_some()
    }

    fn end_with_trailers(&mut self, stream: u32) {
        self.end_response(stream);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeadKind {
    Informational,
    Final,
    /// The status is an entry of the dynamic table. DATA shows that the head was the final one; trailers without data
    /// are not examined.
    Unknown,
}

/// Reads the status, which is the first field of a head. None if more bytes are necessary.
fn head_kind(fields: &[u8]) -> Option<HeadKind> {
    let first = *fields.first()?;
    // RFC 7541, section 6: an indexed field, a literal that enters the table, and other literals.
    let (index, is_indexed) = match first {
        0x80.. => (first & 0x7f, true),
        0x40..0x80 => (first & 0x3f, false),
        _ => (first & 0x0f, false),
    };
    // Entries 8 to 14 of the static table have the name `:status`, and values that are final.
    if !(8..=14).contains(&index) {
        return Some(HeadKind::Unknown);
    }
    if is_indexed {
        return Some(HeadKind::Final);
    }
    let (length, value) = (fields.get(1)?, fields.get(2)?);
    let is_huffman_coded = length & 0x80 != 0;
    // The Huffman code of the digit 1 has five bits, 00001.
    let begins_with_1 = if is_huffman_coded { value >> 3 == 1 } else { *value == b'1' };
    Some(if begins_with_1 { HeadKind::Informational } else { HeadKind::Final })
}

impl<S: AsyncRead + Unpin> AsyncRead for ResponseStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(ending) = this.ending.as_mut().filter(|ending| ending.is_read) {
            return ending.poll(cx);
        }
        let before = buffer.filled().len();
        let read = this.marker.poll_read(&mut this.stream, cx, buffer);
        if this.marker.streams.is_flooding {
            let error = "the endpoint sent too many HTTP/2 frames that no request has caused";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        match read {
            Poll::Pending => match &mut this.ending {
                Some(ending) => ending.poll(cx),
                None => Poll::Pending,
            },
            Poll::Ready(Ok(())) if buffer.filled().len() > before => Poll::Ready(Ok(())),
            Poll::Ready(result) => this.end(result, cx),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ResponseStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.ending.is_some() {
            return Poll::Ready(Ok(bytes.len()));
        }
        match ready!(Pin::new(&mut self.stream).poll_write(cx, bytes)) {
            Ok(written) => {
                self.record_written(&bytes[..written]);
                Poll::Ready(Ok(written))
            }
            Err(error) => self.hide_failure(error, bytes.len(), cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = || slices.iter().map(|slice| slice.len()).sum();
        if self.ending.is_some() {
            return Poll::Ready(Ok(length()));
        }
        let written = match ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices)) {
            Ok(written) => written,
            Err(error) => return self.hide_failure(error, length(), cx),
        };
        let mut left = written;
        for slice in slices {
            let part = left.min(slice.len());
            self.record_written(&slice[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ending.is_some() {
            return Poll::Ready(Ok(()));
        }
        match ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => self.hide_failure(error, (), cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ending.is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The type of a frame that announces the end of the connection, and an error code (RFC 9113, sections 6 and 7).
const GOAWAY: u8 = 7;
const PING: u8 = 6;
/// The flag of a PING that acknowledges one of the endpoint.
const ACK: u8 = 0x1;
const ENHANCE_YOUR_CALM: u32 = 11;
/// Endpoints send frames only.
const NO_PREFACE: usize = 0;
/// How many heads may precede the final one. They are not forwarded to clients.
const MAX_INFORMATIONAL: u8 = 32;
/// How long the rest of what the endpoint sent is awaited after a failed write. The operating system reports its end
/// soon after the failure.
const MAX_READ_AFTER_FAILED_WRITE: Duration = Duration::from_secs(5);
/// How long an early response may be used before the end of its connection is reported. What is left of it by then is
/// lost, at most a stream window.
const EARLY_RESPONSE_TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
