//! Tests of bodies, media types and parameters, and of schemas that are rejected.

use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestCaptures, TestRequest, build, chain, notes};

const KIND: RegisteredKind<RequestValidator> = RegisteredKind::NEW;

/// Status and message of the reply.
async fn reply(config: &Value, request: TestRequest) -> Option<(u16, String)> {
    let outcome = request.run(&chain(&[(&KIND, config.clone())])).await;
    outcome.reply_status().map(|status| (status.as_u16(), outcome.message().unwrap_or_default().to_owned()))
}

async fn message(config: &Value, request: TestRequest) -> String {
    reply(config, request).await.map(|(_, message)| message).unwrap_or_default()
}

fn post(body: &str) -> TestRequest {
    TestRequest::post("/", "application/json", body.to_owned())
}

// docs/kong-compatibility.md, 5.3
#[tokio::test]
async fn bodies_conform_to_schemas_of_all_versions() {
    let schema =
        json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}).to_string();
    for version in ["draft4", "draft6", "draft7", "draft201909", "draft202012"] {
        let config = json!({"version": version, "body_schema": schema});
        assert_eq!(reply(&config, post(r#"{"name": "a"}"#)).await, None, "{version}");
        let rejected = Some((400, "request body doesn't conform to schema".to_owned()));
        for body in [r#"{"name": 1}"#, "{}", "[", "", "{\"name\": \"a\"} x"] {
            assert_eq!(reply(&config, post(body)).await, rejected, "{version} {body}");
        }
    }
    let verbose = json!({"version": "draft7", "body_schema": schema, "verbose_response": true});
    assert_eq!(message(&verbose, post(r#"{"name": 1}"#)).await, "/name: must be a string");
    assert!(message(&verbose, post("[")).await.starts_with("the body is not valid JSON"));
    let deep = "[".repeat(200) + &"]".repeat(200);
    assert!(message(&verbose, post(&deep)).await.starts_with("the body is not valid JSON"));
    let compressed = post("{}").header("content-encoding", "gzip");
    assert_eq!(message(&verbose, compressed).await, "a compressed body cannot be checked");
    let log_only = json!({"version": "draft7", "body_schema": schema, "enforcement_mode": "log_only"});
    assert_eq!(reply(&log_only, post("{}").header("content-length", "2")).await, None);
    let large = "1".repeat(MAX_BODY + 1);
    assert_eq!(reply(&verbose, post(&large)).await.map(|(status, _)| status), Some(413));
}

/// Generators of configurations write `{}` for operations without a body.
#[tokio::test]
async fn a_request_without_a_body_is_not_one_with_an_invalid_body() {
    let required = json!({"type": "object", "required": ["name"]}).to_string();
    let request = |method: &str| TestRequest::new(http::Request::builder().method(method).body(Bytes::new()).unwrap());
    let rejected = Some((400, "request body doesn't conform to schema".to_owned()));
    for (schema, method, expected) in [
        ("{}", "GET", None),
        ("{}", "POST", None),
        (r#"{"$schema": "http://json-schema.org/draft-04/schema#", "title": "any"}"#, "POST", None),
        ("true", "PUT", None),
        ("false", "PUT", rejected.clone()),
        (&*required, "GET", None),
        (&*required, "HEAD", None),
        (&*required, "DELETE", None),
        (&*required, "POST", rejected.clone()),
        (&*required, "PATCH", rejected.clone()),
    ] {
        let version = if schema.starts_with('{') { "draft4" } else { "draft7" };
        let config = json!({"version": version, "body_schema": schema});
        assert_eq!(reply(&config, request(method)).await, expected, "{schema} {method}");
    }
    // What is there is checked, whatever the method.
    let config = json!({"version": "draft4", "body_schema": required});
    let with_body = TestRequest::new(http::Request::get("/").body(Bytes::from_static(b"{}")).unwrap());
    assert_eq!(reply(&config, with_body).await, rejected);
}

/// The backend may read another one of the values than the validator.
#[tokio::test]
async fn a_body_with_a_repeated_name_does_not_conform() {
    let schema = json!({"properties": {"role": {"enum": ["user"]}}}).to_string();
    let config = json!({"version": "draft7", "body_schema": schema, "verbose_response": true});
    assert_eq!(reply(&config, post(r#"{"role": "user"}"#)).await, None);
    for body in [r#"{"role": "admin", "role": "user"}"#, r#"{"a": [{"b": 1, "b": 1}]}"#] {
        let (status, message) = reply(&config, post(body)).await.unwrap();
        assert!(status == 400 && message.contains("a name is repeated"), "{body}: {message}");
    }
}

// docs/kong-compatibility.md, 5.3
#[tokio::test]
async fn kong_schemas_are_lists_of_fields() {
    let schema = json!([
        {"name": {"type": "string", "required": true, "match": "^%a+$", "len_max": 5}},
        {"age": {"type": "integer", "between": [0, 150]}},
        {"tags": {"type": "set", "elements": {"type": "string", "one_of": ["a", "b"]}}},
        {"labels": {"type": "map", "keys": {"type": "string", "starts_with": "x-"}, "values": {"type": "boolean"}}},
        {"address": {"type": "record", "fields": [{"zip": {"type": "string", "required": true, "len_eq": 5}}]}},
        {"note": {"type": "string", "len_min": 0}},
        {"id": {"type": "string", "uuid": true}},
        {"code": {"type": "string", "match_none": [{"pattern": "%s", "err": "no spaces"}]}},
    ]);
    let config = json!({"body_schema": schema.to_string(), "verbose_response": true});
    for (body, expected) in [
        (json!({"name": "abc"}), ""),
        (json!({"name": "abc", "age": null, "note": "", "address": null, "code": null}), ""),
        (json!({"name": null}), "/name: must be a string"),
        (json!({"name": ""}), "/name: must have at least 1 characters"),
        (json!({"name": "a1"}), "/name: does not match the regular expression"),
        (json!({"name": "abcdef"}), "/name: must have at most 5 characters"),
        (json!({"name": "a", "age": 151}), "/age: must be at most 150"),
        (json!({"name": "a", "tags": ["a", "a"]}), "/tags: has two equal items"),
        (json!({"name": "a", "tags": ["c"]}), "/tags/0: is not one of the allowed values"),
        (json!({"name": "a", "labels": {"x-a": true}}), ""),
        (json!({"name": "a", "labels": {"y": true}}), "/labels: has the member \"y\", whose name is not allowed"),
        (json!({"name": "a", "address": {}}), "/address: lacks the required member \"zip\""),
        (json!({"name": "a", "other": 1}), "has the member \"other\", which is not allowed"),
        (json!({"name": "a", "code": "a b"}), "/code: matches none of the schemas in anyOf"),
    ] {
        assert_eq!(message(&config, post(&body.to_string())).await, expected, "{body}");
    }
}

// docs/kong-compatibility.md, 5.3
#[tokio::test]
async fn media_types_are_those_of_the_list() {
    let with = |types: Value, strict: bool| {
        json!({"version": "draft4", "body_schema": "{}", "allowed_content_types": types,
               "content_type_parameter_validation": strict})
    };
    let json_only = json!(["application/json"]);
    let utf8 = json!(["application/json; charset=UTF-8", "text/*"]);
    for (config, content_type, is_allowed) in [
        (with(json_only.clone(), true), "application/json", true),
        (with(json_only.clone(), true), "Application/JSON", true),
        (with(json_only.clone(), true), "application/json; charset=utf-8", false),
        (with(json_only.clone(), false), "application/json; charset=utf-8", true),
        (with(json_only.clone(), true), "application/xml", false),
        (with(utf8.clone(), true), "application/json;charset=utf-8", true),
        (with(utf8.clone(), true), "application/json", false),
        (with(utf8, true), "text/plain", true),
        (with(json!(["multipart/form-data"]), true), "multipart/form-data; boundary=a", true),
    ] {
        let expected = if is_allowed { "" } else { "specified Content-Type is not allowed" };
        let found = message(&config, TestRequest::post("/", content_type, "{}")).await;
        assert_eq!(found, expected, "{config} {content_type}");
    }
    let twice = post("{}").header("content-type", "text/plain");
    assert_eq!(message(&with(json_only, true), twice).await, "specified Content-Type is not allowed");
}

// docs/kong-compatibility.md, 5.3
#[tokio::test]
async fn parameters_conform_to_schemas() {
    let config = json!({"verbose_response": true, "parameter_schema": [
        {"name": "page", "in": "query", "required": true, "style": "form", "explode": true,
         "schema": "{\"type\": \"integer\", \"minimum\": 1}"},
        {"name": "tag", "in": "query", "required": false, "style": "form", "explode": false,
         "schema": "{\"type\": \"array\", \"items\": {\"type\": \"string\"}, \"maxItems\": 2}"},
        {"name": "X-Id", "in": "header", "required": false, "style": "simple", "explode": false,
         "schema": "{\"type\": \"integer\"}"},
        {"name": "id", "in": "path", "required": false, "style": "simple", "explode": false,
         "schema": "{\"type\": \"string\", \"maxLength\": 2}"},
        {"name": "flag", "in": "query", "required": false},
    ]});
    for (uri, expected) in [
        ("/?page=2", ""),
        ("/", "page: required parameter is missing"),
        ("/?page=0", "page: must be at least 1"),
        ("/?page=x", "page: must be an integer"),
        ("/?page=1&tag=a,b&flag", ""),
        ("/?page=1&tag=a,b,c", "tag: must have at most 2 items"),
        ("/?page=%ff", "the query has too many fields, or is not UTF-8"),
    ] {
        assert_eq!(message(&config, TestRequest::get(uri)).await, expected, "{uri}");
    }
    let header = TestRequest::get("/?page=1").header("x-id", "a");
    assert_eq!(message(&config, header).await, "X-Id: must be an integer");
    let mut path = TestRequest::get("/?page=1");
    path.uri_captures = TestCaptures(vec![("id", "%61bc".to_owned())]);
    assert_eq!(message(&config, path).await, "id: must have at most 2 characters");
    let quiet = json!({"parameter_schema": [{"name": "a", "in": "query", "required": true}]});
    assert_eq!(message(&quiet, TestRequest::get("/")).await, "request param doesn't conform to schema");
}

#[test]
fn invalid_configurations_are_rejected() {
    let parameter = |extra: &Value| {
        let mut parameter = json!({"name": "a", "in": "query", "required": true});
        parameter.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"parameter_schema": [parameter]})
    };
    for (config, field, text) in [
        (json!({}), "config.body_schema", "is missing"),
        (json!({"body_schema": "["}), "config.body_schema", "is not valid JSON"),
        (json!({"body_schema": "{}"}), "config.body_schema", "is not a list of fields"),
        (json!({"body_schema": "[{\"a\": {\"type\": \"text\"}}]"}), "config.body_schema", "/0/a/type is not"),
        (json!({"body_schema": "[{\"a\": {\"lenmin\": 1}}]"}), "config.body_schema", "is not a known attribute"),
        (json!({"body_schema": "[{\"a\": {\"match\": \"%b()\"}}]"}), "config.body_schema", "/0/a/match has %b"),
        (
            json!({"version": "draft4", "body_schema": "{\"$ref\": \"http://a/b\"}"}),
            "config.body_schema",
            "/$ref refers to \"http://a/b\", which is not a part of this document",
        ),
        (json!({"version": "draft3", "body_schema": "{}"}), "config.version", ""),
        (
            json!({"version": "draft4", "body_schema": "{}", "allowed_content_types": ["json"]}),
            "config.allowed_content_types[0]",
            "is not a media type",
        ),
        (parameter(&json!({"schema": "{}"})), "config.parameter_schema[0].schema, style and explode", "only in part"),
        (
            parameter(&json!({"schema": "{}", "style": "form", "explode": true})),
            "config.parameter_schema[0].schema",
            "has no type",
        ),
        (
            parameter(&json!({"schema": "{\"type\": \"a\"}", "style": "form", "explode": true})),
            "config.parameter_schema[0].schema",
            "/type is not",
        ),
        (
            parameter(&json!({"schema": "{\"type\": \"string\"}", "style": "matrix", "explode": true})),
            "config.parameter_schema[0].style",
            "is not a style of this location",
        ),
        (parameter(&json!({"in": "header", "name": "a b"})), "config.parameter_schema[0].name", "is not the name"),
        (parameter(&json!({"in": "cookie"})), "config.parameter_schema[0].in", ""),
    ] {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert!(invalid[0].field == field && invalid[0].message.contains(text), "{config}: {invalid:?}");
    }
    let noted = json!({"version": "draft4", "body_schema": "{}", "array_length_compat": true});
    assert_eq!(notes(&KIND, &noted)[0].field, "config.array_length_compat");
}
