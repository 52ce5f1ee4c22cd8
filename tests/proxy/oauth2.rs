//! Tokens of `oauth2` and attacks on them, on the wire.

use std::sync::Arc;

use portico::plugin_api::ConsumerDirectory;
use portico::plugin_api::consumers::{EntityId, OAuthClient, StoredPassword, sha256};
use portico::plugin_chain::Chain;
use portico::plugin_chain::testing::{chain, consumer};
use portico::plugins::REGISTRY;
use portico::snapshot::Snapshot;
use serde_json::{Value, json};

use crate::harness::{
    Endpoint, Options, Route, TestResponse, TestServer, forward, header, reserve_address, route, snapshot, upstream,
};
use crate::tls_harness::{TestTlsConnector, TlsClient, TlsListener, certificate, secure_snapshot};

const CALLBACK: &str = "https://app.example/callback";
const LOGIN: &str = "client_id=app&provision_key=provision&authenticated_userid=user-1&response_type=code";
const CLIENT: &str = "client_id=app&client_secret=secret";

fn chains(config: &Value) -> Arc<Chain> {
    let cors = json!({"origins": ["https://app.example"]});
    let plugins = [("cors", cors), ("oauth2", config.clone())];
    let plugins: Vec<_> = plugins.into_iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config)).collect();
    chain(&plugins)
}

fn config() -> Value {
    json!({
        "enable_authorization_code": true, "enable_client_credentials": true, "provision_key": "provision",
        "scopes": ["read", "write"], "hide_credentials": true,
    })
}

fn consumers() -> Arc<ConsumerDirectory> {
    let mut consumers = ConsumerDirectory::default();
    let anna = consumer("anna", &[]);
    consumers.add(&anna);
    for (client_id, is_public) in [("app", false), ("other", false), ("public", true)] {
        let secret = (!is_public).then(|| StoredPassword::Digest(sha256(b"secret")));
        let (id, redirect_uris) = (EntityId::from_text(client_id), [Box::from(CALLBACK)].into());
        let client =
            OAuthClient { id, client_id: client_id.into(), secret, redirect_uris, consumer: Arc::clone(&anna) };
        consumers.oauth_clients.insert(Arc::new(client));
    }
    Arc::new(consumers)
}

fn routes(endpoint: &Endpoint, config: &Value) -> Vec<Route> {
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    vec![Route { plugins: Some(chains(config)), ..route(action) }]
}

/// A proxy with two HTTPS hosts, each with a plugin of its own.
async fn start(endpoint: &Endpoint) -> TestServer {
    let listeners = ["a.example", "b.example"].map(|hostname| TlsListener {
        hostname,
        certificates: vec![certificate(&[hostname])],
        routes: routes(endpoint, &config()),
    });
    let (address, reserved) = reserve_address();
    let snapshot = Snapshot { consumers: consumers(), ..secure_snapshot(address, listeners.into()) };
    let server = TestServer::start(Options::default(), address, reserved, snapshot);
    server.proxy.reconcile().await;
    server
}

async fn connect(server: &TestServer, host: &'static str) -> TlsClient {
    TestTlsConnector::new().connect(server, host).await.unwrap()
}

async fn post(client: &mut TlsClient, path: &str, form: &str) -> TestResponse {
    post_to(client, "a.example", path, form).await
}

async fn post_to(client: &mut TlsClient, host: &str, path: &str, form: &str) -> TestResponse {
    let head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/x-www-form-urlencoded");
    client.send(format!("{head}\r\ncontent-length: {}\r\n\r\n{form}", form.len())).await;
    client.response().await
}

fn member(response: &TestResponse, name: &str) -> String {
    let body: Value = serde_json::from_str(&response.text()).unwrap_or_else(|_| panic!("{}", response.text()));
    body[name].as_str().unwrap_or_else(|| panic!("{name} of {body}")).to_owned()
}

