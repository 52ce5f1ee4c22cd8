//! A request that curl sends, and the comparison of the response with what is expected.

use std::net::Ipv4Addr;
use std::process::Command;

use serde_json::Value;

use super::report::{Received, Request};
use crate::harness::program::output;

/// Where requests are sent, and the ports that distinguish backends.
pub(crate) struct Ports {
    pub(crate) gateway: u16,
    pub(crate) ingress: u16,
    pub(crate) backends: [(&'static str, u16); 2],
}

/// Sends a request as often as it says, and returns how responses differ from what is expected.
pub(crate) fn problems(request: &Request, uses_ingresses: bool, address: Ipv4Addr, ports: &Ports) -> Vec<String> {
    let port = if uses_ingresses { ports.ingress } else { ports.gateway };
    let mut problems = Vec::new();
    for _ in 0..request.times {
        match send(&request.curl, address, port) {
            Ok(response) => problems.extend(differences(request, &response, ports)),
            Err(error) => problems.push(error),
        }
    }
    problems.into_iter().map(|problem| format!("curl {}: {problem}", request.curl)).collect()
}

/// A response as `curl --include` prints it.
struct Response {
    status: u16,
    fields: Vec<(String, String)>,
    body: String,
}

impl Response {
    /// The values of a field in their order.
    fn field(&self, name: &str) -> Option<String> {
        let named = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let values: Vec<&str> = named.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

fn send(arguments: &str, address: Ipv4Addr, port: u16) -> Result<Response, String> {
    let mut command = Command::new("curl");
    // Without configuration files and proxies of the environment.
    command.args(["--disable", "--noproxy", "*", "--silent", "--show-error", "--include", "--max-time", "30"]);
    command.args(["--path-as-is", "--globoff", "--connect-to", &format!("::{address}:{port}")]);
    command.args(words(arguments));
    let sent = output(command);
    if !sent.status.success() {
        return Err(String::from_utf8_lossy(&sent.stderr).trim().to_owned());
    }
    response(&String::from_utf8_lossy(&sent.stdout))
}

/// Splits at spaces outside of quotes, of which each kind protects the other.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for character in text.trim().chars() {
        match (character, quote) {
            (' ' | '\n', None) => words.push(String::new()),
            ('\'' | '"', None) => quote = Some(character),
            (end, Some(start)) if end == start => quote = None,
            _ => words.last_mut().expect("there is a word from the start").push(character),
        }
    }
    words
}

/// Reads the final response; interim responses precede it.
fn response(text: &str) -> Result<Response, String> {
    let mut rest = text;
    loop {
        let (head, body) = rest.split_once("\r\n\r\n").ok_or_else(|| format!("no response in {text:?}"))?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status: u16 = status.ok_or_else(|| format!("no status in {head:?}"))?;
        if status >= 200 {
            let field =
                |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
            return Ok(Response { status, fields: lines.filter_map(field).collect(), body: body.to_owned() });
        }
        rest = body;
    }
}

fn differences(request: &Request, response: &Response, ports: &Ports) -> Vec<String> {
    let mut differences = Vec::new();
    if response.status != request.status {
        differences.push(format!("status {} instead of {}: {}", response.status, request.status, response.body));
        return differences;
    }
    for (name, expected) in &request.fields {
        let found = response.field(name);
        if found != *expected {
            differences.push(format!("{name} is {found:?} instead of {expected:?}"));
        }
    }
    if request.backend.is_none() && request.received == Received::default() {
        return differences;
    }
    let Ok(received) = serde_json::from_str::<Value>(&response.body) else {
        differences.push(format!("the response describes no request: {}", response.body));
        return differences;
    };
    let text = |name: &str| received[name].as_str().map(str::to_owned);
    let mut compare = |what: &str, found: Option<String>, expected: &Option<String>| {
        if found != *expected {
            differences.push(format!("{what} is {found:?} instead of {expected:?}"));
        }
    };
    if request.backend.is_some() {
        let port = text("server").and_then(|server| server.rsplit_once(':')?.1.parse().ok());
        let found = ports.backends.iter().find(|(_, known)| Some(*known) == port).map(|(name, _)| (*name).to_owned());
        compare("the backend", found, &request.backend);
    }
    let of = &request.received;
    let parts =
        [("method", &of.method), ("path", &of.path), ("query", &of.query), ("host", &of.host), ("body", &of.body)];
    for (name, expected) in parts.into_iter().filter(|(_, expected)| expected.is_some()) {
        compare(&format!("the received {name}"), text(name), expected);
    }
    for (name, expected) in &of.headers {
        let values = received["headers"][name].as_array();
        let values = values.map(|values| values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
        compare(&format!("the received header {name}"), values, expected);
    }
    differences
}
