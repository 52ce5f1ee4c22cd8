//! Makes the HTTP/2 library reject trailers with pseudo-header fields, as RFC 9113, section 8.1 requires.
//!
//! The library ignores them in trailers, but not after a regular field: there they are malformed, and it resets the
//! stream. So each block of trailers gets a regular field at its beginning, [`MARKER`], before the library reads it;
//! the readers of bodies remove the field. The library decodes the block, so this also covers fields whose names are in
//! the dynamic table or Huffman-coded.
//!
//! ```text
//!   HEADERS with trailers:  length | … | pad length | priority | table size updates | ▲ fields | padding
//!                             + 1                                                   MARKER
//! ```
//!
//! All other bytes pass unchanged and uncopied, except the padding of a full frame with trailers. An incomplete frame
//! header waits for its rest, because the length that changes comes before the type and the stream. Which frames have
//! trailers differs between requests and responses: [`Streams`] decides it.
//!
//! Heads of requests that the library must reject get fields at their end; see `rejected_heads.rs`. So the frames of
//! header blocks wait until they are whole.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderName;
use http::header::HOST;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    CONTINUATION, END_HEADERS, FRAME_HEADER, FrameHeader, HEADERS, PADDED, PRIORITY, PRIORITY_LENGTH, SETTINGS,
};

/// The field that is added to trailers. A field that routes a request is not allowed in trailers (RFC 9110, section
/// 6.5.1), so nothing is lost when those of the sender are removed as well.
pub const MARKER_NAME: HeaderName = HOST;
/// The marker as an indexed field: entry 38 of the static table is `host` with an empty value (RFC 7541, appendix A).
const MARKER: u8 = 0x80 | 38;

/// The streams of one direction of a connection.
pub trait Streams {
    /// Whether the frames of header blocks, and SETTINGS frames, are read by `read_whole`.
    const READS_WHOLE: bool = false;

    /// A whole HEADERS, CONTINUATION or SETTINGS frame, before it is examined. Returns the fields with which the head
    /// that ends with it is rejected, or none.
    fn read_whole(&mut self, _frame: &FrameHeader, _payload: &[u8]) -> &'static [u8] {
        &[]
    }

    /// What to do with a frame. It is called again for a frame with trailers of which more has arrived, so that such a
    /// frame must not change the state.
    fn examine(&mut self, frame: &FrameHeader) -> FrameAction;

    /// The fields of a frame that was to be read, or the beginning of them that has arrived. Returns whether they
    /// suffice.
    fn read_fields(&mut self, _frame: &FrameHeader, _fields: &[u8]) -> bool {
        true
    }

    /// The trailers of this stream pass, and end it.
    fn end_with_trailers(&mut self, _stream: u32) {}
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameAction {
    Pass,
    /// A HEADERS or GOAWAY frame passes after its first fields were read.
    ReadFields,
    /// A HEADERS frame begins a block of trailers, and gets the marker.
    MarkTrailers,
}

/// Reads frames, and adds the marker to trailers.
#[derive(Debug)]
pub struct TrailerMarker<T> {
    /// Remaining bytes of the preface or of a frame's payload, which pass unchanged.
    skip: usize,
    /// Remaining bytes of padding, which do not pass.
    discard: usize,
    pub streams: T,
    /// The result of `read_whole` for a frame that has not passed yet.
    rejection: Option<&'static [u8]>,
    /// The incomplete beginning of a frame, up to where the marker may have to be added.
    incomplete: Vec<u8>,
    /// Bytes to pass on before more are read.
    output: Vec<u8>,
}

