//! Signatures of requests, signed webhooks and hashed passwords, on the wire.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use portico::plugin_api::consumers::{BasicCredential, EntityId, HmacCredential, StoredPassword};
use portico::plugin_api::password::PasswordHash;
use portico::plugin_api::{AnyPluginKind, ConsumerDirectory};
use portico::plugin_chain::testing::{chain, consumer};
use portico::plugins::REGISTRY;
use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::Snapshot;
use portico::snapshot::rule_options::RuleOptions;
use portico::snapshot::upstream_path::UpstreamPath;
use serde_json::{Value, json};

use crate::accounting::access_log_records;
use crate::h2::{Http2Client, get_request};
use crate::harness::{
    Client, Endpoint, Options, Route, TestResponse, TestServer, forward, header, reserve_address, route, snapshot,
    upstream,
};

const SECRET: &[u8] = b"only-for-tests";

/// A proxy whose route has this plugin. The consumer `anna` has the username `signer` with a secret, and the username
/// `hashed` with the hash of `secret`.
async fn server(plugin: &str, config: Value, endpoint: &Endpoint) -> TestServer {
    server_with(Options::default(), plugin, config, endpoint).await
}

async fn server_with(options: Options, plugin: &str, config: Value, endpoint: &Endpoint) -> TestServer {
    let kind: &dyn AnyPluginKind = REGISTRY.find(plugin).unwrap();
    // The endpoint gets another path than the one that the client signs.
    let upstream_path = UpstreamPath { strip_matched: false, prefix: "/internal".into(), template: None };
    let rule_options = RuleOptions { upstream_path: Some(upstream_path), ..RuleOptions::default() };
    let route = Route {
        plugins: Some(chain(&[(kind, config)])),
        options: Some(Box::new(rule_options)),
        ..route(forward(vec![(1, upstream("web", &[endpoint.address]))]))
    };
    let mut consumers = ConsumerDirectory::default();
    let anna = consumer("anna", &[]);
    consumers.add(&anna);
    let signer = HmacCredential::new(EntityId::from_text("id-signer"), "signer", SECRET, Arc::clone(&anna));
    consumers.signers.insert(Arc::new(signer));
    // The hash of `secret` by crypt(3).
    let hash = PasswordHash::parse("$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW").unwrap();
    let password = StoredPassword::Hash(Arc::new(hash));
    let hashed = BasicCredential::with_password(EntityId::from_text("id-hashed"), "hashed", password, anna);
    consumers.insert_password(Arc::new(hashed));
    let (address, reserved) = reserve_address();
    let snapshot = Snapshot { consumers: Arc::new(consumers), ..snapshot(address, vec![route]) };
    let server = TestServer::start(options, address, reserved, snapshot);
    server.proxy.reconcile().await;
    server
}

async fn exchange(client: &mut Client, request: impl AsRef<[u8]>) -> TestResponse {
    client.send(request).await;
    client.response().await
}

fn now() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}

/// The value of `Authorization` for these signed headers, whose text is signed.
fn authorization(headers: &str, text: &str) -> String {
    let signature = STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), text.as_bytes()));
    format!(r#"hmac username="signer", algorithm="hmac-sha256", headers="{headers}", signature="{signature}""#)
}

fn sha256(body: &str) -> String {
    STANDARD.encode(digest::digest(&digest::SHA256, body.as_bytes()))
}

