//! Tests of requests and responses against documents of both versions.

use bytes::Bytes;
use http::{HeaderValue, Request};
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain, notes};

const KIND: RegisteredKind<OasValidation> = RegisteredKind::NEW;

fn document(version: &str) -> Value {
    json!({
        "openapi": version, "info": {"title": "Shop", "version": "1"}, "servers": [{"url": "https://a.example/v1"}],
        "paths": {
            "/pets/{id}": {
                "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "integer"}}],
                "get": {
                    "parameters": [
                        {"name": "fields", "in": "query", "explode": false,
                         "schema": {"type": "array", "items": {"enum": ["name", "age"]}}},
                        {"name": "X-Trace", "in": "header", "required": true,
                         "schema": {"type": "string", "minLength": 3}},
                        {"name": "filter", "in": "query", "style": "deepObject",
                         "schema": {"type": "object", "properties": {"age": {"type": "integer", "maximum": 9}}}},
                        {"name": "tenant", "in": "cookie", "schema": {"type": "string", "maxLength": 2}},
                        {"name": "q", "in": "query", "content": {"application/json": {"schema": {"type": "object"}}}},
                    ],
                    "responses": {
                        "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}}},
                        "4XX": {"content": {"application/problem+json": {}}},
                    },
                },
                "put": {
                    "requestBody": {"required": true, "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Pet"}},
                        "application/x-www-form-urlencoded": {"schema": {"$ref": "#/components/schemas/Pet"}},
                        "image/*": {},
                    }},
                    "responses": {"204": {"description": "saved"}},
                },
            },
            "/pets/mine": {"get": {"responses": {"200": {"description": "ok"}}}},
        },
        "components": {"schemas": {"Pet": {
            "type": "object", "required": ["id", "name"],
            "properties": {
                "id": {"type": "integer", "readOnly": true}, "name": {"type": "string"},
                "age": {"type": "integer", "minimum": 0},
            },
        }}},
    })
}

fn config(extra: &Value) -> Value {
    let mut config = json!({"api_spec": document("3.0.3").to_string(), "verbose_response": true});
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    config
}

async fn run(config: &Value, request: TestRequest) -> TestOutcome {
    request.run(&chain(&[(&KIND, config.clone())])).await
}

async fn message(extra: &Value, request: TestRequest) -> String {
    let outcome = run(&config(extra), request).await;
    outcome.message().unwrap_or_default().to_owned()
}

fn get(uri: &str) -> TestRequest {
    TestRequest::get(uri).header("x-trace", "abc")
}

fn with_cookies(cookies: &[u8]) -> TestRequest {
    let mut request = get("/pets/7");
    request.request.headers_mut().insert("cookie", HeaderValue::from_bytes(cookies).unwrap());
    request
}

fn put(content_type: &str, body: &str) -> TestRequest {
    let request = Request::put("/pets/7").header("content-type", content_type).header("content-length", body.len());
    TestRequest::new(request.body(Bytes::copy_from_slice(body.as_bytes())).unwrap())
}

