//! What the proxy reads of HTTP/2 frames (RFC 9113, section 4.1) in addition to the HTTP/2 library: where they begin,
//! how many there are, where the fields of trailers begin, and which heads the library must not accept.

mod field_table;
mod frame_rates;
mod huffman;
mod rejected_heads;
mod table_size;
mod trailer_marker;

pub use frame_rates::{FrameRates, TooManyFrames};
pub use rejected_heads::{FRAGMENT_HOST, HeadReader, UNREADABLE_HOST};
pub use table_size::reduces_table;
pub use trailer_marker::{FrameAction, MARKER_NAME, Streams, TrailerMarker};

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The length of the payload.
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl FrameHeader {
    /// The header at the beginning of these bytes, if all of it is there.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let [length_0, length_1, length_2, kind, flags, stream @ ..] = *bytes.first_chunk::<FRAME_HEADER>()?;
        Some(FrameHeader {
            length: u32::from_be_bytes([0, length_0, length_1, length_2]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & !RESERVED,
        })
    }

    pub fn write(&self, output: &mut Vec<u8>) {
        // The length has three bytes.
        let [.., length_0, length_1, length_2] = self.length.to_be_bytes();
        output.extend_from_slice(&[length_0, length_1, length_2, self.kind, self.flags]);
        output.extend_from_slice(&self.stream.to_be_bytes());
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Finds the frame headers in bytes that arrive in arbitrary parts.
#[derive(Debug)]
pub struct FrameReader {
    /// Remaining bytes of the preface or of a frame's payload.
    skip: usize,
    /// The bytes of the current frame header that have arrived.
    header: [u8; FRAME_HEADER],
    header_length: usize,
}

impl FrameReader {
    /// Reads what a client sends: the preface precedes the frames.
    pub fn with_preface() -> Self {
        FrameReader { skip: PREFACE.len(), header: [0; FRAME_HEADER], header_length: 0 }
    }

    /// Reads what a server sends.
    pub fn without_preface() -> Self {
        FrameReader { skip: 0, ..FrameReader::with_preface() }
    }

    /// Takes bytes up to the end of the next frame header, and returns that header if it is complete.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<FrameHeader> {
        self.skip_payload(bytes);
        let taken = (FRAME_HEADER - self.header_length).min(bytes.len());
        let (taken, rest) = bytes.split_at(taken);
        self.header[self.header_length..self.header_length + taken.len()].copy_from_slice(taken);
        self.header_length += taken.len();
        *bytes = rest;
        if self.header_length < FRAME_HEADER {
            return None;
        }
        self.header_length = 0;
        let header = FrameHeader::parse(&self.header)?;
        self.skip = header.length;
        Some(header)
    }

    /// Takes what has arrived of the preface or of the last frame's payload. Returns how many bytes it took.
    pub fn skip_payload(&mut self, bytes: &mut &[u8]) -> usize {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        *bytes = &bytes[skipped..];
        skipped
    }

    /// How many bytes of the preface or of the last frame are still to be taken.
    pub fn rest_of_frame(&self) -> usize {
        self.skip
    }

    /// Whether the bytes so far end between two frames.
    pub fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.header_length == 0
    }
}

/// What a client sends before its first frame (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113, section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags of DATA, HEADERS and CONTINUATION.
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The length of the priority fields of a HEADERS frame.
const PRIORITY_LENGTH: usize = 5;

const FRAME_HEADER: usize = 9;
const RESERVED: u32 = 1 << 31;
