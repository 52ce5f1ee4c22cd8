//! How both listeners answer: short, uncached, and never for a browser to interpret.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;

pub(super) type Answer = Response<Full<Bytes>>;

pub(super) fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let fields: [(HeaderName, &'static str); 3] =
        [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    for (name, value) in fields {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// A line of text for a person.
pub(super) fn text(status: StatusCode, line: &str) -> Answer {
    answer(status, "text/plain; charset=utf-8", format!("{line}\n"))
}

pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    answer(status, JSON, format!("{value:#}\n"))
}

pub(super) fn not_found(paths: &str) -> Answer {
    text(StatusCode::NOT_FOUND, &format!("nothing is here; try {paths}"))
}

/// Refuses whatever is not reading. The body of a request is never read: hyper closes the connection if there is one.
pub(super) fn refusal_of_method<B>(request: &Request<B>) -> Option<Answer> {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return None;
    }
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only for reading; use GET or HEAD");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    Some(answer)
}

/// Writes a long answer on a thread of its own, so that the control loop need not wait for it.
pub(super) async fn aside(write: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| {
        text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the answer could not be written: {error}"))
    })
}

pub(super) const JSON: &str = "application/json";
