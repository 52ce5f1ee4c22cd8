//! What goes wrong with a request: whose fault it is, and the answer it gets. The only place where a fault becomes a status.

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::snapshot::rule::Failure;

/// Why a request is not answered by an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request target cannot be used; the sentence says why.
    Target(&'static str),
    /// The Host, or what stands in its place.
    Host(&'static str),
    /// A body whose length or coding is not told in a way everybody reads alike.
    Framing(&'static str),
    /// The body of the request is cut short, or broken.
    Body,
    /// What came is no request.
    Unreadable,
    /// The target is longer than anything that is read.
    TargetTooLong,
    /// The header of a request is larger than the limit.
    HeadTooLarge,
    /// More header fields than are read.
    Fields,
    Connect,
    /// An extended CONNECT for anything but WebSocket, or towards an endpoint that cannot be asked for it.
    Protocol,
    Expectation,
    UploadTimeout,
    /// No listener of this address takes the host.
    NoListener,
    NoRoute,
    /// The connection was made for another listener.
    Misdirected,
    /// The rule or its backend cannot be honored.
    Rule(Failure),
    /// The path after a rewrite is none.
    Rewrite,
    NoEndpoints,
    /// No connection to an endpoint could be had, since there are too many.
    Crowded,
    Refused,
    ConnectTimeout,
    AnswerTimeout,
    /// `timeouts.request` of the rule.
    RequestTimeout,
    /// `timeouts.backendRequest` of the rule.
    BackendTimeout,
    /// What the endpoint sent is not an answer.
    BadAnswer,
    /// The endpoint closed the connection instead of answering.
    NoAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    Client,
    Upstream,
    Us,
}

/// All there is to say about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) blame: Blame,
    pub(crate) status: StatusCode,
    /// One word for the access log.
    pub(crate) word: &'static str,
    /// What the client reads.
    pub(crate) message: &'static str,
    /// The same request may succeed when it is sent again, because it was not processed.
    pub(crate) retry: bool,
}

impl Fault {
    #[rustfmt::skip] // A table.
    pub(crate) fn account(self) -> Account {
        use Blame::{Client, Upstream, Us};
        let (blame, status, word, message, retry) = match self {
            Fault::Target(message) => (Client, StatusCode::BAD_REQUEST, "bad_target", message, false),
            Fault::Host(message) => (Client, StatusCode::BAD_REQUEST, "bad_host", message, false),
            Fault::Framing(message) => (Client, StatusCode::BAD_REQUEST, "bad_framing", message, false),
            Fault::Body => (Client, StatusCode::BAD_REQUEST, "broken_body", "the body of the request is broken or cut short", false),
            Fault::Unreadable => (Client, StatusCode::BAD_REQUEST, "unreadable", "Bad request", false),
            Fault::TargetTooLong => (Client, StatusCode::URI_TOO_LONG, "target_too_long", "URI too long", false),
            Fault::HeadTooLarge => (Client, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header_too_large", "Request header or cookie too large", false),
            Fault::Fields => (Client, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_fields", "the request has too many header fields", false),
            Fault::Connect => (Client, StatusCode::METHOD_NOT_ALLOWED, "connect_method", "Method not allowed", false),
            Fault::Protocol => (Client, StatusCode::NOT_IMPLEMENTED, "upgrade", "only WebSocket over HTTP/1.1 backends can be reached by CONNECT", false),
            Fault::Expectation => (Client, StatusCode::EXPECTATION_FAILED, "expectation", "Expectation failed", false),
            Fault::UploadTimeout => (Client, StatusCode::REQUEST_TIMEOUT, "upload_timeout", "Request timeout", false),
            Fault::NoListener => (Client, StatusCode::NOT_FOUND, "no_listener", NO_ROUTE, false),
            Fault::NoRoute => (Client, StatusCode::NOT_FOUND, "no_route", NO_ROUTE, false),
            Fault::Misdirected => (Client, StatusCode::MISDIRECTED_REQUEST, "misdirected", "Misdirected request", true),
            Fault::Rule(Failure::NoBackends) => (Us, StatusCode::INTERNAL_SERVER_ERROR, "no_backends", UNEXPECTED, false),
            Fault::Rule(Failure::InvalidBackend) => (Us, StatusCode::INTERNAL_SERVER_ERROR, "invalid_backend", UNEXPECTED, false),
            Fault::Rule(Failure::Unsupported) => (Us, StatusCode::INTERNAL_SERVER_ERROR, "unsupported_rule", UNEXPECTED, false),
            Fault::Rewrite => (Us, StatusCode::INTERNAL_SERVER_ERROR, "bad_rewrite", UNEXPECTED, false),
            Fault::NoEndpoints => (Upstream, StatusCode::SERVICE_UNAVAILABLE, "no_endpoints", UNAVAILABLE, true),
            Fault::Crowded => (Us, StatusCode::SERVICE_UNAVAILABLE, "no_room", "Too many requests at a time", true),
            Fault::Refused => (Upstream, StatusCode::SERVICE_UNAVAILABLE, "refused", UNAVAILABLE, true),
            Fault::ConnectTimeout => (Upstream, StatusCode::GATEWAY_TIMEOUT, "connect_timeout", TIMING_OUT, true),
            Fault::AnswerTimeout => (Upstream, StatusCode::GATEWAY_TIMEOUT, "answer_timeout", TIMING_OUT, false),
            Fault::RequestTimeout => (Upstream, StatusCode::GATEWAY_TIMEOUT, "request_timeout", TIMING_OUT, false),
            Fault::BackendTimeout => (Upstream, StatusCode::GATEWAY_TIMEOUT, "backend_timeout", TIMING_OUT, false),
            Fault::BadAnswer => (Upstream, StatusCode::BAD_GATEWAY, "bad_answer", INVALID_ANSWER, false),
            Fault::NoAnswer => (Upstream, StatusCode::BAD_GATEWAY, "no_answer", INVALID_ANSWER, false),
        };
        Account { blame, status, word, message, retry }
    }
}

// What goes wrong where no answer of ours can be given any more.

/// The endpoint ended before its answer did.
pub(crate) const TRUNCATED: &str = "truncated";
/// The client ended before the answer did.
pub(crate) const CLIENT_GONE: &str = "client_gone";
/// A stream of HTTP/2 that never became a request.
pub(crate) const REFUSED_STREAM: &str = "refused_stream";
/// More frames of HTTP/2 that ask for nothing than anybody needs.
pub(crate) const FLOOD: &str = "flood";
/// An upgraded connection on which nothing moved for too long.
pub(crate) const TUNNEL_IDLE: &str = "tunnel_idle";
/// One end of an upgraded connection broke off.
pub(crate) const TUNNEL_BROKEN: &str = "tunnel_broken";
/// An upgraded connection that was still there when its listener, or all of us, had to go.
pub(crate) const TUNNEL_CUT: &str = "tunnel_cut";

// The texts that dashboards and clients of Kong know.
const NO_ROUTE: &str = "no Route matched with those values";
const UNEXPECTED: &str = "An unexpected error occurred";
const INVALID_ANSWER: &str = "An invalid response was received from the upstream server";
const UNAVAILABLE: &str = "The upstream server is currently unavailable";
const TIMING_OUT: &str = "The upstream server is timing out";

/// What of a request decides the form of an error, kept aside because the headers go upstream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manners {
    accept: Option<HeaderValue>,
    grpc: bool,
    head: bool,
}

impl Manners {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        Manners::new(Some(request.method()), request.headers())
    }

    pub(crate) fn new(method: Option<&Method>, headers: &HeaderMap) -> Self {
        let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        Manners {
            accept: headers.get(ACCEPT).cloned(),
            grpc: content_type.starts_with(b"application/grpc"),
            head: method == Some(&Method::HEAD),
        }
    }

    /// The answer to a fault. `id` is the request's, for whoever reports it.
    pub(crate) fn answer(&self, account: &Account, id: &HeaderValue) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        if self.grpc {
            // A gRPC client reads the outcome from these, and takes any other status for a broken proxy.
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status(account.status)));
            let message = utf8_percent_encode(account.message, GRPC_ESCAPED).to_string();
            if let Ok(message) = HeaderValue::try_from(message) {
                headers.insert(GRPC_MESSAGE, message);
            }
            return response;
        }
        let format =
            self.accept.as_ref().and_then(|accept| accept.to_str().ok()).map_or(Format::Json, Format::negotiate);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        let text = format.write(account, &String::from_utf8_lossy(id.as_bytes()));
        if self.head {
            headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        } else {
            *response.body_mut() = text.into();
        }
        if account.status == StatusCode::METHOD_NOT_ALLOWED {
            // RFC 9110, section 15.5.6: it must say which are.
            response.headers_mut().insert(ALLOW, METHODS);
        }
        *response.status_mut() = account.status;
        response
    }
}

