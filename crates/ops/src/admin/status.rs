//! The status listener: liveness, readiness, metrics, and Kong's status endpoints.

use std::future::Future;
use std::sync::Arc;

use http::header::ACCEPT;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use tokio::net::TcpListener;

use super::LIMITS;
use super::renderings::{Rendering, Renderings};
use super::response::{AdminResponse, JSON, json, not_found, reject_method, response, text};
use crate::http_server::{self, ServerLimits};
use crate::metrics::Exposition;

/// The data of the status listener. No method waits for other tasks. All except `waiting_for` may be slow and are
/// called on blocking threads.
pub trait StatusSource: Send + Sync + 'static {
    /// The missing prerequisites for serving requests, in words; empty when ready.
    fn waiting_for(&self) -> Vec<String>;

    /// All metrics, in the requested exposition format.
    fn metrics(&self, exposition: Exposition) -> Result<String, std::fmt::Error>;

    /// Currently open client connections.
    fn open_connections(&self) -> u64;

    /// Client connections since the start.
    fn accepted_connections(&self) -> u64;

    /// Requests since the start.
    fn total_requests(&self) -> u64;

    /// The hash of the served configuration; equal configurations have equal hashes.
    fn configuration_hash(&self) -> String;

    /// The JSON Web Key Set of the tokens that plugins sign: of all plugins, or of those in a namespace.
    fn signing_keys(&self, namespace: Option<&str>) -> String;
}

/// Serves on `listener` until `shutdown` completes.
pub async fn serve_status(listener: TcpListener, source: Arc<dyn StatusSource>, shutdown: impl Future<Output = ()>) {
    serve(listener, LIMITS, source, shutdown).await;
}

async fn serve(
    listener: TcpListener,
    limits: ServerLimits,
    source: Arc<dyn StatusSource>,
    shutdown: impl Future<Output = ()>,
) {
    let writers = ResponseWriters { metrics: Renderings::new(), kong: Renderings::new() };
    let on_connection = |_| {
        let (source, writers) = (source.clone(), writers.clone());
        move |request: Request<Incoming>| {
            let (source, writers) = (source.clone(), writers.clone());
            async move { respond(&request, source, &writers).await }
        }
    };
    http_server::serve(listener, limits, on_connection, shutdown).await;
}

/// The writers of large responses for two endpoints. They are separate, so that Kong's `/status`, which may be a probe,
/// does not wait for scrapes.
#[derive(Clone)]
struct ResponseWriters {
    metrics: Renderings<Exposition>,
    kong: Renderings<()>,
}

async fn respond(
    request: &Request<Incoming>,
    source: Arc<dyn StatusSource>,
    writers: &ResponseWriters,
) -> AdminResponse {
    if let Some(rejection) = reject_method(request) {
        return rejection;
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok"),
        "/readyz" => readiness(&*source),
        "/metrics" => metrics(request, source, &writers.metrics).await,
        "/status" => match writers.kong.permit(()).await {
            Ok(permit) => permit.write(move || Ok(kong_status(&*source))).await,
            Err(response) => response,
        },
        "/status/ready" => kong_readiness(&*source),
        SIGNING_KEYS => signing_keys(request, &*source),
        _ => not_found(&format!("/healthz, /readyz, /metrics, /status, /status/ready or {SIGNING_KEYS}")),
    }
}

/// One line per missing prerequisite, in the format of the API server.
fn readiness(source: &dyn StatusSource) -> AdminResponse {
    let waiting_for = source.waiting_for();
    if waiting_for.is_empty() {
        return text(StatusCode::OK, "ok");
    }
    let lines: Vec<_> = waiting_for.iter().map(|name| format!("[-] {name}")).collect();
    text(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready, waiting for:\n{}", lines.join("\n")))
}

async fn metrics(
    request: &Request<Incoming>,
    source: Arc<dyn StatusSource>,
    renderings: &Renderings<Exposition>,
) -> AdminResponse {
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let exposition = Exposition::accepted_by(accept);
    let render = move || match source.metrics(exposition) {
        Ok(text) => Ok(Rendering { content_type: exposition.content_type(), text }),
        Err(error) => {
            let message = format!("the metrics could not be written: {error}");
            Err(Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, &message)))
        }
    };
    match renderings.permit(exposition).await {
        Ok(permit) => permit.write(render).await,
        Err(response) => response,
    }
}

