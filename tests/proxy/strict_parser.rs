//! A strict parser of HTTP/1.1 requests: accepts only messages that every implementation reads alike.

/// The first message in the format of the corpus, and its length. None if it is incomplete.
pub(crate) fn parse_request(bytes: &[u8]) -> Result<Option<(String, usize)>, &'static str> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if has_invalid_line_end(bytes) { Err("a line does not end with CR LF") } else { Ok(None) };
    };
    let head = &bytes[..end];
    if has_invalid_line_end(head) {
        return Err("a line does not end with CR LF");
    }
    let head = str::from_utf8(head).map_err(|_| "the head is not text")?;
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    check_request_line(first)?;
    let mut fields = lines.map(parse_field).collect::<Result<Vec<_>, _>>()?;
    let count = |name: &str| fields.iter().filter(|(field, _)| field == name).count();
    let value = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
    if count("host") != 1 {
        return Err("the request does not have exactly one Host");
    }
    if ADDED_HEADERS.iter().any(|name| count(name) != 1) {
        return Err("a header that Portico adds is missing or duplicated");
    }
    let body = match (count("content-length"), count("transfer-encoding")) {
        (0, 0) => Some((None, 0)),
        (1, 0) => {
            let length = value("content-length").unwrap_or_default();
            if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err("the length is not a number");
            }
            let length: usize = length.parse().map_err(|_| "the length is too large")?;
            bytes[end + 4..].get(..length).map(|body| (Some(shown(body)), length))
        }
        (0, 1) if value("transfer-encoding").as_deref() == Some("chunked") => parse_chunks(&bytes[end + 4..])?,
        _ => return Err("the body framing is ambiguous"),
    };
    let Some((body, length)) = body else { return Ok(None) };
    fields.retain(|(name, _)| !ADDED_HEADERS.contains(&name.as_str()));
    let mut lines: Vec<String> = fields.into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
    lines.sort();
    lines.insert(0, first.to_owned());
    lines.extend(body.filter(|body| !body.is_empty()).map(|body| format!("| {body}")));
    Ok(Some((lines.join("\n"), end + 4 + length)))
}

const ADDED_HEADERS: &[&str] =
    &["x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-request-id"];

/// A line feed without carriage return, or vice versa. A carriage return as the last byte may still be followed by a
/// line feed.
fn has_invalid_line_end(bytes: &[u8]) -> bool {
    let alone = |at: usize| match bytes[at] {
        b'\n' => at == 0 || bytes[at - 1] != b'\r',
        b'\r' => bytes.get(at + 1).is_some_and(|next| *next != b'\n'),
        _ => false,
    };
    (0..bytes.len()).any(alone)
}

fn check_request_line(line: &str) -> Result<(), &'static str> {
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err("invalid HTTP/1.1 request line") };
    if !is_token(method) {
        return Err("invalid method");
    }
    if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        // Bytes beyond ASCII are forwarded unchanged: some clients send UTF-8.
        if target.is_ascii() {
            return Err("invalid request target");
        }
    }
    Ok(())
}

fn parse_field(line: &str) -> Result<(String, String), &'static str> {
    let (name, value) = line.split_once(':').ok_or("a header line without colon")?;
    if !is_token(name) {
        return Err("invalid header name");
    }
    if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err("control character in a header value");
    }
    Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
}

fn is_token(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(good)
}

/// The body and the number of bytes it occupies. None if it is incomplete.
fn parse_chunks(bytes: &[u8]) -> Result<Option<(Option<String>, usize)>, &'static str> {
    let mut body = Vec::new();
    let mut trailers = String::new();
    let mut at = 0;
    loop {
        let Some(line) = line(&bytes[at..])? else { return Ok(None) };
        at += line.len() + 2;
        if line.is_empty() || !line.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("a chunk without a size");
        }
        let size = usize::from_str_radix(line, 16).map_err(|_| "a chunk is too large")?;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        body.extend_from_slice(chunk.strip_suffix(b"\r\n").ok_or("a chunk does not end in CR LF")?);
        at += size + 2;
    }
    loop {
        let Some(line) = line(&bytes[at..])? else { return Ok(None) };
        at += line.len() + 2;
        if line.is_empty() {
            return Ok(Some((Some(shown(&body) + &trailers), at)));
        }
        let (name, value) = parse_field(line)?;
        trailers += &format!("\n|+ {name}: {value}");
    }
}

fn line(bytes: &[u8]) -> Result<Option<&str>, &'static str> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let line = &bytes[..end];
    if has_invalid_line_end(line) {
        return Err("a line does not end with CR LF");
    }
    str::from_utf8(line).map(Some).map_err(|_| "a line is not text")
}

/// Long bodies are shown by their length.
fn shown(body: &[u8]) -> String {
    if body.len() > 200 { format!("{} bytes", body.len()) } else { body.escape_ascii().to_string() }
}

#[test]
fn parser_rejects_ambiguous_requests() {
    let ours = "x-forwarded-for: a\r\nx-forwarded-host: a\r\nx-forwarded-port: a\r\nx-forwarded-proto: a\r\nx-request-id: a\r\n";
    let read =
        |text: &str| parse_request(text.replace("OURS\r\n", ours).as_bytes()).map(|read| read.map(|(text, _)| text));
    let whole = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(read("GET / HTTP/1.1\r\nHost: a\r\nOURS\r\n\r\n"), whole("GET / HTTP/1.1\nhost: a"));
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\nOURS\r\ntransfer-encoding: chunked\r\n\r\n";
    let head = "POST / HTTP/1.1\nhost: a\ntransfer-encoding: chunked";
    assert_eq!(read(&format!("{chunked}3\r\nabc\r\n0\r\na: b\r\n\r\n")), whole(&format!("{head}\n| abc\n|+ a: b")));
    for part in ["", "3\r\nab", "3\r\nabc\r\n", "3\r\nabc\r\n0\r\n"] {
        assert_eq!(read(&format!("{chunked}{part}")), Ok(None), "{part:?}");
    }
    for bad in [
        "GET / HTTP/1.1\nhost: a\r\nOURS\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nOURS\r\nx: a\rb\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\nOURS\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\nOURS\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\nOURS\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : a\r\nOURS\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nOURS\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nOURS\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nOURS\r\ncontent-length: +1\r\n\r\nx",
        "GET / HTTP/1.1\r\nhost: a\r\nOURS\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nhost: a\r\nOURS\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        &format!("{chunked}3;x\r\nabc\r\n0\r\n\r\n"),
        &format!("{chunked}3\r\nabcd\r\n0\r\n\r\n"),
        &format!("{chunked}0x3\r\nabc\r\n0\r\n\r\n"),
    ] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
}
