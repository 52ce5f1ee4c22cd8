//! Responses of the status and admin listeners, with header fields against caching and content sniffing.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;

pub(super) type AdminResponse = Response<Full<Bytes>>;

pub(super) fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let fields: [(HeaderName, &'static str); 3] =
        [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A plain-text response of one line.
pub(super) fn text(status: StatusCode, line: &str) -> AdminResponse {
    response(status, "text/plain; charset=utf-8", format!("{line}\n"))
}

pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> AdminResponse {
    response(status, JSON, format!("{value:#}\n"))
}

pub(super) fn not_found(paths: &str) -> AdminResponse {
    text(StatusCode::NOT_FOUND, &format!("not found; try {paths}"))
}

/// Rejects methods other than GET and HEAD. Request bodies are never read: hyper closes the connection if there is one.
pub(super) fn reject_method<B>(request: &Request<B>) -> Option<AdminResponse> {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return None;
    }
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "read-only; use GET or HEAD");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    Some(response)
}

pub(super) const JSON: &str = "application/json";
