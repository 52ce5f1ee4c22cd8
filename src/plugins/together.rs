//! Plugins that find out who is asking, several of them in one chain.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::REGISTRY;
use crate::plugin::consumers::{BasicCredential, Id, JwtCredential, KeyCredential};
use crate::plugin::kind::{HTTP_FAMILY, Scopes};
use crate::plugin::signature::signing::Signer;
use crate::plugin::signature::{Algorithm, Key, Secret};
use crate::plugin::testing::{Outcome, Visit, chain, consumer};
use crate::plugin::{AnyKind, Consumer, Directory, ReplyBody};

/// Whose credential each plugin knows: `key-auth` that of anna, `basic-auth` of bob, `jwt` of cleo.
fn consumers() -> Directory {
    let mut directory = Directory::default();
    let [anna, bob, cleo, guest] = ["anna", "bob", "cleo", "guest"].map(|name| consumer(name, &[]));
    let plain = Arc::new(Consumer::new(Id::of("id-plain"), None, None, vec![], vec![]));
    for known in [&anna, &bob, &cleo, &guest, &plain] {
        directory.add(known);
    }
    for (key, known) in [("key", &anna), ("plain", &plain)] {
        let credential = KeyCredential::new(Id::of(&format!("id-{key}")), key.as_bytes(), None, Arc::clone(known));
        directory.keys.insert(Arc::new(credential));
    }
    let password = BasicCredential::new(Id::of("id-password"), "bob", b"password", bob);
    directory.passwords.insert(Arc::new(password));
    let secret = Key::Secret(Secret::new(Algorithm::Hs256, &b"secret"[..]).unwrap());
    directory.tokens.insert(Arc::new(JwtCredential::new(Id::of("id-claim"), "claim", secret, cleo)));
    directory
}

/// What a request shows, right or wrong.
fn visit(shown: &str) -> Visit {
    let mut visit = Visit::get("/");
    for shown in shown.split_whitespace() {
        visit = match shown {
            "key" | "plain" | "nokey" => visit.header("apikey", shown),
            "password" | "nopassword" => {
                visit.header("proxy-authorization", &format!("Basic {}", STANDARD.encode(format!("bob:{shown}"))))
            }
            "token" => visit.header("authorization", &format!("Bearer {}", token())),
            "notoken" => visit.header("authorization", "Bearer x"),
            other => panic!("{other} is nothing to show"),
        };
    }
    visit
}

fn token() -> String {
    Signer::secret(b"secret").token(Algorithm::Hs256, &json!({}), &json!({"iss": "claim"}))
}

async fn run(plugins: &[(&str, Value)], visit: Visit) -> Outcome {
    let plugins: Vec<(&dyn AnyKind, Value)> =
        plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    visit.of(&consumers()).run(&chain(&plugins)).await
}