// docs/kong-compatibility.md, 4.13
#[tokio::test]
async fn the_target_is_signed_as_the_client_sent_it() {
    let endpoint = Endpoint::ok().await;
    let server = server("hmac-auth", json!({"hide_credentials": true}), &endpoint).await;
    let mut client = Client::connect(server.address).await;
    let date = now();
    for (target, signed, expected) in [
        ("/a/../%62?c=%2F", "GET /a/../%62?c=%2F HTTP/1.1", 200),
        ("http://a.example/b", "GET /b HTTP/1.1", 200),
        ("/a/../%62?c=%2F", "GET /b?c=%2F HTTP/1.1", 401),
        ("/internal/b", "GET /internal/internal/b HTTP/1.1", 401),
    ] {
        let text = format!("date: {date}\n{signed}\nhost: a.example");
        let authorization = authorization("date request-line host", &text);
        let request = format!(
            "GET {target} HTTP/1.1\r\nhost: a.example\r\ndate: {date}\r\nauthorization: {authorization}\r\n\r\n"
        );
        assert_eq!(exchange(&mut client, request).await.status, expected, "{target} {signed}");
    }
    let requests = endpoint.log.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[0].starts_with("GET /internal/b?c=%2F HTTP/1.1\r\n"), "{}", requests[0]);
    assert_eq!(header(&requests[0], "authorization"), None);
    assert_eq!(header(&requests[0], "x-consumer-username"), Some("anna"));
    assert_eq!(header(&requests[0], "x-credential-identifier"), Some("signer"));
}

// docs/kong-compatibility.md, 4.13
#[tokio::test]
async fn requests_over_http2_are_signed_with_their_authority() {
    let endpoint = Endpoint::ok().await;
    let server = server("hmac-auth", json!({}), &endpoint).await;
    let client = Http2Client::connect(server.address).await;
    let date = now();
    for (host, expected) in [("a.example", 200), ("b.example", 401)] {
        let text = format!("host: {host}\nGET /a?b HTTP/2.0\ndate: {date}");
        let mut request = get_request("/a?b");
        let headers = request.headers_mut();
        headers.insert("date", HeaderValue::from_str(&date).unwrap());
        let value = authorization("host request-line date", &text);
        headers.insert("authorization", HeaderValue::from_str(&value).unwrap());
        assert_eq!(client.request(request).await.unwrap().status, expected, "{host}");
    }
}

// docs/kong-compatibility.md, 4.13
#[tokio::test]
async fn signed_bodies_are_compared_with_their_digests() {
    let endpoint = Endpoint::ok().await;
    let server = server("hmac-auth", json!({"validate_request_body": true}), &endpoint).await;
    let mut client = Client::connect(server.address).await;
    let date = now();
    let head = |digest: &str, framing: &str| {
        let authorization = authorization("date digest", &format!("date: {date}\ndigest: {digest}"));
        format!(
            "POST / HTTP/1.1\r\nhost: a.example\r\ndate: {date}\r\ndigest: {digest}\r\n\
             authorization: {authorization}\r\n{framing}\r\n\r\n"
        )
    };
    let digest = format!("SHA-256={}", sha256("signed"));
    for (framing, body, expected) in [
        ("content-length: 6", "signed", 200),
        ("transfer-encoding: chunked", "3\r\nsig\r\n3\r\nned\r\n0\r\n\r\n", 200),
        ("content-length: 6", "forged", 401),
        ("content-length: 0", "", 401),
    ] {
        let response = exchange(&mut client, head(&digest, framing) + body).await;
        assert_eq!(response.status, expected, "{framing} {body}");
    }
    assert_eq!(endpoint.log.requests().len(), 2);
    // Beyond the limit, nothing is read.
    let response = server.request(&head(&digest, "content-length: 1048577")).await;
    assert_eq!(response.status, 413);
}

