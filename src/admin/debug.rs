//! The admin listener: views of the inside, as JSON or YAML. Read-only, for people on this machine.

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
use super::answer::{Answer, Aside, JSON, answer, not_found, refusal_of_method, text};
use super::own::{self, Checks};
use crate::http_server;

/// What the application shows of itself.
pub trait Views: Send + Sync + 'static {
    /// What there is to see now, without secrets. `None` when whoever knows it has gone, as it does when we stop.
    fn view(&self, view: View) -> BoxFuture<'_, Option<Seen>>;
}

/// Makes a value of what was seen. That may be much, so it is called on a thread for it.
pub type Seen = Box<dyn FnOnce() -> Value + Send>;

/// What can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Hash,
    Snapshot,
    Store,
    Verdicts,
}

impl View {
    pub const ALL: [View; 4] = [View::Hash, View::Snapshot, View::Store, View::Verdicts];

    pub fn name(self) -> &'static str {
        match self {
            View::Hash => "hash",
            View::Snapshot => "snapshot",
            View::Store => "store",
            View::Verdicts => "verdicts",
        }
    }

    fn about(self) -> &'static str {
        match self {
            View::Hash => "the hash of the snapshot, the same in all replicas that serve the same",
            View::Snapshot => "what requests are routed by: listeners, hosts, rules, backends",
            View::Store => "the objects that it was compiled from",
            View::Verdicts => "what is thought of each object: its conditions",
        }
    }
}

/// Answers on `listener` until `shutdown` is over.
pub async fn serve_admin(listener: TcpListener, views: Arc<dyn Views>, shutdown: impl Future<Output = ()>) {
    if let Some(address) = listener.local_addr().ok().filter(|address| !address.ip().is_loopback()) {
        warn!(%address, "The admin listener can be reached from other machines and asks nobody who they are; use --admin-listen 127.0.0.1:8101");
    }
    serve(listener, views, Checks::new(own::made_by_us), shutdown).await;
}

async fn serve(listener: TcpListener, views: Arc<dyn Views>, checks: Checks, shutdown: impl Future<Output = ()>) {
    let aside = Aside::new();
    let welcome = |ends| {
        let (views, aside, check) = (views.clone(), aside.clone(), Arc::new(checks.of(ends)));
        move |request: Request<Incoming>| {
            let (views, aside, check) = (views.clone(), aside.clone(), check.clone());
            async move { if check.is_own().await { refusal_of_own() } else { respond(&request, &*views, &aside).await } }
        }
    };
    http_server::serve(listener, LIMITS, welcome, shutdown).await;
}

/// It ends the connection: the proxy would keep it, and send more.
fn refusal_of_own() -> Answer {
    let message = "refused: a route leads here, and what is here is not for clients";
    let mut answer = text(StatusCode::FORBIDDEN, message);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

async fn respond<B>(request: &Request<B>, views: &dyn Views, aside: &Aside) -> Answer {
    if !is_asked_by_address(request) {
        let message = "refused: the Host is not an address or localhost; ask for example http://127.0.0.1:8101/";
        return text(StatusCode::FORBIDDEN, message);
    }
    if let Some(refusal) = refusal_of_method(request) {
        return refusal;
    }
    let path = request.uri().path();
    if ["/", "/debug", "/debug/"].contains(&path) {
        return index();
    }
    let view = path.strip_prefix("/debug/").and_then(|name| View::ALL.into_iter().find(|view| view.name() == name));
    let Some(view) = view else { return not_found("/debug/") };
    // The room first, so that not many hold what they have seen.
    let Ok(room) = tokio::time::timeout(PATIENCE, aside.room()).await else {
        let message = "other views are being written and did not end within 10s; try again";
        return text(StatusCode::SERVICE_UNAVAILABLE, message);
    };
    match tokio::time::timeout(PATIENCE, views.view(view)).await {
        Ok(Some(seen)) => {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let write = move || {
                let mut value = seen();
                hide_secrets(&mut value);
                show(&query, &value)
            };
            room.write(write).await
        }
        Ok(None) => text(StatusCode::SERVICE_UNAVAILABLE, "stopping; there is nothing to see any more"),
        Err(_) => {
            text(StatusCode::SERVICE_UNAVAILABLE, "the control loop is busy and did not answer within 10s; try again")
        }
    }
}

/// A page of another site can make its name resolve to this machine and then read what we answer to its scripts. Its
/// requests still carry its name as Host, so names other than localhost are refused.
fn is_asked_by_address<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = Authority::try_from(host.as_bytes()) else { return false };
    let is_of_this_machine = |authority: &Authority| {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    };
    is_of_this_machine(&host) && request.uri().authority().is_none_or(is_of_this_machine)
}

/// A second fence: views are made without secrets, but what looks like a Secret loses its values here in any case.
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

fn show(query: &str, value: &Value) -> Answer {
    match query {
        "" | "o=json" => answer(StatusCode::OK, JSON, format!("{value:#}\n")),
        "o=yaml" => match serde_saphyr::to_string(value) {
            Ok(yaml) => answer(StatusCode::OK, "application/yaml", yaml),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("it could not be written as YAML: {error}")),
        },
        _ => text(StatusCode::BAD_REQUEST, "the query is not understood; write ?o=json or ?o=yaml"),
    }
}

fn index() -> Answer {
    let items: String = View::ALL
        .iter()
        .map(|view| {
            let (name, about) = (view.name(), view.about());
            format!(
                "<li><a href=\"/debug/{name}\">{name}</a> (<a href=\"/debug/{name}?o=yaml\">YAML</a>): {about}</li>\n"
            )
        })
        .collect();
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Portico</title>\n\
         <h1>Portico</h1>\n<ul>\n{items}</ul>\n</html>\n"
    );
    let mut answer = answer(StatusCode::OK, "text/html; charset=utf-8", page);
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    answer
}

