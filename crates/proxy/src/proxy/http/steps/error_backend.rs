//! Errors that another backend responds to, as `error_page` of nginx lets it: it gets a request that describes the one
//! of the client, and the client gets its response.
//!
//! ```text
//!   request headers ─▶ describe ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┐
//!         └▶ … ─▶ backend ─▶ forwarding ─▶ response or error ─▶ replace ─▶ response plugins
//!                    └ without endpoints: set_headers ┘           └▶ error backend
//! ```
//!
//! The response of the error backend is final: no error backend replaces it, whatever its status is.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, HOST, WWW_AUTHENTICATE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use tokio::time::timeout_at;

use super::described_request::DescribedRequest;
use super::early_exit::EarlyExit;
use super::order::RequestStep;
use super::request_context::{RequestContext, RoutedRequest};
use super::request_hash;
use super::side_request;
use crate::forwarding_fields::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_REQUEST_ID};
use crate::plugin_api::ResponseSource;
use crate::plugin_api::changed_fields::{CONDITIONAL_FIELDS, MESSAGE_FIELDS};
use crate::plugin_api::header_spoofing::remove_spoofed;
use crate::proxy::http::exchange::activity::{ActivityPhase, until_timed_out};
use crate::proxy::http::exchange::body_source::BodySource;
use crate::proxy::http::exchange::read_timeout::RuleTimeouts;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::error_backend::ErrorBackend;
use crate::snapshot::router::is_call;
use crate::snapshot::rule::{Action, RouteFailure};
use crate::turn_clock;

const X_CODE: HeaderName = HeaderName::from_static("x-code");
const X_FORMAT: HeaderName = HeaderName::from_static("x-format");
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");

/// The headers that describe the error and the location, except the names of the location.
static OF_ERROR: [HeaderName; 3] = [X_CODE, X_FORMAT, X_ORIGINAL_URI];

/// What else informs backends about the client. An error backend gets only its address.
static OF_CLIENT: [HeaderName; 9] = [
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-scheme"),
    HeaderName::from_static("x-original-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
    X_REQUEST_ID,
    HeaderName::from_static("x-scheme"),
];

/// Describes the request if an error backend may replace its response. Not that of a gRPC call or an upgrade, whose
/// clients could not read a page.
pub(super) fn describe(cx: &mut RequestContext<'_>, routed: &RoutedRequest<'_>, request: &Request<RequestBody>) {
    let Some(backend) = routed.rule.options().error_backend.as_ref() else { return };
    if backend.statuses.is_empty() || routed.upgrade.is_some() || is_call(request.headers()) {
        return;
    }
    let target = routed.path.query().map_or_else(|| "/".to_owned(), |query| format!("/?{query}"));
    // What cannot be described keeps its errors.
    let Ok(target) = PathAndQuery::from_maybe_shared(Bytes::from(target)) else { return };
    let (Ok(original), Ok(address)) =
        (HeaderValue::from_str(routed.path.raw()), HeaderValue::from_str(&cx.record.client.address.to_string()))
    else {
        return;
    };
    let hash = backend
        .upstream
        .as_ref()
        .and_then(|upstream| request_hash::of_side_request(cx, routed, request.headers(), upstream));
    let mut headers = headers_of_client(request.headers(), backend);
    headers.insert(HOST, routed.host.raw.clone());
    headers.insert(X_FORWARDED_FOR, address);
    headers.insert(X_ORIGINAL_URI, original);
    if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
        // RFC 9110, section 8.6: servers may expect the length of a body with these methods.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    }
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = Uri::from(target);
    *head.headers_mut() = headers;
    let backend = Arc::clone(backend);
    let described = DescribedRequest { backend, head, hops: routed.hops, client: routed.client, hash };
    cx.record.described = Some(Box::new(described));
}

/// What the client has sent, without what is about the body and the connection, and what only Portico may say.
fn headers_of_client(of_client: &HeaderMap, backend: &ErrorBackend) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(of_client.len() + OF_ERROR.len() + backend.names.len() + 1);
    let is_copied = |name: &HeaderName| {
        !MESSAGE_FIELDS.contains(name) && !CONDITIONAL_FIELDS.contains(name) && *name != CONTENT_ENCODING
    };
    for (name, value) in of_client.iter().filter(|(name, _)| is_copied(name)) {
        headers.append(name.clone(), value.clone());
    }
    remove_names(&mut headers, &OF_CLIENT);
    remove_names(&mut headers, &OF_ERROR);
    set_names(&mut headers, backend);
    headers
}

/// Removes all spellings of these names.
fn remove_names(headers: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        headers.remove(name);
    }
    remove_spoofed(headers, names);
}

/// Sets the headers with the names of the location.
fn set_names(headers: &mut HeaderMap, backend: &ErrorBackend) {
    for (name, value) in &backend.names {
        remove_names(headers, std::slice::from_ref(name));
        headers.insert(name.clone(), value.clone());
    }
}

fn set_error(headers: &mut HeaderMap, status: StatusCode) {
    headers.insert(X_CODE, HeaderValue::from(status.as_u16()));
    match headers.get(ACCEPT).cloned() {
        Some(format) => drop(headers.insert(X_FORMAT, format)),
        None => drop(headers.remove(X_FORMAT)),
    }
}

/// Tells a backend that gets the request itself, in place of one without endpoints, why.
pub(super) fn set_headers(cx: &RequestContext<'_>, backend: &ErrorBackend, headers: &mut HeaderMap) {
    remove_names(headers, &[X_CODE, X_FORMAT]);
    set_names(headers, backend);
    set_error(headers, StatusCode::SERVICE_UNAVAILABLE);
    headers.insert(X_REQUEST_ID, cx.record.facts.request_id.clone());
}

