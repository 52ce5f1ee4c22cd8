//! The streams that an HTTP/2 client has opened: which of its HEADERS frames have trailers.

use std::ops::Range;

use crate::http2_frames::{FrameAction, FrameHeader, HEADERS, Streams};

/// A client opens streams with odd, ascending identifiers. A HEADERS frame on an identifier below that of the next
/// stream has trailers, except if the client has skipped the identifier: such a stream is closed and was never open, so
/// the frame is a connection error (RFC 9113, section 5.1.1). The library reports it if the frame passes unchanged.
#[derive(Debug)]
pub(in crate::proxy) struct RequestStreams {
    /// The lowest identifier that the client may use for a new stream.
    next: u32,
    /// The identifiers below `next` that were skipped, in ascending order.
    skipped: Vec<Range<u32>>,
}

impl Default for RequestStreams {
    fn default() -> Self {
        RequestStreams { next: 1, skipped: Vec::new() }
    }
}

impl Streams for RequestStreams {
    fn examine(&mut self, frame: &FrameHeader) -> FrameAction {
        let stream = frame.stream;
        // An even identifier is a connection error whatever the frame contains.
        if frame.kind != HEADERS || stream.is_multiple_of(2) {
            return FrameAction::Pass;
        }
        if stream >= self.next {
            self.open(stream);
            return FrameAction::Pass;
        }
        let was_opened = !self.skipped.iter().any(|skipped| skipped.contains(&stream));
        if was_opened { FrameAction::MarkTrailers } else { FrameAction::Pass }
    }
}

impl RequestStreams {
    fn open(&mut self, stream: u32) {
        if stream > self.next {
            if self.skipped.len() == MAX_SKIPPED {
                self.skipped.remove(0);
            }
            self.skipped.push(self.next..stream);
        }
        self.next = stream + 2;
    }
}

/// How many ranges of skipped identifiers are kept. Clients have no reason to skip any. A header block on a stream in a
/// range that is no longer kept counts as trailers, whose pseudo-header fields are an error of that stream only.
const MAX_SKIPPED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn examine(streams: &mut RequestStreams, stream: u32) -> FrameAction {
        streams.examine(&FrameHeader { length: 1, kind: HEADERS, flags: 0, stream })
    }

    #[test]
    fn only_streams_that_were_opened_have_trailers() {
        use FrameAction::{MarkTrailers, Pass};
        let mut streams = RequestStreams::default();
        let cases = [
            (3, Pass, "the first stream"),
            (1, Pass, "skipped before the first stream"),
            (3, MarkTrailers, "trailers"),
            (5, Pass, "the next stream"),
            (11, Pass, "a stream after two skipped ones"),
            (7, Pass, "skipped"),
            (9, Pass, "skipped"),
            (9, Pass, "skipped, again"),
            (5, MarkTrailers, "trailers of an older stream"),
            (4, Pass, "even"),
            (0, Pass, "zero"),
            (11, MarkTrailers, "trailers of the newest stream"),
            ((1 << 31) - 1, Pass, "the last stream"),
            ((1 << 31) - 1, MarkTrailers, "its trailers"),
        ];
        for (stream, expected, what) in cases {
            assert_eq!(examine(&mut streams, stream), expected, "{stream}: {what}");
        }
    }

    #[test]
    fn client_that_skips_many_streams_uses_little_memory() {
        let mut streams = RequestStreams::default();
        for number in 0..10_000 {
            assert_eq!(examine(&mut streams, 1 + 4 * number), FrameAction::Pass);
        }
        assert_eq!(streams.skipped.len(), MAX_SKIPPED);
        assert_eq!(examine(&mut streams, 4 * 9_999 - 1), FrameAction::Pass, "the newest skipped one is known");
    }
}
