//! Passwords in both headers.

use base64::engine::general_purpose::{STANDARD as PADDED, STANDARD_NO_PAD as BARE};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::plugin::Entry;
use crate::plugin::consumers::Id;
use crate::plugin::testing::{Visit, build, chain, consumer};

const KIND: Entry<BasicAuth> = Entry::NEW;

fn consumers() -> Directory {
    let mut directory = Directory::default();
    let (anna, guest) = (consumer("anna", &[]), consumer("guest", &[]));
    directory.add(&anna);
    directory.add(&guest);
    for (username, password) in [("an na", "secret"), ("colon", "a:b"), ("empty", "")] {
        let credential =
            BasicCredential::new(Id::of(&format!("id-{username}")), username, password.as_bytes(), Arc::clone(&anna));
        directory.passwords.insert(Arc::new(credential));
    }
    directory
}

fn basic(text: &str) -> String {
    format!("Basic {}", PADDED.encode(text))
}

async fn check(name: &str, config: &Value, visit: Visit, expected: Option<&str>) {
    let outcome = visit.of(&consumers()).run(&chain(&[(&KIND, config.clone())])).await;
    match expected {
        Some(username) => {
            assert_eq!(outcome.message(), None, "{name}");
            assert_eq!(outcome.known_as(), (Some("anna"), Some(username), false), "{name}");
            let credential = outcome.passage.identity.credential.unwrap();
            assert_eq!(*credential, *format!("id-{username}"), "{name}");
        }
        None => {
            assert_eq!(outcome.replied(), Some(StatusCode::UNAUTHORIZED), "{name}");
            assert_eq!(outcome.message(), Some("Unauthorized"), "{name}");
            assert_eq!(outcome.header("www-authenticate"), Some("Basic realm=\"service\""), "{name}");
        }
    }
}

// kong-compat §4.5
#[tokio::test]
async fn passwords_are_read_from_both_headers() {
    const BOTH: [&str; 2] = ["authorization", "proxy-authorization"];
    let right = basic("an na:secret");
    let bare = format!("bASIC   {}", BARE.encode("an na:secret"));
    let visit = |name: usize, value: &str| Visit::get("/").header(BOTH[name], value);
    let both = |own: &str, proxy: &str| visit(0, own).header(BOTH[1], proxy);
    let cases = [
        ("Authorization", visit(0, &right), Some("an na")),
        ("Proxy-Authorization", visit(1, &right), Some("an na")),
        ("no padding, another case", visit(0, &bare), Some("an na")),
        ("the proxy's is first", both(&basic("colon:a:b"), &right), Some("an na")),
        ("an unknown name there does not matter", both(&right, &basic("nobody:secret")), Some("an na")),
        ("nor another scheme", both(&right, "Bearer x"), Some("an na")),
        ("a wrong password there does", both(&right, &basic("colon:x")), None),
        ("the first colon divides", visit(0, &basic("colon:a:b")), Some("colon")),
        ("no password", visit(0, &basic("empty:")), Some("empty")),
        ("wrong password", visit(0, &basic("an na:secre")), None),
        ("longer password", visit(0, &basic("an na:secrets")), None),
        ("password of another", visit(0, &basic("colon:secret")), None),
        ("unknown name", visit(0, &basic("bob:secret")), None),
        ("empty name", visit(0, &basic(":secret")), None),
        ("no colon", visit(0, &basic("an na")), None),
        ("no base64", visit(0, "Basic %%%"), None),
        ("nothing behind the scheme", visit(0, "Basic"), None),
        ("another scheme", visit(0, "Bearer abc"), None),
        ("short", visit(0, "B"), None),
        ("none", Visit::get("/"), None),
    ];
    for (name, visit, expected) in cases {
        check(name, &json!({}), visit, expected).await;
    }
}

// kong-compat §4.5
#[tokio::test]
async fn hidden_passwords_do_not_arrive() {
    let right = basic("an na:secret");
    for (hides, name, value, arrives) in [
        (true, "authorization", &*right, false),
        (true, "proxy-authorization", &*right, false),
        (false, "authorization", &*right, true),
        (true, "authorization", "Bearer x", true),
    ] {
        let config = json!({"hide_credentials": hides, "anonymous": "guest"});
        let visit = Visit::get("/").header(name, value).of(&consumers());
        let outcome = visit.run(&chain(&[(&KIND, config)])).await;
        assert_eq!(outcome.replied(), None);
        assert_eq!(outcome.sent(name).is_some(), arrives, "{hides} {name} {value}");
    }
}

// kong-compat §4.5
#[tokio::test]
async fn the_realm_is_named() {
    let outcome = Visit::get("/").run(&chain(&[(&KIND, json!({"realm": "a \"b\""}))])).await;
    assert_eq!(outcome.header("www-authenticate"), Some(r#"Basic realm="a \"b\"""#));
}

// kong-compat §4.5
#[test]
fn what_cannot_work_is_refused() {
    let cases = [
        (json!({"realm": "\n"}), "config.realm"),
        (json!({"realm": 7}), "config.realm"),
        (json!({"anonymous": ""}), "config.anonymous"),
        (json!({"brute_force_protection": {"strategy": "memory"}}), "config.brute_force_protection.strategy"),
        (json!({"run_on_preflight": false}), "config.run_on_preflight"),
    ];
    for (config, field) in cases {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} is taken"));
        assert_eq!(invalid.iter().map(|invalid| &*invalid.field).collect::<Vec<_>>(), [field], "{config}");
    }
    build(&KIND, &json!({"brute_force_protection": {"strategy": "off"}})).unwrap();
}

#[test]
fn passwords_are_not_shown() {
    let directory = consumers();
    let shown = format!("{:?}", directory.passwords.get("colon").unwrap());
    assert!(!shown.contains("password") && !shown.contains("a:b"), "{shown}");
}

proptest! {
    #[test]
    fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _shown = super::basic(&bytes).and_then(Password::decode);
        let encoded = basic_of(&bytes);
        let known = super::basic(encoded.as_bytes()).and_then(Password::decode);
        prop_assert!(known.is_none_or(|known| known.check(&consumers()).is_none()));
    }
}

fn basic_of(bytes: &[u8]) -> String {
    format!("basic {}", PADDED.encode(bytes))
}
