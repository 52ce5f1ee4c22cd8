//! How both listeners answer: uncached, never for a browser to interpret, and aside where it takes long.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// Where long answers of a listener are written: on threads of their own, so that what shares our runtime (probes, the control
/// loop) need not wait for them. Not many at a time, since each may be as large as all that is known. One that is written no longer
/// counts: as many can wait for their readers as there are connections, each until nothing of it is taken for a while.
#[derive(Clone)]
pub(super) struct Aside(Arc<Semaphore>);

/// For one answer.
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
}

impl Aside {
    pub(super) fn new() -> Self {
        Aside(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// Waits while others write.
    pub(super) async fn room(&self) -> Room {
        Room { _permit: Arc::clone(&self.0).acquire_owned().await.expect("it is never closed") }
    }
}

impl Room {
    pub(super) async fn write(self, write: impl FnOnce() -> Answer + Send + 'static) -> Answer {
        // The room goes along: whoever asked may leave before it is written.
        let writing = move || {
            let answer = write();
            drop(self);
            answer
        };
        tokio::task::spawn_blocking(writing).await.unwrap_or_else(|error| {
            text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the answer could not be written: {error}"))
        })
    }
}

/// Two Prometheus, as they are often run.
const AT_ONCE: usize = 2;

pub(super) const JSON: &str = "application/json";

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_finds_no_room_waits_until_an_answer_is_written_although_nobody_waits_for_that() {
        let aside = Aside::new();
        let (go_on, told) = sync_channel::<()>(1);
        let room = aside.room().await;
        let mut left = Box::pin(room.write(move || {
            told.recv_timeout(Duration::from_secs(30)).ok();
            text(StatusCode::OK, "late")
        }));
        assert!((&mut left).now_or_never().is_none(), "it is being written");
        drop(left);
        let others = [aside.room().await];
        assert_eq!(others.len() + 1, AT_ONCE);
        assert!(aside.room().now_or_never().is_none(), "there is no more room");
        drop(go_on);
        aside.room().await;
    }
}
