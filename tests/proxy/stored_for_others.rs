//! Stored responses and those that are on their way: what a client gets of what others have requested.

use portico::snapshot::rule::{Action, Backend, BackendTarget, Filters, WeightedBackends};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::external_auth::{filters, http_filter};
use crate::harness::{Endpoint, TestResponse, TestServer, header, upstream};
use crate::response_cache::{counting, deciding, filtered_server, routed_server};

/// A server that identifies a user by the cookie, and denies requests without one.
async fn identifying() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let response = match header(&request, "cookie") {
                Some(user) => format!("HTTP/1.1 200 OK\r\nx-user: {user}\r\ncontent-length: 0\r\n\r\n"),
                None => "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_owned(),
            };
            stream.send(response).await;
        }
    })
    .await
}

/// A route with this cache, which asks the server by a plugin or by the filter.
async fn identifying_server(cache: &Value, server: &Endpoint, by_plugin: bool, endpoint: &Endpoint) -> TestServer {
    let mut config = json!({"strategy": "memory"});
    config.as_object_mut().unwrap().extend(cache.as_object().unwrap().clone());
    let mut plugins = vec![("proxy-cache", config)];
    let address = server.address;
    let mut filters_of_rule = Filters::default();
    if by_plugin {
        let config = json!({"address": format!("http://{address}/"), "response_headers": ["x-user"]});
        plugins.push(("forward-auth", config));
    } else {
        filters_of_rule = filters(http_filter(upstream("auth", &[address])));
    }
    filtered_server(&plugins, filters_of_rule, endpoint).await.0
}

async fn get(server: &TestServer, fields: &str) -> TestResponse {
    server.request(&format!("GET /a HTTP/1.1\r\nhost: shop.example\r\n{fields}\r\n")).await
}

/// An endpoint whose responses have these fields, and as body a field of the request and their number. They wait until
/// they are released.
async fn naming(field: &'static str, fields: &'static str, released: watch::Receiver<bool>) -> Endpoint {
    Endpoint::scripted(move |mut stream, _| {
        let mut released = released.clone();
        async move {
            while let Some(request) = stream.request().await {
                let count = stream.log().requests().len();
                released.wait_for(|released| *released).await.unwrap();
                let body = format!("{} {count}", header(&request, field).unwrap_or("none"));
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n{fields}content-length: {length}");
                stream.send(format!("{head}\r\n\r\n{body}")).await;
            }
        }
    })
    .await
}

fn released() -> watch::Receiver<bool> {
    watch::channel(true).1
}

#[tokio::test]
async fn requests_that_wait_for_others_pass_their_own_guards() {
    for by_plugin in [true, false] {
        for mode in ["kong", "rfc9111"] {
            let what = format!("{mode}, by a plugin: {by_plugin}");
            let authorization = identifying().await;
            let (release, released) = watch::channel(false);
            let endpoint = naming("x-user", "cache-control: max-age=60\r\n", released).await;
            let cache = json!({"mode": mode, "collapse_timeout": 30_000});
            let server = identifying_server(&cache, &authorization, by_plugin, &endpoint).await;
            let as_user = |user: &'static str| {
                let server = &server;
                async move { get(server, &format!("cookie: {user}\r\n")).await }
            };
            let denied = async {
                endpoint.log.wait_for("a request of each user", |log| log.requests().len() >= 2).await;
                // The request for the response is still on its way.
                let denied = get(&server, "").await;
                release.send(true).unwrap();
                denied
            };
            let (first, second, third, other, denied) =
                tokio::join!(as_user("anna"), as_user("anna"), as_user("anna"), as_user("ben"), denied);
            for (response, user) in [(first, "anna "), (second, "anna "), (third, "anna "), (other, "ben ")] {
                assert!(response.text().starts_with(user), "{what}: {} for {user}", response.text());
            }
            assert_eq!(denied.status, 403, "{what}");
            assert!(!denied.text().contains("anna") && denied.header("x-cache-status").is_none(), "{what}");
            assert_eq!(endpoint.log.requests().len(), 2, "{what}: one for each user");
        }
    }
}

