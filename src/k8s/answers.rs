//! What every request to the API server passes on its way: answers that must begin, waits that are asked for, watches that
//! must not follow one another without end.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use kube::client::{Body, DynBody};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};
use tower::{BoxError, Service};

/// Stands around the service that sends requests.
#[derive(Clone, Debug)]
pub(super) struct Attentive<S> {
    inner: S,
    /// By path, when the watches that were begun there would have come at the pace that is kept.
    begun: Arc<Mutex<HashMap<String, Instant>>>,
}

type Answer = Response<Box<DynBody>>;

impl<S> Attentive<S> {
    pub(super) fn around(inner: S) -> Self {
        Attentive { inner, begun: Arc::default() }
    }

    /// When this request may be sent. The watcher that we use begins anew at once when a watch ends, as it does after
    /// minutes; one that ends as soon as it begins would keep us and the server busy with nothing else.
    fn turn(&self, request: &Request<Body>) -> Instant {
        let now = Instant::now();
        let is_watch = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        if !is_watch {
            return now;
        }
        let mut begun = self.begun.lock();
        let paced = begun.entry(request.uri().path().to_owned()).or_insert(now);
        *paced = (*paced).max(now) + WATCH_EVERY;
        (*paced - WATCH_EVERY * WATCHES_AT_ONCE).max(now)
    }
}

impl<S> Service<Request<Body>> for Attentive<S>
where
    S: Service<Request<Body>, Response = Answer, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let turn = self.turn(&request);
        // Nothing is sent before it is polled.
        let answer = self.inner.call(request);
        Box::pin(async move {
            sleep_until(turn).await;
            let Ok(answer) = timeout(LONGEST_SILENCE, answer).await else {
                return Err(BoxError::from(format!("no answer within {} s", LONGEST_SILENCE.as_secs())));
            };
            match answer {
                Ok(answer) => with_wait(answer).await,
                Err(error) => Err(error),
            }
        })
    }
}

/// The client hands on the body of a refusal only, and proxies, as well as the API server when it is too busy to write one,
/// say in the header for how long they want to be left alone.
async fn with_wait(answer: Answer) -> Result<Answer, BoxError> {
    let (mut parts, body) = answer.into_parts();
    let refused = parts.status.is_client_error() || parts.status.is_server_error();
    // In seconds, as all API servers write it.
    let seconds = parts.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let Some(seconds) = seconds.filter(|seconds: &u32| refused && *seconds > 0) else {
        return Ok(Response::from_parts(parts, body));
    };
    let text = match read(body).await {
        Ok(text) => text,
        Err(error) => return Err(error),
    };
    let text = waiting(&text, parts.status.as_u16(), seconds);
    parts.headers.remove(header::CONTENT_LENGTH);
    let body: Box<DynBody> = Box::new(Full::new(Bytes::from(text)).map_err(|never| match never {}));
    Ok(Response::from_parts(parts, body))
}

/// What the API server says in a refusal, which is a sentence or two.
async fn read(mut body: Box<DynBody>) -> Result<Vec<u8>, BoxError> {
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(piece)) if text.len() + piece.len() <= LONGEST_REFUSAL => text.extend_from_slice(&piece),
            Ok(Ok(_)) => return Err(BoxError::from("a refusal of more than a megabyte")),
            Ok(Err(_trailers)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}

/// The same refusal as a `Status` that says how long to wait.
fn waiting(text: &[u8], code: u16, seconds: u32) -> String {
    let mut status = serde_json::from_slice(text).ok().filter(|value: &Value| value["kind"] == "Status");
    let status = status.get_or_insert_with(|| {
        let text = String::from_utf8_lossy(text);
        json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": text.trim(), "code": code })
    });
    let said = status["details"]["retryAfterSeconds"].as_u64().unwrap_or_default();
    if !status["details"].is_object() {
        status["details"] = json!({});
    }
    status["details"]["retryAfterSeconds"] = json!(said.max(seconds.into()));
    status.to_string()
}

/// An API server that is flooded lets requests wait for up to 15 s before it turns them away.
const LONGEST_SILENCE: Duration = Duration::from_secs(20);
const LONGEST_REFUSAL: usize = 1 << 20;
/// Of one path. Failed tries have waits of their own, which are longer.
const WATCHES_AT_ONCE: u32 = 10;
const WATCH_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::future::pending;

    use http::StatusCode;
    use tower::service_fn;

    use super::*;

    fn request(uri: &str) -> Request<Body> {
        Request::get(uri).body(Body::empty()).unwrap()
    }

    fn answer(status: u16, wait: Option<&str>, text: &str) -> Answer {
        let body: Box<DynBody> = Box::new(Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}));
        let mut answer = Response::new(body);
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(wait) = wait {
            answer.headers_mut().insert(header::RETRY_AFTER, wait.parse().unwrap());
        }
        answer
    }

    #[tokio::test]
    async fn a_wait_that_is_only_in_the_header_is_found_in_the_status() {
        let busy = r#"{"kind":"Status","message":"busy","code":429,"details":{"name":"x","retryAfterSeconds":2}}"#;
        for (status, wait, text, expected) in [
            (429, Some("7"), "Too many requests, please try again later.\n", Some(("Too many requests", 7))),
            (503, Some("3"), "", Some(("", 3))),
            (429, Some("1"), busy, Some(("busy", 2))),
            (429, Some("9"), busy, Some(("busy", 9))),
            (429, Some("9"), r#"{"kind":"Status","message":"odd","details":[]}"#, Some(("odd", 9))),
            (429, Some("soon"), "text", None),
            (429, None, "text", None),
            (200, Some("9"), "text", None),
        ] {
            let passed = with_wait(answer(status, wait, text)).await.unwrap();
            assert_eq!(passed.status(), status);
            let passed = read(passed.into_body()).await.unwrap();
            let Some((message, seconds)) = expected else {
                assert_eq!(passed, text.as_bytes());
                continue;
            };
            let passed: kube::core::Status = serde_json::from_slice(&passed).unwrap();
            assert!(passed.message.starts_with(message), "{passed:?}");
            assert_eq!(passed.details.unwrap().retry_after_seconds, seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_never_begins_is_given_up() {
        let mut silent = Attentive::around(service_fn(|_: Request<Body>| pending::<Result<Answer, BoxError>>()));
        let begun = Instant::now();
        let error = silent.call(request("/api/v1/services?watch=true")).await.err().unwrap();
        assert_eq!((error.to_string(), begun.elapsed()), ("no answer within 20 s".to_owned(), LONGEST_SILENCE));
    }

    #[tokio::test(start_paused = true)]
    async fn watches_that_end_as_soon_as_they_begin_are_paced() {
        let mut service = Attentive::around(service_fn(async |_: Request<Body>| Ok(answer(200, None, ""))));
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
        assert_eq!(begun.elapsed().as_secs(), 3, "others do not wait");
    }
}
