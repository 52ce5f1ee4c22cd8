//! The fields of a response as lines, for responses whose fields nothing reads or changes: they are passed on as they
//! were received, without a map.
//!
//! Only plain heads have lines: what is unusual about a head, or concerns more than its two connections, needs the map.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use memchr::memchr_iter;

use super::InvalidMessage;
use super::fields::{FramingFields, LengthField, TransferCodingField, collect_fields, keep_alive_of, list_items};
use super::recycled::{recycle_buffer, take_buffer};

/// The fields of a response as they will be sent: lines `name: value` with names in lower case, without the fields that
/// concern the connection and the framing. While this exists, the map of the response does not have the fields.
#[derive(Debug)]
pub struct ReceivedFields {
    /// With the empty line after them.
    lines: BytesMut,
    /// Content-Length, which is written with the framing of the body.
    pub(super) length: Option<u64>,
    pub(super) has_date: bool,
    pub(super) has_request_id: bool,
}

impl ReceivedFields {
    /// The lines with their ends.
    pub(super) fn lines(&self) -> &[u8] {
        self.lines.strip_suffix(LINE_END).unwrap_or_default()
    }

    /// The map that the fields would be in otherwise, after the fields that concern the connection were removed.
    pub fn into_map(mut self) -> Result<HeaderMap, InvalidMessage> {
        let lines = std::mem::take(&mut self.lines).freeze();
        let mut memory = vec![httparse::EMPTY_HEADER; memchr_iter(b'\n', &lines).count()];
        let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(&lines, &mut memory) else {
            return Err(InvalidMessage::Field);
        };
        let (mut map, _) = collect_fields(&lines, parsed)?;
        if let Some(length) = self.length {
            map.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        Ok(map)
    }
}

impl Drop for ReceivedFields {
    fn drop(&mut self) {
        recycle_buffer(std::mem::take(&mut self.lines));
    }
}

/// The fields of a plain head, and what they say about the connection and the body.
pub(super) struct PlainFields {
    pub(super) fields: ReceivedFields,
    pub(super) framing: FramingFields,
    /// How long the endpoint keeps the connection, if it names a time.
    pub(super) keep_alive: Option<Duration>,
}

impl PlainFields {
    /// Reads the fields of the head of a response that httparse has found in it. None if it is not plain.
    pub(super) fn read(
        head: &[u8],
        status: StatusCode,
        version: Version,
        parsed: &[httparse::Header<'_>],
    ) -> Option<Self> {
        let decides_about_fields =
            !matches!(status.as_u16(), 200..400) || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if decides_about_fields || parsed.len() > MAX_FIELDS {
            return None;
        }
        let start = plain_start(head, parsed)?;
        let mut found = FieldFindings::default();
        // A bit for each field.
        let mut removed: u128 = 0;
        for (index, field) in parsed.iter().enumerate() {
            removed |= u128::from(!found.visit(field)?) << index;
        }
        let has_coding = found.framing.coding.is_some();
        if has_coding && (found.framing.length.is_some() || version == Version::HTTP_10) {
            return None;
        }
        let length = if let Some(LengthField::Bytes(length)) = found.framing.length { Some(length) } else { None };
        let fields = ReceivedFields {
            lines: copied_lines(&head[start..], parsed, removed),
            length,
            has_date: found.has_date,
            has_request_id: found.has_request_id,
        };
        Some(PlainFields { fields, framing: found.framing, keep_alive: found.keep_alive })
    }
}

/// Where the fields begin, if every line of the head is `name: value` CR LF.
///
/// The first line that has another form fails the comparison where it begins, because no name has a colon and no value
/// a CR: so differences of two lines cannot make up for each other.
fn plain_start(head: &[u8], parsed: &[httparse::Header<'_>]) -> Option<usize> {
    let length: usize = parsed.iter().map(line_length).sum();
    let start = head.len().checked_sub(length + LINE_END.len())?;
    let mut rest = head[..start].ends_with(LINE_END).then(|| &head[start..])?;
    for field in parsed {
        rest = rest.get(field.name.len()..)?.strip_prefix(b": ")?.get(field.value.len()..)?.strip_prefix(LINE_END)?;
    }
    (rest == LINE_END).then_some(start)
}

/// The length of a line `name: value` CR LF.
fn line_length(field: &httparse::Header<'_>) -> usize {
    field.name.len() + ": ".len() + field.value.len() + LINE_END.len()
}

/// The lines that are not removed, with the empty line after them.
fn copied_lines(plain: &[u8], parsed: &[httparse::Header<'_>], removed: u128) -> BytesMut {
    let is_removed = |index: usize| removed >> index & 1 == 1;
    let mut lines = take_buffer();
    lines.reserve(plain.len());
    let (mut copied, mut position) = (0, 0);
    for (index, field) in parsed.iter().enumerate() {
        let end = position + line_length(field);
        if is_removed(index) {
            lines.put_slice(&plain[copied..position]);
            copied = end;
        }
        position = end;
    }
    lines.put_slice(&plain[copied..]);
    let mut position = 0;
    for (_, field) in parsed.iter().enumerate().filter(|(index, _)| !is_removed(*index)) {
        lines[position..][..field.name.len()].make_ascii_lowercase();
        position += line_length(field);
    }
    lines
}

/// What was found in the fields so far.
#[derive(Default)]
struct FieldFindings {
    framing: FramingFields,
    keep_alive: Option<Duration>,
    has_date: bool,
    has_request_id: bool,
}

impl FieldFindings {
    /// Whether a field is passed on, instead of being removed. None if it needs a map.
    fn visit(&mut self, field: &httparse::Header<'_>) -> Option<bool> {
        let (name, value) = (field.name.as_bytes(), field.value);
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // For speed: most names have another length.
        match name.len() {
            2 if is("te") => None,
            4 => {
                self.has_date |= is("date");
                Some(true)
            }
            7 if is("trailer") || is("upgrade") => None,
            10 if is("connection") => {
                self.framing.read(&CONNECTION, value);
                let is_permitted =
                    |option: &[u8]| option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"keep-alive");
                list_items(value).all(is_permitted).then_some(false)
            }
            10 if is("keep-alive") => {
                self.keep_alive = self.keep_alive.into_iter().chain(keep_alive_of(value)).min();
                Some(false)
            }
            11 if is("grpc-status") => None,
            12 if is("content-type") => (!is_grpc(value)).then_some(true),
            12 => {
                self.has_request_id |= is("x-request-id");
                Some(true)
            }
            14 if is("content-length") => {
                let is_canonical = value == b"0" || !value.starts_with(b"0");
                let is_first = self.framing.length.is_none();
                self.framing.read(&CONTENT_LENGTH, value);
                let is_number = matches!(self.framing.length, Some(LengthField::Bytes(_)));
                (is_first && is_canonical && is_number).then_some(false)
            }
            16 if is("proxy-connection") => None,
            17 if is("transfer-encoding") => {
                let is_first = self.framing.coding.is_none();
                self.framing.read(&TRANSFER_ENCODING, value);
                let is_chunked = self.framing.coding == Some(TransferCodingField::Chunked);
                (is_first && is_chunked && value.eq_ignore_ascii_case(b"chunked")).then_some(false)
            }
            _ => Some(true),
        }
    }
}

/// Whether a Content-Type is that of a gRPC call, whose status is in the head if it has no body.
fn is_grpc(content_type: &[u8]) -> bool {
    content_type.get(..GRPC.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(GRPC))
}

const LINE_END: &[u8] = b"\r\n";
const GRPC: &[u8] = b"application/grpc";
/// As many as `u128` has bits.
const MAX_FIELDS: usize = 128;
