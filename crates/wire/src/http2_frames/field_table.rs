//! Reads the fields of HTTP/2 header blocks (RFC 7541), as far as the frame layer decides by them.
//!
//! A field may refer to fields of earlier blocks, in the dynamic table. So this reads all blocks of a client, and keeps
//! of each field in the table its size, and what is known of it.

use std::collections::VecDeque;

use super::huffman;

/// What the frame layer knows of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: FieldName,
    /// The path contains `#`, the method is CONNECT, or the length is not 0.
    pub(super) is_notable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldName {
    Method,
    Path,
    ContentLength,
    Other,
}

/// Why a field cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldError {
    /// The next frame of the block has its rest.
    Incomplete,
    Malformed,
}

/// The dynamic table (RFC 7541, section 2.3.2).
#[derive(Debug)]
pub(super) struct FieldTable {
    /// The newest field first.
    fields: VecDeque<TableField>,
    size: usize,
    max_size: usize,
}

#[derive(Clone, Copy, Debug)]
struct TableField {
    field: Field,
    name_length: usize,
    size: usize,
}

impl Default for FieldTable {
    fn default() -> Self {
        FieldTable { fields: VecDeque::new(), size: 0, max_size: DEFAULT_SIZE }
    }
}

impl FieldTable {
    /// Reads what is next in a block: a field, or None for an update of the table's size. Only if this succeeds, it
    /// takes the bytes and changes the table.
    pub(super) fn read(&mut self, block: &mut &[u8]) -> Result<Option<Field>, FieldError> {
        let mut input = BlockRest(block);
        let first = *block.first().ok_or(FieldError::Incomplete)?;
        let field = match first {
            // The representations of section 6.
            0x80.. => Some(self.known(input.integer(7)?)?.field),
            0x40..0x80 => {
                let read = self.read_literal(&mut input, 6, true)?;
                self.insert(read);
                Some(read.field)
            }
            0x20..0x40 => {
                self.max_size = input.integer(5)?;
                self.evict(0);
                None
            }
            0x00..0x20 => Some(self.read_literal(&mut input, 4, false)?.field),
        };
        *block = input.0;
        Ok(field)
    }

    /// Reads a field with a value of its own. Its size is only needed for the table.
    fn read_literal(&self, input: &mut BlockRest<'_>, prefix: u32, needs_size: bool) -> Result<TableField, FieldError> {
        let index = input.integer(prefix)?;
        let literal_name = if index == 0 { Some(input.string()?) } else { None };
        // Before anything is decoded, because an incomplete field is read again with each frame.
        let value = input.string()?;
        let (name, name_length) = match literal_name {
            Some(text) => {
                // The names to be found are short.
                let (mut start, mut length) = ([0; LONGEST_NAME], 0);
                text.decode(|byte| {
                    if let Some(place) = start.get_mut(length) {
                        *place = byte;
                    }
                    length += 1;
                })?;
                (start.get(..length).map_or(FieldName::Other, name_of), length)
            }
            None => {
                let known = self.known(index)?;
                (known.field.name, known.name_length)
            }
        };
        if !needs_size && name == FieldName::Other {
            return Ok(TableField { field: Field { name, is_notable: false }, name_length, size: 0 });
        }
        let mut length = 0;
        let mut has_number_sign = false;
        let mut start = [0; LONGEST_VALUE];
        value.decode(|byte| {
            has_number_sign |= byte == b'#';
            if let Some(place) = start.get_mut(length) {
                *place = byte;
            }
            length += 1;
        })?;
        let is_text = |text: &[u8]| start.get(..length) == Some(text);
        let is_notable = match name {
            FieldName::Path => has_number_sign,
            FieldName::Method => is_text(b"CONNECT"),
            FieldName::ContentLength => !is_text(b"0"),
            FieldName::Other => false,
        };
        Ok(TableField { field: Field { name, is_notable }, name_length, size: name_length + length + OVERHEAD })
    }

    /// The field with this index in both tables.
    fn known(&self, index: usize) -> Result<TableField, FieldError> {
        let of_static_table = |name: FieldName, name_length: usize| TableField {
            field: Field { name, is_notable: name == FieldName::ContentLength },
            name_length,
            size: 0,
        };
        match index {
            0 => Err(FieldError::Malformed),
            2 | 3 => Ok(of_static_table(FieldName::Method, 7)),
            4 | 5 => Ok(of_static_table(FieldName::Path, 5)),
            28 => Ok(of_static_table(FieldName::ContentLength, 14)),
            1..=STATIC_FIELDS => Ok(of_static_table(FieldName::Other, STATIC_NAME_LENGTHS[index - 1])),
            _ => self.fields.get(index - STATIC_FIELDS - 1).copied().ok_or(FieldError::Malformed),
        }
    }

