//! A strict parser of HTTP/1.1 requests: accepts only messages that every implementation reads alike.

/// The first message in the format of the corpus, and its length in `bytes`. None if the message is incomplete.
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
    let request_line = lines.next().unwrap_or_default();
    check_request_line(request_line)?;
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
            bytes[end + 4..].get(..length).map(|body| (Some(printable(body)), length))
        }
        (0, 1) if value("transfer-encoding").as_deref() == Some("chunked") => parse_chunks(&bytes[end + 4..])?,
        _ => return Err("the body framing is ambiguous"),
    };
    let Some((body, length)) = body else { return Ok(None) };
    fields.retain(|(name, _)| !ADDED_HEADERS.contains(&name.as_str()));
    let mut lines: Vec<String> = fields.into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
    lines.sort();
    lines.insert(0, request_line.to_owned());
    lines.extend(body.filter(|body| !body.is_empty()).map(|body| format!("| {body}")));
    Ok(Some((lines.join("\n"), end + 4 + length)))
}

const ADDED_HEADERS: &[&str] = &[
    "portico-hops",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

/// Whether a line feed is not after a carriage return, or a carriage return not before a line feed. A carriage return
/// as the last byte is valid: a line feed may follow.
fn has_invalid_line_end(bytes: &[u8]) -> bool {
    let is_invalid = |index: usize| match bytes[index] {
        b'\n' => index == 0 || bytes[index - 1] != b'\r',
        b'\r' => bytes.get(index + 1).is_some_and(|next| *next != b'\n'),
        _ => false,
    };
    (0..bytes.len()).any(is_invalid)
}

fn check_request_line(line: &str) -> Result<(), &'static str> {
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err("invalid HTTP/1.1 request line") };
    if !is_token(method) {
        return Err("invalid method");
    }
    if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        // Bytes beyond ASCII are valid, because they are forwarded unchanged: some clients send UTF-8.
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
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// The body with its trailers, in the format of the corpus, and its length in `bytes`. None if it is incomplete.
fn parse_chunks(bytes: &[u8]) -> Result<Option<(Option<String>, usize)>, &'static str> {
    let mut body = Vec::new();
    let mut trailers = String::new();
    let mut position = 0;
    loop {
        let Some(line) = next_line(&bytes[position..])? else { return Ok(None) };
        position += line.len() + 2;
        if line.is_empty() || !line.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("a chunk without a size");
        }
        let size = usize::from_str_radix(line, 16).map_err(|_| "a chunk is too large")?;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes.get(position..position + size + 2) else { return Ok(None) };
        body.extend_from_slice(chunk.strip_suffix(b"\r\n").ok_or("a chunk does not end in CR LF")?);
        position += size + 2;
    }
    loop {
        let Some(line) = next_line(&bytes[position..])? else { return Ok(None) };
        position += line.len() + 2;
        if line.is_empty() {
            return Ok(Some((Some(printable(&body) + &trailers), position)));
        }
        let (name, value) = parse_field(line)?;
        trailers += &format!("\n|+ {name}: {value}");
    }
}

/// The bytes before the first CR LF. None if there is none.
fn next_line(bytes: &[u8]) -> Result<Option<&str>, &'static str> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let line = &bytes[..end];
    if has_invalid_line_end(line) {
        return Err("a line does not end with CR LF");
    }
    str::from_utf8(line).map(Some).map_err(|_| "a line is not text")
}

/// The body with escapes; only its length if it is long.
fn printable(body: &[u8]) -> String {
    if body.len() > 200 { format!("{} bytes", body.len()) } else { body.escape_ascii().to_string() }
}

#[test]
fn parser_rejects_ambiguous_requests() {
    let added = "portico-hops: 1\r\nvia: a\r\nx-forwarded-for: a\r\nx-forwarded-host: a\r\nx-forwarded-port: a\r\nx-forwarded-proto: a\r\nx-request-id: a\r\n";
    let parse = |text: &str| {
        parse_request(text.replace("ADDED\r\n", added).as_bytes()).map(|parsed| parsed.map(|(text, _)| text))
    };
    let complete = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\nADDED\r\n\r\n"), complete("GET / HTTP/1.1\nhost: a"));
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\nADDED\r\ntransfer-encoding: chunked\r\n\r\n";
    let head = "POST / HTTP/1.1\nhost: a\ntransfer-encoding: chunked";
    assert_eq!(parse(&format!("{chunked}3\r\nabc\r\n0\r\na: b\r\n\r\n")), complete(&format!("{head}\n| abc\n|+ a: b")));
    for incomplete in ["", "3\r\nab", "3\r\nabc\r\n", "3\r\nabc\r\n0\r\n"] {
        assert_eq!(parse(&format!("{chunked}{incomplete}")), Ok(None), "{incomplete:?}");
    }
    for ambiguous in [
        "GET / HTTP/1.1\nhost: a\r\nADDED\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nADDED\r\nx: a\rb\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\nADDED\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\nADDED\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\nADDED\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : a\r\nADDED\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nADDED\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nADDED\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nADDED\r\ncontent-length: +1\r\n\r\nx",
        "GET / HTTP/1.1\r\nhost: a\r\nADDED\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nhost: a\r\nADDED\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        &format!("{chunked}3;x\r\nabc\r\n0\r\n\r\n"),
        &format!("{chunked}3\r\nabcd\r\n0\r\n\r\n"),
        &format!("{chunked}0x3\r\nabc\r\n0\r\n\r\n"),
    ] {
        assert!(parse(ambiguous).is_err(), "{ambiguous:?}");
    }
}
