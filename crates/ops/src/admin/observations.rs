//! Observed requests on the admin listener: `PUT /debug/observations/TOKEN` registers a token on this connection, and
//! `GET` of the same path waits for the request that carries it.
//!
//! A token is registered as long as its connection is open, so a client that disappears leaves nothing behind, and the
//! limit of connections limits the tokens. The methods protect against web pages: a page cannot send `PUT` to another
//! origin without a preflight request, which is refused.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::ALLOW;
use http::{HeaderValue, Method, Request, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;

use super::response::{AdminResponse, json, text};

/// Observes requests in the data plane.
pub trait RequestObserver: Send + Sync + 'static {
    /// Observes the next request with this token, and returns how it was served. Dropping the future ends that. `None`
    /// if the request was not recorded.
    fn observe(&self, token: &str, dry_run: bool) -> BoxFuture<'static, Option<Value>>;
}

/// The observation that one connection to the admin listener waits for.
pub(super) struct Observations {
    observer: Arc<dyn RequestObserver>,
    awaited: Mutex<Option<Awaited>>,
}

struct Awaited {
    token: String,
    observation: BoxFuture<'static, Option<Value>>,
}

impl Observations {
    pub(super) fn new(observer: Arc<dyn RequestObserver>) -> Self {
        Observations { observer, awaited: Mutex::default() }
    }

    /// The response to a request for an observation. `None` for every other path.
    pub(super) async fn respond<B>(&self, request: &Request<B>) -> Option<AdminResponse> {
        let token = request.uri().path().strip_prefix(PATH)?;
        if token.len() != TOKEN_LENGTH || !token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            let message = "the token is not valid; use 32 hexadecimal digits in lower case, which are random";
            return Some(text(StatusCode::BAD_REQUEST, message));
        }
        Some(match *request.method() {
            Method::PUT => self.register(token, request.uri().query()),
            Method::GET => self.wait(token).await,
            _ => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use PUT or GET");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, PUT"));
                response
            }
        })
    }

    /// Registers the token, instead of the previous one of the connection.
    fn register(&self, token: &str, query: Option<&str>) -> AdminResponse {
        let dry_run = match query {
            None | Some("") => false,
            Some("dry-run") => true,
            Some(_) => return text(StatusCode::BAD_REQUEST, "unknown query; use ?dry-run, or none"),
        };
        let observation = self.observer.observe(token, dry_run);
        *self.awaited.lock() = Some(Awaited { token: token.to_owned(), observation });
        text(StatusCode::CREATED, "registered; send the token in the field portico-observe of one request")
    }

    async fn wait(&self, token: &str) -> AdminResponse {
        let awaited = self.awaited.lock().take_if(|awaited| awaited.token == token);
        let Some(awaited) = awaited else {
            let message = "not registered on this connection; PUT it first, on the same connection";
            return text(StatusCode::NOT_FOUND, message);
        };
        match tokio::time::timeout(WAIT_TIMEOUT, awaited.observation).await {
            Ok(Some(observation)) => json(StatusCode::OK, &observation),
            Ok(None) => text(StatusCode::NOT_FOUND, "the request was not recorded"),
            Err(_) => text(StatusCode::GATEWAY_TIMEOUT, "no request with the token has ended within 60s"),
        }
    }
}

pub(super) const PATH: &str = "/debug/observations/";
/// 128 random bits.
const TOKEN_LENGTH: usize = 32;
/// How long a request waits for the observed request to end.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use serde_json::json;

    use super::*;

    const TOKEN: &str = "00112233445566778899aabbccddeeff";

    /// Counts the observations that are awaited. A dry run ends at once; another request never does.
    #[derive(Default)]
    struct StubObserver(Arc<AtomicUsize>);

    struct Count(Arc<AtomicUsize>);

    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl RequestObserver for StubObserver {
        fn observe(&self, token: &str, dry_run: bool) -> BoxFuture<'static, Option<Value>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            let (count, value) = (Count(self.0.clone()), json!({ "token": token }));
            async move {
                let _count = count;
                if !dry_run {
                    std::future::pending::<()>().await;
                }
                Some(value)
            }
            .boxed()
        }
    }

    async fn send(observations: &Observations, method: Method, target: &str) -> Option<StatusCode> {
        let request = Request::builder().method(method).uri(target).body(()).unwrap();
        observations.respond(&request).await.map(|response| response.status())
    }

    #[tokio::test(start_paused = true)]
    async fn registration_lasts_until_it_is_read_or_the_connection_closes() {
        let observer = StubObserver::default();
        let count = observer.0.clone();
        let observations = Observations::new(Arc::new(observer));
        let path = format!("{PATH}{TOKEN}");
        assert_eq!(send(&observations, Method::GET, &path).await, Some(StatusCode::NOT_FOUND));
        assert_eq!(send(&observations, Method::PUT, &format!("{path}?dry-run")).await, Some(StatusCode::CREATED));
        assert_eq!(send(&observations, Method::GET, &path.replace("00", "01")).await, Some(StatusCode::NOT_FOUND));
        assert_eq!(send(&observations, Method::GET, &path).await, Some(StatusCode::OK));
        assert_eq!(send(&observations, Method::GET, &path).await, Some(StatusCode::NOT_FOUND), "it was read");
        assert_eq!(count.load(Ordering::SeqCst), 0);
        for _ in 0..3 {
            assert_eq!(send(&observations, Method::PUT, &path).await, Some(StatusCode::CREATED));
        }
        assert_eq!(count.load(Ordering::SeqCst), 1, "a connection has one token");
        assert_eq!(send(&observations, Method::GET, &path).await, Some(StatusCode::GATEWAY_TIMEOUT));
        assert_eq!(send(&observations, Method::PUT, &path).await, Some(StatusCode::CREATED));
        drop(observations);
        assert_eq!(count.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn other_requests_are_refused_or_left_to_views() {
        let observations = Observations::new(Arc::new(StubObserver::default()));
        let path = format!("{PATH}{TOKEN}");
        for (method, target, expected) in [
            (Method::GET, "/debug/store", None),
            (Method::PUT, "/debug/observations", None),
            (Method::PUT, "/debug/observations/short", Some(400)),
            (Method::PUT, &path.to_uppercase().replace("/DEBUG/OBSERVATIONS/", PATH), Some(400)),
            (Method::PUT, &format!("{path}?wet-run"), Some(400)),
            (Method::POST, &path, Some(405)),
            (Method::OPTIONS, &path, Some(405)),
            (Method::HEAD, &path, Some(405)),
        ] {
            let status = send(&observations, method.clone(), target).await;
            assert_eq!(status.map(|status| status.as_u16()), expected, "{method} {target}");
        }
    }
}
