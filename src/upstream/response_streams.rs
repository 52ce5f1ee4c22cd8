//! The socket of an HTTP/2 endpoint: its responses with pseudo-header fields in their trailers are malformed.
//!
//! A response may have informational heads before its final one, so the second block of a stream need not be trailers.
//! Only those with END_STREAM after the final head are:
//!
//! ```text
//!   written:   HEADERS, the request                                    RST_STREAM
//!                 ▼                                                        ▼
//!              awaits head ── final status, or DATA ──▶ receives body ──▶ forgotten
//!   read:         └──────────────── END_STREAM, RST_STREAM ────┴───────────▲
//! ```

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use foldhash::fast::FixedState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http2_frames::{
    DATA, END_STREAM, FrameAction, FrameHeader, FrameReader, HEADERS, RST_STREAM, Streams, TrailerMarker,
};

/// Reads responses, with the marker in their trailers, and observes which streams the requests open and reset.
pub(super) struct ResponseStream<S> {
    stream: S,
    marker: TrailerMarker<ResponseStreams>,
    written: FrameReader,
}

/// The streams whose response is not complete: as many as the connection has requests.
#[derive(Debug, Default)]
struct ResponseStreams {
    newest: u32,
    open: HashMap<u32, ResponseState, FixedState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResponseState {
    AwaitsHead,
    ReceivesBody,
}

impl<S> ResponseStream<S> {
    pub(super) fn new(stream: S) -> Self {
        let marker = TrailerMarker::new(ResponseStreams::default(), NO_PREFACE);
        ResponseStream { stream, marker, written: FrameReader::with_preface() }
    }

    fn record_written(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if let Some(frame) = self.written.next(&mut bytes) {
                self.marker.streams.record_written(&frame);
            }
        }
    }
}

impl ResponseStreams {
    fn record_written(&mut self, frame: &FrameHeader) {
        match frame.kind {
            // Trailers of a request do not open a stream.
            HEADERS if frame.stream > self.newest => {
                self.newest = frame.stream;
                self.open.insert(frame.stream, ResponseState::AwaitsHead);
            }
            RST_STREAM => drop(self.open.remove(&frame.stream)),
            _ => {}
        }
    }

    fn receive_body(&mut self, stream: u32) {
        if let Some(state) = self.open.get_mut(&stream) {
            *state = ResponseState::ReceivesBody;
        }
    }
}

impl Streams for ResponseStreams {
    fn examine(&mut self, frame: &FrameHeader) -> FrameAction {
        let stream = frame.stream;
        match frame.kind {
            HEADERS if frame.has(END_STREAM) => {
                if self.open.get(&stream) == Some(&ResponseState::ReceivesBody) {
                    return FrameAction::MarkTrailers;
                }
                self.open.remove(&stream);
            }
            HEADERS if self.open.get(&stream) == Some(&ResponseState::AwaitsHead) => return FrameAction::ReadFields,
            DATA if frame.has(END_STREAM) => drop(self.open.remove(&stream)),
            DATA => self.receive_body(stream),
            RST_STREAM => drop(self.open.remove(&stream)),
            _ => {}
        }
        FrameAction::Pass
    }

    fn read_fields(&mut self, frame: &FrameHeader, fields: &[u8]) -> bool {
        let head = head_kind(fields);
        if head == Some(HeadKind::Final) {
            self.receive_body(frame.stream);
        }
        head.is_some()
    }

