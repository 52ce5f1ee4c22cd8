//! What a client of HTTP/2 sends, frame by frame: frames that cost us work and carry no request are counted, and whoever
//! sends too many of them is shed.
//!
//! How long a header takes is seen here, too, since the library waits for its end as long as anybody likes.
//!
//! The library bounds what such frames can make us keep. It answers all of them, though, so that a client could keep a core
//! busy with frames that ask for nothing. Heads are counted too, since it refuses some of them without a word to us. Only the nine bytes of each frame's header are looked at.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::http2::Streams;
use super::preface::PREFACE;

/// The socket of a client of HTTP/2.
pub(crate) struct FrameStream<S> {
    stream: S,
    frames: Frames,
    streams: Rc<Streams>,
}

impl<S> FrameStream<S> {
    pub(crate) fn new(stream: S, streams: Rc<Streams>) -> Self {
        FrameStream { stream, frames: Frames::new(Instant::now()), streams }
    }
}

/// Follows where each frame ends, and counts those that are cheap to send.
#[derive(Debug)]
struct Frames {
    /// Of the preface or of a frame's payload.
    skip: usize,
    header: [u8; 9],
    have: usize,
    /// Whether the preface, a header or trailers end with the bytes to be skipped. None in other frames.
    ends: Option<bool>,
    /// The newest stream, whether its head is still to be ended, and whether the last part of it is being skipped.
    newest: u32,
    unfinished: bool,
    opening: bool,
    /// Streams whose head is there.
    opened: u64,
    resets: Allowance,
    controls: Allowance,
    updates: Allowance,
}

/// A number of frames that fills up again with time.
#[derive(Debug)]
struct Allowance {
    left: u32,
    burst: u32,
    per_second: u32,
    since: Instant,
}

impl Allowance {
    fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Allowance { left: burst, burst, per_second, since: now }
    }

    /// Takes one. The clock is looked at only when nothing seems to be left.
    fn take(&mut self) -> bool {
        if self.left == 0 {
            let gained = self.since.elapsed().as_secs_f64() * f64::from(self.per_second);
            // In whole frames; what is left over counts on from where it began.
            let gained = (gained as u32).min(self.burst);
            if gained == 0 {
                return false;
            }
            self.since += Duration::from_secs_f64(f64::from(gained) / f64::from(self.per_second));
            if gained == self.burst {
                self.since = Instant::now();
            }
            self.left = gained;
        }
        self.left -= 1;
        true
    }

    fn grant(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.burst);
    }
}

impl Frames {
    fn new(now: Instant) -> Self {
        Frames {
            skip: PREFACE.len(),
            header: [0; 9],
            have: 0,
            ends: Some(true),
            newest: 0,
            unfinished: false,
            opening: false,
            opened: 0,
            resets: Allowance::new(RESETS, RESETS_PER_SECOND, now),
            controls: Allowance::new(CONTROLS, CONTROLS_PER_SECOND, now),
            updates: Allowance::new(UPDATES, CONTROLS_PER_SECOND, now),
        }
    }

