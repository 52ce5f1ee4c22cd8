//! The admin listener: read-only views of the internal state as JSON or YAML, observed requests, and purges of stored
//! responses, for local operators.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{CONNECTION, CONTENT_SECURITY_POLICY, HOST, HeaderValue};
use http::uri::Authority;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::net::TcpListener;
use tracing::warn;

use super::LIMITS;
use super::cache_purges::CachePurges;
use super::observations::{Observations, RequestObserver};
use super::renderings::Renderings;
use super::response::{AdminResponse, not_found, reject_method, response, text};
use super::self_connection::{self, SelfConnectionDetector};
use super::views::{AdminView, ViewContent, ViewFormat, ViewRequest};
use crate::http_server;

/// The views that the application provides.
pub trait Views: Send + Sync + 'static {
    /// The current content of a view, without secrets. `None` during shutdown, when the task that owns the data has
    /// ended.
    fn view(&self, request: ViewRequest) -> BoxFuture<'_, Option<ViewContent>>;
}

/// Serves on `listener` until `shutdown` completes.
pub async fn serve_admin(
    listener: TcpListener,
    views: Arc<dyn Views>,
    observer: Arc<dyn RequestObserver>,
    purges: Option<CachePurges>,
    shutdown: impl Future<Output = ()>,
) {
    if let Some(address) = listener.local_addr().ok().filter(|address| !address.ip().is_loopback()) {
        warn!(
            %address,
            "The admin listener is reachable from other machines and has no authentication; \
             use --admin-listen 127.0.0.1:8101"
        );
    }
    let detector = SelfConnectionDetector::new(self_connection::is_from_this_process);
    serve(listener, (views, observer, purges), detector, shutdown).await;
}

async fn serve(
    listener: TcpListener,
    (views, observer, purges): (Arc<dyn Views>, Arc<dyn RequestObserver>, Option<CachePurges>),
    detector: SelfConnectionDetector,
    shutdown: impl Future<Output = ()>,
) {
    let renderings = Renderings::new();
    let on_connection = |addresses| {
        let (views, renderings) = (views.clone(), renderings.clone());
        let check = Arc::new(detector.for_connection(addresses));
        let observations = Arc::new(Observations::new(observer.clone()));
        let purges = purges.clone();
        move |request: Request<Incoming>| {
            let (views, renderings, check) = (views.clone(), renderings.clone(), check.clone());
            let (observations, purges) = (observations.clone(), purges.clone());
            async move {
                if check.is_self_connection().await {
                    reject_self_connection()
                } else {
                    respond(&request, &*views, (&observations, purges.as_ref()), &renderings).await
                }
            }
        }
    };
    http_server::serve(listener, LIMITS, on_connection, shutdown).await;
}

