//! Stored responses on the wire: which clients get them, and which bodies are never stored.

use std::sync::Arc;

use portico::plugin_api::{AnyPluginKind, ConsumerDirectory, PluginState};
use portico::plugin_chain::testing::{chain_with, consumer};
use portico::plugins::REGISTRY;
use portico::plugins::proxy_cache::store::{CacheStore, Purge};
use portico::snapshot::Snapshot;
use portico::snapshot::rule::{Action, Backend, BackendTarget, Filters, WeightedBackends};
use serde_json::{Value, json};

use crate::external_auth::{filters, http_filter, http_filter_for_all};
use crate::harness::{
    Endpoint, Options, Route, TestResponse, TestServer, forward, reserve_address, route, snapshot, upstream,
};
use crate::http_log::loopback_services;

/// A proxy whose route has these plugins and forwards to the endpoint.
async fn server(plugins: &[(&str, Value)], endpoint: &Endpoint) -> (TestServer, PluginState) {
    filtered_server(plugins, Filters::default(), endpoint).await
}

/// Like [`server`], and the route has these filters.
pub(crate) async fn filtered_server(
    plugins: &[(&str, Value)],
    filters: Filters,
    endpoint: &Endpoint,
) -> (TestServer, PluginState) {
    routed_server(plugins, filters, forward(vec![(1, upstream("web", &[endpoint.address]))])).await
}

/// Like [`filtered_server`], with this action.
pub(crate) async fn routed_server(
    plugins: &[(&str, Value)],
    filters: Filters,
    action: Action,
) -> (TestServer, PluginState) {
    let plugins: Vec<(&dyn AnyPluginKind, Value)> =
        plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    let state = PluginState::default();
    let chain = chain_with(&plugins, &state, &loopback_services());
    let route = Route { plugins: Some(chain), filters, ..route(action) };
    let mut consumers = ConsumerDirectory::default();
    consumers.add(&consumer("anna", &["staff"]));
    let (address, reserved) = reserve_address();
    let snapshot = Snapshot { consumers: Arc::new(consumers), ..snapshot(address, vec![route]) };
    let server = TestServer::start(Options::default(), address, reserved, snapshot);
    server.proxy.reconcile().await;
    (server, state)
}

fn cache(config: Value) -> (&'static str, Value) {
    let mut config = config;
    config["strategy"] = json!("memory");
    ("proxy-cache", config)
}

async fn get(server: &TestServer, target: &str, fields: &str) -> TestResponse {
    server.request(&format!("GET {target} HTTP/1.1\r\nhost: shop.example\r\n{fields}\r\n")).await
}

/// An endpoint that numbers its responses, which have these fields.
pub(crate) async fn counting(fields: &'static str) -> Endpoint {
    Endpoint::scripted(move |mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let count = stream.log().requests().len();
            let body = if request.starts_with("HEAD") { String::new() } else { format!("{count:04}") };
            stream.send(format!("HTTP/1.1 200 OK\r\n{fields}content-length: 4\r\n\r\n{body}")).await;
        }
    })
    .await
}

#[tokio::test]
async fn stored_responses_are_sent_without_the_endpoint() {
    let endpoint = counting("content-type: text/plain\r\nconnection: x-hop\r\nx-hop: 1\r\n").await;
    let (server, state) = server(&[cache(json!({}))], &endpoint).await;
    let first = get(&server, "/a?x=1", "").await;
    assert_eq!((first.header("x-cache-status"), &*first.text()), (Some("Miss"), "0001"));
    let second = get(&server, "/a?x=1", "").await;
    assert_eq!((second.header("x-cache-status"), &*second.text()), (Some("Hit"), "0001"));
    assert_eq!((second.header("age"), second.header("x-hop")), (Some("0"), None));
    assert_eq!(second.header("content-length"), Some("4"));
    assert_eq!(endpoint.log.requests().len(), 1);
    let store = CacheStore::of(&state, 0);
    let key = second.header("x-cache-key").unwrap().to_owned();
    // Two purges at the same time.
    let [one, two] = std::thread::scope(|scope| {
        let purge = || store.purge(&Purge::Key(key.clone()), None).unwrap();
        [scope.spawn(purge), scope.spawn(purge)].map(|thread| thread.join().unwrap())
    });
    assert_eq!(one + two, 1);
    assert_eq!(&*get(&server, "/a?x=1", "").await.text(), "0002");
    assert!(store.used() > 0);
}