// docs/kong-compatibility.md, 4.13
#[tokio::test]
async fn rejections_have_kongs_messages_and_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let endpoint = Endpoint::ok().await;
    let options = Options { log: AccessLogDestination::File(path.clone()), ..Options::default() };
    let server = server_with(options, "hmac-auth", json!({"realm": "shop"}), &endpoint).await;
    let mut client = Client::connect(server.address).await;
    let date = now();
    let right = authorization("date", &format!("date: {date}"));
    let wrong = authorization("date", "date: another");
    let unknown = right.replace("signer", "nobody");
    let unverifiable = "HMAC signature cannot be verified";
    let no_date =
        "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication";
    let cases = [
        (String::new(), "Unauthorized", "no_credentials"),
        (format!("authorization: {right}\r\n"), no_date, "wrong_date"),
        (format!("date: {date}\r\nauthorization: {unknown}\r\n"), unverifiable, "wrong_credentials"),
        (format!("date: {date}\r\nauthorization: {wrong}\r\n"), "HMAC signature does not match", "wrong_signature"),
    ];
    let mut reasons = Vec::new();
    for (headers, message, reason) in cases {
        let response = exchange(&mut client, format!("GET / HTTP/1.1\r\nhost: a.example\r\n{headers}\r\n")).await;
        assert_eq!(response.status, 401, "{headers}");
        assert_eq!(response.header("www-authenticate"), Some("hmac realm=\"shop\""), "{headers}");
        let body: Value = serde_json::from_str(&response.text()).unwrap();
        assert_eq!(body["message"], message, "{headers}");
        reasons.push(json!(reason));
    }
    drop(client);
    server.proxy.drain(crate::harness::TEST_TIMEOUT).await;
    server.log.finish();
    let records = access_log_records(&path);
    assert_eq!(records.iter().map(|record| record["error"].clone()).collect::<Vec<_>>(), reasons);
}

// docs/kong-compatibility.md, 4.33
#[tokio::test]
async fn webhooks_are_forwarded_only_if_they_are_signed() {
    let endpoint = Endpoint::ok().await;
    let secret = format!("whsec_{}", STANDARD.encode(SECRET));
    let server = server("standard-webhooks", json!({"secret_v1": secret}), &endpoint).await;
    let mut client = Client::connect(server.address).await;
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let sign = |timestamp: u64, body: &str| {
        let text = format!("msg_1.{timestamp}.{body}");
        STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), text.as_bytes()))
    };
    let webhook = |timestamp: u64, signature: &str, body: &str| {
        format!(
            "POST /hook HTTP/1.1\r\nhost: a.example\r\nwebhook-id: msg_1\r\nwebhook-timestamp: {timestamp}\r\n\
             webhook-signature: v1,{signature}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let right = sign(seconds, "{}");
    for (name, request, expected) in [
        ("signed", webhook(seconds, &right, "{}"), 200),
        ("another body", webhook(seconds, &right, "[]"), 400),
        ("another timestamp", webhook(seconds - 1, &right, "{}"), 400),
        ("too old", webhook(seconds - 3600, &sign(seconds - 3600, "{}"), "{}"), 400),
        ("no headers", "GET /hook HTTP/1.1\r\nhost: a.example\r\n\r\n".to_owned(), 400),
    ] {
        let response = exchange(&mut client, request).await;
        assert_eq!(response.status, expected, "{name}");
        if expected == 400 {
            let body: Value = serde_json::from_str(&response.text()).unwrap();
            assert_eq!(body["message"], "Bad request", "{name}");
        }
    }
    let requests = endpoint.log.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].ends_with("\r\n\r\n{}"), "{}", requests[0]);
}

// docs/kong-compatibility.md, 4.5
#[tokio::test]
async fn passwords_are_compared_with_hashes_on_other_threads() {
    let endpoint = Endpoint::ok().await;
    let server = server("basic-auth", json!({"hide_credentials": true}), &endpoint).await;
    let request = |login: &str| {
        let login = STANDARD.encode(login);
        format!("GET / HTTP/1.1\r\nhost: a.example\r\nauthorization: Basic {login}\r\n\r\n")
    };
    let mut client = Client::connect(server.address).await;
    for (login, expected) in [
        ("hashed:wrong", 401),
        ("hashed:secret", 200),
        ("hashed:secret", 200),
        ("hashed:wrong", 401),
        ("nobody:secret", 401),
    ] {
        assert_eq!(exchange(&mut client, request(login)).await.status, expected, "{login}");
    }
    let requests = endpoint.log.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(header(&requests[1], "x-credential-identifier"), Some("hashed"));
    assert_eq!(header(&requests[1], "authorization"), None);
    // Clients that disconnect while their passwords are checked leave nothing behind.
    for _ in 0..4 {
        let mut client = Client::connect(server.address).await;
        client.send(request("hashed:other")).await;
    }
    assert_eq!(exchange(&mut client, request("hashed:secret")).await.status, 200);
}
