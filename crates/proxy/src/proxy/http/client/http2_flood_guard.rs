//! The socket of an HTTP/2 client. Floods of frames that carry no request close the connection; see `FrameRates`.
//!
//! This file also measures how long a header block takes, because the library waits for its end without a timeout, and
//! counts request heads, because the library rejects some of them without reporting it. Only the nine bytes of each
//! frame header, and the length of a DATA frame's padding, are parsed for that.
//!
//! The data of bodies is counted too, see `unforwarded_bodies.rs`. This needs the stream of each request with a body,
//! which the library does not report. So a read ends with the head of such a request, and the next read begins when the
//! library has passed on or rejected all requests: the last request with a body belongs to this stream. If the library
//! has not passed on a request, it may not have decoded it yet; if it asks for more bytes, it has rejected the request.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::request_streams::RequestStreams;
use super::stream_tracker::StreamTracker;
use crate::http2_frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, FrameHeader, FrameRates, FrameReader, HEADERS, PADDED, PREFACE,
    TooManyFrames, TrailerMarker,
};
use crate::proxy::http::exchange::continuations::InterimFrames;

/// The socket of an HTTP/2 client.
pub(in crate::proxy) struct FrameStream<S> {
    stream: S,
    trailers: TrailerMarker<RequestStreams>,
    limiter: FrameLimiter,
    streams: Rc<StreamTracker>,
    /// The last read ended with the head of a request that has a body.
    ended_with_head: bool,
    /// Bytes that were received together with such a head.
    deferred: Deferred,
    interim: InterimFrames,
}

/// Received bytes that were not read yet.
#[derive(Default)]
struct Deferred {
    bytes: Vec<u8>,
    /// How many of them have been read since.
    read: usize,
}

impl Deferred {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.read..]
    }

    fn advance(&mut self, count: usize) {
        self.read += count;
        if self.read == self.bytes.len() {
            // An idle connection has no buffers.
            *self = Deferred::default();
        }
    }
}

impl<S> FrameStream<S> {
    pub(in crate::proxy) fn new(stream: S, streams: Rc<StreamTracker>) -> Self {
        FrameStream {
            stream,
            trailers: TrailerMarker::new(RequestStreams::default(), PREFACE.len()),
            limiter: FrameLimiter::new(Instant::now()),
            streams,
            ended_with_head: false,
            deferred: Deferred::default(),
            interim: InterimFrames::new(),
        }
    }

    fn record_written(&mut self, bytes: &[u8]) {
        self.limiter.rates.record_written_bytes(bytes.len());
        self.interim.record_written(bytes, &self.streams.open.continuations);
    }
}

impl<S: AsyncWrite + Unpin> FrameStream<S> {
    /// Writes informational responses that are due.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let may_begin = !self.trailers.streams.has_reduced_table;
            let unwritten = self.interim.unwritten(&self.streams.open.continuations, may_begin);
            if unwritten.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.stream).poll_write(cx, unwritten))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.interim.advance(written),
            }
        }
    }
}

/// Tracks frame boundaries and limits the rate of frames that are cheap to send.
#[derive(Debug)]
pub(in crate::proxy) struct FrameLimiter {
    frames: FrameReader,
    /// Whether the preface, a header block or trailers end with the skipped bytes. None in other frames.
    block_ends: Option<bool>,
    pub(in crate::proxy) newest_stream: u32,
    /// Whether the client sends more of the newest stream after its head.
    has_body: bool,
    /// Whether the head of the newest stream is incomplete.
    head_unfinished: bool,
    /// What ends with the skipped bytes.
    ending: FrameEnd,
    /// Whether the length of a DATA frame's padding has not arrived.
    padding_unread: bool,
    /// Streams whose head is complete.
    pub(in crate::proxy) complete_heads: u64,
    rates: FrameRates,
}

/// What ends with a frame.
#[derive(Clone, Copy, Debug, Default)]
enum FrameEnd {
    #[default]
    Other,
    /// The head of the newest stream.
    Head,
    /// A part of a body, without padding.
    Data { stream: u32, length: usize },
}

/// How many of the received bytes were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ReadEnd {
    All,
    /// The first bytes, up to the end of the head of a request with a body.
    Head {
        length: usize,
    },
}