/// The fields of Kong's `/status` that scripts and dashboards commonly read. Kong's fields about Lua workers and the
/// database have no equivalent.
fn kong_status(source: &dyn StatusSource) -> Rendering {
    let status = json!({
        "configuration_hash": source.configuration_hash(),
        "server": {
            "connections_active": source.open_connections(),
            "connections_accepted": source.accepted_connections(),
            "connections_handled": source.accepted_connections(),
            "total_requests": source.total_requests(),
        },
    });
    Rendering { content_type: JSON, text: format!("{status:#}\n") }
}

/// The path of the public keys of tokens that plugins sign.
const SIGNING_KEYS: &str = "/.well-known/portico/jwks.json";

fn signing_keys(request: &Request<Incoming>, source: &dyn StatusSource) -> AdminResponse {
    let parameters = request.uri().query().into_iter().flat_map(|query| query.split('&'));
    let namespace = parameters.filter_map(|parameter| parameter.strip_prefix("namespace=")).next_back();
    response(StatusCode::OK, "application/jwk-set+json", source.signing_keys(namespace))
}

fn kong_readiness(source: &dyn StatusSource) -> AdminResponse {
    let waiting_for = source.waiting_for();
    if waiting_for.is_empty() {
        return json(StatusCode::OK, &json!({ "message": "ready" }));
    }
    let message = format!("not ready, waiting for: {}", waiting_for.join(", "));
    json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "message": message }))
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;

    use super::*;
    use crate::http_server::testing;

    struct StubStatus {
        waiting_for: &'static [&'static str],
    }

    impl StatusSource for StubStatus {
        fn waiting_for(&self) -> Vec<String> {
            self.waiting_for.iter().map(ToString::to_string).collect()
        }

        fn metrics(&self, exposition: Exposition) -> Result<String, fmt::Error> {
            Ok(format!("{exposition:?}\n"))
        }

        fn open_connections(&self) -> u64 {
            1
        }

        fn accepted_connections(&self) -> u64 {
            2
        }

        fn total_requests(&self) -> u64 {
            3
        }

        fn configuration_hash(&self) -> String {
            "abc".to_owned()
        }

        fn signing_keys(&self, namespace: Option<&str>) -> String {
            format!("{{\"keys\":[]}} {namespace:?}")
        }
    }

    /// Sends the text of a request, and returns that of the response without the header field `date`.
    async fn send(waiting_for: &'static [&'static str], request: &str) -> String {
        let (listener, address) = testing::listener().await;
        let server = tokio::spawn(serve_status(listener, Arc::new(StubStatus { waiting_for }), std::future::pending()));
        let response = testing::roundtrip(address, request).await;
        server.abort();
        response.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
    }

    async fn get(waiting_for: &'static [&'static str], path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: portico.example\r\nconnection: close\r\n\r\n");
        let response = send(waiting_for, &request).await;
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    // docs/kong-compatibility.md, 3.14
    #[tokio::test]
    async fn readiness_lists_missing_prerequisites() {
        let missing: &[&str] = &["first snapshot", "listeners"];
        let cases: [(&'static [&str], &str, u16, &str); 6] = [
            (&[], "/healthz", 200, "ok\n"),
            (missing, "/healthz", 200, "ok\n"),
            (&[], "/readyz", 200, "ok\n"),
            (missing, "/readyz", 503, "not ready, waiting for:\n[-] first snapshot\n[-] listeners\n"),
            (&[], "/status/ready", 200, "{\n  \"message\": \"ready\"\n}\n"),
            (
                missing,
                "/status/ready",
                503,
                "{\n  \"message\": \"not ready, waiting for: first snapshot, listeners\"\n}\n",
            ),
        ];
        for (waiting_for, path, status, body) in cases {
            assert_eq!(get(waiting_for, path).await, (status, body.to_owned()), "{path}");
        }
    }

    #[tokio::test]
    async fn kong_status_has_connections_and_requests() {
        let (status, body) = get(&[], "/status").await;
        let expected = json!({
            "configuration_hash": "abc",
            "server": {
                "connections_active": 1, "connections_accepted": 2, "connections_handled": 2, "total_requests": 3,
            },
        });
        assert_eq!((status, serde_json::from_str(&body).unwrap()), (200, expected));
    }

    /// Summing the requests of many series is slow, and a late liveness probe restarts the process.
    #[tokio::test]
    async fn probes_are_served_while_kong_status_is_slow() {
        /// Returns the total number of requests on a signal.
        struct SlowTotal {
            begun: Arc<Notify>,
            finish: Mutex<mpsc::Receiver<()>>,
        }

        impl StatusSource for SlowTotal {
            fn waiting_for(&self) -> Vec<String> {
                Vec::new()
            }

            fn metrics(&self, _exposition: Exposition) -> Result<String, fmt::Error> {
                Err(fmt::Error)
            }

            fn open_connections(&self) -> u64 {
                0
            }

            fn accepted_connections(&self) -> u64 {
                0
            }

            fn total_requests(&self) -> u64 {
                self.begun.notify_one();
                self.finish.lock().recv_timeout(Duration::from_secs(10)).map_or(0, |()| 7)
            }

            fn configuration_hash(&self) -> String {
                String::new()
            }

            fn signing_keys(&self, namespace: Option<&str>) -> String {
                format!("{{\"keys\":[]}} {namespace:?}")
            }
        }

        let (probed, finish) = mpsc::sync_channel(1);
        let begun = Arc::new(Notify::new());
        let (listener, address) = testing::listener().await;
        let source = Arc::new(SlowTotal { begun: begun.clone(), finish: Mutex::new(finish) });
        let server = tokio::spawn(serve_status(listener, source, std::future::pending()));
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let request = get("/status");
        let pending = tokio::spawn(async move { testing::roundtrip(address, &request).await });
        begun.notified().await;
        let probe = testing::roundtrip(address, &get("/healthz")).await;
        assert!(probe.starts_with("HTTP/1.1 200"), "{probe}");
        probed.send(()).ok();
        let status = pending.await.unwrap();
        assert!(status.contains("\"total_requests\": 7"), "the probe was served only afterwards: {status}");
        server.abort();
    }

    /// Kong's charts use `/status` as a probe.
    #[tokio::test]
    async fn kong_status_does_not_wait_for_scrapes() {
        /// Returns metrics on a signal.
        struct SlowMetrics {
            begun: mpsc::SyncSender<()>,
            finish: Mutex<mpsc::Receiver<()>>,
        }

        impl StatusSource for SlowMetrics {
            fn waiting_for(&self) -> Vec<String> {
                Vec::new()
            }

            fn metrics(&self, _exposition: Exposition) -> Result<String, fmt::Error> {
                self.begun.send(()).ok();
                self.finish.lock().recv_timeout(Duration::from_secs(30)).ok();
                Ok(String::new())
            }

            fn open_connections(&self) -> u64 {
                0
            }

            fn accepted_connections(&self) -> u64 {
                0
            }

            fn total_requests(&self) -> u64 {
                7
            }

            fn configuration_hash(&self) -> String {
                String::new()
            }

            fn signing_keys(&self, namespace: Option<&str>) -> String {
                format!("{{\"keys\":[]}} {namespace:?}")
            }
        }

        let (begun, scrape_begun) = mpsc::sync_channel(9);
        let (scrapes_may_finish, finish) = mpsc::sync_channel(9);
        let (listener, address) = testing::listener().await;
        let source = Arc::new(SlowMetrics { begun, finish: Mutex::new(finish) });
        let server = tokio::spawn(serve_status(listener, source, std::future::pending()));
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        // More scrapes than can be written concurrently.
        let scrapes: Vec<_> = std::iter::repeat_n(get("/metrics"), 4)
            .map(|request| tokio::spawn(async move { testing::roundtrip(address, &request).await }))
            .collect();
        // Waits until the maximum number of scrapes is being written.
        tokio::task::spawn_blocking(move || {
            (0..2).for_each(|_| scrape_begun.recv_timeout(Duration::from_secs(30)).unwrap())
        })
        .await
        .unwrap();
        let status = tokio::time::timeout(Duration::from_secs(10), testing::roundtrip(address, &get("/status"))).await;
        assert!(status.expect("Kong's status does not wait for scrapes").contains("\"total_requests\": 7"));
        drop(scrapes_may_finish);
        for scrape in scrapes {
            assert!(scrape.await.unwrap().starts_with("HTTP/1.1 200"));
        }
        server.abort();
    }

    /// Metrics of 16 MiB, which are more than the buffers of a connection hold.
    struct LargeMetrics {
        renderings: AtomicUsize,
    }

    impl StatusSource for LargeMetrics {
        fn waiting_for(&self) -> Vec<String> {
            Vec::new()
        }

        fn metrics(&self, _exposition: Exposition) -> Result<String, fmt::Error> {
            self.renderings.fetch_add(1, Ordering::SeqCst);
            Ok("x".repeat(16 << 20))
        }

        fn open_connections(&self) -> u64 {
            0
        }

        fn accepted_connections(&self) -> u64 {
            0
        }

        fn total_requests(&self) -> u64 {
            0
        }

        fn configuration_hash(&self) -> String {
            String::new()
        }

        fn signing_keys(&self, namespace: Option<&str>) -> String {
            format!("{{\"keys\":[]}} {namespace:?}")
        }
    }

    #[tokio::test]
    async fn clients_that_do_not_read_share_responses() {
        let (listener, address) = testing::listener().await;
        let source = Arc::new(LargeMetrics { renderings: AtomicUsize::new(0) });
        let server = tokio::spawn(serve_status(listener, source.clone(), std::future::pending()));
        let mut stuck = Vec::new();
        for _ in 0..40 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            // The response has begun, and the rest of it waits.
            let mut status = [0; 12];
            client.read_exact(&mut status).await.unwrap();
            assert_eq!(&status, b"HTTP/1.1 200");
            stuck.push(client);
        }
        assert_eq!(source.renderings.load(Ordering::SeqCst), 2, "as many as may be unread");
        drop(stuck);
        server.abort();
    }

    #[tokio::test]
    async fn idle_connections_do_not_block_probes() {
        let (listener, address) = testing::listener().await;
        let limits = ServerLimits { connections: 8, idle_timeout: Duration::from_secs(3600), ..LIMITS };
        let source = Arc::new(StubStatus { waiting_for: &[] });
        let server = tokio::spawn(serve(listener, limits, source, std::future::pending()));
        // Opened sequentially, so they are accepted in this order.
        let mut idle_connections = Vec::new();
        for _ in 0..limits.connections * 2 {
            idle_connections.push(TcpStream::connect(address).await.unwrap());
        }
        let probe = testing::roundtrip(address, "GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let probe = tokio::time::timeout(Duration::from_secs(10), probe).await.expect("the probe is accepted");
        assert!(probe.starts_with("HTTP/1.1 200"), "{probe}");
        drop(idle_connections);
        server.abort();
    }

    #[tokio::test]
    async fn metrics_use_the_requested_exposition() {
        for (accept, content_type, body) in [
            ("*/*", "text/plain; version=0.0.4; charset=utf-8", "Text\n"),
            (
                "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                "OpenMetrics\n",
            ),
        ] {
            let request = format!("GET /metrics HTTP/1.1\r\nhost: a\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
            let response = send(&[], &request).await;
            assert!(response.contains(&format!("content-type: {content_type}\r\n")), "{response}");
            assert!(response.ends_with(&format!("\r\n\r\n{body}")), "{response}");
        }
    }

    #[tokio::test]
    async fn only_get_and_head_are_allowed() {
        let request = "POST /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi";
        let expected = "HTTP/1.1 405 Method Not Allowed\r\ncontent-type: text/plain; charset=utf-8\r\n\
                        cache-control: no-store\r\nx-content-type-options: nosniff\r\nallow: GET, HEAD\r\n\
                        content-length: 27\r\nconnection: close\r\n\r\nread-only; use GET or HEAD\n";
        let response = send(&[], request).await;
        let mut lines: Vec<_> = response.split("\r\n").collect();
        let mut expected: Vec<_> = expected.split("\r\n").collect();
        lines.sort_unstable();
        expected.sort_unstable();
        assert_eq!(lines, expected);
        let head = send(&[], "HEAD /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[tokio::test]
    async fn a_query_selects_the_keys_of_a_namespace() {
        for (query, namespace) in [("", "None"), ("?namespace=a", "Some(\"a\")"), ("?x=1&namespace=", "Some(\"\")")] {
            let (status, body) = get(&[], &format!("/.well-known/portico/jwks.json{query}")).await;
            assert_eq!((status, body), (200, format!("{{\"keys\":[]}} {namespace}")), "{query}");
        }
    }

    #[tokio::test]
    async fn unknown_paths_list_the_known_ones() {
        let (status, body) = get(&[], "/debug/store").await;
        let expected =
            "not found; try /healthz, /readyz, /metrics, /status, /status/ready or /.well-known/portico/jwks.json\n";
        assert_eq!((status, body.as_str()), (404, expected));
    }
}
