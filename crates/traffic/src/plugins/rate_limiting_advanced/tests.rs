//! Tests of windows, identifiers, headers and throttling.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::plugin_api::services::OfflineServices;
use crate::plugin_api::{PluginServices, PluginState, RegisteredKind};
use crate::plugin_chain::Chain;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain, chain_with, notes};

const KIND: RegisteredKind<RateLimitingAdvanced> = RegisteredKind::NEW;

fn config(fields: Value) -> Value {
    let mut config = json!({"limit": [2], "window_size": [60], "identifier": "ip"});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

async fn send(chain: &Chain, second: u64) -> TestOutcome {
    let mut request = TestRequest::get("/");
    request.now += Duration::from_secs(second);
    request.run(chain).await
}

async fn statuses(chain: &Chain, seconds: &[u64]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for second in seconds {
        statuses.push(send(chain, *second).await.reply_status().map_or(200, |status| status.as_u16()));
    }
    statuses
}

fn headers(outcome: &TestOutcome) -> Vec<String> {
    let headers = outcome.response.headers.iter();
    let headers = headers.filter(|(name, _)| name.as_str().contains("ratelimit-") || name.as_str() == "retry-after");
    let mut headers: Vec<String> =
        headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    headers.sort();
    headers
}

// docs/kong-compatibility.md, 5.2
#[tokio::test]
async fn fixed_windows_begin_again() {
    let chain = chain(&[(&KIND, config(json!({"window_type": "fixed"})))]);
    assert_eq!(statuses(&chain, &[0, 0, 59, 60, 60, 60]).await, [200, 200, 429, 200, 200, 429]);
}

// docs/kong-compatibility.md, 5.2
#[tokio::test]
async fn sliding_windows_count_the_window_before() {
    let chain = chain(&[(&KIND, config(json!({"limit": [4], "disable_penalty": true})))]);
    assert_eq!(statuses(&chain, &[0, 0, 0, 0, 0]).await, [200, 200, 200, 200, 429]);
    // At 75, three quarters of the four requests count, and at 105, one quarter.
    assert_eq!(statuses(&chain, &[75, 75, 105, 105]).await, [200, 429, 200, 200]);
}

// docs/kong-compatibility.md, 5.2
#[tokio::test]
async fn rejected_requests_count_unless_the_penalty_is_disabled() {
    for (disable_penalty, later) in [(false, 429), (true, 200)] {
        let chain = chain(&[(&KIND, config(json!({"disable_penalty": disable_penalty})))]);
        for _ in 0..20 {
            send(&chain, 30).await;
        }
        assert_eq!(statuses(&chain, &[90]).await, [later], "{disable_penalty}");
    }
}

// docs/kong-compatibility.md, 5.2
#[tokio::test]
async fn responses_have_the_headers_of_all_windows() {
    let fields = json!({"limit": [9, 2, 7], "window_size": [3600, 60, 30], "window_type": "fixed"});
    let chain = chain(&[(&KIND, config(fields))]);
    let first = headers(&send(&chain, 0).await);
    let expected = [
        "ratelimit-limit: 2",
        "ratelimit-remaining: 1",
        "ratelimit-reset: 60",
        "x-ratelimit-limit-30: 7",
        "x-ratelimit-limit-hour: 9",
        "x-ratelimit-limit-minute: 2",
        "x-ratelimit-remaining-30: 6",
        "x-ratelimit-remaining-hour: 8",
        "x-ratelimit-remaining-minute: 1",
    ];
    assert_eq!(first, expected);
    send(&chain, 1).await;
    let rejected = send(&chain, 20).await;
    assert_eq!(rejected.response_header("retry-after"), Some("40"));
    assert_eq!(rejected.response_header("ratelimit-remaining"), Some("0"));
    let chain = crate::plugin_chain::testing::chain(&[(&KIND, config(json!({"hide_client_headers": true})))]);
    for _ in 0..3 {
        assert_eq!(headers(&send(&chain, 0).await), [""; 0]);
    }
}

#[tokio::test]
async fn retry_after_has_random_seconds() {
    let chain = chain(&[(&KIND, config(json!({"window_type": "fixed", "retry_after_jitter_max": 100})))]);
    let mut waits = std::collections::HashSet::new();
    for _ in 0..40 {
        let outcome = send(&chain, 0).await;
        waits.extend(outcome.response_header("retry-after").map(|wait| wait.parse::<u64>().unwrap()));
    }
    assert!(waits.len() > 3 && waits.iter().all(|wait| (60..=160).contains(wait)), "{waits:?}");
}

// docs/kong-compatibility.md, 5.2
#[tokio::test]
async fn compound_identifiers_compare_all_properties() {
    let fields = json!({
        "limit": [1], "compound_identifier": ["header", "ip"], "header_name": "x-tenant", "window_type": "fixed",
    });
    let chain = chain(&[(&KIND, config(fields))]);
    let mut results = Vec::new();
    for (tenant, address) in [("a", 1), ("a", 2), ("b", 1), ("a", 1), ("b", 2), ("b", 2)] {
        let mut request = TestRequest::get("/").header("x-tenant", tenant);
        request.address = [192, 0, 2, address].into();
        results.push(request.run(&chain).await.reply.is_none());
    }
    assert_eq!(results, [true, true, true, false, true, false]);
}

// docs/kong-compatibility.md, 5.2
#[tokio::test]
async fn objects_with_one_namespace_share_counters() {
    let (state, services): (_, Arc<dyn PluginServices>) = (PluginState::default(), Arc::new(OfflineServices));
    let build = |fields| chain_with(&[(&KIND, config(fields))], &state, &services);
    let shared = json!({"namespace": "shop", "window_type": "fixed"});
    let (first, second) = (build(shared.clone()), build(shared));
    let other = build(json!({"namespace": "cart", "window_type": "fixed"}));
    assert_eq!(statuses(&first, &[0]).await, [200]);
    assert_eq!(statuses(&second, &[0, 0]).await, [200, 429]);
    assert_eq!(statuses(&other, &[0, 0]).await, [200, 200]);
}

// docs/kong-compatibility.md, 5.2
#[tokio::test(start_paused = true)]
async fn throttled_requests_are_held_and_admitted_later() {
    let throttling = json!({"enabled": true, "interval": 10, "retry_times": 6, "queue_limit": 1});
    let chain = chain(&[(&KIND, config(json!({"window_type": "fixed", "throttling": throttling})))]);
    let start = Instant::now();
    assert_eq!(statuses(&chain, &[30, 30]).await, [200, 200]);
    assert_eq!(start.elapsed(), Duration::ZERO);
    let (held, beyond_queue) = tokio::join!(statuses(&chain, &[30]), statuses(&chain, &[30]));
    assert_eq!((held, beyond_queue), (vec![200], vec![429]), "the queue has one place");
    assert_eq!(start.elapsed().as_secs(), 30, "the window begins again at 60");
    let throttling = json!({"enabled": true, "interval": 2, "retry_times": 3});
    let chain = crate::plugin_chain::testing::chain(&[(
        &KIND,
        config(json!({"limit": [1], "window_type": "fixed", "throttling": throttling})),
    )]);
    let start = Instant::now();
    assert_eq!(statuses(&chain, &[0, 0]).await, [200, 429]);
    assert_eq!(start.elapsed().as_secs(), 6, "held three times");
}

#[test]
fn invalid_configurations_are_rejected_with_their_field() {
    let redis = json!({"host": "redis.example"});
    for (fields, field) in [
        (json!({"limit": []}), "config.limit"),
        (json!({"window_size": []}), "config.window_size"),
        (json!({"limit": [1, 2]}), "config.window_size"),
        (json!({"limit": [0]}), "config.limit[0]"),
        (json!({"window_size": [0]}), "config.window_size[0]"),
        (json!({"limit": [1, 2], "window_size": [5, 5]}), "config.window_size[1]"),
        (json!({"identifier": "header"}), "config.identifier"),
        (json!({"identifier": "path"}), "config.identifier"),
        (json!({"identifier": "path", "path": "cart"}), "config.path"),
        (json!({"compound_identifier": ["ip", "header"]}), "config.compound_identifier[1]"),
        (json!({"compound_identifier": ["ip", "ip"]}), "config.compound_identifier[1]"),
        (json!({"namespace": "a:b"}), "config.namespace"),
        (json!({"strategy": "cluster"}), "config.strategy"),
        (json!({"sync_rate": 1}), "config.sync_rate"),
        (json!({"strategy": "redis", "redis": redis}), "config.sync_rate"),
        (json!({"strategy": "redis", "redis": redis, "sync_rate": 0.001}), "config.sync_rate"),
        (json!({"strategy": "redis", "sync_rate": 0}), "config.redis.host"),
        (json!({"error_code": 99}), "config.error_code"),
        (json!({"enforce_consumer_groups": true}), "config.enforce_consumer_groups"),
        (json!({"consumer_groups": ["gold"]}), "config.consumer_groups"),
        (json!({"throttling": {"interval": 0}}), "config.throttling.interval"),
        (json!({"throttling": {"queue_limit": 10_001}}), "config.throttling.queue_limit"),
    ] {
        let Err(invalid) = build(&KIND, &config(fields.clone())) else { panic!("{fields} was accepted") };
        assert!(invalid.iter().any(|diagnostic| diagnostic.field == field), "{fields}: {invalid:?}");
    }
    let never = config(json!({"strategy": "redis", "sync_rate": -1, "redis": redis}));
    assert_eq!(notes(&KIND, &never).len(), 1);
}