/// A server that decides by a header or a cookie, as the plugins and the filter ask for it.
pub(crate) async fn deciding() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let is_allowed =
                ["x-pass: yes", "\"x-pass\":\"yes\"", "cookie: pass"].iter().any(|sign| request.contains(sign));
            // The Open Policy Agent decides in the body.
            let status = if is_allowed || request.starts_with("POST /v1/data") { 200 } else { 403 };
            let body = format!("{{\"result\": {is_allowed}}}");
            let length = body.len();
            stream.send(format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}")).await;
        }
    })
    .await
}

/// docs/kong-compatibility.md, 4.24: a stored response is only for clients that the plugins and filters of the route
/// allow, in whichever order they are listed.
#[tokio::test]
async fn denied_requests_are_never_answered_from_the_cache() {
    let deciding = deciding().await;
    let address = deciding.address;
    let guards = [
        Some(("forward-auth", json!({"address": format!("http://{address}/"), "request_headers": ["x-pass"]}))),
        Some(("bot-detection", json!({"deny": ["evil"]}))),
        Some(("opa", json!({"opa_host": "127.0.0.1", "opa_port": address.port(), "opa_path": "/v1/data/shop"}))),
        // The filter ExternalAuth of the rule.
        None,
    ];
    let graphql = "content-type: application/json\r\n";
    for (cache, config, body) in [
        ("proxy-cache", json!({"strategy": "memory"}), ""),
        ("proxy-cache-advanced", json!({"strategy": "memory", "mode": "rfc9111"}), ""),
        ("graphql-proxy-cache-advanced", json!({"vary_headers": ["cookie"]}), r#"{"query": "{ a }"}"#),
    ] {
        for (guard, is_first) in guards.iter().flat_map(|guard| [(guard, true), (guard, false)]) {
            let what = format!("{cache} with {:?}, {is_first}", guard.as_ref().map(|(name, _)| name));
            let endpoint = Endpoint::scripted(|mut stream, _| async move {
                while stream.request().await.is_some() {
                    let count = stream.log().requests().len();
                    let fields = "content-type: application/json\r\ncache-control: max-age=60\r\ncontent-length: 10";
                    stream.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{{\"data\":{count}}}")).await;
                }
            })
            .await;
            let mut plugins = vec![(cache, config.clone())];
            plugins.extend(guard.clone());
            if is_first {
                plugins.reverse();
            }
            let filters = match guard {
                Some(_) => Filters::default(),
                None => filters(http_filter(upstream("auth", &[address]))),
            };
            let (server, _) = filtered_server(&plugins, filters, &endpoint).await;
            let send = async |fields: &str| {
                let length = body.len();
                let head = match length {
                    0 => format!("GET /a HTTP/1.1\r\nhost: shop.example\r\n{fields}\r\n"),
                    _ => format!(
                        "POST /a HTTP/1.1\r\nhost: shop.example\r\n{fields}{graphql}content-length: {length}\r\n\r\n"
                    ),
                };
                server.request(&(head + body)).await
            };
            let allowed = "user-agent: good\r\nx-pass: yes\r\ncookie: pass\r\n";
            for _ in 0..2 {
                let response = send(allowed).await;
                assert_eq!((response.status, &*response.text()), (200, "{\"data\":1}"), "{what}");
            }
            let denied = send("user-agent: evil\r\n").await;
            assert_eq!((denied.status, denied.header("x-cache-status")), (403, None), "{what}");
            assert!(!denied.text().contains("data"), "{what}");
            assert_eq!(endpoint.log.requests().len(), 1, "{what}");
        }
    }
}

/// A user must not get what was stored for another one, whichever server identifies users to the endpoint.
#[tokio::test]
async fn responses_are_stored_for_each_decision() {
    let authorization = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let user = if request.contains("cookie: anna") { "anna" } else { "ben" };
            stream.send(format!("HTTP/1.1 200 OK\r\nx-user: {user}\r\ncontent-length: 0\r\n\r\n")).await;
        }
    })
    .await;
    let address = authorization.address;
    let by_plugin = json!({"address": format!("http://{address}/"), "response_headers": ["x-user"]});
    for (plugins, filter) in [
        (vec![("forward-auth", by_plugin), cache(json!({}))], None),
        (vec![cache(json!({}))], Some(http_filter(upstream("auth", &[address])))),
    ] {
        let endpoint = counting("content-type: text/plain\r\n").await;
        let filters = filter.map(filters).unwrap_or_default();
        let (server, _) = filtered_server(&plugins, filters, &endpoint).await;
        for (cookie, expected) in [("anna", "0001"), ("ben", "0002"), ("anna", "0001"), ("ben", "0002")] {
            let response = get(&server, "/a", &format!("cookie: {cookie}\r\n")).await;
            assert_eq!(&*response.text(), expected, "{cookie}, {:?}", plugins[0].0);
        }
    }
}

