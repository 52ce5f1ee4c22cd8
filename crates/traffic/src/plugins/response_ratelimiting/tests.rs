//! Tests of what endpoints and clients see.

use std::time::Duration;

use http::Response;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_api::services::OfflineServices;
use crate::plugin_api::{FieldNames, PluginServices, PluginState};
use crate::plugin_chain::Chain;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain, chain_with};

const KIND: RegisteredKind<ResponseRatelimiting> = RegisteredKind::NEW;

fn config(fields: Value) -> Value {
    let mut config = json!({"limits": {"videos": {"minute": 5, "hour": 9}, "images": {"hour": 2}}, "limit_by": "ip"});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

/// Sends a request whose response reports this use.
async fn send(chain: &Chain, second: u64, reported: &str) -> TestOutcome {
    let mut request = TestRequest::get("/").header("x-ratelimit-remaining-videos", "1000");
    request.now += Duration::from_secs(second);
    let response = Response::builder().header("x-kong-limit", reported);
    request.upstream_response = response.body(()).unwrap();
    request.run(chain).await
}

fn response_headers(outcome: &TestOutcome) -> Vec<String> {
    let mut headers: Vec<String> = outcome
        .response
        .headers
        .iter()
        .filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix("x-ratelimit-")?;
            Some(format!("{name}: {}", value.to_str().unwrap()))
        })
        .collect();
    headers.sort();
    headers
}

// docs/kong-compatibility.md, 4.30
#[tokio::test]
async fn endpoints_learn_what_remains_and_clients_what_they_used() {
    let chain = chain(&[(&KIND, config(json!({})))]);
    let outcome = send(&chain, 0, "videos=2, images=1").await;
    let sent = |outcome: &TestOutcome, name: &str| outcome.request.headers[name].to_str().unwrap().to_owned();
    assert_eq!(sent(&outcome, "x-ratelimit-remaining-videos"), "5", "not what the client claims");
    assert_eq!(sent(&outcome, "x-ratelimit-remaining-images"), "2");
    let expected = [
        "limit-images-hour: 2",
        "limit-videos-hour: 9",
        "limit-videos-minute: 5",
        "remaining-images-hour: 1",
        "remaining-videos-hour: 7",
        "remaining-videos-minute: 3",
    ];
    assert_eq!(response_headers(&outcome), expected);
    assert_eq!(outcome.response_header("x-kong-limit"), None);
    let outcome = send(&chain, 60, "videos=0, other=5").await;
    assert_eq!(sent(&outcome, "x-ratelimit-remaining-videos"), "5", "the lowest of 5 per minute and 7 per hour");
    assert_eq!(outcome.response_header("x-ratelimit-remaining-videos-hour"), Some("7"));
}

// docs/kong-compatibility.md, 4.30
#[tokio::test]
async fn limits_keep_their_counts_when_others_are_added_or_removed() {
    let (state, services): (_, Arc<dyn PluginServices>) = (PluginState::default(), Arc::new(OfflineServices));
    let build = |limits: Value| chain_with(&[(&KIND, config(json!({"limits": limits})))], &state, &services);
    let mut chain = build(json!({"videos": {"hour": 9}}));
    send(&chain, 0, "videos=2").await;
    for (limits, expected) in [
        (json!({"images": {"hour": 2}, "videos": {"minute": 5, "hour": 9}}), "6"),
        (json!({"videos": {"hour": 8}}), "4"),
    ] {
        // As in a process, the new one is built before the former one ends.
        chain = build(limits.clone());
        let outcome = send(&chain, 0, "videos=1").await;
        assert_eq!(outcome.response_header("x-ratelimit-remaining-videos-hour"), Some(expected), "{limits}");
    }
}

