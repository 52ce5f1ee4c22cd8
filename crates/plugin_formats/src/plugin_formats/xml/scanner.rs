//! Scans XML token by token, and stops at the first violation of a limit or of the syntax of XML 1.0.
//!
//! Document type definitions are rejected before anything in them is read, so entities that a document declares do not
//! exist, and no reference is ever expanded or fetched.

use std::collections::{HashMap, HashSet};

use super::text::{XmlEncoding, check_references, is_name};

/// The limits of a document, in bytes where they are sizes.
#[derive(Clone, Copy, Debug)]
pub struct XmlLimits {
    pub namespace_aware: bool,
    pub depth: usize,
    pub children: usize,
    pub attributes: usize,
    pub namespaces: usize,
    pub text: usize,
    pub attribute: usize,
    pub comment: usize,
    pub local_name: usize,
    pub prefix: usize,
    pub namespace_uri: usize,
    pub target: usize,
    pub instruction: usize,
    /// One token, such as a start tag with all of its attributes.
    pub token: usize,
}

impl XmlLimits {
    /// Limits of messages whose size is limited, so that no part of them needs a limit of its own.
    pub fn of_message(depth: usize) -> Self {
        const PART: usize = 4 << 20;
        XmlLimits {
            namespace_aware: true,
            depth,
            children: 20_000,
            attributes: 100,
            namespaces: 50,
            text: PART,
            attribute: PART,
            comment: PART,
            local_name: 1024,
            prefix: 1024,
            namespace_uri: 4096,
            target: 1024,
            instruction: PART,
            token: PART,
        }
    }
}

/// What is wrong with a document, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XmlThreat {
    pub what: &'static str,
    pub offset: usize,
}

/// Checks a document, which must be well-formed.
pub fn scan(body: &[u8], limits: &XmlLimits) -> Result<(), XmlThreat> {
    let body_start = if body.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    let mut scanner = XmlScanner {
        body,
        position: body_start,
        limits,
        open: Vec::new(),
        prefixes: HashMap::new(),
        has_root: false,
        text_bytes: 0,
    };
    let encoding = scanner.declaration()?;
    if encoding == XmlEncoding::Utf8
        && let Err(error) = std::str::from_utf8(body)
    {
        return Err(XmlThreat { what: "the body is not UTF-8", offset: error.valid_up_to() });
    }
    if let Some(offset) = body.iter().position(|byte| *byte < 0x20 && !b"\t\n\r".contains(byte)) {
        return Err(XmlThreat { what: "a control character", offset });
    }
    scanner.document()
}

struct XmlScanner<'b> {
    body: &'b [u8],
    position: usize,
    limits: &'b XmlLimits,
    open: Vec<OpenElement<'b>>,
    /// How many open elements declare each prefix.
    prefixes: HashMap<&'b [u8], usize>,
    has_root: bool,
    /// The size of the adjacent texts and CDATA sections so far; they are one child.
    text_bytes: usize,
}

struct OpenElement<'b> {
    name: &'b [u8],
    children: usize,
    declared: Vec<&'b [u8]>,
}

type Scanned = Result<(), XmlThreat>;

