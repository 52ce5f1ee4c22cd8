//! The streams that an HTTP/2 client has opened: which of its HEADERS frames have trailers, and which have the head of
//! a request that is rejected.

use std::collections::VecDeque;

use crate::http2_frames::{
    DATA, END_STREAM, FrameAction, FrameHeader, HEADERS, HeadReader, RST_STREAM, SETTINGS, Streams, reduces_table,
};

/// A client opens streams with odd, ascending identifiers. A HEADERS frame on a stream that the client has opened and
/// not ended has trailers. On any other stream below the next one it is an error, of which the library must see the
/// frame as it is: the kind of error depends on the state of the stream, and not on the fields (RFC 9113, section 5.1).
#[derive(Debug)]
pub(in crate::proxy) struct RequestStreams {
    /// The lowest identifier that the client may use for a new stream.
    next: u32,
    /// The streams that the client has not ended, in ascending order.
    unfinished: VecDeque<u32>,
    /// Below this identifier, it is not known which streams the client has ended.
    unknown_below: u32,
    heads: HeadReader,
    /// The current header block is the head of a request.
    is_head: bool,
    /// The client has reduced the table of header blocks that are sent to it.
    pub(in crate::proxy) has_reduced_table: bool,
}

impl Default for RequestStreams {
    fn default() -> Self {
        RequestStreams {
            next: 1,
            unfinished: VecDeque::new(),
            unknown_below: 0,
            heads: HeadReader::default(),
            is_head: false,
            has_reduced_table: false,
        }
    }
}

impl Streams for RequestStreams {
    const READS_WHOLE: bool = true;

    fn read_whole(&mut self, frame: &FrameHeader, payload: &[u8]) -> &'static [u8] {
        if frame.kind == SETTINGS {
            self.has_reduced_table |= reduces_table(payload);
            return &[];
        }
        if frame.kind == HEADERS {
            self.is_head = frame.stream >= self.next;
        }
        // The fields of trailers change the table, but what is to be found in heads is an error of its own in trailers.
        let rejection = self.heads.read(frame, payload);
        if self.is_head { rejection } else { &[] }
    }

    fn examine(&mut self, frame: &FrameHeader) -> FrameAction {
        let stream = frame.stream;
        match frame.kind {
            // An even identifier is a connection error whatever the frame contains.
            HEADERS if !stream.is_multiple_of(2) => {
                if stream >= self.next {
                    self.open(stream, frame.has(END_STREAM));
                } else if stream < self.unknown_below || self.unfinished.binary_search(&stream).is_ok() {
                    return FrameAction::MarkTrailers;
                }
            }
            DATA if frame.has(END_STREAM) => self.end(stream),
            RST_STREAM => self.end(stream),
            _ => {}
        }
        FrameAction::Pass
    }

    fn end_with_trailers(&mut self, stream: u32) {
        self.end(stream);
    }
}

impl RequestStreams {
    fn open(&mut self, stream: u32, is_ended: bool) {
        self.next = stream + 2;
        if is_ended {
            return;
        }
        if self.unfinished.len() == MAX_UNFINISHED
            && let Some(oldest) = self.unfinished.pop_front()
        {
            self.unknown_below = oldest + 1;
        }
        self.unfinished.push_back(stream);
    }

    fn end(&mut self, stream: u32) {
        if let Ok(index) = self.unfinished.binary_search(&stream) {
            self.unfinished.remove(index);
        }
    }
}

/// How many streams are kept that the client has not ended: more than can be open. Clients that are reset by Portico
/// need not end theirs. A header block on a stream that is no longer kept counts as trailers.
const MAX_UNFINISHED: usize = 1024;

#[cfg(test)]
mod tests {
    use FrameAction::{MarkTrailers, Pass};

    use super::*;

    fn examine_frame(streams: &mut RequestStreams, kind: u8, flags: u8, stream: u32) -> FrameAction {
        let action = streams.examine(&FrameHeader { length: 1, kind, flags, stream });
        if action == MarkTrailers {
            streams.end_with_trailers(stream);
        }
        action
    }

    fn examine(streams: &mut RequestStreams, stream: u32) -> FrameAction {
        streams.examine(&FrameHeader { length: 1, kind: HEADERS, flags: 0, stream })
    }

    #[test]
    fn only_streams_that_were_opened_have_trailers() {
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
    fn streams_that_the_client_has_ended_have_no_trailers() {
        for (what, kind, flags) in
            [("data", DATA, END_STREAM), ("trailers", HEADERS, END_STREAM), ("a reset", RST_STREAM, 0)]
        {
            let mut streams = RequestStreams::default();
            for stream in [1, 3, 5] {
                assert_eq!(examine(&mut streams, stream), Pass);
            }
            examine_frame(&mut streams, DATA, 0, 3);
            examine_frame(&mut streams, kind, flags, 3);
            assert_eq!(
                [1, 3, 5].map(|stream| examine(&mut streams, stream)),
                [MarkTrailers, Pass, MarkTrailers],
                "{what}"
            );
        }
        let mut streams = RequestStreams::default();
        examine_frame(&mut streams, HEADERS, END_STREAM, 1);
        assert_eq!(examine(&mut streams, 1), Pass, "the head");
    }

    #[test]
    fn client_that_ends_no_streams_uses_little_memory() {
        let mut streams = RequestStreams::default();
        for number in 0..10_000 {
            assert_eq!(examine(&mut streams, 1 + 2 * number), Pass);
        }
        assert_eq!(streams.unfinished.len(), MAX_UNFINISHED);
        assert_eq!(examine(&mut streams, 1), MarkTrailers, "an old stream may have trailers");
        assert_eq!(examine(&mut streams, 1 + 2 * 9_999), MarkTrailers);
        examine_frame(&mut streams, RST_STREAM, 0, 1 + 2 * 9_999);
        assert_eq!(examine(&mut streams, 1 + 2 * 9_999), Pass);
    }

    #[test]
    fn only_heads_are_rejected() {
        let fragment = b"\x44\x03/#a";
        let read = |streams: &mut RequestStreams, stream| {
            let frame = FrameHeader { length: fragment.len(), kind: HEADERS, flags: 0x4, stream };
            let is_rejected = !streams.read_whole(&frame, fragment).is_empty();
            streams.examine(&frame);
            is_rejected
        };
        let mut streams = RequestStreams::default();
        assert!(read(&mut streams, 1));
        assert!(!read(&mut streams, 1), "trailers");
        assert!(read(&mut streams, 3));
    }
}
