//! Directives of nginx: those of snippets, and those that annotations become. Portico gets an Ingress, nginx the lines
//! that ingress-nginx would have for it, and both get the same requests.
//!
//! ```text
//!   DirectiveCase ┬ annotations, objects ──▶ Portico ──┐
//!                 ├ lines, files ──────────▶ nginx ────┼─▶ echo
//!                 └ requests ──▶ the same to both ─────┘
//!                                    └─ outcomes: equal, or the difference that the case names
//! ```

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;

use super::client::{RawResponse, parse, send_text};
use super::echo::{FACT, FIELD, NAMESPACES};
use super::expectations::ingress;
use super::nginx_conf::NginxLines;
use super::served::Served;
use super::{
    Additions, Differential, Subject, access_cases, auth_server_cases, response_cases, response_rewrite_cases,
    rewrite_cases, server_cases,
};

/// An Ingress of a host of its own, and requests for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct DirectiveCase {
    pub(crate) name: String,
    /// Paths with their types and Services, as in [`ingress`].
    pub(crate) rules: &'static [&'static str],
    /// Names without the prefix of ingress-nginx.
    pub(crate) annotations: Vec<(&'static str, String)>,
    /// Further objects, as YAML documents that begin with `---`. Several cases may have the same ones.
    pub(crate) objects: String,
    /// What ingress-nginx would have for the annotations.
    pub(crate) lines: NginxLines,
    /// Names and texts of files that the lines name.
    pub(crate) files: Vec<(&'static str, String)>,
    /// Fields of the response that are compared, in lower case.
    pub(crate) response_fields: &'static [&'static str],
    /// Fields of the request that the endpoint receives and that are compared, in lower case.
    pub(crate) request_fields: &'static [&'static str],
    /// Separated by ` ; `: a target after its method, which is GET if it is missing, and fields, each after ` | `. `@`
    /// stands for the host.
    pub(crate) requests: String,
    /// Requests for which Portico differs on purpose, with its outcome.
    pub(crate) differences: &'static [(&'static str, &'static str)],
}

/// The snippet of a location, which has the same text in nginx.
pub(crate) fn in_location(name: &str, snippet: &str, requests: &str) -> DirectiveCase {
    case(name, requests).with_location(snippet)
}

/// The snippet of a host, which has the same text in nginx.
pub(crate) fn in_server(name: &str, snippet: &str, requests: &str) -> DirectiveCase {
    case(name, requests).with_server(snippet)
}

/// Annotations, and the lines of each location that stand for them.
pub(crate) fn annotated(
    name: &str,
    annotations: &[(&'static str, &str)],
    lines: impl Into<String>,
    requests: &str,
) -> DirectiveCase {
    let annotations = annotations.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let lines = NginxLines { location: lines.into(), ..NginxLines::default() };
    DirectiveCase { annotations, lines, ..case(name, requests) }
}

fn case(name: &str, requests: &str) -> DirectiveCase {
    DirectiveCase { name: name.to_owned(), rules: ROOT, requests: requests.to_owned(), ..DirectiveCase::default() }
}

impl DirectiveCase {
    pub(crate) fn with_location(mut self, snippet: &str) -> DirectiveCase {
        self.annotations.push(("configuration-snippet", snippet.to_owned()));
        self.lines.location += snippet;
        self
    }

    pub(crate) fn with_server(mut self, snippet: &str) -> DirectiveCase {
        self.annotations.push(("server-snippet", snippet.to_owned()));
        self.lines.server += snippet;
        self
    }

    /// A line that nginx only gets, for an annotation.
    pub(crate) fn with_server_line(mut self, line: &str) -> DirectiveCase {
        self.lines.server += line;
        self
    }

    /// What the client and the endpoint see of a request, in one line.
    fn outcome(&self, response: &io::Result<RawResponse>, has_body: bool) -> String {
        let response = match response {
            Ok(response) => response,
            Err(error) => return format!("{ERROR}{error}"),
        };
        let mut parts = vec![response.status.to_string()];
        let mut add = |name: String, value: Option<String>| {
            parts.extend(value.map(|value| format!("{name} {value}")));
        };
        add("location".to_owned(), response.field("location"));
        for name in self.response_fields {
            add(format!("response {name}:"), response.field(name));
        }
        add("service".to_owned(), response.field(&format!("{FACT}service")));
        add("target".to_owned(), response.field(&format!("{FACT}target")));
        for name in self.request_fields {
            add(format!("request {name}:"), response.field(&format!("{FACT}{FIELD}{name}")));
        }
        add("body".to_owned(), has_body.then(|| format!("{:?}", response.body)));
        parts.join(", ")
    }

    fn expected_difference(&self, request: &str) -> Option<&'static str> {
        self.differences.iter().find(|(known, _)| *known == request).map(|(_, outcome)| *outcome)
    }
}

/// Portico with snippets.
pub(crate) fn start() -> Served {
    Served::start_with(CONFIG_MAP, &["--nginx-configmap", "one/nginx"])
}

/// Sends the requests of all cases to both, and returns the differences that no case names.
pub(crate) fn differences(
    served: &mut Served,
    differential: &mut Differential,
    cases: &[DirectiveCase],
) -> Vec<String> {
    load(served, differential, cases);
    let addresses = [differential.nginx_address(), served.address()];
    let mut differences = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let host = host_of(index);
        for request in case.requests.split(" ; ").map(str::trim) {
            let text = request_text(request, &host);
            let responses = addresses.map(|address| send(address, &text));
            let has_body = !request.starts_with("HEAD ") && has_own_body(&responses[0]);
            let [nginx, portico] = responses.map(|response| case.outcome(&response, has_body));
            let is_expected = match case.expected_difference(request) {
                Some(outcome) => portico == outcome.replace('@', &host) && nginx != portico,
                None => nginx == portico && !nginx.starts_with(ERROR),
            };
            if !is_expected {
                let annotations: String =
                    case.annotations.iter().map(|(name, value)| format!("  {name}: {value}\n")).collect();
                let title = &case.name;
                differences
                    .push(format!("{title}: {request}\n  nginx:   {nginx}\n  Portico: {portico}\n{annotations}"));
            }
        }
    }
    differences
}