/// Responses that must not be shared are not shared with requests that wait for them.
#[tokio::test]
async fn requests_that_wait_do_not_get_what_is_for_others() {
    for (mode, fields) in [
        ("rfc9111", "cache-control: private, max-age=60\r\n"),
        ("rfc9111", "cache-control: no-store\r\n"),
        ("rfc9111", "cache-control: max-age=60\r\nset-cookie: session=1\r\n"),
        ("rfc9111", "cache-control: max-age=60\r\nvary: *\r\n"),
        ("kong", "content-type: text/plain\r\nset-cookie: session=1\r\n"),
        ("kong", "content-type: text/plain\r\nvary: *\r\n"),
    ] {
        let endpoint = counting(fields).await;
        let cache = json!({"strategy": "memory", "mode": mode, "collapse_timeout": 30_000});
        let (server, _) = filtered_server(&[("proxy-cache", cache)], Filters::default(), &endpoint).await;
        let responses = futures_util::future::join_all((0..8).map(|_| get(&server, ""))).await;
        let mut bodies: Vec<_> = responses.iter().map(TestResponse::text).collect();
        bodies.sort_unstable();
        bodies.dedup();
        assert_eq!(bodies.len(), 8, "{mode} {fields}: {bodies:?}");
    }
    for (mode, field, fields) in [
        ("rfc9111", "accept-language", "cache-control: max-age=60\r\nvary: accept-language\r\n"),
        ("kong", "accept-language", "vary: accept-language\r\n"),
        ("rfc9111", "authorization", "cache-control: max-age=60\r\n"),
        ("kong", "authorization", ""),
        ("rfc9111", "authorization", "cache-control: public, max-age=60\r\nvary: authorization\r\n"),
    ] {
        let endpoint = naming(field, fields, released()).await;
        let cache = json!({"strategy": "memory", "mode": mode, "collapse_timeout": 30_000});
        let (server, _) = filtered_server(&[("proxy-cache", cache)], Filters::default(), &endpoint).await;
        let values = ["a", "b", "a", "b", "c", "a", "b", "c"];
        let requests = values.map(|value| {
            let server = &server;
            async move { get(server, &format!("{field}: {value}\r\n")).await }
        });
        for (response, value) in futures_util::future::join_all(requests).await.into_iter().zip(values) {
            let text = response.text();
            assert!(text.starts_with(&format!("{value} ")), "{mode} {fields}: {text} for {value}");
        }
    }
}

/// What is requested in the background is stored for the user whose request it was.
#[tokio::test]
async fn validation_in_the_background_is_for_its_user() {
    for by_plugin in [true, false] {
        let authorization = identifying().await;
        // Stale when they arrive.
        let fields = "age: 100\r\ncache-control: max-age=60, stale-while-revalidate=1000\r\netag: \"1\"\r\n";
        let endpoint = naming("x-user", fields, released()).await;
        let server = identifying_server(&json!({"mode": "rfc9111"}), &authorization, by_plugin, &endpoint).await;
        let as_user = async |user: &str| get(&server, &format!("cookie: {user}\r\n")).await.text();
        assert_eq!((as_user("anna").await, as_user("ben").await), ("anna 1".to_owned(), "ben 2".to_owned()));
        assert_eq!(get(&server, "").await.status, 403);
        assert_eq!(endpoint.log.requests().len(), 2, "a request that is denied causes none");
        for (user, count, stale) in [("anna", 3, "anna 1"), ("ben", 4, "ben 2")] {
            assert_eq!(as_user(user).await, stale);
            endpoint.log.wait_for("a request in the background", |log| log.requests().len() == count).await;
            assert_eq!(header(endpoint.log.requests().last().unwrap(), "x-user"), Some(user));
        }
        for user in ["anna", "ben", "anna", "ben"] {
            assert!(as_user(user).await.starts_with(user), "by a plugin: {by_plugin}");
        }
        assert_eq!(get(&server, "").await.status, 403);
        assert!(endpoint.log.requests().iter().all(|request| header(request, "x-user").is_some()));
    }
}

/// Of two backends, one has a guard: what it has sent is only for those whom the guard allows.
#[tokio::test]
async fn responses_of_a_guarded_backend_are_not_sent_in_place_of_those_of_another() {
    let named = async |name: &str| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncache-control: max-age=60\r\ncontent-length: 6";
        Endpoint::responding_with(format!("{head}\r\n\r\n{name}")).await
    };
    for config in [json!({"strategy": "memory"}), json!({"strategy": "memory", "mode": "rfc9111"})] {
        let (deciding, guarded, open) = (deciding().await, named("secret").await, named("public").await);
        let guard = filters(http_filter(upstream("auth", &[deciding.address])));
        let backend = |endpoint: &Endpoint, filters| Backend {
            weight: 1,
            filters,
            target: BackendTarget::Upstream(upstream("web", &[endpoint.address])),
        };
        let backends = vec![backend(&guarded, guard), backend(&open, Filters::default())];
        let action = Action::Forward(WeightedBackends::new(backends).unwrap());
        let (server, _) = routed_server(&[("proxy-cache", config)], Filters::default(), action).await;
        // So many that each backend is drawn several times.
        let send = async |fields: &str| {
            let mut seen = Vec::new();
            for _ in 0..60 {
                let response = get(&server, fields).await;
                seen.push(if response.status == 200 { response.text() } else { response.status.to_string() });
            }
            seen.sort_unstable();
            seen.dedup();
            seen
        };
        assert_eq!(send("cookie: pass\r\n").await, ["public", "secret"]);
        assert_eq!(send("").await, ["403", "public"]);
        assert_eq!(send("cookie: pass\r\n").await, ["public", "secret"]);
    }
}