/// Rejects the request and closes the connection, which the proxy would otherwise use for more requests.
fn reject_self_connection() -> AdminResponse {
    let message = "refused: the request came from Portico itself; no route may lead to the admin listener";
    let mut response = text(StatusCode::FORBIDDEN, message);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn respond<B>(
    request: &Request<B>,
    views: &dyn Views,
    (observations, purges): (&Observations, Option<&CachePurges>),
    renderings: &Renderings<ViewKey>,
) -> AdminResponse {
    if !has_local_host(request) {
        let message = "refused: the Host is not an address or localhost; use for example http://127.0.0.1:8101/";
        return text(StatusCode::FORBIDDEN, message);
    }
    if let Some(response) = observations.respond(request).await {
        return response;
    }
    if let Some(purges) = purges
        && let Some(response) = purges.respond(request).await
    {
        return response;
    }
    if let Some(rejection) = reject_method(request) {
        return rejection;
    }
    let path = request.uri().path();
    if ["/", "/debug", "/debug/"].contains(&path) {
        return index();
    }
    let view =
        path.strip_prefix("/debug/").and_then(|name| AdminView::ALL.into_iter().find(|view| view.name() == name));
    let Some(view) = view else { return not_found("/debug/") };
    let (view, format) = match ViewRequest::parse(view, request.uri().query().unwrap_or_default()) {
        Ok(parsed) => parsed,
        Err(message) => return text(StatusCode::BAD_REQUEST, &message),
    };
    // The permit is acquired before the view, so that few views are in memory at a time.
    let permit = match tokio::time::timeout(VIEW_TIMEOUT, renderings.permit((view.clone(), format))).await {
        Ok(Ok(permit)) => permit,
        Ok(Err(response)) => return response,
        Err(_) => {
            let message = "other views were still being written after 10s; try again";
            return text(StatusCode::SERVICE_UNAVAILABLE, message);
        }
    };
    match tokio::time::timeout(VIEW_TIMEOUT, views.view(view)).await {
        Ok(Some(content)) => {
            let render = move || {
                let mut value = content();
                hide_secrets(&mut value);
                format.render(&value)
            };
            permit.write(render).await
        }
        Ok(None) => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down; the view is no longer available"),
        Err(_) => {
            text(StatusCode::SERVICE_UNAVAILABLE, "the control loop is busy and did not respond within 10s; try again")
        }
    }
}

/// Whether the Host, and the host of an absolute request target, is an address or localhost. Other names are refused to
/// prevent DNS rebinding: a web page can make its own name resolve to this machine and read the responses, but its
/// requests contain that name as Host.
fn has_local_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = Authority::try_from(host.as_bytes()) else { return false };
    let is_address_or_localhost = |authority: &Authority| {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    };
    is_address_or_localhost(&host) && request.uri().authority().is_none_or(is_address_or_localhost)
}

