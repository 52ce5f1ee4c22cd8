//! A client that sends a request byte by byte as given, and reads the response to the end of the connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::compare::Outcome;
use super::echo::FACT;
use super::requests::Request;

/// Sends a request on a connection of its own. An error becomes an outcome without status.
pub(crate) fn send(address: SocketAddr, request: &Request) -> Outcome {
    exchange(address, request).unwrap_or_else(|error| Outcome { error: Some(error.to_string()), ..Outcome::default() })
}

fn exchange(address: SocketAddr, request: &Request) -> io::Result<Outcome> {
    let body = if request.method == "POST" { "content-length: 3\r\n\r\na=b" } else { "\r\n" };
    let Request { method, host, target } = request;
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    Ok(outcome(parse(&send_text(address, &(head + body))?)?))
}

/// Sends a text on a connection of its own, and returns all that arrives until the other end closes it.
pub(crate) fn send_text(address: SocketAddr, text: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    stream.write_all(text.as_bytes())?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}

/// A response as it arrived.
#[derive(Debug)]
pub(crate) struct RawResponse {
    pub(crate) status: u16,
    /// Names in lower case, and values.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl RawResponse {
    /// All values of a field.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let values = self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str());
        let values: Vec<_> = values.collect();
        (!values.is_empty()).then(|| values.join(" & "))
    }
}

pub(crate) fn parse(response: &str) -> io::Result<RawResponse> {
    let (head, body) = response.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("the response has no end"))?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let fields = lines.filter_map(|line| line.split_once(':'));
    let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    let fields: Vec<_> = fields.collect();
    let is_chunked = fields.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if is_chunked { without_chunks(body) } else { Some(body.to_owned()) };
    let body = body.ok_or_else(|| io::Error::other("the chunks of the response have no end"))?;
    Ok(RawResponse { status: status.unwrap_or_default(), fields, body })
}

/// The data of all chunks. `None` without the last one.
fn without_chunks(mut chunks: &str) -> Option<String> {
    let mut data = String::new();
    loop {
        let (size, rest) = chunks.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(data);
        }
        data += rest.get(..size)?;
        chunks = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

fn outcome(response: RawResponse) -> Outcome {
    let mut outcome = Outcome { status: response.status, ..Outcome::default() };
    for (name, value) in response.fields {
        let value = Some(value);
        match name.strip_prefix(FACT).unwrap_or(&name) {
            "location" if name == "location" => outcome.location = value,
            "location" => outcome.nginx_location = value,
            "service" => outcome.service = value,
            "target" => outcome.target = value,
            "host" => outcome.host = value,
            "prefix" => outcome.prefix = value,
            _ => {}
        }
    }
    outcome
}

/// Longer than any pause of a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_the_header() {
        let response = "HTTP/1.1 302 Found\r\nLocation: /a\r\nx-echo-location: 3 /b\r\nX-Echo-Service: one/s1\r\n\r\nx";
        let outcome = outcome(parse(response).unwrap());
        assert_eq!(outcome.status, 302);
        assert_eq!(outcome.location.as_deref(), Some("/a"));
        assert_eq!(outcome.nginx_location.as_deref(), Some("3 /b"));
        assert_eq!(outcome.service.as_deref(), Some("one/s1"));
    }
}
