//! Tests of finding, checking and hiding keys in all locations.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::consumers::{EntityId, KeyCredential};
use crate::plugin_api::{ConsumerDirectory, RegisteredKind};
use crate::plugin_chain::testing::{TestRequest, build, chain, consumer, noon, notes};

const KIND: RegisteredKind<KeyAuth> = RegisteredKind::NEW;

fn consumers() -> ConsumerDirectory {
    let mut directory = ConsumerDirectory::default();
    let (anna, guest) = (consumer("anna", &[]), consumer("guest", &[]));
    directory.add(&anna);
    directory.add(&guest);
    let keys = [
        ("a key", "cred-1", None),
        ("ends later", "cred-2", Some(noon() + Duration::from_secs(1))),
        ("ends now", "cred-3", Some(noon())),
    ];
    for (key, id, expires) in keys {
        let credential = KeyCredential::new(EntityId::from_text(id), key.as_bytes(), expires, Arc::clone(&anna));
        directory.keys.insert(Arc::new(credential));
    }
    directory
}

/// The expected result of a request.
#[derive(Clone, Copy)]
enum ExpectedResult {
    /// The id of the credential.
    Accepted(&'static str),
    Rejected(&'static str),
}

use ExpectedResult::{Accepted, Rejected};

const NO_KEY_FOUND: ExpectedResult = Rejected("No API key found in request");
const DUPLICATE_KEY: ExpectedResult = Rejected("Duplicate API key found");
const UNAUTHORIZED: ExpectedResult = Rejected("Unauthorized");

async fn check(name: &str, config: &Value, request: TestRequest, expected: ExpectedResult) {
    let outcome = request.with_consumers(&consumers()).run(&chain(&[(&KIND, config.clone())])).await;
    match expected {
        Accepted(credential) => {
            assert_eq!(outcome.message(), None, "{name}");
            assert_eq!(outcome.upstream_identity(), (Some("anna"), Some(credential), false), "{name}");
            assert_eq!(outcome.upstream_header("x-consumer-id"), Some("id-anna"), "{name}");
            assert_eq!(outcome.upstream_header("x-consumer-custom-id"), Some("custom-anna"), "{name}");
            assert_eq!(outcome.state.identity.credential().map(|id| &**id), Some(credential), "{name}");
        }
        Rejected(message) => {
            assert_eq!(outcome.message(), Some(message), "{name}");
            assert_eq!(outcome.reply_status(), Some(StatusCode::UNAUTHORIZED), "{name}");
            assert_eq!(outcome.response_header("www-authenticate"), Some("Key"), "{name}");
        }
    }
}

// docs/kong-compatibility.md, 4.17
#[tokio::test]
async fn keys_are_found_in_headers_and_query() {
    let get = TestRequest::get;
    let several = json!({"key_names": ["first", "api_key"]});
    let cases = [
        ("header", json!({}), get("/").header("apikey", "a key"), Accepted("cred-1")),
        ("any letter case", json!({"key_names": ["ApiKey"]}), get("/").header("APIKEY", "a key"), Accepted("cred-1")),
        ("query", json!({}), get("/?b=c&apikey=a+key"), Accepted("cred-1")),
        ("decoded", json!({}), get("/?%61pikey=a%20%6bey"), Accepted("cred-1")),
        ("the first name is first", several.clone(), get("/?api_key=x&first=a+key"), Accepted("cred-1")),
        ("the second name", several.clone(), get("/?api_key=a+key"), Accepted("cred-1")),
        ("dashes for underscores", several.clone(), get("/").header("api-key", "a key"), Accepted("cred-1")),
        ("underscores", several.clone(), get("/").header("api_key", "a key"), Accepted("cred-1")),
        ("headers are not searched", json!({"key_in_header": false}), get("/").header("apikey", "a key"), NO_KEY_FOUND),
        ("the query is not searched", json!({"key_in_query": false}), get("/?apikey=a+key"), NO_KEY_FOUND),
        (
            "nothing is searched",
            json!({"key_in_header": false, "key_in_query": false}),
            get("/?apikey=a+key").header("apikey", "a key"),
            NO_KEY_FOUND,
        ),
        ("nothing", json!({}), get("/"), NO_KEY_FOUND),
        ("null is unset", json!({"realm": null, "key_names": null}), get("/"), NO_KEY_FOUND),
        ("query names are case-sensitive", json!({}), get("/?APIKEY=a+key"), NO_KEY_FOUND),
        ("an empty header is another key", json!({}), get("/?apikey=a+key").header("apikey", ""), DUPLICATE_KEY),
        ("an empty header", json!({}), get("/").header("apikey", ""), NO_KEY_FOUND),
        ("one key at two places", json!({}), get("/?apikey=a+key").header("apikey", "a key"), Accepted("cred-1")),
        ("another key in the query", json!({}), get("/?apikey=b").header("apikey", "a key"), DUPLICATE_KEY),
        ("no value", json!({}), get("/?apikey"), NO_KEY_FOUND),
        ("two headers", json!({}), get("/").header("apikey", "a key").header("apikey", "a key"), DUPLICATE_KEY),
        ("two in the query", json!({}), get("/?apikey=a+key&apikey=a+key"), DUPLICATE_KEY),
        (
            "one header and two parameters",
            json!({}),
            get("/?apikey=a&apikey=b").header("apikey", "a key"),
            DUPLICATE_KEY,
        ),
        (
            "two spellings of a header",
            several.clone(),
            get("/").header("api_key", "a key").header("api-key", "x"),
            DUPLICATE_KEY,
        ),
        (
            "two spellings of a header with one key",
            several.clone(),
            get("/").header("api_key", "a key").header("api-key", "a key"),
            Accepted("cred-1"),
        ),
        ("wrong", json!({}), get("/").header("apikey", "a ke"), UNAUTHORIZED),
        ("not UTF-8", json!({}), get("/?apikey=%ff%fe"), UNAUTHORIZED),
        ("not yet expired", json!({}), get("/?apikey=ends+later"), Accepted("cred-2")),
        ("expired", json!({}), get("/?apikey=ends+now"), UNAUTHORIZED),
        ("OPTIONS", json!({}), with_method("OPTIONS", get("/")), NO_KEY_FOUND),
    ];
    for (name, config, request, expected) in cases {
        check(name, &config, request, expected).await;
    }
}

fn with_method(method: &str, mut request: TestRequest) -> TestRequest {
    *request.request.method_mut() = method.parse().unwrap();
    request
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

// docs/kong-compatibility.md, 4.17
#[tokio::test]
async fn keys_are_found_in_bodies_if_enabled() {
    let config = json!({"key_in_body": true, "key_names": ["apikey", "other"]});
    let post = |content_type, body: &str| TestRequest::post("/", content_type, body.to_owned());
    let cases = [
        ("form", post(FORM, "b=c&apikey=a+key"), Accepted("cred-1")),
        ("second name", post(FORM, "other=a+key"), Accepted("cred-1")),
        ("two in the form", post(FORM, "apikey=a+key&apikey=b"), DUPLICATE_KEY),
        ("json", post(JSON, r#"{"b": [1], "apikey": "a\u0020key"}"#), Accepted("cred-1")),
        ("a name twice", post(JSON, r#"{"apikey": "x", "apikey": "a key"}"#), DUPLICATE_KEY),
        ("a name twice, escaped", post(JSON, r#"{"apikey": "a key", "\u0061pikey": "a key"}"#), DUPLICATE_KEY),
        ("another name twice", post(JSON, r#"{"b": 1, "b": 2, "apikey": "a key"}"#), Accepted("cred-1")),
        ("list", post(JSON, r#"{"apikey": ["a key"]}"#), DUPLICATE_KEY),
        ("a number is ignored", post(JSON, r#"{"apikey": 7, "other": "a key"}"#), Accepted("cred-1")),
        ("not an object", post(JSON, r#"["apikey"]"#), NO_KEY_FOUND),
        ("invalid json", post(JSON, r#"{"apikey": "a key""#), NO_KEY_FOUND),
        ("multipart", post(MULTIPART, &multipart(&[("b", "c"), ("apikey", "a key")])), Accepted("cred-1")),
        ("two parts", post(MULTIPART, &multipart(&[("apikey", "a key"), ("apikey", "a key")])), DUPLICATE_KEY),
        ("another type", post("text/plain", "apikey=a+key"), NO_KEY_FOUND),
        ("compressed", post(FORM, "apikey=a+key").header("content-encoding", "gzip"), NO_KEY_FOUND),
        ("another key in a header", post(FORM, "apikey=x").header("apikey", "a key"), DUPLICATE_KEY),
        ("another key in the query", TestRequest::post("/?apikey=a+key", FORM, "apikey=x"), DUPLICATE_KEY),
        ("one key at all places", TestRequest::post("/?apikey=a+key", FORM, "apikey=a+key"), Accepted("cred-1")),
    ];
    for (name, request, expected) in cases {
        check(name, &config, request, expected).await;
    }
    check("not enabled", &json!({}), post(FORM, "apikey=a+key"), NO_KEY_FOUND).await;
    let buffer_limit = |config| build(&KIND, &config).unwrap().body_buffer_limit();
    assert_eq!((buffer_limit(json!({})), buffer_limit(config)), (None, Some(1 << 20)));
}

// docs/kong-compatibility.md, 4.17
#[tokio::test]
async fn hidden_keys_are_removed_from_all_locations() {
    let config = json!({"key_in_body": true, "hide_credentials": true, "key_names": ["apikey", "api_key"]});
    let body = multipart(&[("apikey", "a key"), ("b", "c"), ("api_key", "y")]);
    let requests = [
        // What needs no encoding is decoded in a query without its key, as in Kong.
        (
            TestRequest::post("/p?apikey=a+key&b=%63&&api_key=z&d", FORM, "b=%63&apikey=a+key"),
            "/p?b=c&&d",
            "b=%63".to_owned(),
        ),
        (
            TestRequest::post("/p?b=%63", JSON, r#"{"b": 1.50, "apikey": "a key"}"#),
            "/p?b=%63",
            r#"{"b":1.50}"#.to_owned(),
        ),
        (
            TestRequest::post("/p?b=%63", JSON, r#"{"b": 1, "api_key": "x", "b": 2, "api_key": "y"}"#),
            "/p?b=%63",
            r#"{"b":1,"b":2}"#.to_owned(),
        ),
        (TestRequest::post("/p?b=%63&&d&%61pikey", MULTIPART, body), "/p?b=c&&d", multipart(&[("b", "c")])),
    ];
    for (request, uri, expected) in requests {
        let request = request.header("apikey", "a key").header("api-key", "x").header("api_key", "x").header("b", "c");
        let outcome = request.with_consumers(&consumers()).run(&chain(&[(&KIND, config.clone())])).await;
        assert_eq!(outcome.upstream_identity().1, Some("cred-1"));
        let forwarded = ["apikey", "api-key", "api_key", "b"].map(|name| outcome.upstream_header(name));
        assert_eq!(forwarded, [None, None, None, Some("c")]);
        assert_eq!(outcome.request.uri, uri);
        assert_eq!(outcome.state.body_changes.replacement.as_deref(), Some(expected.as_bytes()));
        assert_eq!(outcome.upstream_header("content-length"), Some(&*expected.len().to_string()));
    }
    let get = TestRequest::get("http://example.test/p?apikey=a+key").with_consumers(&consumers());
    let outcome = get.run(&chain(&[(&KIND, config)])).await;
    assert_eq!(outcome.request.uri, "http://example.test/p");
    assert_eq!(outcome.state.body_changes.replacement, None);
}

#[tokio::test]
async fn keys_are_hidden_for_anonymous_requests() {
    let config = json!({"hide_credentials": true, "anonymous": "guest"});
    let outcome = TestRequest::get("/?apikey=wrong").with_consumers(&consumers()).run(&chain(&[(&KIND, config)])).await;
    assert_eq!(outcome.upstream_identity(), (Some("guest"), None, true));
    assert_eq!(outcome.request.uri, "/");
}

/// With status 401, clients would give up, and with an anonymous consumer they would get less than they may.
#[tokio::test]
async fn unknown_keys_get_503_while_credentials_are_missing() {
    let mut incomplete = consumers();
    incomplete.lacks_credentials = true;
    for config in [json!({}), json!({"anonymous": "guest"})] {
        for (target, status) in [("/?apikey=a+key", None), ("/?apikey=other", Some(StatusCode::SERVICE_UNAVAILABLE))] {
            let request = TestRequest::get(target).with_consumers(&incomplete);
            let outcome = request.run(&chain(&[(&KIND, config.clone())])).await;
            assert_eq!(outcome.reply_status(), status, "{config} {target}");
        }
    }
}

// docs/kong-compatibility.md, 4.17
// docs/kong-compatibility.md, 7.27
#[tokio::test]
async fn keys_are_forwarded_by_default() {
    let request = TestRequest::get("/?apikey=a+key").with_consumers(&consumers());
    let outcome = request.run(&chain(&[(&KIND, json!({}))])).await;
    assert_eq!(outcome.request.uri, "/?apikey=a+key");
    assert_eq!(outcome.state.body_changes.replacement, None);
}

// docs/kong-compatibility.md, 4.17
#[tokio::test]
async fn the_challenge_contains_the_realm() {
    let outcome = TestRequest::get("/").run(&chain(&[(&KIND, json!({"realm": "a \"b\""}))])).await;
    assert_eq!(outcome.response_header("www-authenticate"), Some(r#"Key realm="a \"b\"""#));
}

// docs/kong-compatibility.md, 4.17
#[test]
fn invalid_configurations_are_rejected() {
    let cases = [
        (json!({"key_names": []}), "config.key_names"),
        (json!({"key_names": ["a", "b c"]}), "config.key_names[1]"),
        (json!({"key_names": [""]}), "config.key_names[0]"),
        (json!({"key_names": ["ä"]}), "config.key_names[0]"),
        (json!({"key_names": "apikey"}), "config.key_names"),
        (json!({"realm": "a\u{7}"}), "config.realm"),
        (json!({"anonymous": ""}), "config.anonymous"),
        (json!({"hide_credentials": "yes"}), "config.hide_credentials"),
        (json!({"identity_realms": [{"scope": "realm"}]}), "config.identity_realms[0].scope"),
        (json!({"key_name": ["a"]}), "config.key_name"),
    ];
    for (config, field) in cases {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid.iter().map(|invalid| &*invalid.field).collect::<Vec<_>>(), [field], "{config}");
        assert!(!invalid[0].message.is_empty() && !invalid[0].remedy.is_empty(), "{invalid:?}");
    }
    build(&KIND, &json!({"identity_realms": [{"scope": "cp"}], "key_names": ["X_a-9"]})).unwrap();
}

// docs/kong-compatibility.md, 4.17
#[test]
fn a_plugin_that_searches_nothing_gets_a_note() {
    let notes = notes(&KIND, &json!({"key_in_header": false, "key_in_query": false}));
    assert_eq!(notes.iter().map(|note| &*note.field).collect::<Vec<_>>(), ["config"], "{notes:?}");
}

proptest! {
    #[test]
    fn parsing_bodies_and_queries_never_panics(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        query in "[ -~]{0,40}",
        content_type in prop_oneof![
            Just(FORM), Just(JSON), Just(MULTIPART), Just("multipart/form-data; boundary=\"\\")
        ],
        fragments in proptest::collection::vec(prop_oneof![
            Just("----b"), Just("\r\n"), Just("--"), Just("Content-Disposition: form-data; name=\"apikey\""), Just("x"),
            Just("{\"apikey\":"), Just("&apikey=%4"), Just("\"}"),
        ], 0..20),
    ) {
        let config = json!({"key_in_body": true, "hide_credentials": true});
        let chain = chain(&[(&KIND, config)]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for body in [body, fragments.concat().into_bytes()] {
            let Ok(uri) = format!("/?{query}").parse::<http::Uri>() else { continue };
            let mut request = TestRequest::post("/", content_type, body).with_consumers(&consumers());
            *request.request.uri_mut() = uri;
            let outcome = runtime.block_on(request.run(&chain));
            prop_assert!(outcome.reply_status().is_some() || outcome.upstream_identity().1.is_some());
        }
    }
}
