//! Middleware for every request to the API server: a response timeout, `Retry-After` of error responses, a rate limit
//! for watches that end as soon as they begin, and consistent lists.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use kube::client::{Body, DynBody};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};
use tower::{BoxError, Service};

/// Wraps the service that sends requests.
#[derive(Clone, Debug)]
pub(super) struct ApiMiddleware<S> {
    inner: S,
    /// By path: the time until which watches have used up the allowed rate. Each watch uses up one interval, and has to
    /// wait only if this time is more than `WATCH_BURST` intervals away.
    used_until: Arc<Mutex<HashMap<String, Instant>>>,
}

type MiddlewareResponse = Response<Box<DynBody>>;

impl<S> ApiMiddleware<S> {
    pub(super) fn new(inner: S) -> Self {
        ApiMiddleware { inner, used_until: Arc::default() }
    }

    /// The earliest time for sending this request. kube's watcher restarts an ended watch at once; a watch that ends as
    /// soon as it begins would otherwise keep Portico and the API server busy.
    fn earliest_start(&self, request: &Request<Body>) -> Instant {
        let now = Instant::now();
        let is_watch = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        if !is_watch {
            return now;
        }
        let mut by_path = self.used_until.lock();
        let used_until = by_path.entry(request.uri().path().to_owned()).or_insert(now);
        *used_until = (*used_until).max(now) + WATCH_INTERVAL;
        (*used_until - WATCH_INTERVAL * WATCH_BURST).max(now)
    }
}

impl<S> Service<Request<Body>> for ApiMiddleware<S>
where
    S: Service<Request<Body>, Response = MiddlewareResponse, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = MiddlewareResponse;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<MiddlewareResponse, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let start = self.earliest_start(&request);
        request_consistent_list(&mut request);
        // The request is sent when the future is first polled.
        let response = self.inner.call(request);
        Box::pin(async move {
            sleep_until(start).await;
            let Ok(response) = timeout(RESPONSE_TIMEOUT, response).await else {
                return Err(BoxError::from(format!("no response within {} s", RESPONSE_TIMEOUT.as_secs())));
            };
            match response {
                Ok(response) => with_retry_after(response).await,
                Err(error) => Err(error),
            }
        })
    }
}

