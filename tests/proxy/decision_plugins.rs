//! Plugins that let other servers decide about requests, or get tokens from them, on the wire.

use std::sync::Arc;

use portico::plugin_api::token::published_keys::key_set_of_process;
use portico::plugin_api::{AnyPluginKind, ConsumerDirectory, PluginState};
use portico::plugin_chain::testing::{chain_with, consumer};
use portico::plugins::REGISTRY;
use portico::snapshot::Snapshot;
use serde_json::{Value, json};

use crate::harness::{
    Endpoint, Options, Route, TestServer, forward, header, reserve_address, route, snapshot, upstream,
};
use crate::http_log::loopback_services;

/// A proxy whose route has these plugins and forwards to the endpoint. The consumers are `anna` and `guest`.
async fn server(plugins: &[(&str, Value)], endpoint: &Endpoint) -> (TestServer, PluginState) {
    let plugins: Vec<(&dyn AnyPluginKind, Value)> =
        plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    let state = PluginState::default();
    let chain = chain_with(&plugins, &state, &loopback_services());
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let route = Route { plugins: Some(chain), ..route(action) };
    let mut consumers = ConsumerDirectory::default();
    for name in ["anna", "guest"] {
        consumers.add(&consumer(name, &["staff"]));
    }
    let (address, reserved) = reserve_address();
    let snapshot = Snapshot { consumers: Arc::new(consumers), ..snapshot(address, vec![route]) };
    let server = TestServer::start(Options::default(), address, reserved, snapshot);
    server.proxy.reconcile().await;
    (server, state)
}

