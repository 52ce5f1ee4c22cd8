//! Tests of payloads, results and refusals.

use http::Request;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::aws_environment::AwsEnvironment;
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::{PluginState, RegisteredKind, RemoteRequest, RemoteResponse};
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, build_with, chain_with};

const KIND: RegisteredKind<AwsLambda> = RegisteredKind::NEW;

fn config(fields: &Value) -> Value {
    let mut config =
        json!({"aws_region": "eu-west-1", "aws_key": "AKID", "aws_secret": "hidden", "function_name": "f"});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

async fn run(
    fields: Value,
    request: TestRequest,
    result: Result<RemoteResponse, String>,
) -> (TestOutcome, RemoteRequest) {
    let server = ScriptedServer::new(move |_| result.clone());
    let chain = chain_with(&[(&KIND, config(&fields))], &PluginState::default(), &server.services());
    let outcome = request.run(&chain).await;
    (outcome, server.last_request())
}

fn ok(body: &str) -> Result<RemoteResponse, String> {
    Ok(response(200, "content-type: application/json\nx-amz-executed-version: 3", body))
}

async fn payload(fields: Value, request: TestRequest) -> Value {
    let (_, sent) = run(fields, request, ok("{}")).await;
    serde_json::from_slice(&sent.body).unwrap()
}

fn post() -> TestRequest {
    let request = TestRequest::post("/things/7?a=1&a=2&b&c=x", "application/json", r#"{"c": "y", "d": [1]}"#);
    request.header("host", "shop.example:8080").header("x-a", "1").header("x-a", "2").header("user-agent", "test")
}

#[tokio::test]
async fn invocations_are_signed_requests_to_the_lambda_api() {
    let (outcome, sent) = run(json!({"qualifier": "v 1", "invocation_type": "Event"}), post(), ok("{}")).await;
    assert_eq!(outcome.reply_status(), Some(StatusCode::OK));
    assert_eq!(outcome.response_header("x-amz-executed-version"), Some("3"));
    assert_eq!(sent.target.as_str(), "/2015-03-31/functions/f/invocations?Qualifier=v%201");
    assert_eq!((&*sent.remote.host, sent.remote.port), ("lambda.eu-west-1.amazonaws.com", 443));
    assert!(sent.remote.tls.is_some_and(|tls| tls.verify));
    assert_eq!(sent.headers["host"], "lambda.eu-west-1.amazonaws.com");
    assert_eq!(sent.headers["x-amz-invocation-type"], "Event");
    assert!(!sent.headers.contains_key("x-amz-log-type"));
    let authorization = sent.headers["authorization"].to_str().unwrap();
    assert!(authorization.contains("/eu-west-1/lambda/aws4_request, SignedHeaders=content-type;host;x-amz-date;"));
    let (_, sent) = run(json!({"host": "::1", "port": 80, "disable_https": true}), post(), ok("{}")).await;
    assert_eq!((&*sent.remote.host, sent.remote.port, sent.remote.tls.is_none()), ("::1", 80, true));
    assert_eq!(sent.headers["host"], "[::1]");
}

#[tokio::test]
async fn payloads_have_the_configured_parts() {
    let merged = json!({"a": ["1", "2"], "b": true, "c": "y", "d": [1]});
    assert_eq!(payload(json!({}), post()).await, merged);
    let form = TestRequest::post("/?a=1", "application/x-www-form-urlencoded", "a=2&b=3");
    assert_eq!(payload(json!({}), form).await, json!({"a": "2", "b": "3"}));
    let all = json!({
        "forward_request_method": true, "forward_request_uri": true, "forward_request_headers": true,
        "forward_request_body": true,
    });
    let expected = json!({
        "request_method": "POST",
        "request_uri": "/things/7?a=1&a=2&b&c=x",
        "request_uri_args": {"a": ["1", "2"], "b": true, "c": "x"},
        "request_headers": {
            "content-type": "application/json", "host": "shop.example:8080", "x-a": ["1", "2"], "user-agent": "test",
        },
        "request_body": r#"{"c": "y", "d": [1]}"#,
        "request_body_args": {"c": "y", "d": [1]},
    });
    assert_eq!(payload(all.clone(), post()).await, expected);
    let binary = TestRequest::post("/", "image/png", &b"\xFF\x00"[..]);
    let sent = payload(json!({"forward_request_body": true}), binary).await;
    assert_eq!(sent, json!({"request_body": "/wA=", "request_body_base64": true, "request_body_args": {}}));
    let list = TestRequest::post("/", "application/json", "[{}, []]");
    assert_eq!(payload(json!({}), list).await, json!([{}, []]));
    let event = payload(json!({"awsgateway_compatible": true}), TestRequest::get("/")).await;
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!(""), &json!(false)));
    let text = TestRequest::post("/", "text/plain", "hello");
    let sent = payload(json!({"forward_request_body": true}), text).await;
    assert_eq!(sent, json!({"request_body": "hello", "request_body_args": {}}));
}

