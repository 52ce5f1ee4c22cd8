//! Tests of selected responses, of generated values, and of delays.

use http::Request;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain};

const KIND: RegisteredKind<Mocking> = RegisteredKind::NEW;

fn document() -> String {
    json!({
        "openapi": "3.0.3", "info": {"title": "Shop", "version": "1"}, "servers": [{"url": "https://a.example/v1"}],
        "paths": {
            "/users/{id}": {
                "get": {"responses": {
                    "404": {"content": {"application/json": {"example": {"error": "none"}}}},
                    "200": {"content": {
                        "application/json": {"examples": {
                            "one": {"value": {"id": 1}}, "two": {"$ref": "#/components/examples/two"},
                        }},
                        "text/plain": {"example": "user"},
                    }},
                }},
                "delete": {"responses": {"204": {"description": "deleted"}}},
                "post": {"responses": {"201": {"content": {
                    "application/vnd.shop+json": {"schema": {"$ref": "#/components/schemas/User"}},
                }}}},
                "put": {"responses": {"200": {"content": {"application/xml": {"example": {"a": 1}}}}}},
            },
            "/users/me": {"get": {"responses": {"default": {"description": "nothing"}}}},
        },
        "components": {
            "examples": {"two": {"value": {"id": 2}}},
            "schemas": {"User": {"type": "object", "properties": {
                "id": {"type": "integer", "minimum": 5}, "name": {"type": "string", "minLength": 8},
                "mail": {"type": "string", "format": "email"}, "role": {"enum": ["admin", "user"]},
                "password": {"type": "string", "writeOnly": true}, "active": {"type": "boolean"},
                "friends": {"type": "array", "items": {"$ref": "#/components/schemas/User"}},
            }}},
        },
    })
    .to_string()
}

async fn run(config: &Value, request: TestRequest) -> TestOutcome {
    let mut config = config.clone();
    config["api_specification"] = json!(document());
    request.run(&chain(&[(&KIND, config)])).await
}

fn request(method: &str, uri: &str) -> TestRequest {
    TestRequest::new(Request::builder().method(method).uri(uri).body(Bytes::new()).unwrap())
}

// docs/kong-compatibility.md, 5.16
#[tokio::test]
async fn examples_are_selected_by_path_method_and_headers() {
    let get = || request("GET", "/users/7");
    for (request, status, content_type, body) in [
        (get(), 200, Some("application/json"), "{\"id\":1}"),
        (get().header("accept", "*/*"), 200, Some("application/json"), "{\"id\":1}"),
        (get().header("accept", "text/*;q=0.9, image/png"), 200, Some("text/plain"), "user"),
        (get().header("x-kong-mocking-example-id", "two"), 200, Some("application/json"), "{\"id\":2}"),
        (get().header("x-kong-mocking-status-code", "404"), 404, Some("application/json"), "{\"error\":\"none\"}"),
        (request("DELETE", "/users/7"), 204, None, ""),
        (request("GET", "/users/me"), 200, None, ""),
    ] {
        let outcome = run(&json!({}), request).await;
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), Some(status));
        assert_eq!(outcome.response_header("content-type"), content_type);
        assert_eq!(outcome.message(), Some(body));
        assert_eq!(outcome.response_header("x-kong-mocking-plugin"), Some("true"));
    }
    for (request, message) in [
        (request("GET", "/orders"), "Corresponding path and method spec does not exist in API Specification"),
        (request("PATCH", "/users/7"), "Corresponding path and method spec does not exist in API Specification"),
        (
            get().header("accept", "image/png"),
            "No examples exist in API specification for this resource that match the request",
        ),
        (
            get().header("x-kong-mocking-example-id", "three"),
            "No examples exist in API specification for this resource that match the request",
        ),
        (
            get().header("x-kong-mocking-status-code", "500"),
            "No examples exist in API specification for this resource that match the request",
        ),
        (request("PUT", "/users/7"), "No examples exist in API specification for this resource that match the request"),
    ] {
        let outcome = run(&json!({}), request).await;
        assert_eq!((outcome.reply_status(), outcome.message()), (Some(StatusCode::NOT_FOUND), Some(message)));
    }
}

