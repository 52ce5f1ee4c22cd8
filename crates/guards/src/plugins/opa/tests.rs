//! Tests of the input and of the decisions.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::plugin_api::consumers::{EntityId, KeyCredential};
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::{
    AnyPluginKind, Consumer, ConsumerDirectory, PluginState, RegisteredKind, RemoteRequest, RemoteResponse,
};
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain_with, consumer};

const KIND: RegisteredKind<Opa> = RegisteredKind::NEW;

async fn run(
    fields: Value,
    request: TestRequest,
    decision: Result<RemoteResponse, String>,
) -> (TestOutcome, RemoteRequest) {
    let mut config = json!({"opa_host": "opa.example", "opa_path": "/v1/data/shop/allow"});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let server = ScriptedServer::new(move |_| decision.clone());
    let chain = chain_with(&[(&KIND, config)], &PluginState::default(), &server.services());
    let outcome = request.run(&chain).await;
    let sent = server.last_request();
    let client = IpAddr::from([192, 0, 2, 1]);
    assert_eq!(*server.of_clients.lock(), [("/v1/data/shop/allow".to_owned(), client)], "counts for its client");
    (outcome, sent)
}

fn result(result: Value) -> Result<RemoteResponse, String> {
    Ok(response(200, "content-type: application/json", &json!({"result": result}).to_string()))
}

