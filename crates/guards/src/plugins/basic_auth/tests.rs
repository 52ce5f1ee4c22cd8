//! Tests of reading, checking and hiding passwords.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD as PADDED, STANDARD_NO_PAD as UNPADDED};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_api::consumers::EntityId;
use crate::plugin_chain::testing::{TestRequest, build, chain, consumer};

const KIND: RegisteredKind<BasicAuth> = RegisteredKind::NEW;

fn consumers() -> ConsumerDirectory {
    let mut directory = ConsumerDirectory::default();
    let (anna, guest) = (consumer("anna", &[]), consumer("guest", &[]));
    directory.add(&anna);
    directory.add(&guest);
    for (username, password) in [("an na", "secret"), ("colon", "a:b"), ("empty", "")] {
        let credential = BasicCredential::new(
            EntityId::from_text(&format!("id-{username}")),
            username,
            password.as_bytes(),
            Arc::clone(&anna),
        );
        directory.passwords.insert(Arc::new(credential));
    }
    directory
}

fn basic(text: &str) -> String {
    format!("Basic {}", PADDED.encode(text))
}

async fn check(name: &str, config: &Value, request: TestRequest, expected: Option<&str>) {
    let outcome = request.with_consumers(&consumers()).run(&chain(&[(&KIND, config.clone())])).await;
    match expected {
        Some(username) => {
            assert_eq!(outcome.message(), None, "{name}");
            assert_eq!(outcome.upstream_identity(), (Some("anna"), Some(username), false), "{name}");
            let credential = outcome.state.identity.credential().unwrap().clone();
            assert_eq!(*credential, *format!("id-{username}"), "{name}");
        }
        None => {
            assert_eq!(outcome.reply_status(), Some(StatusCode::UNAUTHORIZED), "{name}");
            assert_eq!(outcome.message(), Some("Unauthorized"), "{name}");
            assert_eq!(outcome.response_header("www-authenticate"), Some("Basic realm=\"service\""), "{name}");
        }
    }
}

// docs/kong-compatibility.md, 4.5
#[tokio::test]
async fn passwords_are_read_from_both_headers() {
    const HEADER: &str = "authorization";
    const PROXY_HEADER: &str = "proxy-authorization";
    let right = basic("an na:secret");
    let unpadded = format!("bASIC   {}", UNPADDED.encode("an na:secret"));
    let request = |name: &'static str, value: &str| TestRequest::get("/").header(name, value);
    let both = |value: &str, proxy_value: &str| request(HEADER, value).header(PROXY_HEADER, proxy_value);
    let cases = [
        ("Authorization", request(HEADER, &right), Some("an na")),
        ("Proxy-Authorization", request(PROXY_HEADER, &right), Some("an na")),
        ("no padding, another letter case", request(HEADER, &unpadded), Some("an na")),
        ("Proxy-Authorization first", both(&basic("colon:a:b"), &right), Some("an na")),
        ("unknown username in Proxy-Authorization", both(&right, &basic("nobody:secret")), Some("an na")),
        ("other scheme in Proxy-Authorization", both(&right, "Bearer x"), Some("an na")),
        ("wrong password in Proxy-Authorization", both(&right, &basic("colon:x")), None),
        ("split at the first colon", request(HEADER, &basic("colon:a:b")), Some("colon")),
        ("no password", request(HEADER, &basic("empty:")), Some("empty")),
        ("wrong password", request(HEADER, &basic("an na:secre")), None),
        ("longer password", request(HEADER, &basic("an na:secrets")), None),
        ("password of another username", request(HEADER, &basic("colon:secret")), None),
        ("unknown name", request(HEADER, &basic("bob:secret")), None),
        ("empty name", request(HEADER, &basic(":secret")), None),
        ("no colon", request(HEADER, &basic("an na")), None),
        ("invalid base64", request(HEADER, "Basic %%%"), None),
        ("no credentials", request(HEADER, "Basic"), None),
        ("another scheme", request(HEADER, "Bearer abc"), None),
        ("short", request(HEADER, "B"), None),
        ("none", TestRequest::get("/"), None),
        ("twice", request(HEADER, &right).header(HEADER, &right), None),
        ("another scheme first", request(HEADER, "Bearer x").header(HEADER, &right), None),
        ("another scheme last", request(HEADER, &right).header(HEADER, "Bearer x"), None),
        ("twice in Proxy-Authorization", request(PROXY_HEADER, &right).header(PROXY_HEADER, &right), None),
        ("right in Proxy-Authorization, twice in the other", both("Bearer x", &right).header(HEADER, &right), None),
    ];
    for (name, request, expected) in cases {
        check(name, &json!({}), request, expected).await;
    }
}

