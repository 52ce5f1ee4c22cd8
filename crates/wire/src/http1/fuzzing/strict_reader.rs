//! Reads HTTP/1 requests as a strict server does (RFC 9112): the meaning that another reader must find in the bytes
//! that it accepts. Stops at the first byte that a strict server would not accept, without saying why.

use memchr::memmem;

/// A request, up to the end of the input.
#[derive(Debug, Default)]
pub(crate) struct StrictRequest {
    pub(crate) method: Vec<u8>,
    pub(crate) target: Vec<u8>,
    /// Names in lower case with values, sorted.
    pub(crate) fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Without the chunked coding.
    pub(crate) body: Vec<u8>,
    /// Names in lower case with values, sorted.
    pub(crate) trailers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) is_complete: bool,
}

/// Reads all requests, the last of which may be incomplete.
pub(crate) fn read(mut bytes: &[u8]) -> Vec<StrictRequest> {
    let mut requests = Vec::new();
    loop {
        while let Some(rest) = bytes.strip_prefix(b"\r\n") {
            bytes = rest;
        }
        let mut request = StrictRequest::default();
        let Some(length) = read_head(&mut bytes, &mut request) else { return requests };
        let rest = match length {
            BodyLength::Fixed(length) => read_fixed(bytes, length, &mut request.body),
            BodyLength::Chunked => read_chunks(bytes, &mut request),
        };
        request.is_complete = rest.is_some();
        requests.push(request);
        match rest {
            Some(rest) => bytes = rest,
            None => return requests,
        }
    }
}

enum BodyLength {
    Fixed(usize),
    Chunked,
}

fn read_head(bytes: &mut &[u8], request: &mut StrictRequest) -> Option<BodyLength> {
    let line = read_line(bytes)?;
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(_version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return None;
    };
    (request.method, request.target) = (method.to_vec(), target.to_vec());
    request.fields = read_fields(bytes)?;
    keep_first_length(&mut request.fields);
    request.fields.sort();
    let values = |wanted: &[u8]| {
        let values: Vec<_> = request.fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value).collect();
        values
    };
    let (lengths, codings) = (values(b"content-length"), values(b"transfer-encoding"));
    match (&*lengths, &*codings) {
        ([], []) => Some(BodyLength::Fixed(0)),
        ([length], []) => Some(BodyLength::Fixed(number(length, 10)?)),
        // Further codings are read like the last one; the proxy rejects them in a later step.
        ([], _) => Some(BodyLength::Chunked),
        _ => None,
    }
}

/// Of several equal lengths, readers keep the first, so the endpoint gets one. They may have different leading zeros.
fn keep_first_length(fields: &mut Vec<(Vec<u8>, Vec<u8>)>) {
    let mut first = None;
    fields.retain(|(name, value)| {
        let length = if name == b"content-length" { number(value, 10) } else { None };
        let is_repeated = length.is_some() && length == first;
        first = first.or(length);
        !is_repeated
    });
}

fn read_fixed<'b>(bytes: &'b [u8], length: usize, body: &mut Vec<u8>) -> Option<&'b [u8]> {
    let (read, rest) = bytes.split_at(length.min(bytes.len()));
    body.extend_from_slice(read);
    (read.len() == length).then_some(rest)
}

fn read_chunks<'b>(mut bytes: &'b [u8], request: &mut StrictRequest) -> Option<&'b [u8]> {
    loop {
        let line = read_line(&mut bytes)?;
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = number(size.trim_ascii_end(), 16)?;
        if size == 0 {
            request.trailers = read_fields(&mut bytes)?;
            request.trailers.sort();
            return Some(bytes);
        }
        bytes = read_fixed(bytes, size, &mut request.body)?.strip_prefix(b"\r\n")?;
    }
}

/// Reads fields up to an empty line.
fn read_fields(bytes: &mut &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut fields = Vec::new();
    loop {
        let line = read_line(bytes)?;
        if line.is_empty() {
            return Some(fields);
        }
        let colon = memchr::memchr(b':', line)?;
        fields.push((line[..colon].to_ascii_lowercase(), trim(&line[colon + 1..]).to_vec()));
    }
}

/// A line, without its end.
fn read_line<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let end = memmem::find(bytes, b"\r\n")?;
    let line = &bytes[..end];
    *bytes = &bytes[end + 2..];
    Some(line)
}

/// Without spaces and tabs at both ends (RFC 9110, section 5.5).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn number(digits: &[u8], radix: u32) -> Option<usize> {
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    usize::from_str_radix(text, radix).ok()
}
