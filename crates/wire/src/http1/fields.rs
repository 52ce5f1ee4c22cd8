//! Header fields: how the map of a head is built, and what some fields say about the framing of a message.

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::InvalidMessage;
use super::known_names::with_known_names;
use super::recycled::take_map;

/// What the fields of a head say about the body and the connection.
#[derive(Debug, Default)]
pub(super) struct FramingFields {
    pub(super) length: Option<LengthField>,
    pub(super) coding: Option<TransferCodingField>,
    /// The Connection field has the option `close`.
    closes: bool,
    /// The Connection field has the option `keep-alive`.
    pub(super) keeps_alive: bool,
    /// There may be fields of a trace: some begin like these.
    pub(super) may_have_trace: bool,
}

/// The Content-Length of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LengthField {
    Bytes(u64),
    NotANumber,
    /// There are several that differ.
    Different,
}

/// The last coding of the Transfer-Encoding of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransferCodingField {
    Chunked,
    Other,
}

impl FramingFields {
    /// Whether the connection can be used for another message after this one (RFC 9112, section 9.3).
    pub(super) fn is_persistent(&self, version: Version) -> bool {
        !self.closes && (version == Version::HTTP_11 || self.keeps_alive)
    }

    /// Reads a field. Returns whether it belongs into the map: of several equal lengths, one is kept.
    pub(super) fn read(&mut self, name: &HeaderName, value: &[u8]) -> bool {
        match *name {
            CONTENT_LENGTH => {
                let length = parse_length(value).map_or(LengthField::NotANumber, LengthField::Bytes);
                match self.length {
                    None => self.length = Some(length),
                    Some(earlier) if earlier == length => return false,
                    Some(LengthField::NotANumber) => {}
                    Some(_) if length == LengthField::NotANumber => self.length = Some(length),
                    Some(_) => self.length = Some(LengthField::Different),
                }
            }
            TRANSFER_ENCODING => {
                let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
                let is_chunked = last.eq_ignore_ascii_case(b"chunked");
                self.coding = Some(if is_chunked { TransferCodingField::Chunked } else { TransferCodingField::Other });
            }
            CONNECTION => {
                for option in list_items(value) {
                    self.closes |= option.eq_ignore_ascii_case(b"close");
                    self.keeps_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
        true
    }
}

/// Builds the map of a head. The values are parts of `head`, which the parsed fields borrow from.
pub(super) fn collect_fields(
    head: &Bytes,
    parsed: &[httparse::Header<'_>],
) -> Result<(HeaderMap, FramingFields), InvalidMessage> {
    let mut map = take_map();
    let mut framing = FramingFields::default();
    map.try_reserve(parsed.len()).map_err(|_| InvalidMessage::TooLarge)?;
    with_known_names(|known| {
        for field in parsed {
            let name = known.get(field.name.as_bytes()).map_err(|_| InvalidMessage::Field)?;
            framing.may_have_trace |= matches!(field.name.as_bytes(), [b't' | b'T', b'r' | b'R', ..]);
            if framing.read(&name, field.value) {
                let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
                let value = value.map_err(|_| InvalidMessage::Field)?;
                map.try_append(name, value).map_err(|_| InvalidMessage::TooLarge)?;
            }
        }
        Ok(())
    })?;
    Ok((map, framing))
}

/// Calls `parse` with memory for `count` parsed fields, on the stack for the usual number.
pub(super) fn with_field_memory<'b, T>(
    count: usize,
    parse: impl FnOnce(&mut [MaybeUninit<httparse::Header<'b>>]) -> T,
) -> T {
    if count <= USUAL_FIELDS {
        let mut memory = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
        parse(&mut memory[..count])
    } else {
        let mut memory = Vec::new();
        memory.resize_with(count, MaybeUninit::uninit);
        parse(&mut memory)
    }
}

/// The error of a head that httparse does not accept.
pub(super) fn parse_error(error: httparse::Error) -> InvalidMessage {
    match error {
        httparse::Error::TooManyHeaders => InvalidMessage::TooLarge,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => InvalidMessage::Field,
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token | httparse::Error::Version => {
            InvalidMessage::FirstLine
        }
    }
}

/// The time in a field `Keep-Alive: timeout=5, max=100`, which names it in seconds (RFC 2068, section 19.7.1.1).
pub(super) fn keep_alive_timeout(fields: &HeaderMap) -> Option<Duration> {
    fields.get_all(KEEP_ALIVE).into_iter().filter_map(|value| keep_alive_of(value.as_bytes())).min()
}

/// The same for the value of one field.
pub(super) fn keep_alive_of(value: &[u8]) -> Option<Duration> {
    let timeouts = list_items(value).filter_map(|item| {
        let (name, seconds) = item.split_at_checked(TIMEOUT.len())?;
        let seconds = name.eq_ignore_ascii_case(TIMEOUT).then(|| seconds.trim_ascii_start().strip_prefix(b"="))??;
        let seconds = parse_length(seconds.trim_ascii())?;
        Some(Duration::from_secs(seconds.min(MAX_KEEP_ALIVE_SECONDS)))
    });
    timeouts.min()
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const TIMEOUT: &[u8] = b"timeout";
/// Longer times than a day have no effect on any timeout, and could exceed the range of the clock.
const MAX_KEEP_ALIVE_SECONDS: u64 = 86_400;

/// The items of a comma-separated list, without empty ones.
pub(super) fn list_items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// Parses a number of bytes: digits without sign or blanks.
pub(super) fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

/// The largest length of a body or chunk. Other implementations need the two larger numbers for other meanings.
pub(super) const MAX_LENGTH: u64 = u64::MAX - 2;

/// The default limit of fields.
const USUAL_FIELDS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_share_the_names_that_come_again() {
        let head = Bytes::from_static(b"X-Number: 1\r\nx-rule: 2\r\nHost: a\r\n\r\n");
        let [first, second] = [(); 2].map(|()| {
            let mut memory = [httparse::EMPTY_HEADER; 3];
            let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(&head, &mut memory) else {
                panic!("the head is complete");
            };
            collect_fields(&head, parsed).unwrap().0
        });
        assert_eq!(first, second);
        for (name, expected) in first.keys().zip(["x-number", "x-rule", "host"]) {
            assert_eq!(name, expected);
        }
        for (name, again) in first.keys().zip(second.keys()) {
            assert_eq!(name.as_str().as_ptr(), again.as_str().as_ptr(), "{name}");
        }
    }

    #[test]
    fn keep_alive_names_a_time_in_seconds() {
        for (values, expected) in [
            (&["timeout=5"][..], Some(5)),
            (&["timeout=5, max=100"], Some(5)),
            (&["max=100,TIMEOUT = 7"], Some(7)),
            (&["timeout=0"], Some(0)),
            // The shortest of several.
            (&["timeout=9", "timeout=3"], Some(3)),
            (&["timeout=99999999999"], Some(MAX_KEEP_ALIVE_SECONDS)),
            (&["timeout=99999999999999999999999"], None),
            (&["timeout=-1"], None),
            (&["timeout=1.5"], None),
            (&["timeout="], None),
            (&["timeout"], None),
            (&["timeouts=5"], None),
            (&["max=100"], None),
            (&[""], None),
            (&[], None),
        ] {
            let mut map = HeaderMap::new();
            for value in values {
                map.append(KEEP_ALIVE, HeaderValue::from_static(value));
            }
            assert_eq!(keep_alive_timeout(&map), expected.map(Duration::from_secs), "{values:?}");
        }
    }
}
