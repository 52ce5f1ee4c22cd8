//! `100 Continue` over HTTP/2, for clients that wait for it before they send a body (RFC 9110, section 10.1.1).
//!
//! The library cannot send informational responses. So their frames are written between those of the library, when the
//! body is read and has not arrived:
//!
//! ```text
//!   RequestBody ─ request ─▶ Continuations ─ take_due ─▶ InterimFrames, between two frames ─▶ socket
//!   the library's frames ── record_written: a response has begun, so none follows ──┘
//! ```
//!
//! The status is a literal that changes no dynamic table. If the client has reduced the size of its table, the next
//! header block must begin with that size, which only the library knows; such clients get no `100 Continue`, and send
//! the body after a while, as with servers that do not support it.

use std::cell::{Cell, RefCell};
use std::task::Waker;

use crate::http2_frames::{CONTINUATION, END_HEADERS, FrameHeader, FrameReader, HEADERS, RST_STREAM};

/// The streams of a connection whose clients expect `100 Continue`.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Continuations {
    streams: RefCell<Vec<Expecting>>,
    has_due: Cell<bool>,
    /// Wakes the connection.
    writer: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug)]
struct Expecting {
    stream: u32,
    is_due: bool,
}

impl Continuations {
    /// The client of this stream waits.
    pub(in crate::proxy) fn expect(&self, stream: u32) {
        self.streams.borrow_mut().push(Expecting { stream, is_due: false });
    }

    pub(in crate::proxy) fn is_expected(&self) -> bool {
        !self.streams.borrow().is_empty()
    }

    /// Whether the client of this stream waits, and is not about to get one.
    pub(in crate::proxy) fn is_awaited(&self, stream: u32) -> bool {
        self.streams.borrow().iter().any(|expecting| expecting.stream == stream && !expecting.is_due)
    }

    pub(in crate::proxy) fn set_writer(&self, waker: &Waker) {
        self.writer.replace(Some(waker.clone()));
    }

    /// The body of this stream is read, and has not arrived.
    pub(in crate::proxy) fn request(&self, stream: u32) {
        let mut streams = self.streams.borrow_mut();
        if let Some(expecting) = streams.iter_mut().find(|expecting| expecting.stream == stream) {
            expecting.is_due = true;
            self.has_due.set(true);
            if let Some(writer) = self.writer.take() {
                writer.wake();
            }
        }
    }

    /// The client of this stream gets none any more: it got one or a response, or the stream has ended.
    pub(in crate::proxy) fn forget(&self, stream: u32) {
        self.streams.borrow_mut().retain(|expecting| expecting.stream != stream);
    }

    /// Takes the streams whose clients must get one now.
    fn take_due(&self, mut use_stream: impl FnMut(u32)) {
        if self.has_due.take() {
            self.streams.borrow_mut().retain(|expecting| {
                if expecting.is_due {
                    use_stream(expecting.stream);
                }
                !expecting.is_due
            });
        }
    }
}

/// Where the frames of the library end, between which others can be written.
#[derive(Debug)]
pub(in crate::proxy) struct InterimFrames {
    written: FrameReader,
    /// The library has written the beginning of a header block.
    is_in_block: bool,
    /// What is still to be written before the next bytes of the library.
    unwritten: Vec<u8>,
}

impl InterimFrames {
    pub(in crate::proxy) fn new() -> Self {
        InterimFrames { written: FrameReader::without_preface(), is_in_block: false, unwritten: Vec::new() }
    }

    /// The library has written these bytes.
    pub(in crate::proxy) fn record_written(&mut self, mut bytes: &[u8], continuations: &Continuations) {
        while !bytes.is_empty() {
            let Some(frame) = self.written.next(&mut bytes) else { return };
            match frame.kind {
                HEADERS | CONTINUATION => self.is_in_block = !frame.has(END_HEADERS),
                _ => {}
            }
            if matches!(frame.kind, HEADERS | RST_STREAM) && continuations.is_expected() {
                continuations.forget(frame.stream);
            }
        }
    }