// kong-compat §4.0
#[tokio::test]
async fn with_anonymous_one_is_enough_and_without_it_all_must_be_satisfied() {
    let or = || json!({"anonymous": "guest"});
    let any = [("jwt", or()), ("key-auth", or()), ("basic-auth", or())];
    let all = [("jwt", json!({})), ("key-auth", json!({})), ("basic-auth", json!({}))];
    let mixed = [("jwt", or()), ("key-auth", json!({})), ("basic-auth", or())];
    // Who is asking, and the credential; or the message.
    type Then = Result<(&'static str, Option<&'static str>), &'static str>;
    type Plugins<'a> = &'a [(&'a str, Value)];
    let cases: [(&str, Plugins<'_>, &str, Then); 18] = [
        ("any", &any, "", Ok(("guest", None))),
        ("any", &any, "nokey nopassword notoken", Ok(("guest", None))),
        ("any", &any, "token", Ok(("cleo", Some("claim")))),
        ("any", &any, "key", Ok(("anna", Some("id-key")))),
        ("any", &any, "password", Ok(("bob", Some("bob")))),
        ("any: the first one counts", &any, "token key password", Ok(("cleo", Some("claim")))),
        ("any: wrong ones do not matter", &any, "notoken key nopassword", Ok(("anna", Some("id-key")))),
        ("all", &all, "", Err("Unauthorized")),
        ("all", &all, "token", Err("No API key found in request")),
        ("all", &all, "token key", Err("Unauthorized")),
        ("all", &all, "key password", Err("Unauthorized")),
        ("all", &all, "token nokey password", Err("Unauthorized")),
        ("all: the last one counts", &all, "token key password", Ok(("bob", Some("bob")))),
        ("mixed", &mixed, "", Err("No API key found in request")),
        ("mixed", &mixed, "token", Err("No API key found in request")),
        ("mixed", &mixed, "key", Ok(("anna", Some("id-key")))),
        ("mixed", &mixed, "token key", Ok(("anna", Some("id-key")))),
        ("mixed: skipped after the key", &mixed, "key password", Ok(("anna", Some("id-key")))),
    ];
    for (name, plugins, shown, then) in cases {
        let outcome = run(plugins, visit(shown).header("x-anonymous-consumer", "true")).await;
        match then {
            Ok((username, credential)) => {
                assert_eq!(outcome.message(), None, "{name}: {shown}");
                assert_eq!(outcome.known_as(), (Some(username), credential, credential.is_none()), "{name}: {shown}");
                let identity = &outcome.passage.identity;
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
async fn what_the_client_says_about_itself_is_overwritten_or_removed() {
    let forging = |shown: &str| NAMES.into_iter().fold(visit(shown), |visit, name| visit.header(name, "root"));
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
        let visit = forging(shown).header("x_consumer_id", "root").header("x-consumer_username", "root");
        let outcome = run(&[("key-auth", config.clone())], visit).await;
        let lookalikes = ["x_consumer_id", "x-consumer_username"];
        assert_eq!(lookalikes.map(|name| outcome.sent(name)), [None; 2], "{shown} {config}");
        assert_eq!(NAMES.map(|name| outcome.sent(name)), expected, "{shown} {config}");
    }
}

// kong-compat §4.0
#[tokio::test]
async fn an_anonymous_consumer_must_exist() {
    for name in ["key-auth", "basic-auth", "jwt"] {
        // A custom id is not what a configuration calls somebody.
        for missing in ["nobody", "custom-guest"] {
            let outcome = run(&[(name, json!({"anonymous": missing}))], visit("")).await;
            assert_eq!(outcome.replied(), Some(StatusCode::INTERNAL_SERVER_ERROR), "{name}");
            let message = format!("anonymous consumer {missing} is configured but doesn't exist");
            assert_eq!(outcome.message(), Some(&*message), "{name}");
            assert!(matches!(outcome.reply.unwrap().body, ReplyBody::Negotiated(_)), "{name}");
        }
        for known in ["guest", "id-guest"] {
            let outcome = run(&[(name, json!({"anonymous": known}))], visit("")).await;
            assert_eq!(outcome.known_as(), (Some("guest"), None, true), "{name}");
        }
    }
}

// kong-compat §4.0
// kong-compat §7.18
#[tokio::test]
async fn refusals_are_negotiated_except_those_of_tokens() {
    for (name, scheme) in [("key-auth", "Key"), ("basic-auth", "Basic realm=\"service\""), ("jwt", "Bearer")] {
        let outcome = run(&[(name, json!({}))], visit("")).await;
        assert_eq!(outcome.replied(), Some(StatusCode::UNAUTHORIZED), "{name}");
        assert_eq!(outcome.header("www-authenticate"), Some(scheme), "{name}");
        let is_negotiated = matches!(outcome.reply.unwrap().body, ReplyBody::Negotiated(_));
        assert_eq!(is_negotiated, name != "jwt", "{name}");
    }
}

// kong-compat §4.0
#[tokio::test]
async fn preflight_requests_pass_where_they_may() {
    for (name, config, passes) in [
        ("key-auth", json!({"run_on_preflight": false}), true),
        ("jwt", json!({"run_on_preflight": false}), true),
        ("key-auth", json!({}), false),
        ("jwt", json!({}), false),
        ("basic-auth", json!({}), false),
    ] {
        let mut visit = NAMES.into_iter().fold(visit(""), |visit, name| visit.header(name, "root"));
        *visit.request.method_mut() = Method::OPTIONS;
        let outcome = run(&[(name, config)], visit).await;
        assert_eq!(outcome.replied().is_none(), passes, "{name}");
        if passes {
            assert_eq!(NAMES.map(|name| outcome.sent(name)), [None; 5], "{name}: nobody is known");
        }
    }
    // Who is known already stays known.
    let chain = [("jwt", json!({})), ("key-auth", json!({"run_on_preflight": false}))];
    let mut visit = visit("token");
    *visit.request.method_mut() = Method::OPTIONS;
    assert_eq!(run(&chain, visit).await.known_as().0, Some("cleo"));
}

// kong-compat §4.0
#[test]
fn order_and_scopes_are_kongs() {
    let everybody = Scopes { consumer: false, consumer_group: false, ..Scopes::ALL };
    for (name, priority, scopes) in [
        ("jwt", 1450, everybody),
        ("key-auth", 1250, everybody),
        ("basic-auth", 1100, everybody),
        ("acl", 950, Scopes { consumer: false, ..Scopes::ALL }),
    ] {
        let kind = REGISTRY.find(name).unwrap();
        assert_eq!(kind.priority(), priority, "{name}");
        assert_eq!(kind.scopes(), scopes, "{name}");
        assert_eq!(kind.protocols(), HTTP_FAMILY, "{name}");
        assert!(kind.is_guard(), "{name}");
    }
}

// kong-compat §4.1
#[tokio::test]
async fn groups_are_asked_for_behind_whoever_finds_out_who_it_is() {
    let acl = ("acl", json!({"allow": ["staff"]}));
    let cases = [
        (vec![acl.clone()], "key", StatusCode::UNAUTHORIZED),
        (vec![("key-auth", json!({})), acl.clone()], "key", StatusCode::FORBIDDEN),
        (vec![("key-auth", json!({"anonymous": "guest"})), acl.clone()], "", StatusCode::UNAUTHORIZED),
    ];
    for (plugins, shown, status) in cases {
        assert_eq!(run(&plugins, visit(shown)).await.replied(), Some(status), "{plugins:?}");
    }
}
