//! Scans JSON token by token, without building values, and stops at the first violation of a limit.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// The limits of a document. `None` is no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonLimits {
    pub(super) depth: Option<usize>,
    pub(super) array_elements: Option<usize>,
    pub(super) object_entries: Option<usize>,
    /// In characters.
    pub(super) name_length: Option<usize>,
    /// In characters.
    pub(super) string_length: Option<usize>,
    pub(super) allows_duplicates: bool,
}

/// The most open objects and arrays, also without a configured limit: each takes some memory.
pub(super) const MAX_DEPTH: usize = 10_000;

/// What is wrong with a document, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JsonThreat {
    pub(super) kind: ThreatKind,
    pub(super) offset: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ThreatKind {
    Syntax,
    Depth,
    ArrayElements,
    ObjectEntries,
    NameLength,
    StringLength,
    DuplicateName,
}

impl fmt::Display for JsonThreat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ThreatKind::Syntax => "the body is not valid JSON",
            ThreatKind::Depth => "too many nested objects and arrays",
            ThreatKind::ArrayElements => "an array with too many elements",
            ThreatKind::ObjectEntries => "an object with too many entries",
            ThreatKind::NameLength => "a name that is too long",
            ThreatKind::StringLength => "a string that is too long",
            ThreatKind::DuplicateName => "two entries with the same name",
        };
        write!(formatter, "{what}, at byte {}", self.offset)
    }
}

/// Checks a document, which must be exactly one JSON value (RFC 8259) in UTF-8.
pub(super) fn scan(body: &[u8], limits: &JsonLimits) -> Result<(), JsonThreat> {
    if let Err(error) = std::str::from_utf8(body) {
        return Err(JsonThreat { kind: ThreatKind::Syntax, offset: error.valid_up_to() });
    }
    Scanner { body, position: 0, limits, open: Vec::new() }.document()
}

struct Scanner<'b> {
    body: &'b [u8],
    position: usize,
    limits: &'b JsonLimits,
    open: Vec<Container<'b>>,
}

/// An open array or object.
enum Container<'b> {
    Array { elements: usize },
    Object { entries: usize, names: HashSet<Cow<'b, [u8]>> },
}

impl<'b> Scanner<'b> {
    fn document(mut self) -> Result<(), JsonThreat> {
        self.skip_space();
        self.value()?;
        while !self.open.is_empty() {
            self.skip_space();
            self.next_in_container()?;
        }
        self.skip_space();
        if self.position == self.body.len() { Ok(()) } else { Err(self.syntax()) }
    }