/// What we pass on, without regard to what backends do with it.
pub(crate) const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE");

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// `kong-compat.md` §3.9.
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        200..=299 => 0,
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 6,
        429 => 8,
        499 => 1,
        501 => 12,
        503 => 14,
        504 => 4,
        400 | 402 | 405..=408 | 410..=428 | 430..=498 => 3,
        500 | 502 | 505..=599 => 13,
        _ => 2,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Html,
    Xml,
    Plain,
}

impl Format {
    /// The best of what the client accepts: highest quality, then what it names first. JSON if it accepts none of ours.
    fn negotiate(accept: &str) -> Self {
        let mut best = (0, Format::Json);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "application/json" | "application/*" | "*/*" => Format::Json,
                "text/html" | "text/*" => Format::Html,
                "application/xml" | "text/xml" => Format::Xml,
                "text/plain" => Format::Plain,
                _ => continue,
            };
            let quality = parts
                .find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")))
                .map_or(1.0, |quality| quality.parse().unwrap_or(0.0_f32));
            // In thousandths, as finely as the header can say it; a number cast from nonsense is 0.
            let quality = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json; charset=utf-8",
            Format::Html => "text/html; charset=utf-8",
            Format::Xml => "application/xml; charset=utf-8",
            Format::Plain => "text/plain; charset=utf-8",
        }
    }

    fn write(self, account: &Account, id: &str) -> String {
        let message = account.message;
        match self {
            Format::Json => serde_json::json!({ "message": message, "request_id": id }).to_string(),
            Format::Html => {
                let (status, message, id) = (account.status, escaped(message), escaped(id));
                format!(
                    "<!doctype html>\n<html>\n<head><meta charset=\"utf-8\"><title>{status}</title></head>\n\
                     <body>\n<h1>{status}</h1>\n<p>{message}</p>\n<p>request_id: {id}</p>\n</body>\n</html>\n"
                )
            }
            Format::Xml => {
                let (message, id) = (escaped(message), escaped(id));
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                     <error>\n<message>{message}</message>\n<requestid>{id}</requestid>\n</error>\n"
                )
            }
            Format::Plain => format!("{message}\nrequest_id: {id}\n"),
        }
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_form_of_an_error_follows_accept() {
        let cases = [
            ("", Format::Json),
            ("*/*", Format::Json),
            ("image/png", Format::Json),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format::Html),
            ("application/json;q=0.5, text/plain", Format::Plain),
            ("text/plain;q=0.5, text/xml;q=0.7", Format::Xml),
            ("TEXT/HTML", Format::Html),
            ("text/html;q=0", Format::Json),
            ("text/html;q=nonsense, text/plain;q=0.001", Format::Plain),
        ];
        for (accept, expected) in cases {
            assert_eq!(Format::negotiate(accept), expected, "{accept}");
        }
    }

    #[test]
    fn a_request_id_from_elsewhere_cannot_break_out_of_the_body() {
        let account = Fault::NoRoute.account();
        let id = "\"<&'>";
        assert_eq!(
            Format::Json.write(&account, id),
            r#"{"message":"no Route matched with those values","request_id":"\"<&'>"}"#
        );
        assert!(Format::Html.write(&account, id).contains("&quot;&lt;&amp;&#39;&gt;"));
        assert!(Format::Xml.write(&account, id).contains("<requestid>&quot;&lt;&amp;&#39;&gt;</requestid>"));
    }

    /// `docs/faults.md` tells operators what a reason means; it is to tell all of them, and no others.
    #[test]
    fn every_fault_has_its_row_and_every_row_its_fault() {
        let said: BTreeSet<String> = every_fault().map(row).chain(unanswered()).collect();
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");
        let page = std::fs::read_to_string(page).unwrap();
        let documented: BTreeSet<String> =
            page.lines().filter(|line| line.starts_with("| `")).map(|line| cells(line, 5)).collect();
        let missing: Vec<_> = said.difference(&documented).collect();
        let stale: Vec<_> = documented.difference(&said).collect();
        assert!(missing.is_empty() && stale.is_empty(), "docs/faults.md lacks {missing:#?} and has in vain {stale:#?}");
    }

    /// Reason, status, message, whose it is, whether the request may be sent again.
    fn row(fault: Fault) -> String {
        let account = fault.account();
        let told = matches!(fault, Fault::Target(_) | Fault::Host(_) | Fault::Framing(_));
        let message = if told { "what is wrong with it" } else { account.message };
        let whose = match account.blame {
            Blame::Client => "client",
            Blame::Upstream => "backend",
            Blame::Us => "configuration",
        };
        let again = if account.retry { "yes" } else { "no" };
        format!("| `{}` | {} | {message} | {whose} | {again} |", account.word, account.status.as_u16())
    }

    fn unanswered() -> impl Iterator<Item = String> {
        let rows = [
            (TRUNCATED, "that of the answer", "backend"),
            (CLIENT_GONE, "499, only in the books", "client"),
            (REFUSED_STREAM, "431, or a reset", "client"),
            (FLOOD, "429, only in the books", "client"),
            (TUNNEL_IDLE, "that of the answer", "none"),
            (TUNNEL_BROKEN, "that of the answer", "none"),
            (TUNNEL_CUT, "that of the answer", "none"),
        ];
        rows.into_iter().map(|(word, status, whose)| format!("| `{word}` | {status} | none | {whose} | no |"))
    }

    /// The first cells of a row.
    fn cells(line: &str, count: usize) -> String {
        let cells: Vec<_> = line.split('|').take(count + 1).map(str::trim).collect();
        format!("| {} |", cells[1..].join(" | "))
    }

    /// Each variant once. The match fails to compile when there is a new one, which then belongs into the list.
    fn every_fault() -> impl Iterator<Item = Fault> {
        const TEXT: &str = "";
        let all = [
            Fault::Target(TEXT),
            Fault::Host(TEXT),
            Fault::Framing(TEXT),
            Fault::Unreadable,
            Fault::TargetTooLong,
            Fault::HeadTooLarge,
            Fault::Fields,
            Fault::Protocol,
            Fault::Body,
            Fault::Connect,
            Fault::Expectation,
            Fault::UploadTimeout,
            Fault::Misdirected,
            Fault::NoListener,
            Fault::NoRoute,
            Fault::Rule(Failure::NoBackends),
            Fault::Rule(Failure::InvalidBackend),
            Fault::Rule(Failure::Unsupported),
            Fault::Rewrite,
            Fault::NoEndpoints,
            Fault::Crowded,
            Fault::Refused,
            Fault::ConnectTimeout,
            Fault::AnswerTimeout,
            Fault::RequestTimeout,
            Fault::BackendTimeout,
            Fault::BadAnswer,
            Fault::NoAnswer,
        ];
        all.into_iter().inspect(|fault| match fault {
            Fault::Target(_) | Fault::Host(_) | Fault::Framing(_) | Fault::Fields => {}
            Fault::Unreadable | Fault::TargetTooLong | Fault::HeadTooLarge => {}
            Fault::Protocol | Fault::Body | Fault::Connect => {}
            Fault::Expectation | Fault::UploadTimeout | Fault::Misdirected | Fault::NoListener | Fault::NoRoute => {}
            Fault::Rule(Failure::NoBackends | Failure::InvalidBackend | Failure::Unsupported) => {}
            Fault::Rewrite | Fault::NoEndpoints | Fault::Crowded | Fault::Refused | Fault::ConnectTimeout => {}
            Fault::AnswerTimeout | Fault::RequestTimeout | Fault::BackendTimeout => {}
            Fault::BadAnswer | Fault::NoAnswer => {}
        })
    }

    /// RFC 9110, section 15.5.6.
    #[test]
    fn who_may_not_use_a_method_learns_which() {
        let id = HeaderValue::from_static("id");
        for fault in every_fault() {
            let answer = Manners::default().answer(&fault.account(), &id);
            assert_eq!(answer.headers().contains_key(ALLOW), fault == Fault::Connect, "{fault:?}");
        }
    }

    #[test]
    fn grpc_clients_get_a_grpc_status() {
        let request = Request::post("/").header(CONTENT_TYPE, "application/grpc+proto").body(()).unwrap();
        let manners = Manners::of(&request);
        for (fault, expected) in [(Fault::NoRoute, "5"), (Fault::NoEndpoints, "14"), (Fault::AnswerTimeout, "4")] {
            let answer = manners.answer(&fault.account(), &HeaderValue::from_static("id"));
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers()["grpc-status"], expected);
            assert_eq!(answer.headers()["grpc-message"], fault.account().message);
        }
    }
}