impl FrameLimiter {
    pub(in crate::proxy) fn new(now: Instant) -> Self {
        FrameLimiter {
            frames: FrameReader::with_preface(),
            block_ends: Some(true),
            newest_stream: 0,
            has_body: false,
            head_unfinished: false,
            ending: FrameEnd::Other,
            padding_unread: false,
            complete_heads: 0,
            rates: FrameRates::new(now),
        }
    }

    /// Reads bytes up to the end of the first head of a request with a body. `on_data` gets the stream and the length
    /// of the data of each complete DATA frame: the library passes on whole frames.
    pub(in crate::proxy) fn read(
        &mut self,
        received: &[u8],
        mut on_data: impl FnMut(u32, usize),
    ) -> Result<ReadEnd, TooManyFrames> {
        let mut bytes = received;
        self.read_padding(bytes);
        loop {
            self.frames.skip_payload(&mut bytes);
            if self.frames.rest_of_frame() == 0 {
                match std::mem::take(&mut self.ending) {
                    FrameEnd::Other => {}
                    FrameEnd::Head => {
                        self.complete_heads += 1;
                        if self.has_body {
                            return Ok(ReadEnd::Head { length: received.len() - bytes.len() });
                        }
                    }
                    FrameEnd::Data { stream, length } => on_data(stream, length),
                }
            }
            if bytes.is_empty() {
                return Ok(ReadEnd::All);
            }
            if let Some(header) = self.frames.next(&mut bytes) {
                self.track_head(&header);
                self.rates.count(&header)?;
                if header.kind == DATA {
                    self.ending = FrameEnd::Data { stream: header.stream, length: header.length };
                    self.padding_unread = header.has(PADDED) && header.length > 0;
                    self.read_padding(bytes);
                }
            }
        }
    }

    /// Subtracts the padding of a DATA frame, the length of which is the first byte of the payload. Padding is not
    /// forwarded, and the library gives its part of the window back to the client at once.
    fn read_padding(&mut self, payload: &[u8]) {
        if self.padding_unread
            && let Some(padding) = payload.first()
            && let FrameEnd::Data { length, .. } = &mut self.ending
        {
            // The library rejects a frame with more padding than payload.
            *length = length.saturating_sub(1 + usize::from(*padding));
            self.padding_unread = false;
        }
    }

    /// Detects the end of header blocks and of a new stream's head, which may span several frames. Trailers use the
    /// same frame type as heads.
    fn track_head(&mut self, frame: &FrameHeader) {
        let is_block = matches!(frame.kind, HEADERS | CONTINUATION);
        self.block_ends = is_block.then_some(frame.has(END_HEADERS));
        if frame.kind == HEADERS && frame.stream > self.newest_stream {
            self.newest_stream = frame.stream;
            self.has_body = !frame.has(END_STREAM);
            self.head_unfinished = true;
        }
        if self.head_unfinished && is_block && frame.has(END_HEADERS) {
            self.head_unfinished = false;
            self.ending = FrameEnd::Head;
        }
    }

