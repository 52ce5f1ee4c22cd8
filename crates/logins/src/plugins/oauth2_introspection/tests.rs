//! Tests of finding tokens, of what the server gets, and of what its responses do.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::{ConsumerDirectory, PluginState, RegisteredKind};
use crate::plugin_chain::testing::{TestRequest, build, chain_with, consumer, noon};
use crate::token_binding::bound_to;

const KIND: RegisteredKind<OAuth2Introspection> = RegisteredKind::NEW;

fn config(fields: Value) -> Value {
    let mut config = json!({
        "introspection_url": "https://issuer.example/introspect", "authorization_value": "Basic c2VjcmV0",
    });
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

fn consumers() -> ConsumerDirectory {
    let mut consumers = ConsumerDirectory::default();
    for name in ["anna", "guest"] {
        consumers.add(&consumer(name, &[]));
    }
    consumers
}

/// A server that knows the token `good` of the user `anna`, and `slow-expiry`, which is valid for ten seconds.
fn server() -> std::sync::Arc<ScriptedServer> {
    ScriptedServer::new(|request| {
        let form = UrlEncodedForm(&request.body);
        let FieldValue::Single(token) = form.find(b"token") else { panic!("no token") };
        let body = match &*token {
            b"good" => json!({
                "active": true, "username": "anna", "client_id": "custom-guest", "scope": "a b", "exp": 1_900_000_000,
                "aud": ["x", "y"], "sub": "1", "tenant": "blue", "nested": {},
            }),
            b"slow-expiry" => json!({"active": true, "username": "nobody", "exp": 1_767_355_210}),
            b"refresh" => json!({"active": true, "username": "anna", "typ": "Refresh"}),
            b"hydra-refresh" => {
                json!({"active": true, "username": "anna", "token_type": "Bearer", "token_use": "refresh_token"})
            }
            b"no-number" => json!({"active": true, "username": "anna", "exp": "1900000000"}),
            b"no-number-list" => json!({"active": true, "username": "anna", "exp": []}),
            b"no-number-null" => json!({"active": true, "username": "anna", "exp": null}),
            b"expired" => json!({"active": true, "username": "anna", "exp": 1_767_355_200}),
            b"broken" => return Ok(response(200, "", "no json")),
            b"undecided" => json!({"username": "anna"}),
            b"unavailable" => return Ok(response(500, "", "")),
            b"unauthorized" => return Ok(response(401, "", "")),
            _ => json!({"active": false}),
        };
        Ok(response(200, "content-type: application/json", &body.to_string()))
    })
}

#[tokio::test]
async fn active_tokens_identify_the_client() {
    let cases = [
        (json!({}), "anna", json!({"x-credential-scope": "a b", "x-credential-aud": "x,y", "x-credential-sub": "1"})),
        (json!({"consumer_by": "client_id"}), "guest", json!({"x-credential-client-id": "custom-guest"})),
        (
            json!({"custom_claims_forward": ["tenant", "nested"]}),
            "anna",
            json!({"x-credential-tenant": "blue", "x-credential-nested": null, "x-credential-exp": "1900000000"}),
        ),
    ];
    for (fields, username, headers) in cases {
        let server = server();
        let chain = chain_with(&[(&KIND, config(fields.clone()))], &PluginState::default(), &server.services());
        let request = TestRequest::get("/a?b=c")
            .header("authorization", "bearer good")
            .header("x-credential-scope", "forged")
            .header("x_credential_scope", "forged")
            .header("x-credential-jti", "forged")
            .with_consumers(&consumers());
        let outcome = request.run(&chain).await;
        assert_eq!(outcome.message(), None, "{fields}");
        assert_eq!(outcome.upstream_identity(), (Some(username), Some("anna"), false), "{fields}");
        for (name, value) in headers.as_object().unwrap() {
            assert_eq!(outcome.upstream_header(name), value.as_str(), "{fields}: {name}");
        }
        assert!(!format!("{:?}", outcome.request.headers).contains("forged"));
        assert_eq!(outcome.upstream_header("authorization"), None, "credentials are hidden");
        let sent = server.last_request();
        assert_eq!((&*sent.body, sent.target.as_str()), (&b"token=good"[..], "/introspect"));
        assert_eq!(sent.headers[AUTHORIZATION], "Basic c2VjcmV0");
        assert!(sent.headers[AUTHORIZATION].is_sensitive());
    }
}

#[tokio::test]
async fn requests_without_an_active_token_are_rejected() {
    let missing = r#"{"error_description":"The access token is missing","error":"invalid_request"}"#;
    let invalid = r#"{"error_description":"The access token is invalid or has expired","error":"invalid_token"}"#;
    let get = TestRequest::get;
    let bearer = |token: &str| get("/").header("authorization", &format!("Bearer {token}"));
    for (name, request, status, body) in [
        ("none", get("/"), 401, missing),
        ("another scheme", get("/").header("authorization", "Basic good"), 401, missing),
        ("two parameters", get("/?access_token=good&access_token=good"), 401, missing),
        ("empty", get("/?access_token="), 401, missing),
        ("not text", get("/?access_token=%ff"), 401, missing),
        ("inactive", get("/?access_token=bad"), 401, invalid),
        ("two headers", bearer("good").header("authorization", "Bearer good"), 401, invalid),
        ("two headers with different schemes", bearer("good").header("authorization", "Basic a"), 401, invalid),
        ("the header is first", get("/?access_token=good").header("authorization", "Bearer bad"), 401, invalid),
        ("another token", get("/?access_token=bad").header("authorization", "Bearer good"), 401, invalid),
        ("expired", get("/?access_token=expired"), 401, invalid),
        ("an end that is no number", get("/?access_token=no-number"), 401, invalid),
        ("an end that is a list", get("/?access_token=no-number-list"), 401, invalid),
        ("an end that is null", get("/?access_token=no-number-null"), 401, invalid),
        ("a refresh token", get("/?access_token=refresh"), 401, invalid),
        ("a refresh token of Ory Hydra", get("/?access_token=hydra-refresh"), 401, invalid),
        ("no decision", get("/?access_token=broken"), 503, "The server that validates tokens is not available"),
        ("undecided", get("/?access_token=undecided"), 503, "The server that validates tokens is not available"),
        ("unavailable", get("/?access_token=unavailable"), 503, "The server that validates tokens is not available"),
        ("unauthorized", get("/?access_token=unauthorized"), 503, "The server that validates tokens is not available"),
    ] {
        // A server failure rejects requests also if there is a consumer for requests without a token.
        for anonymous in [json!({}), json!({"anonymous": "guest"})] {
            let chain =
                chain_with(&[(&KIND, config(anonymous.clone()))], &PluginState::default(), &server().services());
            let request = TestRequest { request: request.request.clone(), ..TestRequest::get("/") };
            let outcome = request.with_consumers(&consumers()).run(&chain).await;
            if status == 401 && anonymous["anonymous"] == "guest" {
                assert_eq!(outcome.message(), None, "{name}");
                assert_eq!(outcome.upstream_identity(), (Some("guest"), None, true), "{name}");
                let forwarded = outcome.upstream_header("authorization").unwrap_or_default();
                assert!(!forwarded.starts_with("Bearer"), "{name}: credentials are hidden");
            } else {
                assert_eq!(outcome.message(), Some(body), "{name}");
                assert_eq!(outcome.reply_status().unwrap().as_u16(), status, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn results_are_kept_for_a_time() {
    let server = server();
    let state = PluginState::default();
    let chain = chain_with(&[(&KIND, config(json!({"ttl": 30})))], &state, &server.services());
    let run = async |token: &str, seconds: u64| {
        let mut request = TestRequest::get(&format!("/?access_token={token}"));
        request.now = noon() + Duration::from_secs(seconds);
        (request.run(&chain).await.reply_status().map(|status| status.as_u16()), server.request_count())
    };
    assert_eq!(run("good", 0).await, (None, 1));
    assert_eq!(run("good", 29).await, (None, 1));
    assert_eq!(run("good", 30).await, (None, 2));
    assert_eq!(run("bad", 0).await, (Some(401), 3));
    assert_eq!(run("bad", 29).await, (Some(401), 3));
    assert_eq!(run("slow-expiry", 0).await, (None, 4));
    assert_eq!(run("slow-expiry", 9).await, (None, 4));
    assert_eq!(run("slow-expiry", 10).await, (Some(401), 5), "the token has expired");
    let simultaneous = join_all((0..5).map(|_| TestRequest::get("/?access_token=good").run(&chain)));
    for outcome in simultaneous.await {
        assert_eq!(outcome.reply_status(), None);
    }
    assert_eq!(server.request_count(), 5, "in the cache");
}

#[tokio::test]
async fn requests_at_the_same_time_share_an_introspection() {
    let server = server();
    let chain = chain_with(&[(&KIND, config(json!({"ttl": 0})))], &PluginState::default(), &server.services());
    for outcome in join_all((0..5).map(|_| TestRequest::get("/?access_token=good").run(&chain))).await {
        assert_eq!(outcome.reply_status(), None);
    }
    assert_eq!(server.request_count(), 1);
    TestRequest::get("/?access_token=good").run(&chain).await;
    assert_eq!(server.request_count(), 2, "nothing is kept");
}

#[tokio::test]
async fn the_server_may_get_a_description_of_the_request() {
    let server = server();
    let fields = json!({
        "introspect_request": true, "token_type_hint": "access_token", "hide_credentials": false,
        "custom_introspection_headers": {"X-Tenant": "blue"},
    });
    let chain = chain_with(&[(&KIND, config(fields))], &PluginState::default(), &server.services());
    for (path, count) in [("/a", 1), ("/b", 2), ("/a", 2)] {
        let outcome = TestRequest::get(&format!("{path}?access_token=good")).run(&chain).await;
        assert_eq!((outcome.reply_status(), server.request_count()), (None, count), "{path}");
        assert_eq!(outcome.request.uri.query(), Some("access_token=good"));
    }
    let sent = server.last_request();
    assert_eq!(sent.headers["x-request-path"], "/b");
    assert_eq!(sent.headers["x-request-http-method"], "GET");
    assert_eq!(sent.headers["x-tenant"], "blue");
    assert_eq!(&*sent.body, b"token=good&token_type_hint=access_token");
}

/// Kong writes an empty text if nothing was set.
#[tokio::test]
async fn an_empty_name_of_the_anonymous_consumer_is_none() {
    build(&KIND, &config(json!({"anonymous": ""}))).unwrap();
}

#[test]
fn invalid_configurations_name_the_field() {
    for (fields, field) in [
        (json!({"introspection_url": ""}), "config.introspection_url"),
        (json!({"introspection_url": "issuer.example"}), "config.introspection_url"),
        (json!({"authorization_value": ""}), "config.authorization_value"),
        (json!({"authorization_value": "sec\nret"}), "config.authorization_value"),
        (json!({"timeout": 0}), "config.timeout"),
        (json!({"custom_introspection_headers": {"Host": "a"}}), "config.custom_introspection_headers[Host]"),
        (json!({"custom_introspection_headers": {"a b": "a"}}), "config.custom_introspection_headers[a b]"),
        (json!({"custom_claims_forward": ["a b"]}), "config.custom_claims_forward[0]"),
        (json!({"custom_claims_forward": ["a", "identifier"]}), "config.custom_claims_forward[1]"),
        (json!({"consumer_by": "sub"}), "config.consumer_by"),
    ] {
        let invalid = build(&KIND, &config(fields.clone())).err().unwrap_or_else(|| panic!("{fields} was accepted"));
        assert_eq!(invalid[0].field, field, "{fields}: {invalid:?}");
        assert!(invalid.iter().all(|invalid| !invalid.to_string().contains("sec\nret")), "{invalid:?}");
    }
}

#[tokio::test]
async fn introspections_count_for_their_clients() {
    let server = server();
    let chain = chain_with(&[(&KIND, config(json!({})))], &PluginState::default(), &server.services());
    let request = TestRequest::get("/").header("authorization", "Bearer good").with_consumers(&consumers());
    assert!(request.run(&chain).await.reply_status().is_none());
    assert_eq!(*server.of_clients.lock(), [("/introspect".to_owned(), IpAddr::from([192, 0, 2, 1]))]);
}

// RFC 8705, section 3.2
// RFC 9449, section 7.2
#[tokio::test]
async fn bound_tokens_need_the_key_of_the_client() {
    let own = CertificateDer::from(vec![1]);
    let bound = bound_to(&own);
    let server = ScriptedServer::new(move |request| {
        let (token_type, cnf) = match &*request.body {
            b"token=dpop" => ("Bearer", json!({"jkt": "a"})),
            b"token=dpop-without-a-key" => ("dpop", json!(null)),
            _ => ("Bearer", bound.clone()),
        };
        let members = json!({"active": true, "username": "anna", "token_type": token_type, "cnf": cnf});
        Ok(response(200, "", &members.to_string()))
    });
    for (token, certificate, strict) in [
        ("bound", Some(own.clone()), None),
        ("bound", Some(CertificateDer::from(vec![2])), Some(401)),
        ("bound", None, Some(401)),
        ("dpop", Some(own.clone()), Some(401)),
        ("dpop-without-a-key", Some(own), Some(401)),
    ] {
        for (fields, expected) in [(json!({}), strict), (json!({"verify_token_binding": false}), None)] {
            let chain = chain_with(&[(&KIND, config(fields.clone()))], &PluginState::default(), &server.services());
            // The second time, the result is in the cache.
            for _ in 0..2 {
                let mut request = TestRequest::get(&format!("/?access_token={token}")).with_consumers(&consumers());
                request.certificates = certificate.clone().map(|certificate| vec![certificate]);
                let outcome = request.run(&chain).await;
                assert_eq!(outcome.reply_status().map(|status| status.as_u16()), expected, "{token} {fields}");
                let challenge = expected.map(|_| "Bearer error=\"invalid_token\"");
                assert_eq!(outcome.response_header("www-authenticate"), challenge, "{token} {fields}");
            }
        }
    }
}
