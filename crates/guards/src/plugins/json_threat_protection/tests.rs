//! Tests of the limits, and of what happens to bodies that cannot be checked.

use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestRequest, build, chain};

const KIND: RegisteredKind<JsonThreatProtection> = RegisteredKind::NEW;

async fn status(config: &Value, request: TestRequest) -> Option<u16> {
    request.run(&chain(&[(&KIND, config.clone())])).await.reply_status().map(|status| status.as_u16())
}

fn post(body: &str) -> TestRequest {
    TestRequest::post("/", "application/json", body.to_owned()).header("content-length", &body.len().to_string())
}

// docs/kong-compatibility.md, 5.19
#[tokio::test]
async fn limits_are_checked() {
    for (config, body, is_allowed) in [
        (json!({}), r#"{"a": [1, -0.5e+3, "b\u00e9", null, true, false, {}]} "#, true),
        (json!({"max_container_depth": 2}), "[[1]]", true),
        (json!({"max_container_depth": 2}), "[[[]]]", false),
        (json!({"max_container_depth": 0}), "1", true),
        (json!({"max_array_element_count": 2}), "[1,2]", true),
        (json!({"max_array_element_count": 2}), "[1,2,3]", false),
        (json!({"max_array_element_count": 2}), "[[1,2],[3]]", true),
        (json!({"max_object_entry_count": 1}), r#"{"a":{"b":1}}"#, true),
        (json!({"max_object_entry_count": 1}), r#"{"a":1,"b":2}"#, false),
        (json!({"max_object_entry_name_length": 2}), r#"{"éé":"long"}"#, true),
        (json!({"max_object_entry_name_length": 2}), r#"{"abc":1}"#, false),
        (json!({"max_object_entry_name_length": 2}), r#"{"\u0061bc":1}"#, false),
        (json!({"max_string_value_length": 3}), r#"["abc","\u0061\n\""]"#, true),
        (json!({"max_string_value_length": 3}), r#"{"long name":"abcd"}"#, false),
        (json!({"max_body_size": 3}), "[1]", true),
        (json!({"max_body_size": 3}), "[1 ]", false),
        (json!({}), r#"{"a":1,"a":2}"#, true),
        (json!({"allow_duplicate_object_entry_name": false}), r#"{"a":{"a":1},"b":{"a":2}}"#, true),
        (json!({"allow_duplicate_object_entry_name": false}), r#"{"a":1,"\u0061":2}"#, false),
        (json!({"allow_duplicate_object_entry_name": false}), r#"{"😀":1,"\ud83d\ude00":2}"#, false),
    ] {
        let expected = (!is_allowed).then_some(400);
        assert_eq!(status(&config, post(body)).await, expected, "{config} {body}");
    }
}

#[tokio::test]
async fn bodies_that_are_not_json_are_rejected() {
    for body in [
        "",
        "{",
        "[1,]",
        "{\"a\" 1}",
        "{1:2}",
        "01",
        "1.",
        "-",
        "+1",
        "nul",
        "\"a",
        "\"\\x\"",
        "\"\t\"",
        "[] []",
        "\u{feff}1",
    ] {
        assert_eq!(status(&json!({}), post(body)).await, Some(400), "{body}");
    }
    let invalid = TestRequest::post("/", "application/json", &b"\"\xff\""[..]).header("content-length", "3");
    assert_eq!(status(&json!({}), invalid).await, Some(400));
    let deep = "[".repeat(1_000_000);
    let config = json!({"max_body_size": -1});
    assert_eq!(status(&config, post(&deep)).await, Some(400));
}

// docs/kong-compatibility.md, 5.19
#[tokio::test]
async fn requests_of_other_types_and_methods() {
    let allowing = json!({"allow_non_json_requests": true});
    let typed = |content_type: &str| TestRequest::post("/", content_type, "a=1").header("content-length", "3");
    assert_eq!(status(&json!({}), typed("application/x-www-form-urlencoded")).await, Some(400));
    assert_eq!(status(&allowing, typed("application/x-www-form-urlencoded")).await, None);
    assert_eq!(status(&allowing, typed("application/vnd.api+json; charset=utf-8")).await, Some(400));
    assert_eq!(status(&json!({}), TestRequest::get("/")).await, None);
    let without_body = TestRequest::new(http::Request::post("/").body(bytes::Bytes::new()).unwrap());
    assert_eq!(status(&json!({}), without_body).await, None);
    let compressed = post("1").header("content-encoding", "gzip");
    assert_eq!(status(&json!({}), compressed).await, Some(400));
    let chunked = TestRequest::post("/", "application/json", "[").header("transfer-encoding", "chunked");
    assert_eq!(status(&json!({}), chunked).await, Some(400));
}

#[tokio::test]
async fn replies_are_configured_and_log_only_forwards() {
    let config = json!({"error_status_code": 413, "error_message": "Too complex", "max_container_depth": 1});
    let outcome = post("[[]]").run(&chain(&[(&KIND, config)])).await;
    assert_eq!(outcome.message(), Some("Too complex"));
    assert_eq!(outcome.reply_status().map(|status| status.as_u16()), Some(413));
    let log_only = json!({"enforcement_mode": "log_only", "max_container_depth": 1, "max_body_size": 10});
    assert_eq!(status(&log_only, post("[[]]")).await, None);
    assert_eq!(status(&log_only, post("[1, 2, 3, 4, 5]")).await, None);
    let chunked = TestRequest::post("/", "application/json", "[").header("transfer-encoding", "chunked");
    assert_eq!(status(&log_only, chunked).await, None);
}

#[test]
fn invalid_limits_are_rejected() {
    for (config, field) in [
        (json!({"max_container_depth": -2}), "config.max_container_depth"),
        (json!({"max_body_size": 16_777_217}), "config.max_body_size"),
        (json!({"error_status_code": 500}), "config.error_status_code"),
        (json!({"enforcement_mode": "log"}), "config.enforcement_mode"),
        (json!({"max_depth": 1}), "config.max_depth"),
    ] {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
    }
}

#[test]
fn generated_documents_are_judged_like_another_parser() {
    for input in [r#"{"a":[1,{"b":"c"}]}"#, "[1e5, -0]", "\"\\ud800\"", "[]]", " null ", "{\"a\":1,}", "1 2"] {
        fuzzing::json_threats(input.as_bytes());
    }
}