    /// A field that is larger than the table empties it (section 4.4).
    fn insert(&mut self, field: TableField) {
        self.evict(field.size);
        if field.size <= self.max_size {
            self.size += field.size;
            self.fields.push_front(field);
        }
    }

    /// Removes the oldest fields until there is room for `size` bytes.
    fn evict(&mut self, size: usize) {
        while self.size + size > self.max_size
            && let Some(oldest) = self.fields.pop_back()
        {
            self.size -= oldest.size;
        }
    }
}

fn name_of(name: &[u8]) -> FieldName {
    match name {
        b":method" => FieldName::Method,
        b":path" => FieldName::Path,
        b"content-length" => FieldName::ContentLength,
        _ => FieldName::Other,
    }
}

/// The rest of a block.
struct BlockRest<'b>(&'b [u8]);

impl<'b> BlockRest<'b> {
    fn byte(&mut self) -> Result<u8, FieldError> {
        let (first, rest) = self.0.split_first().ok_or(FieldError::Incomplete)?;
        self.0 = rest;
        Ok(*first)
    }

    /// An integer whose first byte has `prefix` bits of it (section 5.1). The library takes at most five bytes.
    fn integer(&mut self, prefix: u32) -> Result<usize, FieldError> {
        let mask = (1 << prefix) - 1;
        let first = usize::from(self.byte()?) & mask;
        if first < mask {
            return Ok(first);
        }
        let mut value = first;
        for shift in [0, 7, 14, 21] {
            let byte = usize::from(self.byte()?);
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(FieldError::Malformed)
    }

    /// A string (section 5.2).
    fn string(&mut self) -> Result<Text<'b>, FieldError> {
        let first = *self.0.first().ok_or(FieldError::Incomplete)?;
        let length = self.integer(7)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(FieldError::Incomplete)?;
        self.0 = rest;
        Ok(Text { bytes, is_encoded: first & 0x80 != 0 })
    }
}

struct Text<'b> {
    bytes: &'b [u8],
    /// It has the Huffman code.
    is_encoded: bool,
}

impl Text<'_> {
    fn decode(&self, use_byte: impl FnMut(u8)) -> Result<(), FieldError> {
        if self.is_encoded {
            return huffman::decode(self.bytes, use_byte).ok_or(FieldError::Malformed);
        }
        self.bytes.iter().copied().for_each(use_byte);
        Ok(())
    }
}

/// The size of the table if a connection sets no other. The library sets none.
const DEFAULT_SIZE: usize = 4096;
/// What a field counts in addition to its name and value (section 4.1).
const OVERHEAD: usize = 32;
const LONGEST_NAME: usize = "content-length".len();
const LONGEST_VALUE: usize = "CONNECT".len();

const STATIC_FIELDS: usize = 61;

