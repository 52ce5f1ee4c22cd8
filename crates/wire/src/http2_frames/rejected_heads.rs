//! Finds heads of requests that the HTTP/2 library would accept, and with which it or an endpoint would do harm, and
//! makes it reject them.
//!
//! - A path with a fragment: the library removes the fragment, so that two different paths become one.
//! - CONNECT with a body: the library closes the connection with all its requests.
//!
//! Fields at the end of the block reject the head. So the library decodes the block unchanged, and its dynamic table
//! stays that of the client.

use super::field_table::{FieldError, FieldName, FieldTable};
use super::{CONTINUATION, END_HEADERS, FrameHeader, PADDED, PRIORITY, PRIORITY_LENGTH, RESERVED};

/// The value of the Host field that marks a path with a fragment. A client that sends it gets the same error as for any
/// other invalid host.
pub const FRAGMENT_HOST: &[u8] = b"#";
/// The value of the Host field that marks a head that could not be read, or follows one that could not.
pub const UNREADABLE_HOST: &[u8] = b"?";

/// Reads the header blocks of a client.
#[derive(Debug, Default)]
pub struct HeadReader {
    table: FieldTable,
    /// The beginning of a field that continues in the next frame.
    incomplete: Vec<u8>,
    /// What was found in the current block.
    found: Found,
    /// A block could not be read as the library reads it, so later ones cannot either. The library ends almost all such
    /// connections itself.
    is_lost: bool,
}

#[derive(Debug, Default)]
struct Found {
    fragment: bool,
    connect: bool,
    length: bool,
}

impl HeadReader {
    /// Reads a whole HEADERS or CONTINUATION frame. Returns the fields that are added to the block to reject it, if it
    /// is the head of a request and ends with this frame, or none.
    pub fn read(&mut self, frame: &FrameHeader, payload: &[u8]) -> &'static [u8] {
        if frame.kind != CONTINUATION {
            self.found = Found::default();
            self.incomplete.clear();
            // The library resets the stream and does not decode the block, so its table does not change either.
            if depends_on_itself(frame, payload) {
                return &[];
            }
        }
        match fields_of(frame, payload) {
            Some(fields) if !self.is_lost => self.read_fields(fields),
            _ => self.is_lost = true,
        }
        if !frame.has(END_HEADERS) {
            return &[];
        }
        // The library rejects a block that ends within a field, and with it the connection. Added fields would complete
        // that field instead.
        if !self.incomplete.is_empty() {
            self.is_lost = true;
            return &[];
        }
        let Found { fragment, connect, length } = self.found;
        if self.is_lost {
            UNREADABLE
        } else if fragment {
            FRAGMENT
        } else if connect && length {
            SECOND_METHOD
        } else {
            &[]
        }
    }

    fn read_fields(&mut self, fields: &[u8]) {
        if self.incomplete.is_empty() {
            let rest = self.read_complete_fields(fields);
            self.incomplete.extend_from_slice(rest);
            return;
        }
        let mut joined = std::mem::take(&mut self.incomplete);
        joined.extend_from_slice(fields);
        let rest = self.read_complete_fields(&joined).len();
        joined.drain(..joined.len() - rest);
        self.is_lost |= joined.len() > MAX_INCOMPLETE;
        if !joined.is_empty() && !self.is_lost {
            self.incomplete = joined;
        }
    }

    /// Returns the bytes after the last complete field.
    fn read_complete_fields<'f>(&mut self, mut fields: &'f [u8]) -> &'f [u8] {
        while !fields.is_empty() {
            match self.table.read(&mut fields) {
                Ok(field) => {
                    if let Some(field) = field.filter(|field| field.is_notable) {
                        match field.name {
                            FieldName::Path => self.found.fragment = true,
                            FieldName::Method => self.found.connect = true,
                            FieldName::ContentLength => self.found.length = true,
                            FieldName::Other => {}
                        }
                    }
                }
                Err(FieldError::Incomplete) => return fields,
                Err(FieldError::Malformed) => {
                    self.is_lost = true;
                    return &[];
                }
            }
        }
        &[]
    }
}

/// Whether the frame makes its stream depend on itself.
fn depends_on_itself(frame: &FrameHeader, payload: &[u8]) -> bool {
    let start = usize::from(frame.has(PADDED));
    let priority = payload.get(start..start + PRIORITY_LENGTH).filter(|_| frame.has(PRIORITY));
    let dependency = priority.and_then(|priority| priority.first_chunk());
    dependency.is_some_and(|dependency| u32::from_be_bytes(*dependency) & !RESERVED == frame.stream)
}