/// Consumers, of whom one has a hash of `secret` that takes milliseconds, and one a fast hash.
fn consumers_with_hashes() -> ConsumerDirectory {
    let mut directory = consumers();
    let slow = bcrypt::hash_with_salt("secret", 5, [1; 16]).unwrap().to_string();
    for (username, hash) in [("slow", &*slow), ("fast", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=")] {
        let credential = BasicCredential::with_password(
            EntityId::from_text(&format!("id-{username}")),
            username,
            StoredPassword::Hash(Arc::new(PasswordHash::parse(hash).unwrap())),
            consumer("anna", &[]),
        );
        directory.insert_password(Arc::new(credential));
    }
    directory
}

// docs/kong-compatibility.md, 4.5
#[tokio::test]
async fn passwords_are_compared_with_hashes() {
    let (directory, chain) = (consumers_with_hashes(), chain(&[(&KIND, json!({}))]));
    let cases = [
        ("slow:wrong", false),
        ("slow:secret", true),
        ("slow:secret", true),
        ("slow:wrong", false),
        ("fast:secret", true),
        ("fast:wrong", false),
        ("colon:a:b", true),
    ];
    for (login, is_accepted) in cases {
        let request = TestRequest::get("/").header("authorization", &basic(login)).with_consumers(&directory);
        let outcome = request.run(&chain).await;
        let username = login.split(':').next().filter(|_| is_accepted);
        assert_eq!(outcome.upstream_identity().1, username, "{login}");
        assert_eq!(outcome.reply_status().is_none(), is_accepted, "{login}");
    }
}

#[tokio::test]
async fn a_rejected_hash_may_be_anonymous() {
    let chain = chain(&[(&KIND, json!({"anonymous": "guest", "hide_credentials": true}))]);
    let request = TestRequest::get("/").header("authorization", &basic("slow:wrong"));
    let outcome = request.with_consumers(&consumers_with_hashes()).run(&chain).await;
    assert_eq!(outcome.upstream_identity(), (Some("guest"), None, true));
    assert_eq!(outcome.upstream_header("authorization"), None);
}

/// Without a hash, requests need no future of their own.
#[test]
fn requests_may_wait_only_if_hashes_exist() {
    let chain = chain(&[(&KIND, json!({}))]);
    let mut directory = consumers_with_hashes();
    assert_eq!((chain.may_wait(&consumers()), chain.may_wait(&directory)), (false, true));
    directory.remove_password("slow");
    // A password in place of the last hash.
    let credential = BasicCredential::new(EntityId::from_text("id"), "fast", b"secret", consumer("anna", &[]));
    assert!(chain.may_wait(&directory));
    directory.insert_password(Arc::new(credential));
    assert!(!chain.may_wait(&directory));
    directory.remove_password("fast");
    directory.remove_password("nobody");
    assert!(!directory.has_hashed_passwords());
}

// docs/kong-compatibility.md, 4.5
#[tokio::test]
async fn hidden_passwords_are_not_forwarded() {
    let right = basic("an na:secret");
    for (is_hidden, name, value, is_forwarded) in [
        (true, "authorization", &*right, false),
        (true, "proxy-authorization", &*right, false),
        (false, "authorization", &*right, true),
        (true, "authorization", "Bearer x", true),
    ] {
        let config = json!({"hide_credentials": is_hidden, "anonymous": "guest"});
        let request = TestRequest::get("/").header(name, value).with_consumers(&consumers());
        let outcome = request.run(&chain(&[(&KIND, config)])).await;
        assert_eq!(outcome.reply_status(), None);
        assert_eq!(outcome.upstream_header(name).is_some(), is_forwarded, "{is_hidden} {name} {value}");
    }
    let config = json!({"hide_credentials": true, "anonymous": "guest"});
    let twice = TestRequest::get("/").header("authorization", "Bearer x").header("authorization", &right);
    let outcome = twice.with_consumers(&consumers()).run(&chain(&[(&KIND, config)])).await;
    assert_eq!(outcome.upstream_identity(), (Some("guest"), None, true));
    assert_eq!(outcome.upstream_header("authorization"), None, "none of two fields");
}

#[tokio::test]
async fn a_hidden_login_leaves_no_second_one_that_nothing_has_verified() {
    let (right, other) = (basic("an na:secret"), basic("bob:x"));
    let config = json!({"hide_credentials": true});
    for (proxy, login) in [(&right, &other), (&other, &right)] {
        let request = TestRequest::get("/").header("proxy-authorization", proxy).header("authorization", login);
        let outcome = request.with_consumers(&consumers()).run(&chain(&[(&KIND, config.clone())])).await;
        assert_eq!(outcome.message(), None, "{proxy} {login}");
        let logins = ["proxy-authorization", "authorization"].map(|name| outcome.upstream_header(name));
        assert_eq!(logins, [None, None], "{proxy} {login}");
    }
}

// docs/kong-compatibility.md, 4.5
#[tokio::test]
async fn the_challenge_contains_the_realm() {
    let outcome = TestRequest::get("/").run(&chain(&[(&KIND, json!({"realm": "a \"b\""}))])).await;
    assert_eq!(outcome.response_header("www-authenticate"), Some(r#"Basic realm="a \"b\"""#));
}

// docs/kong-compatibility.md, 4.5
#[test]
fn invalid_configurations_are_rejected() {
    let cases = [
        (json!({"realm": "\n"}), "config.realm"),
        (json!({"realm": 7}), "config.realm"),
        (json!({"anonymous": ""}), "config.anonymous"),
        (json!({"brute_force_protection": {"strategy": "memory"}}), "config.brute_force_protection.strategy"),
        (json!({"run_on_preflight": false}), "config.run_on_preflight"),
    ];
    for (config, field) in cases {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid.iter().map(|invalid| &*invalid.field).collect::<Vec<_>>(), [field], "{config}");
    }
    build(&KIND, &json!({"brute_force_protection": {"strategy": "off"}})).unwrap();
}

#[test]
fn debug_hides_passwords() {
    let directory = consumers();
    let debug = format!("{:?}", directory.passwords.get("colon").unwrap());
    assert!(!debug.contains("password") && !debug.contains("a:b"), "{debug}");
}

proptest! {
    #[test]
    fn decoding_headers_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _login = strip_scheme(&bytes, "basic").and_then(Login::decode);
        let header = header_value(&bytes);
        let login = strip_scheme(header.as_bytes(), "basic").and_then(Login::decode);
        prop_assert!(matches!(verify(login.as_ref(), &consumers()), Verification::Reject(_)));
    }
}

fn header_value(bytes: &[u8]) -> String {
    format!("basic {}", PADDED.encode(bytes))
}