impl<'b> XmlScanner<'b> {
    /// Reads the declaration at the beginning, if there is one.
    fn declaration(&mut self) -> Result<XmlEncoding, XmlThreat> {
        let rest = &self.body[self.position..];
        let is_declaration =
            rest.strip_prefix(b"<?xml").is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_whitespace));
        if !is_declaration {
            return Ok(XmlEncoding::Utf8);
        }
        let end = self.find(5, b"?>", "a declaration without an end")?;
        let declaration = &self.body[self.position + 5..end];
        let encoding =
            XmlEncoding::declared(declaration).ok_or(self.threat("an invalid or unsupported XML declaration"))?;
        self.position = end + 2;
        Ok(encoding)
    }

    fn document(mut self) -> Scanned {
        while self.position < self.body.len() {
            if self.body[self.position] == b'<' {
                self.markup()?;
            } else {
                self.character_data()?;
            }
        }
        match (self.open.is_empty(), self.has_root) {
            (true, true) => Ok(()),
            (true, false) => Err(self.threat("no element")),
            (false, _) => Err(self.threat("an element without an end tag")),
        }
    }

    fn markup(&mut self) -> Scanned {
        let rest = &self.body[self.position..];
        if rest.starts_with(b"<![CDATA[") {
            return self.cdata();
        }
        if rest.starts_with(b"<!--") {
            self.end_text();
            return self.comment();
        }
        if rest.starts_with(b"<!") {
            return Err(self.threat("a document type definition, or other markup that is not allowed"));
        }
        self.end_text();
        match rest.get(1) {
            Some(b'?') => self.instruction(),
            Some(b'/') => self.end_tag(),
            _ => self.start_tag(),
        }
    }

    fn character_data(&mut self) -> Scanned {
        let start = self.position;
        let rest = &self.body[start..];
        let text = &rest[..memchr::memchr(b'<', rest).unwrap_or(rest.len())];
        if self.open.is_empty() {
            if !text.iter().all(|byte| b" \t\r\n".contains(byte)) {
                return Err(self.threat("text outside of an element"));
            }
        } else {
            self.add_text(text.len())?;
            if memchr::memmem::find(text, b"]]>").is_some() {
                return Err(self.threat("]]> outside of a CDATA section"));
            }
            check_references(text).map_err(|offset| XmlThreat { what: UNKNOWN_REFERENCE, offset: start + offset })?;
        }
        self.position += text.len();
        Ok(())
    }

    fn cdata(&mut self) -> Scanned {
        if self.open.is_empty() {
            return Err(self.threat("a CDATA section outside of an element"));
        }
        let end = self.find(9, b"]]>", "a CDATA section without an end")?;
        self.add_text(end - self.position - "<![CDATA[".len())?;
        self.position = end + 3;
        Ok(())
    }

    /// Counts text, and a child when a text begins.
    fn add_text(&mut self, bytes: usize) -> Scanned {
        if self.text_bytes == 0 {
            self.add_child()?;
        }
        self.text_bytes += bytes.max(1);
        if bytes > self.limits.token {
            return Err(self.threat("a token that is larger than the buffer"));
        }
        self.at_most(self.text_bytes, self.limits.text, "a text that is too long")
    }

    fn end_text(&mut self) {
        self.text_bytes = 0;
    }

    fn add_child(&mut self) -> Scanned {
        let Some(element) = self.open.last_mut() else { return Ok(()) };
        element.children += 1;
        let children = element.children;
        self.at_most(children, self.limits.children, "an element with too many children")
    }

    fn comment(&mut self) -> Scanned {
        self.add_child()?;
        let start = self.position + 4;
        let length = self.body.get(start..).and_then(|rest| memchr::memmem::find(rest, b"--"));
        let end = start + length.ok_or(self.threat("a comment without an end"))?;
        self.at_most(end - start, self.limits.comment, "a comment that is too long")?;
        if self.body.get(end + 2) != Some(&b'>') {
            return Err(self.threat("two hyphens in a comment"));
        }
        self.position = end + 3;
        Ok(())
    }

    fn instruction(&mut self) -> Scanned {
        self.add_child()?;
        let end = self.find(2, b"?>", "a processing instruction without an end")?;
        let content = &self.body[self.position + 2..end];
        let target_end = content.iter().position(u8::is_ascii_whitespace).unwrap_or(content.len());
        let (target, data) = content.split_at(target_end);
        if !is_name(target) || target.eq_ignore_ascii_case(b"xml") {
            return Err(self.threat("an invalid processing instruction"));
        }
        self.at_most(target.len(), self.limits.target, "a processing instruction with a target that is too long")?;
        self.at_most(data.len(), self.limits.instruction, "a processing instruction that is too long")?;
        self.position = end + 2;
        Ok(())
    }

    fn end_tag(&mut self) -> Scanned {
        let end = self.find(2, b">", "an end tag without an end")?;
        let name = self.body[self.position + 2..end].trim_ascii_end();
        let Some(element) = self.open.pop().filter(|element| element.name == name) else {
            return Err(self.threat("an end tag without its start tag"));
        };
        self.close(&element);
        self.position = end + 1;
        Ok(())
    }

    fn close(&mut self, element: &OpenElement<'b>) {
        for prefix in &element.declared {
            if let Some(count) = self.prefixes.get_mut(prefix) {
                *count -= 1;
            }
        }
    }

    fn start_tag(&mut self) -> Scanned {
        if self.open.is_empty() && self.has_root {
            return Err(self.threat("a second root element"));
        }
        self.has_root = true;
        self.add_child()?;
        self.at_most(self.open.len() + 1, self.limits.depth, "elements that are nested too deeply")?;
        let start = self.position;
        self.position += 1;
        let name = self.name()?;
        let attributes = self.attributes(start)?;
        let is_empty = self.body.get(self.position) == Some(&b'/');
        if is_empty {
            self.position += 1;
        }
        if self.body.get(self.position) != Some(&b'>') {
            return Err(self.threat("an invalid start tag"));
        }
        self.position += 1;
        if self.position - start > self.limits.token {
            return Err(self.threat("a token that is larger than the buffer"));
        }
        let declared = self.check_attributes(&attributes)?;
        for prefix in &declared {
            *self.prefixes.entry(prefix).or_default() += 1;
        }
        let element = OpenElement { name, children: 0, declared };
        self.check_name(name)?;
        for attribute in attributes.iter().filter(|attribute| !self.is_declaration(attribute.name)) {
            self.check_name(attribute.name)?;
        }
        if is_empty {
            self.close(&element);
        } else {
            self.open.push(element);
        }
        Ok(())
    }

    /// The attributes of a start tag, up to its end. Their number and the size of the tag are limited while they are
    /// read.
    fn attributes(&mut self, tag_start: usize) -> Result<Vec<XmlAttribute<'b>>, XmlThreat> {
        let most = self.limits.attributes.saturating_add(self.limits.namespaces);
        let mut attributes = Vec::new();
        loop {
            let before = self.position;
            self.skip_space();
            if let None | Some(b'>' | b'/') = self.body.get(self.position) {
                return Ok(attributes);
            }
            if self.position == before {
                return Err(self.threat("an invalid start tag"));
            }
            let name = self.name()?;
            self.skip_space();
            if self.body.get(self.position) != Some(&b'=') {
                return Err(self.threat("an attribute without a value"));
            }
            self.position += 1;
            self.skip_space();
            let value = self.attribute_value()?;
            attributes.push(XmlAttribute { name, value });
            self.at_most(attributes.len(), most, "an element with too many attributes")?;
            if self.position - tag_start > self.limits.token {
                return Err(self.threat("a token that is larger than the buffer"));
            }
        }
    }

    fn attribute_value(&mut self) -> Result<&'b [u8], XmlThreat> {
        let Some(quote @ (b'"' | b'\'')) = self.body.get(self.position).copied() else {
            return Err(self.threat("an attribute without quotes"));
        };
        let start = self.position + 1;
        let rest = &self.body[start..];
        let end = memchr::memchr2(quote, b'<', rest).filter(|end| rest[*end] == quote);
        let value = &rest[..end.ok_or(self.threat("an attribute without an end"))?];
        check_references(value).map_err(|offset| XmlThreat { what: UNKNOWN_REFERENCE, offset: start + offset })?;
        self.position = start + value.len() + 1;
        Ok(value)
    }

    /// Checks numbers, sizes and duplicates. Returns the prefixes that the element declares.
    fn check_attributes(&self, attributes: &[XmlAttribute<'b>]) -> Result<Vec<&'b [u8]>, XmlThreat> {
        let mut names = HashSet::with_capacity(attributes.len());
        if !attributes.iter().all(|attribute| names.insert(attribute.name)) {
            return Err(self.threat("two attributes with the same name"));
        }
        let mut declared = Vec::new();
        let mut others = 0;
        for attribute in attributes {
            if self.is_declaration(attribute.name) {
                let prefix = attribute.name.strip_prefix(b"xmlns:").unwrap_or_default();
                self.at_most(attribute.value.len(), self.limits.namespace_uri, "a namespace that is too long")?;
                self.at_most(prefix.len(), self.limits.prefix, "a prefix that is too long")?;
                let is_reserved = prefix == b"xmlns" || prefix == b"xml" && attribute.value != XML_NAMESPACE;
                if is_reserved || prefix.contains(&b':') || !prefix.is_empty() && attribute.value.is_empty() {
                    return Err(self.threat("an invalid declaration of a namespace"));
                }
                declared.push(prefix);
            } else {
                others += 1;
                self.at_most(attribute.value.len(), self.limits.attribute, "an attribute that is too long")?;
            }
        }
        self.at_most(declared.len(), self.limits.namespaces, "an element with too many namespaces")?;
        self.at_most(others, self.limits.attributes, "an element with too many attributes")?;
        Ok(declared)
    }

    fn is_declaration(&self, name: &[u8]) -> bool {
        self.limits.namespace_aware && (name == b"xmlns" || name.starts_with(b"xmlns:"))
    }

    /// Checks the prefix and the local part of a name.
    fn check_name(&self, name: &[u8]) -> Scanned {
        let colon = memchr::memchr(b':', name).filter(|_| self.limits.namespace_aware);
        let Some(colon) = colon else {
            return self.at_most(name.len(), self.limits.local_name, "a name that is too long");
        };
        let (prefix, local) = (&name[..colon], &name[colon + 1..]);
        if !is_name(prefix) || !is_name(local) || local.contains(&b':') {
            return Err(self.threat("an invalid name"));
        }
        self.at_most(prefix.len(), self.limits.prefix, "a prefix that is too long")?;
        self.at_most(local.len(), self.limits.local_name, "a name that is too long")?;
        if prefix != b"xml" && self.prefixes.get(prefix).is_none_or(|count| *count == 0) {
            return Err(self.threat("a prefix without a namespace"));
        }
        Ok(())
    }

    fn name(&mut self) -> Result<&'b [u8], XmlThreat> {
        let start = self.position;
        let rest = &self.body[start..];
        let length = rest.iter().position(|byte| b" \t\r\n=/><?\"'&".contains(byte)).unwrap_or(rest.len());
        let name = &rest[..length];
        if !is_name(name) {
            return Err(self.threat("an invalid name"));
        }
        self.position += length;
        Ok(name)
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.body.get(self.position) {
            self.position += 1;
        }
    }

    /// The position of a delimiter after the first bytes of a token.
    fn find(&self, opening: usize, delimiter: &[u8], what: &'static str) -> Result<usize, XmlThreat> {
        let start = self.position + opening;
        let found = self.body.get(start..).and_then(|rest| memchr::memmem::find(rest, delimiter));
        let end = start + found.ok_or(self.threat(what))?;
        if end - self.position > self.limits.token {
            return Err(self.threat("a token that is larger than the buffer"));
        }
        Ok(end)
    }

    fn at_most(&self, found: usize, limit: usize, what: &'static str) -> Scanned {
        if found > limit { Err(self.threat(what)) } else { Ok(()) }
    }

    fn threat(&self, what: &'static str) -> XmlThreat {
        XmlThreat { what, offset: self.position }
    }
}

struct XmlAttribute<'b> {
    name: &'b [u8],
    value: &'b [u8],
}

const XML_NAMESPACE: &[u8] = b"http://www.w3.org/XML/1998/namespace";
const UNKNOWN_REFERENCE: &str = "a reference to an entity that does not exist, or an invalid character reference";