/// With those whose views are written before ours, and again with the control loop, which answers between two pieces of work,
/// the longest of which is a compile.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use serde_json::json;

    use super::*;
    use crate::http_server::{Ends, testing};

    /// Shows the store, has no snapshot, and never finishes the verdicts.
    struct Inside;

    impl Views for Inside {
        fn view(&self, view: View) -> BoxFuture<'_, Option<Seen>> {
            let secret = json!({ "kind": "Secret", "data": { "tls.key": "cHJpdmF0ZQ==" }, "stringData": { "a": "b" } });
            match view {
                View::Store => {
                    let map = json!({ "kind": "ConfigMap", "data": { "ca.crt": "public" } });
                    let value = json!({ "objects": [secret, map] });
                    std::future::ready(Some(Box::new(move || value) as Seen)).boxed()
                }
                View::Hash | View::Snapshot => std::future::ready(None).boxed(),
                View::Verdicts => std::future::pending().boxed(),
            }
        }
    }

    async fn ask(request: String) -> (u16, String) {
        let (listener, address) = testing::listener().await;
        // The tests ask from this process.
        let server = tokio::spawn(serve(listener, Arc::new(Inside), Checks::new(|_| false), std::future::pending()));
        let answer = testing::exchange(address, &request).await;
        server.abort();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn get(target: &str) -> (u16, String) {
        ask(format!("GET {target} HTTP/1.1\r\nhost: localhost:8101\r\nconnection: close\r\n\r\n")).await
    }

    #[tokio::test]
    async fn a_view_comes_as_json_or_yaml_without_secrets() {
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
        let message = "the query is not understood; write ?o=json or ?o=yaml\n";
        assert_eq!(get("/debug/store?o=xml").await, (400, message.to_owned()));
    }

    #[tokio::test]
    async fn what_cannot_be_seen_is_said() {
        let (status, body) = get("/debug/snapshot").await;
        assert_eq!((status, body.as_str()), (503, "stopping; there is nothing to see any more\n"));
        assert_eq!(get("/debug/secrets").await, (404, "nothing is here; try /debug/\n".to_owned()));
        assert_eq!(get("/healthz").await.0, 404);
    }

    #[tokio::test(start_paused = true)]
    async fn a_control_loop_that_does_not_answer_is_not_waited_for() {
        expect_refusal("/debug/verdicts", &Aside::new(), "the control loop is busy").await;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_other_views_is_told_so() {
        let aside = Aside::new();
        let _writing = [aside.room().await, aside.room().await];
        expect_refusal("/debug/store", &aside, "other views are being written").await;
    }

    async fn expect_refusal(path: &str, aside: &Aside, why: &str) {
        let request = Request::get(path).header("host", "localhost").body(()).unwrap();
        let answer = respond(&request, &Inside, aside).await;
        assert_eq!(answer.status(), 503);
        let body = http_body_util::Limited::new(answer.into_body(), 1000);
        #[expect(clippy::disallowed_methods, reason = "it is limited")]
        let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        assert!(body.starts_with(why.as_bytes()), "{body:?}");
    }

    #[tokio::test]
    async fn the_index_links_every_view() {
        for target in ["/", "/debug", "/debug/"] {
            let (status, body) = get(target).await;
            assert_eq!(status, 200);
            for view in View::ALL {
                assert!(body.contains(&format!("href=\"/debug/{}\"", view.name())), "{body}");
            }
        }
    }

    #[tokio::test]
    async fn names_of_other_sites_are_refused() {
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
        for (host, status) in cases {
            let request = format!("GET / HTTP/1.1\r\n{host}\r\nconnection: close\r\n\r\n");
            assert_eq!(ask(request).await.0, status, "{host}");
        }
        let absolute = "GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        assert_eq!(ask(absolute.to_owned()).await.0, 403);
    }

    #[tokio::test]
    async fn this_process_does_not_ask_itself() {
        let (listener, address) = testing::listener().await;
        let server = tokio::spawn(serve_admin(listener, Arc::new(Inside), std::future::pending()));
        // Nobody asks for the end of the connection, and it comes.
        let request = "GET /debug/store HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let answer = testing::exchange(address, request).await;
        server.abort();
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("a route leads here"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }

    /// It reads files whose length is up to all connections of the machine.
    #[tokio::test]
    async fn who_connects_is_looked_at_once() {
        static LOOKS: AtomicUsize = AtomicUsize::new(0);
        let checks = Checks::new(|_: Ends| {
            LOOKS.fetch_add(1, Ordering::SeqCst);
            false
        });
        let (listener, address) = testing::listener().await;
        let server = tokio::spawn(serve(listener, Arc::new(Inside), checks, std::future::pending()));
        let request = |end: &str| format!("GET / HTTP/1.1\r\nhost: localhost\r\n{end}\r\n");
        let requests = [request(""), request(""), request("connection: close\r\n")].concat();
        for looks in 1..=2 {
            let answers = testing::exchange(address, &requests).await;
            assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
            assert_eq!(LOOKS.load(Ordering::SeqCst), looks);
        }
        server.abort();
    }

    #[tokio::test]
    async fn only_reading_is_allowed() {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let request = format!("{method} /debug/store HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            assert_eq!(ask(request).await, (405, "only for reading; use GET or HEAD\n".to_owned()), "{method}");
        }
    }
}
