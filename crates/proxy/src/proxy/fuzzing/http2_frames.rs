//! The limiter of HTTP/2 frames: it sees the same frames however the bytes arrive, and as many request heads as a
//! reader that has all bytes at once. The reader of header blocks finds the same in a block however it is divided into
//! frames.

use tokio::time::Instant;

use crate::http2_frames::{CONTINUATION, END_HEADERS, FrameHeader, HEADERS, HeadReader, PREFACE, TooManyFrames};
use crate::proxy::http::client::http2_flood_guard::{FrameLimiter, ReadEnd};

/// The input is what a client sends after the connection preface.
pub(crate) fn check(input: &[u8]) {
    let whole = read_blocks(&[input]);
    for length in [1, 1 + input.len() / 2] {
        let parts: Vec<&[u8]> = input.chunks(length).collect();
        assert_eq!(read_blocks(&parts), whole, "the same rejections if {length} bytes are in a frame");
    }
    // Fewer frames than the smallest limit of their rate, so that the result does not depend on time.
    let input = &input[..input.len().min(MAX_FRAMES * HEADER_LENGTH)];
    let whole = read(&[PREFACE, input]);
    let step = 1 + input.len() % 11;
    for step in [1, step] {
        let parts: Vec<&[u8]> = PREFACE.chunks(step).chain(input.chunks(step)).collect();
        assert_eq!(read(&parts), whole, "the same frames if {step} bytes arrive at a time");
    }
    let (allowed, complete_heads, is_unfinished, _) = whole;
    assert!(allowed, "fewer frames than any limit");
    assert_eq!(
        (complete_heads, is_unfinished),
        count_heads(input),
        "complete heads, and whether a header is unfinished"
    );
}

/// The fields with which a block in these parts is rejected, and with which one is rejected that refers to its last
/// field.
fn read_blocks(parts: &[&[u8]]) -> [&'static [u8]; 2] {
    let mut reader = HeadReader::default();
    let mut read = |kind, flags, payload: &[u8]| {
        reader.read(&FrameHeader { length: payload.len(), kind, flags, stream: 1 }, payload)
    };
    read(HEADERS, 0, &[]);
    for part in parts {
        read(CONTINUATION, 0, part);
    }
    [read(CONTINUATION, END_HEADERS, &[]), read(HEADERS, END_HEADERS, &[0x80 | 62])]
}

/// Whether all frames are within the limits, the complete heads, whether a header block is unfinished, and the streams
/// and lengths of DATA frames.
fn read(parts: &[&[u8]]) -> (bool, u64, bool, Vec<(u32, usize)>) {
    let mut limiter = FrameLimiter::new(Instant::now());
    let mut data = Vec::new();
    let mut read_all = |mut part: &[u8]| loop {
        match limiter.read(part, |stream, length| data.push((stream, length))) {
            Ok(ReadEnd::All) => return true,
            Ok(ReadEnd::Head { length }) => part = &part[length..],
            Err(TooManyFrames) => return false,
        }
    };
    let allowed = parts.iter().all(|part| read_all(part));
    (allowed, limiter.complete_heads, limiter.is_header_unfinished(), data)
}

/// Counts complete heads in frames that are all there.
fn count_heads(mut frames: &[u8]) -> (u64, bool) {
    let (mut heads, mut newest, mut is_open, mut is_unfinished) = (0, 0, false, false);
    while let Some((header, rest)) = frames.split_at_checked(HEADER_LENGTH) {
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let is_block = matches!(header[3], HEADERS | CONTINUATION);
        let ends_block = is_block && header[4] & END_HEADERS != 0;
        let stream = u32::from_be_bytes([header[5] & 0x7f, header[6], header[7], header[8]]);
        if header[3] == HEADERS && stream > newest {
            newest = stream;
            is_open = true;
        }
        let is_whole = rest.len() >= length;
        if ends_block && is_open {
            is_open = false;
            heads += u64::from(is_whole);
        }
        is_unfinished = is_block && (!ends_block || !is_whole);
        frames = rest.get(length..).unwrap_or_default();
    }
    (heads, is_unfinished)
}

const HEADER_LENGTH: usize = 9;
const MAX_FRAMES: usize = 500;
