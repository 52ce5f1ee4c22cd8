//! Responses of the status and admin listeners, with header fields against caching and content sniffing. Large
//! responses are written on blocking threads.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// Writes the large responses of a listener to memory on blocking threads, so that tasks on the same runtime (probes,
/// the control loop) are not delayed. The number of concurrent writes is limited, since each response may be as large
/// as the whole configuration. The limit does not count a complete response that waits until its client reads it.
#[derive(Clone)]
pub(super) struct ResponseWriter(Arc<Semaphore>);

/// The permit to write one response.
pub(super) struct WritePermit {
    _permit: OwnedSemaphorePermit,
}

impl ResponseWriter {
    pub(super) fn new() -> Self {
        ResponseWriter(Arc::new(Semaphore::new(MAX_CONCURRENT_WRITES)))
    }

    /// Waits while the maximum number of responses is being written.
    pub(super) async fn permit(&self) -> WritePermit {
        WritePermit { _permit: Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed") }
    }
}

impl WritePermit {
    pub(super) async fn write(self, build_response: impl FnOnce() -> AdminResponse + Send + 'static) -> AdminResponse {
        // The blocking task owns the permit, since it continues if the client disconnects and this future is dropped.
        let build_and_release = move || {
            let response = build_response();
            drop(self);
            response
        };
        tokio::task::spawn_blocking(build_and_release).await.unwrap_or_else(|error| {
            text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the response could not be written: {error}"))
        })
    }
}

/// Enough for two Prometheus servers, a common setup.
const MAX_CONCURRENT_WRITES: usize = 2;

pub(super) const JSON: &str = "application/json";

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn permit_is_held_until_written_despite_disconnect() {
        let writer = ResponseWriter::new();
        let (finish, finished) = sync_channel::<()>(1);
        let permit = writer.permit().await;
        let mut response = Box::pin(permit.write(move || {
            finished.recv_timeout(Duration::from_secs(30)).ok();
            text(StatusCode::OK, "late")
        }));
        assert!((&mut response).now_or_never().is_none(), "the response is being written");
        drop(response);
        let other_permits = [writer.permit().await];
        assert_eq!(other_permits.len() + 1, MAX_CONCURRENT_WRITES);
        assert!(writer.permit().now_or_never().is_none(), "all permits are taken");
        drop(finish);
        writer.permit().await;
    }
}