/// docs/kong-compatibility.md, 4.17 and 4.1: without the right key, or in a group that is denied, nothing stored is
/// sent.
#[tokio::test]
async fn credentials_come_before_stored_responses() {
    let endpoint = counting("content-type: text/plain\r\n").await;
    let (server, _) = server(&[("key-auth", json!({})), cache(json!({"vary_headers": []}))], &endpoint).await;
    for _ in 0..2 {
        let rejected = get(&server, "/a", "apikey: wrong\r\n").await;
        assert_eq!((rejected.status, rejected.header("x-cache-status")), (401, None));
    }
    assert_eq!(endpoint.log.requests().len(), 0);
}

/// The host that other proxies report is no part of the key, so the endpoint must not get it from an untrusted client.
#[tokio::test]
async fn clients_cannot_store_responses_for_a_forged_host() {
    let endpoint = counting("content-type: text/plain\r\n").await;
    let (server, _) = server(&[cache(json!({}))], &endpoint).await;
    let forged = get(&server, "/a", "x-forwarded-host: evil.example\r\nx-forwarded-host: b\r\n").await;
    assert_eq!(&*forged.text(), "0001");
    assert!(!endpoint.log.requests()[0].contains("evil.example"));
    assert_eq!(&*get(&server, "/a", "").await.text(), "0001");
}

/// What a client sends must not decide about the response that others get, if it is no part of the key.
#[tokio::test]
async fn requests_cannot_poison_what_others_get() {
    let endpoint = counting("content-type: text/plain\r\n").await;
    let (server, _) = server(&[cache(json!({"vary_headers": ["x-lang"]}))], &endpoint).await;
    let send = async |request: &str| {
        let response = server.request(request).await;
        (response.status, response.header("x-cache-status").map(str::to_owned), response.text())
    };
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nhost: shop.example\r\n{fields}\r\n");
    let expected = |status: &str, body: &str| (200, Some(status.to_owned()), body.to_owned());
    // A GET with content, which the key does not contain.
    assert_eq!(send(&(get("/fat", "content-length: 4\r\n") + "evil")).await, expected("Bypass", "0001"));
    assert_eq!(send(&get("/fat", "")).await, expected("Miss", "0002"));
    // Encoded slashes are no separators.
    assert_eq!(send(&get("/a%2fb", "")).await, expected("Miss", "0003"));
    assert_eq!(send(&get("/a/b", "")).await, expected("Miss", "0004"));
    // All lines of a header that selects the response count, in their order.
    for (fields, status, body) in [
        ("x-lang: a\r\nx-lang: b\r\n", "Miss", "0005"),
        ("x-lang: a\r\n", "Miss", "0006"),
        ("x-lang: b\r\nx-lang: a\r\n", "Miss", "0007"),
        ("x-lang: a\r\nx-lang: b\r\n", "Hit", "0005"),
    ] {
        assert_eq!(send(&get("/lines", fields)).await, expected(status, body), "{fields}");
    }
    // A part is not stored as the whole.
    assert_eq!(send(&get("/part", "range: bytes=0-0\r\n")).await.1.as_deref(), Some("Miss"));
    // Requests that are ambiguous reach neither the endpoint nor the cache.
    let before = endpoint.log.requests().len();
    for request in [
        "GET /b HTTP/1.1\r\nhost: shop.example\r\nhost: evil.example\r\n\r\n",
        "GET /b HTTP/1.1\r\nhost: shop.example\r\nx-lang : a\r\n\r\n",
        "GET /b HTTP/1.1\r\nhost: shop.example\r\nx-a: b\r\n c\r\n\r\n",
        "GET /b HTTP/1.1\r\nhost: shop.example\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
    ] {
        assert_eq!(server.request(request).await.status, 400, "{request}");
    }
    assert_eq!(endpoint.log.requests().len(), before);
    assert_eq!(send(&get("/b", "")).await.1.as_deref(), Some("Miss"));
}