/// Makes both serve the cases.
pub(crate) fn load(served: &mut Served, differential: &mut Differential, cases: &[DirectiveCase]) {
    let mut additions = Additions { objects: CONFIG_MAP.to_owned(), ..Additions::default() };
    let (mut ingresses, mut known) = (Vec::new(), BTreeSet::new());
    for (index, case) in cases.iter().enumerate() {
        let host = host_of(index);
        let filled = |text: &str| filled(text, differential);
        let annotations: Vec<(&str, String)> =
            case.annotations.iter().map(|(name, value)| (*name, filled(value))).collect();
        let annotations: Vec<(&str, &str)> = annotations.iter().map(|(name, value)| (*name, value.as_str())).collect();
        ingresses.push(ingress(&format!("case-{index}"), &host, &annotations, case.rules));
        if known.insert(&case.objects) {
            additions.objects += &case.objects;
        }
        for (name, text) in &case.files {
            differential.write_for_nginx(name, text).unwrap();
        }
        additions.lines.insert(host, case.lines.map(filled));
    }
    differential.load_with(served, &ingresses, &additions).unwrap();
}

/// The host of a case. Its first label lets expressions find something in it.
pub(crate) fn host_of(index: usize) -> String {
    format!("www.d{index}.example")
}

/// Replaces `%auth%`, `%nginx-auth%` and `%nginx-auth-host%`. Each of the two has a server of its own, so that none
/// changes what the other one sees.
fn filled(text: &str, differential: &Differential) -> String {
    let address = |service: &str| differential.service_address(&format!("{}/{service}", NAMESPACES[0]));
    let (nginx, portico) = (address("s28"), address("s29"));
    let text = text.replace("%nginx-auth-host%", &nginx.ip().to_string());
    text.replace("%nginx-auth%", &nginx.to_string()).replace("%auth%", &portico.to_string())
}

fn send(address: SocketAddr, text: &str) -> io::Result<RawResponse> {
    parse(&send_text(address, text)?)
}

/// Whether the body of a response of nginx is one that the configuration determines: neither that of an endpoint, nor a
/// page of nginx.
fn has_own_body(response: &io::Result<RawResponse>) -> bool {
    let Ok(response) = response else { return false };
    let is_page = response.body.starts_with("<html>") || response.status >= 400 && response.body.is_empty();
    response.field(&format!("{FACT}service")).is_none() && !is_page
}

/// A request as it is sent.
pub(crate) fn request_text(request: &str, host: &str) -> String {
    let request = request.replace('@', host);
    let mut parts = request.split(" | ");
    let line = parts.next().unwrap_or_default();
    let (method, target) = line.split_once(' ').unwrap_or(("GET", line));
    let (hosts, fields): (Vec<&str>, Vec<&str>) = parts.partition(|field| field.starts_with("Host: "));
    let host = hosts.first().map_or_else(|| format!("Host: {host}"), |field| (*field).to_owned());
    let mut text = format!("{method} {target} HTTP/1.1\r\n{host}\r\nConnection: close\r\n");
    for field in fields {
        text = text + field + "\r\n";
    }
    text + if method == "POST" { "content-length: 3\r\n\r\na=b" } else { "\r\n" }
}

const ROOT: &[&str] = &["/ Prefix s0"];
/// How the outcome begins if there is no response.
const ERROR: &str = "error: ";

/// The ConfigMap of ingress-nginx.
pub(crate) const CONFIG_MAP: &str = "---
apiVersion: v1
kind: ConfigMap
metadata: { namespace: one, name: nginx }
data:
  allow-snippet-annotations: \"true\"
  annotations-risk-level: Critical
  global-allowed-response-headers: X-Frame-Options,X-Other
";

/// Compares all cases of a table.
fn check(cases: &[DirectiveCase]) {
    let mut served = start();
    let mut differential = served.differential();
    let differences = differences(&mut served, &mut differential, cases);
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn responses_are_changed_as_in_nginx() {
    check(&response_cases::all());
}

#[test]
fn urls_and_cookies_of_endpoints_are_rewritten_as_by_nginx() {
    check(&response_rewrite_cases::all());
}

#[test]
fn steps_act_as_in_nginx() {
    check(&rewrite_cases::all());
}

#[test]
fn clients_are_admitted_as_in_nginx() {
    check(&access_cases::all());
}

#[test]
fn servers_admit_requests_as_in_nginx() {
    check(&auth_server_cases::all());
}

#[test]
fn snippets_of_hosts_act_as_in_nginx() {
    check(&server_cases::all());
}

#[test]
fn requests_are_written_with_their_fields() {
    for (request, expected) in [
        ("/a?b", "GET /a?b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
        ("HEAD / | X-A: b c | Host: @:80", "HEAD / HTTP/1.1\r\nHost: h:80\r\nConnection: close\r\nX-A: b c\r\n\r\n"),
        ("POST /", "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\ncontent-length: 3\r\n\r\na=b"),
    ] {
        assert_eq!(request_text(request, "h"), expected);
    }
}