/// The part of a header block in a frame. None if the frame is shorter than its parts, which is an error of the
/// connection.
fn fields_of<'p>(frame: &FrameHeader, payload: &'p [u8]) -> Option<&'p [u8]> {
    if frame.kind == CONTINUATION {
        return Some(payload);
    }
    let (padding, mut rest) = match payload {
        [padding, rest @ ..] if frame.has(PADDED) => (usize::from(*padding), rest),
        _ if frame.has(PADDED) => return None,
        _ => (0, payload),
    };
    if frame.has(PRIORITY) {
        rest = rest.get(PRIORITY_LENGTH..)?;
    }
    rest.get(..rest.len().checked_sub(padding)?)
}

/// `host: #`, as a literal whose name is entry 38 of the static table.
const FRAGMENT: &[u8] = &[0x0f, 38 - 0x0f, 1, FRAGMENT_HOST[0]];
/// `host: ?`, in the same form.
const UNREADABLE: &[u8] = &[0x0f, 38 - 0x0f, 1, UNREADABLE_HOST[0]];
/// `:method: GET`, entry 2 of the static table. A second method makes a head malformed.
const SECOND_METHOD: &[u8] = &[0x82];
/// More than the library takes of a header block.
const MAX_INCOMPLETE: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::super::huffman;
    use super::super::{END_STREAM, HEADERS};
    use super::*;

    const END: u8 = END_STREAM | END_HEADERS;

    /// A literal of this kind: 0x40 enters the table, 0 and 0x10 do not.
    fn literal(kind: u8, name: &[u8], value: &[u8], is_encoded: bool) -> Vec<u8> {
        let string = |text: &[u8]| {
            let (flag, bytes) = if is_encoded { (0x80, huffman::encode(text)) } else { (0, text.to_vec()) };
            [&[flag | u8::try_from(bytes.len()).unwrap()][..], &bytes].concat()
        };
        [&[kind][..], &string(name), &string(value)].concat()
    }

    fn read(reader: &mut HeadReader, kind: u8, flags: u8, payload: &[u8]) -> &'static [u8] {
        reader.read(&FrameHeader { length: payload.len(), kind, flags, stream: 1 }, payload)
    }

    #[test]
    fn fragments_are_found_in_all_forms_of_a_path() {
        for path in [&b"/a#b"[..], b"/#", b"#", b"/a?b#c", b"/%23#"] {
            for kind in [0x40, 0, 0x10] {
                for is_encoded in [false, true] {
                    let field = literal(kind, b":path", path, is_encoded);
                    let what = format!("{path:?} as {field:x?}");
                    assert_eq!(read(&mut HeadReader::default(), HEADERS, END, &field), FRAGMENT, "{what}");
                    // In two frames, divided at each byte.
                    for middle in 0..=field.len() {
                        let mut reader = HeadReader::default();
                        assert_eq!(read(&mut reader, HEADERS, END_STREAM, &field[..middle]), b"", "{what}");
                        let rest = &field[middle..];
                        assert_eq!(read(&mut reader, CONTINUATION, END_HEADERS, rest), FRAGMENT, "{what} at {middle}");
                    }
                    let padded = [&[3][..], &field, &[0; 3]].concat();
                    assert_eq!(read(&mut HeadReader::default(), HEADERS, END | PADDED, &padded), FRAGMENT, "{what}");
                    let weighted = [&[0, 0, 0, 0, 3, 9][1..], &field].concat();
                    assert_eq!(
                        read(&mut HeadReader::default(), HEADERS, END | PRIORITY, &weighted),
                        FRAGMENT,
                        "{what}"
                    );
                    // By its index, in a later block, also after another field and an update of the table's size.
                    let mut reader = HeadReader::default();
                    read(&mut reader, HEADERS, END, &field);
                    assert_eq!(read(&mut reader, HEADERS, END, &[0x82]), b"", "{what}");
                    if kind == 0x40 {
                        assert_eq!(read(&mut reader, HEADERS, END, &[0x80 | 62]), FRAGMENT, "{what}");
                        read(&mut reader, HEADERS, END, &literal(0x40, b"x", b"y", is_encoded));
                        assert_eq!(read(&mut reader, HEADERS, END, &[0x80 | 63]), FRAGMENT, "{what}");
                        let by_name = [&[0x0f, 63 - 15, 2][..], b"/#"].concat();
                        assert_eq!(read(&mut reader, HEADERS, END, &by_name), FRAGMENT, "{what}");
                        assert_eq!(read(&mut reader, HEADERS, END, &[0x3f, 0x64, 0x80 | 63]), FRAGMENT, "{what}");
                    }
                }
            }
            for index in [4, 5] {
                let by_name = [&[index, u8::try_from(path.len()).unwrap()][..], path].concat();
                assert_eq!(read(&mut HeadReader::default(), HEADERS, END, &by_name), FRAGMENT, "{path:?}");
            }
        }
    }

    #[test]
    fn other_fields_may_contain_a_number_sign() {
        for name in [&b"x"[..], b"cookie", b":authority", b":scheme", b":patha", b"path", b"referer"] {
            for kind in [0x40, 0, 0x10] {
                for is_encoded in [false, true] {
                    let field = literal(kind, name, b"a#b", is_encoded);
                    let block = [&[0x82, 0x86, 0x84][..], &field].concat();
                    let mut reader = HeadReader::default();
                    assert_eq!(read(&mut reader, HEADERS, END, &block), b"", "{name:?}");
                    if kind == 0x40 {
                        assert_eq!(read(&mut reader, HEADERS, END, &[0x82, 0x86, 0x84, 0x80 | 62]), b"", "{name:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn connect_with_a_length_is_found() {
        let head = |method: &[u8], length: &[u8]| {
            [literal(0x40, b":method", method, true), literal(0, b"content-length", length, false)].concat()
        };
        for (method, length, expected) in [
            (&b"CONNECT"[..], &b"1"[..], SECOND_METHOD),
            (b"CONNECT", b"18446744073709551615", SECOND_METHOD),
            (b"CONNECT", b"0", b""),
            (b"POST", b"1", b""),
            (b"CONNECTS", b"1", b""),
        ] {
            let mut reader = HeadReader::default();
            assert_eq!(read(&mut reader, HEADERS, END_HEADERS, &head(method, length)), expected, "{method:?}");
            let indexed = [&[0x80 | 62][..], &literal(0, b"content-length", length, true)].concat();
            assert_eq!(read(&mut reader, HEADERS, END_HEADERS, &indexed), expected, "{method:?} by its index");
        }
    }

    #[test]
    fn heads_after_one_that_is_read_differently_are_rejected() {
        let itself = [0, 0, 0, 1, 9, 0x82];
        for (what, flags, payload) in [
            ("half a priority", END | PRIORITY, &itself[..4]),
            ("no pad length", END | PADDED, &[]),
            ("more padding than payload", END | PADDED, &[9, 0x82]),
            ("an index beyond the tables", END, &[0x80 | 62]),
            ("a field without its end", END, &[0x44, 9, b'/']),
        ] {
            let mut reader = HeadReader::default();
            read(&mut reader, HEADERS, flags, payload);
            assert_eq!(read(&mut reader, HEADERS, END, &[0x82, 0x86, 0x84]), UNREADABLE, "{what}");
        }
        // The library decodes no block of a stream that depends on itself.
        let mut reader = HeadReader::default();
        assert_eq!(read(&mut reader, HEADERS, END | PRIORITY, &itself), b"");
        assert_eq!(read(&mut reader, HEADERS, END, &[0x82, 0x86, 0x84]), b"");
    }

    /// What was added would be the end of the field, whose value would then hide it.
    #[test]
    fn nothing_is_added_to_a_block_that_ends_within_a_field() {
        let mut fragment = literal(0, b":path", b"/a#b", false);
        fragment.extend_from_slice(&[0x40, 1, b'x', 0x80 | 9, 0x60]);
        for block in [&[0x82, 0x86, 4, 0x80 | 9, 0x60, 0x7f, 0xf5, 0x1f, 0x40][..], &fragment] {
            let mut reader = HeadReader::default();
            assert_eq!(read(&mut reader, HEADERS, END, block), b"");
            let next = read(&mut reader, HEADERS, END, &[0x82, 0x86, 0x84]);
            assert_eq!(next, UNREADABLE, "if the library went on");
        }
    }
}
