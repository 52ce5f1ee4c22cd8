//! Snippets as they are written, and what requests see of them.

mod hostile_input;
mod idioms;
mod in_order;
mod refusals;
mod responses;
mod rewrites_of_responses;
mod servers;

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::*;
use crate::snapshot::location_path::decoded_path;
use crate::snapshot::regex::RegexLimit;
use crate::snapshot::regex_steps::RegexSteps;

/// A request, whose variables have the values that the proxy would give them.
pub(super) struct Request {
    method: &'static str,
    host: &'static str,
    target: &'static str,
    headers: &'static [(&'static str, &'static str)],
}

impl Request {
    pub(super) fn get(target: &'static str) -> Self {
        Request { method: "GET", host: "a.example", target, headers: &[] }
    }

    fn of_host(host: &'static str, target: &'static str) -> Self {
        Request { host, ..Request::get(target) }
    }

    fn with(target: &'static str, headers: &'static [(&'static str, &'static str)]) -> Self {
        Request { headers, ..Request::get(target) }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

impl SnippetValues for Request {
    fn value(&self, variable: &SnippetVariable) -> Cow<'_, str> {
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        let text = match variable {
            SnippetVariable::Host | SnippetVariable::BestHttpHost => self.host,
            SnippetVariable::RequestField(name) => self.header(name.as_str()),
            SnippetVariable::Parameter(name) => {
                let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                pairs.find(|(known, _)| **known == **name).map_or("", |(_, value)| value)
            }
            SnippetVariable::Cookie(name) => {
                let mut pairs = self.header("cookie").split("; ").filter_map(|pair| pair.split_once('='));
                pairs.find(|(known, _)| **known == **name).map_or("", |(_, value)| value)
            }
            SnippetVariable::Args => query,
            SnippetVariable::IsArgs if !query.is_empty() => "?",
            SnippetVariable::Uri => return decoded_path(path).unwrap_or_default(),
            SnippetVariable::RequestUri => self.target,
            SnippetVariable::RequestMethod => self.method,
            SnippetVariable::Scheme | SnippetVariable::PassAccessScheme => "https",
            SnippetVariable::PassPort => "8443",
            SnippetVariable::Msec => "10.000",
            SnippetVariable::RemoteAddr => "192.0.2.1",
            SnippetVariable::ServiceName => "web",
            _ => "",
        };
        Cow::Borrowed(text)
    }
}

pub(super) fn location(text: &str) -> Snippet {
    match Snippet::parse(text, SnippetPlace::Location, RegexLimit::MEMORY_ONLY) {
        Ok(snippet) => snippet,
        Err(refused) => panic!("{text}: {refused}"),
    }
}

pub(super) fn server(text: &str) -> Snippet {
    match Snippet::parse(text, SnippetPlace::Server, RegexLimit::MEMORY_ONLY) {
        Ok(snippet) => snippet,
        Err(refused) => panic!("{text}: {refused}"),
    }
}

pub(super) fn run(snippet: &Snippet, request: &Request) -> SnippetRun {
    snippet.run(request, &RegexSteps::default())
}

/// What happens to a request, in one line: the reply, the new target, or neither.
fn outcome(run: &SnippetRun) -> String {
    if let Some(failure) = run.failed {
        return format!("{failure:?}");
    }
    if let Some(reply) = &run.reply {
        let location = reply.location.iter().map(|location| format!(" to {location}"));
        let body = reply.body.iter().filter(|body| !body.is_empty()).map(|body| format!(" with {body:?}"));
        let closes = reply.closes_connection.then(|| " and closes".to_owned());
        return location.chain(body).chain(closes).fold(reply.status.as_str().to_owned(), |line, part| line + &part);
    }
    match &run.target {
        None => "passes".to_owned(),
        Some(target) => {
            let query = target.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
            format!("{}{query}", target.path)
        }
    }
}

/// The fields of a request to an endpoint.
fn request_fields(snippet: &Snippet, request: &Request) -> HeaderMap {
    let mut headers: HeaderMap = request.headers.iter().map(|(name, value)| field(name, value)).collect();
    let run = run(snippet, request);
    for edit in run.input_edits(snippet, request).into_iter().chain(run.sent_edits(snippet, request)) {
        edit.apply(&mut headers);
    }
    headers
}

/// The fields of an endpoint's response after the snippet.
fn response_fields(snippet: &Snippet, request: &Request, status: u16, headers: &[(&str, &str)]) -> HeaderMap {
    let mut headers: HeaderMap = headers.iter().map(|(name, value)| field(name, value)).collect();
    let response = (StatusCode::from_u16(status).unwrap(), SnippetResponseOrigin::Upstream);
    let steps = RegexSteps::default();
    run(snippet, request).set_response_fields(snippet, request, response, &mut headers, &steps);
    headers
}

fn field(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap())
}

/// The fields in the order of their names, with one line for each value.
fn lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

fn verdict(snippet: &Snippet, request: &Request, address: &str) -> SnippetVerdict {
    let address: IpAddr = address.parse().unwrap();
    run(snippet, request).verdict(snippet, address, &Method::from_bytes(request.method.as_bytes()).unwrap())
}
