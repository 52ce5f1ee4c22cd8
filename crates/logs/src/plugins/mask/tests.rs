//! Tests of the bodies, the logs and the configuration of `mask`.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Response};
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestRequest, build, chain};

const KIND: RegisteredKind<Mask> = RegisteredKind::NEW;

fn mask(config: Value) -> BodyMask {
    let config: Config = serde_json::from_value(config).unwrap();
    let masks = config::parse(config, &mut Vec::new()).unwrap();
    BodyMask { json: masks.body.unwrap(), max_bytes: masks.max_bytes }
}

#[test]
fn bodies_are_masked_by_field_and_by_pattern() {
    let mask = mask(json!({"fields": ["**.email"], "kinds": ["payment-card"], "patterns": ["K-[0-9]+"]}));
    for (form, body, expected) in [
        (
            BodyForm::Json,
            r#"{"email":"x","b":"K-1 and 4111111111111111"}"#,
            Ok(Some(r#"{"email":"***","b":"*** and ***"}"#)),
        ),
        (BodyForm::Json, r#"{"b":"K-"}"#, Ok(None)),
        (BodyForm::Json, "", Ok(None)),
        (BodyForm::Json, "not JSON", Err(())),
        (BodyForm::Text, r#"{"email":"x"}"#, Ok(Some(r#"{"email":"***"}"#))),
        (BodyForm::Text, "<p>K-12</p>", Ok(Some("<p>***</p>"))),
        (BodyForm::Text, "<p>nothing</p>", Ok(None)),
        (BodyForm::Text, "<\0p\0>\0", Err(())),
        (BodyForm::Json, "\u{feff}{\"email\":1}", Ok(Some("\u{feff}{\"email\":\"***\"}"))),
    ] {
        let masked = mask.apply(form, body.as_bytes());
        let masked = masked.map(|masked| masked.map(|masked| String::from_utf8(masked.to_vec()).unwrap()));
        assert_eq!(masked, expected.map(|masked| masked.map(str::to_owned)), "{form:?} {body}");
    }
}

#[test]
fn bodies_that_grow_too_much_are_not_sent() {
    let mask = mask(json!({"patterns": ["a"], "replacement": "0123456789", "max_body_size": 10}));
    assert_eq!(mask.apply(BodyForm::Text, b"a.a"), Ok(Some("0123456789.0123456789".into())));
    assert_eq!(mask.apply(BodyForm::Text, b"a.a.a"), Ok(Some("0123456789".into())));
    assert_eq!(mask.apply(BodyForm::Json, br#"["a","a","a","a"]"#), Err(()));
}

#[test]
fn media_types_decide_how_bodies_are_read() {
    for (content_type, expected) in [
        (Some("application/json"), Ok(Some(BodyForm::Json))),
        (Some("application/problem+json; charset=utf-8"), Ok(Some(BodyForm::Json))),
        (Some("application/x-ndjson"), Ok(Some(BodyForm::Json))),
        (Some("text/html; charset=iso-8859-1"), Ok(Some(BodyForm::Text))),
        (Some("image/svg+xml"), Ok(Some(BodyForm::Text))),
        (None, Ok(Some(BodyForm::Text))),
        (Some("image/png"), Ok(None)),
        (Some("text/event-stream"), Ok(None)),
        (Some("application/grpc"), Ok(None)),
        (Some("application/ndjson"), Ok(Some(BodyForm::Json))),
        (Some("application/yaml"), Ok(Some(BodyForm::Text))),
        (Some("application/json; charset=UTF-16"), Err(())),
        (Some("text/plain; charset=ucs-2"), Err(())),
        (Some("multipart/byteranges; boundary=a"), Err(())),
        (Some("text/plain; charset=utf-32le"), Err(())),
        (Some("nonsense"), Err(())),
    ] {
        let content_type = content_type.map(|value| (CONTENT_TYPE, HeaderValue::from_static(value)));
        assert_eq!(body_form(&content_type.clone().into_iter().collect()), expected, "{content_type:?}");
    }
}

async fn status(config: Value, response: http::response::Builder) -> StatusCode {
    let mut request = TestRequest::get("/").header("range", "bytes=0-1").header("if-range", "\"a\"");
    request.upstream_response = response.body(()).unwrap();
    let outcome = request.run(&chain(&[(&KIND, config.clone())])).await;
    let forwards_range = outcome.request.headers.contains_key(RANGE) || outcome.request.headers.contains_key(IF_RANGE);
    assert_eq!(forwards_range, config["response_body"] == false, "{config}");
    outcome.response.status
}

#[tokio::test]
async fn parts_of_bodies_are_neither_requested_nor_sent() {
    let config = json!({"kinds": ["email"]});
    let json = || Response::builder().header(CONTENT_TYPE, "application/json");
    assert_eq!(status(config.clone(), json()).await, 200);
    assert_eq!(status(config.clone(), json().status(206)).await, 502);
    assert_eq!(status(config.clone(), json().header(CONTENT_RANGE, "bytes 0-1/2")).await, 502);
    assert_eq!(status(config.clone(), Response::builder().status(206).header(CONTENT_TYPE, "image/png")).await, 206);
    assert_eq!(status(config, json().header(CONTENT_ENCODING, "gzip").header(CONTENT_TYPE, "a/b")).await, 502);
    let only_logs = json!({"kinds": ["email"], "response_body": false, "log": {}});
    assert_eq!(status(only_logs, json().status(206)).await, 206);
}

#[test]
fn logs_get_the_names_and_the_masks() {
    let config = json!({
        "kinds": ["email"], "response_body": false,
        "log": {
            "headers": ["X-User"], "query_parameters": ["email"], "cookies": ["user"], "fields": ["client_ip"],
            "access_log_fields": ["client"],
        },
    });
    let locations = build(&KIND, &config).unwrap().credential_locations().unwrap();
    assert!(locations.has_header(&"x-user".parse().unwrap()) && locations.has_parameter(b"email"));
    assert_eq!(locations.redact_text("/u/jane@b.example?email=x&a=b").as_deref(), Some("/u/***?email=REDACTED&a=b"));
    assert_eq!(locations.redact_cookies("user=a; b=c").as_deref(), Some("user=REDACTED; b=c"));
    let object = br#"{"client_ip":"192.0.2.1","a":"jane@b.example","b":1}"#.to_vec();
    let masked = crate::plugin_api::masking::mask_object(&locations.masks, object);
    assert_eq!(String::from_utf8(masked).unwrap(), r#"{"client_ip":"***","a":"***","b":1}"#);
    let without_log = build(&KIND, &json!({"kinds": ["email"]})).unwrap();
    assert_eq!(without_log.credential_locations(), None);
}

#[test]
fn invalid_configurations_are_refused() {
    let many = |count: usize| (0..count).map(|index| format!("f{index}")).collect::<Vec<_>>();
    for (config, field) in [
        (json!({}), "config"),
        (json!({"fields": ["a..b"]}), "config.fields[0]"),
        (json!({"fields": ["**"]}), "config.fields[0]"),
        (json!({"fields": many(65)}), "config.fields"),
        (json!({"kinds": ["name"]}), "config.kinds[0]"),
        (json!({"patterns": ["("]}), "config.patterns[0]"),
        (json!({"patterns": ["a*"]}), "config.patterns[0]"),
        (json!({"patterns": ["a".repeat(1025)]}), "config.patterns[0]"),
        (json!({"patterns": many(33)}), "config.patterns"),
        (json!({"patterns": ["[a-z]{3000}"]}), "config.patterns"),
        (json!({"kinds": ["email"], "replacement": "a\nb"}), "config.replacement"),
        (json!({"kinds": ["email"], "replacement": "x".repeat(65)}), "config.replacement"),
        (json!({"kinds": ["email"], "max_body_size": 0}), "config.max_body_size"),
        (json!({"kinds": ["email"], "max_body_size": 8_388_609}), "config.max_body_size"),
        (json!({"kinds": ["email"], "response_body": false}), "config.response_body"),
        (json!({"fields": ["a"], "response_body": false, "log": {"cookies": ["a"]}}), "config.fields"),
        (json!({"fields": ["a"], "log": {}}), "config.log"),
        (json!({"log": {"fields": ["a."]}}), "config.log.fields[0]"),
        (json!({"log": {"headers": ["a b"]}}), "config.log.headers[0]"),
        (json!({"log": {"cookies": [""]}}), "config.log.cookies"),
        (json!({"log": {"query_parameters": many(65)}}), "config.log.query_parameters"),
        (json!({"log": {"access_log_fields": ["status"]}}), "config.log.access_log_fields[0]"),
    ] {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
    }
}
