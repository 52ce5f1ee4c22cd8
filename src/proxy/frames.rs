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
use super::protocol_detection::PREFACE;

/// The socket of an HTTP/2 client.
pub(super) struct FrameStream<S> {
    stream: S,
    frames: FrameLimiter,
    streams: Rc<StreamTracker>,
}

impl<S> FrameStream<S> {
    pub(super) fn new(stream: S, streams: Rc<StreamTracker>) -> Self {
        FrameStream { stream, frames: FrameLimiter::new(Instant::now()), streams }
    }
}

/// Tracks frame boundaries and counts the frames that are cheap to send.
#[derive(Debug)]
struct FrameLimiter {
    /// Remaining bytes of the preface or of a frame's payload.
    skip: usize,
    header: [u8; 9],
    header_length: usize,
    /// Whether the preface, a header block or trailers end with the skipped bytes. None in other frames.
    block_ends: Option<bool>,
    /// The newest stream, whether its head is still incomplete, and whether the last part of the head is being skipped.
    newest_stream: u32,
    head_unfinished: bool,
    head_ending: bool,
    /// Streams whose head is complete.
    complete_heads: u64,
    resets: FrameBucket,
    controls: FrameBucket,
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
            if gained == self.burst {
                self.refilled_at = Instant::now();
            }
            self.tokens = gained;
        }
        self.tokens -= 1;
        true
    }

    fn add(&mut self, more: u32) {
        self.tokens = self.tokens.saturating_add(more).min(self.burst);
    }
}

impl FrameLimiter {
    fn new(now: Instant) -> Self {
        FrameLimiter {
            skip: PREFACE.len(),
            header: [0; 9],
            header_length: 0,
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

    /// Whether all frames are within the rate limits.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip == 0 && std::mem::take(&mut self.head_ending) {
                self.complete_heads += 1;
            }
            let taken = (self.header.len() - self.header_length).min(bytes.len());
            self.header[self.header_length..self.header_length + taken].copy_from_slice(&bytes[..taken]);
            self.header_length += taken;
            bytes = &bytes[taken..];
            if self.header_length == self.header.len() {
                self.header_length = 0;
                let [a, b, c, kind, flags, stream @ ..] = self.header;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.track_head(kind, flags, u32::from_be_bytes(stream) & !RESERVED);
                if !self.allows(kind, flags) {
                    return false;
                }
            }
        }
        true
    }

    /// Detects the end of a new stream's head, which may span several frames. Trailers use the same frame type as
    /// heads.
    fn track_head(&mut self, kind: u8, flags: u8, stream: u32) {
        let is_new = kind == HEADERS && stream > self.newest_stream;
        self.newest_stream = self.newest_stream.max(if is_new { stream } else { 0 });
        self.head_unfinished |= is_new;
        if self.head_unfinished && matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0 {
            self.head_unfinished = false;
            self.head_ending = true;
        }
    }

    fn allows(&mut self, kind: u8, flags: u8) -> bool {
        const END_STREAM: u8 = 0x1;
        self.block_ends = matches!(kind, HEADERS | CONTINUATION).then_some(flags & END_HEADERS != 0);
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
    fn is_header_unfinished(&self) -> bool {
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
        let allowed = self.frames.read(&buffer.filled()[before..]);
        self.streams.heads_received.set(self.frames.complete_heads);
        if !allowed {
            self.streams.flooded.set(true);
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too many HTTP/2 frames that carry no request",
            )));
        }
        // Read the clock only for header blocks that span several reads.
        match (self.frames.is_header_unfinished(), self.streams.header_since.get()) {
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
        self.frames.record_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.frames.record_written(written);
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

    fn frames_after_preface() -> FrameLimiter {
        let mut frames = FrameLimiter::new(Instant::now());
        assert!(frames.read(PREFACE));
        frames
    }

    /// How many of these frames are allowed in a row, up to ten thousand.
    fn count_allowed(frame: &[u8]) -> u32 {
        let mut frames = frames_after_preface();
        (0..10_000).take_while(|_| frames.read(frame)).count().try_into().unwrap()
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
        for (what, frame, expected) in cases {
            assert_eq!(count_allowed(&frame), expected, "{what}");
        }
    }

    #[tokio::test]
    async fn streams_count_when_their_head_is_complete() {
        let on = |stream: u8, kind, flags, payload| {
            let mut frame = frame(kind, flags, payload);
            frame[8] = stream;
            frame
        };
        let whole = |stream| on(stream, HEADERS, END_HEADERS, 3);
        let cases = [
            (vec![whole(1), whole(3), whole(5)], 3),
            (vec![on(1, HEADERS, END_HEADERS, 0), whole(3)], 2),
            // The second is trailers.
            (vec![whole(1), on(1, DATA, 0, 5), whole(1)], 1),
            (vec![on(1, HEADERS, 0, 3)], 0),
            (vec![on(1, HEADERS, 0, 3), on(1, CONTINUATION, 0, 3), on(1, CONTINUATION, END_HEADERS, 3), whole(3)], 2),
            (vec![whole(5), whole(3)], 1),
        ];
        for (frames, expected) in cases {
            let bytes = frames.concat();
            let mut whole = frames_after_preface();
            assert!(whole.read(&bytes));
            let mut parts = frames_after_preface();
            assert!(bytes.iter().all(|byte| parts.read(&[*byte])));
            assert_eq!((whole.complete_heads, parts.complete_heads), (expected, expected), "{frames:?}");
            let mut short = frames_after_preface();
            short.read(&bytes[..bytes.len() - 1]);
            assert!(short.complete_heads <= expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn header_block_is_unfinished_until_its_last_byte() {
        let mut frames = FrameLimiter::new(Instant::now());
        assert!(frames.is_header_unfinished(), "the preface has not arrived");
        assert!(frames.read(&PREFACE[..23]) && frames.is_header_unfinished());
        assert!(frames.read(&PREFACE[23..]) && !frames.is_header_unfinished());
        let cases: [(&str, Vec<u8>, bool); 6] = [
            ("settings", frame(4, 0, 0), false),
            ("a part of data", frame(DATA, 0, 100)[..50].to_vec(), false),
            ("the rest of the data", frame(DATA, 0, 100)[50..].to_vec(), false),
            ("a header without end", frame(HEADERS, 0, 10), true),
            ("a part of the end", frame(CONTINUATION, 4, 10)[..18].to_vec(), true),
            ("the rest of the end", frame(CONTINUATION, 4, 10)[18..].to_vec(), false),
        ];
        for (what, bytes, unfinished) in cases {
            assert!(frames.read(&bytes));
            assert_eq!(frames.is_header_unfinished(), unfinished, "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn token_bucket_refills_over_time() {
        let mut allowance = FrameBucket::new(100, 10, Instant::now());
        let mut take = || (0..1000).take_while(|_| allowance.take()).count();
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
            let mut frames = FrameLimiter::new(Instant::now());
            let mut rest = &bytes[..];
            let mut cuts = fastrand::Rng::with_seed(seed);
            while !rest.is_empty() {
                let (part, behind) = rest.split_at(cuts.usize(1..=rest.len()));
                prop_assert!(frames.read(part));
                rest = behind;
            }
            prop_assert_eq!((frames.skip, frames.header_length, frames.resets.tokens), (0, 0, RESET_BURST - 1));
            prop_assert!(!frames.is_header_unfinished());
        }
    }
}