/// How much of the received bytes can pass.
enum Step {
    /// This many bytes pass unchanged.
    Unchanged(usize),
    /// The frame begins a block of trailers. The marker belongs after this many bytes of it.
    Trailers { frame: FrameHeader, count: usize },
    /// The whole frame is there. It ends a head that gets these fields.
    Rejected { frame: FrameHeader, fields: &'static [u8] },
    /// This many bytes of padding do not pass.
    Discarded(usize),
    /// More bytes of the frame are necessary.
    Incomplete,
}

impl<T: Streams> TrailerMarker<T> {
    /// `preface` is how many bytes precede the first frame.
    pub fn new(streams: T, preface: usize) -> Self {
        TrailerMarker {
            skip: preface,
            discard: 0,
            streams,
            rejection: None,
            incomplete: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Whether a part of a HEADERS, CONTINUATION or SETTINGS frame waits for the rest of it.
    pub fn is_frame_incomplete(&self) -> bool {
        self.incomplete.len() >= FRAME_HEADER
    }

    /// Reads from the other side into `buffer`.
    pub fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        // Without new bytes in the buffer, the connection would count as closed.
        while self.output.is_empty() {
            ready!(Pin::new(&mut *stream).poll_read(cx, buffer))?;
            let received = &buffer.filled()[before..];
            if received.is_empty() {
                // The connection has ended. The library reports an incomplete frame.
                self.output = std::mem::take(&mut self.incomplete);
                break;
            }
            let passed = if self.incomplete.is_empty() { self.pass_unchanged(received) } else { 0 };
            if passed < received.len() {
                self.incomplete.extend_from_slice(&received[passed..]);
                self.rewrite();
                buffer.set_filled(before + passed);
            }
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let passed = self.output.len().min(buffer.remaining());
        buffer.put_slice(&self.output[..passed]);
        self.output.drain(..passed);
        if self.output.is_empty() {
            // An idle connection has no buffers.
            self.output = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// How many of these bytes pass before the first frame that is incomplete or contains trailers.
    fn pass_unchanged(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while let Some(rest @ [_, ..]) = bytes.get(passed..)
            && let Step::Unchanged(count) = self.step(rest)
        {
            passed += count;
        }
        passed
    }

    /// Moves what can pass from `incomplete` to `output`.
    fn rewrite(&mut self) {
        let received = std::mem::take(&mut self.incomplete);
        let mut rest = &received[..];
        while !rest.is_empty() {
            match self.step(rest) {
                Step::Unchanged(count) => {
                    self.output.extend_from_slice(&rest[..count]);
                    rest = &rest[count..];
                }
                Step::Rejected { frame, fields } => {
                    self.rejection = None;
                    // A head opens its stream, whatever becomes of it.
                    self.streams.examine(&frame);
                    let (whole, others) = rest.split_at(FRAME_HEADER + frame.length);
                    write_rejected(&frame, &whole[FRAME_HEADER..], fields, &mut self.output);
                    rest = others;
                }
                Step::Trailers { frame, count } => {
                    self.rejection = None;
                    self.streams.end_with_trailers(frame.stream);
                    self.skip = FRAME_HEADER + frame.length - count;
                    // A full frame would become too long, so its fields continue in a frame of their own. Its padding
                    // does not pass, because CONTINUATION frames have none.
                    if frame.length == MAX_FRAME {
                        let mut start = FRAME_HEADER;
                        if frame.has(PADDED) {
                            self.discard = usize::from(rest[FRAME_HEADER]);
                            self.skip -= self.discard;
                            start += 1;
                        }
                        let marked = FrameHeader {
                            length: count - start + 1,
                            flags: frame.flags & !(END_HEADERS | PADDED),
                            ..frame
                        };
                        let flags = frame.flags & END_HEADERS;
                        let others = FrameHeader { kind: CONTINUATION, length: self.skip, flags, ..frame };
                        marked.write(&mut self.output);
                        self.output.extend_from_slice(&rest[start..count]);
                        self.output.push(MARKER);
                        others.write(&mut self.output);
                    } else {
                        FrameHeader { length: frame.length + 1, ..frame }.write(&mut self.output);
                        self.output.extend_from_slice(&rest[FRAME_HEADER..count]);
                        self.output.push(MARKER);
                    }
                    rest = &rest[count..];
                }
                Step::Discarded(count) => {
                    self.discard -= count;
                    rest = &rest[count..];
                }
                Step::Incomplete => break,
            }
        }
        self.incomplete.extend_from_slice(rest);
    }

    /// Examines the beginning of `bytes`, which are not empty. Only bytes that pass unchanged change the state, so that
    /// others can be examined again.
    fn step(&mut self, bytes: &[u8]) -> Step {
        if self.skip > 0 {
            let count = self.skip.min(bytes.len());
            self.skip -= count;
            return Step::Unchanged(count);
        }
        if self.discard > 0 {
            return Step::Discarded(self.discard.min(bytes.len()));
        }
        let Some(frame) = FrameHeader::parse(bytes) else { return Step::Incomplete };
        // The library rejects a longer frame, and with it the connection.
        if T::READS_WHOLE && matches!(frame.kind, HEADERS | CONTINUATION | SETTINGS) && frame.length <= MAX_FRAME {
            let Some(payload) = bytes.get(FRAME_HEADER..FRAME_HEADER + frame.length) else { return Step::Incomplete };
            let fields = match self.rejection {
                Some(fields) => fields,
                None => *self.rejection.insert(self.streams.read_whole(&frame, payload)),
            };
            if !fields.is_empty() {
                return Step::Rejected { frame, fields };
            }
        }
        let action = self.streams.examine(&frame);
        if action != FrameAction::Pass && frame.length <= MAX_FRAME {
            let payload = &bytes[FRAME_HEADER..];
            match first_field(&frame, payload) {
                FirstField::At { position, .. } if action == FrameAction::MarkTrailers => {
                    return Step::Trailers { frame, count: FRAME_HEADER + position };
                }
                FirstField::At { position, end } => {
                    let fields = &payload[position..end.min(payload.len())];
                    if !self.streams.read_fields(&frame, fields) && fields.len() < end - position {
                        return Step::Incomplete;
                    }
                }
                FirstField::Unknown => return Step::Incomplete,
                FirstField::Malformed => {}
            }
        }
        self.rejection = None;
        self.skip = frame.length;
        Step::Unchanged(FRAME_HEADER)
    }
}

/// Writes the last frame of a head with the fields that reject it.
///
/// They belong in the same frame. If the head is malformed without them, the library resets its stream after the first
/// frame, and a frame that continued it would be an error of the connection. So only a full frame gets another one. The
/// padding does not pass, to make room.
fn write_rejected(frame: &FrameHeader, payload: &[u8], fields: &[u8], output: &mut Vec<u8>) {
    let mut block = payload;
    let mut flags = frame.flags;
    if frame.kind == HEADERS && frame.has(PADDED) {
        let unpadded = payload.split_first().and_then(|(padding, block)| {
            let length = block.len().checked_sub(usize::from(*padding))?;
            block.get(..length)
        });
        let Some(unpadded) = unpadded else {
            // The library ends the connection because of a padding that is longer than the frame, which must not become
            // long enough for it.
            frame.write(output);
            output.extend_from_slice(payload);
            return;
        };
        block = unpadded;
        flags &= !PADDED;
    }
    let (kind, stream, length) = (frame.kind, frame.stream, block.len() + fields.len());
    if length <= MAX_FRAME {
        FrameHeader { length, kind, flags, stream }.write(output);
        output.extend_from_slice(block);
    } else {
        FrameHeader { length: block.len(), kind, flags: flags & !END_HEADERS, stream }.write(output);
        output.extend_from_slice(block);
        FrameHeader { length: fields.len(), kind: CONTINUATION, flags: END_HEADERS, stream }.write(output);
    }
    output.extend_from_slice(fields);
}

/// Where the fields begin in the payload of a HEADERS frame, and the marker belongs.
enum FirstField {
    /// The fields end at `end`.
    At { position: usize, end: usize },
    /// More bytes of the payload are necessary.
    Unknown,
    /// The payload is shorter than its parts; the library rejects the frame.
    Malformed,
}

/// Finds the first field in the payload of a HEADERS frame; `payload` is the beginning that has arrived. Updates of the
/// dynamic table's size come before all fields (RFC 7541, section 4.2).
fn first_field(frame: &FrameHeader, payload: &[u8]) -> FirstField {
    let length = frame.length;
    let mut start = 0;
    let mut padding = 0;
    if frame.has(PADDED) {
        match payload.first() {
            Some(pad_length) if length > 0 => (start, padding) = (1, usize::from(*pad_length)),
            _ if length > 0 => return FirstField::Unknown,
            _ => return FirstField::Malformed,
        }
    }
    if frame.has(PRIORITY) {
        start += PRIORITY_LENGTH;
    }
    let Some(end) = length.checked_sub(padding).filter(|end| *end >= start) else { return FirstField::Malformed };
    let limit = end.min(start + MAX_SIZE_UPDATES);
    let mut position = start;
    let mut continues = false;
    while position < limit {
        let Some(byte) = payload.get(position) else { return FirstField::Unknown };
        if continues {
            continues = byte & 0x80 != 0;
        } else if byte & SIZE_UPDATE_MASK == SIZE_UPDATE {
            continues = byte & !SIZE_UPDATE_MASK == !SIZE_UPDATE_MASK;
        } else {
            break;
        }
        position += 1;
    }
    if payload.len() < start {
        FirstField::Unknown
    } else if continues || position - start == MAX_SIZE_UPDATES {
        // Encoders send at most two updates, each in one piece. The library rejects updates after the marker. Within an
        // update, the marker would be a part of it.
        FirstField::At { position: start, end }
    } else {
        FirstField::At { position, end }
    }
}

/// The largest frame that the library accepts: it announces no other than the default (RFC 9113, section 6.5.2).
const MAX_FRAME: usize = 16 * 1024;
/// An update of the dynamic table's size begins with these three bits.
const SIZE_UPDATE_MASK: u8 = 0b1110_0000;
const SIZE_UPDATE: u8 = 0b0010_0000;
/// How many bytes are searched for the end of the size updates: more than two of the longest ones.
const MAX_SIZE_UPDATES: usize = 12;

#[cfg(test)]
mod tests {
    use super::super::{DATA, END_STREAM, PREFACE};
    use super::*;

    const END: u8 = END_STREAM | END_HEADERS;

    /// The second HEADERS frame of the only stream has trailers.
    #[derive(Default)]
    struct OneStream {
        has_head: bool,
    }

    impl Streams for OneStream {
        fn examine(&mut self, frame: &FrameHeader) -> FrameAction {
            match frame.kind {
                HEADERS if frame.stream > 1 => FrameAction::Pass,
                HEADERS if std::mem::replace(&mut self.has_head, true) => FrameAction::MarkTrailers,
                _ => FrameAction::Pass,
            }
        }
    }

    /// The fields that reject heads in these tests.
    const FIELDS: &[u8] = &[0x82, 0x86];

    #[test]
    fn fields_that_reject_a_head_are_in_its_last_frame() {
        let full = [0x84; MAX_FRAME];
        let cases: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
            ("a head", frame(HEADERS, END, 1, &[0x84]), frame(HEADERS, END, 1, &[0x84, 0x82, 0x86])),
            ("nothing", frame(HEADERS, END, 1, &[]), frame(HEADERS, END, 1, FIELDS)),
            ("padding", frame(HEADERS, END | PADDED, 1, &[2, 0x84, 0, 0]), frame(HEADERS, END, 1, &[0x84, 0x82, 0x86])),
            (
                "padding and priority",
                frame(HEADERS, END | PADDED | PRIORITY, 1, &[1, 0, 0, 0, 3, 9, 0x84, 0]),
                frame(HEADERS, END | PRIORITY, 1, &[0, 0, 0, 3, 9, 0x84, 0x82, 0x86]),
            ),
            (
                "continued",
                frame(CONTINUATION, END_HEADERS, 1, &[0x84]),
                frame(CONTINUATION, END_HEADERS, 1, &[0x84, 0x82, 0x86]),
            ),
            (
                // CONTINUATION does not have this flag (RFC 9113, section 6.10).
                "a flag without a meaning",
                frame(CONTINUATION, END_HEADERS | PADDED, 1, &[1, 0x84]),
                frame(CONTINUATION, END_HEADERS | PADDED, 1, &[1, 0x84, 0x82, 0x86]),
            ),
            (
                "room for the fields",
                frame(HEADERS, END, 1, &full[2..]),
                frame(HEADERS, END, 1, &[&full[2..], FIELDS].concat()),
            ),
            (
                "a full frame",
                frame(HEADERS, END, 1, &full[1..]),
                [frame(HEADERS, END_STREAM, 1, &full[1..]), frame(CONTINUATION, END_HEADERS, 1, FIELDS)].concat(),
            ),
            (
                "a frame that is full with its padding",
                frame(HEADERS, END | PADDED, 1, &[&[1][..], &full[2..], &[0]].concat()),
                frame(HEADERS, END, 1, &[&full[2..], FIELDS].concat()),
            ),
            (
                "padding longer than the frame",
                frame(HEADERS, END | PADDED, 1, &[9, 0x84]),
                frame(HEADERS, END | PADDED, 1, &[9, 0x84]),
            ),
        ];
        for (what, sent, expected) in cases {
            let header = FrameHeader::parse(&sent).unwrap();
            let mut output = Vec::new();
            write_rejected(&header, &sent[FRAME_HEADER..], FIELDS, &mut output);
            assert_eq!(output, expected, "{what}");
        }
    }

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[length[1], length[2], length[3], kind, flags, 0, 0, 0, stream][..], payload].concat()
    }

    /// A connection that yields one piece for each read.
    struct Pieces<'b>(std::slice::Chunks<'b, u8>);

