//! Editing of the fields of a multipart body. Parts that are not edited keep their bytes.

use std::borrow::Cow;

use super::edits::{BodyName, ListedFields, RetainedFields};
use crate::plugin_api::multipart::{Multipart, delimiter_of};

pub(super) struct MultipartFields<'r> {
    /// The delimiter of the parts, with its dashes.
    delimiter: Vec<u8>,
    preamble: &'r [u8],
    parts: Vec<MultipartPart<'r>>,
    /// The last delimiter, and what follows.
    end: Cow<'r, [u8]>,
}

struct MultipartPart<'r> {
    /// `None` for a part that is not a field.
    name: Option<Cow<'r, [u8]>>,
    /// The value, to write it under another name.
    value: &'r [u8],
    /// From the delimiter to the line break before the next one.
    raw: Cow<'r, [u8]>,
}

impl<'r> MultipartFields<'r> {
    pub(super) fn parse(content_type: &str, body: &'r [u8]) -> Option<Self> {
        if body.is_empty() {
            // As in Kong, fields can be added to an empty body.
            let delimiter = delimiter_of(content_type)?;
            let end = [&*delimiter, b"--\r\n"].concat().into();
            return Some(MultipartFields { delimiter, preamble: b"", parts: Vec::new(), end });
        }
        let multipart = Multipart::parse(content_type, body)?;
        let (preamble_end, end_start) = multipart.extent();
        let mut parts = Vec::new();
        let mut start = preamble_end;
        for field in multipart.parts() {
            let (field_start, field_end) = field.extent();
            if field_start > start {
                let raw = Cow::Borrowed(&body[start..field_start]);
                parts.push(MultipartPart { name: None, value: &[], raw });
            }
            let raw = Cow::Borrowed(&body[field_start..field_end]);
            parts.push(MultipartPart { name: Some(Cow::Owned(field.name.clone())), value: field.value, raw });
            start = field_end;
        }
        if end_start > start {
            parts.push(MultipartPart { name: None, value: &[], raw: Cow::Borrowed(&body[start..end_start]) });
        }
        let delimiter = multipart.delimiter().to_vec();
        Some(MultipartFields { delimiter, preamble: &body[..preamble_end], parts, end: body[end_start..].into() })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = self.preamble.to_vec();
        for part in &self.parts {
            body.extend_from_slice(&part.raw);
        }
        body.extend_from_slice(&self.end);
        body
    }

    /// The bytes of a part that contains a text field.
    fn raw(&self, name: &str, value: &[u8]) -> Cow<'r, [u8]> {
        let mut raw = self.delimiter.clone();
        raw.extend_from_slice(b"\r\nContent-Disposition: form-data; name=\"");
        for byte in name.bytes() {
            if matches!(byte, b'"' | b'\\') {
                raw.push(b'\\');
            }
            raw.push(byte);
        }
        raw.extend_from_slice(b"\"\r\n\r\n");
        raw.extend_from_slice(value);
        raw.extend_from_slice(b"\r\n");
        Cow::Owned(raw)
    }

    fn check(&self, value: &[u8]) -> Result<(), &'static str> {
        match memchr::memmem::find(value, &self.delimiter) {
            None => Ok(()),
            Some(_) => Err("the value contains the delimiter of the parts, so it could add fields"),
        }
    }

    fn is_named(part: &MultipartPart<'_>, name: &str) -> bool {
        part.name.as_deref() == Some(name.as_bytes())
    }
}

impl ListedFields<BodyName> for MultipartFields<'_> {
    fn contains(&self, name: &BodyName) -> bool {
        self.parts.iter().any(|part| Self::is_named(part, &name.text))
    }

    fn remove(&mut self, name: &BodyName) {
        self.parts.retain(|part| !Self::is_named(part, &name.text));
    }

    fn rename(&mut self, name: &BodyName, new_name: &BodyName) {
        if name.text == new_name.text {
            return;
        }
        self.remove(new_name);
        for index in 0..self.parts.len() {
            if !Self::is_named(&self.parts[index], &name.text) {
                continue;
            }
            // As in Kong, a renamed file becomes a text field.
            let raw = self.raw(&new_name.text, self.parts[index].value);
            let part = &mut self.parts[index];
            (part.name, part.raw) = (Some(Cow::Owned(new_name.text.as_bytes().to_vec())), raw);
        }
    }

    fn replace(&mut self, name: &BodyName, value: Option<&[u8]>) -> Result<(), &'static str> {
        let value = value.unwrap_or_default();
        self.check(value)?;
        let raw = self.raw(&name.text, value);
        let mut replacement = Some(raw);
        // The new value takes the place of the first one.
        for part in self.parts.iter_mut().filter(|part| Self::is_named(part, &name.text)) {
            if let Some(raw) = replacement.take() {
                (part.value, part.raw) = (&[], raw);
            }
        }
        let mut is_first = true;
        self.parts.retain(|part| !Self::is_named(part, &name.text) || std::mem::take(&mut is_first));
        Ok(())
    }

    fn add(&mut self, name: &BodyName, value: Option<&[u8]>) -> Result<(), &'static str> {
        let value = value.unwrap_or_default();
        self.check(value)?;
        let raw = self.raw(&name.text, value);
        self.parts.push(MultipartPart { name: Some(Cow::Owned(name.text.as_bytes().to_vec())), value: &[], raw });
        Ok(())
    }

    /// As in Kong, nothing is appended to multipart bodies.
    fn append(&mut self, _: &BodyName, _: Option<&[u8]>) -> Result<(), &'static str> {
        Ok(())
    }
}

impl RetainedFields for MultipartFields<'_> {
    fn retain(&mut self, names: &[BodyName]) -> bool {
        let before = self.parts.len();
        self.parts.retain(|part| names.iter().any(|name| Self::is_named(part, &name.text)));
        self.parts.len() < before
    }
}
