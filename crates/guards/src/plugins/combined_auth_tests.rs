//! Tests of several authentication plugins combined in one chain.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::REGISTRY;
use crate::plugin_api::consumers::{BasicCredential, EntityId, JwtCredential, KeyCredential};
use crate::plugin_api::kind::{HTTP_FAMILY, Scopes};
use crate::plugin_api::token::signature::signing::Signer;
use crate::plugin_api::token::signature::{Algorithm, HmacSecret, VerificationKey};
use crate::plugin_api::{AnyPluginKind, Consumer, ConsumerDirectory, ReplyBody};
use crate::plugin_chain::testing::{TestOutcome, TestRequest, chain, consumer};

/// The consumers anna with a key, bob with a password, cleo with a token, guest without a credential, and one with a
/// key but no username.
fn consumers() -> ConsumerDirectory {
    let mut directory = ConsumerDirectory::default();
    let [anna, bob, cleo, guest] = ["anna", "bob", "cleo", "guest"].map(|name| consumer(name, &[]));
    let nameless = Arc::new(Consumer::new(EntityId::from_text("id-nameless"), None, None, vec![], vec![]));
    for consumer in [&anna, &bob, &cleo, &guest, &nameless] {
        directory.add(consumer);
    }
    for (key, consumer) in [("key", &anna), ("nameless", &nameless)] {
        let credential =
            KeyCredential::new(EntityId::from_text(&format!("id-{key}")), key.as_bytes(), None, Arc::clone(consumer));
        directory.keys.insert(Arc::new(credential));
    }
    let password = BasicCredential::new(EntityId::from_text("id-password"), "bob", b"password", bob);
    directory.passwords.insert(Arc::new(password));
    let secret = VerificationKey::Secret(HmacSecret::new(Algorithm::Hs256, &b"secret"[..]).unwrap());
    directory.tokens.insert(Arc::new(JwtCredential::new(EntityId::from_text("id-claim"), "claim", secret, cleo)));
    directory
}