async fn code(client: &mut TlsClient, fields: &str) -> String {
    let response = post(client, "/oauth2/authorize", &format!("{LOGIN}&{fields}")).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let uri = member(&response, "redirect_uri");
    uri.split_once("?code=").unwrap().1.split('&').next().unwrap().to_owned()
}

async fn get(client: &mut TlsClient, host: &str, token: &str) -> TestResponse {
    client.send(format!("GET /cart HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n")).await;
    client.response().await
}

#[tokio::test]
async fn clients_get_tokens_and_endpoints_see_who_they_are() {
    let endpoint = Endpoint::ok().await;
    let server = start(&endpoint).await;
    let client = &mut connect(&server, "a.example").await;
    let code = code(client, "scope=read").await;
    let tokens = post(client, "/oauth2/token", &format!("{CLIENT}&grant_type=authorization_code&code={code}")).await;
    assert_eq!(tokens.status, 200, "{}", tokens.text());
    assert_eq!((tokens.header("cache-control"), tokens.header("pragma")), (Some("no-store"), Some("no-cache")));
    assert_eq!(tokens.header("content-type"), Some("application/json; charset=utf-8"));
    let response = get(client, "a.example", &member(&tokens, "access_token")).await;
    assert_eq!(response.status, 200);
    let forwarded = endpoint.log.requests();
    assert_eq!(forwarded.len(), 1, "requests for codes and tokens are not forwarded");
    for (name, value) in [
        ("x-consumer-username", Some("anna")),
        ("x-credential-identifier", Some("app")),
        ("x-authenticated-scope", Some("read")),
        ("x-authenticated-userid", Some("user-1")),
        ("authorization", None),
    ] {
        assert_eq!(header(&forwarded[0], name), value, "{name}");
    }
}

#[tokio::test]
async fn attacks_with_codes_and_tokens_fail() {
    let endpoint = Endpoint::ok().await;
    let server = start(&endpoint).await;
    let client = &mut connect(&server, "a.example").await;
    let exchange = |code: &str| format!("grant_type=authorization_code&code={code}");
    let stolen = code(client, "").await;
    let by_other = format!("client_id=other&client_secret=secret&{}", exchange(&stolen));
    assert_eq!(post(client, "/oauth2/token", &by_other).await.status, 400, "a code of another client");
    let with_uri = format!("{CLIENT}&{}&redirect_uri=https://evil.example/", exchange(&stolen));
    assert_eq!(post(client, "/oauth2/token", &with_uri).await.status, 400, "another redirect URI");
    let tokens = post(client, "/oauth2/token", &format!("{CLIENT}&{}", exchange(&stolen))).await;
    let access = member(&tokens, "access_token");
    // Tokens of another plugin.
    let other = &mut connect(&server, "b.example").await;
    let rejected = get(other, "b.example", &access).await;
    assert_eq!(rejected.status, 401);
    let challenge = r#"Bearer error="invalid_token", error_description="The access token is invalid or has expired""#;
    assert_eq!(rejected.header("www-authenticate"), Some(challenge));
    let refresh = format!("{CLIENT}&grant_type=refresh_token&refresh_token={}", member(&tokens, "refresh_token"));
    assert_eq!(post_to(other, "b.example", "/oauth2/token", &refresh).await.status, 400);
    let escalated = post(client, "/oauth2/token", &format!("{refresh}&scope=read")).await;
    assert_eq!(member(&escalated, "error_description"), "Scope mismatch");
    assert_eq!(get(client, "a.example", &access).await.status, 200, "nothing of this has ended the grant");
    // A replay of the code.
    assert_eq!(post(client, "/oauth2/token", &format!("{CLIENT}&{}", exchange(&stolen))).await.status, 400);
    assert_eq!(get(client, "a.example", &access).await.status, 401);
    assert_eq!(post(client, "/oauth2/token", &refresh).await.status, 400);
    // A public client without PKCE.
    let public = LOGIN.replace("client_id=app", "client_id=public");
    let response = post(client, "/oauth2/authorize", &public).await;
    assert_eq!(response.status, 400);
    assert!(member(&response, "redirect_uri").starts_with("https://app.example/callback?error=invalid_request&"));
}