    /// Whether what came is within the allowance.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip == 0 && std::mem::take(&mut self.opening) {
                self.opened += 1;
            }
            let taken = (self.header.len() - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == self.header.len() {
                self.have = 0;
                let [a, b, c, kind, flags, stream @ ..] = self.header;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.follow(kind, flags, u32::from_be_bytes(stream) & !RESERVED);
                if !self.allows(kind, flags) {
                    return false;
                }
            }
        }
        true
    }

    /// Heads may come in several frames, and trailers look like heads.
    fn follow(&mut self, kind: u8, flags: u8, stream: u32) {
        let is_new = kind == HEADERS && stream > self.newest;
        self.newest = self.newest.max(if is_new { stream } else { 0 });
        self.unfinished |= is_new;
        if self.unfinished && matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0 {
            self.unfinished = false;
            self.opening = true;
        }
    }

    fn allows(&mut self, kind: u8, flags: u8) -> bool {
        const END_STREAM: u8 = 0x1;
        const END_HEADERS: u8 = 0x4;
        self.ends = matches!(kind, HEADERS | CONTINUATION).then_some(flags & END_HEADERS != 0);
        match kind {
            DATA if self.skip == 0 && flags & END_STREAM == 0 => self.controls.take(),
            DATA | HEADERS | CONTINUATION => true,
            RST_STREAM => self.resets.take(),
            WINDOW_UPDATE => self.updates.take(),
            // SETTINGS, PING, PRIORITY, and kinds that nobody knows.
            _ => self.controls.take(),
        }
    }

    /// Whether something has begun that no request can do without, and not ended.
    fn is_unfinished(&self) -> bool {
        self.ends.is_some_and(|ends| !ends || self.skip > 0)
    }

    /// Whoever is sent much has a reason to open the window often.
    fn written(&mut self, bytes: usize) {
        let frames = u32::try_from(bytes / BYTES_PER_UPDATE).unwrap_or(u32::MAX);
        self.updates.grant(frames + 1);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let allowed = self.frames.read(&buffer.filled()[before..]);
        self.streams.opened.set(self.frames.opened);
        if !allowed {
            self.streams.flooded.set(true);
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too many frames that ask for nothing",
            )));
        }
        // The clock is looked at only for what does not come at once.
        match (self.frames.is_unfinished(), self.streams.unfinished.get()) {
            (true, None) => self.streams.unfinished.set(Some(Instant::now())),
            (false, Some(_)) => self.streams.unfinished.set(None),
            (true, Some(_)) | (false, None) => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.frames.written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.frames.written(written);
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

/// A browser that leaves a page cancels all streams of a connection at once, but does not do so all the time.
const RESETS: u32 = 512;
const RESETS_PER_SECOND: u32 = 64;
/// Clients that measure the bandwidth send a ping for each round trip.
const CONTROLS: u32 = 2048;
const CONTROLS_PER_SECOND: u32 = 512;
const UPDATES: u32 = 8192;
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

    fn opened() -> Frames {
        let mut frames = Frames::new(Instant::now());
        assert!(frames.read(PREFACE));
        frames
    }

    /// How many of these pass at once, up to ten thousand.
    fn passing(frame: &[u8]) -> u32 {
        let mut frames = opened();
        (0..10_000).take_while(|_| frames.read(frame)).count().try_into().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_carry_requests_are_not_counted_and_others_are() {
        let cases = [
            ("data", frame(DATA, 0, 100), 10_000),
            ("end of a body", frame(DATA, 1, 0), 10_000),
            ("empty data", frame(DATA, 0, 0), CONTROLS),
            ("headers", frame(HEADERS, 4, 10), 10_000),
            ("reset", frame(RST_STREAM, 0, 4), RESETS),
            ("settings", frame(4, 0, 0), CONTROLS),
            ("ping", frame(6, 0, 8), CONTROLS),
            ("priority", frame(2, 0, 5), CONTROLS),
            ("unknown", frame(0xee, 0, 1), CONTROLS),
            ("window update", frame(WINDOW_UPDATE, 0, 4), UPDATES),
        ];
        for (what, frame, expected) in cases {
            assert_eq!(passing(&frame), expected, "{what}");
        }
    }

    #[tokio::test]
    async fn streams_are_counted_when_their_head_is_there() {
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
            let mut whole = opened();
            assert!(whole.read(&bytes));
            let mut parts = opened();
            assert!(bytes.iter().all(|byte| parts.read(&[*byte])));
            assert_eq!((whole.opened, parts.opened), (expected, expected), "{frames:?}");
            let mut short = opened();
            short.read(&bytes[..bytes.len() - 1]);
            assert!(short.opened <= expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_is_unfinished_until_its_last_byte() {
        let mut frames = Frames::new(Instant::now());
        assert!(frames.is_unfinished(), "the preface has not come");
        assert!(frames.read(&PREFACE[..23]) && frames.is_unfinished());
        assert!(frames.read(&PREFACE[23..]) && !frames.is_unfinished());
        let cases: [(&str, Vec<u8>, bool); 6] = [
            ("settings", frame(4, 0, 0), false),
            ("a part of data", frame(DATA, 0, 100)[..50].to_vec(), false),
            ("the rest of it", frame(DATA, 0, 100)[50..].to_vec(), false),
            ("a header without end", frame(HEADERS, 0, 10), true),
            ("a part of the end", frame(CONTINUATION, 4, 10)[..18].to_vec(), true),
            ("the rest of it", frame(CONTINUATION, 4, 10)[18..].to_vec(), false),
        ];
        for (what, bytes, unfinished) in cases {
            assert!(frames.read(&bytes));
            assert_eq!(frames.is_unfinished(), unfinished, "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_allowance_fills_up_with_time() {
        let mut allowance = Allowance::new(100, 10, Instant::now());
        let mut take = || (0..1000).take_while(|_| allowance.take()).count();
        assert_eq!(take(), 100);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(take(), 2);
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(take(), 1, "the rest of the time counts too");
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(take(), 100, "no more than at first");
    }

    proptest! {
        #[test]
        fn frames_are_followed_however_they_are_cut(
            payloads in proptest::collection::vec(0..300_usize, 1..20), seed in any::<u64>(),
        ) {
            let mut bytes = PREFACE.to_vec();
            for payload in &payloads {
                bytes.extend(frame(HEADERS, 4, *payload));
            }
            bytes.extend(frame(RST_STREAM, 0, 4));
            let mut frames = Frames::new(Instant::now());
            let mut rest = &bytes[..];
            let mut cuts = fastrand::Rng::with_seed(seed);
            while !rest.is_empty() {
                let (part, behind) = rest.split_at(cuts.usize(1..=rest.len()));
                prop_assert!(frames.read(part));
                rest = behind;
            }
            prop_assert_eq!((frames.skip, frames.have, frames.resets.left), (0, 0, RESETS - 1));
            prop_assert!(!frames.is_unfinished());
        }
    }
}