#[tokio::test]
async fn the_policy_gets_the_request() {
    let http = json!({
        "host": "shop.example", "port": 8080, "method": "POST", "scheme": "http", "path": "/a",
        "querystring": {"b": ["c", "d"], "e": true, "f": "g h"},
        "headers": {"content-type": "application/json", "host": "shop.example:8080", "x-a": ["1", "2"]},
    });
    let request = || {
        let mut request = TestRequest::post("/a?b=c&b=d&e&f=g+h", "application/json", r#"{"a": 1}"#)
            .header("host", "shop.example:8080")
            .header("x-a", "1")
            .header("x-a", "2");
        request.uri_captures.0 = vec![("", "one".to_owned()), ("", "two".to_owned())];
        request
    };
    let with = |path: &[&str], value: Value| {
        let mut input = json!({"request": {"http": http}, "client_ip": "192.0.2.1"});
        let target = path.iter().fold(&mut input, |value, name| &mut value[*name]);
        *target = value;
        json!({"input": input})
    };
    let plain = json!({"input": {"request": {"http": http}, "client_ip": "192.0.2.1"}});
    let mut with_body = plain.clone();
    with_body["input"]["request"]["http"]["body"] = json!(r#"{"a": 1}"#);
    with_body["input"]["request"]["http"]["body_size"] = json!(8);
    for (field, expected) in [
        ("ssl_verify", plain.clone()),
        ("include_service_in_opa_input", with(&["service"], json!({"name": "default.web.80"}))),
        ("include_route_in_opa_input", with(&["route"], json!({"name": "default.test.web..80"}))),
        ("include_consumer_in_opa_input", plain),
        ("include_body_in_opa_input", with_body),
        ("include_parsed_json_body_in_opa_input", with(&["request", "http", "parsed_body"], json!({"a": 1}))),
        (
            "include_uri_captures_in_opa_input",
            with(&["request", "http", "uri_captures"], json!({"unnamed": ["one", "two"]})),
        ),
    ] {
        let (outcome, sent) = run(json!({(field): true}), request(), result(json!(true))).await;
        assert_eq!(outcome.reply_status(), None, "{field}");
        let body: Value = serde_json::from_slice(&sent.body).unwrap();
        assert_eq!(body, expected, "{field}");
        assert_eq!((sent.method.as_str(), sent.target.as_str()), ("POST", "/v1/data/shop/allow"));
        assert_eq!((&*sent.remote.host, sent.remote.port), ("opa.example", 8181));
    }
}

/// As Kong documents it: `id`, `username` and `custom_id` of the consumer that another plugin has authenticated.
#[tokio::test]
async fn the_policy_gets_the_consumer_of_another_plugin() {
    let (anna, guest) = (consumer("anna", &[]), consumer("guest", &[]));
    let nameless = Arc::new(Consumer::new(EntityId::from_text("id-nameless"), None, None, vec![], vec![]));
    let mut consumers = ConsumerDirectory::default();
    for (key, consumer) in [("key", &anna), ("nameless", &nameless)] {
        consumers.add(consumer);
        let id = EntityId::from_text(&format!("id-{key}"));
        consumers.keys.insert(Arc::new(KeyCredential::new(id, key.as_bytes(), None, Arc::clone(consumer))));
    }
    consumers.add(&guest);
    let of = |name: &str| json!({"id": format!("id-{name}"), "username": name, "custom_id": format!("custom-{name}")});
    let key_auth = crate::plugins::REGISTRY.find("key-auth").unwrap();
    for (is_included, key, expected) in [
        (true, Some("key"), of("anna")),
        (true, Some("nameless"), json!({"id": "id-nameless", "username": null, "custom_id": null})),
        (true, None, of("guest")),
        (false, Some("key"), Value::Null),
    ] {
        let server = ScriptedServer::new(|_| result(json!(true)));
        let config = json!({
            "opa_host": "opa.example", "opa_path": "/v1/data/shop/allow", "include_consumer_in_opa_input": is_included,
        });
        let plugins: [(&dyn AnyPluginKind, Value); 2] = [(&KIND, config), (key_auth, json!({"anonymous": "guest"}))];
        let chain = chain_with(&plugins, &PluginState::default(), &server.services());
        // What the client claims does not count.
        let request = TestRequest::get("/").header("x-consumer-username", "root").with_consumers(&consumers);
        let request = key.into_iter().fold(request, |request, key| request.header("apikey", key));
        assert_eq!(request.run(&chain).await.message(), None, "{key:?}");
        let sent: Value = serde_json::from_slice(&server.last_request().body).unwrap();
        assert_eq!(sent["input"]["consumer"], expected, "{key:?}");
        assert_eq!(sent["input"].as_object().unwrap().contains_key("consumer"), is_included, "{key:?}");
        let username = &sent["input"]["request"]["http"]["headers"]["x-consumer-username"];
        assert_ne!(username, "root", "{key:?}");
    }
}

#[tokio::test]
async fn decisions_allow_and_deny() {
    for (decision, status, message) in [
        (json!(true), None, None),
        (json!({"allow": true}), None, None),
        (json!(false), Some(403), Some("unauthorized")),
        (json!({"allow": false}), Some(403), Some("unauthorized")),
        (json!({"allow": false, "status": 404, "message": "no"}), Some(404), Some("no")),
        (json!({"allow": false, "message": {"code": 7}}), Some(403), Some(r#"{"code":7}"#)),
    ] {
        let (outcome, _) = run(json!({}), TestRequest::get("/"), result(decision.clone())).await;
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), status, "{decision}");
        assert_eq!(outcome.message(), message, "{decision}");
    }
    let decision = json!({"allow": true, "headers": {"X-Role": "admin", "x-level": 5}});
    let request = TestRequest::get("/").header("x-role", "forged").header("x_role", "forged");
    let (outcome, _) = run(json!({}), request, result(decision)).await;
    let roles: Vec<_> = outcome.request.headers.get_all("x-role").iter().collect();
    assert_eq!(roles, ["admin"]);
    assert_eq!(outcome.upstream_header("x_role"), None, "some endpoints take it for the other header");
    assert_eq!(outcome.upstream_header("x-level"), Some("5"));
    let fields = outcome.state.fields_of_request().unwrap().request;
    assert!(fields.contains(&"x-role".parse().unwrap()), "a trailer must not have the field");
    let decision = json!({"allow": false, "headers": {"x-reason": "age"}});
    let (outcome, _) = run(json!({}), TestRequest::get("/"), result(decision)).await;
    assert_eq!(outcome.response_header("x-reason"), Some("age"));
}

#[tokio::test]
async fn everything_else_is_an_error() {
    let invalid = [
        json!("yes"),
        json!(1),
        json!({}),
        json!({"allow": "true"}),
        json!({"allow": false, "status": 99}),
        json!({"allow": false, "status": "403"}),
        json!({"allow": true, "headers": []}),
        json!({"allow": true, "headers": {"a b": "c"}}),
        json!({"allow": true, "headers": {"host": "other.example"}}),
        json!({"allow": true, "headers": {"x-a": ["b"]}}),
    ];
    let others = [
        Ok(response(200, "", "{}")),
        Ok(response(200, "", "no json")),
        Ok(response(404, "", r#"{"result": true}"#)),
        Ok(response(500, "", r#"{"result": true}"#)),
        Err("refused".to_owned()),
    ];
    for decision in invalid.map(result).into_iter().chain(others) {
        let (outcome, _) = run(json!({}), TestRequest::get("/"), decision.clone()).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::INTERNAL_SERVER_ERROR), "{decision:?}");
        assert_eq!(outcome.reply.unwrap().reason, "no_decision");
        assert!(!outcome.request.headers.contains_key("x-a"));
    }
}

#[test]
fn invalid_configurations_name_the_field() {
    for (config, field) in [
        (json!({}), "config.opa_path"),
        (json!({"opa_path": "v1/data"}), "config.opa_path"),
        (json!({"opa_path": "/a", "opa_host": ""}), "config.opa_host"),
        (json!({"opa_path": "/a", "opa_host": "user@host"}), "config.opa_host"),
        (json!({"opa_path": "/a", "opa_host": "opa:8181"}), "config.opa_host"),
        (json!({"opa_path": "/a", "opa_host": "[opa]"}), "config.opa_host"),
        (json!({"opa_path": "/a", "opa_port": 0}), "config.opa_port"),
        (json!({"opa_path": "/a", "opa_protocol": "grpc"}), "config.opa_protocol"),
        (json!({"opa_path": "/a", "timeout": 0}), "config.timeout"),
    ] {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
    }
    for host in ["::1", "[::1]", "opa", "127.0.0.1"] {
        assert!(build(&KIND, &json!({"opa_path": "/a", "opa_host": host})).is_ok(), "{host}");
    }
}
