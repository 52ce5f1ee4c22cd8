//! Tests of the messages, of the topics that requests name, and of the configuration.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::KafkaUpstream;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain, notes};

const KIND: RegisteredKind<KafkaUpstream> = RegisteredKind::NEW;

fn config(fields: &Value) -> Value {
    let mut config = json!({"topic": "orders", "bootstrap_servers": [{"host": "kafka.example", "port": 9092}]});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

async fn run(fields: &Value, request: TestRequest) -> TestOutcome {
    request.run(&chain(&[(&KIND, config(fields))])).await
}

// docs/kong-compatibility.md, 5.23
#[tokio::test]
async fn clients_get_the_reply_of_kong() {
    let outcome = run(&json!({}), TestRequest::post("/a", "application/json", r#"{"a": 1}"#)).await;
    assert_eq!(outcome.reply_status().map(|status| status.as_u16()), Some(200));
    assert_eq!(outcome.response_header("content-type"), Some("application/json; charset=utf-8"));
    let body = outcome.reply.map(|reply| reply.body);
    let expected = Bytes::from_static(br#"{"message":"message sent"}"#);
    assert_eq!(body, Some(crate::plugin_api::reply::ReplyBody::Raw(expected)));
}

#[tokio::test]
async fn requests_that_cannot_be_messages_are_rejected() {
    let limited = json!({"producer_request_limits_bytes_per_request": 1024});
    let named = json!({"topics_query_arg": "topics", "allowed_topics": ["a"]});
    for (fields, request, status, reason) in [
        (json!({}), TestRequest::post("/", "application/json", "{"), 400, "invalid_body"),
        (limited, TestRequest::post("/", "image/png", vec![0_u8; 1000]), 413, "message_too_large"),
        (named.clone(), TestRequest::get("/?topics=b"), 400, "topic_not_allowed"),
        (named.clone(), TestRequest::get("/?topics=a,"), 400, "topic_not_allowed"),
        (named.clone(), TestRequest::get("/?topics=a,%20orders,a"), 200, ""),
        (named, TestRequest::get("/"), 200, ""),
    ] {
        let outcome = run(&fields, request).await;
        assert_eq!(outcome.reply_status().unwrap().as_u16(), status, "{fields}");
        assert_eq!(outcome.reply.unwrap().reason, reason, "{fields}");
    }
}

#[test]
fn requests_name_only_allowed_topics() {
    let fields = json!({"topics_query_arg": "topics", "allowed_topics": ["a", "b"]});
    let plugin = built(&config(&fields));
    let topics = |query: &str| {
        plugin.topics(query).ok().map(|topics| topics.iter().map(|topic| topic.to_string()).collect::<Vec<String>>())
    };
    let expected = |topics: &[&str]| Some(topics.iter().map(|topic| (*topic).to_owned()).collect::<Vec<_>>());
    assert_eq!(topics(""), expected(&["orders"]));
    assert_eq!(topics("topics=b,orders,b,a"), expected(&["b", "orders", "a"]));
    assert_eq!(topics("topics=c"), None);
    assert_eq!(topics("topics="), None);
}

fn built(config: &Value) -> KafkaUpstream {
    use crate::plugin_api::kind::{BuildCx, BuildNotes, PluginKind};
    let (state, build_notes) = (crate::plugin_api::PluginState::default(), BuildNotes::default());
    let services: Arc<dyn crate::plugin_api::PluginServices> = Arc::new(crate::plugin_api::services::OfflineServices);
    let object = "KongPlugin/default/test";
    let cx = BuildCx { object, state: &state, services: &services, node: "test", notes: &build_notes };
    KafkaUpstream::build(serde_json::from_value(config.clone()).unwrap(), &cx).unwrap()
}

#[test]
fn invalid_configurations_name_the_field() {
    for (fields, field) in [
        (json!({"topic": ""}), "config.topic"),
        (json!({"topic": "a b"}), "config.topic"),
        (json!({"topic": ".."}), "config.topic"),
        (json!({"bootstrap_servers": []}), "config.bootstrap_servers"),
        (json!({"bootstrap_servers": [{"host": "", "port": 1}]}), "config.bootstrap_servers[0].host"),
        (json!({"bootstrap_servers": [{"host": "a", "port": 0}]}), "config.bootstrap_servers[0].port"),
        (json!({"forward_body": false}), "config.forward_body"),
        (json!({"message_by_lua_functions": ["return message"]}), "config.message_by_lua_functions"),
        (json!({"allowed_topics": ["a"]}), "config.allowed_topics"),
        (json!({"allowed_topics": ["/"], "topics_query_arg": "t"}), "config.allowed_topics[0]"),
        (json!({"schema_registry": {"confluent": {"url": "http://a"}}}), "config.schema_registry"),
        (json!({"security": {"certificate_id": "a"}}), "config.security.certificate_id"),
        (json!({"producer_request_acks": 2}), "config.producer_request_acks"),
        (json!({"timeout": 0}), "config.timeout"),
        (json!({"authentication": {"user": "secret"}}), "config.authentication.mechanism"),
        (json!({"authentication": {"mechanism": "PLAIN", "user": "a"}}), "config.authentication.password"),
        (json!({"authentication": {"mechanism": "OAUTHBEARER"}}), "config.authentication.mechanism"),
        (
            json!({"authentication": {"mechanism": "PLAIN", "user": "a", "password": "secret", "tokenauth": true}}),
            "config.authentication.tokenauth",
        ),
        (json!({"producer_request_limits_bytes_per_request": 1}), "config.producer_request_limits_bytes_per_request"),
        (
            json!({"producer_request_limits_messages_per_request": 0}),
            "config.producer_request_limits_messages_per_request",
        ),
    ] {
        let invalid = build(&KIND, &config(&fields)).err().unwrap_or_else(|| panic!("{fields} was accepted"));
        assert_eq!(invalid[0].field, field, "{fields}: {invalid:?}");
        assert!(!format!("{invalid:?}").contains("secret"), "{fields}: {invalid:?}");
    }
    assert!(notes(&KIND, &config(&json!({"schema_registry": {}}))).is_empty());
    let plain = json!({"authentication": {"mechanism": "PLAIN", "user": "a", "password": "b"}});
    assert_eq!(notes(&KIND, &config(&plain))[0].field, "config.authentication.mechanism");
}
