//! HTTP/2 flood protection: limits the rate of the frames that cause work without carrying a message.
//!
//! The library bounds the memory that such frames can use, but it responds to all of them, so that a peer could keep a
//! core busy. Frames that react to what Portico has sent have a limit that grows with it.

use std::time::Duration;

use tokio::time::Instant;

use super::{CONTINUATION, DATA, END_STREAM, FrameHeader, HEADERS, RST_STREAM, WINDOW_UPDATE};

/// What one side of a connection may still send.
#[derive(Debug)]
pub struct FrameRates {
    /// RST_STREAM frames.
    resets: FrameBucket,
    /// Empty DATA frames, and frames such as SETTINGS and PING that have neither data nor a header block.
    controls: FrameBucket,
    /// WINDOW_UPDATE frames.
    updates: FrameBucket,
}

/// A peer has sent more frames of a kind than the rate limit permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyFrames;

impl FrameRates {
    pub fn new(now: Instant) -> Self {
        FrameRates {
            resets: FrameBucket::new(RESET_BURST, RESETS_PER_SECOND, now),
            controls: FrameBucket::new(CONTROL_BURST, CONTROLS_PER_SECOND, now),
            updates: FrameBucket::new(WINDOW_UPDATE_BURST, CONTROLS_PER_SECOND, now),
        }
    }

    /// Counts a frame.
    pub fn count(&mut self, frame: &FrameHeader) -> Result<(), TooManyFrames> {
        let is_allowed = match frame.kind {
            DATA if frame.length == 0 && !frame.has(END_STREAM) => self.controls.take(),
            DATA | HEADERS | CONTINUATION => true,
            RST_STREAM => self.resets.take(),
            WINDOW_UPDATE => self.updates.take(),
            // SETTINGS, PING, PRIORITY and unknown types.
            _ => self.controls.take(),
        };
        if is_allowed { Ok(()) } else { Err(TooManyFrames) }
    }

    /// Permits more WINDOW_UPDATE frames to a peer to which this many bytes were sent.
    pub fn record_written_bytes(&mut self, bytes: usize) {
        let frames = u32::try_from(bytes / BYTES_PER_UPDATE).unwrap_or(u32::MAX);
        self.updates.add(frames + 1);
    }

    /// Permits the reactions to a frame with a head or data that was sent: a reset, updates of both windows, and a PING
    /// that measures the bandwidth.
    pub fn record_written_frame(&mut self, frame: &FrameHeader) {
        if matches!(frame.kind, DATA | HEADERS) {
            self.resets.add(1);
            self.updates.add(2);
            self.controls.add(1);
        }
    }
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

/// A browser that leaves a page resets all streams of a connection at once, but not continuously.
const RESET_BURST: u32 = 512;
const RESETS_PER_SECOND: u32 = 64;
/// Peers that measure the bandwidth send a PING per round trip.
const CONTROL_BURST: u32 = 2048;
const CONTROLS_PER_SECOND: u32 = 512;
const WINDOW_UPDATE_BURST: u32 = 8192;
/// For this many bytes, a peer may send one more WINDOW_UPDATE.
const BYTES_PER_UPDATE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, length: usize) -> FrameHeader {
        FrameHeader { length, kind, flags, stream: 1 }
    }

    #[tokio::test(start_paused = true)]
    async fn only_frames_without_a_message_are_limited() {
        let cases = [
            ("data", frame(DATA, 0, 100), 10_000),
            ("end of a body", frame(DATA, END_STREAM, 0), 10_000),
            ("empty data", frame(DATA, 0, 0), CONTROL_BURST),
            ("headers", frame(HEADERS, 4, 10), 10_000),
            ("reset", frame(RST_STREAM, 0, 4), RESET_BURST),
            ("settings", frame(4, 0, 0), CONTROL_BURST),
            ("ping", frame(PING, 0, 8), CONTROL_BURST),
            ("priority", frame(2, 0, 5), CONTROL_BURST),
            ("unknown", frame(0xee, 0, 1), CONTROL_BURST),
            ("window update", frame(WINDOW_UPDATE, 0, 4), WINDOW_UPDATE_BURST),
        ];
        for (name, frame, expected) in cases {
            let mut rates = FrameRates::new(Instant::now());
            let allowed = (0..10_000).take_while(|_| rates.count(&frame).is_ok()).count();
            assert_eq!(u32::try_from(allowed), Ok(expected), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reactions_to_requests_are_not_limited() {
        let mut rates = FrameRates::new(Instant::now());
        let reactions =
            [frame(RST_STREAM, 0, 4), frame(WINDOW_UPDATE, 0, 4), frame(WINDOW_UPDATE, 0, 4), frame(PING, 0, 8)];
        for sent in [frame(HEADERS, 4, 10), frame(DATA, 0, 10)].iter().cycle().take(100_000) {
            rates.record_written_frame(sent);
            for reaction in &reactions {
                assert_eq!(rates.count(reaction), Ok(()), "{reaction:?}");
            }
        }
        // Other frames that were sent permit nothing, and what was permitted does not add up beyond the burst.
        rates.record_written_frame(&frame(PING, 0, 8));
        let allowed = (0..10_000).take_while(|_| rates.count(&reactions[3]).is_ok()).count();
        assert_eq!(u32::try_from(allowed), Ok(CONTROL_BURST - 1));
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
}
