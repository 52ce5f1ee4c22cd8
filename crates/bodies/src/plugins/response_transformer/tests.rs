//! Tests of each field, of the order of operations, and of what is reported about a configuration.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain, notes};

const KIND: RegisteredKind<ResponseTransformer> = RegisteredKind::NEW;

/// Runs the plugin on a response of the endpoint with these headers.
async fn run(config: &Value, headers: &[(&str, &str)]) -> TestOutcome {
    let mut request = TestRequest::get("/");
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.upstream_response.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
    }
    request.run(&chain(&[(&KIND, config.clone())])).await
}

async fn transform(config: Value, body: &str) -> String {
    let mut outcome = run(&config, &[("content-type", "application/json")]).await;
    String::from_utf8(outcome.filter_body(body.to_owned()).to_vec()).unwrap()
}

fn lines(outcome: &TestOutcome, name: &str) -> Vec<String> {
    let values = outcome.response.headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap().to_owned()).collect()
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn each_operation_on_fields() {
    for (config, body, expected) in [
        (json!({"remove": {"json": ["a", "x"]}}), r#"{"a":1,"b":2}"#, r#"{"b":2}"#),
        (json!({"remove": {"json": ["a:ignored"]}}), r#"{"a":1,"b":2}"#, r#"{"b":2}"#),
        (json!({"rename": {"json": ["a:z", "x:y"]}}), r#"{"a":1,"b":2}"#, r#"{"z":1,"b":2}"#),
        (json!({"rename": {"json": ["b:a"]}}), r#"{"a":1,"b":2,"c":3}"#, r#"{"a":2,"c":3}"#),
        (json!({"rename": {"json": ["a:a"]}}), r#"{"a": 1}"#, r#"{"a": 1}"#),
        (json!({"replace": {"json": ["a:new", "x:new"]}}), r#"{"a":1,"b":2}"#, r#"{"a":"new","b":2}"#),
        (json!({"replace": {"json": ["a:new"]}}), r#"{"a":false}"#, r#"{"a":"new"}"#),
        (json!({"add": {"json": ["a:new", "x:new"]}}), r#"{"a":null}"#, r#"{"a":null,"x":"new"}"#),
        (json!({"append": {"json": ["a:2"]}}), r#"{"a":"1"}"#, r#"{"a":["1","2"]}"#),
        (json!({"append": {"json": ["a:2"]}}), r#"{"a":1}"#, r#"{"a":[1,"2"]}"#),
        (json!({"append": {"json": ["a:2"]}}), r#"{"a":[1]}"#, r#"{"a":[1,"2"]}"#),
        (json!({"append": {"json": ["a:2"]}}), r#"{"a":[ ]}"#, r#"{"a":["2"]}"#),
        (json!({"append": {"json": ["a:2"]}}), r#"{"a":{"b":1}}"#, r#"{"a":[{"b":1},"2"]}"#),
        (json!({"append": {"json": ["a:2", "a:3"]}}), "{}", r#"{"a":["2","3"]}"#),
    ] {
        assert_eq!(transform(config.clone(), body).await, expected, "{config} {body}");
    }
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn operations_run_in_order() {
    let config = json!({
        "append": {"json": ["d:4"], "headers": ["X-D:4"]},
        "add": {"json": ["c:3"], "headers": ["X-C:3"]},
        "replace": {"json": ["c:no", "b:2"], "headers": ["X-C:no", "X-B:2"]},
        "rename": {"json": ["a:b"], "headers": ["X-A:X-B"]},
        "remove": {"json": ["d"], "headers": ["X-D"]},
    });
    assert_eq!(transform(config.clone(), r#"{"a":1,"d":0}"#).await, r#"{"b":"2","c":"3","d":["4"]}"#);
    let outcome = run(&config, &[("x-a", "1"), ("x-d", "0")]).await;
    let found: Vec<_> = ["x-a", "x-b", "x-c", "x-d"].map(|name| lines(&outcome, name).join("|")).into();
    assert_eq!(found, ["", "2", "3", "4"]);
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn json_types_pair_with_entries_by_position() {
    for operation in ["add", "replace", "append"] {
        let config = json!({operation: {
            "json": ["a:1", "b:true", "c:yes", "d:1.50e3", "e:2", "f:12345678901234567890123", "g:x\"y:z"],
            "json_types": ["number", "boolean", "boolean", "number", "string", "number"],
        }});
        let body = match operation {
            "replace" => r#"{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0}"#,
            _ => "{}",
        };
        let expected = r#"{"a":1,"b":true,"c":false,"d":1.50e3,"e":"2","f":12345678901234567890123,"g":"x\"y:z"}"#;
        let expected: String = match operation {
            "append" => r#"{"a":[1],"b":[true],"c":[false],"d":[1.50e3],"e":["2"],"f":[12345678901234567890123],"g":["x\"y:z"]}"#.into(),
            _ => expected.into(),
        };
        assert_eq!(transform(config, body).await, expected, "{operation}");
    }
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn other_fields_keep_their_order_and_text() {
    let body =
        r#"{"z":[],"n":1.10000000000000000001e+2,"o":{ "empty" : [ ] },"s":"\u00e4","big":123456789012345678901}"#;
    let expected = body.strip_suffix('}').unwrap().to_owned() + r#","new":"1"}"#;
    assert_eq!(transform(json!({"add": {"json": ["new:1"]}}), body).await, expected);
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn bodies_that_are_no_json_objects_pass_unchanged() {
    let config = json!({"add": {"json": ["a:1"]}, "append": {"json": ["b:2"]}});
    for body in ["", "{", "[1, 2]", "\"text\"", "7", "null", "{} {}", "{\"a\": }", "\u{feff}{}"] {
        assert_eq!(transform(config.clone(), body).await, body);
    }
    let invalid_utf8 = Bytes::from_static(b"{\"a\":\"\xff\"}");
    let mut outcome = run(&config, &[("content-type", "application/json")]).await;
    assert_eq!(outcome.filter_body(invalid_utf8.clone()), invalid_utf8);
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn only_json_bodies_are_filtered() {
    let config = json!({"add": {"json": ["a:1"]}});
    for (content_type, is_filtered) in [
        ("application/json", true),
        ("Application/JSON ; charset=utf-8", true),
        ("application/json; charset=utf-8", true),
        ("application/problem+json; charset=utf-8", true),
        ("application/x-www-form-urlencoded, application/json", true),
        ("application/problem+json", true),
        ("application/json-seq", false),
        ("text/json", false),
        ("application/*", false),
    ] {
        let mut outcome = run(&config, &[("content-type", content_type)]).await;
        assert_eq!(outcome.filter_body("{}") != "{}", is_filtered, "{content_type}");
    }
    assert!(run(&config, &[]).await.state.body_filters.is_empty());
    let config = json!({"add": {"headers": ["a:1"]}});
    assert!(run(&config, &[("content-type", "application/json")]).await.state.body_filters.is_empty());
    // The media type is the one that the plugin sets.
    let config = json!({"add": {"json": ["a:1"]}, "replace": {"headers": ["Content-Type:text/plain"]}});
    assert!(run(&config, &[("content-type", "application/json")]).await.state.body_filters.is_empty());
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn each_operation_on_headers() {
    let headers = [("x-one", "1"), ("x-many", "a"), ("x-many", "b, c"), ("set-cookie", "a=1, b"), ("set-cookie", "b")];
    for (config, name, expected) in [
        (json!({"remove": {"headers": ["X-Many"]}}), "x-many", &[][..]),
        (json!({"remove": {"headers": ["X-Many:a"]}}), "x-many", &["b, c"]),
        (json!({"remove": {"headers": ["X-Many:b"]}}), "x-many", &["a", "c"]),
        (json!({"remove": {"headers": ["X-Many:b", "X-Many:c"]}}), "x-many", &["a"]),
        (json!({"remove": {"headers": ["X-Many:d"]}}), "x-many", &["a", "b, c"]),
        (json!({"remove": {"headers": ["Set-Cookie:b"]}}), "set-cookie", &["a=1, b"]),
        (json!({"remove": {"headers": ["X-Many:"]}}), "x-many", &[]),
        (json!({"rename": {"headers": ["X-Many:X-One"]}}), "x-one", &["a", "b, c"]),
        (json!({"rename": {"headers": ["X-Many:X-One"]}}), "x-many", &[]),
        (json!({"rename": {"headers": ["X-Absent:X-One"]}}), "x-one", &["1"]),
        (json!({"replace": {"headers": ["X-Many: new"]}}), "x-many", &["new"]),
        (json!({"replace": {"headers": ["X-Absent:new"]}}), "x-absent", &[]),
        (json!({"add": {"headers": ["X-Absent:http://a:80/"]}}), "x-absent", &["http://a:80/"]),
        (json!({"add": {"headers": ["X-One:2"]}}), "x-one", &["1"]),
        (json!({"append": {"headers": ["X-One:2", "X-One:3"]}}), "x-one", &["1", "2", "3"]),
        (json!({"append": {"headers": ["X-Absent:1"]}}), "x-absent", &["1"]),
    ] {
        assert_eq!(lines(&run(&config, &headers).await, name), expected, "{config}");
    }
}

#[tokio::test]
async fn replies_of_other_plugins_are_transformed() {
    let termination = crate::plugins::REGISTRY.find("request-termination").unwrap();
    let config = json!({"add": {"headers": ["X-New:1"], "json": ["new:1"]}});
    let chain = chain(&[(&KIND, config), (termination, json!({"status_code": 418, "body": "{}"}))]);
    let mut outcome = TestRequest::get("/").run(&chain).await;
    assert_eq!(outcome.reply_status(), Some(StatusCode::IM_A_TEAPOT));
    assert_eq!(outcome.response_header("x-new"), Some("1"));
    assert_eq!(outcome.filter_body("{}"), r#"{"new":"1"}"#);
}

#[test]
fn all_errors_are_reported_with_their_paths() {
    let config = json!({
        "remove": {"headers": ["", "a b"], "json": [":x"]},
        "rename": {"headers": ["X-A", "X-A:b c"], "json": ["a"]},
        "replace": {"headers": ["X-A"], "json": ["a"]},
        "add": {"headers": ["Content-Length:5", "X-Secret:hunter\n2"], "json": ["a"]},
        "append": {"headers": ["Transfer-Encoding:chunked", "connection:close"], "json": [":a"]},
    });
    let errors = build(&KIND, &config).err().unwrap();
    let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "config.remove.headers[0]",
            "config.remove.headers[1]",
            "config.rename.headers[0]",
            "config.rename.headers[1]",
            "config.replace.headers[0]",
            "config.add.headers[0]",
            "config.add.headers[1]",
            "config.append.headers[0]",
            "config.append.headers[1]",
            "config.remove.json[0]",
            "config.rename.json[0]",
            "config.replace.json[0]",
            "config.add.json[0]",
            "config.append.json[0]",
        ]
    );
    assert!(!format!("{errors:?}").contains("hunter"), "{errors:?}");
    assert!(build(&KIND, &json!({"rename": {"headers": ["X-A:Connection"]}})).is_err());
    assert!(build(&KIND, &json!({"add": {"json_types": ["text"]}})).is_err());
}

#[test]
fn entries_with_less_effect_than_in_kong_or_none_have_notes() {
    let config = json!({
        "remove": {"headers": ["X-A:1"]},
        "rename": {"json": ["a:"], "headers": ["a:"]},
        "add": {"json": ["a:yes", "b:many"], "json_types": ["boolean", "number", "string"], "headers": ["X-B:"]},
    });
    let mut fields: Vec<_> = notes(&KIND, &config).into_iter().map(|note| note.field).collect();
    fields.sort();
    assert_eq!(
        fields,
        [
            "config.add.headers[0]",
            "config.add.json[0]",
            "config.add.json[1]",
            "config.add.json_types",
            "config.remove.headers[0]",
            "config.rename.headers[0]",
            "config.rename.json[0]",
        ]
    );
    assert_eq!(notes(&KIND, &json!({"add": {"json": ["a:1"], "json_types": ["number"]}})), []);
}

proptest::proptest! {
    #[test]
    fn any_body_is_transformed_without_panic(body in "[\\[\\]{}\":,a0-9 \\\\]{0,60}") {
        let config = json!({
            "remove": {"json": ["a"]}, "rename": {"json": ["0:a"]}, "append": {"json": ["a:1"]},
        });
        let transformed = futures_util::FutureExt::now_or_never(transform(config, &body)).unwrap();
        if transformed != body {
            proptest::prop_assert!(serde_json::from_str::<Value>(&transformed).is_ok(), "{body} {transformed:?}");
        }
    }
}