/// Hides the values of everything that looks like a Secret. This is defense in depth: views contain no secrets.
fn hide_secrets(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(hide_secrets),
        Value::Object(fields) => {
            if fields.get("kind").and_then(Value::as_str) == Some("Secret") {
                for field in ["data", "stringData"] {
                    if let Some(Value::Object(entries)) = fields.get_mut(field) {
                        entries.values_mut().for_each(|entry| *entry = Value::from("<hidden>"));
                    }
                }
            }
            fields.values_mut().for_each(hide_secrets);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Renderings with the same key have the same content.
type ViewKey = (ViewRequest, ViewFormat);

fn index() -> AdminResponse {
    let items: String = AdminView::ALL
        .iter()
        .map(|view| {
            let (name, description) = (view.name(), view.description());
            format!(
                "<li><a href=\"/debug/{name}\">{name}</a> \
                 (<a href=\"/debug/{name}?o=yaml\">YAML</a>): {description}</li>\n"
            )
        })
        .collect();
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Portico</title>\n\
         <h1>Portico</h1>\n<ul>\n{items}</ul>\n</html>\n"
    );
    let mut response = response(StatusCode::OK, "text/html; charset=utf-8", page);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    response
}

/// The time that a request waits for other views to be written, and then the time that it waits for its own view from
/// the control loop. The loop returns a view between two of its steps; the longest step is compiling.
const VIEW_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use serde_json::json;

    use super::*;
    use crate::http_server::{ConnectionAddresses, testing};

    /// Has a store, neither hash nor snapshot, and verdicts that never complete.
    struct StubViews;

    impl Views for StubViews {
        fn view(&self, request: ViewRequest) -> BoxFuture<'_, Option<ViewContent>> {
            let secret = json!({ "kind": "Secret", "data": { "tls.key": "cHJpdmF0ZQ==" }, "stringData": { "a": "b" } });
            match request.view {
                AdminView::Upstreams => {
                    let value = json!({ "selector": request.selector.as_deref() });
                    std::future::ready(Some(Box::new(move || value) as ViewContent)).boxed()
                }
                AdminView::Store => {
                    let config_map = json!({ "kind": "ConfigMap", "data": { "ca.crt": "public" } });
                    let value = json!({ "objects": [secret, config_map] });
                    std::future::ready(Some(Box::new(move || value) as ViewContent)).boxed()
                }
                AdminView::Circuits
                | AdminView::Hash
                | AdminView::Policies
                | AdminView::Snapshot
                | AdminView::Usage => std::future::ready(None).boxed(),
                AdminView::Verdicts => std::future::pending().boxed(),
            }
        }
    }

    /// Observes nothing.
    struct StubObserver;

    impl RequestObserver for StubObserver {
        fn observe(&self, _token: &str, _dry_run: bool) -> BoxFuture<'static, Option<Value>> {
            std::future::ready(None).boxed()
        }
    }

    async fn send(request: String) -> (u16, String) {
        let (listener, address) = testing::listener().await;
        // This process sends the requests of the tests, so no connection counts as a self-connection.
        let server = tokio::spawn(serve(
            listener,
            (Arc::new(StubViews), Arc::new(StubObserver), None),
            SelfConnectionDetector::new(|_| false),
            std::future::pending(),
        ));
        let response = testing::roundtrip(address, &request).await;
        server.abort();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn get(target: &str) -> (u16, String) {
        send(format!("GET {target} HTTP/1.1\r\nhost: localhost:8101\r\nconnection: close\r\n\r\n")).await
    }

    #[tokio::test]
    async fn views_are_json_or_yaml_without_secrets() {
        let expected = json!({ "objects": [
            { "kind": "Secret", "data": { "tls.key": "<hidden>" }, "stringData": { "a": "<hidden>" } },
            { "kind": "ConfigMap", "data": { "ca.crt": "public" } },
        ] });
        for target in ["/debug/store", "/debug/store?o=json"] {
            let (status, body) = get(target).await;
            assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (200, expected.clone()), "{target}");
        }
        let (status, body) = get("/debug/store?o=yaml").await;
        assert_eq!((status, serde_saphyr::from_str::<Value>(&body).unwrap()), (200, expected));
        assert!(body.starts_with("objects:\n"), "{body}");
        let message = "unknown query \"o=xml\"; use o=json or o=yaml\n";
        assert_eq!(get("/debug/store?o=xml").await, (400, message.to_owned()));
    }

    #[tokio::test]
    async fn views_are_limited_to_one_object() {
        let selector = |body: String| serde_json::from_str::<Value>(&body).unwrap()["selector"].clone();
        for (query, expected) in [
            ("", Value::Null),
            ("?name=shop/cart:80", json!("shop/cart:80")),
            ("?o=json&name=shop%2Fcart:80%20as%20front", json!("shop/cart:80 as front")),
        ] {
            let (status, body) = get(&format!("/debug/upstreams{query}")).await;
            assert_eq!((status, selector(body)), (200, expected), "{query}");
        }
        for query in ["?name=", "?target=shop/cart", "?name=a&name=b", &format!("?name={}", "a".repeat(1_000))] {
            let (status, body) = get(&format!("/debug/upstreams{query}")).await;
            assert!(status == 400 && body.contains("use o=json or o=yaml, and name=UPSTREAM"), "{query}: {body}");
        }
        assert_eq!(get("/debug/store?name=a").await.0, 400, "the view has no names");
    }

    #[tokio::test]
    async fn unavailable_views_are_errors() {
        let (status, body) = get("/debug/snapshot").await;
        assert_eq!((status, body.as_str()), (503, "shutting down; the view is no longer available\n"));
        assert_eq!(get("/debug/secrets").await, (404, "not found; try /debug/\n".to_owned()));
        assert_eq!(get("/healthz").await.0, 404);
        assert_eq!(get("/cache").await.0, 404, "without --admin-token-file");
    }

    #[tokio::test(start_paused = true)]
    async fn busy_control_loop_times_out() {
        expect_unavailable("/debug/verdicts", &Renderings::new(), "the control loop is busy").await;
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_other_views_times_out() {
        let renderings = Renderings::new();
        let key = || (ViewRequest { view: AdminView::Store, selector: None }, ViewFormat::Json);
        let _writing = [renderings.permit(key()).await.ok().unwrap(), renderings.permit(key()).await.ok().unwrap()];
        expect_unavailable("/debug/store", &renderings, "other views were still being written").await;
    }

    async fn expect_unavailable(path: &str, renderings: &Renderings<ViewKey>, message_start: &str) {
        let request = Request::get(path).header("host", "localhost").body(()).unwrap();
        let response =
            respond(&request, &StubViews, (&Observations::new(Arc::new(StubObserver)), None), renderings).await;
        assert_eq!(response.status(), 503);
        let body = http_body_util::Limited::new(response.into_body(), 1000);
        #[expect(clippy::disallowed_methods, reason = "it is limited")]
        let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        assert!(body.starts_with(message_start.as_bytes()), "{body:?}");
    }

    #[tokio::test]
    async fn index_links_every_view() {
        for target in ["/", "/debug", "/debug/"] {
            let (status, body) = get(target).await;
            assert_eq!(status, 200);
            for view in AdminView::ALL {
                assert!(body.contains(&format!("href=\"/debug/{}\"", view.name())), "{body}");
            }
        }
    }

    #[tokio::test]
    async fn foreign_host_names_are_refused() {
        let cases = [
            ("host: 127.0.0.1:8101", 200),
            ("host: 127.0.0.1", 200),
            ("host: [::1]:8101", 200),
            ("host: LOCALHOST", 200),
            ("host: 10.0.0.1:80", 200),
            ("host: evil.example", 403),
            ("host: localhost.evil.example", 403),
            ("host: 127.0.0.1.evil.example:8101", 403),
            ("host: 127.0.0.1\r\nhost: evil.example", 403),
            ("host: a b", 403),
            ("host:", 403),
            ("x: y", 403),
        ];
        for (header_fields, status) in cases {
            let request = format!("GET / HTTP/1.1\r\n{header_fields}\r\nconnection: close\r\n\r\n");
            assert_eq!(send(request).await.0, status, "{header_fields}");
        }
        let token = "0".repeat(32);
        let put =
            format!("PUT /debug/observations/{token} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
        assert_eq!(send(put).await.0, 403);
        let absolute = "GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        assert_eq!(send(absolute.to_owned()).await.0, 403);
    }

    #[tokio::test]
    async fn requests_from_this_process_are_refused() {
        let (listener, address) = testing::listener().await;
        let server = tokio::spawn(serve_admin(
            listener,
            Arc::new(StubViews),
            Arc::new(StubObserver),
            None,
            std::future::pending(),
        ));
        // The response must close the connection although the request does not ask for it.
        let request = "GET /debug/store HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let response = testing::roundtrip(address, request).await;
        server.abort();
        assert!(response.starts_with("HTTP/1.1 403 ") && response.contains("no route may lead"), "{response}");
        assert!(response.contains("\r\nconnection: close\r\n"), "{response}");
    }

    /// A check is expensive: it reads files that list all connections of the machine.
    #[tokio::test]
    async fn connections_are_checked_once() {
        static CHECK_COUNT: AtomicUsize = AtomicUsize::new(0);
        let detector = SelfConnectionDetector::new(|_: ConnectionAddresses| {
            CHECK_COUNT.fetch_add(1, Ordering::SeqCst);
            false
        });
        let (listener, address) = testing::listener().await;
        let views: Arc<dyn Views> = Arc::new(StubViews);
        let observer: Arc<dyn RequestObserver> = Arc::new(StubObserver);
        let content = (views, observer, None);
        let server = tokio::spawn(serve(listener, content, detector, std::future::pending()));
        let request = |last_field: &str| format!("GET / HTTP/1.1\r\nhost: localhost\r\n{last_field}\r\n");
        let requests = [request(""), request(""), request("connection: close\r\n")].concat();
        for connections in 1..=2 {
            let responses = testing::roundtrip(address, &requests).await;
            assert_eq!(responses.matches("HTTP/1.1 200").count(), 3, "{responses}");
            assert_eq!(CHECK_COUNT.load(Ordering::SeqCst), connections);
        }
        server.abort();
    }

    #[tokio::test]
    async fn only_get_and_head_are_allowed() {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let request = format!("{method} /debug/store HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            assert_eq!(send(request).await, (405, "read-only; use GET or HEAD\n".to_owned()), "{method}");
        }
    }
}