    impl AsyncRead for Pieces<'_> {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buffer.put_slice(self.0.next().unwrap_or_default());
            Poll::Ready(Ok(()))
        }
    }

    /// What the library reads of these frames, if they arrive in pieces of this size.
    async fn read_in_pieces(bytes: &[u8], size: usize) -> Vec<u8> {
        let mut stream = Pieces(bytes.chunks(size));
        let mut marker = TrailerMarker::new(OneStream::default(), PREFACE.len());
        let mut output = Vec::new();
        loop {
            let mut memory = [0; 64];
            let mut buffer = ReadBuf::new(&mut memory);
            std::future::poll_fn(|cx| marker.poll_read(&mut stream, cx, &mut buffer)).await.unwrap();
            if buffer.filled().is_empty() {
                return output;
            }
            output.extend_from_slice(buffer.filled());
        }
    }

    #[tokio::test]
    async fn marker_precedes_the_fields_of_trailers() {
        let head = frame(HEADERS, 0x4, 1, b"\x82\x86\x84");
        let trailers = |flags: u8, payload: &[u8]| frame(HEADERS, flags, 1, payload);
        let update = [0x3f, 0xe1, 0x1f];
        let cases: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
            ("nothing", trailers(END, &[]), trailers(END, &[MARKER])),
            ("a field", trailers(END, &[0x84]), trailers(END, &[MARKER, 0x84])),
            ("padding", trailers(END | PADDED, &[2, 0x84, 0, 0]), trailers(END | PADDED, &[2, MARKER, 0x84, 0, 0])),
            (
                "padding and priority",
                trailers(END | PADDED | PRIORITY, &[1, 0, 0, 0, 3, 9, 0x84, 0]),
                trailers(END | PADDED | PRIORITY, &[1, 0, 0, 0, 3, 9, MARKER, 0x84, 0]),
            ),
            ("a size update", trailers(END, &[0x20, 0x84]), trailers(END, &[0x20, MARKER, 0x84])),
            (
                "two size updates",
                trailers(END, &[&[0x20][..], &update, &[0x84]].concat()),
                trailers(END, &[&[0x20][..], &update, &[MARKER, 0x84]].concat()),
            ),
            ("a part of a size update", trailers(1, &update[..2]), trailers(1, &[MARKER, 0x3f, 0xe1])),
            (
                "endless size updates",
                trailers(END, &[[0x20; 11], [0x3f; 11]].concat()),
                trailers(END, &[&[MARKER][..], &[0x20; 11], &[0x3f; 11]].concat()),
            ),
            ("padding longer than the frame", trailers(END | PADDED, &[1]), trailers(END | PADDED, &[1])),
            ("no pad length", trailers(END | PADDED, &[]), trailers(END | PADDED, &[])),
            ("half a priority", trailers(END | PRIORITY, &[0, 0]), trailers(END | PRIORITY, &[0, 0])),
            (
                "continued",
                [trailers(1, &[0x84]), frame(CONTINUATION, 4, 1, &[0x84])].concat(),
                [trailers(1, &[MARKER, 0x84]), frame(CONTINUATION, 4, 1, &[0x84])].concat(),
            ),
            (
                "a full frame",
                trailers(END, &[&[0x20][..], &[0x84; MAX_FRAME - 1]].concat()),
                [trailers(END_STREAM, &[0x20, MARKER]), frame(CONTINUATION, END_HEADERS, 1, &[0x84; MAX_FRAME - 1])]
                    .concat(),
            ),
            (
                "a full frame with padding, and the head of the next stream",
                [
                    trailers(END | PADDED, &[&[2, 0x20][..], &[0x84; MAX_FRAME - 4], &[0; 2]].concat()),
                    frame(HEADERS, END, 3, &[0x82]),
                ]
                .concat(),
                [
                    trailers(END_STREAM, &[0x20, MARKER]),
                    frame(CONTINUATION, END_HEADERS, 1, &[0x84; MAX_FRAME - 4]),
                    frame(HEADERS, END, 3, &[0x82]),
                ]
                .concat(),
            ),
            (
                "a full frame with a pad length of zero",
                trailers(END | PADDED, &[&[0][..], &[0x84; MAX_FRAME - 1]].concat()),
                [trailers(END_STREAM, &[MARKER]), frame(CONTINUATION, END_HEADERS, 1, &[0x84; MAX_FRAME - 1])].concat(),
            ),
            ("more than a full frame", trailers(END, &[0x84; MAX_FRAME + 1]), trailers(END, &[0x84; MAX_FRAME + 1])),
            (
                "more than a full frame with padding",
                trailers(END | PADDED, &[0; MAX_FRAME + 1]),
                trailers(END | PADDED, &[0; MAX_FRAME + 1]),
            ),
            ("the head of the next stream", frame(HEADERS, END, 3, &[0x82]), frame(HEADERS, END, 3, &[0x82])),
            ("an incomplete frame", trailers(END, &[0x84])[..9].to_vec(), trailers(END, &[0x84])[..9].to_vec()),
        ];
        let data = frame(DATA, 0, 1, &[0xaa; 100]);
        for (what, sent, expected) in cases {
            let sent = [&PREFACE[..], &head, &data, &sent].concat();
            let expected = [&PREFACE[..], &head, &data, &expected].concat();
            for size in [1, 2, 7, 13, 64] {
                assert_eq!(read_in_pieces(&sent, size).await, expected, "{what}, in pieces of {size}");
            }
        }
    }
}
