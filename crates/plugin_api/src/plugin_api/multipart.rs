//! A parser of `multipart/form-data` bodies (RFC 7578): it finds the names and values of fields, and removes fields.

/// A parsed body.
#[derive(Clone, Debug)]
pub struct Multipart<'a> {
    body: &'a [u8],
    parts: Vec<MultipartField<'a>>,
    /// What begins each part: two dashes and the boundary.
    delimiter: Vec<u8>,
    /// Offsets of the first and of the last delimiter.
    first: usize,
    last: usize,
}

/// A part of the body, with the field that it contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultipartField<'a> {
    pub name: Vec<u8>,
    pub value: &'a [u8],
    /// Offsets of the delimiter before the part and of the one after it.
    start: usize,
    end: usize,
}

impl MultipartField<'_> {
    /// Offsets of the delimiter before the part and of the one after it.
    pub fn extent(&self) -> (usize, usize) {
        (self.start, self.end)
    }
}

/// Bodies with more parts are rejected; usual forms have a dozen fields.
const MAX_PARTS: usize = 1000;

impl<'a> Multipart<'a> {
    /// Parses a body. `None` if it is not valid for its content type.
    pub fn parse(content_type: &str, body: &'a [u8]) -> Option<Self> {
        let delimiter = delimiter_of(content_type)?;
        let mut parts = Vec::new();
        let first = next_delimiter(body, 0, &delimiter)?;
        let mut start = first;
        loop {
            let part_start = start + delimiter.len();
            if body[part_start..].starts_with(b"--") {
                return Some(Multipart { body, parts, delimiter, first, last: start });
            }
            let end = next_delimiter(body, part_start, &delimiter)?;
            if parts.len() == MAX_PARTS {
                return None;
            }
            if let Some((name, value)) = parse_part(&body[part_start..end]) {
                parts.push(MultipartField { name, value, start, end });
            }
            start = end;
        }
    }

    pub fn parts(&self) -> &[MultipartField<'a>] {
        &self.parts
    }

    /// What begins each part: two dashes and the boundary.
    pub fn delimiter(&self) -> &[u8] {
        &self.delimiter
    }

    /// Offsets of the first delimiter, and of the last one, which ends the body.
    pub fn extent(&self) -> (usize, usize) {
        (self.first, self.last)
    }

    /// The body without the `unwanted` fields. `None` if it has none of them.
    pub fn without(&self, unwanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let mut rest = Vec::with_capacity(self.body.len());
        let mut kept_from = 0;
        let removed = self.parts.iter().filter(|part| unwanted(&part.name));
        for part in removed {
            rest.extend_from_slice(&self.body[kept_from..part.start]);
            kept_from = part.end;
        }
        if kept_from == 0 {
            return None;
        }
        rest.extend_from_slice(&self.body[kept_from..]);
        Some(rest)
    }
}

/// What begins each part of bodies of a content type.
pub fn delimiter_of(content_type: &str) -> Option<Vec<u8>> {
    let boundary = parameter(content_type, "boundary").filter(|boundary| !boundary.is_empty())?;
    Some([b"--", &*boundary].concat())
}

/// Offset of the next delimiter at the start of a line.
fn next_delimiter(body: &[u8], from: usize, delimiter: &[u8]) -> Option<usize> {
    let mut offsets = memchr::memmem::find_iter(&body[from..], delimiter).map(|index| from + index);
    offsets.find(|offset| *offset == 0 || body[..*offset].ends_with(b"\n"))
}

/// Name and value of the part between two delimiters.
fn parse_part(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let text = text.strip_prefix(b"\r\n").or_else(|| text.strip_prefix(b"\n"))?;
    let (head, value) = match memchr::memmem::find(text, b"\r\n\r\n") {
        Some(end) => (&text[..end], &text[end + 4..]),
        None => {
            let end = memchr::memmem::find(text, b"\n\n")?;
            (&text[..end], &text[end + 2..])
        }
    };
    let value = value.strip_suffix(b"\r\n").or_else(|| value.strip_suffix(b"\n"))?;
    let head = std::str::from_utf8(head).ok()?;
    let disposition = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    Some((parameter(disposition, "name")?, value))
}

/// The parameter `wanted_name` of a header value, unquoted and unescaped.
fn parameter(header: &str, wanted_name: &str) -> Option<Vec<u8>> {
    let mut rest = header.as_bytes();
    loop {
        rest = after_separator(rest)?;
        let equals = memchr::memchr2(b'=', b';', rest)?;
        if rest[equals] == b';' {
            rest = &rest[equals..];
            continue;
        }
        let name = rest[..equals].trim_ascii();
        let (value, after_value) = quoted_or_token(rest[equals + 1..].trim_ascii_start());
        if name.eq_ignore_ascii_case(wanted_name.as_bytes()) {
            return Some(value);
        }
        rest = after_value;
    }
}

/// The text after the next `;`.
fn after_separator(text: &[u8]) -> Option<&[u8]> {
    memchr::memchr(b';', text).map(|separator| &text[separator + 1..])
}

/// The quoted string or token at the start, unescaped, and the text after it.
fn quoted_or_token(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = memchr::memchr(b';', text).unwrap_or(text.len());
        return (text[..end].trim_ascii().to_vec(), &text[end..]);
    };
    let mut value = Vec::new();
    let mut index = 0;
    while let Some(byte) = quoted.get(index) {
        match byte {
            b'"' => return (value, &quoted[index + 1..]),
            b'\\' if index + 1 < quoted.len() => {
                index += 1;
                value.push(quoted[index]);
            }
            byte => value.push(*byte),
        }
        index += 1;
    }
    (value, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; charset=utf-8; boundary=\"x y\"";
    const BODY: &[u8] = b"preamble\r\n--x y\r\nContent-Disposition: form-data; name=\"a\\\"b\"\r\n\r\none\r\n--x y\r\n\
        content-type: text/plain\r\ncontent-disposition: form-data; filename=\"f;name=c\"; name=c\r\n\r\ntwo\r\n \
        --x y\r\n--x y--\r\n";

    #[test]
    fn fields_are_found_and_removed() {
        let multipart = Multipart::parse(TYPE, BODY).unwrap();
        let parts: Vec<(&[u8], &[u8])> = multipart.parts().iter().map(|part| (&*part.name, part.value)).collect();
        assert_eq!(parts, [(&b"a\"b"[..], &b"one"[..]), (b"c", b"two\r\n --x y")]);
        assert_eq!(multipart.without(|name| name == b"d"), None);
        let rest = multipart.without(|name| name == b"c").unwrap();
        let reparsed = Multipart::parse(TYPE, &rest).unwrap();
        assert_eq!(reparsed.parts().len(), 1);
        assert!(rest.starts_with(b"preamble\r\n--x y\r\n") && rest.ends_with(b"one\r\n--x y--\r\n"), "{rest:?}");
        assert!(Multipart::parse(TYPE, &reparsed.without(|_| true).unwrap()).unwrap().parts().is_empty());
    }

    #[test]
    fn invalid_content_types_and_bodies_are_rejected() {
        for (content_type, body) in [
            ("multipart/form-data", BODY),
            ("multipart/form-data; boundary=", BODY),
            ("multipart/form-data; boundary=z", BODY),
            (TYPE, &BODY[..BODY.len() - 6]),
            (TYPE, b""),
        ] {
            assert!(Multipart::parse(content_type, body).is_none(), "{content_type} {body:?}");
        }
    }
}