#[tokio::test]
async fn events_are_those_of_the_api_gateway() {
    let mut request = post();
    request.uri_captures.0 = vec![("id", "7".to_owned())];
    let event = payload(json!({"awsgateway_compatible": true}), request).await;
    let context = &event["requestContext"];
    assert_eq!(event["headers"]["x-a"], "1");
    assert_eq!(event["multiValueHeaders"]["x-a"], json!(["1", "2"]));
    assert_eq!(event["queryStringParameters"], json!({"a": "1", "b": "", "c": "x"}));
    assert_eq!(event["multiValueQueryStringParameters"], json!({"a": ["1", "2"], "b": [""], "c": ["x"]}));
    assert_eq!(event["pathParameters"], json!({"id": "7"}));
    assert_eq!((&event["version"], &event["path"]), (&json!("1.0"), &json!("/things/7")));
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("eyJjIjogInkiLCAiZCI6IFsxXX0="), &json!(true)));
    assert_eq!(context["identity"], json!({"sourceIp": "192.0.2.1", "userAgent": "test"}));
    assert_eq!((&context["protocol"], &context["domainPrefix"]), (&json!("HTTP/1.1"), &json!("shop")));
    assert_eq!(context["requestId"], "0123456789abcdef0123456789abcdef");
    let v2 = json!({
        "awsgateway_compatible": true, "awsgateway_compatible_payload_version": "2.0", "base64_encode_body": false,
    });
    let event = payload(v2, post().header("cookie", "a=1; b=2")).await;
    assert_eq!((&event["version"], &event["rawPath"]), (&json!("2.0"), &json!("/things/7")));
    assert_eq!(event["rawQueryString"], "a=1&a=2&b&c=x");
    assert_eq!(event["queryStringParameters"], json!({"a": "1,2", "b": "", "c": "x"}));
    assert_eq!((&event["headers"]["x-a"], &event["cookies"]), (&json!("1,2"), &json!(["a=1", "b=2"])));
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!(r#"{"c": "y", "d": [1]}"#), &json!(false)));
    assert_eq!(event["requestContext"]["http"]["sourceIp"], "192.0.2.1");
}

