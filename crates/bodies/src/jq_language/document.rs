//! Reads JSON documents into values, which keep the digits of numbers.

use std::rc::Rc;

use super::value::{JqMembers, JqNumber, JqValue};

impl JqValue {
    /// The value of a document. `None` if it is not valid JSON, is nested too deeply, or has too many values.
    pub(crate) fn from_json(json: &str) -> Option<JqValue> {
        let mut reader = Reader { rest: json, remaining: MAX_VALUES };
        let value = reader.value(0)?;
        reader.skip_space();
        reader.rest.is_empty().then_some(value)
    }
}

/// The deepest nesting of lists and objects.
const MAX_NESTING: usize = 100;

/// Each value takes tens of bytes, whatever the length of its text.
const MAX_VALUES: usize = 200_000;

struct Reader<'j> {
    rest: &'j str,
    remaining: usize,
}

impl<'j> Reader<'j> {
    fn value(&mut self, depth: usize) -> Option<JqValue> {
        self.remaining = self.remaining.checked_sub(1)?;
        self.skip_space();
        match self.rest.as_bytes().first()? {
            b'[' | b'{' if depth >= MAX_NESTING => None,
            b'[' => self.list(depth),
            b'{' => self.object(depth),
            b'"' => self.text().map(JqValue::Text),
            b'n' => self.take("null").map(|()| JqValue::Null),
            b't' => self.take("true").map(|()| JqValue::Boolean(true)),
            b'f' => self.take("false").map(|()| JqValue::Boolean(false)),
            _ => self.number(),
        }
    }

    fn list(&mut self, depth: usize) -> Option<JqValue> {
        self.take("[")?;
        let mut elements = Vec::new();
        if self.ends_with("]") {
            return Some(JqValue::from(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            if self.ends_with("]") {
                return Some(JqValue::from(elements));
            }
            self.take(",")?;
        }
    }

    fn object(&mut self, depth: usize) -> Option<JqValue> {
        self.take("{")?;
        let mut members = JqMembers::new();
        if self.ends_with("}") {
            return Some(JqValue::from(members));
        }
        loop {
            self.skip_space();
            let name = self.text()?;
            self.skip_space();
            self.take(":")?;
            members.insert(name, self.value(depth + 1)?);
            if self.ends_with("}") {
                return Some(JqValue::from(members));
            }
            self.take(",")?;
        }
    }

    fn text(&mut self) -> Option<Rc<str>> {
        let inside = self.rest.strip_prefix('"')?;
        let mut end = 0;
        loop {
            end += memchr::memchr2(b'"', b'\\', &inside.as_bytes()[end..])?;
            if inside.as_bytes()[end] == b'"' {
                break;
            }
            // The character after the backslash is ASCII in valid JSON.
            end += 2;
            if end > inside.len() {
                return None;
            }
        }
        let (quoted, rest) = (&self.rest.get(..end + 2)?, self.rest.get(end + 2..)?);
        let text: String = serde_json::from_str(quoted).ok()?;
        self.rest = rest;
        Some(text.into())
    }

    fn number(&mut self) -> Option<JqValue> {
        let is_part = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
        let end = self.rest.bytes().position(|byte| !is_part(byte)).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        // Rust accepts more than JSON, such as a leading zero.
        serde_json::from_str::<&serde_json::value::RawValue>(text).ok()?;
        let value = text.parse().ok()?;
        self.rest = rest;
        Some(JqValue::Number(JqNumber { value, text: Some(text.into()) }))
    }

    fn take(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    fn ends_with(&mut self, end: &str) -> bool {
        self.skip_space();
        self.take(end).is_some()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }
}