#[tokio::test]
async fn malformed_and_ambiguous_requests_are_refused() {
    let endpoint = Endpoint::ok().await;
    let server = start(&endpoint).await;
    let client = &mut connect(&server, "a.example").await;
    let grant = format!("{CLIENT}&grant_type=client_credentials");
    let large = format!("{grant}&state={}", "a".repeat(20_000));
    for (path, form, status, description) in [
        (
            "/oauth2/token",
            &*format!("{grant}&grant_type=password"),
            400,
            "The parameter grant_type occurs more than once",
        ),
        ("/oauth2/token?grant_type=client_credentials", &*grant, 400, "The parameter grant_type occurs more than once"),
        ("/oauth2/token?client_id=other", &*grant, 400, "The parameter client_id occurs more than once"),
        ("/oauth2/token", &*large, 413, "The body is too large"),
        ("/oauth2/token", "grant_type=client_credentials&client_id=%00", 400, "Invalid client authentication"),
        ("/oauth2/token", "", 400, "Invalid client authentication"),
        ("/oauth2/authorize", "provision_key=wrong", 400, "Invalid provision_key"),
    ] {
        let response = post(client, path, form).await;
        assert_eq!((response.status, &*member(&response, "error_description")), (status, description), "{path}");
    }
    // Line breaks in parameters do not reach a header or the URI.
    let response = post(client, "/oauth2/authorize", &format!("{LOGIN}&state=a%0d%0aset-cookie:b")).await;
    let uri = member(&response, "redirect_uri");
    assert!(response.header("set-cookie").is_none() && uri.contains("&state=a%0D%0Aset-cookie%3Ab"), "{uri}");
    let response = post(client, "/oauth2/authorize", &format!("{LOGIN}&redirect_uri=https://evil.example/")).await;
    assert_eq!(response.status, 400);
    assert!(!member(&response, "redirect_uri").contains("evil"), "no redirect to an unknown URI");
    client.send("GET /oauth2/token HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("allow")), (405, Some("POST")));
    assert_eq!(endpoint.log.requests().len(), 0);
}

#[tokio::test]
async fn preflight_requests_need_no_token() {
    let endpoint = Endpoint::ok().await;
    let server = start(&endpoint).await;
    let client = &mut connect(&server, "a.example").await;
    for path in ["/cart", "/oauth2/token"] {
        let fields = "origin: https://app.example\r\naccess-control-request-method: POST";
        client.send(format!("OPTIONS {path} HTTP/1.1\r\nhost: a.example\r\n{fields}\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example"));
    }
}

#[tokio::test]
async fn plain_http_is_accepted_only_from_a_trusted_proxy_that_reports_https() {
    let endpoint = Endpoint::ok().await;
    let body = format!("{CLIENT}&grant_type=client_credentials");
    for (accepts, trusted, proto, status) in [
        (false, vec!["127.0.0.1/32"], "https", 400),
        (true, vec![], "https", 400),
        (true, vec!["127.0.0.1/32"], "http", 400),
        (true, vec!["127.0.0.1/32"], "https", 200),
    ] {
        let mut config = config();
        config["accept_http_if_already_terminated"] = json!(accepts);
        let (address, reserved) = reserve_address();
        let snapshot = Snapshot { consumers: consumers(), ..snapshot(address, routes(&endpoint, &config)) };
        let options = Options { trusted: trusted.clone(), ..Options::default() };
        let server = TestServer::start(options, address, reserved, snapshot);
        server.proxy.reconcile().await;
        let fields = "host: a.example\r\ncontent-type: application/x-www-form-urlencoded";
        let head = format!("POST /oauth2/token HTTP/1.1\r\n{fields}\r\nx-forwarded-proto: {proto}");
        let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let response = server.request(&request).await;
        assert_eq!(response.status, status, "{accepts} {trusted:?} {proto}: {}", response.text());
    }
}
