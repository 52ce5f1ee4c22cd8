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
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let body = if request.method == "POST" { "content-length: 3\r\n\r\na=b" } else { "\r\n" };
    let Request { method, host, target } = request;
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    stream.write_all((head + body).as_bytes())?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    outcome(&String::from_utf8_lossy(&response))
}

fn outcome(response: &str) -> io::Result<Outcome> {
    let (head, _) = response.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("the response has no end"))?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let mut outcome = Outcome { status: status.unwrap_or_default(), ..Outcome::default() };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = name.to_ascii_lowercase();
        let value = Some(value.trim().to_owned());
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
    Ok(outcome)
}

/// Longer than any pause of a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_the_header() {
        let response = "HTTP/1.1 302 Found\r\nLocation: /a\r\nx-echo-location: 3 /b\r\nX-Echo-Service: one/s1\r\n\r\nx";
        let outcome = outcome(response).unwrap();
        assert_eq!(outcome.status, 302);
        assert_eq!(outcome.location.as_deref(), Some("/a"));
        assert_eq!(outcome.nginx_location.as_deref(), Some("3 /b"));
        assert_eq!(outcome.service.as_deref(), Some("one/s1"));
    }
}
