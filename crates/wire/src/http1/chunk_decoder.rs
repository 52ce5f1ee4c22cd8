//! Decodes chunked bodies (RFC 9112, section 7.1). Small chunks that arrive together are joined: the sizes of chunks
//! have no meaning, and each piece costs the rest of the proxy as much as a large one.

use std::task::Poll;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use memchr::memchr;

use super::fields::{MAX_LENGTH, collect_fields};
use super::head_end::HeadEnd;
use super::joined_data::JoinedData;
use super::{HeadLimits, InvalidMessage};

#[derive(Debug)]
pub(super) struct ChunkDecoder {
    expected: ExpectedPart,
    /// How many bytes of an incomplete line were examined.
    examined: usize,
    /// Bytes of chunk extensions that the body may still have.
    extensions_left: usize,
    trailer_limits: HeadLimits,
    /// What follows data that was returned.
    after_data: Option<Result<HeaderMap, InvalidMessage>>,
    /// The last data had much more framing.
    has_small_chunks: bool,
    /// So others have their turn before the next frame.
    must_yield: bool,
}

#[derive(Debug)]
enum ExpectedPart {
    Size,
    /// Remaining bytes of a chunk.
    Data(u64),
    /// The line end after the data of a chunk.
    DataEnd,
    Trailers(HeadEnd),
    /// The body has ended.
    Nothing,
    /// The body is invalid, so its end is unknown.
    Invalid,
}

impl ChunkDecoder {
    pub(super) fn new(trailer_limits: HeadLimits) -> Self {
        ChunkDecoder {
            expected: ExpectedPart::Size,
            examined: 0,
            extensions_left: MAX_EXTENSIONS,
            trailer_limits,
            after_data: None,
            has_small_chunks: false,
            must_yield: false,
        }
    }

    /// Whether others should have their turn before the next frame. Asked again, they need not.
    pub(super) fn take_must_yield(&mut self) -> bool {
        std::mem::take(&mut self.must_yield)
    }

    /// Whether what arrived last was mostly framing.
    pub(super) fn has_small_chunks(&self) -> bool {
        self.has_small_chunks
    }

    /// Whether all frames were returned. Never if the body is invalid: what follows it has no meaning.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.expected, ExpectedPart::Nothing) && self.after_data.is_none()
    }

    /// Decodes the next frame. Pending if more bytes are necessary.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Poll<Option<Result<Frame<Bytes>, InvalidMessage>>> {
        let mut data = JoinedData::default();
        let available = input.len();
        if self.after_data.is_none() {
            match self.read(input, &mut data) {
                Ok(trailers) => self.after_data = trailers.map(Ok),
                Err(error) => {
                    self.expected = ExpectedPart::Invalid;
                    self.after_data = Some(Err(error));
                }
            }
        }
        if !data.is_empty() {
            self.has_small_chunks = available - input.len() > 2 * data.len() + MAX_OVERHEAD;
            self.must_yield = self.has_small_chunks;
            return Poll::Ready(Some(Ok(Frame::data(data.take()))));
        }
        match self.after_data.take() {
            Some(outcome) => Poll::Ready(Some(outcome.map(Frame::trailers))),
            None if matches!(self.expected, ExpectedPart::Nothing | ExpectedPart::Invalid) => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// Reads data until it suffices for a frame, and what follows it as far as it has arrived. Returns the trailers.
    fn read(&mut self, input: &mut BytesMut, data: &mut JoinedData) -> Result<Option<HeaderMap>, InvalidMessage> {
        loop {
            match &mut self.expected {
                ExpectedPart::Nothing | ExpectedPart::Invalid => return Ok(None),
                ExpectedPart::Size => {
                    if self.examined == 0 {
                        join_small_chunks(input, data);
                    }
                    let Some(size) = self.read_size(input)? else { return Ok(None) };
                    self.expected = match size {
                        0 => ExpectedPart::Trailers(HeadEnd::default()),
                        size => ExpectedPart::Data(size),
                    };
                }
                ExpectedPart::Data(remaining) => {
                    let available = usize::try_from(*remaining).map_or(input.len(), |size| size.min(input.len()));
                    let is_first = data.is_empty();
                    if available == 0 || !is_first && data.len() + available > MAX_JOINED {
                        return Ok(None);
                    }
                    data.push(input.split_to(available).freeze());
                    *remaining -= available as u64;
                    if *remaining > 0 {
                        return Ok(None);
                    }
                    self.expected = ExpectedPart::DataEnd;
                }
                ExpectedPart::DataEnd => {
                    match &**input {
                        [b'\r', b'\n', ..] => input.advance(2),
                        [] | [b'\r'] => return Ok(None),
                        _ => return Err(InvalidMessage::ChunkEnd),
                    }
                    self.expected = ExpectedPart::Size;
                }
                ExpectedPart::Trailers(end) => {
                    let found = end.find(input);
                    if found.unwrap_or(input.len()) > self.trailer_limits.bytes || end.has_bare_line_feed {
                        return Err(InvalidMessage::Trailers);
                    }
                    let Some(length) = found else { return Ok(None) };
                    let trailers = input.split_to(length).freeze();
                    self.expected = ExpectedPart::Nothing;
                    return if length == LINE_END { Ok(None) } else { self.parse_trailers(&trailers).map(Some) };
                }
            }
        }
    }

    /// Reads the line with the size of a chunk. None if its end has not arrived.
    fn read_size(&mut self, input: &mut BytesMut) -> Result<Option<u64>, InvalidMessage> {
        let Some(position) = memchr(b'\n', &input[self.examined..]) else {
            self.examined = input.len();
            let is_too_long = input.len() > MAX_CHUNK_LINE;
            return if is_too_long { Err(InvalidMessage::LongChunkLine) } else { Ok(None) };
        };
        let line_length = self.examined + position + 1;
        self.examined = 0;
        if line_length > MAX_CHUNK_LINE {
            return Err(InvalidMessage::LongChunkLine);
        }
        let line = input[..line_length].strip_suffix(b"\r\n").ok_or(InvalidMessage::ChunkSize)?;
        let (size, rest) = read_hexadecimal(line).ok_or(InvalidMessage::ChunkSize)?;
        let extensions = trim_blanks(rest);
        let has_other_text = !extensions.is_empty() && extensions[0] != b';';
        if has_other_text || memchr(b'\r', extensions).is_some() {
            return Err(InvalidMessage::ChunkSize);
        }
        let extensions_left = self.extensions_left.checked_sub(extensions.len());
        self.extensions_left = extensions_left.ok_or(InvalidMessage::LongChunkLine)?;
        input.advance(line_length);
        Ok(Some(size))
    }

    fn parse_trailers(&self, trailers: &Bytes) -> Result<HeaderMap, InvalidMessage> {
        let mut fields = vec![httparse::EMPTY_HEADER; self.trailer_limits.fields];
        match httparse::parse_headers(trailers, &mut fields) {
            Ok(httparse::Status::Complete((length, parsed))) if length == trailers.len() => {
                collect_fields(trailers, parsed).map(|(map, _)| map).map_err(|_| InvalidMessage::Trailers)
            }
            _ => Err(InvalidMessage::Trailers),
        }
    }
}