/// A request with these credentials. The prefix `no` makes a credential invalid.
fn request_with(credentials: &str) -> TestRequest {
    let mut request = TestRequest::get("/");
    for credential in credentials.split_whitespace() {
        request = match credential {
            "key" | "nameless" | "nokey" => request.header("apikey", credential),
            "password" | "nopassword" => request
                .header("proxy-authorization", &format!("Basic {}", STANDARD.encode(format!("bob:{credential}")))),
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

// docs/kong-compatibility.md, 4.0
#[tokio::test]
async fn one_valid_credential_is_enough_for_plugins_with_an_anonymous_consumer() {
    let with_anonymous = || json!({"anonymous": "guest"});
    let any = [("jwt", with_anonymous()), ("key-auth", with_anonymous()), ("basic-auth", with_anonymous())];
    let all = [("jwt", json!({})), ("key-auth", json!({})), ("basic-auth", json!({}))];
    let mixed = [("jwt", with_anonymous()), ("key-auth", json!({})), ("basic-auth", with_anonymous())];
    // Username and credential identifier of an accepted request, or the message of its rejection. Only the anonymous
    // consumer has no credential.
    type Expected = Result<(&'static str, Option<&'static str>), &'static str>;
    type Plugins<'a> = &'a [(&'a str, Value)];
    let cases: [(&str, Plugins<'_>, &str, Expected); 18] = [
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
        ("mixed: with the key, the password is ignored", &mixed, "key password", Ok(("anna", Some("id-key")))),
    ];
    for (name, plugins, credentials, expected) in cases {
        // The client's own header must not reach the backend if a credential is valid.
        let outcome = run(plugins, request_with(credentials).header("x-anonymous-consumer", "true")).await;
        match expected {
            Ok((username, credential)) => {
                assert_eq!(outcome.message(), None, "{name}: {credentials}");
                assert_eq!(
                    outcome.upstream_identity(),
                    (Some(username), credential, credential.is_none()),
                    "{name}: {credentials}"
                );
                let identity = &outcome.state.identity;
                assert_eq!(identity.is_authenticated(), credential.is_some(), "{name}: {credentials}");
                assert_eq!(
                    identity.consumer.as_ref().unwrap().username.as_deref(),
                    Some(username),
                    "{name}: {credentials}"
                );
            }
            Err(message) => assert_eq!(outcome.message(), Some(message), "{name}: {credentials}"),
        }
    }
}

const IDENTITY_HEADERS: [&str; 7] = [
    "x-consumer-id",
    "x-consumer-username",
    "x-consumer-custom-id",
    "x-credential-identifier",
    "x-anonymous-consumer",
    "x-consumer-groups",
    "x-authenticated-groups",
];

/// A request with these credentials that claims to be root, in all identity headers and in another spelling of each.
fn spoofed_request(credentials: &str) -> TestRequest {
    let request = IDENTITY_HEADERS.into_iter().fold(request_with(credentials), |request, name| {
        let request = request.header(name, "root");
        request.header(&*name.replacen('-', "_", 1).leak(), "root")
    });
    request.header("x_consumer_groups", "root")
}

fn spoofed_spellings(outcome: &TestOutcome) -> Vec<&str> {
    outcome.request.headers.keys().map(|name| name.as_str()).filter(|name| name.contains('_')).collect()
}

// docs/kong-compatibility.md, 4.0
#[tokio::test]
async fn spoofed_identity_headers_are_overwritten_or_removed() {
    let anna = |credential| [Some("id-anna"), Some("anna"), Some("custom-anna"), Some(credential), None, None, None];
    let guest = [Some("id-guest"), Some("guest"), Some("custom-guest"), None, Some("true"), None, None];
    let bob = [Some("id-bob"), Some("bob"), Some("custom-bob"), Some("bob"), None, None, None];
    let cleo = [Some("id-cleo"), Some("cleo"), Some("custom-cleo"), Some("claim"), None, None, None];
    let nameless = |credential, anonymous| [Some("id-nameless"), None, None, credential, anonymous, None, None];
    let cases = [
        ("key-auth", "key", json!({}), anna("id-key")),
        ("key-auth", "nameless", json!({}), nameless(Some("id-nameless"), None)),
        ("key-auth", "", json!({"anonymous": "guest"}), guest),
        ("key-auth", "", json!({"anonymous": "id-nameless"}), nameless(None, Some("true"))),
        ("basic-auth", "password", json!({}), bob),
        ("basic-auth", "nopassword", json!({"anonymous": "guest"}), guest),
        ("jwt", "token", json!({}), cleo),
        ("jwt", "notoken", json!({"anonymous": "guest"}), guest),
    ];
    for (name, credentials, config, expected) in cases {
        let outcome = run(&[(name, config.clone())], spoofed_request(credentials)).await;
        assert_eq!(spoofed_spellings(&outcome), [""; 0], "{name} {credentials} {config}");
        let found = IDENTITY_HEADERS.map(|name| outcome.upstream_header(name));
        assert_eq!(found, expected, "{name} {credentials} {config}");
    }
}

// docs/kong-compatibility.md, 4.0
#[tokio::test]
async fn an_anonymous_consumer_must_exist() {
    for name in ["key-auth", "basic-auth", "jwt"] {
        // `anonymous` is an id or username, not a custom id.
        for missing in ["nobody", "custom-guest"] {
            let outcome = run(&[(name, json!({"anonymous": missing}))], request_with("")).await;
            assert_eq!(outcome.reply_status(), Some(StatusCode::INTERNAL_SERVER_ERROR), "{name}");
            let message = format!("anonymous consumer {missing} is configured but doesn't exist");
            assert_eq!(outcome.message(), Some(&*message), "{name}");
            // The format of the body depends on `Accept`.
            assert!(matches!(outcome.reply.unwrap().body, ReplyBody::Negotiated(_)), "{name}");
        }
        for existing in ["guest", "id-guest"] {
            let outcome = run(&[(name, json!({"anonymous": existing}))], request_with("")).await;
            assert_eq!(outcome.upstream_identity(), (Some("guest"), None, true), "{name}");
        }
    }
}

// docs/kong-compatibility.md, 4.0
// docs/kong-compatibility.md, 7.18
#[tokio::test]
async fn rejections_have_the_accepted_format_except_those_of_jwt() {
    for (name, scheme) in [("key-auth", "Key"), ("basic-auth", "Basic realm=\"service\""), ("jwt", "Bearer")] {
        let outcome = run(&[(name, json!({}))], request_with("")).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::UNAUTHORIZED), "{name}");
        assert_eq!(outcome.response_header("www-authenticate"), Some(scheme), "{name}");
        let is_negotiated = matches!(outcome.reply.unwrap().body, ReplyBody::Negotiated(_));
        assert_eq!(is_negotiated, name != "jwt", "{name}");
    }
}

// docs/kong-compatibility.md, 4.0
#[tokio::test]
async fn options_requests_skip_authentication_if_configured() {
    for (name, config, is_forwarded) in [
        ("key-auth", json!({"run_on_preflight": false}), true),
        ("jwt", json!({"run_on_preflight": false}), true),
        ("key-auth", json!({}), false),
        ("jwt", json!({}), false),
        ("basic-auth", json!({}), false),
    ] {
        let mut request = spoofed_request("");
        *request.request.method_mut() = Method::OPTIONS;
        let outcome = run(&[(name, config)], request).await;
        assert_eq!(outcome.reply_status().is_none(), is_forwarded, "{name}");
        if is_forwarded {
            assert_eq!(
                IDENTITY_HEADERS.map(|name| outcome.upstream_header(name)),
                [None; 7],
                "{name}: there is no identity"
            );
            assert_eq!(spoofed_spellings(&outcome), [""; 0], "{name}");
        }
    }
    // The identity of an earlier plugin is kept.
    let chain = [("jwt", json!({})), ("key-auth", json!({"run_on_preflight": false}))];
    let mut request = request_with("token");
    *request.request.method_mut() = Method::OPTIONS;
    assert_eq!(run(&chain, request).await.upstream_identity().0, Some("cleo"));
}

// docs/kong-compatibility.md, 4.0
#[test]
fn priorities_and_scopes_match_kong() {
    let without_consumers_and_groups = Scopes { consumer: false, consumer_group: false, ..Scopes::ALL };
    for (name, priority, scopes) in [
        ("jwt", 1450, without_consumers_and_groups),
        ("key-auth", 1250, without_consumers_and_groups),
        ("basic-auth", 1100, without_consumers_and_groups),
        ("acl", 950, Scopes { consumer: false, ..Scopes::ALL }),
    ] {
        let kind = REGISTRY.find(name).unwrap();
        assert_eq!(kind.priority(), priority, "{name}");
        assert_eq!(kind.scopes(), scopes, "{name}");
        assert_eq!(kind.protocols(), HTTP_FAMILY, "{name}");
        assert!(kind.fails_closed(), "{name}");
    }
}

// docs/kong-compatibility.md, 4.1
#[tokio::test]
async fn acl_runs_after_authentication() {
    let acl = ("acl", json!({"allow": ["staff"]}));
    let cases = [
        (vec![acl.clone()], "key", StatusCode::UNAUTHORIZED),
        (vec![("key-auth", json!({})), acl.clone()], "key", StatusCode::FORBIDDEN),
        (vec![("key-auth", json!({"anonymous": "guest"})), acl.clone()], "", StatusCode::UNAUTHORIZED),
    ];
    for (plugins, credentials, status) in cases {
        assert_eq!(run(&plugins, request_with(credentials)).await.reply_status(), Some(status), "{plugins:?}");
    }
}

/// The endpoint might read another field than the plugin.
// RFC 9110, sections 5.3 and 11.6.2
#[tokio::test]
async fn several_authorization_fields_authenticate_nobody() {
    let basic = format!("Basic {}", STANDARD.encode("bob:password"));
    let bearer = format!("Bearer {}", token());
    for (name, fields, valid, username, message) in [
        ("jwt", json!({}), &*bearer, "cleo", "Multiple tokens provided"),
        ("basic-auth", json!({}), &*basic, "bob", "Unauthorized"),
        ("key-auth", json!({"key_names": ["authorization"]}), "key", "anna", "Duplicate API key found"),
    ] {
        let alone = TestRequest::get("/").header("authorization", valid);
        let outcome = run(&[(name, fields.clone())], alone).await;
        assert_eq!((outcome.message(), outcome.upstream_identity().0), (None, Some(username)), "{name}");
        for other in [valid, "Basic YW5uYTpvdGhlcg==", "Bearer other", "Negotiate x", ""] {
            for values in [[valid, other], [other, valid]] {
                let request = || {
                    let request = TestRequest::get("/").header("authorization", values[0]);
                    request.header("authorization", values[1])
                };
                let outcome = run(&[(name, fields.clone())], request()).await;
                assert_eq!(outcome.reply_status(), Some(StatusCode::UNAUTHORIZED), "{name} {values:?}");
                assert_eq!(outcome.message(), Some(message), "{name} {values:?}");
                let mut anonymous = fields.clone();
                anonymous["anonymous"] = json!("guest");
                let outcome = run(&[(name, anonymous)], request()).await;
                assert_eq!(outcome.upstream_identity(), (Some("guest"), None, true), "{name} {values:?}");
            }
        }
    }
}