#[tokio::test]
async fn truncated_bodies_are_not_stored() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        if stream.request().await.is_some() {
            let is_first = stream.log().requests().len() == 1;
            let body = if is_first { "0123" } else { "0123456789" };
            stream
                .send(format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\n{body}"))
                .await;
        }
    })
    .await;
    let (server, state) = server(&[cache(json!({}))], &endpoint).await;
    let mut client = server.connect().await;
    client.send("GET /a HTTP/1.1\r\nhost: shop.example\r\n\r\n").await;
    let received = client.read_to_end().await.unwrap_or_default();
    assert!(!String::from_utf8_lossy(&received).contains("0123456789"));
    let whole = get(&server, "/a", "").await;
    assert_eq!((whole.header("x-cache-status"), &*whole.text()), (Some("Miss"), "0123456789"));
    let stored = get(&server, "/a", "").await;
    assert_eq!((stored.header("x-cache-status"), &*stored.text()), (Some("Hit"), "0123456789"));
    assert!(CacheStore::of(&state, 0).used() > 0);
}

#[tokio::test]
async fn rfc9111_validates_with_the_endpoint() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let response = if request.contains("if-none-match: \"1\"") {
                "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\ncache-control: max-age=60\r\n\r\n"
            } else {
                "HTTP/1.1 200 OK\r\netag: \"1\"\r\ncache-control: max-age=0\r\ncontent-length: 4\r\n\r\nbody"
            };
            stream.send(response).await;
        }
    })
    .await;
    let (server, _) = server(&[cache(json!({"mode": "rfc9111"}))], &endpoint).await;
    let expected =
        ["portico; fwd=uri-miss; fwd-status=200; stored", "portico; fwd=stale; fwd-status=304", "portico; hit; ttl=60"];
    for expected in expected {
        let response = get(&server, "/a", "").await;
        assert_eq!((response.status, &*response.text()), (200, "body"), "{expected}");
        assert!(response.header("cache-status").unwrap().starts_with(&expected[..18]), "{}", response.head);
    }
    assert_eq!(endpoint.log.requests().len(), 2);
    let head = server.request("HEAD /a HTTP/1.1\r\nhost: shop.example\r\n\r\n").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("4")));
    let not_modified = get(&server, "/a", "if-none-match: W/\"1\"\r\n").await;
    assert_eq!((not_modified.status, not_modified.text().is_empty()), (304, true));
    let part = get(&server, "/a", "range: bytes=1-2\r\n").await;
    assert_eq!((part.status, &*part.text(), part.header("content-range")), (206, "od", Some("bytes 1-2/4")));
    assert_eq!(endpoint.log.requests().len(), 2);
}

