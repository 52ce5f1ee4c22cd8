//! HTTP/2 flood protection: counts the frames of a client that cause work without carrying a request, and closes the
//! connection above a rate limit.
//!
//! The h2 library bounds the memory that such frames can use, but it responds to all of them, so a client could keep a
//! core busy. This file also measures how long a header block takes, because the library waits for its end without a
//! timeout, and counts request heads, because the library rejects some of them without reporting it. Only the nine
//! bytes of each frame header are parsed.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::http2::StreamTracker;
use crate::proxy::connection::protocol_detection::PREFACE;

/// The socket of an HTTP/2 client.
pub(in crate::proxy) struct FrameStream<S> {
    stream: S,
    limiter: FrameLimiter,
    streams: Rc<StreamTracker>,
}

impl<S> FrameStream<S> {
    pub(in crate::proxy) fn new(stream: S, streams: Rc<StreamTracker>) -> Self {
        FrameStream { stream, limiter: FrameLimiter::new(Instant::now()), streams }
    }
}

/// Tracks frame boundaries and limits the rate of frames that are cheap to send.
#[derive(Debug)]
pub(in crate::proxy) struct FrameLimiter {
    /// Remaining bytes of the preface or of a frame's payload.
    skip: usize,
    /// The bytes of the current frame header that have arrived.
    frame_header: [u8; 9],
    frame_header_length: usize,
    /// Whether the preface, a header block or trailers end with the skipped bytes. None in other frames.
    block_ends: Option<bool>,
    newest_stream: u32,
    /// Whether the head of the newest stream is incomplete.
    head_unfinished: bool,
    /// Whether the last frame of the newest stream's head is being skipped.
    head_ending: bool,
    /// Streams whose head is complete.
    pub(in crate::proxy) complete_heads: u64,
    /// RST_STREAM frames.
    resets: FrameBucket,
    /// Empty DATA frames, and frames such as SETTINGS and PING that have neither data nor a header block.
    controls: FrameBucket,
    /// WINDOW_UPDATE frames.
    updates: FrameBucket,
}

/// A token bucket of frames.
#[derive(Debug)]
struct FrameBucket {
    tokens: u32,
    burst: u32,
    per_second: u32,
    refilled_at: Instant,
}

impl FrameBucket {
    fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        FrameBucket { tokens: burst, burst, per_second, refilled_at: now }
    }

    /// Takes one token. Reads the clock only if the bucket is empty.
    fn take(&mut self) -> bool {
        if self.tokens == 0 {
            let gained = self.refilled_at.elapsed().as_secs_f64() * f64::from(self.per_second);
            // Whole tokens only; the remaining fraction of time counts toward the next refill.
            let gained = (gained as u32).min(self.burst);
            if gained == 0 {
                return false;
            }
            self.refilled_at += Duration::from_secs_f64(f64::from(gained) / f64::from(self.per_second));
            // A full bucket gains nothing from the time that is left over.
            if gained == self.burst {
                self.refilled_at = Instant::now();
            }
            self.tokens = gained;
        }
        self.tokens -= 1;
        true
    }

    fn add(&mut self, tokens: u32) {
        self.tokens = self.tokens.saturating_add(tokens).min(self.burst);
    }
}

impl FrameLimiter {
    pub(in crate::proxy) fn new(now: Instant) -> Self {
        FrameLimiter {
            skip: PREFACE.len(),
            frame_header: [0; 9],
            frame_header_length: 0,
            block_ends: Some(true),
            newest_stream: 0,
            head_unfinished: false,
            head_ending: false,
            complete_heads: 0,
            resets: FrameBucket::new(RESET_BURST, RESETS_PER_SECOND, now),
            controls: FrameBucket::new(CONTROL_BURST, CONTROLS_PER_SECOND, now),
            updates: FrameBucket::new(WINDOW_UPDATE_BURST, CONTROLS_PER_SECOND, now),
        }
    }

