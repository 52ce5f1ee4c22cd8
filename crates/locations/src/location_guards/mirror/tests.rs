//! Tests of copies of requests.

use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::{PluginState, RegisteredKind};
use crate::plugin_chain::testing::{TestRequest, chain_with};

const KIND: RegisteredKind<LocationMirror> = RegisteredKind::NEW;

/// The copies of a request, which is forwarded whatever becomes of them.
async fn copies(config: Value, request: TestRequest) -> Vec<RemoteRequest> {
    copies_with(&PluginState::default(), config, request).await
}

async fn copies_with(state: &PluginState, config: Value, request: TestRequest) -> Vec<RemoteRequest> {
    let server = ScriptedServer::new(|_| Ok(response(500, "set-cookie: a=b", "")));
    let outcome = request.run(&chain_with(&[(&KIND, config)], state, &server.services())).await;
    assert!(outcome.reply.is_none());
    assert_eq!(outcome.response_header("set-cookie"), None);
    server.requests.lock().clone()
}

fn config(url: &str, body: bool) -> Value {
    json!({"url": url, "body": body})
}

#[tokio::test]
async fn a_copy_has_what_the_client_has_sent() {
    let request = TestRequest::post("/a/b?c=d", "text/plain", "hello")
        .header("host", "shop.example:8080")
        .header("cookie", "session=1")
        .header("content-length", "5");
    let sent = copies(config("https://mirror.example:8443$request_uri", true), request).await;
    let [copy] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((&copy.method, copy.target.as_str()), (&Method::POST, "/a/b?c=d"));
    assert_eq!((&copy.remote.host[..], copy.remote.port), ("mirror.example", 8443));
    assert_eq!(&copy.body[..], b"hello");
    let header = |name: &str| copy.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!([header("host"), header("cookie")], [Some("mirror.example"), Some("session=1")]);
    assert_eq!([header("content-type"), header("content-length")], [Some("text/plain"), None]);
}

#[tokio::test]
async fn target_and_host_have_variables() {
    for (url, host, target, expected) in [
        ("http://mirror.example", None, "/", "mirror.example"),
        ("http://mirror.example:81${uri}?b", None, "/a?b", "mirror.example"),
        ("http://mirror.example/fixed?a", Some("b.example"), "/fixed?a", "b.example"),
        ("http://mirror.example/m$request_uri&h=$host", Some("$host"), "/m/a?b=c%20d&h=test.example", "test.example"),
    ] {
        let mut config = config(url, true);
        if let Some(host) = host {
            config["host"] = host.into();
        }
        let sent = copies(config, TestRequest::get("/a?b=c%20d")).await;
        let [copy] = &sent[..] else { panic!("{url}: {sent:?}") };
        assert_eq!((copy.target.as_str(), copy.headers[HOST].to_str().unwrap()), (target, expected), "{url}");
    }
}

#[tokio::test]
async fn bodies_without_a_moderate_length_have_no_copy() {
    let post = |body: &str| TestRequest::post("/", "text/plain", body.to_owned());
    let long = "a".repeat(MAX_BODY + 1);
    for (has_body, request, expected) in [
        (false, post("hello"), Some(0)),
        (false, post(&long), Some(0)),
        (true, post("hello").header("content-length", "5"), Some(5)),
        (true, post(&long).header("content-length", "65537"), None),
        (true, TestRequest::get("/"), Some(0)),
    ] {
        let sent = copies(config("http://mirror.example", has_body), request).await;
        assert_eq!(sent.first().map(|copy| copy.body.len()), expected, "{has_body}");
    }
}

#[tokio::test]
async fn without_a_place_requests_have_no_copy() {
    let state = PluginState::default();
    let limit = state.get_or_create("location mirrors", || SharedLimit::new(1));
    let sent = async || copies_with(&state, config("http://mirror.example", true), TestRequest::get("/")).await.len();
    let place = limit.try_take(&limit.share("other"), 1).unwrap();
    assert_eq!(sent().await, 0);
    drop(place);
    assert_eq!(sent().await, 1);
}

#[tokio::test]
async fn copies_of_one_namespace_leave_places_for_others() {
    let state = PluginState::default();
    let limit = state.get_or_create("location mirrors", || SharedLimit::new(16));
    let other = limit.share("other");
    let held: Vec<_> = std::iter::from_fn(|| limit.try_take(&other, 1).ok()).collect();
    assert!(held.len() > 8, "{}", held.len());
    assert_eq!(copies_with(&state, config("http://mirror.example", true), TestRequest::get("/")).await.len(), 1);
}

#[test]
fn bad_urls_are_reported() {
    let server = ScriptedServer::new(|_| Err("refused".to_owned()));
    let (state, notes) = (PluginState::default(), crate::plugin_api::kind::BuildNotes::default());
    let services = server.services();
    let cx = BuildCx { object: "Ingress/a/b", state: &state, services: &services, node: "", notes: &notes };
    for (url, host) in [
        ("mirror.example", None),
        ("ftp://mirror.example", None),
        ("http://$host", None),
        ("http://a.$host/", None),
        ("http://a$args", None),
        ("http://mirror.example/$namespace", None),
        ("http://mirror.example/$1", None),
        ("http://mirror.example", Some("$none")),
    ] {
        let config = Config { url: url.to_owned(), host: host.map(str::to_owned), body: true };
        assert_eq!(LocationMirror::build(config, &cx).err().map(|problems| problems.len()), Some(1), "{url} {host:?}");
    }
}
