//! Tests of what the server gets, and of what its decisions do.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::consumers::{EntityId, HmacCredential};
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::{AnyPluginKind, ConsumerDirectory, PluginState, RegisteredKind, RemoteRequest, RemoteResponse};
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain_with, consumer, noon};
use crate::plugins::REGISTRY;

const KIND: RegisteredKind<ForwardAuth> = RegisteredKind::NEW;

fn config(fields: Value) -> Value {
    let mut config = json!({"address": "http://auth.example:81/check?from=portico"});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

/// The outcome, and the request that the server got.
async fn run(
    fields: Value,
    request: TestRequest,
    decision: Result<RemoteResponse, String>,
) -> (TestOutcome, RemoteRequest) {
    let server = ScriptedServer::new(move |_| decision.clone());
    let chain = chain_with(&[(&KIND, config(fields))], &PluginState::default(), &server.services());
    let outcome = request.run(&chain).await;
    let sent = server.last_request();
    let client = IpAddr::from([192, 0, 2, 1]);
    assert_eq!(*server.of_clients.lock(), [("/check".to_owned(), client)], "counts for its client");
    (outcome, sent)
}

fn lines(request: &RemoteRequest) -> String {
    let headers = request.headers.iter();
    let mut lines: Vec<_> =
        headers.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))).collect();
    lines.sort();
    lines.join("\n")
}

#[tokio::test]
async fn the_server_gets_the_headers_and_a_description_of_the_request() {
    let request = || {
        TestRequest::post("/a/b?c=d", "text/plain", "hello")
            .header("host", "shop.example:8080")
            .header("cookie", "session=1")
            .header("authorization", "Bearer x")
            .header("if-none-match", "\"1\"")
            .header("range", "bytes=0-1")
            .header("content-length", "5")
            .header("x-forwarded-uri", "/forged")
            .header("x_forwarded_uri", "/forged")
            .header("x-original-url", "http://forged.example/")
    };
    let description = "\
host: auth.example:81
x-forwarded-for: 192.0.2.1
x-forwarded-host: shop.example:8080
x-forwarded-method: POST
x-forwarded-port: 80
x-forwarded-proto: http
x-forwarded-uri: /a/b?c=d
x-original-method: POST
x-original-uri: /a/b?c=d
x-original-url: http://shop.example:8080/a/b?c=d";
    let with = |more: &str| {
        let mut lines: Vec<_> = description.lines().chain(more.lines()).collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    let all = "authorization: Bearer x\ncookie: session=1";
    let cases = [
        (json!({}), with(all), "GET", ""),
        (json!({"request_headers": ["Cookie", "x-absent"]}), with("cookie: session=1"), "GET", ""),
        (json!({"preserve_method": true}), with(all), "POST", ""),
        (json!({"max_body_size": 5}), with(&format!("{all}\ncontent-type: text/plain")), "GET", "hello"),
    ];
    for (fields, expected, method, body) in cases {
        let (outcome, sent) = run(fields.clone(), request(), Ok(response(200, "", ""))).await;
        assert_eq!(outcome.reply_status(), None, "{fields}");
        assert_eq!((lines(&sent), sent.method.as_str(), &*sent.body), (expected, method, body.as_bytes()), "{fields}");
        assert_eq!(sent.target.as_str(), "/check?from=portico", "{fields}");
        assert_eq!((&*sent.remote.host, sent.remote.port), ("auth.example", 81));
    }
}

#[tokio::test]
async fn an_allowed_request_gets_the_listed_headers() {
    let fields = json!({
        "response_headers": ["x-user", "x-absent"], "client_response_headers": ["x-quota"], "cookies": ["session"],
    });
    let mut request = TestRequest::get("/")
        .header("x-user", "forged")
        .header("x_user", "forged")
        .header("x-absent", "forged")
        .header("x-other", "kept");
    request.upstream_response.headers_mut().insert("x-quota", HeaderValue::from_static("of the endpoint"));
    request.upstream_response.headers_mut().insert(SET_COOKIE, HeaderValue::from_static("a=1"));
    let decision = response(
        204,
        "x-user: anna\nx-user: second\nx-other: no\nx-quota: 5\nset-cookie: session=2; Path=/\nset-cookie: b=3",
        "ignored",
    );
    let (outcome, _) = run(fields, request, Ok(decision)).await;
    assert_eq!(outcome.reply_status(), None);
    let users: Vec<_> = outcome.request.headers.get_all("x-user").iter().collect();
    assert_eq!(users, ["anna", "second"]);
    for name in ["x_user", "x-absent"] {
        assert_eq!(outcome.upstream_header(name), None, "{name}");
    }
    assert_eq!(outcome.upstream_header("x-other"), Some("kept"));
    assert_eq!(outcome.response_header("x-quota"), Some("5"));
    let cookies: Vec<_> = outcome.response.headers.get_all(SET_COOKIE).iter().collect();
    assert_eq!(cookies, ["a=1", "session=2; Path=/"]);
}

#[tokio::test]
async fn the_response_of_a_denial_is_that_of_the_server() {
    for status in [301, 302, 400, 401, 403, 404, 429] {
        let headers = "location: https://login.example/\nset-cookie: a=1\nset-cookie: b=2\nwww-authenticate: Basic\n\
                       transfer-encoding: chunked\nconnection: close\ncontent-length: 99\ncontent-type: text/html";
        let (outcome, _) = run(json!({}), TestRequest::get("/"), Ok(response(status, headers, "<p>no</p>"))).await;
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), Some(status));
        assert_eq!(outcome.message(), Some("<p>no</p>"), "{status}");
        assert_eq!(outcome.reply.as_ref().unwrap().reason, "denied");
        assert_eq!(outcome.response_header("location"), Some("https://login.example/"));
        assert_eq!(outcome.response.headers.get_all(SET_COOKIE).iter().count(), 2);
        assert_eq!(outcome.response_header("www-authenticate"), Some("Basic"));
        for name in ["transfer-encoding", "connection", "content-length"] {
            assert_eq!(outcome.response_header(name), None, "{name}");
        }
    }
}