/// The backend may read another one of the values than the validator.
#[tokio::test]
async fn a_body_with_a_repeated_name_does_not_conform() {
    let chain = chain(&[(&KIND, config(&json!({})))]);
    let message = async |body: &str| {
        let request = Request::put("/pets/7").header("x-trace", "abc").header("content-type", "application/json");
        let request = request.header("content-length", body.len());
        let request = TestRequest::new(request.body(Bytes::copy_from_slice(body.as_bytes())).unwrap());
        request.run(&chain).await.message().unwrap_or_default().to_owned()
    };
    assert_eq!(message(r#"{"name": "a"}"#).await, "");
    let repeated = message(r#"{"name": 1, "name": "a"}"#).await;
    assert!(repeated.contains("a name is repeated"), "{repeated}");
}

// docs/kong-compatibility.md, 5.24
#[tokio::test]
async fn parameters_are_checked() {
    for (request, expected) in [
        (get("/pets/7"), ""),
        (TestRequest::get("/pets/mine"), ""),
        (get("/pets/x"), "path 'id' validation failed with error: 'must be an integer'"),
        (get("/pets"), "path does not exist in specification"),
        (TestRequest::post("/pets/7", "a/b", ""), "method does not exist in specification"),
        (
            TestRequest::get("/pets/7"),
            "header 'X-Trace' validation failed with error: 'required parameter value not found in request'",
        ),
        (
            TestRequest::get("/pets/7").header("x-trace", "a"),
            "header 'X-Trace' validation failed with error: 'must have at least 3 characters'",
        ),
        (get("/pets/7?fields=name,age"), ""),
        (
            get("/pets/7?fields=name,size"),
            "query 'fields' validation failed with error: '/1: is not one of the allowed values'",
        ),
        (get("/pets/7?filter[age]=9"), ""),
        (get("/pets/7?filter[age]=10"), "query 'filter' validation failed with error: '/age: must be at most 9'"),
        (
            get("/pets/7").header("cookie", "a=bcd; tenant=xyz"),
            "cookie 'tenant' validation failed with error: 'must have at most 2 characters'",
        ),
        (get("/pets/7?q=%7B%7D"), ""),
        (get("/pets/7?q=[]"), "query 'q' validation failed with error: 'must be an object'"),
        (get("/pets/7?q=x"), "query 'q' validation failed with error: 'does not have the form of its style'"),
        (get("/pets/7?q=%7B%7D&q=x"), "query 'q' validation failed with error: 'does not have the form of its style'"),
        (
            get("/pets/7?filter[age]=9&filter=10"),
            "query 'filter' validation failed with error: 'does not have the form of its style'",
        ),
        (
            get("/pets/7").header("cookie", "tenant =xyz"),
            "cookie 'tenant' validation failed with error: 'must have at most 2 characters'",
        ),
        (with_cookies(b"tenant=xyz; a=\xff"), "the request has too many cookies, or they are not UTF-8"),
    ] {
        let uri = request.request.uri().clone();
        assert_eq!(message(&json!({}), request).await, expected, "{uri}");
    }
    let quiet = json!({"verbose_response": false});
    assert_eq!(message(&quiet, get("/pets/x")).await, "request doesn't conform to schema");
    for off in ["validate_request_uri_params", "validate_request_header_params", "validate_request_query_params"] {
        let extra = json!({off: false});
        let expected = [
            ("validate_request_uri_params", TestRequest::get("/pets/x").header("x-trace", "abc")),
            ("validate_request_header_params", TestRequest::get("/pets/7")),
            ("validate_request_query_params", get("/pets/7?fields=size")),
        ];
        for (name, request) in expected {
            assert_eq!(message(&extra, request).await.is_empty(), name == off, "{off} {name}");
        }
    }
}

// docs/kong-compatibility.md, 5.24
#[tokio::test]
async fn bodies_are_checked_by_media_type() {
    let error = |what: &str| format!("request body validation failed with error: '{what}'");
    for (content_type, body, expected) in [
        // `id` is only in responses.
        ("application/json", r#"{"name": "Tom"}"#, String::new()),
        ("application/json; charset=utf-8", r#"{"name": 1}"#, error("/name: must be a string")),
        ("application/json", "{}", error("lacks the required member \"name\"")),
        ("application/json", "", error("required body is missing")),
        ("application/x-www-form-urlencoded", "name=Tom&age=3", String::new()),
        ("application/x-www-form-urlencoded", "name=Tom&age=-3", error("/age: must be at least 0")),
        ("image/png", "any", String::new()),
        ("text/plain", "any", error("the media type does not exist in specification")),
    ] {
        assert_eq!(message(&json!({}), put(content_type, body)).await, expected, "{content_type} {body}");
    }
    assert!(message(&json!({}), put("application/json", "[")).await.contains("is not valid JSON"));
    let compressed = put("application/json", "{}").header("content-encoding", "gzip");
    assert_eq!(message(&json!({}), compressed).await, error("a compressed body cannot be checked"));
    assert_eq!(message(&json!({"validate_request_body": false}), put("text/plain", "any")).await, "");
    let large = put("application/json", &" ".repeat(MAX_BODY + 1));
    let outcome = run(&config(&json!({})), large).await;
    assert_eq!(outcome.reply_status(), Some(StatusCode::PAYLOAD_TOO_LARGE));
    let notify = json!({"notify_only_request_validation_failure": true});
    assert_eq!(message(&notify, put("application/json", "{}")).await, "");
}

#[tokio::test]
async fn unknown_parameters_are_rejected_if_configured() {
    let query = json!({"query_parameter_check": true});
    assert_eq!(message(&query, get("/pets/7?fields=name&filter[age]=1")).await, "");
    assert_eq!(message(&query, get("/pets/7?a=1")).await, "query parameter 'a' does not exist in specification");
    let headers = json!({"header_parameter_check": true});
    let allowed = get("/pets/7").header("user-agent", "a").header("x-forwarded-for", "192.0.2.1");
    assert_eq!(message(&headers, allowed).await, "");
    let unknown = || get("/pets/7").header("x-other", "a");
    assert_eq!(message(&headers, unknown()).await, "header parameter 'x-other' does not exist in specification");
    let listed = json!({"header_parameter_check": true, "allowed_header_parameters": "X-Other, Accept"});
    assert_eq!(message(&listed, unknown()).await, "");
}

#[tokio::test]
async fn base_paths_precede_paths() {
    let servers = json!({"include_base_path": true});
    assert_eq!(message(&servers, get("/v1/pets/7")).await, "");
    assert_eq!(message(&servers, get("/pets/7")).await, "path does not exist in specification");
    let custom = json!({"include_base_path": true, "custom_base_path": "/api"});
    assert_eq!(message(&custom, get("/api/pets/7")).await, "");
}

async fn response(extra: &Value, status: u16, content_type: &str, body: &str) -> (Option<u16>, String) {
    let mut extra = extra.clone();
    extra["validate_response_body"] = json!(true);
    let mut request = get("/pets/7");
    *request.upstream_response.status_mut() = StatusCode::from_u16(status).unwrap();
    request.upstream_response.headers_mut().insert("content-type", content_type.parse().unwrap());
    let mut outcome = run(&config(&extra), request).await;
    outcome.filter_body(Bytes::copy_from_slice(body.as_bytes()));
    let replaced = (outcome.response.status.as_u16() == 406).then_some(406);
    let status = outcome.reply_status().map(|status| status.as_u16()).or(replaced);
    (status, outcome.message().unwrap_or_default().to_owned())
}

// docs/kong-compatibility.md, 5.24
#[tokio::test]
async fn responses_are_replaced_if_configured() {
    let none = (None, String::new());
    let pet = r#"{"id": 1, "name": "Tom"}"#;
    let verbose = json!({});
    assert_eq!(response(&verbose, 200, "application/json", pet).await, none);
    let message = "response body validation failed with error: 'lacks the required member \"id\"'";
    let found = response(&verbose, 200, "application/json", r#"{"name": "Tom"}"#).await;
    assert_eq!(found, (Some(406), message.to_owned()));
    assert_eq!(response(&verbose, 200, "text/html", "a").await.0, Some(406));
    assert_eq!(response(&verbose, 404, "application/problem+json", "{}").await, none);
    assert_eq!(response(&verbose, 404, "text/html", "a").await.0, Some(406));
    assert_eq!(response(&verbose, 500, "text/html", "a").await, none, "the document does not list the status");
    let quiet = json!({"verbose_response": false});
    assert_eq!(response(&quiet, 200, "application/json", "[").await.1, "response doesn't conform to schema");
    let notify = json!({"notify_only_response_body_validation_failure": true});
    assert_eq!(response(&notify, 200, "application/json", "[").await, none);
    assert_eq!(response(&notify, 200, "text/html", "a").await, none);
}

#[tokio::test]
async fn both_versions_have_their_own_schemas() {
    let with_schema = |version: &str, schema: &Value| {
        let mut document = document(version);
        document["paths"]["/pets/mine"]["get"]["parameters"] = json!([{"name": "a", "in": "query", "schema": schema}]);
        json!({"api_spec": document.to_string(), "verbose_response": true})
    };
    let nullable = json!({"type": "integer", "nullable": true});
    let null = json!({"type": ["integer", "null"]});
    let exclusive = json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true});
    for (version, schema, uri, is_valid) in [
        ("3.0.0", &nullable, "/pets/mine?a=", true),
        ("3.1.0", &null, "/pets/mine?a=", true),
        ("3.0.0", &exclusive, "/pets/mine?a=1", false),
        ("3.1.1", &json!({"type": "integer", "exclusiveMinimum": 1}), "/pets/mine?a=1", false),
    ] {
        let outcome = run(&with_schema(version, schema), TestRequest::get(uri)).await;
        assert_eq!(outcome.reply_status().is_none(), is_valid, "{version} {schema}: {:?}", outcome.message());
    }
    let wrong = with_schema("3.1.0", &exclusive);
    let invalid = build(&KIND, &wrong).err().unwrap();
    assert!(invalid[0].message.contains("exclusiveMinimum is not a number"), "{invalid:?}");
}

#[test]
fn invalid_configurations_are_rejected() {
    let broken = |path: &str, value: Value| {
        let mut document = document("3.0.3");
        *document.pointer_mut(path).unwrap() = value;
        json!({"api_spec": document.to_string()})
    };
    let get = "/paths/~1pets~1{id}/get";
    for (config, field, text) in [
        (json!({}), "config.api_spec", "is missing"),
        (json!({"api_spec": "swagger: '2.0'\npaths: {/a: {get: {}}}"}), "config.api_spec", "is of Swagger 2.0"),
        (broken(&format!("{get}/parameters/0/schema"), json!({"type": "list"})), "config.api_spec", "/type is not"),
        (
            broken(&format!("{get}/parameters/0"), json!({"name": "a", "in": "body"})),
            "config.api_spec",
            "is not in path",
        ),
        (broken(&format!("{get}/parameters/2/style"), json!("wide")), "config.api_spec", "unknown style"),
        (
            broken(&format!("{get}/responses/200/content"), json!({"json": {}})),
            "config.api_spec",
            "is not a media type",
        ),
        (broken("/components/schemas/Pet", json!({"$ref": "http://a/b"})), "config.api_spec", "never fetched"),
        (config(&json!({"allowed_header_parameters": "a b"})), "config.allowed_header_parameters", "is not the name"),
        (config(&json!({"custom_base_path": "v1", "include_base_path": true})), "config.custom_base_path", "slash"),
    ] {
        let mut config = config;
        config["validate_response_body"] = json!(true);
        match build(&KIND, &config) {
            Ok(_) => panic!("{text}: {config} was accepted"),
            Err(invalid) => {
                let message = &invalid[0].message;
                let remedy = format!("{:?}", invalid[0]);
                assert!(invalid[0].field == field && (message.contains(text) || remedy.contains(text)), "{invalid:?}");
            }
        }
    }
    let noted = config(&json!({"custom_base_path": "/v1", "collect_all_errors": true}));
    let fields: Vec<_> = notes(&KIND, &noted).into_iter().map(|note| note.field).collect();
    assert_eq!(fields, ["config.custom_base_path", "config.collect_all_errors"]);
}