// docs/kong-compatibility.md, 4.30
#[tokio::test]
async fn responses_that_use_what_is_not_left_are_replaced() {
    let chain = chain(&[(&KIND, config(json!({})))]);
    // More than what is left is used up, because the endpoint has already done the work.
    let outcome = send(&chain, 0, "images=5").await;
    assert_eq!((outcome.response.status.as_u16(), outcome.reply.is_none()), (200, true));
    assert_eq!(outcome.response_header("x-ratelimit-remaining-images-hour"), Some("0"));
    let outcome = send(&chain, 0, "images=1, videos=1").await;
    assert_eq!(outcome.response.status.as_u16(), 429);
    assert_eq!(outcome.response_header("x-ratelimit-remaining-images-hour"), Some("0"));
    assert_eq!(outcome.response_header("x-kong-limit"), None);
    let outcome = send(&chain, 0, "videos=1").await;
    assert_eq!(outcome.response.status.as_u16(), 200, "another resource");
    let used = outcome.response_header("x-ratelimit-remaining-videos-hour");
    assert_eq!(used, Some("8"), "the replaced response has used nothing");
    assert_eq!(send(&chain, 3600, "images=1").await.response.status.as_u16(), 200, "the next hour");
}

// docs/kong-compatibility.md, 4.30
#[tokio::test]
async fn requests_are_blocked_early_on_request() {
    let chain = chain(&[(&KIND, config(json!({"block_on_first_violation": true})))]);
    assert_eq!(send(&chain, 0, "images=2").await.reply_status(), None);
    let outcome = send(&chain, 0, "videos=1").await;
    let reply = outcome.reply.as_ref().unwrap();
    assert_eq!(reply.status.as_u16(), 429);
    assert_eq!(reply.body, ReplyBody::Negotiated("API rate limit exceeded for 'images'".into()));
    assert_eq!(outcome.response_header("x-ratelimit-remaining-images-hour"), Some("0"));
    assert_eq!(outcome.response_header("x-ratelimit-remaining-videos-hour"), Some("9"));
}

// docs/kong-compatibility.md, 4.30
#[tokio::test]
async fn headers_can_be_hidden_and_renamed() {
    let chain = chain(&[(&KIND, config(json!({"hide_client_headers": true, "header_name": "x-used"})))]);
    let mut request = TestRequest::get("/");
    request.upstream_response = Response::builder().header("x-used", "images=1").body(()).unwrap();
    let outcome = request.run(&chain).await;
    assert_eq!((response_headers(&outcome), outcome.response_header("x-used")), (Vec::new(), None));
    let mut fields = ChangedFields::default();
    build(&KIND, &config(json!({}))).unwrap().declare_fields(&mut fields);
    let declares = |fields: &FieldNames, name: &'static str| fields.contains(&HeaderName::from_static(name));
    assert!(declares(&fields.request, "x-ratelimit-remaining-videos"));
    assert!(declares(&fields.response, "x-kong-limit"));
}

#[test]
fn invalid_configurations_are_rejected_with_their_field() {
    let many: Value = (0..33).map(|index| (format!("a{index}"), json!({"minute": 1}))).collect();
    for (fields, field) in [
        (json!({"limits": {}}), "config.limits"),
        (json!({"limits": many}), "config.limits"),
        (json!({"limits": {"videos": {}}}), "config.limits.videos"),
        (json!({"limits": {"videos": {"minute": 0}}}), "config.limits.videos.minute"),
        (json!({"limits": {"videos": {"minute": 5, "hour": 4}}}), "config.limits.videos.hour"),
        (json!({"limits": {"a b": {"minute": 5}}}), "config.limits.a b"),
        (json!({"limits": {"a": {"minute": 5}, "A": {"minute": 5}}}), "config.limits.a"),
        (json!({"header_name": "a b"}), "config.header_name"),
        (json!({"policy": "redis"}), "config.redis.host"),
    ] {
        let Err(invalid) = build(&KIND, &config(fields.clone())) else { panic!("{fields} was accepted") };
        assert!(invalid.iter().any(|diagnostic| diagnostic.field == field), "{fields}: {invalid:?}");
    }
}
