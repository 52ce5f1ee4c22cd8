//! Bodies of `multipart/form-data` (RFC 7578), as far as fields of text need it.

/// The parts of a body.
#[derive(Clone, Debug)]
pub struct Multipart<'a> {
    body: &'a [u8],
    parts: Vec<Part<'a>>,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    pub name: Vec<u8>,
    pub value: &'a [u8],
    /// Where its delimiter begins, and where the next one does.
    start: usize,
    end: usize,
}

/// A form for people has a dozen fields.
const MOST_PARTS: usize = 1000;

impl<'a> Multipart<'a> {
    /// None if the body is not what its content type says.
    pub fn read(content_type: &str, body: &'a [u8]) -> Option<Self> {
        let boundary = parameter(content_type, "boundary").filter(|boundary| !boundary.is_empty())?;
        let delimiter = [b"--", &*boundary].concat();
        let mut parts = Vec::new();
        let mut start = next(body, 0, &delimiter)?;
        loop {
            let after = start + delimiter.len();
            if body[after..].starts_with(b"--") {
                return Some(Multipart { body, parts });
            }
            let end = next(body, after, &delimiter)?;
            if parts.len() == MOST_PARTS {
                return None;
            }
            if let Some((name, value)) = part(&body[after..end]) {
                parts.push(Part { name, value, start, end });
            }
            start = end;
        }
    }

    pub fn parts(&self) -> &[Part<'a>] {
        &self.parts
    }

    /// The body without these fields. None if none of them is there.
    pub fn without(&self, unwanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let mut rest = Vec::with_capacity(self.body.len());
        let mut at = 0;
        let gone = self.parts.iter().filter(|part| unwanted(&part.name));
        for part in gone {
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

/// Where the next delimiter begins that stands at the start of a line.
fn next(body: &[u8], from: usize, delimiter: &[u8]) -> Option<usize> {
    let found = memchr::memmem::find_iter(&body[from..], delimiter).map(|at| from + at);
    found.into_iter().find(|at| *at == 0 || body[..*at].ends_with(b"\n"))
}

/// Name and value of what stands between two delimiters.
fn part(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
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

/// A parameter of a header's value, its quotes and backslashes gone.
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

/// What follows the next `;`.
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
        content-type: text/plain\r\ncontent-disposition: form-data; filename=\"f;name=c\"; name=c\r\n\r\ntwo\r\n --x y\r\n\
        --x y--\r\n";

    #[test]
    fn fields_are_found_and_taken_out() {
        let multipart = Multipart::read(TYPE, BODY).unwrap();
        let parts: Vec<(&[u8], &[u8])> = multipart.parts().iter().map(|part| (&*part.name, part.value)).collect();
        assert_eq!(parts, [(&b"a\"b"[..], &b"one"[..]), (b"c", b"two\r\n --x y")]);
        assert_eq!(multipart.without(|name| name == b"d"), None);
        let rest = multipart.without(|name| name == b"c").unwrap();
        let again = Multipart::read(TYPE, &rest).unwrap();
        assert_eq!(again.parts().len(), 1);
        assert!(rest.starts_with(b"preamble\r\n--x y\r\n") && rest.ends_with(b"one\r\n--x y--\r\n"), "{rest:?}");
        assert!(Multipart::read(TYPE, &again.without(|_| true).unwrap()).unwrap().parts().is_empty());
    }

    #[test]
    fn what_is_cut_off_is_no_multipart() {
        for (content_type, body) in [
            ("multipart/form-data", BODY),
            ("multipart/form-data; boundary=", BODY),
            ("multipart/form-data; boundary=z", BODY),
            (TYPE, &BODY[..BODY.len() - 6]),
            (TYPE, b""),
        ] {
            assert!(Multipart::read(content_type, body).is_none(), "{content_type} {body:?}");
        }
    }
}
