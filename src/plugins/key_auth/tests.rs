//! Keys in all places, and what becomes of requests with, without and with wrong ones.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::plugin::consumers::{Id, KeyCredential};
use crate::plugin::testing::{Visit, build, chain, consumer, noon};
use crate::plugin::{Directory, Entry};

const KIND: Entry<KeyAuth> = Entry::NEW;

fn consumers() -> Directory {
    let mut directory = Directory::default();
    let (anna, guest) = (consumer("anna", &[]), consumer("guest", &[]));
    directory.add(&anna);
    directory.add(&guest);
    let keys = [
        ("a key", "cred-1", None),
        ("ends later", "cred-2", Some(noon() + Duration::from_secs(1))),
        ("ends now", "cred-3", Some(noon())),
    ];
    for (key, id, expires) in keys {
        let credential = KeyCredential::new(Id::of(id), key.as_bytes(), expires, Arc::clone(&anna));
        directory.keys.insert(Arc::new(credential));
    }
    directory
}

/// What is to become of a request.
#[derive(Clone, Copy)]
enum Then {
    /// The id of the credential.
    In(&'static str),
    Out(&'static str),
}

use Then::{In, Out};

const NONE: Then = Out("No API key found in request");
const SEVERAL: Then = Out("Duplicate API key found");
const WRONG: Then = Out("Unauthorized");

async fn check(name: &str, config: &Value, visit: Visit, then: Then) {
    let outcome = visit.of(&consumers()).run(&chain(&[(&KIND, config.clone())])).await;
    match then {
        In(credential) => {
            assert_eq!(outcome.message(), None, "{name}");
            assert_eq!(outcome.known_as(), (Some("anna"), Some(credential), false), "{name}");
            assert_eq!(outcome.sent("x-consumer-id"), Some("id-anna"), "{name}");
            assert_eq!(outcome.sent("x-consumer-custom-id"), Some("custom-anna"), "{name}");
            assert_eq!(outcome.passage.identity.credential.as_deref(), Some(credential), "{name}");
        }
        Out(message) => {
            assert_eq!(outcome.message(), Some(message), "{name}");
            assert_eq!(outcome.replied(), Some(StatusCode::UNAUTHORIZED), "{name}");
            assert_eq!(outcome.header("www-authenticate"), Some("Key"), "{name}");
        }
    }
}

// kong-compat §4.17
#[tokio::test]
async fn keys_are_looked_for_in_headers_and_the_query() {
    let get = Visit::get;
    let several = json!({"key_names": ["first", "api_key"]});
    let cases = [
        ("header", json!({}), get("/").header("apikey", "a key"), In("cred-1")),
        ("any case", json!({"key_names": ["ApiKey"]}), get("/").header("APIKEY", "a key"), In("cred-1")),
        ("query", json!({}), get("/?b=c&apikey=a+key"), In("cred-1")),
        ("decoded", json!({}), get("/?%61pikey=a%20%6bey"), In("cred-1")),
        ("the header is first", json!({}), get("/?apikey=x").header("apikey", "a key"), In("cred-1")),
        ("the first name is first", several.clone(), get("/?api_key=x&first=a+key"), In("cred-1")),
        ("the second name", several.clone(), get("/?api_key=a+key"), In("cred-1")),
        ("dashes for underscores", several.clone(), get("/").header("api-key", "a key"), In("cred-1")),
        ("underscores", several, get("/").header("api_key", "a key").header("api-key", "x"), In("cred-1")),
        ("no header", json!({"key_in_header": false}), get("/").header("apikey", "a key"), NONE),
        ("no query", json!({"key_in_query": false}), get("/?apikey=a+key"), NONE),
        ("nothing", json!({}), get("/"), NONE),
        ("null is unset", json!({"realm": null, "key_names": null}), get("/"), NONE),
        ("case of the query", json!({}), get("/?APIKEY=a+key"), NONE),
        ("empty", json!({}), get("/?apikey=a+key").header("apikey", ""), NONE),
        ("no value", json!({}), get("/?apikey"), NONE),
        ("two headers", json!({}), get("/").header("apikey", "a key").header("apikey", "a key"), SEVERAL),
        ("two in the query", json!({}), get("/?apikey=a+key&apikey=a+key"), SEVERAL),
        ("two behind one", json!({}), get("/?apikey=a&apikey=b").header("apikey", "a key"), In("cred-1")),
        ("wrong", json!({}), get("/").header("apikey", "a ke"), WRONG),
        ("not UTF-8", json!({}), get("/?apikey=%ff%fe"), WRONG),
        ("not yet expired", json!({}), get("/?apikey=ends+later"), In("cred-2")),
        ("expired", json!({}), get("/?apikey=ends+now"), WRONG),
        ("OPTIONS", json!({}), method("OPTIONS", get("/")), NONE),
    ];
    for (name, config, visit, then) in cases {
        check(name, &config, visit, then).await;
    }
}

fn method(method: &str, mut visit: Visit) -> Visit {
    *visit.request.method_mut() = method.parse().unwrap();
    visit
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "Application/JSON; charset=utf-8";
const MULTIPART: &str = "multipart/form-data; boundary=--b";

fn multipart(fields: &[(&str, &str)]) -> String {
    let parts = fields
        .iter()
        .map(|(name, value)| format!("----b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"));
    parts.chain(["----b--\r\n".to_owned()]).collect()
}

// kong-compat §4.17
#[tokio::test]
async fn keys_are_looked_for_in_bodies_if_asked_to() {
    let config = json!({"key_in_body": true, "key_names": ["apikey", "other"]});
    let post = |kind, body: &str| Visit::post("/", kind, body.to_owned());
    let cases = [
        ("form", post(FORM, "b=c&apikey=a+key"), In("cred-1")),
        ("second name", post(FORM, "other=a+key"), In("cred-1")),
        ("two in the form", post(FORM, "apikey=a+key&apikey=b"), SEVERAL),
        ("json", post(JSON, r#"{"b": [1], "apikey": "a\u0020key"}"#), In("cred-1")),
        ("list", post(JSON, r#"{"apikey": ["a key"]}"#), SEVERAL),
        ("number", post(JSON, r#"{"apikey": 7, "other": "a key"}"#), In("cred-1")),
        ("no object", post(JSON, r#"["apikey"]"#), NONE),
        ("no json", post(JSON, r#"{"apikey": "a key""#), NONE),
        ("multipart", post(MULTIPART, &multipart(&[("b", "c"), ("apikey", "a key")])), In("cred-1")),
        ("two parts", post(MULTIPART, &multipart(&[("apikey", "a key"), ("apikey", "a key")])), SEVERAL),
        ("another type", post("text/plain", "apikey=a+key"), NONE),
        ("compressed", post(FORM, "apikey=a+key").header("content-encoding", "gzip"), NONE),
        ("the header is first", post(FORM, "apikey=x").header("apikey", "a key"), In("cred-1")),
        ("the query is first", Visit::post("/?apikey=a+key", FORM, "apikey=x"), In("cred-1")),
    ];
    for (name, visit, then) in cases {
        check(name, &config, visit, then).await;
    }
    check("not asked to", &json!({}), post(FORM, "apikey=a+key"), NONE).await;
    let plugin = |config| build(&KIND, &config).unwrap().reads_body();
    assert_eq!((plugin(json!({})), plugin(config)), (None, Some(1 << 20)));
}

// kong-compat §4.17
#[tokio::test]
async fn hidden_keys_are_removed_from_all_places_under_every_name() {
    let config = json!({"key_in_body": true, "hide_credentials": true, "key_names": ["apikey", "api_key"]});
    let body = multipart(&[("apikey", "x"), ("b", "c"), ("api_key", "y")]);
    let visits = [
        (Visit::post("/p?apikey=x&b=%63&&api_key=z&d", FORM, "b=%63&apikey=x"), "b=%63".to_owned()),
        (Visit::post("/p?b=%63&&d", JSON, r#"{"b": 1.50, "apikey": "x"}"#), r#"{"b":1.50}"#.to_owned()),
        (Visit::post("/p?b=%63&&d&%61pikey", MULTIPART, body), multipart(&[("b", "c")])),
    ];
    for (visit, expected) in visits {
        let visit = visit.header("apikey", "a key").header("api-key", "x").header("api_key", "x").header("b", "c");
        let outcome = visit.of(&consumers()).run(&chain(&[(&KIND, config.clone())])).await;
        assert_eq!(outcome.known_as().1, Some("cred-1"));
        let names = ["apikey", "api-key", "api_key", "b"].map(|name| outcome.sent(name));
        assert_eq!(names, [None, None, None, Some("c")]);
        assert_eq!(outcome.request.uri, "/p?b=%63&&d");
        assert_eq!(outcome.passage.new_body.as_deref(), Some(expected.as_bytes()));
        assert_eq!(outcome.sent("content-length"), Some(&*expected.len().to_string()));
    }
    let get = Visit::get("http://example.test/p?apikey=a+key").of(&consumers());
    let outcome = get.run(&chain(&[(&KIND, config)])).await;
    assert_eq!(outcome.request.uri, "http://example.test/p");
    assert_eq!(outcome.passage.new_body, None);
}

#[tokio::test]
async fn keys_are_hidden_also_from_where_strangers_go() {
    let config = json!({"hide_credentials": true, "anonymous": "guest"});
    let outcome = Visit::get("/?apikey=wrong").of(&consumers()).run(&chain(&[(&KIND, config)])).await;
    assert_eq!(outcome.known_as(), (Some("guest"), None, true));
    assert_eq!(outcome.request.uri, "/");
}

// kong-compat §4.17
// kong-compat §7.27
#[tokio::test]
async fn keys_that_are_not_hidden_arrive() {
    let visit = Visit::get("/?apikey=a+key").header("other", "x").of(&consumers());
    let outcome = visit.run(&chain(&[(&KIND, json!({}))])).await;
    assert_eq!(outcome.request.uri, "/?apikey=a+key");
    assert_eq!(outcome.passage.new_body, None);
}

// kong-compat §4.17
#[tokio::test]
async fn the_realm_is_named() {
    let outcome = Visit::get("/").run(&chain(&[(&KIND, json!({"realm": "a \"b\""}))])).await;
    assert_eq!(outcome.header("www-authenticate"), Some(r#"Key realm="a \"b\"""#));
}

// kong-compat §4.17
#[test]
fn what_cannot_work_is_refused() {
    let cases = [
        (json!({"key_names": []}), "config.key_names"),
        (json!({"key_names": ["a", "b c"]}), "config.key_names[1]"),
        (json!({"key_names": [""]}), "config.key_names[0]"),
        (json!({"key_names": ["ä"]}), "config.key_names[0]"),
        (json!({"key_names": "apikey"}), "config.key_names"),
        (json!({"key_in_header": false, "key_in_query": false}), "config"),
        (json!({"realm": "a\u{7}"}), "config.realm"),
        (json!({"anonymous": ""}), "config.anonymous"),
        (json!({"hide_credentials": "yes"}), "config.hide_credentials"),
        (json!({"identity_realms": [{"scope": "realm"}]}), "config.identity_realms[0].scope"),
        (json!({"key_name": ["a"]}), "config.key_name"),
    ];
    for (config, field) in cases {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} is taken"));
        assert_eq!(invalid.iter().map(|invalid| &*invalid.field).collect::<Vec<_>>(), [field], "{config}");
        assert!(!invalid[0].message.is_empty() && !invalid[0].remedy.is_empty(), "{invalid:?}");
    }
    build(&KIND, &json!({"identity_realms": [{"scope": "cp"}], "key_names": ["X_a-9"]})).unwrap();
}

proptest! {
    #[test]
    fn no_body_and_no_query_panics(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        tail in "[ -~]{0,40}",
        kind in prop_oneof![Just(FORM), Just(JSON), Just(MULTIPART), Just("multipart/form-data; boundary=\"\\")],
        pieces in proptest::collection::vec(prop_oneof![
            Just("----b"), Just("\r\n"), Just("--"), Just("Content-Disposition: form-data; name=\"apikey\""), Just("x"),
            Just("{\"apikey\":"), Just("&apikey=%4"), Just("\"}"),
        ], 0..20),
    ) {
        let config = json!({"key_in_body": true, "hide_credentials": true});
        let chain = chain(&[(&KIND, config)]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for body in [body, pieces.concat().into_bytes()] {
            let Ok(uri) = format!("/?{tail}").parse::<http::Uri>() else { continue };
            let mut visit = Visit::post("/", kind, body).of(&consumers());
            *visit.request.uri_mut() = uri;
            let outcome = runtime.block_on(visit.run(&chain));
            prop_assert!(outcome.replied().is_some() || outcome.known_as().1.is_some());
        }
    }
}