#[tokio::test]
async fn results_become_responses() {
    let proxy = json!({"is_proxy_integration": true});
    let result = json!({
        "statusCode": 201, "headers": {"X-A": 1, "content-length": "9", "x-b": "old"},
        "multiValueHeaders": {"x-b": ["1", "2"]}, "body": "aGk=", "isBase64Encoded": true,
    });
    let (outcome, _) = run(proxy.clone(), post(), ok(&result.to_string())).await;
    assert_eq!((outcome.reply_status().unwrap().as_u16(), outcome.message()), (201, Some("hi")));
    assert_eq!(outcome.response_header("x-a"), Some("1"));
    assert_eq!(outcome.response.headers.get_all("x-b").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert!(!outcome.response.headers.contains_key("content-length"));
    let (outcome, _) = run(proxy.clone(), post(), ok(r#"{"statusCode": 200, "body": {"a": []}}"#)).await;
    assert_eq!(outcome.message(), Some(r#"{"a":{}}"#));
    for invalid in [
        "no json",
        "[]",
        "{}",
        r#"{"statusCode": "two hundred"}"#,
        r#"{"statusCode": 600}"#,
        r#"{"statusCode": 101}"#,
        r#"{"statusCode": 200, "headers": []}"#,
        r#"{"statusCode": 200, "headers": {"a b": "c"}}"#,
        r#"{"statusCode": 200, "headers": {"a": "b\nc"}}"#,
        r#"{"statusCode": 200, "multiValueHeaders": {"a": "b"}}"#,
        r#"{"statusCode": 200, "body": "%", "isBase64Encoded": true}"#,
        r#"{"statusCode": 200, "isBase64Encoded": "true"}"#,
        r#"{"statusCode": 200, "body": 5}"#,
    ] {
        let (outcome, _) = run(proxy.clone(), post(), ok(invalid)).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::BAD_GATEWAY), "{invalid}");
        let reply = outcome.reply.unwrap();
        assert_eq!(reply.reason, "invalid_function_result");
        let ReplyBody::Raw(body) = &reply.body else { panic!("{invalid}") };
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(body["message"], "Bad Gateway");
        assert!(body["error"].as_str().unwrap().starts_with("could not JSON decode Lambda function response: "));
    }
    let (outcome, _) = run(proxy.clone(), post(), ok(r#"{"statusCode": "202"}"#)).await;
    assert_eq!(outcome.reply_status(), Some(StatusCode::ACCEPTED));
    let document = |body: &str| Ok(response(200, "content-type: application/json", body));
    let (outcome, _) = run(json!({}), post(), document(r#"{"a": []}"#)).await;
    assert_eq!(outcome.message(), Some(r#"{"a": {}}"#));
    let (outcome, _) = run(json!({}), post(), Ok(response(200, "content-type: text/plain", "[]"))).await;
    assert_eq!(outcome.message(), Some("[]"));
    let (outcome, _) = run(json!({"empty_arrays_mode": "correct"}), post(), document(r#"{"a": []}"#)).await;
    assert_eq!(outcome.message(), Some(r#"{"a": []}"#));
    let failed = || Ok(response(200, "x-amz-function-error: Unhandled\nx-amz-log-result: bG9n", "{}"));
    for (fields, status, log) in [
        (json!({}), 200, None),
        (json!({"unhandled_status": 412}), 412, None),
        (json!({"log_type": "Tail"}), 200, Some("bG9n")),
    ] {
        let (outcome, _) = run(fields.clone(), post(), failed()).await;
        assert_eq!(outcome.reply_status().unwrap().as_u16(), status, "{fields}");
        assert_eq!(outcome.response_header("x-amz-log-result"), log, "{fields}");
    }
}

#[tokio::test]
async fn refused_invocations_are_errors() {
    for (fields, result, status, reason) in [
        (json!({}), Ok(response(404, "", "no such function")), 500, "no_function_result"),
        (json!({"preserve_lambda_api_error_code": true}), Ok(response(429, "", "")), 429, "invocation_refused"),
        (json!({}), Err("refused".to_owned()), 500, "no_function_result"),
    ] {
        let (outcome, _) = run(fields.clone(), post(), result).await;
        assert_eq!(outcome.reply_status().unwrap().as_u16(), status, "{fields}");
        assert_eq!(outcome.reply.unwrap().reason, reason);
    }
}

#[test]
fn credentials_of_the_pod_need_permission() {
    let own = json!({"aws_region": "eu-west-1", "function_name": "f"});
    let server = ScriptedServer::new(|_| Err(String::new()));
    let invalid = build_with(&KIND, &own, &PluginState::default(), &server.services()).err().unwrap();
    assert_eq!(invalid[0].field, "config.aws_key");
    assert!(invalid[0].to_string().contains("--allow-aws-pod-credentials"), "{}", invalid[0]);
    let environment = AwsEnvironment { region: Some("eu-west-1".to_owned()), ..AwsEnvironment::default() };
    let server = ScriptedServer::in_aws(Some(environment), |_| Err(String::new()));
    let state = PluginState::default();
    let permitted = json!({"function_name": "f"});
    assert!(build_with(&KIND, &permitted, &state, &server.services()).is_ok(), "region and role are the Pod's");
}

#[test]
fn invalid_configurations_name_the_field() {
    for (fields, field) in [
        (json!({"function_name": ""}), "config.function_name"),
        (json!({"aws_region": null}), "config.aws_region"),
        (json!({"aws_region": "a.example/"}), "config.aws_region"),
        (json!({"aws_secret": null}), "config.aws_secret"),
        (json!({"aws_key": null}), "config.aws_key"),
        (json!({"host": "a/b"}), "config.host"),
        (json!({"port": 0}), "config.port"),
        (json!({"timeout": 0}), "config.timeout"),
        (json!({"unhandled_status": 99}), "config.unhandled_status"),
        (json!({"proxy_url": "http://proxy.example"}), "config.proxy_url"),
        (json!({"aws_sts_endpoint_url": "sts"}), "config.aws_sts_endpoint_url"),
        (json!({"invocation_type": "Async"}), "config.invocation_type"),
        (json!({"log_type": "All"}), "config.log_type"),
    ] {
        let invalid = build(&KIND, &config(&fields)).err().unwrap_or_else(|| panic!("{fields} was accepted"));
        assert_eq!(invalid[0].field, field, "{fields}: {invalid:?}");
        assert!(invalid.iter().all(|invalid| !invalid.to_string().contains("hidden")), "{invalid:?}");
    }
}

#[tokio::test]
async fn large_bodies_are_skipped_or_rejected() {
    let server = ScriptedServer::new(|_| ok("{}"));
    let state = PluginState::default();
    for (skips, length, buffers) in [
        (true, Some(MAX_BODY + 1), false),
        (true, Some(MAX_BODY), true),
        (true, None, true),
        (false, Some(MAX_BODY + 1), true),
    ] {
        let fields = config(&json!({"skip_large_bodies": skips}));
        let plugin = build_with(&KIND, &fields, &state, &server.services()).unwrap();
        let mut head = Request::post("/").body(()).unwrap().into_parts().0;
        head.headers.extend(length.map(|length| (CONTENT_LENGTH, HeaderValue::from(length))));
        assert_eq!(plugin.buffers_body(&head), buffers, "{skips} {length:?}");
    }
}