    /// The bytes to write before the next ones of the library. Those of a frame that was written in part are always
    /// completed; others are only added if they `may_begin`.
    pub(in crate::proxy) fn unwritten(&mut self, continuations: &Continuations, may_begin: bool) -> &[u8] {
        if may_begin && continuations.has_due.get() && self.written.is_between_frames() && !self.is_in_block {
            continuations.take_due(|stream| {
                let header = FrameHeader { length: CONTINUE.len(), kind: HEADERS, flags: END_HEADERS, stream };
                header.write(&mut self.unwritten);
                self.unwritten.extend_from_slice(CONTINUE);
            });
        }
        &self.unwritten
    }

    /// This many of the bytes were written.
    pub(in crate::proxy) fn advance(&mut self, count: usize) {
        self.unwritten.drain(..count);
        if self.unwritten.is_empty() {
            // An idle connection has no buffers.
            self.unwritten = Vec::new();
        }
    }
}

/// `:status: 100`, as a literal without indexing whose name is entry 8 of the static table (RFC 7541, section 6.2.2).
const CONTINUE: &[u8] = b"\x08\x03100";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2_frames::{DATA, END_STREAM};

    fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        FrameHeader { length, kind, flags, stream }.write(&mut bytes);
        bytes.resize(bytes.len() + length, 0xaa);
        bytes
    }

    fn continue_frame(stream: u8) -> Vec<u8> {
        [&[0, 0, 5, HEADERS, END_HEADERS, 0, 0, 0, stream][..], CONTINUE].concat()
    }

    #[test]
    fn frames_are_written_between_those_of_the_library() {
        let frames = [
            frame(4, 0, 0, 6),
            frame(DATA, 0, 1, 100),
            frame(DATA, 0, 1, 0),
            frame(HEADERS, END_STREAM, 1, 10),
            frame(CONTINUATION, 0, 1, 10),
            frame(CONTINUATION, END_HEADERS, 1, 0),
            frame(6, 0, 0, 8),
        ];
        let ends: Vec<usize> = frames
            .iter()
            .scan(0, |end, frame| {
                *end += frame.len();
                Some(*end)
            })
            .collect();
        // Not between the frames of a header block.
        let places = [0, ends[0], ends[1], ends[2], ends[5], ends[6]];
        let bytes = frames.concat();
        for written in 0..=bytes.len() {
            for size in [1, 7, bytes.len()] {
                let continuations = Continuations::default();
                let mut interim = InterimFrames::new();
                for part in bytes[..written].chunks(size) {
                    interim.record_written(part, &continuations);
                }
                continuations.expect(3);
                assert_eq!(interim.unwritten(&continuations, true), b"", "the body is not read");
                continuations.request(3);
                let expected = if places.contains(&written) { continue_frame(3) } else { Vec::new() };
                assert_eq!(interim.unwritten(&continuations, true), expected, "after {written} bytes");
                if expected.is_empty() {
                    interim.record_written(&bytes[written..], &continuations);
                    assert_eq!(interim.unwritten(&continuations, true), continue_frame(3), "later");
                }
                interim.advance(4);
                assert_eq!(interim.unwritten(&continuations, true), &continue_frame(3)[4..]);
                interim.advance(10);
                continuations.request(3);
                assert_eq!(interim.unwritten(&continuations, true), b"", "only one");
            }
        }
    }

    #[test]
    fn none_follows_a_response() {
        for (what, end) in [("a response", frame(HEADERS, END_HEADERS, 3, 10)), ("a reset", frame(RST_STREAM, 0, 3, 4))]
        {
            let continuations = Continuations::default();
            let mut interim = InterimFrames::new();
            [3, 5].into_iter().for_each(|stream| continuations.expect(stream));
            interim.record_written(&end, &continuations);
            [3, 5].into_iter().for_each(|stream| continuations.request(stream));
            assert_eq!(interim.unwritten(&continuations, true), continue_frame(5), "{what}");
        }
        let continuations = Continuations::default();
        continuations.expect(3);
        continuations.request(3);
        continuations.forget(3);
        assert_eq!(InterimFrames::new().unwritten(&continuations, true), b"", "the stream has ended");
    }
}
