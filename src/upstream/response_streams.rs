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
    /// Set when the connection begins to end: it takes no further requests.
    is_retired: Rc<Cell<bool>>,
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
    fn new(now: Instant) -> Self {
        ResponseStreams {
            newest: 0,
            open: HashMap::default(),
            last_early_response: None,
            rates: FrameRates::new(now),
            is_flooding: false,
        }
    }
}

impl<S> ResponseStream<S> {
    /// Sets `is_retired` when the connection begins to end.
    pub(super) fn new(stream: S, is_retired: Rc<Cell<bool>>) -> Self {
        let marker = TrailerMarker::new(ResponseStreams::new(Instant::now()), NO_PREFACE);
        ResponseStream { stream, marker, written: FrameReader::with_preface(), ending: None, is_retired }
    }

    fn begin_ending(&mut self, ending: DelayedEnd) -> &mut DelayedEnd {
        self.is_retired.set(true);
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
            _ => {}
        }
        FrameAction::Pass
    }

    fn read_fields(&mut self, frame: &FrameHeader, fields: &[u8]) -> bool {
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
mod tests {
    use super::*;
    use crate::http2_frames::END_HEADERS;

    fn frame(kind: u8, flags: u8, stream: u32) -> FrameHeader {
        FrameHeader { length: 1, kind, flags: flags | END_HEADERS, stream }
    }

    fn with_request(stream: u32) -> ResponseStreams {
        let mut streams = ResponseStreams::new(Instant::now());
        streams.record_written(&frame(HEADERS, 0, stream));
        streams
    }

    #[test]
    fn status_of_a_head_is_informational_or_final() {
        use HeadKind::{Final, Informational, Unknown};
        let cases: [(&[u8], Option<HeadKind>); 14] = [
            (&[0x88], Some(Final)),
            (&[0x8e, 0x40], Some(Final)),
            (b"\x48\x03103", Some(Informational)),
            (b"\x08\x03100", Some(Informational)),
            (b"\x19\x03418", Some(Final)),
            // 103 and 302 in Huffman coding.
            (&[0x48, 0x82, 0x08, 0x19], Some(Informational)),
            (&[0x48, 0x82, 0x64, 0x02], Some(Final)),
            (&[0x80 | 62], Some(Unknown)),
            (&[0x40 | 62], Some(Unknown)),
            (b"\0\x07:status\x03103", Some(Unknown)),
            (&[0x84], Some(Unknown)),
            (&[], None),
            (&[0x48], None),
            (&[0x48, 0x82], None),
        ];
        for (fields, expected) in cases {
            assert_eq!(head_kind(fields), expected, "{fields:x?}");
        }
    }

    #[test]
    fn blocks_after_the_final_head_are_trailers() {
        use FrameAction::{MarkTrailers, Pass, ReadFields};
        let head = frame(HEADERS, 0, 1);
        let end = frame(HEADERS, END_STREAM, 1);
        let mut streams = with_request(1);
        assert_eq!(streams.examine(&head), ReadFields);
        assert!(streams.read_fields(&head, b"\x48\x03103"));
        assert_eq!(streams.examine(&end), Pass, "the final head after an informational one");
        assert_eq!(streams.open.len(), 0);

        let mut streams = with_request(1);
        assert!(streams.read_fields(&head, &[0x88]));
        assert_eq!([streams.examine(&end), streams.examine(&end)], [MarkTrailers; 2], "more of the frame may arrive");
        streams.end_with_trailers(1);
        assert_eq!(streams.examine(&end), Pass, "the stream has ended");

        let mut streams = with_request(1);
        assert!(streams.read_fields(&head, &[0x80 | 62]));
        assert_eq!(streams.examine(&end), Pass, "an unknown status");
        let mut streams = with_request(1);
        streams.examine(&frame(DATA, 0, 1));
        assert_eq!(streams.examine(&end), MarkTrailers, "data follows a final head");
    }

    /// Reads these bytes and then the end of the connection, which the operating system reports only after the first
    /// read. Each write fails.
    struct ClosedByEndpoint {
        is_reported: bool,
        received: std::collections::VecDeque<u8>,
    }

    impl AsyncRead for ClosedByEndpoint {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if !std::mem::replace(&mut self.is_reported, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            buffer.put_slice(self.received.make_contiguous());
            self.received.clear();
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for ClosedByEndpoint {
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

    #[tokio::test(start_paused = true)]
    async fn what_was_received_before_a_failed_write_is_read() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut response = Vec::new();
        frame(HEADERS, 0, 1).write(&mut response);
        response.push(0x88);
        frame(DATA, END_STREAM, 1).write(&mut response);
        response.push(b'x');
        // A response to a request that is sent, to one that is not, and none.
        for (request_flags, received, end_after) in
            [(END_STREAM, response.clone(), 0), (0, response.clone(), 5), (0, Vec::new(), 0)]
        {
            let socket = ClosedByEndpoint { is_reported: false, received: received.clone().into() };
            let is_retired = Rc::new(Cell::new(false));
            let mut stream = ResponseStream::new(socket, Rc::clone(&is_retired));
            stream.marker.streams.record_written(&frame(HEADERS, request_flags, 1));
            let begin = Instant::now();
            stream.write_all(b"more of the request").await.unwrap();
            assert!(is_retired.get(), "the connection takes no further requests");
            let mut read = Vec::new();
            while read.len() < received.len() {
                stream.read_buf(&mut read).await.unwrap();
            }
            assert_eq!(read, received);
            assert_eq!(begin.elapsed(), Duration::ZERO);
            stream.write_all(b"more of the request").await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            assert_eq!(begin.elapsed().as_secs(), end_after, "flags {request_flags}");
        }
    }

    /// An endpoint whose system reports nothing after the failed write.
    #[tokio::test(start_paused = true)]
    async fn failed_write_is_reported_if_nothing_follows() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        struct Silent;
        impl AsyncRead for Silent {
            fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                Poll::Pending
            }
        }
        impl AsyncWrite for Silent {
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
        let mut stream = ResponseStream::new(Silent, Rc::default());
        let error = stream.write_all(b"the preface").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "no response can follow");
        stream.marker.streams.record_written(&frame(HEADERS, 0, 1));
        let begin = Instant::now();
        stream.write_all(b"more of the request").await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(begin.elapsed().as_secs(), MAX_READ_AFTER_FAILED_WRITE.as_secs());
    }

    #[test]
    fn streams_are_forgotten_when_they_end() {
        for (what, end) in [
            ("head", frame(HEADERS, END_STREAM, 1)),
            ("data", frame(DATA, END_STREAM, 1)),
            ("reset", frame(RST_STREAM, 0, 1)),
        ] {
            let mut streams = with_request(1);
            streams.examine(&end);
            assert!(streams.open.is_empty(), "{what}");
            // What still arrives, or is still sent, does not open the stream again.
            streams.examine(&frame(DATA, 0, 1));
            streams.record_written(&frame(HEADERS, END_STREAM, 1));
            assert!(streams.open.is_empty(), "{what}");
        }
        let mut streams = with_request(1);
        streams.record_written(&frame(RST_STREAM, 0, 1));
        assert!(streams.open.is_empty(), "the client has canceled the request");
    }
    #[test]
    fn informational_heads_are_limited() {
        let head = frame(HEADERS, 0, 1);
        // Also if the status is an entry of the dynamic table, so that it is not known.
        for fields in [&b"\x48\x03103"[..], &[0x80 | 62]] {
            let mut streams = with_request(1);
            for _ in 0..MAX_INFORMATIONAL {
                assert_eq!(streams.examine(&head), FrameAction::ReadFields);
                assert!(streams.read_fields(&head, fields));
            }
            assert_eq!(streams.examine(&head), FrameAction::MarkTrailers);
            streams.end_with_trailers(1);
            assert!(streams.open.is_empty());
        }
        let mut streams = with_request(1);
        for _ in 1..MAX_INFORMATIONAL {
            streams.examine(&head);
            streams.read_fields(&head, b"\x48\x03103");
        }
        assert_eq!(streams.examine(&frame(HEADERS, END_STREAM, 1)), FrameAction::Pass, "the final head");
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_no_request_has_caused_are_limited() {
        const SETTINGS: u8 = 4;
        const PING: u8 = 6;
        for kind in [SETTINGS, PING, 0xee, RST_STREAM, 8] {
            let mut streams = with_request(1);
            let count = (0..10_000).take_while(|_| {
                streams.examine(&frame(kind, 0, 0));
                !streams.is_flooding
            });
            assert!((500..9_000).contains(&count.count()), "{kind}");
            // Those that follow requests are permitted.
            let mut streams = with_request(1);
            for number in 1..10_000 {
                streams.record_written(&frame(HEADERS, 0, 1 + 2 * number));
                streams.examine(&frame(kind, 0, 0));
            }
            assert!(!streams.is_flooding, "{kind}");
        }
    }
}
