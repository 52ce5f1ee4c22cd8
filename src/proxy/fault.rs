//! What goes wrong with a request, and whose fault it is. The only place where a fault becomes a status.

use http::StatusCode;

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
    /// The body of the request is longer than a plugin of its rule takes.
    TooLarge,
    /// The plugins of its rule did not come to a decision.
    PluginTimeout,
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
    /// A route of Kong's for `https` only was asked in plain text.
    HttpsOnly,
    /// A route of Kong's for gRPC was asked over HTTP/1.
    Http2Only,
    /// A route of Kong's for gRPC was asked for something else.
    NotGrpc,
    /// A route of Kong's for `grpcs` only was asked in plain text.
    GrpcsOnly,
    /// The path after a rewrite is none.
    Rewrite,
    NoEndpoints,
    /// The same under a route of Kong's, in the words that its clients know.
    NoPeer,
    /// No connection to an endpoint could be had, since there are too many.
    Crowded,
    Refused,
    /// The same under a route of Kong's.
    PeerRefused,
    /// An endpoint cannot be spoken to in TLS, or is not who it should be.
    Handshake,
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
            Fault::TooLarge => (Client, StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "Request size limit exceeded", false),
            Fault::PluginTimeout => (Us, StatusCode::GATEWAY_TIMEOUT, "plugin_timeout", TIMING_OUT, true),
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
            Fault::Rule(Failure::NoBackends) => (Us, StatusCode::INTERNAL_SERVER_ERROR, "no_backends", NO_BACKEND, false),
            Fault::Rule(Failure::InvalidBackend) => (Us, StatusCode::INTERNAL_SERVER_ERROR, "invalid_backend", NO_BACKEND, false),
            Fault::Rule(Failure::Unsupported) => (Us, StatusCode::INTERNAL_SERVER_ERROR, "unsupported_rule", UNEXPECTED, false),
            Fault::Rule(Failure::NoService) => (Us, StatusCode::SERVICE_UNAVAILABLE, "no_service", NO_SERVICE, false),
            Fault::HttpsOnly => (Client, StatusCode::UPGRADE_REQUIRED, "https_only", "Please use HTTPS protocol", false),
            Fault::Http2Only => (Client, StatusCode::UPGRADE_REQUIRED, "http2_only", "Please use HTTP2 protocol", false),
            Fault::NotGrpc => (Client, StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_grpc", "Non-gRPC request matched gRPC route", false),
            // Whoever gets this speaks gRPC, and reads it as CANCELLED.
            Fault::GrpcsOnly => (Client, cancelled(), "grpcs_only", "gRPC request matched gRPCs route", false),
            Fault::Rewrite => (Us, StatusCode::INTERNAL_SERVER_ERROR, "bad_rewrite", UNEXPECTED, false),
            Fault::NoEndpoints => (Upstream, StatusCode::SERVICE_UNAVAILABLE, "no_endpoints", UNAVAILABLE, true),
            Fault::NoPeer => (Upstream, StatusCode::SERVICE_UNAVAILABLE, "no_endpoints", NO_PEER, true),
            Fault::PeerRefused => (Upstream, StatusCode::BAD_GATEWAY, "refused", INVALID_ANSWER, true),
            Fault::Crowded => (Us, StatusCode::SERVICE_UNAVAILABLE, "no_room", "Too many requests at a time", true),
            Fault::Refused => (Upstream, StatusCode::SERVICE_UNAVAILABLE, "refused", UNAVAILABLE, true),
            Fault::Handshake => (Upstream, StatusCode::BAD_GATEWAY, "tls_handshake", INVALID_ANSWER, false),
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

fn cancelled() -> StatusCode {
    StatusCode::from_u16(CLIENT_GONE_STATUS).expect("three digits are a status")
}

// What goes wrong where no answer of ours can be given any more.

/// The endpoint ended before its answer did.
pub(crate) const TRUNCATED: &str = "truncated";
/// The client ended before the answer did.
pub(crate) const CLIENT_GONE: &str = "client_gone";
/// nginx's number for it, if there was no answer.
pub(crate) const CLIENT_GONE_STATUS: u16 = 499;
/// A stream of HTTP/2 that never became a request.
pub(crate) const REFUSED_STREAM: &str = "refused_stream";
/// More frames of HTTP/2 that ask for nothing than anybody needs.
pub(crate) const FLOOD: &str = "flood";
pub(crate) const FLOOD_STATUS: StatusCode = StatusCode::TOO_MANY_REQUESTS;
/// An upgraded connection on which nothing moved for too long.
pub(crate) const TUNNEL_IDLE: &str = "tunnel_idle";
/// One end of an upgraded connection broke off.
pub(crate) const TUNNEL_BROKEN: &str = "tunnel_broken";
/// An upgraded connection that was still there when its listener, or all of us, had to go.
pub(crate) const TUNNEL_CUT: &str = "tunnel_cut";

// The texts that dashboards and clients of Kong know.
const NO_ROUTE: &str = "no Route matched with those values";
const NO_SERVICE: &str = "no Service found with those values";
const NO_BACKEND: &str = "no existing backendRef provided";
const NO_PEER: &str = "failure to get a peer from the ring-balancer";
const UNEXPECTED: &str = "An unexpected error occurred";
const INVALID_ANSWER: &str = "An invalid response was received from the upstream server";
const UNAVAILABLE: &str = "The upstream server is currently unavailable";
const TIMING_OUT: &str = "The upstream server is timing out";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::HeaderValue;
    use http::header::ALLOW;

    use super::super::manners::Manners;
    use super::*;

    /// `docs/faults.md` tells operators what a reason means; it is to tell all of them, and no others.
    #[test]
    fn every_fault_has_its_row_and_every_row_its_fault() {
        let said: BTreeSet<String> = every_fault().map(row).chain(unanswered()).collect();
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");
        let page = std::fs::read_to_string(page).unwrap();
        let documented: BTreeSet<String> =
            page.lines().filter(|line| is_reason(line)).map(|line| cells(line, 5)).collect();
        let missing: Vec<_> = said.difference(&documented).collect();
        let stale: Vec<_> = documented.difference(&said).collect();
        assert!(missing.is_empty() && stale.is_empty(), "docs/faults.md lacks {missing:#?} and has in vain {stale:#?}");
    }

    /// What is counted under a name of its own has no reason.
    fn is_reason(line: &str) -> bool {
        line.starts_with("| `") && !line.starts_with("| `portico_")
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
        let (gone, flood) = (CLIENT_GONE_STATUS, FLOOD_STATUS.as_u16());
        let (gone, flood) = (format!("{gone}, only in the books"), format!("{flood}, only in the books"));
        let rows = [
            (TRUNCATED, "that of the answer", "backend"),
            (CLIENT_GONE, gone.as_str(), "client"),
            (REFUSED_STREAM, "431, or a reset", "client"),
            (FLOOD, flood.as_str(), "client"),
            (TUNNEL_IDLE, "that of the answer", "none"),
            (TUNNEL_BROKEN, "that of the answer", "none"),
            (TUNNEL_CUT, "that of the answer", "none"),
        ];
        rows.map(|(word, status, whose)| format!("| `{word}` | {status} | none | {whose} | no |")).into_iter()
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
            Fault::TooLarge,
            Fault::PluginTimeout,
            Fault::Connect,
            Fault::Expectation,
            Fault::UploadTimeout,
            Fault::Misdirected,
            Fault::NoListener,
            Fault::NoRoute,
            Fault::Rule(Failure::NoBackends),
            Fault::Rule(Failure::InvalidBackend),
            Fault::Rule(Failure::Unsupported),
            Fault::Rule(Failure::NoService),
            Fault::HttpsOnly,
            Fault::Http2Only,
            Fault::NotGrpc,
            Fault::GrpcsOnly,
            Fault::Rewrite,
            Fault::NoEndpoints,
            Fault::NoPeer,
            Fault::PeerRefused,
            Fault::Crowded,
            Fault::Refused,
            Fault::Handshake,
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
            Fault::Protocol | Fault::Body | Fault::TooLarge | Fault::PluginTimeout | Fault::Connect => {}
            Fault::Expectation | Fault::UploadTimeout | Fault::Misdirected | Fault::NoListener | Fault::NoRoute => {}
            Fault::Rule(Failure::NoBackends | Failure::InvalidBackend | Failure::Unsupported) => {}
            Fault::Rule(Failure::NoService) | Fault::NoPeer | Fault::PeerRefused => {}
            Fault::HttpsOnly | Fault::Http2Only | Fault::NotGrpc | Fault::GrpcsOnly => {}
            Fault::Rewrite | Fault::NoEndpoints | Fault::Crowded | Fault::Refused | Fault::ConnectTimeout => {}
            Fault::Handshake => {}
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
}