/// Replaces the response to a request by that of the error backend, or by the error of the request to it, if the rule
/// lists its status.
pub(super) async fn replace(
    cx: &mut RequestContext<'_>,
    outcome: Result<Response<BodySource>, EarlyExit>,
    described: Box<DescribedRequest>,
) -> Result<Response<BodySource>, EarlyExit> {
    if is_substitute(cx) {
        // It is the error backend, whose response is final.
        return outcome;
    }
    let (former, source, must_close) = match outcome {
        Ok(response) => (response, ResponseSource::Service, false),
        Err(exit) => {
            let (source, must_close) = (exit.source(), exit.must_close());
            (exit.into_response(cx), source, must_close)
        }
    };
    if !described.backend.replaces(former.status().as_u16(), source == ResponseSource::Service) {
        return match source {
            ResponseSource::Service => Ok(former),
            _ => Err(EarlyExit::Complete { response: Box::new(former), source, must_close }),
        };
    }
    cx.enter(RequestStep::ErrorBackend);
    let reason = cx.record.facts.error;
    let (former, body) = former.into_parts();
    let mut response = match send(cx, *described, former.status, body).await {
        Ok(mut response) => {
            cx.set_request_id(response.headers_mut());
            response
        }
        Err(error) => EarlyExit::from(error).into_response(cx),
    };
    // The log names the first error, because of which there are two.
    cx.record.facts.error = reason.or(cx.record.facts.error);
    if former.status == StatusCode::UNAUTHORIZED && !response.headers().contains_key(WWW_AUTHENTICATE) {
        // As in nginx, so that browsers let their users log in.
        for challenge in former.headers.get_all(WWW_AUTHENTICATE) {
            response.headers_mut().append(WWW_AUTHENTICATE, challenge.clone());
        }
    }
    // Not one of the Service, for which caches would take it.
    Err(EarlyExit::Complete { response: Box::new(response), source: ResponseSource::Proxy, must_close })
}

/// Whether the request went to what takes the place of a Service without endpoints.
fn is_substitute(cx: &RequestContext<'_>) -> bool {
    match (cx.rule.map(|rule| &rule.action), cx.backend) {
        (Some(Action::Forward(split)), Some(backend)) => split.is_substitute(backend),
        _ => false,
    }
}

/// Sends the description. `body`: that of the response that is replaced.
async fn send(
    cx: &mut RequestContext<'_>,
    described: DescribedRequest,
    status: StatusCode,
    body: BodySource,
) -> Result<Response<BodySource>, RequestError> {
    let exchange = Rc::clone(&cx.record.exchange);
    // The limits of the request were for its backend, and may be why there is an error.
    let activity = &exchange.activity;
    activity.timed_out.set(false);
    activity.rule_timeouts.set(RuleTimeouts::default());
    activity.read_timeout.take();
    let now = turn_clock::refresh();
    activity.enter_phase(ActivityPhase::AwaitingResponse, now);
    cx.record.facts.deadline = None;
    let DescribedRequest { backend, head, hops, client, hash } = described;
    // An error of an endpoint is small, and has nearly always arrived with its head.
    timeout_at(now + DRAIN_TIME, side_request::drain(body)).await.ok();
    let Some(upstream) = &backend.upstream else {
        return Err(RequestError::InvalidRule(RouteFailure::NoDefaultBackend));
    };
    let mut request = head.map(|()| RequestBody::empty(&exchange));
    set_error(request.headers_mut(), status);
    request.headers_mut().insert(X_REQUEST_ID, cx.record.facts.request_id.clone());
    let destination = side_request::destination(upstream, hops, client, hash);
    let sending = pin!(side_request::attempt(&exchange, destination, request));
    let sent = timeout_at(now + TIMEOUT, until_timed_out(activity, sending)).await;
    match sent {
        Ok(Some((outcome, _))) => outcome.map_err(|error| error.error),
        Ok(None) | Err(_) => Err(RequestError::ResponseTimeout),
    }
}

/// In which the head of the response must arrive. The body streams like any other.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long more of the body of the error is awaited, before its connection is closed.
const DRAIN_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> HeaderMap {
        let fields = text.lines().map(|line| line.split_once(": ").unwrap());
        fields.map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    fn backend() -> ErrorBackend {
        let name = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        ErrorBackend {
            statuses: [404].into(),
            replaces_endpoint_errors: true,
            upstream: None,
            names: [name("x-ingress-name", "web"), name("x-service-name", "shop")].into(),
        }
    }

    fn lines(headers: &HeaderMap) -> String {
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines.join("\n")
    }

    #[test]
    fn clients_cannot_say_what_describes_their_errors() {
        let sent = "accept: text/html\ncontent-length: 7\ncontent-encoding: gzip\ncontent-type: a/b\nif-none-match: x\n\
                    x-code: 200\nx_code: 200\nx-original-uri: /a\nx-ingress-name: other\nx_service_name: other\n\
                    x-forwarded-proto: https\nx-real-ip: 10.0.0.1\nx-own: 1";
        let mut found = headers_of_client(&headers(sent), &backend());
        set_error(&mut found, StatusCode::NOT_FOUND);
        let expected = "accept: text/html\ncontent-type: a/b\nx-code: 404\nx-format: text/html\nx-ingress-name: web\n\
                        x-own: 1\nx-service-name: shop";
        assert_eq!(lines(&found), expected);
        let mut found = headers_of_client(&headers("x-format: a"), &backend());
        set_error(&mut found, StatusCode::BAD_GATEWAY);
        assert_eq!(lines(&found), "x-code: 502\nx-ingress-name: web\nx-service-name: shop");
    }
}
