//! Tests of the configuration.

use serde_json::{Value, json};

use super::HttpLog;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{build, notes};

const KIND: RegisteredKind<HttpLog> = RegisteredKind::NEW;

fn with_endpoint(mut config: Value) -> Value {
    config["http_endpoint"] = json!("http://logs.example/");
    config
}

// docs/kong-compatibility.md, 4.14
#[test]
fn invalid_fields_are_reported_without_secrets() {
    let cases = [
        (json!({}), "config.http_endpoint", "is missing"),
        (json!({"http_endpoint": "logs.example"}), "config.http_endpoint", "must start with http:// or https://"),
        (json!({"http_endpoint": "http://anna:secret@host:port/"}), "config.http_endpoint", "invalid port"),
        (with_endpoint(json!({"timeout": 0})), "config.timeout", "must not be 0"),
        (with_endpoint(json!({"keepalive": 0})), "config.keepalive", "must not be 0"),
        (with_endpoint(json!({"headers": {"Host": "secret"}})), "config.headers[Host]", "cannot be set"),
        (with_endpoint(json!({"headers": {"content-type": "a"}})), "config.headers[content-type]", "cannot be set"),
        (with_endpoint(json!({"headers": {"Content-Length": "1"}})), "config.headers[Content-Length]", "cannot be set"),
        (with_endpoint(json!({"headers": {"a b": "secret"}})), "config.headers[a b]", "not a valid header name"),
        (with_endpoint(json!({"headers": {"a": "secret\n"}})), "config.headers[a]", "not a valid header value"),
        (with_endpoint(json!({"headers": {"a": ""}})), "config.headers[a]", "is empty"),
        (
            json!({"http_endpoint": "http://anna:secret@logs.example/", "headers": {"AuthoRIZATion": "secret"}}),
            "config.headers[Authorization]",
            "cannot be set",
        ),
        (with_endpoint(json!({"queue": {"max_batch_size": 0}})), "config.queue.max_batch_size", "out of range"),
        (with_endpoint(json!({"queue_size": 0})), "config.queue.max_batch_size", "out of range"),
        (
            with_endpoint(json!({"custom_fields_by_lua": {"a": "for i = 1, 2 do end"}})),
            "config.custom_fields_by_lua[a]",
            "has the expression",
        ),
        (
            with_endpoint(json!({"custom_fields_by_lua": {"a..b": "return nil"}})),
            "config.custom_fields_by_lua[a..b]",
            "empty part",
        ),
    ];
    for (config, field, message) in cases {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} is accepted"));
        let [diagnostic] = &invalid[..] else { panic!("{config}: {invalid:?}") };
        assert!(diagnostic.field == field && diagnostic.message.contains(message), "{config}: {diagnostic:?}");
        assert!(!format!("{diagnostic:?}").contains("secret") && !diagnostic.remedy.is_empty(), "{diagnostic:?}");
    }
}

#[test]
fn long_timeouts_are_shortened_with_notes() {
    for (field, value, expected) in [
        ("timeout", 60_000, None),
        ("timeout", 60_001, Some("60001 ms has the effect of 60000 ms, the longest time")),
        ("timeout", u32::MAX, Some("4294967295 ms has the effect of 60000 ms, the longest time")),
        ("keepalive", 600_000, None),
        ("keepalive", u32::MAX, Some("4294967295 ms has the effect of 600000 ms, the longest time")),
    ] {
        let notes = notes(&KIND, &with_endpoint(json!({ field: value })));
        let message = notes.first().map(|note| (note.field.clone(), note.message.clone()));
        assert_eq!(message, expected.map(|text| (format!("config.{field}"), text.to_owned())), "{field}: {value}");
    }
}

#[test]
fn deprecated_fields_have_notes() {
    let config = with_endpoint(json!({"retry_count": 3, "queue_size": 7, "flush_timeout": 2}));
    let fields: Vec<String> = notes(&KIND, &config).into_iter().map(|note| note.field).collect();
    assert_eq!(fields, ["config.retry_count", "config.queue_size", "config.flush_timeout"]);
    assert!(notes(&KIND, &with_endpoint(json!({}))).is_empty());
}

/// Lua writes an empty object as an empty list.
#[test]
fn an_empty_list_is_an_empty_object() {
    build(&KIND, &with_endpoint(json!({"custom_fields_by_lua": []}))).unwrap();
    let invalid = build(&KIND, &with_endpoint(json!({"custom_fields_by_lua": ["a"]}))).err().unwrap();
    assert_eq!(invalid[0].field, "config.custom_fields_by_lua", "{invalid:?}");
}