    /// Reads the next bytes. Returns whether all frames are within the rate limits.
    pub(in crate::proxy) fn read(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip == 0 && std::mem::take(&mut self.head_ending) {
                self.complete_heads += 1;
            }
            let taken = (self.frame_header.len() - self.frame_header_length).min(bytes.len());
            self.frame_header[self.frame_header_length..self.frame_header_length + taken]
                .copy_from_slice(&bytes[..taken]);
            self.frame_header_length += taken;
            bytes = &bytes[taken..];
            if self.frame_header_length == self.frame_header.len() {
                self.frame_header_length = 0;
                let [a, b, c, kind, flags, stream @ ..] = self.frame_header;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.track_head(kind, flags, u32::from_be_bytes(stream) & !RESERVED);
                if !self.allows(kind, flags) {
                    return false;
                }
            }
        }
        true
    }

    /// Detects the end of header blocks and of a new stream's head, which may span several frames. Trailers use the
    /// same frame type as heads.
    fn track_head(&mut self, kind: u8, flags: u8, stream: u32) {
        self.block_ends = matches!(kind, HEADERS | CONTINUATION).then_some(flags & END_HEADERS != 0);
        if kind == HEADERS && stream > self.newest_stream {
            self.newest_stream = stream;
            self.head_unfinished = true;
        }
        if self.head_unfinished && matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0 {
            self.head_unfinished = false;
            self.head_ending = true;
        }
    }

    /// Counts a frame. Returns whether it is within the rate limits.
    fn allows(&mut self, kind: u8, flags: u8) -> bool {
        const END_STREAM: u8 = 0x1;
        match kind {
            DATA if self.skip == 0 && flags & END_STREAM == 0 => self.controls.take(),
            DATA | HEADERS | CONTINUATION => true,
            RST_STREAM => self.resets.take(),
            WINDOW_UPDATE => self.updates.take(),
            // SETTINGS, PING, PRIORITY and unknown types.
            _ => self.controls.take(),
        }
    }

    /// Whether the preface, a header block or trailers have begun but not ended.
    pub(in crate::proxy) fn is_header_unfinished(&self) -> bool {
        self.block_ends.is_some_and(|ends| !ends || self.skip > 0)
    }

    /// Grants more WINDOW_UPDATE frames to a client that receives much data.
    fn record_written(&mut self, bytes: usize) {
        let frames = u32::try_from(bytes / BYTES_PER_UPDATE).unwrap_or(u32::MAX);
        self.updates.add(frames + 1);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let allowed = self.limiter.read(&buffer.filled()[before..]);
        self.streams.heads_received.set(self.limiter.complete_heads);
        if !allowed {
            self.streams.flooded.set(true);
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too many HTTP/2 frames that carry no request",
            )));
        }
        // Read the clock only for header blocks that span several reads.
        match (self.limiter.is_header_unfinished(), self.streams.header_since.get()) {
            (true, None) => self.streams.header_since.set(Some(Instant::now())),
            (false, Some(_)) => self.streams.header_since.set(None),
            (true, Some(_)) | (false, None) => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.limiter.record_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.limiter.record_written(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

// RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const RESERVED: u32 = 1 << 31;

/// A browser that leaves a page resets all streams of a connection at once, but not continuously.
const RESET_BURST: u32 = 512;
const RESETS_PER_SECOND: u32 = 64;
/// Clients that measure the bandwidth send a PING per round trip.
const CONTROL_BURST: u32 = 2048;
const CONTROLS_PER_SECOND: u32 = 512;
const WINDOW_UPDATE_BURST: u32 = 8192;
/// For this many response bytes, a client may send one more WINDOW_UPDATE.
const BYTES_PER_UPDATE: usize = 512;

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

    fn limiter_after_preface() -> FrameLimiter {
        let mut limiter = FrameLimiter::new(Instant::now());
        assert!(limiter.read(PREFACE));
        limiter
    }

    /// How many of these frames are allowed in a row, up to ten thousand.
    fn count_allowed(frame: &[u8]) -> u32 {
        let mut limiter = limiter_after_preface();
        (0..10_000).take_while(|_| limiter.read(frame)).count().try_into().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn only_frames_without_request_data_are_limited() {
        let cases = [
            ("data", frame(DATA, 0, 100), 10_000),
            ("end of a body", frame(DATA, 1, 0), 10_000),
            ("empty data", frame(DATA, 0, 0), CONTROL_BURST),
            ("headers", frame(HEADERS, 4, 10), 10_000),
            ("reset", frame(RST_STREAM, 0, 4), RESET_BURST),
            ("settings", frame(4, 0, 0), CONTROL_BURST),
            ("ping", frame(6, 0, 8), CONTROL_BURST),
            ("priority", frame(2, 0, 5), CONTROL_BURST),
            ("unknown", frame(0xee, 0, 1), CONTROL_BURST),
            ("window update", frame(WINDOW_UPDATE, 0, 4), WINDOW_UPDATE_BURST),
        ];
        for (name, frame, expected) in cases {
            assert_eq!(count_allowed(&frame), expected, "{name}");
        }
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
            assert!(whole.read(&bytes));
            let mut parts = limiter_after_preface();
            assert!(bytes.iter().all(|byte| parts.read(&[*byte])));
            assert_eq!((whole.complete_heads, parts.complete_heads), (expected, expected), "{frames:?}");
            let mut without_last_byte = limiter_after_preface();
            without_last_byte.read(&bytes[..bytes.len() - 1]);
            assert!(without_last_byte.complete_heads <= expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn header_block_is_unfinished_until_its_last_byte() {
        let mut limiter = FrameLimiter::new(Instant::now());
        assert!(limiter.is_header_unfinished(), "the preface has not arrived");
        assert!(limiter.read(&PREFACE[..23]) && limiter.is_header_unfinished());
        assert!(limiter.read(&PREFACE[23..]) && !limiter.is_header_unfinished());
        let cases: [(&str, Vec<u8>, bool); 6] = [
            ("settings", frame(4, 0, 0), false),
            ("a part of data", frame(DATA, 0, 100)[..50].to_vec(), false),
            ("the rest of the data", frame(DATA, 0, 100)[50..].to_vec(), false),
            ("a header without end", frame(HEADERS, 0, 10), true),
            ("a part of the end", frame(CONTINUATION, 4, 10)[..18].to_vec(), true),
            ("the rest of the end", frame(CONTINUATION, 4, 10)[18..].to_vec(), false),
        ];
        for (name, bytes, unfinished) in cases {
            assert!(limiter.read(&bytes));
            assert_eq!(limiter.is_header_unfinished(), unfinished, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn token_bucket_refills_over_time() {
        let mut bucket = FrameBucket::new(100, 10, Instant::now());
        let mut take = || (0..1000).take_while(|_| bucket.take()).count();
        assert_eq!(take(), 100);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(take(), 2);
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(take(), 1, "the remaining fraction of time counts");
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(take(), 100, "no more than the burst");
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
            bytes.extend(frame(RST_STREAM, 0, 4));
            let mut limiter = FrameLimiter::new(Instant::now());
            let mut rest = &bytes[..];
            let mut cuts = fastrand::Rng::with_seed(seed);
            while !rest.is_empty() {
                let (part, unread) = rest.split_at(cuts.usize(1..=rest.len()));
                prop_assert!(limiter.read(part));
                rest = unread;
            }
            prop_assert_eq!((limiter.skip, limiter.frame_header_length), (0, 0));
            prop_assert_eq!(limiter.resets.tokens, RESET_BURST - 1);
            prop_assert!(!limiter.is_header_unfinished());
        }
    }
}