#[tokio::test]
async fn simultaneous_misses_are_one_request() {
    let endpoint = counting("content-type: text/plain\r\n").await;
    let (server, _) = server(&[cache(json!({"collapse_timeout": 30_000}))], &endpoint).await;
    let requests = (0..20).map(|_| get(&server, "/a", ""));
    for response in futures_util::future::join_all(requests).await {
        assert_eq!(&*response.text(), "0001");
    }
    assert_eq!(endpoint.log.requests().len(), 1);
}

/// A stale response that may be sent while it is validated does not make any client wait for the endpoint.
#[tokio::test]
async fn stale_responses_are_revalidated_in_the_background() {
    let (release, released) = tokio::sync::watch::channel(false);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let mut released = released.clone();
        async move {
            while let Some(request) = stream.request().await {
                let count = stream.log().requests().len();
                if count == 2 {
                    released.wait_for(|released| *released).await.unwrap();
                }
                assert!(count == 1 || request.contains("if-none-match: \"1\""), "{request}");
                assert!(!request.contains("range: "), "{request}");
                // The first response is stale when it arrives.
                let age = if count == 1 { 100 } else { 0 };
                let fields = format!("age: {age}\r\ncache-control: max-age=60, stale-while-revalidate=1000\r\n");
                let head = format!("HTTP/1.1 200 OK\r\n{fields}etag: \"{count}\"\r\ncontent-length: 4\r\n\r\n");
                stream.send(format!("{head}{count:04}")).await;
            }
        }
    })
    .await;
    let (server, _) = server(&[cache(json!({"mode": "rfc9111"}))], &endpoint).await;
    assert_eq!(get(&server, "/", "").await.text(), "0001");
    for _ in 0..3 {
        let stale = get(&server, "/", "range: bytes=0-1\r\n").await;
        assert_eq!((stale.status, &*stale.text()), (206, "00"));
        let status = stale.header("cache-status").unwrap();
        assert!(status.starts_with("portico; hit; ttl=-"), "{status}");
    }
    endpoint.log.wait_for("one validation", |log| log.requests().len() == 2).await;
    release.send(true).unwrap();
    let deadline = tokio::time::Instant::now() + crate::harness::TEST_TIMEOUT;
    while get(&server, "/", "").await.text() != "0002" {
        assert!(tokio::time::Instant::now() < deadline, "the new response is not stored");
    }
    assert_eq!(endpoint.log.requests().len(), 2);
}

/// An authorization server that allows requests with this cookie and changes none.
async fn allowing(cookie: &'static str) -> Endpoint {
    Endpoint::scripted(move |mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let status = if request.contains(cookie) { "200 OK" } else { "403 Forbidden" };
            stream.send(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).await;
        }
    })
    .await
}

#[tokio::test]
async fn clients_get_nothing_that_is_stored_behind_the_authorization_server_of_another_backend() {
    let (endpoint_of_a, endpoint_of_b) = (counting("x-backend: a\r\n").await, counting("x-backend: b\r\n").await);
    let (server_of_a, server_of_b) = (allowing("user=a").await, allowing("user=b").await);
    for guards_b in [false, true] {
        let backend = |endpoint: &Endpoint, filters| {
            let target = BackendTarget::Upstream(upstream("web", &[endpoint.address]));
            Backend { weight: 1, filters, target }
        };
        let guarded = |server: &Endpoint, name| filters(http_filter_for_all(upstream("auth", &[server.address]), name));
        let filters_of_b = if guards_b { guarded(&server_of_b, "b") } else { Filters::default() };
        let backends = vec![backend(&endpoint_of_a, guarded(&server_of_a, "a")), backend(&endpoint_of_b, filters_of_b)];
        let action = Action::Forward(WeightedBackends::new(backends).unwrap());
        let (server, _state) = routed_server(&[cache(json!({}))], Filters::default(), action).await;
        for number in 0..40 {
            let user = if number % 2 == 0 { "a" } else { "b" };
            let response = get(&server, "/", &format!("cookie: user={user}\r\n")).await;
            if response.status == 403 {
                continue;
            }
            let is_allowed = response.header("x-backend") == Some(user) || !guards_b && user == "a";
            assert!(response.status == 200 && is_allowed, "{number}: {}", response.head);
        }
    }
}