    /// Reads what follows a value in the innermost container, up to the end of the next value or of the container. A
    /// nested container is left open.
    fn next_in_container(&mut self) -> Result<(), JsonThreat> {
        let byte = self.peek();
        let Some(container) = self.open.last_mut() else { return Ok(()) };
        let (is_object, is_first, end) = match container {
            Container::Array { elements } => (false, *elements == 0, b']'),
            Container::Object { entries, .. } => (true, *entries == 0, b'}'),
        };
        if byte == Some(end) {
            self.position += 1;
            self.open.pop();
            return Ok(());
        }
        if !is_first {
            if byte != Some(b',') {
                return Err(self.syntax());
            }
            self.position += 1;
            self.skip_space();
        }
        self.count_entry()?;
        if is_object {
            self.name()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.syntax());
            }
            self.position += 1;
            self.skip_space();
        }
        self.value()
    }

    fn count_entry(&mut self) -> Result<(), JsonThreat> {
        let (count, limit, kind) = match self.open.last_mut() {
            Some(Container::Array { elements }) => (elements, self.limits.array_elements, ThreatKind::ArrayElements),
            Some(Container::Object { entries, .. }) => (entries, self.limits.object_entries, ThreatKind::ObjectEntries),
            None => return Ok(()),
        };
        *count += 1;
        let is_exceeded = limit.is_some_and(|limit| *count > limit);
        if is_exceeded { Err(self.threat(kind)) } else { Ok(()) }
    }

    fn name(&mut self) -> Result<(), JsonThreat> {
        let start = self.position;
        let string = self.string(self.limits.name_length, ThreatKind::NameLength)?;
        if self.limits.allows_duplicates {
            return Ok(());
        }
        let name = if string.has_escapes { Cow::Owned(unescape(string.raw)) } else { Cow::Borrowed(string.raw) };
        if let Some(Container::Object { names, .. }) = self.open.last_mut()
            && !names.insert(name)
        {
            return Err(JsonThreat { kind: ThreatKind::DuplicateName, offset: start });
        }
        Ok(())
    }

    fn value(&mut self) -> Result<(), JsonThreat> {
        match self.peek() {
            Some(b'{') => self.open_container(Container::Object { entries: 0, names: HashSet::new() }),
            Some(b'[') => self.open_container(Container::Array { elements: 0 }),
            Some(b'"') => self.string(self.limits.string_length, ThreatKind::StringLength).map(|_| ()),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.syntax()),
        }
    }

    fn open_container(&mut self, container: Container<'b>) -> Result<(), JsonThreat> {
        let limit = self.limits.depth.map_or(MAX_DEPTH, |depth| depth.min(MAX_DEPTH));
        if self.open.len() >= limit {
            return Err(self.threat(ThreatKind::Depth));
        }
        self.open.push(container);
        self.position += 1;
        Ok(())
    }

    fn literal(&mut self, literal: &[u8]) -> Result<(), JsonThreat> {
        if !self.body[self.position..].starts_with(literal) {
            return Err(self.syntax());
        }
        self.position += literal.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonThreat> {
        if self.peek() == Some(b'-') {
            self.position += 1;
        }
        match self.peek() {
            Some(b'0') => self.position += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(self.syntax()),
        }
        if self.peek() == Some(b'.') {
            self.position += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.position += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.position += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// One or more digits.
    fn digits(&mut self) -> Result<(), JsonThreat> {
        let start = self.position;
        while let Some(b'0'..=b'9') = self.peek() {
            self.position += 1;
        }
        if self.position > start { Ok(()) } else { Err(self.syntax()) }
    }

    fn string(&mut self, limit: Option<usize>, kind: ThreatKind) -> Result<StringToken<'b>, JsonThreat> {
        let opening = self.position;
        if self.peek() != Some(b'"') {
            return Err(self.syntax());
        }
        self.position += 1;
        let (start, mut characters, mut has_escapes) = (self.position, 0_usize, false);
        loop {
            match self.peek() {
                None | Some(0..=0x1F) => return Err(self.syntax()),
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escapes = true;
                    self.escape()?;
                    characters += 1;
                }
                Some(byte) => {
                    self.position += 1;
                    // Bytes that continue a character of UTF-8.
                    characters += usize::from(byte & 0xC0 != 0x80);
                }
            }
            if limit.is_some_and(|limit| characters > limit) {
                return Err(JsonThreat { kind, offset: opening });
            }
        }
        let raw = &self.body[start..self.position];
        self.position += 1;
        Ok(StringToken { raw, has_escapes })
    }

    fn escape(&mut self) -> Result<(), JsonThreat> {
        match self.body.get(self.position + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.position += 2,
            Some(b'u') => {
                let digits = self.body.get(self.position + 2..self.position + 6).unwrap_or_default();
                if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(self.syntax());
                }
                self.position += 6;
            }
            _ => return Err(self.syntax()),
        }
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.position).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.position += 1;
        }
    }

    fn threat(&self, kind: ThreatKind) -> JsonThreat {
        JsonThreat { kind, offset: self.position }
    }

    fn syntax(&self) -> JsonThreat {
        self.threat(ThreatKind::Syntax)
    }
}

struct StringToken<'b> {
    /// Without the quotes.
    raw: &'b [u8],
    has_escapes: bool,
}

/// The characters of a valid string, so that `"a"` and `"\u0061"` are the same name. A surrogate without its other half
/// becomes three bytes, as if it were a character.
fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    let mut bytes = raw;
    while let Some((byte, rest)) = bytes.split_first() {
        bytes = rest;
        if *byte != b'\\' {
            text.push(*byte);
            continue;
        }
        let Some((escaped, rest)) = bytes.split_first() else { break };
        bytes = rest;
        match escaped {
            b'b' => text.push(8),
            b'f' => text.push(12),
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'u' => {
                let (unit, rest) = code_unit(bytes);
                bytes = rest;
                let mut code = unit;
                if (0xD800..0xDC00).contains(&unit) && bytes.starts_with(br"\u") {
                    let (low, rest) = code_unit(&bytes[2..]);
                    if (0xDC00..0xE000).contains(&low) {
                        code = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                        bytes = rest;
                    }
                }
                match char::from_u32(code) {
                    Some(character) => text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                    None => text.extend([0xED, (code >> 6 & 0x3F | 0x80) as u8, (code & 0x3F | 0x80) as u8]),
                }
            }
            other => text.push(*other),
        }
    }
    text
}

/// Four hexadecimal digits, and what follows them.
fn code_unit(bytes: &[u8]) -> (u32, &[u8]) {
    let (digits, rest) = bytes.split_at(bytes.len().min(4));
    let value = digits.iter().fold(0, |value, digit| value << 4 | char::from(*digit).to_digit(16).unwrap_or(0));
    (value, rest)
}