    /// Whether the preface, a header block or trailers have begun but not ended.
    pub(in crate::proxy) fn is_header_unfinished(&self) -> bool {
        self.block_ends.is_some_and(|ends| !ends || self.frames.rest_of_frame() > 0)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let streams = &this.streams;
        if streams.open.continuations.is_expected() {
            streams.open.continuations.set_writer(cx.waker());
        }
        if this.ended_with_head {
            if streams.is_request_pending() {
                // When the library has passed on a request, hyper reads again. `http2::serve` polls hyper again if the
                // library has rejected one.
                streams.read_deferred.set(true);
                return Poll::Pending;
            }
            streams.read_deferred.set(false);
            streams.next_body.set(None);
            this.ended_with_head = false;
        }
        if streams.open.unforwarded.poll_ready(cx).is_pending() {
            // A header block whose rest is not read does not time out.
            if streams.header_since.get().is_some() {
                streams.header_since.set(Some(Instant::now()));
            }
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let received = if this.deferred.is_empty() {
            if let Poll::Ready(read) = this.trailers.poll_read(&mut this.stream, cx, buffer) {
                read?;
            } else {
                if this.trailers.is_frame_incomplete() && streams.header_since.get().is_none() {
                    streams.header_since.set(Some(Instant::now()));
                }
                return Poll::Pending;
            }
            &buffer.filled()[before..]
        } else {
            let unread = this.deferred.unread();
            &unread[..unread.len().min(buffer.remaining())]
        };
        let read = this.limiter.read(received, |stream, length| streams.open.unforwarded.receive(stream, length));
        streams.heads_received.set(this.limiter.complete_heads);
        let length = match read {
            Ok(ReadEnd::All) => received.len(),
            Ok(ReadEnd::Head { length }) => {
                this.ended_with_head = true;
                streams.next_body.set(Some(this.limiter.newest_stream));
                length
            }
            Err(TooManyFrames) => {
                streams.flooded.set(true);
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "too many HTTP/2 frames that carry no request",
                )));
            }
        };
        if this.deferred.is_empty() {
            this.deferred.bytes.extend_from_slice(&buffer.filled()[before + length..]);
            buffer.set_filled(before + length);
        } else {
            buffer.put_slice(&this.deferred.unread()[..length]);
            this.deferred.advance(length);
        }
        // Read the clock only for header blocks that span several reads.
        let is_unfinished = this.limiter.is_header_unfinished() || this.trailers.is_frame_incomplete();
        match (is_unfinished, this.streams.header_since.get()) {
            (true, None) => this.streams.header_since.set(Some(Instant::now())),
            (false, Some(_)) => this.streams.header_since.set(None),
            (true, Some(_)) | (false, None) => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.record_written(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
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
        ready!(self.poll_interim(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(9 + payload, 0xff);
        frame
    }

    /// Reads all bytes. Returns whether all frames are within the rate limits.
    fn read(limiter: &mut FrameLimiter, mut bytes: &[u8]) -> bool {
        loop {
            match limiter.read(bytes, |_, _| {}) {
                Ok(ReadEnd::All) => return true,
                Ok(ReadEnd::Head { length }) => bytes = &bytes[length..],
                Err(TooManyFrames) => return false,
            }
        }
    }

    fn limiter_after_preface() -> FrameLimiter {
        let mut limiter = FrameLimiter::new(Instant::now());
        assert!(read(&mut limiter, PREFACE));
        limiter
    }

    #[tokio::test]
    async fn streams_count_when_their_head_is_complete() {
        let frame_on = |stream: u8, kind, flags, payload| {
            let mut frame = frame(kind, flags, payload);
            frame[8] = stream;
            frame
        };
        let head_on = |stream| frame_on(stream, HEADERS, END_HEADERS, 3);
        let cases = [
            (vec![head_on(1), head_on(3), head_on(5)], 3),
            (vec![frame_on(1, HEADERS, END_HEADERS, 0), head_on(3)], 2),
            // The second HEADERS frame of a stream has its trailers.
            (vec![head_on(1), frame_on(1, DATA, 0, 5), head_on(1)], 1),
            (vec![frame_on(1, HEADERS, 0, 3)], 0),
            (
                vec![
                    frame_on(1, HEADERS, 0, 3),
                    frame_on(1, CONTINUATION, 0, 3),
                    frame_on(1, CONTINUATION, END_HEADERS, 3),
                    head_on(3),
                ],
                2,
            ),
            // A client cannot open streams in descending order.
            (vec![head_on(5), head_on(3)], 1),
        ];
        for (frames, expected) in cases {
            let bytes = frames.concat();
            let mut whole = limiter_after_preface();
            assert!(read(&mut whole, &bytes));
            let mut parts = limiter_after_preface();
            assert!(bytes.iter().all(|byte| read(&mut parts, &[*byte])));
            assert_eq!((whole.complete_heads, parts.complete_heads), (expected, expected), "{frames:?}");
            let mut without_last_byte = limiter_after_preface();
            read(&mut without_last_byte, &bytes[..bytes.len() - 1]);
            assert!(without_last_byte.complete_heads <= expected);
        }
    }

    #[tokio::test]
    async fn reads_end_with_heads_of_requests_with_a_body() {
        let frame_on = |stream: u8, kind, flags, payload| {
            let mut frame = frame(kind, flags, payload);
            frame[8] = stream;
            frame
        };
        let without_body = frame_on(1, HEADERS, END_HEADERS | END_STREAM, 3);
        // The end of this head is a frame of its own, and has no fields.
        let with_body = [frame_on(3, HEADERS, 0, 3), frame_on(3, CONTINUATION, END_HEADERS, 0)].concat();
        let without_fields = frame_on(5, HEADERS, END_HEADERS, 0);
        let bytes = [without_body, with_body, without_fields, frame(4, 0, 0)].concat();
        let mut limiter = limiter_after_preface();
        let mut ends = Vec::new();
        let mut rest = &bytes[..];
        while let Ok(ReadEnd::Head { length }) = limiter.read(rest, |_, _| {}) {
            ends.push((limiter.newest_stream, length));
            rest = &rest[length..];
        }
        assert_eq!((ends, rest.len()), (vec![(3, 12 + 12 + 9), (5, 9)], 9));
    }

    #[tokio::test]
    async fn data_counts_without_padding_when_its_frame_is_complete() {
        let padded = |padding: u8, payload: usize| {
            let mut frame = frame(DATA, PADDED, payload);
            if payload > 0 {
                frame[9] = padding;
            }
            frame
        };
        let cases = [
            (frame(DATA, 0, 300), 300),
            (padded(0, 300), 299),
            (padded(255, 300), 44),
            (padded(255, 256), 0),
            // Malformed.
            (padded(255, 100), 0),
            (padded(0, 0), 0),
        ];
        let bytes: Vec<u8> = cases.iter().flat_map(|(frame, _)| frame.clone()).collect();
        for size in [1, 10, bytes.len()] {
            let mut limiter = limiter_after_preface();
            let (mut data, mut read) = (Vec::new(), 0);
            for part in bytes.chunks(size) {
                assert_eq!(limiter.read(part, |stream, length| data.push((stream, length))), Ok(ReadEnd::All));
                read += part.len();
                let ends = cases.iter().scan(0, |end, (frame, length)| {
                    *end += frame.len();
                    Some((*end, *length))
                });
                let expected: Vec<_> = ends.filter(|(end, _)| *end <= read).map(|(_, length)| (1, length)).collect();
                assert_eq!(data, expected, "{read} bytes, {size} at a time");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn header_block_is_unfinished_until_its_last_byte() {
        let mut limiter = FrameLimiter::new(Instant::now());
        assert!(limiter.is_header_unfinished(), "the preface has not arrived");
        assert!(read(&mut limiter, &PREFACE[..23]) && limiter.is_header_unfinished());
        assert!(read(&mut limiter, &PREFACE[23..]) && !limiter.is_header_unfinished());
        let cases: [(&str, Vec<u8>, bool); 6] = [
            ("settings", frame(4, 0, 0), false),
            ("a part of data", frame(DATA, 0, 100)[..50].to_vec(), false),
            ("the rest of the data", frame(DATA, 0, 100)[50..].to_vec(), false),
            ("a header without end", frame(HEADERS, 0, 10), true),
            ("a part of the end", frame(CONTINUATION, 4, 10)[..18].to_vec(), true),
            ("the rest of the end", frame(CONTINUATION, 4, 10)[18..].to_vec(), false),
        ];
        for (name, bytes, unfinished) in cases {
            assert!(read(&mut limiter, &bytes));
            assert_eq!(limiter.is_header_unfinished(), unfinished, "{name}");
        }
    }

    proptest! {
        #[test]
        fn frame_boundaries_survive_arbitrary_splits(
            payloads in proptest::collection::vec(0..300_usize, 1..20), seed in any::<u64>(),
        ) {
            let mut bytes = PREFACE.to_vec();
            for payload in &payloads {
                bytes.extend(frame(HEADERS, 4, *payload));
            }
            bytes.extend(frame(crate::http2_frames::RST_STREAM, 0, 4));
            let mut limiter = FrameLimiter::new(Instant::now());
            let mut rest = &bytes[..];
            let mut cuts = fastrand::Rng::with_seed(seed);
            while !rest.is_empty() {
                let (part, unread) = rest.split_at(cuts.usize(1..=rest.len()));
                prop_assert!(read(&mut limiter, part));
                rest = unread;
            }
            prop_assert!(limiter.frames.is_between_frames());
            prop_assert!(!limiter.is_header_unfinished());
        }
    }
}