#[tokio::test]
async fn values_are_generated_from_schemas() {
    let outcome = run(&json!({}), request("POST", "/users/7")).await;
    assert_eq!(outcome.response_header("content-type"), Some("application/vnd.shop+json"));
    let value: Value = serde_json::from_str(outcome.message().unwrap()).unwrap();
    assert_eq!(value["id"], 5);
    assert_eq!(value["name"], "stringxx");
    assert_eq!(value["mail"], "user@example.com");
    assert_eq!(value["role"], "admin");
    assert_eq!(value["active"], true);
    assert_eq!(value.get("password"), None);
    assert_eq!(value["friends"][0]["id"], 5, "a schema that refers to itself ends at some depth");
}

#[tokio::test]
async fn status_codes_and_base_paths_are_configured() {
    let not_found = run(&json!({"included_status_codes": [404]}), request("GET", "/users/7")).await;
    assert_eq!(not_found.reply_status(), Some(StatusCode::NOT_FOUND));
    assert_eq!(not_found.message(), Some("{\"error\":\"none\"}"));
    let with_base = json!({"include_base_path": true});
    assert_eq!(run(&with_base, request("GET", "/v1/users/7")).await.reply_status(), Some(StatusCode::OK));
    assert_eq!(run(&with_base, request("GET", "/users/7")).await.reply_status(), Some(StatusCode::NOT_FOUND));
    let custom = json!({"include_base_path": true, "custom_base_path": "/api/"});
    assert_eq!(run(&custom, request("GET", "/api/users/7")).await.reply_status(), Some(StatusCode::OK));
}

// docs/kong-compatibility.md, 5.16
#[tokio::test(start_paused = true)]
async fn responses_are_delayed_within_limits() {
    let start = tokio::time::Instant::now();
    let delayed = request("GET", "/users/7").header("x-kong-mocking-delay", "10000");
    assert_eq!(run(&json!({}), delayed).await.reply_status(), Some(StatusCode::OK));
    assert_eq!(start.elapsed().as_secs(), 10);
    for delay in ["10001", "-1", "a", "1.5"] {
        let outcome = run(&json!({}), request("GET", "/users/7").header("x-kong-mocking-delay", delay)).await;
        let message = "Invalid value for X-Kong-Mocking-Delay. The delay value should between 0 and 10000ms";
        assert_eq!((outcome.reply_status(), outcome.message()), (Some(StatusCode::BAD_REQUEST), Some(message)));
    }
    let start = tokio::time::Instant::now();
    let random = json!({"random_delay": true, "min_delay_time": 2, "max_delay_time": 3});
    run(&random, request("GET", "/users/7")).await;
    assert!((2..=3).contains(&start.elapsed().as_secs()));
}

#[tokio::test]
async fn documents_of_swagger_have_examples_and_schemas() {
    let document = json!({
        "swagger": "2.0", "basePath": "/api", "produces": ["application/json"],
        "paths": {"/a": {
            "get": {"responses": {"200": {"examples": {"application/json": [1]}}}},
            "post": {"responses": {"201": {"schema": {"$ref": "#/definitions/a"}}}},
        }},
        "definitions": {"a": {"type": "object", "properties": {"b": {"type": "number"}}}},
    });
    let config = json!({"api_specification": document.to_string()});
    let chain = chain(&[(&KIND, config)]);
    assert_eq!(request("GET", "/a").run(&chain).await.message(), Some("[1]"));
    assert_eq!(request("POST", "/a").run(&chain).await.message(), Some("{\"b\":0.0}"));
}

#[test]
fn invalid_configurations_are_rejected() {
    let valid = json!({"api_specification": document()});
    let with = |name: &str, value: Value| {
        let mut config = valid.clone();
        config[name] = value;
        config
    };
    for (config, field) in [
        (json!({}), "config.api_specification"),
        (json!({"api_specification": "a: b"}), "config.api_specification"),
        (with("api_specification_filename", json!("a.yaml")), "config.api_specification_filename"),
        (with("max_delay_time", json!(61)), "config.max_delay_time"),
        (with("min_delay_time", json!(2)), "config.min_delay_time"),
        (with("included_status_codes", json!([200, 99])), "config.included_status_codes[1]"),
        (with("custom_base_path", json!("v1")), "config.custom_base_path"),
        (
            json!({"api_specification": "openapi: 3.0.0\npaths: {/a: {get: {responses: {ok: {}}}}}"}),
            "config.api_specification",
        ),
    ] {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
    }
}