#[tokio::test]
async fn requests_without_a_decision_are_rejected() {
    for decision in [Err("refused".to_owned()), Ok(response(500, "x-user: anna", "")), Ok(response(503, "", ""))] {
        let server = ScriptedServer::new({
            let decision = decision.clone();
            move |request| {
                if request.headers.contains_key("works") { Ok(response(200, "", "")) } else { decision.clone() }
            }
        });
        let chain = chain_with(&[(&KIND, config(json!({})))], &PluginState::default(), &server.services());
        let outcome = TestRequest::get("/").run(&chain).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::SERVICE_UNAVAILABLE), "{decision:?}");
        assert_eq!(outcome.reply.unwrap().reason, "no_decision");
        TestRequest::get("/").run(&chain).await;
        TestRequest::get("/").header("works", "1").run(&chain).await;
        let reports: Vec<_> = server.reports.lock().iter().map(|report| report.is_some()).collect();
        assert_eq!(reports, [true, false], "one report for each change");
        let reports = server.reports.lock();
        let report = reports[0].as_ref().unwrap();
        assert_eq!(report.field, "config.address");
        assert!(report.message.starts_with("has failed: auth.example:81"), "{report}");
    }
}

#[tokio::test]
async fn unauthenticated_clients_are_redirected_to_the_login_page() {
    let cases = [
        ("https://login.example/start", "https://login.example/start?rd=http%3A%2F%2Ftest.example%2Fa%3Fb%3Dc"),
        ("/start?x=1", "/start?x=1&rd=http%3A%2F%2Ftest.example%2Fa%3Fb%3Dc"),
    ];
    for (url, expected) in cases {
        let decision = response(401, "set-cookie: state=1\nwww-authenticate: Basic", "no");
        let (outcome, _) = run(json!({"sign_in_url": url}), TestRequest::get("/a?b=c"), Ok(decision)).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::FOUND));
        assert_eq!(outcome.response_header("location"), Some(expected));
        assert_eq!(outcome.response_header("set-cookie"), Some("state=1"));
        assert_eq!(outcome.response_header("www-authenticate"), None);
    }
    let decision = response(403, "", "no");
    let (outcome, _) = run(json!({"sign_in_url": "/start"}), TestRequest::get("/"), Ok(decision)).await;
    assert_eq!(outcome.reply_status(), Some(StatusCode::FORBIDDEN), "the client is authenticated");
}