/// Moves the data of complete small chunks without extensions from `input` to `data`. A client that sends a chunk for
/// each byte causes less work so.
fn join_small_chunks(input: &mut BytesMut, data: &mut JoinedData) {
    let mut rest = &**input;
    // A single one is not copied.
    if split_small_chunk(rest).is_none_or(|(_, after)| split_small_chunk(after).is_none()) {
        return;
    }
    let limit = MAX_JOINED.saturating_sub(data.len());
    let mut joined = BytesMut::new();
    while let Some((chunk, after)) = split_small_chunk(rest)
        && joined.len() + chunk.len() <= limit
    {
        joined.extend_from_slice(chunk);
        rest = after;
    }
    if !joined.is_empty() {
        let length = input.len() - rest.len();
        input.advance(length);
        data.push(joined.freeze());
    }
}

/// The data of a small chunk, and what follows it. None for anything else, which is decoded with all checks.
fn split_small_chunk(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut size = 0;
    let mut digits = 0;
    while let Some(digit) = char::from(*input.get(digits)?).to_digit(16) {
        size = size * 16 + digit as usize;
        digits += 1;
        if size > SMALL_CHUNK || digits > MAX_DIGITS {
            return None;
        }
    }
    let (chunk, rest) = input[digits..].strip_prefix(b"\r\n")?.split_at_checked(size)?;
    (size > 0).then_some((chunk, rest.strip_prefix(b"\r\n")?))
}

/// Reads the hexadecimal number at the beginning of a line, and returns what follows it.
fn read_hexadecimal(line: &[u8]) -> Option<(u64, &[u8])> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let number = u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    (number <= MAX_LENGTH).then_some((number, rest))
}

/// Without spaces and tabs at the beginning.
fn trim_blanks(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &line[blanks..]
}

/// Data is joined up to this size.
const MAX_JOINED: usize = 16 * 1024;
/// Bytes of framing for one frame, in addition to as many as it has data, that are not unusual.
const MAX_OVERHEAD: usize = 1024;
/// Chunks up to this size are joined without a look at each.
const SMALL_CHUNK: usize = 1024;
/// The digits of the size of a small chunk; more would be zeros.
const MAX_DIGITS: usize = 3;
/// The longest line with the size of a chunk. It may have any number of zeros, and extensions.
const MAX_CHUNK_LINE: usize = 16 * 1024;
/// The bytes of all chunk extensions of a body.
const MAX_EXTENSIONS: usize = 16 * 1024;
const LINE_END: usize = 2;