/// A server that responds to each request as the function says: status, headers and body.
async fn deciding(decide: impl Fn(&str) -> (u16, String, String) + Send + Sync + 'static) -> Endpoint {
    let decide = Arc::new(decide);
    Endpoint::scripted(move |mut stream, _| {
        let decide = Arc::clone(&decide);
        async move {
            while let Some(request) = stream.request().await {
                let (status, headers, body) = decide(&request);
                let length = body.len();
                stream.send(format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n{body}")).await;
            }
        }
    })
    .await
}

fn is_forwarded(endpoint: &Endpoint) -> usize {
    endpoint.log.requests().len()
}

#[tokio::test]
async fn forward_auth_decides_before_the_endpoint_sees_the_request() {
    let endpoint = Endpoint::ok().await;
    let auth = deciding(|request| match header(request, "cookie") {
        Some("session=anna") => {
            (200, "x-user: anna\r\nset-cookie: session=anna2\r\nset-cookie: other=1\r\n".to_owned(), String::new())
        }
        Some(_) => (403, "content-type: text/plain\r\n".to_owned(), "not you".to_owned()),
        None => (302, "location: https://login.example/\r\nset-cookie: state=1\r\n".to_owned(), String::new()),
    })
    .await;
    let config = json!({
        "address": format!("http://{}/check", auth.address), "response_headers": ["x-user"], "cookies": ["session"],
    });
    let (server, _) = server(&[("forward-auth", config)], &endpoint).await;
    let get = async |fields: &str| {
        server.request(&format!("GET /cart?a=b HTTP/1.1\r\nhost: shop.example\r\nx-user: forged\r\n{fields}\r\n")).await
    };
    let redirect = get("").await;
    assert_eq!((redirect.status, redirect.header("location")), (302, Some("https://login.example/")));
    assert_eq!(redirect.header("set-cookie"), Some("state=1"));
    let denied = get("cookie: session=eve\r\n").await;
    assert_eq!((denied.status, &*denied.text()), (403, "not you"));
    assert_eq!(is_forwarded(&endpoint), 0);
    let allowed = get("cookie: session=anna\r\n").await;
    assert_eq!((allowed.status, &*allowed.text()), (200, "ok"));
    assert_eq!(allowed.header("set-cookie"), Some("session=anna2"));
    let forwarded = endpoint.log.requests();
    assert_eq!(header(&forwarded[0], "x-user"), Some("anna"));
    let check = auth.log.requests().pop().unwrap();
    assert!(check.starts_with("GET /check HTTP/1.1\r\n"), "{check}");
    for (name, value) in [
        ("x-forwarded-uri", "/cart?a=b"),
        ("x-forwarded-host", "shop.example"),
        ("x-original-url", "http://shop.example/cart?a=b"),
        ("x-forwarded-method", "GET"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(header(&check, name), Some(value), "{name}");
    }
}

/// An authorization server decides about the path that selects the route and that the endpoint gets.
#[tokio::test]
async fn forward_auth_gets_the_normalized_path() {
    let endpoint = Endpoint::ok().await;
    let auth = deciding(|request| match header(request, "x-forwarded-uri") {
        Some("/public") => (200, String::new(), String::new()),
        _ => (403, String::new(), String::new()),
    })
    .await;
    let config = json!({"address": format!("http://{}/", auth.address)});
    let (server, _) = server(&[("forward-auth", config)], &endpoint).await;
    for (target, status) in [("/public", 200), ("/admin/../public", 200), ("/public/../admin", 403), ("/%70ublic", 200)]
    {
        let fields = "host: a\r\nx-forwarded-uri: /public\r\nx_forwarded_uri: /public";
        let response = server.request(&format!("GET {target} HTTP/1.1\r\n{fields}\r\n\r\n")).await;
        assert_eq!(response.status, status, "{target}");
    }
}

#[tokio::test]
async fn requests_are_rejected_while_the_deciding_server_is_unavailable() {
    let endpoint = Endpoint::ok().await;
    let silent = Endpoint::scripted(|mut stream, _| async move {
        let _ = stream.read_to_end().await;
    })
    .await;
    let failing = deciding(|_| (500, String::new(), r#"{"result": true, "active": true}"#.to_owned())).await;
    let (refused, _reserved) = reserve_address();
    for address in [silent.address, failing.address, refused] {
        for (plugin, config, status) in [
            ("forward-auth", json!({"address": format!("http://{address}/"), "timeout": 300}), 503),
            (
                "opa",
                json!({"opa_host": "127.0.0.1", "opa_port": address.port(), "opa_path": "/a", "timeout": 300}),
                500,
            ),
            (
                "oauth2-introspection",
                json!({
                    "introspection_url": format!("http://{address}/"), "authorization_value": "a", "timeout": 300,
                    "anonymous": "guest",
                }),
                503,
            ),
            (
                "upstream-oauth",
                json!({
                    "oauth": {"token_endpoint": format!("http://{address}/"), "client_id": "a", "client_secret": "b"},
                    "client": {"timeout": 300},
                }),
                502,
            ),
        ] {
            let (server, _) = server(&[(plugin, config)], &endpoint).await;
            let request = "GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer x\r\n\r\n";
            assert_eq!(server.request(request).await.status, status, "{plugin} {address}");
        }
    }
    assert_eq!(is_forwarded(&endpoint), 0);
}

#[tokio::test]
async fn opa_allows_and_denies() {
    let endpoint = Endpoint::ok().await;
    let opa = deciding(|request| {
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        let input: Value = serde_json::from_str(body).unwrap();
        let result = match input["input"]["request"]["http"]["path"].as_str() {
            Some("/allowed") => json!({"allow": true, "headers": {"x-role": "reader"}}),
            _ => json!({"allow": false, "status": 451, "message": "not here"}),
        };
        (200, "content-type: application/json\r\n".to_owned(), json!({"result": result}).to_string())
    })
    .await;
    let config = json!({"opa_host": "127.0.0.1", "opa_port": opa.address.port(), "opa_path": "/v1/data/a"});
    let (server, _) = server(&[("opa", config)], &endpoint).await;
    let denied = server.request("GET /other HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(denied.status, 451);
    assert!(denied.text().contains("not here"), "{}", denied.text());
    // The policy names the header in its response, so a trailer of this name must not arrive either.
    let request = "POST /allowed HTTP/1.1\r\nhost: a\r\nx-role: admin\r\ntransfer-encoding: chunked\r\n\
                   trailer: x-role\r\n\r\n1\r\na\r\n0\r\nx-role: admin\r\n\r\n";
    assert_eq!(server.request(request).await.status, 200);
    let forwarded = endpoint.log.requests().pop().unwrap();
    assert_eq!(header(&forwarded, "x-role"), Some("reader"));
    assert!(!forwarded.contains("admin"), "{forwarded}");
}

#[tokio::test]
async fn introspected_tokens_identify_consumers() {
    let endpoint = Endpoint::ok().await;
    let issuer = deciding(|request| {
        let is_active = request.ends_with("token=good");
        let body = json!({"active": is_active, "username": "anna", "scope": "read", "exp": 4_000_000_000_u64});
        (200, String::new(), body.to_string())
    })
    .await;
    let config = json!({"introspection_url": format!("http://{}/introspect", issuer.address), "authorization_value": "Basic YTpi"});
    let (server, _) =
        server(&[("oauth2-introspection", config), ("acl", json!({"allow": ["staff"]}))], &endpoint).await;
    for (token, status) in [("good", 200), ("bad", 401), ("good", 200), ("bad", 401)] {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
        assert_eq!(server.request(&request).await.status, status, "{token}");
    }
    assert_eq!(issuer.log.requests().len(), 2, "one request for each token");
    let introspection = &issuer.log.requests()[0];
    assert!(introspection.starts_with("POST /introspect HTTP/1.1\r\n"), "{introspection}");
    assert_eq!(header(introspection, "authorization"), Some("Basic YTpi"));
    let forwarded = &endpoint.log.requests()[0];
    assert_eq!(header(forwarded, "x-consumer-username"), Some("anna"));
    assert_eq!(header(forwarded, "x-credential-scope"), Some("read"));
    assert_eq!(header(forwarded, "authorization"), None);
}

#[tokio::test]
async fn the_endpoint_gets_the_token_of_the_issuer() {
    let issuer = deciding(|request| {
        assert!(
            request.ends_with("grant_type=client_credentials&client_id=a&client_secret=b&scope=openid"),
            "{request}"
        );
        (200, String::new(), json!({"access_token": "t", "token_type": "Bearer", "expires_in": 600}).to_string())
    })
    .await;
    let endpoint = Endpoint::responding_with("HTTP/1.1 401 X\r\ncontent-length: 0\r\n\r\n").await;
    let config = json!({
        "oauth": {"token_endpoint": format!("http://{}/token", issuer.address), "client_id": "a", "client_secret": "b"},
    });
    let (server, _) = server(&[("upstream-oauth", config)], &endpoint).await;
    for _ in 0..2 {
        let request = "GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer of-the-client\r\n\r\n";
        assert_eq!(server.request(request).await.status, 401);
    }
    let forwarded = endpoint.log.requests();
    assert!(forwarded.iter().all(|request| header(request, "authorization") == Some("Bearer t")), "{forwarded:?}");
    assert_eq!(issuer.log.requests().len(), 1, "a token that is rejected within ten seconds is kept");
}

#[tokio::test]
async fn backends_get_a_signed_identity_instead_of_the_key_of_the_client() {
    let endpoint = Endpoint::ok().await;
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let identity = json!({
        "issuer": "https://gateway.example", "audience": ["shop"], "keys": [key], "remove_headers": ["apikey"],
        "user_header": "x-user",
    });
    let anonymous = ("key-auth", json!({"anonymous": "guest"}));
    let (server, state) = server(&[anonymous, ("internal-identity", identity)], &endpoint).await;
    let fields = "host: a\r\napikey: secret\r\nauthorization: Bearer forged\r\nx-user: root\r\nx_user: root";
    for _ in 0..2 {
        assert_eq!(server.request(&format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n")).await.status, 200);
    }
    let forwarded = endpoint.log.requests();
    let tokens: Vec<_> = forwarded.iter().map(|request| header(request, "authorization").unwrap()).collect();
    assert_eq!(tokens[0], tokens[1], "signed once");
    for request in &forwarded {
        assert_eq!(header(request, "x-user"), Some("guest"));
        assert!(!request.contains("secret") && !request.contains("forged") && !request.contains("root"), "{request}");
    }
    let token = tokens[0].strip_prefix("Bearer ").unwrap();
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&key_set_of_process(&state, Some("default"))).unwrap();
    let decoding = jsonwebtoken::DecodingKey::from_jwk(&set.keys[0]).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&["shop"]);
    validation.set_issuer(&["https://gateway.example"]);
    let claims = jsonwebtoken::decode::<Value>(token, &decoding, &validation).unwrap().claims;
    assert_eq!((claims["sub"].as_str(), claims["groups"][0].as_str()), (Some("guest"), Some("staff")));
}
