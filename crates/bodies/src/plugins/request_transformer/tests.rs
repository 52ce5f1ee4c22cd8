//! Tests of the plugin without the proxy: each field, each format of bodies, invalid configurations and values.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, Method, Request, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestCaptures, TestOutcome, TestRequest, build, chain, notes};
use crate::request_edits::MAX_BODY_BYTES;

const KIND: RegisteredKind<RequestTransformer> = RegisteredKind::NEW;
const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json; charset=utf-8";
const MULTIPART: &str = "multipart/form-data; boundary=b";

async fn transform(config: &Value, request: TestRequest) -> TestOutcome {
    request.run(&chain(&[(&KIND, config.clone())])).await
}

/// All values of a header of the request to the endpoint.
fn values(outcome: &TestOutcome, name: &str) -> Vec<String> {
    let values = outcome.request.headers.get_all(name).iter();
    values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

// docs/kong-compatibility.md, 4.29
#[tokio::test]
async fn headers_are_edited() {
    for (config, expected) in [
        (json!({"remove": {"headers": ["X-A"]}}), &[][..]),
        (json!({"rename": {"headers": ["X-A:X-B"]}}), &[("x-b", "1"), ("x-b", "2")]),
        (json!({"rename": {"headers": ["X-A:x-a"]}}), &[("x-a", "1"), ("x-a", "2")]),
        (json!({"rename": {"headers": ["X-None:x-b"]}}), &[("x-a", "1"), ("x-a", "2")]),
        (json!({"replace": {"headers": ["x-A:3", "x-b:4"]}}), &[("x-a", "3")]),
        (json!({"add": {"headers": ["x-a:3", "X-B:4:5"]}}), &[("x-a", "1"), ("x-a", "2"), ("x-b", "4:5")]),
        (
            json!({"append": {"headers": ["x-a:3", "x-b::4"]}}),
            &[("x-a", "1"), ("x-a", "2"), ("x-a", "3"), ("x-b", "4")],
        ),
        // Remove, rename, replace, add, append.
        (
            json!({
                "append": {"headers": ["x-b:5"]}, "add": {"headers": ["x-a:4", "x-b:none"]},
                "replace": {"headers": ["x-b:3"]}, "rename": {"headers": ["x-a:x-b"]}, "remove": {"headers": ["x-b"]},
            }),
            &[("x-a", "4"), ("x-b", "3"), ("x-b", "5")],
        ),
        (
            json!({"add": {"headers": ["x-b:$(headers.x_none)", "x-c:a$(headers.none)b"]}}),
            &[("x-a", "1"), ("x-a", "2"), ("x-c", "ab")],
        ),
        (json!({"replace": {"headers": ["x-a:$(nil)"]}}), &[("x-a", "1"), ("x-a", "2")]),
        (json!({"add": {"headers": ["x-b: $(' spaces ')"]}}), &[("x-a", "1"), ("x-a", "2"), ("x-b", "spaces")]),
    ] {
        let request = TestRequest::get("/").header("x-a", "1").header("x-a", "2");
        let outcome = transform(&config, request).await;
        let found: Vec<(&str, String)> = ["x-a", "x-b", "x-c"]
            .into_iter()
            .flat_map(|name| values(&outcome, name).into_iter().map(move |value| (name, value)))
            .collect();
        let expected: Vec<(&str, String)> = expected.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        assert_eq!(found, expected, "{config}");
    }
    let config = json!({"replace": {"headers": ["Host:shop.internal:8080"]}});
    assert_eq!(values(&transform(&config, TestRequest::get("/")).await, "host"), ["shop.internal:8080"]);
}

// docs/kong-compatibility.md, 4.29
#[tokio::test]
async fn queries_are_edited() {
    for (config, query, expected) in [
        (json!({"remove": {"querystring": ["a"]}}), "a=1&b=%2f&a", "b=%2f"),
        (json!({"remove": {"querystring": ["a"]}}), "a=1", ""),
        (json!({"rename": {"querystring": ["a:c d"]}}), "a=1&b=2&a=%33", "c%20d=1&b=2&c%20d=%33"),
        (json!({"rename": {"querystring": ["a:b"]}}), "a=1&b=2", "b=1"),
        (json!({"replace": {"querystring": ["a:x&y", "c:1"]}}), "a=1&b=2&a=3", "a=x%26y&b=2"),
        (json!({"add": {"querystring": ["a:2", "c:3"]}}), "a=1", "a=1&c=3"),
        (json!({"add": {"querystring": ["c:3"]}}), "", "c=3"),
        (json!({"append": {"querystring": ["a:2"]}}), "a=1", "a=1&a=2"),
        (
            json!({"add": {"querystring": ["c:$(query_params.a)-$(query_params.flag)"]}}),
            "a=%20x&flag",
            "a=%20x&flag&c=%20x-true",
        ),
        // Templates see the query as it arrived.
        (json!({"remove": {"querystring": ["a"]}, "add": {"querystring": ["c:$(query_params.a)"]}}), "a=1", "c=1"),
    ] {
        let outcome = transform(&config, TestRequest::get(&format!("/p?{query}"))).await;
        assert_eq!(outcome.request.uri.query().unwrap_or_default(), expected, "{config} {query}");
        assert_eq!(outcome.request.uri.path(), "/p");
    }
}

// docs/kong-compatibility.md, 4.29
#[tokio::test]
async fn path_and_method_are_replaced() {
    for (uri, expected) in [
        ("/v2/$(uri_captures.id)", "/v2/42?q=%2f"),
        ("/v2/$(uri_captures[1])", "/v2/42?q=%2f"),
        ("/$(query_params.q)/a b?c#d%zz%2F", "///a%20b%3Fc%23d%25zz%2F?q=%2f"),
        ("$(headers.x_path)", "/from/header?q=%2f"),
        ("/$(headers.host)", "/test.example?q=%2f"),
    ] {
        let mut request = TestRequest::get("/users/42?q=%2f").header("x-path", "/from/header");
        request.uri_captures = TestCaptures(vec![("id", "42".to_owned())]);
        let outcome = transform(&json!({"replace": {"uri": uri}, "http_method": "put"}), request).await;
        assert_eq!(outcome.request.uri.to_string(), expected, "{uri}");
        assert_eq!(outcome.request.method, Method::PUT);
    }
}

fn gzip(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap().into()
}

// docs/kong-compatibility.md, 4.29
#[tokio::test]
async fn bodies_are_edited() {
    let part =
        |name: &str, value: &str| format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let parts =
        |parts: &[(&str, &str)]| parts.iter().map(|(name, value)| part(name, value)).collect::<String>() + "--b--\r\n";
    let (one, list) = (json!({"append": {"body": ["a:2"]}}), json!({"append": {"body": ["a:$(headers.x)"]}}));
    for (config, content_type, body, expected) in [
        (
            json!({"remove": {"body": ["b"]}}),
            JSON,
            r#"{"a": 1.10, "b": 2, "c": []}"#.to_owned(),
            r#"{"a":1.10,"c":[]}"#.to_owned(),
        ),
        (
            json!({"rename": {"body": ["a:z"]}}),
            JSON,
            r#"{"a":{"b":[ ]},"c":2}"#.into(),
            r#"{"z":{"b":[ ]},"c":2}"#.into(),
        ),
        (
            json!({"replace": {"body": ["a:x\"y", "d:1"]}}),
            JSON,
            r#"{"a":1,"c":2}"#.into(),
            r#"{"a":"x\"y","c":2}"#.into(),
        ),
        (json!({"add": {"body": ["a:x", "d:$(nil)"]}}), JSON, r#"{"a":1}"#.into(), r#"{"a":1,"d":""}"#.into()),
        (json!({"add": {"body": ["a:x"]}}), JSON, String::new(), r#"{"a":"x"}"#.into()),
        (one.clone(), JSON, r#"{"a":1.0}"#.into(), r#"{"a":[1.0,"2"]}"#.into()),
        (one.clone(), JSON, r#"{"a":["1"]}"#.into(), r#"{"a":["1","2"]}"#.into()),
        (one.clone(), JSON, r#"{"a":null}"#.into(), r#"{"a":["2"]}"#.into()),
        (list, JSON, "{}".into(), r#"{"a":["header"]}"#.into()),
        // Bodies that are not edited keep their bytes.
        (json!({"remove": {"body": ["b"]}}), JSON, "{ \"a\": 1 }".into(), "{ \"a\": 1 }".into()),
        (json!({"remove": {"body": ["b"]}}), JSON, "[1, 2]".into(), "[1, 2]".into()),
        (json!({"add": {"body": ["b:1"]}}), JSON, "{\"a\":".into(), "{\"a\":".into()),
        (json!({"remove": {"body": ["a"]}}), "text/plain", "a=1".into(), "a=1".into()),
        (json!({"remove": {"body": ["a"]}, "append": {"body": ["b:3"]}}), FORM, "a=1&b=%32".into(), "b=%32&b=3".into()),
        (json!({"rename": {"body": ["a:b"]}, "add": {"body": ["c:ü"]}}), FORM, "a=1".into(), "b=1&c=%C3%BC".into()),
        (json!({"remove": {"body": ["a"]}}), MULTIPART, parts(&[("a", "1"), ("b", "2")]), parts(&[("b", "2")])),
        (
            json!({"rename": {"body": ["a:c"]}}),
            MULTIPART,
            parts(&[("a", "1"), ("b", "2")]),
            parts(&[("c", "1"), ("b", "2")]),
        ),
        (
            json!({"replace": {"body": ["a:x"]}}),
            MULTIPART,
            parts(&[("a", "1"), ("b", "2"), ("a", "3")]),
            parts(&[("a", "x"), ("b", "2")]),
        ),
        (
            json!({"add": {"body": ["a:x", "c\"d:y"]}}),
            MULTIPART,
            parts(&[("a", "1")]),
            parts(&[("a", "1"), ("c\\\"d", "y")]),
        ),
        (json!({"add": {"body": ["a:2"]}}), MULTIPART, parts(&[]), parts(&[("a", "2")])),
        (json!({"add": {"body": ["a:2"]}}), MULTIPART, String::new(), parts(&[("a", "2")])),
        // As in Kong, nothing is appended to multipart bodies.
        (one, MULTIPART, parts(&[("a", "1")]), parts(&[("a", "1")])),
        // The format of the body is that of the new headers.
        (
            json!({"replace": {"headers": ["content-type:application/json"]}, "add": {"body": ["a:2"]}}),
            "text/plain",
            "{}".into(),
            r#"{"a":"2"}"#.into(),
        ),
    ] {
        for is_compressed in [false, true] {
            let sent = if is_compressed { gzip(body.as_bytes()) } else { Bytes::from(body.clone()) };
            let mut request = TestRequest::post("/", content_type, sent.clone()).header("x", "header");
            if is_compressed {
                request = request.header("content-encoding", "gzip");
            }
            let outcome = transform(&config, request).await;
            let case = format!("{config} {content_type} {body:?} {is_compressed}");
            assert_eq!(outcome.reply_status(), None, "{case}");
            match &outcome.state.body_changes.replacement {
                Some(replaced) => {
                    assert_eq!(String::from_utf8_lossy(replaced), expected, "{case}");
                    assert_eq!(outcome.upstream_header("content-length"), Some(&*expected.len().to_string()), "{case}");
                    assert_eq!(outcome.upstream_header("content-encoding"), None, "{case}");
                }
                None => {
                    assert_eq!(body, expected, "{case}");
                    assert_eq!(values(&outcome, "content-encoding").len(), usize::from(is_compressed), "{case}");
                }
            }
        }
    }
}

// docs/kong-compatibility.md, 4.29
#[tokio::test]
async fn forms_move_to_the_query_if_the_method_has_no_body() {
    for (method, body, expected) in [
        ("GET", "a=1&b=x+y", "/?q=1&a=1&b=x+y"),
        ("head", "secret=1&b=2 <\u{1}", "/?q=1&b=2%20%3C%01"),
        ("TRACE", "", "/?q=1"),
    ] {
        let config = json!({"http_method": method, "remove": {"body": ["secret"]}});
        let outcome = transform(&config, TestRequest::post("/?q=1", FORM, body)).await;
        assert_eq!(outcome.request.uri, expected, "{method}");
        assert_eq!(outcome.request.method.as_str(), method.to_ascii_uppercase());
        assert_eq!(outcome.state.body_changes.replacement, Some(Bytes::new()));
        assert_eq!((outcome.upstream_header("content-length"), outcome.upstream_header("content-type")), (None, None));
    }
    let outcome = transform(&json!({"http_method": "GET"}), TestRequest::post("/", JSON, "{}")).await;
    assert_eq!((outcome.state.body_changes.replacement, outcome.request.uri.query()), (None, None));
    let outcome = transform(&json!({"http_method": "POST"}), TestRequest::post("/", FORM, "a=1")).await;
    assert_eq!((outcome.state.body_changes.replacement, outcome.request.uri.query()), (None, None));
}

#[tokio::test]
async fn bodies_beyond_limits_and_broken_encodings_are_rejected() {
    let config = json!({"remove": {"body": ["a"]}});
    let many = |separator: &str, count: usize| vec!["a=1"; count].join(separator);
    let members: Vec<String> = (0..10_001).map(|number| format!("\"{number}\":1")).collect();
    for (content_type, encoding, body, expected) in [
        (FORM, "gzip", gzip(&vec![b'x'; MAX_BODY_BYTES + 1]), Some(413)),
        (FORM, "gzip", gzip(&vec![b'x'; MAX_BODY_BYTES]), None),
        (FORM, "X-GZIP", gzip(b"a=1"), None),
        (FORM, "gzip", Bytes::from_static(b"a=1"), Some(400)),
        (FORM, "gzip", gzip(b"a=1").slice(..15), Some(400)),
        (FORM, "br", Bytes::from_static(b"a=1"), None),
        (FORM, "identity", Bytes::from(many("&", 10_002)), Some(413)),
        (FORM, "identity", Bytes::from(many("&", 10_000)), None),
        (JSON, "identity", Bytes::from(format!("{{{}}}", members.join(","))), Some(413)),
    ] {
        let request = TestRequest::post("/", content_type, body).header("content-encoding", encoding);
        let outcome = transform(&config, request).await;
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), expected, "{content_type} {encoding}");
    }
    // Two gzip members are one body.
    let two = Bytes::from([gzip(b"b=1&"), gzip(b"a=2")].concat());
    let outcome = transform(&config, TestRequest::post("/", FORM, two).header("content-encoding", "gzip")).await;
    assert_eq!(outcome.state.body_changes.replacement.as_deref(), Some(&b"b=1"[..]));
    // An unknown encoding leaves the body as it is.
    let request = TestRequest::post("/", FORM, "a=1").header("content-encoding", "gzip, br");
    assert_eq!(transform(&config, request).await.state.body_changes.replacement, None);
}

#[test]
fn only_bodies_that_may_change_are_buffered() {
    let head = |content_type: &'static str, encoding: &'static str| {
        let request = Request::post("/").header("content-type", content_type).header("content-encoding", encoding);
        request.body(()).unwrap().into_parts().0
    };
    let body = json!({"remove": {"body": ["a"]}});
    let typed = json!({"add": {"headers": ["content-type:application/json"], "body": ["a:b"]}});
    for (config, content_type, encoding, expected) in [
        (&body, "application/json", "gzip", true),
        (&body, "APPLICATION/JSON;charset=x", "identity", true),
        (&body, FORM, "", true),
        (&body, MULTIPART, "", true),
        (&body, "application/grpc", "", false),
        (&body, "application/grpc+json", "", false),
        (&body, "application/json-patch+json", "", false),
        (&body, "text/plain", "", false),
        (&body, "application/json", "br", false),
        (&json!({"http_method": "GET"}), FORM, "", true),
        (&json!({"http_method": "GET"}), "application/json", "", false),
        (&typed, "text/plain", "", true),
        (&typed, "text/plain", "br", false),
        (&typed, "application/grpc", "", false),
    ] {
        let plugin = build(&KIND, config).unwrap();
        assert_eq!(plugin.body_buffer_limit(), Some(MAX_BODY_BYTES));
        assert_eq!(plugin.buffers_body(&head(content_type, encoding)), expected, "{config} {content_type} {encoding}");
    }
    for config in [json!({}), json!({"http_method": "POST"}), json!({"add": {"headers": ["a:b"]}})] {
        assert_eq!(build(&KIND, &config).unwrap().body_buffer_limit(), None, "{config}");
    }
}

#[tokio::test]
async fn hostile_values_are_rejected() {
    let hostile = "/?v=%0D%0Ax-evil:%201&d=--b&u=http://evil.example/&n=%00&f=%FF";
    for config in [
        json!({"add": {"headers": ["x-a:$(query_params.v)"]}}),
        json!({"add": {"headers": ["x-a:$(query_params.n)"]}}),
        json!({"replace": {"headers": ["host:$(query_params.u)"]}}),
        json!({"replace": {"headers": ["host:a@$(headers.host)"]}}),
        json!({"replace": {"uri": "$(query_params.u)"}}),
        json!({"replace": {"uri": "/$(query_params.v)"}}),
        json!({"replace": {"uri": "$(headers.none)"}}),
        json!({"add": {"body": ["x:$(query_params.d)"]}}),
        json!({"add": {"headers": ["x-a:$(1 + headers.none)"]}}),
        json!({"add": {"querystring": ["x-a:$(#nil)"]}}),
    ] {
        let request = TestRequest::post(hostile, MULTIPART, "--b--\r\n");
        let outcome = transform(&config, request).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::INTERNAL_SERVER_ERROR), "{config}");
        assert_eq!(outcome.message(), Some("An unexpected error occurred"));
        assert_eq!(outcome.reply.unwrap().reason, "transformation_failed");
        assert!(!outcome.request.headers.contains_key("x-evil"));
    }
    let json_value = json!({"add": {"body": ["x:$(query_params.f)"]}});
    let outcome = transform(&json_value, TestRequest::post(hostile, JSON, "{}")).await;
    assert_eq!(outcome.reply_status(), Some(StatusCode::INTERNAL_SERVER_ERROR));
    let outcome = transform(&json!({"add": {"querystring": ["x:$(query_params.v)"]}}), TestRequest::get(hostile)).await;
    assert!(outcome.request.uri.query().unwrap().ends_with("&x=%0D%0Ax-evil%3A%201"));
}

#[test]
fn all_errors_of_a_configuration_are_reported() {
    let config = json!({
        "http_method": "CONNECT",
        "remove": {"headers": ["a b"], "body": [""]},
        "rename": {"headers": ["x-a:host", "x-a"], "querystring": ["a:"]},
        "replace": {"uri": "http://x", "headers": ["host:a@b"]},
        "add": {"headers": ["x:$(a = 1)", "x:a\nb"], "body": ["x", "a\u{1}:b"]},
        "append": {"headers": ["x"], "querystring": ["a:$(os.time())"]},
    });
    let invalid = build(&KIND, &config).err().unwrap();
    let mut fields: Vec<&str> = invalid.iter().map(|diagnostic| &*diagnostic.field).collect();
    fields.sort_unstable();
    let expected = [
        "config.add.body[0]",
        "config.add.body[1]",
        "config.add.headers[0]",
        "config.add.headers[1]",
        "config.append.headers[0]",
        "config.append.querystring[0]",
        "config.http_method",
        "config.remove.body[0]",
        "config.remove.headers[0]",
        "config.rename.headers[0]",
        "config.rename.headers[1]",
        "config.rename.querystring[0]",
        "config.replace.headers[0]",
        "config.replace.uri",
    ];
    assert_eq!(fields, expected, "{invalid:?}");
    assert!(invalid.iter().all(|diagnostic| !diagnostic.remedy.is_empty()), "{invalid:?}");
    let many = json!({"add": {"headers": vec!["a:b"; 201]}});
    assert_eq!(build(&KIND, &many).err().unwrap()[0].field, "config.add.headers");
    assert!(build(&KIND, &json!({"add": ["x:y"]})).is_err(), "a list instead of an object");
}

// docs/kong-compatibility.md, 4.29
#[tokio::test]
async fn entries_that_kong_ignores_do_not_prevent_the_others() {
    for (ignored, path) in [
        (json!({"add": {"headers": ["Host:evil.example"]}}), "config.add.headers[0]"),
        (json!({"append": {"headers": ["host:evil.example"]}}), "config.append.headers[0]"),
        (json!({"remove": {"headers": ["host"]}}), "config.remove.headers[0]"),
        (json!({"rename": {"headers": ["host:x-b"]}}), "config.rename.headers[0]"),
        (json!({"rename": {"headers": ["connection:x-b"]}}), "config.rename.headers[0]"),
        (json!({"add": {"headers": ["Connection:close"]}}), "config.add.headers[0]"),
        (json!({"replace": {"headers": ["content-length:1"]}}), "config.replace.headers[0]"),
        (json!({"append": {"headers": ["transfer-encoding:chunked"]}}), "config.append.headers[0]"),
        (json!({"remove": {"headers": ["te"]}}), "config.remove.headers[0]"),
        (json!({"remove": {"headers": ["te:trailers"]}}), "config.remove.headers[0]"),
        (json!({"add": {"headers": ["x-c:"]}}), "config.add.headers[0]"),
        (json!({"append": {"headers": ["x-c::"]}}), "config.append.headers[0]"),
        (json!({"replace": {"headers": ["x-a:"]}}), "config.replace.headers[0]"),
        (json!({"add": {"headers": ["connection:"]}}), "config.add.headers[0]"),
    ] {
        let mut config = ignored.clone();
        // In a list of its own and in that of the ignored entry, others apply.
        config["add"]["querystring"] = json!(["page:1"]);
        let list = ["add", "append", "replace", "rename", "remove"].into_iter().find(|list| ignored[list].is_object());
        let entry = match list.unwrap() {
            "rename" => "x-a:x-c",
            "remove" => "x-a",
            _ => "x-a:2",
        };
        config[list.unwrap()]["headers"].as_array_mut().unwrap().push(entry.into());
        let notes = notes(&KIND, &config);
        let fields: Vec<_> = notes.iter().map(|note| &*note.field).collect();
        assert_eq!(fields, [path], "{config}");
        assert!(notes.iter().all(|note| !note.is_error() && note.message.ends_with("has no effect")), "{notes:?}");
        let request = TestRequest::get("/").header("host", "test.example").header("x-a", "1");
        let outcome = transform(&config, request).await;
        assert_eq!(values(&outcome, "host"), ["test.example"], "{config}");
        assert_eq!(outcome.request.uri.query(), Some("page=1"), "{config}");
        let expected: &[&str] = match list.unwrap() {
            "append" => &["1", "2"],
            "replace" => &["2"],
            "add" => &["1"],
            _ => &[],
        };
        assert_eq!(values(&outcome, "x-a"), expected, "{config}");
        let renamed: &[&str] = if list == Some("rename") { &["1"] } else { &[] };
        assert_eq!(values(&outcome, "x-c"), renamed, "{config}");
    }
}

// docs/kong-compatibility.md, 4.29
#[tokio::test]
async fn removals_and_renames_with_ignored_parts_remove_the_field() {
    for config in [
        json!({"remove": {"headers": ["x-a:1"]}}),
        json!({"remove": {"headers": ["x-a:"]}}),
        json!({"rename": {"headers": ["x-a:te"]}}),
    ] {
        let notes = notes(&KIND, &config);
        assert_eq!(notes.len(), 1, "{config}: {notes:?}");
        let outcome = transform(&config, TestRequest::get("/").header("x-a", "1")).await;
        assert_eq!(values(&outcome, "x-a"), [""; 0], "{config}");
        assert_eq!(values(&outcome, "te"), [""; 0], "{config}");
    }
    let config = json!({"remove": {"querystring": ["q:1"], "body": ["a:b"]}});
    assert_eq!(notes(&KIND, &config).len(), 2);
    let outcome = transform(&config, TestRequest::get("/?q=2&r=3")).await;
    assert_eq!(outcome.request.uri.query(), Some("r=3"));
}

proptest! {
    #[test]
    fn no_body_and_no_value_panics(
        content_type in prop::sample::select(&[FORM, JSON, MULTIPART][..]),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            "[{}\\[\\]\":,ab1&=% \r\n-]{0,60}".prop_map(String::into_bytes),
            "(--b\r\n(Content-Disposition: form-data; name=a\r\n)?\r\n[a-z\r\n-]{0,5}\r\n){0,3}(--b--)?"
                .prop_map(String::into_bytes),
        ],
        is_compressed in any::<bool>(),
        value in prop::collection::vec(prop_oneof![0x20..=0x7eu8, 0x80..=0xffu8], 0..20),
    ) {
        let config = json!({
            "http_method": "PUT",
            "remove": {"body": ["a"], "querystring": ["a"]},
            "rename": {"body": ["b:c"], "querystring": ["b:c"]},
            "replace": {"body": ["c:$(headers.x)"], "uri": "/$(headers.x)", "querystring": ["c:$(headers.x)"]},
            "add": {"body": ["d:$(headers.x)"], "headers": ["y:$(headers.x)"], "querystring": ["d:$(headers.x)"]},
            "append": {"body": ["d:$(headers.x)"]},
        });
        let mut request = TestRequest::post("/?a=1&b=2", content_type, body);
        request.request.headers_mut().insert("x", HeaderValue::from_bytes(&value).unwrap());
        if is_compressed {
            request = request.header("content-encoding", "gzip");
        }
        let outcome = futures_util::FutureExt::now_or_never(transform(&config, request)).unwrap();
        if outcome.reply.is_none() {
            let target = outcome.request.uri.path_and_query().unwrap().as_str();
            prop_assert!(target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic()), "{target}");
        }
    }
}
