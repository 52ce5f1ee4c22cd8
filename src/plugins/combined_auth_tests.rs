//! Tests of several authentication plugins combined in one chain.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::REGISTRY;
use crate::plugin_api::consumers::{BasicCredential, EntityId, JwtCredential, KeyCredential};
use crate::plugin_api::kind::{HTTP_FAMILY, Scopes};
use crate::plugin_api::signature::signing::Signer;
use crate::plugin_api::signature::{Algorithm, HmacSecret, VerificationKey};
use crate::plugin_api::testing::{TestOutcome, TestRequest, chain, consumer};
use crate::plugin_api::{AnyPluginKind, Consumer, ConsumerDirectory, ReplyBody};

/// Consumers with one credential each: anna for `key-auth`, bob for `basic-auth`, cleo for `jwt`.
fn consumers() -> ConsumerDirectory {
    let mut directory = ConsumerDirectory::default();
    let [anna, bob, cleo, guest] = ["anna", "bob", "cleo", "guest"].map(|name| consumer(name, &[]));
    let plain = Arc::new(Consumer::new(EntityId::from_text("id-plain"), None, None, vec![], vec![]));
    for known in [&anna, &bob, &cleo, &guest, &plain] {
        directory.add(known);
    }
    for (key, known) in [("key", &anna), ("plain", &plain)] {
        let credential =
            KeyCredential::new(EntityId::from_text(&format!("id-{key}")), key.as_bytes(), None, Arc::clone(known));
        directory.keys.insert(Arc::new(credential));
    }
    let password = BasicCredential::new(EntityId::from_text("id-password"), "bob", b"password", bob);
    directory.passwords.insert(Arc::new(password));
    let secret = VerificationKey::Secret(HmacSecret::new(Algorithm::Hs256, &b"secret"[..]).unwrap());
    directory.tokens.insert(Arc::new(JwtCredential::new(EntityId::from_text("id-claim"), "claim", secret, cleo)));
    directory
}

/// A request with these credentials, valid or invalid.
fn request_with(shown: &str) -> TestRequest {
    let mut request = TestRequest::get("/");
    for shown in shown.split_whitespace() {
        request = match shown {
            "key" | "plain" | "nokey" => request.header("apikey", shown),
            "password" | "nopassword" => {
                request.header("proxy-authorization", &format!("Basic {}", STANDARD.encode(format!("bob:{shown}"))))
            }
            "token" => request.header("authorization", &format!("Bearer {}", token())),
            "notoken" => request.header("authorization", "Bearer x"),
            other => panic!("unknown credential {other}"),
        };
    }
    request
}

fn token() -> String {
    Signer::secret(b"secret").token(Algorithm::Hs256, &json!({}), &json!({"iss": "claim"}))
}

async fn run(plugins: &[(&str, Value)], request: TestRequest) -> TestOutcome {
    let plugins: Vec<(&dyn AnyPluginKind, Value)> =
        plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    request.with_consumers(&consumers()).run(&chain(&plugins)).await
}