/// Makes a streamed list consistent. kube's watcher requests any version (`resourceVersion=0`), for which an API server
/// may return what its cache has. If that is behind, for example in another replica of the API server than before, the
/// list would withdraw objects that exist. Without a version, the list is as new as the request, as paged lists are:
/// the API server reads the current version from etcd, and waits until its cache has reached it.
fn request_consistent_list(request: &mut Request<Body>) {
    let Some(query) = request.uri().query() else { return };
    let has = |wanted: &str| query.split('&').any(|pair| pair == wanted);
    if !(has("sendInitialEvents=true") && has(ANY_VERSION)) {
        return;
    }
    let pairs: Vec<_> = query.split('&').filter(|pair| *pair != ANY_VERSION && !pair.is_empty()).collect();
    let path_and_query = format!("{}?{}", request.uri().path(), pairs.join("&"));
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = path_and_query.parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

const ANY_VERSION: &str = "resourceVersion=0";

/// Copies `Retry-After` into the `Status` in the body of an error response, because kube's client passes only the body
/// on. Proxies, and API servers too busy to write a `Status`, give the delay only in the header.
async fn with_retry_after(response: MiddlewareResponse) -> Result<MiddlewareResponse, BoxError> {
    let (mut parts, body) = response.into_parts();
    let is_error = parts.status.is_client_error() || parts.status.is_server_error();
    // In seconds: API servers never write a date here.
    let seconds = parts.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let Some(seconds) = seconds.filter(|seconds: &u32| is_error && *seconds > 0) else {
        return Ok(Response::from_parts(parts, body));
    };
    let text = read_error_body(body).await?;
    let status = status_with_retry_after(&text, parts.status.as_u16(), seconds);
    parts.headers.remove(header::CONTENT_LENGTH);
    let body: Box<DynBody> = Box::new(Full::new(Bytes::from(status)).map_err(|never| match never {}));
    Ok(Response::from_parts(parts, body))
}

/// Reads the body of an error response, which is usually a sentence or two.
async fn read_error_body(mut body: Box<DynBody>) -> Result<Vec<u8>, BoxError> {
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(piece)) if text.len() + piece.len() <= MAX_ERROR_BODY => text.extend_from_slice(&piece),
            Ok(Ok(_)) => return Err(BoxError::from("the error response is larger than 1 MiB")),
            Ok(Err(_trailers)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}

/// The same error as a `Status` with `retryAfterSeconds`.
fn status_with_retry_after(text: &[u8], code: u16, seconds: u32) -> String {
    let mut status = serde_json::from_slice(text).ok().filter(|value: &Value| value["kind"] == "Status");
    let status = status.get_or_insert_with(|| {
        let text = String::from_utf8_lossy(text);
        json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": text.trim(), "code": code })
    });
    let requested = status["details"]["retryAfterSeconds"].as_u64().unwrap_or_default();
    if !status["details"].is_object() {
        status["details"] = json!({});
    }
    status["details"]["retryAfterSeconds"] = json!(requested.max(seconds.into()));
    status.to_string()
}

/// An overloaded API server queues requests for up to 15 s before it rejects them.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_ERROR_BODY: usize = 1 << 20;
/// The number of watches of one path that may start without a delay. Failed watches also have the back-off of `watch`.
const WATCH_BURST: u32 = 10;
/// The interval between the starts of watches of one path when the burst is used up.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::future::pending;

    use http::StatusCode;
    use tower::service_fn;

    use super::*;

    fn request(uri: &str) -> Request<Body> {
        Request::get(uri).body(Body::empty()).unwrap()
    }

    fn response(status: u16, retry_after: Option<&str>, text: &str) -> MiddlewareResponse {
        let body: Box<DynBody> = Box::new(Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}));
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(retry_after) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after.parse().unwrap());
        }
        response
    }

    #[tokio::test]
    async fn retry_after_header_is_copied_into_the_status() {
        let busy = r#"{"kind":"Status","message":"busy","code":429,"details":{"name":"x","retryAfterSeconds":2}}"#;
        for (status, retry_after, text, expected) in [
            (429, Some("7"), "Too many requests, please try again later.\n", Some(("Too many requests", 7))),
            (503, Some("3"), "", Some(("", 3))),
            (429, Some("1"), busy, Some(("busy", 2))),
            (429, Some("9"), busy, Some(("busy", 9))),
            (429, Some("9"), r#"{"kind":"Status","message":"odd","details":[]}"#, Some(("odd", 9))),
            (429, Some("soon"), "text", None),
            (429, None, "text", None),
            (200, Some("9"), "text", None),
        ] {
            let passed = with_retry_after(response(status, retry_after, text)).await.unwrap();
            assert_eq!(passed.status(), status);
            let body = read_error_body(passed.into_body()).await.unwrap();
            let Some((message, seconds)) = expected else {
                assert_eq!(body, text.as_bytes());
                continue;
            };
            let object: kube::core::Status = serde_json::from_slice(&body).unwrap();
            assert!(object.message.starts_with(message), "{object:?}");
            assert_eq!(object.details.unwrap().retry_after_seconds, seconds);
        }
    }

    #[test]
    fn streamed_lists_are_consistent() {
        for (query, expected) in [
            (
                "?&watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0",
                "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
            ),
            ("?sendInitialEvents=true&resourceVersion=07", "?sendInitialEvents=true&resourceVersion=07"),
            ("?watch=true&resourceVersion=0", "?watch=true&resourceVersion=0"),
            ("", ""),
        ] {
            for server in ["", "https://10.0.0.1:443"] {
                let mut request = request(&format!("{server}/api/v1/services{query}"));
                request_consistent_list(&mut request);
                assert_eq!(request.uri().to_string(), format!("{server}/api/v1/services{expected}"));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn missing_response_times_out() {
        let mut unresponsive =
            ApiMiddleware::new(service_fn(|_: Request<Body>| pending::<Result<MiddlewareResponse, BoxError>>()));
        let begun = Instant::now();
        let error = unresponsive.call(request("/api/v1/services?watch=true")).await.err().unwrap();
        assert_eq!((error.to_string(), begun.elapsed()), ("no response within 20 s".to_owned(), RESPONSE_TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn watches_that_end_at_once_are_rate_limited() {
        let mut service = ApiMiddleware::new(service_fn(async |_: Request<Body>| Ok(response(200, None, ""))));
        let begun = Instant::now();
        let mut times = Vec::new();
        for _ in 0..13 {
            drop(service.call(request("/api/v1/services?limit=1&watch=true")).await.unwrap());
            times.push(begun.elapsed().as_secs());
        }
        assert_eq!(times, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
        for uri in ["/api/v1/secrets?watch=true", "/api/v1/services?limit=1", "/api/v1/services"] {
            drop(service.call(request(uri)).await.unwrap());
        }
        assert_eq!(begun.elapsed().as_secs(), 3, "other requests are not delayed");
    }
}
