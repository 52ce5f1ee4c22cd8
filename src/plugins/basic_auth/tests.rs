//! Tests of reading, checking and hiding passwords.

use base64::engine::general_purpose::{STANDARD as PADDED, STANDARD_NO_PAD as BARE};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_api::consumers::EntityId;
use crate::plugin_api::testing::{TestRequest, build, chain, consumer};

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
            let credential = outcome.state.identity.credential.unwrap();
            assert_eq!(*credential, *format!("id-{username}"), "{name}");
        }
        None => {
            assert_eq!(outcome.reply_status(), Some(StatusCode::UNAUTHORIZED), "{name}");
            assert_eq!(outcome.message(), Some("Unauthorized"), "{name}");
            assert_eq!(outcome.response_header("www-authenticate"), Some("Basic realm=\"service\""), "{name}");
        }
    }
}

// kong-compat §4.5
#[tokio::test]
async fn passwords_are_read_from_both_headers() {
    const BOTH: [&str; 2] = ["authorization", "proxy-authorization"];
    let right = basic("an na:secret");
    let bare = format!("bASIC   {}", BARE.encode("an na:secret"));
    let request = |name: usize, value: &str| TestRequest::get("/").header(BOTH[name], value);
    let both = |own: &str, proxy: &str| request(0, own).header(BOTH[1], proxy);
    let cases = [
        ("Authorization", request(0, &right), Some("an na")),
        ("Proxy-Authorization", request(1, &right), Some("an na")),
        ("no padding, another case", request(0, &bare), Some("an na")),
        ("Proxy-Authorization first", both(&basic("colon:a:b"), &right), Some("an na")),
        ("unknown username in Proxy-Authorization", both(&right, &basic("nobody:secret")), Some("an na")),
        ("other scheme in Proxy-Authorization", both(&right, "Bearer x"), Some("an na")),
        ("wrong password in Proxy-Authorization", both(&right, &basic("colon:x")), None),
        ("split at the first colon", request(0, &basic("colon:a:b")), Some("colon")),
        ("no password", request(0, &basic("empty:")), Some("empty")),
        ("wrong password", request(0, &basic("an na:secre")), None),
        ("longer password", request(0, &basic("an na:secrets")), None),
        ("password of another", request(0, &basic("colon:secret")), None),
        ("unknown name", request(0, &basic("bob:secret")), None),
        ("empty name", request(0, &basic(":secret")), None),
        ("no colon", request(0, &basic("an na")), None),
        ("invalid base64", request(0, "Basic %%%"), None),
        ("no credentials", request(0, "Basic"), None),
        ("another scheme", request(0, "Bearer abc"), None),
        ("short", request(0, "B"), None),
        ("none", TestRequest::get("/"), None),
    ];
    for (name, request, expected) in cases {
        check(name, &json!({}), request, expected).await;
    }
}

// kong-compat §4.5
#[tokio::test]
async fn hidden_passwords_are_not_forwarded() {
    let right = basic("an na:secret");
    for (hides, name, value, arrives) in [
        (true, "authorization", &*right, false),
        (true, "proxy-authorization", &*right, false),
        (false, "authorization", &*right, true),
        (true, "authorization", "Bearer x", true),
    ] {
        let config = json!({"hide_credentials": hides, "anonymous": "guest"});
        let request = TestRequest::get("/").header(name, value).with_consumers(&consumers());
        let outcome = request.run(&chain(&[(&KIND, config)])).await;
        assert_eq!(outcome.reply_status(), None);
        assert_eq!(outcome.upstream_header(name).is_some(), arrives, "{hides} {name} {value}");
    }
}

// kong-compat §4.5
#[tokio::test]
async fn the_challenge_contains_the_realm() {
    let outcome = TestRequest::get("/").run(&chain(&[(&KIND, json!({"realm": "a \"b\""}))])).await;
    assert_eq!(outcome.response_header("www-authenticate"), Some(r#"Basic realm="a \"b\"""#));
}

// kong-compat §4.5
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
    let shown = format!("{:?}", directory.passwords.get("colon").unwrap());
    assert!(!shown.contains("password") && !shown.contains("a:b"), "{shown}");
}

proptest! {
    #[test]
    fn decoding_headers_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _shown = super::strip_basic_scheme(&bytes).and_then(Login::decode);
        let encoded = basic_of(&bytes);
        let known = super::strip_basic_scheme(encoded.as_bytes()).and_then(Login::decode);
        prop_assert!(known.is_none_or(|known| known.verify(&consumers()).is_none()));
    }
}

fn basic_of(bytes: &[u8]) -> String {
    format!("basic {}", PADDED.encode(bytes))
}