// kong-compat §4.0
#[tokio::test]
async fn anonymous_combines_plugins_with_or_instead_of_and() {
    let or = || json!({"anonymous": "guest"});
    let any = [("jwt", or()), ("key-auth", or()), ("basic-auth", or())];
    let all = [("jwt", json!({})), ("key-auth", json!({})), ("basic-auth", json!({}))];
    let mixed = [("jwt", or()), ("key-auth", json!({})), ("basic-auth", or())];
    // Username and credential, or the error message.
    type Then = Result<(&'static str, Option<&'static str>), &'static str>;
    type Plugins<'a> = &'a [(&'a str, Value)];
    let cases: [(&str, Plugins<'_>, &str, Then); 18] = [
        ("any", &any, "", Ok(("guest", None))),
        ("any", &any, "nokey nopassword notoken", Ok(("guest", None))),
        ("any", &any, "token", Ok(("cleo", Some("claim")))),
        ("any", &any, "key", Ok(("anna", Some("id-key")))),
        ("any", &any, "password", Ok(("bob", Some("bob")))),
        ("any: the first one wins", &any, "token key password", Ok(("cleo", Some("claim")))),
        ("any: invalid credentials are ignored", &any, "notoken key nopassword", Ok(("anna", Some("id-key")))),
        ("all", &all, "", Err("Unauthorized")),
        ("all", &all, "token", Err("No API key found in request")),
        ("all", &all, "token key", Err("Unauthorized")),
        ("all", &all, "key password", Err("Unauthorized")),
        ("all", &all, "token nokey password", Err("Unauthorized")),
        ("all: the last one wins", &all, "token key password", Ok(("bob", Some("bob")))),
        ("mixed", &mixed, "", Err("No API key found in request")),
        ("mixed", &mixed, "token", Err("No API key found in request")),
        ("mixed", &mixed, "key", Ok(("anna", Some("id-key")))),
        ("mixed", &mixed, "token key", Ok(("anna", Some("id-key")))),
        ("mixed: skipped after the key", &mixed, "key password", Ok(("anna", Some("id-key")))),
    ];
    for (name, plugins, shown, then) in cases {
        let outcome = run(plugins, request_with(shown).header("x-anonymous-consumer", "true")).await;
        match then {
            Ok((username, credential)) => {
                assert_eq!(outcome.message(), None, "{name}: {shown}");
                assert_eq!(
                    outcome.upstream_identity(),
                    (Some(username), credential, credential.is_none()),
                    "{name}: {shown}"
                );
                let identity = &outcome.state.identity;
                assert_eq!(identity.credential.is_some(), credential.is_some(), "{name}: {shown}");
                assert_eq!(identity.consumer.as_ref().unwrap().username.as_deref(), Some(username), "{name}: {shown}");
            }
            Err(message) => assert_eq!(outcome.message(), Some(message), "{name}: {shown}"),
        }
    }
}

const NAMES: [&str; 5] =
    ["x-consumer-id", "x-consumer-username", "x-consumer-custom-id", "x-credential-identifier", "x-anonymous-consumer"];

// kong-compat §4.0
#[tokio::test]
async fn spoofed_identity_headers_are_overwritten_or_removed() {
    let forging =
        |shown: &str| NAMES.into_iter().fold(request_with(shown), |request, name| request.header(name, "root"));
    let cases = [
        ("key", json!({}), [Some("id-anna"), Some("anna"), Some("custom-anna"), Some("id-key"), None]),
        ("plain", json!({}), [Some("id-plain"), None, None, Some("id-plain"), None]),
        (
            "",
            json!({"anonymous": "guest"}),
            [Some("id-guest"), Some("guest"), Some("custom-guest"), None, Some("true")],
        ),
        ("", json!({"anonymous": "id-plain"}), [Some("id-plain"), None, None, None, Some("true")]),
    ];
    for (shown, config, expected) in cases {
        let request = forging(shown).header("x_consumer_id", "root").header("x-consumer_username", "root");
        let outcome = run(&[("key-auth", config.clone())], request).await;
        let spoofed = ["x_consumer_id", "x-consumer_username"];
        assert_eq!(spoofed.map(|name| outcome.upstream_header(name)), [None; 2], "{shown} {config}");
        assert_eq!(NAMES.map(|name| outcome.upstream_header(name)), expected, "{shown} {config}");
    }
}

// kong-compat §4.0
#[tokio::test]
async fn an_anonymous_consumer_must_exist() {
    for name in ["key-auth", "basic-auth", "jwt"] {
        // A custom id is not accepted in a configuration.
        for missing in ["nobody", "custom-guest"] {
            let outcome = run(&[(name, json!({"anonymous": missing}))], request_with("")).await;
            assert_eq!(outcome.reply_status(), Some(StatusCode::INTERNAL_SERVER_ERROR), "{name}");
            let message = format!("anonymous consumer {missing} is configured but doesn't exist");
            assert_eq!(outcome.message(), Some(&*message), "{name}");
            assert!(matches!(outcome.reply.unwrap().body, ReplyBody::Negotiated(_)), "{name}");
        }
        for known in ["guest", "id-guest"] {
            let outcome = run(&[(name, json!({"anonymous": known}))], request_with("")).await;
            assert_eq!(outcome.upstream_identity(), (Some("guest"), None, true), "{name}");
        }
    }
}

// kong-compat §4.0
// kong-compat §7.18
#[tokio::test]
async fn rejections_are_negotiated_except_those_of_jwt() {
    for (name, scheme) in [("key-auth", "Key"), ("basic-auth", "Basic realm=\"service\""), ("jwt", "Bearer")] {
        let outcome = run(&[(name, json!({}))], request_with("")).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::UNAUTHORIZED), "{name}");
        assert_eq!(outcome.response_header("www-authenticate"), Some(scheme), "{name}");
        let is_negotiated = matches!(outcome.reply.unwrap().body, ReplyBody::Negotiated(_));
        assert_eq!(is_negotiated, name != "jwt", "{name}");
    }
}

// kong-compat §4.0
#[tokio::test]
async fn preflight_requests_skip_authentication_if_configured() {
    for (name, config, passes) in [
        ("key-auth", json!({"run_on_preflight": false}), true),
        ("jwt", json!({"run_on_preflight": false}), true),
        ("key-auth", json!({}), false),
        ("jwt", json!({}), false),
        ("basic-auth", json!({}), false),
    ] {
        let mut request = NAMES.into_iter().fold(request_with(""), |request, name| request.header(name, "root"));
        *request.request.method_mut() = Method::OPTIONS;
        let outcome = run(&[(name, config)], request).await;
        assert_eq!(outcome.reply_status().is_none(), passes, "{name}");
        if passes {
            assert_eq!(NAMES.map(|name| outcome.upstream_header(name)), [None; 5], "{name}: there is no identity");
        }
    }
    // The identity of an earlier plugin is kept.
    let chain = [("jwt", json!({})), ("key-auth", json!({"run_on_preflight": false}))];
    let mut request = request_with("token");
    *request.request.method_mut() = Method::OPTIONS;
    assert_eq!(run(&chain, request).await.upstream_identity().0, Some("cleo"));
}

// kong-compat §4.0
#[test]
fn priorities_and_scopes_match_kong() {
    let rule_only = Scopes { consumer: false, consumer_group: false, ..Scopes::ALL };
    for (name, priority, scopes) in [
        ("jwt", 1450, rule_only),
        ("key-auth", 1250, rule_only),
        ("basic-auth", 1100, rule_only),
        ("acl", 950, Scopes { consumer: false, ..Scopes::ALL }),
    ] {
        let kind = REGISTRY.find(name).unwrap();
        assert_eq!(kind.priority(), priority, "{name}");
        assert_eq!(kind.scopes(), scopes, "{name}");
        assert_eq!(kind.protocols(), HTTP_FAMILY, "{name}");
        assert!(kind.fails_closed(), "{name}");
    }
}

// kong-compat §4.1
#[tokio::test]
async fn acl_runs_after_authentication() {
    let acl = ("acl", json!({"allow": ["staff"]}));
    let cases = [
        (vec![acl.clone()], "key", StatusCode::UNAUTHORIZED),
        (vec![("key-auth", json!({})), acl.clone()], "key", StatusCode::FORBIDDEN),
        (vec![("key-auth", json!({"anonymous": "guest"})), acl.clone()], "", StatusCode::UNAUTHORIZED),
    ];
    for (plugins, shown, status) in cases {
        assert_eq!(run(&plugins, request_with(shown)).await.reply_status(), Some(status), "{plugins:?}");
    }
}