    fn end_with_trailers(&mut self, stream: u32) {
        self.open.remove(&stream);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeadKind {
    Informational,
    Final,
    /// The status is an entry of the dynamic table. DATA shows that the head was the final one; trailers without data
    /// are not examined.
    Unknown,
}

/// Reads the status, which is the first field of a head. None if more bytes are necessary.
fn head_kind(fields: &[u8]) -> Option<HeadKind> {
    let first = *fields.first()?;
    // RFC 7541, section 6: an indexed field, a literal that enters the table, and other literals.
    let (index, is_indexed) = match first {
        0x80.. => (first & 0x7f, true),
        0x40..0x80 => (first & 0x3f, false),
        _ => (first & 0x0f, false),
    };
    // Entries 8 to 14 of the static table have the name `:status`, and values that are final.
    if !(8..=14).contains(&index) {
        return Some(HeadKind::Unknown);
    }
    if is_indexed {
        return Some(HeadKind::Final);
    }
    let (length, value) = (fields.get(1)?, fields.get(2)?);
    let is_huffman_coded = length & 0x80 != 0;
    // The Huffman code of the digit 1 has five bits, 00001.
    let begins_with_1 = if is_huffman_coded { value >> 3 == 1 } else { *value == b'1' };
    Some(if begins_with_1 { HeadKind::Informational } else { HeadKind::Final })
}

impl<S: AsyncRead + Unpin> AsyncRead for ResponseStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.marker.poll_read(&mut this.stream, cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ResponseStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.record_written(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Endpoints send frames only.
const NO_PREFACE: usize = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2_frames::END_HEADERS;

    fn frame(kind: u8, flags: u8, stream: u32) -> FrameHeader {
        FrameHeader { length: 1, kind, flags: flags | END_HEADERS, stream }
    }

    fn with_request(stream: u32) -> ResponseStreams {
        let mut streams = ResponseStreams::default();
        streams.record_written(&frame(HEADERS, 0, stream));
        streams
    }

    #[test]
    fn status_of_a_head_is_informational_or_final() {
        use HeadKind::{Final, Informational, Unknown};
        let cases: [(&[u8], Option<HeadKind>); 14] = [
            (&[0x88], Some(Final)),
            (&[0x8e, 0x40], Some(Final)),
            (b"\x48\x03103", Some(Informational)),
            (b"\x08\x03100", Some(Informational)),
            (b"\x19\x03418", Some(Final)),
            // 103 and 302 in Huffman coding.
            (&[0x48, 0x82, 0x08, 0x19], Some(Informational)),
            (&[0x48, 0x82, 0x64, 0x02], Some(Final)),
            (&[0x80 | 62], Some(Unknown)),
            (&[0x40 | 62], Some(Unknown)),
            (b"\0\x07:status\x03103", Some(Unknown)),
            (&[0x84], Some(Unknown)),
            (&[], None),
            (&[0x48], None),
            (&[0x48, 0x82], None),
        ];
        for (fields, expected) in cases {
            assert_eq!(head_kind(fields), expected, "{fields:x?}");
        }
    }

    #[test]
    fn blocks_after_the_final_head_are_trailers() {
        use FrameAction::{MarkTrailers, Pass, ReadFields};
        let head = frame(HEADERS, 0, 1);
        let end = frame(HEADERS, END_STREAM, 1);
        let mut streams = with_request(1);
        assert_eq!(streams.examine(&head), ReadFields);
        assert!(streams.read_fields(&head, b"\x48\x03103"));
        assert_eq!(streams.examine(&end), Pass, "the final head after an informational one");
        assert_eq!(streams.open.len(), 0);

        let mut streams = with_request(1);
        assert!(streams.read_fields(&head, &[0x88]));
        assert_eq!([streams.examine(&end), streams.examine(&end)], [MarkTrailers; 2], "more of the frame may arrive");
        streams.end_with_trailers(1);
        assert_eq!(streams.examine(&end), Pass, "the stream has ended");

        let mut streams = with_request(1);
        assert!(streams.read_fields(&head, &[0x80 | 62]));
        assert_eq!(streams.examine(&end), Pass, "an unknown status");
        let mut streams = with_request(1);
        streams.examine(&frame(DATA, 0, 1));
        assert_eq!(streams.examine(&end), MarkTrailers, "data follows a final head");
    }

    #[test]
    fn streams_are_forgotten_when_they_end() {
        for (what, end) in [
            ("head", frame(HEADERS, END_STREAM, 1)),
            ("data", frame(DATA, END_STREAM, 1)),
            ("reset", frame(RST_STREAM, 0, 1)),
        ] {
            let mut streams = with_request(1);
            streams.examine(&end);
            assert!(streams.open.is_empty(), "{what}");
            // What still arrives, or is still sent, does not open the stream again.
            streams.examine(&frame(DATA, 0, 1));
            streams.record_written(&frame(HEADERS, END_STREAM, 1));
            assert!(streams.open.is_empty(), "{what}");
        }
        let mut streams = with_request(1);
        streams.record_written(&frame(RST_STREAM, 0, 1));
        assert!(streams.open.is_empty(), "the client has canceled the request");
    }
}