/// The lengths of the names in the static table (appendix A).
#[rustfmt::skip] // A table.
const STATIC_NAME_LENGTHS: [usize; STATIC_FIELDS] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    // accept-charset, accept-encoding, accept-language, accept-ranges, accept, access-control-allow-origin
    14, 15, 15, 13, 6, 27,
    // age, allow, authorization, cache-control, content-disposition, content-encoding, content-language
    3, 5, 13, 13, 19, 16, 16,
    // content-length, content-location, content-range, content-type, cookie, date, etag, expect, expires, from, host
    14, 16, 13, 12, 6, 4, 4, 6, 7, 4, 4,
    // if-match, if-modified-since, if-none-match, if-range, if-unmodified-since, last-modified, link, location
    8, 17, 13, 8, 19, 13, 4, 8,
    // max-forwards, proxy-authenticate, proxy-authorization, range, referer, refresh, retry-after, server, set-cookie
    12, 18, 19, 5, 7, 7, 11, 6, 10,
    // strict-transport-security, transfer-encoding, user-agent, vary, via, www-authenticate
    25, 17, 10, 4, 3, 16,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(table: &mut FieldTable, mut block: &[u8]) -> Result<Vec<Option<Field>>, FieldError> {
        let mut fields = Vec::new();
        while !block.is_empty() {
            fields.push(table.read(&mut block)?);
        }
        Ok(fields)
    }

    #[test]
    fn tables_of_the_specification_have_their_sizes() {
        // RFC 7541, appendix C.4: three requests with the Huffman code.
        let mut table = FieldTable::default();
        let blocks: [(&[u8], usize, usize); 3] = [
            (
                &[0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
                1,
                57,
            ),
            (&[0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], 2, 110),
            (
                &[
                    0x82, 0x87, 0x85, 0xbf, 0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f, 0x89, 0x25,
                    0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf,
                ],
                3,
                164,
            ),
        ];
        for (block, fields, size) in blocks {
            read_all(&mut table, block).unwrap();
            assert_eq!((table.fields.len(), table.size), (fields, size));
        }
    }

    #[test]
    fn names_of_the_static_table_have_their_sizes() {
        for index in 1..=STATIC_FIELDS {
            let mut table = FieldTable::default();
            read_all(&mut table, &[&index_bytes(0x40, 0x3f, index)[..], b"\x01x"].concat()).unwrap();
            let name = STATIC_NAMES[index - 1];
            assert_eq!(table.size, name.len() + 1 + OVERHEAD, "{index}: {name}");
        }
    }

    fn index_bytes(kind: u8, mask: u8, index: usize) -> Vec<u8> {
        let index = u8::try_from(index).unwrap();
        if index < mask { vec![kind | index] } else { vec![kind | mask, index - mask] }
    }

    #[test]
    fn old_fields_leave_the_table() {
        let mut table = FieldTable::default();
        let literal =
            |value: usize| [&[0x40, 1, b'x', 127, u8::try_from(value - 127).unwrap()][..], &vec![b'y'; value]].concat();
        // Each has 33 + 200 bytes, so 17 of them have room.
        for count in 1..40 {
            read_all(&mut table, &literal(200)).unwrap();
            assert_eq!(table.fields.len(), count.min(17));
        }
        assert_eq!(read_all(&mut table, &[0x80 | 62]).unwrap().len(), 1);
        assert_eq!(read_all(&mut table, &[0x80 | 79]), Err(FieldError::Malformed), "there are 17");
        // An update to 466 bytes leaves two, and one to none leaves none.
        read_all(&mut table, &[0x3f, 0xb3, 0x03]).unwrap();
        assert_eq!((table.fields.len(), table.size), (2, 466));
        read_all(&mut table, &[0x20]).unwrap();
        assert_eq!((table.fields.len(), table.size), (0, 0));
        read_all(&mut table, &literal(200)).unwrap();
        assert_eq!(table.fields.len(), 0, "a field larger than the table");
    }

    #[test]
    fn incomplete_fields_change_nothing() {
        let name = huffman::encode(b":path");
        let block = [&[0x40, 0x80 | u8::try_from(name.len()).unwrap()][..], &name, b"\x04/a#b"].concat();
        for length in 0..block.len() {
            let mut table = FieldTable::default();
            let mut part = &block[..length];
            assert_eq!(table.read(&mut part), Err(FieldError::Incomplete), "{length} bytes");
            assert_eq!((table.fields.len(), part.len()), (0, length));
        }
        let field = Field { name: FieldName::Path, is_notable: true };
        assert_eq!(read_all(&mut FieldTable::default(), &block), Ok(vec![Some(field)]));
    }

    #[test]
    fn malformed_fields_are_errors() {
        for (what, block) in [
            ("index 0", &[0x80][..]),
            ("an index beyond the tables", &[0x80 | 62]),
            ("a name beyond the tables", &[0x7f, 0, 1, b'x']),
            ("an integer of six bytes", &[0xff, 0x80, 0x80, 0x80, 0x80, 0]),
            ("an invalid Huffman code", &[0x44, 0x81, 0]),
        ] {
            assert_eq!(read_all(&mut FieldTable::default(), block), Err(FieldError::Malformed), "{what}");
        }
    }

    #[rustfmt::skip] // A table.
    const STATIC_NAMES: [&str; STATIC_FIELDS] = [
        ":authority", ":method", ":method", ":path", ":path", ":scheme", ":scheme", ":status", ":status", ":status",
        ":status", ":status", ":status", ":status", "accept-charset", "accept-encoding", "accept-language",
        "accept-ranges", "accept", "access-control-allow-origin", "age", "allow", "authorization", "cache-control",
        "content-disposition", "content-encoding", "content-language", "content-length", "content-location",
        "content-range", "content-type", "cookie", "date", "etag", "expect", "expires", "from", "host", "if-match",
        "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified", "link", "location",
        "max-forwards", "proxy-authenticate", "proxy-authorization", "range", "referer", "refresh", "retry-after",
        "server", "set-cookie", "strict-transport-security", "transfer-encoding", "user-agent", "vary", "via",
        "www-authenticate",
    ];
}
