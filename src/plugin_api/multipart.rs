//! A parser of `multipart/form-data` bodies (RFC 7578), limited to what text fields need.

/// A parsed body.
#[derive(Clone, Debug)]
pub struct Multipart<'a> {
    body: &'a [u8],
    parts: Vec<MultipartField<'a>>,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultipartField<'a> {
    pub name: Vec<u8>,
    pub value: &'a [u8],
    /// Offsets of the delimiter before the part and of the one after it.
    start: usize,
    end: usize,
}

/// Bodies with more parts are rejected; usual forms have a dozen fields.
const MAX_PARTS: usize = 1000;

impl<'a> Multipart<'a> {
    /// `None` if the body is not valid for its content type.
    pub fn parse(content_type: &str, body: &'a [u8]) -> Option<Self> {
        let boundary = parameter(content_type, "boundary").filter(|boundary| !boundary.is_empty())?;
        let delimiter = [b"--", &*boundary].concat();
        let mut parts = Vec::new();
        let mut start = next_delimiter(body, 0, &delimiter)?;
        loop {
            let after = start + delimiter.len();
            if body[after..].starts_with(b"--") {
                return Some(Multipart { body, parts });
            }
            let end = next_delimiter(body, after, &delimiter)?;
            if parts.len() == MAX_PARTS {
                return None;
            }
            if let Some((name, value)) = parse_part(&body[after..end]) {
                parts.push(MultipartField { name, value, start, end });
            }
            start = end;
        }
    }

    pub fn parts(&self) -> &[MultipartField<'a>] {
        &self.parts
    }

    /// The body without the `unwanted` fields. `None` if there are none.
    pub fn without(&self, unwanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let mut rest = Vec::with_capacity(self.body.len());
        let mut at = 0;
        let removed = self.parts.iter().filter(|part| unwanted(&part.name));
        for part in removed {
            rest.extend_from_slice(&self.body[at..part.start]);
            at = part.end;
        }
        if at == 0 {
            return None;
        }
        rest.extend_from_slice(&self.body[at..]);
        Some(rest)
    }
}

/// Offset of the next delimiter at the start of a line.
fn next_delimiter(body: &[u8], from: usize, delimiter: &[u8]) -> Option<usize> {
    let found = memchr::memmem::find_iter(&body[from..], delimiter).map(|at| from + at);
    found.into_iter().find(|at| *at == 0 || body[..*at].ends_with(b"\n"))
}

/// Name and value of the part between two delimiters.
fn parse_part(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let text = text.strip_prefix(b"\r\n").or_else(|| text.strip_prefix(b"\n"))?;
    let (head, value) = match memchr::memmem::find(text, b"\r\n\r\n") {
        Some(at) => (&text[..at], &text[at + 4..]),
        None => {
            let at = memchr::memmem::find(text, b"\n\n")?;
            (&text[..at], &text[at + 2..])
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

/// A parameter of a header value, unquoted and unescaped.
fn parameter(value: &str, wanted: &str) -> Option<Vec<u8>> {
    let mut rest = value.as_bytes();
    loop {
        rest = after_separator(rest)?;
        let equals = memchr::memchr2(b'=', b';', rest)?;
        if rest[equals] == b';' {
            rest = &rest[equals..];
            continue;
        }
        let name = rest[..equals].trim_ascii();
        let (value, behind) = quoted_or_token(rest[equals + 1..].trim_ascii_start());
        if name.eq_ignore_ascii_case(wanted.as_bytes()) {
            return Some(value);
        }
        rest = behind;
    }
}

/// The text after the next `;`.
fn after_separator(text: &[u8]) -> Option<&[u8]> {
    memchr::memchr(b';', text).map(|at| &text[at + 1..])
}

fn quoted_or_token(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = memchr::memchr(b';', text).unwrap_or(text.len());
        return (text[..end].trim_ascii().to_vec(), &text[end..]);
    };
    let mut value = Vec::new();
    let mut at = 0;
    while let Some(byte) = quoted.get(at) {
        match byte {
            b'"' => return (value, &quoted[at + 1..]),
            b'\\' if at + 1 < quoted.len() => {
                at += 1;
                value.push(quoted[at]);
            }
            byte => value.push(*byte),
        }
        at += 1;
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
        let again = Multipart::parse(TYPE, &rest).unwrap();
        assert_eq!(again.parts().len(), 1);
        assert!(rest.starts_with(b"preamble\r\n--x y\r\n") && rest.ends_with(b"one\r\n--x y--\r\n"), "{rest:?}");
        assert!(Multipart::parse(TYPE, &again.without(|_| true).unwrap()).unwrap().parts().is_empty());
    }

    #[test]
    fn truncated_bodies_are_rejected() {
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