#[tokio::test]
async fn the_server_identifies_the_consumer_and_its_groups() {
    let mut consumers = ConsumerDirectory::default();
    consumers.add(&consumer("anna", &[]));
    let fields = json!({"user_header": "x-user", "groups_header": "x-groups"});
    let request = || TestRequest::get("/").header("x-consumer-username", "forged").with_consumers(&consumers);
    let (outcome, _) =
        run(fields.clone(), request(), Ok(response(200, "x-user: anna\nx-groups: staff, ops", ""))).await;
    assert_eq!(outcome.upstream_identity(), (Some("anna"), Some("anna"), false));
    let groups: Vec<_> = outcome.state.identity.groups.iter().map(|group| &**group).collect();
    assert_eq!(groups, ["staff", "ops"]);
    assert_eq!(outcome.state.identity.credential().map(|id| &**id), Some("KongPlugin/default/test#anna"));
    let (outcome, _) = run(fields.clone(), request(), Ok(response(200, "x-user: unknown", ""))).await;
    assert_eq!(outcome.upstream_identity(), (None, Some("unknown"), false));
    assert!(outcome.state.identity.consumer.is_none() && outcome.state.identity.is_authenticated());
    let (outcome, _) = run(fields, request(), Ok(response(200, "", ""))).await;
    assert_eq!(outcome.upstream_identity(), (None, None, false), "what the client sent is removed");
    assert!(outcome.state.identity.is_authenticated() && outcome.state.identity.credential().is_none());
    assert!(!outcome.state.identity.has_accepted_credential());
}

/// The server has accepted no credential of a client that it does not name, so later plugins do not skip it.
#[tokio::test]
async fn plugins_with_an_anonymous_consumer_run_for_unnamed_users() {
    let mut consumers = ConsumerDirectory::default();
    let (anna, guest) = (consumer("anna", &[]), consumer("guest", &[]));
    consumers.add(&anna);
    consumers.add(&guest);
    let credential = HmacCredential::new(EntityId::from_text("id-signer"), "signer", b"secret", anna);
    consumers.signers.insert(Arc::new(credential));
    let date = httpdate::fmt_http_date(noon());
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
    let signature = STANDARD.encode(hmac::sign(&key, format!("date: {date}").as_bytes()));
    let signed = format!(r#"hmac username="signer", algorithm="hmac-sha256", headers="date", signature="{signature}""#);
    for (user, authorization, expected) in [
        ("", None, (Some("guest"), true)),
        ("", Some(&signed), (Some("anna"), false)),
        ("x-user: carol", None, (None, false)),
        ("x-user: carol", Some(&signed), (None, false)),
    ] {
        let server = ScriptedServer::new(move |_| Ok(response(200, user, "")));
        let plugins: [(&dyn AnyPluginKind, Value); 2] = [
            (&KIND, config(json!({"user_header": "x-user"}))),
            (REGISTRY.find("hmac-auth").unwrap(), json!({"anonymous": "guest"})),
        ];
        let chain = chain_with(&plugins, &PluginState::default(), &server.services());
        let mut request = TestRequest::get("/").header("date", &date).with_consumers(&consumers);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let outcome = request.run(&chain).await;
        let (consumer, _, is_anonymous) = outcome.upstream_identity();
        assert_eq!((consumer, is_anonymous), expected, "{user:?} {authorization:?}");
    }
}

#[test]
fn invalid_configurations_name_the_field() {
    for (fields, field) in [
        (json!({"address": ""}), "config.address"),
        (json!({"address": "auth.example"}), "config.address"),
        (json!({"address": "http://user:secret@auth.example/"}), "config.address"),
        (json!({"request_headers": ["a b"]}), "config.request_headers[0]"),
        (json!({"response_headers": ["x-user", "Content-Length"]}), "config.response_headers[1]"),
        (json!({"client_response_headers": ["set-cookie"]}), "config.client_response_headers[0]"),
        (json!({"cookies": [""]}), "config.cookies[0]"),
        (json!({"groups_header": "x-groups"}), "config.groups_header"),
        (json!({"sign_in_url": "login.example"}), "config.sign_in_url"),
        (json!({"sign_in_url": "//login.example"}), "config.sign_in_url"),
        (json!({"sign_in_url": "/a#b"}), "config.sign_in_url"),
        (json!({"sign_in_url": "/", "sign_in_parameter": "a&b"}), "config.sign_in_parameter"),
        (json!({"timeout": 0}), "config.timeout"),
        (json!({"max_body_size": 10_485_761}), "config.max_body_size"),
    ] {
        let invalid = build(&KIND, &config(fields.clone())).err().unwrap_or_else(|| panic!("{fields} was accepted"));
        assert_eq!(invalid[0].field, field, "{fields}: {invalid:?}");
        assert!(invalid.iter().all(|invalid| !invalid.to_string().contains("secret")), "{invalid:?}");
    }
}
