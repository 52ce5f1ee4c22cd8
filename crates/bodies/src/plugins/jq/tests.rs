//! Tests of the plugin without the proxy.

use bytes::Bytes;
use http::HeaderValue;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain};

const KIND: RegisteredKind<Jq> = RegisteredKind::NEW;
const JSON: &str = "application/json; charset=utf-8";

async fn transform(config: &Value, content_type: &str, body: impl Into<Bytes>) -> TestOutcome {
    TestRequest::post("/", content_type, body).run(&chain(&[(&KIND, config.clone())])).await
}

// docs/kong-compatibility.md, 5.15
#[tokio::test]
async fn requests_are_changed_or_rejected() {
    let double = json!({"request_jq_program": ".a * 2"});
    for (config, content_type, body, expected) in [
        (&double, JSON, r#"{"a":2}"#, Ok(Some("4\n"))),
        (&double, "text/plain", r#"{"a":2}"#, Ok(None)),
        (&double, JSON, "", Ok(None)),
        (&double, JSON, "{", Err(400)),
        (&double, JSON, r#"{"a":{}}"#, Err(400)),
        (&json!({"request_jq_program": "[repeat(1)]"}), JSON, "1", Err(500)),
        (&json!({"request_jq_program": "range(200000) | \"0123456789\""}), JSON, "1", Err(413)),
        (&json!({"request_jq_program": "empty"}), JSON, "1", Ok(Some(""))),
        (
            &json!({"request_jq_program": ".[]", "request_jq_program_options": {"join_output": true}}),
            JSON,
            r#"["a",1]"#,
            Ok(Some("a1")),
        ),
        (
            &json!({"request_jq_program": ".", "request_jq_program_options":
                    {"compact_output": false, "sort_keys": true, "ascii_output": true}}),
            JSON,
            r#"{"b":["é"],"a":[]}"#,
            Ok(Some("{\n  \"a\": [],\n  \"b\": [\n    \"\\u00e9\"\n  ]\n}\n")),
        ),
    ] {
        let outcome = transform(config, content_type, body).await;
        let found = match outcome.reply_status() {
            Some(status) => Err(status.as_u16()),
            None => Ok(outcome.state.body_changes.replacement.map(|body| String::from_utf8(body.to_vec()).unwrap())),
        };
        assert_eq!(found.as_ref().map(Option::as_deref), expected.as_ref().copied(), "{config} {body}");
    }
}

// docs/kong-compatibility.md, 5.15
#[tokio::test]
async fn only_listed_responses_are_changed() {
    for (status, content_type, is_changed) in
        [(200, JSON, true), (201, JSON, false), (200, "text/plain", false), (200, "application/problem+json", false)]
    {
        let mut request = TestRequest::get("/");
        *request.upstream_response.status_mut() = StatusCode::from_u16(status).unwrap();
        request.upstream_response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
        let config = json!({"response_jq_program": ".a"});
        let outcome = request.run(&chain(&[(&KIND, config)])).await;
        // The filter that runs the program, and the one that sends the result.
        let expected = if is_changed { 2 } else { 0 };
        assert_eq!(outcome.state.body_filters.len(), expected, "{status} {content_type}");
    }
}

#[test]
fn configurations_are_checked() {
    for (config, field) in [
        (json!({}), "config"),
        (json!({"request_jq_program": "foo"}), "config.request_jq_program"),
        (json!({"response_jq_program": ".a |"}), "config.response_jq_program"),
        (json!({"request_jq_program": ".", "request_if_media_type": ["json"]}), "config.request_if_media_type[0]"),
        (json!({"response_jq_program": ".", "response_if_status_code": [99]}), "config.response_if_status_code[0]"),
    ] {
        let invalid = build(&KIND, &config).err().unwrap();
        assert_eq!(invalid.iter().map(|problem| &*problem.field).collect::<Vec<_>>(), [field], "{config}");
    }
    let plugin = build(&KIND, &json!({"response_jq_program": "."})).unwrap();
    assert_eq!(plugin.body_buffer_limit(), None);
}
