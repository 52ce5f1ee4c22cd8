//! Tests of plans, rates, quotas, header fields and the report.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::*;
use crate::plugin_api::scripted_server::ScriptedServer;
use crate::plugin_api::services::OfflineServices;
use crate::plugin_api::{PluginServices, PluginState, RegisteredKind};
use crate::plugin_chain::Chain;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain, chain_with, notes};
use crate::plugin_kit::counting::UsageReports;

const KIND: RegisteredKind<UsagePlan> = RegisteredKind::NEW;

/// 2026-01-31, one minute before midnight.
const END_OF_JANUARY: u64 = 1_769_903_940;

fn config(fields: Value) -> Value {
    let mut config = json!({"plans": [{"name": "free", "quotas": {"day": 2, "month": 5}}], "limit_by": "ip"});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

async fn send_at(chain: &Chain, second: u64) -> TestOutcome {
    let mut request = TestRequest::get("/");
    request.now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    request.run(chain).await
}

async fn statuses(chain: &Chain, seconds: &[u64]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for second in seconds {
        statuses.push(send_at(chain, *second).await.reply_status().map_or(200, |status| status.as_u16()));
    }
    statuses
}

#[tokio::test]
async fn quotas_follow_the_utc_calendar() {
    let chain = chain(&[(&KIND, config(json!({})))]);
    let now = END_OF_JANUARY;
    assert_eq!(statuses(&chain, &[now, now, now + 59, now + 60]).await, [200, 200, 429, 200], "the next day and month");
    let rejected = send_at(&chain, now).await;
    assert!(rejected.reply.is_none(), "a late clock counts in the newer window");
    let rejected = send_at(&chain, now + 61).await;
    assert_eq!(rejected.response_header("retry-after"), Some("86399"));
    assert_eq!(rejected.message(), Some("Usage plan exceeded"));
}

#[tokio::test]
async fn rates_admit_bursts_and_then_evenly() {
    let plans = json!([{"name": "free", "rate": {"requests": 6, "per": "minute", "burst": 3}}]);
    let chain = chain(&[(&KIND, config(json!({"plans": plans})))]);
    assert_eq!(
        statuses(&chain, &[100, 100, 100, 100, 109, 110, 111, 120]).await,
        [200, 200, 200, 429, 429, 200, 429, 200]
    );
    let rejected = send_at(&chain, 121).await;
    assert_eq!(rejected.response_header("retry-after"), Some("9"));
    assert_eq!(rejected.response_header("ratelimit-policy"), Some("\"rate\";q=3;w=30"));
    assert_eq!(rejected.response_header("ratelimit"), Some("\"rate\";r=0;t=9"));
}

/// What remains of each limit after another request, as the response says.
async fn remaining(chain: &Chain) -> String {
    let outcome = send_at(chain, END_OF_JANUARY).await;
    let limits = outcome.response_header("ratelimit").unwrap().split(", ");
    limits.map(|limit| limit.split(";t=").next().unwrap()).collect::<Vec<_>>().join(" ")
}

#[tokio::test(start_paused = true)]
async fn edits_keep_what_was_used() {
    let (state, services) = (PluginState::default(), ScriptedServer::new(|_| Err("refused".to_owned())).services());
    let build = |rate: Value, quotas: Value| {
        let plans = json!([{"name": "free", "rate": rate, "quotas": quotas}]);
        chain_with(&[(&KIND, config(json!({"plans": plans})))], &state, &services)
    };
    let rate = |requests: u64, per: &str, burst: u64| json!({"requests": requests, "per": per, "burst": burst});
    let mut chain = build(rate(6, "minute", 3), json!({"day": 10}));
    assert_eq!(remaining(&chain).await, "\"rate\";r=2 \"day\";r=9");
    for (description, rate, quotas, expected) in [
        ("a rate", rate(60, "minute", 3), json!({"day": 10}), "\"rate\";r=1 \"day\";r=8"),
        ("a unit and a burst", rate(1, "second", 5), json!({"day": 10}), "\"rate\";r=2 \"day\";r=7"),
        ("one more", rate(1, "second", 5), json!({"day": 10, "month": 20}), "\"rate\";r=1 \"day\";r=6 \"month\";r=19"),
        ("a quota", rate(1, "second", 5), json!({"day": 12, "month": 20}), "\"rate\";r=0 \"day\";r=7 \"month\";r=18"),
        ("no rate", Value::Null, json!({"day": 12, "month": 20}), "\"day\";r=6 \"month\";r=17"),
        ("a rate again", rate(1, "second", 9), json!({"day": 12}), "\"rate\";r=3 \"day\";r=5"),
    ] {
        // As in a process, the new one is built before the former one ends.
        chain = build(rate, quotas);
        assert_eq!(remaining(&chain).await, expected, "{description}");
    }
    // With a mistake, there is no plugin until it is fixed.
    for (seconds, expected) in [(2, "\"day\";r=4"), (599, "\"day\";r=3"), (601, "\"day\";r=11")] {
        drop(chain);
        tokio::time::sleep(Duration::from_secs(seconds)).await; // Time is paused.
        chain = build(Value::Null, json!({"day": 12}));
        assert_eq!(remaining(&chain).await, expected, "after {seconds} s");
    }
}

#[tokio::test]
async fn values_of_another_header_are_other_clients() {
    let (state, services) = (PluginState::default(), ScriptedServer::new(|_| Err("refused".to_owned())).services());
    let mut former = None;
    for (header, expected) in [("x-tenant", "r=1"), ("X-Tenant", "r=0"), ("x-user", "r=1")] {
        let fields = config(json!({"limit_by": "header", "header_name": header}));
        let chain = chain_with(&[(&KIND, fields)], &state, &services);
        let request = TestRequest::get("/").header("x-tenant", "42").header("x-user", "42");
        let outcome = request.run(&chain).await;
        let used = outcome.response_header("ratelimit").unwrap();
        assert!(used.starts_with(&format!("\"day\";{expected};")), "{header}: {used}");
        // As in a process, the next one is built before this one ends.
        former = Some(chain);
    }
    drop(former);
}

#[tokio::test]
async fn header_fields_report_what_remains_and_warn() {
    let plans = json!([{"name": "free", "quotas": {"day": 5, "month": 10}}]);
    let chain = chain(&[(&KIND, config(json!({"plans": plans})))]);
    let mut warnings = Vec::new();
    for _ in 0..6 {
        let outcome = send_at(&chain, END_OF_JANUARY).await;
        assert_eq!(outcome.response_header("ratelimit-policy"), Some("\"day\";q=5;w=86400, \"month\";q=10"));
        warnings.push((
            outcome.response_header("ratelimit").unwrap().to_owned(),
            outcome.response_header("x-usage-warning").map(str::to_owned),
        ));
    }
    assert_eq!(warnings[0], ("\"day\";r=4;t=60, \"month\";r=9;t=60".to_owned(), None));
    assert_eq!(warnings[2].1, None);
    assert_eq!(warnings[3], ("\"day\";r=1;t=60, \"month\";r=6;t=60".to_owned(), Some("\"day\";used=80".to_owned())));
    assert_eq!(warnings[5], ("\"day\";r=0;t=60, \"month\";r=5;t=60".to_owned(), Some("\"day\";used=100".to_owned())));
    let hidden = config(json!({"hide_client_headers": true, "warn_at": 1}));
    let chain = crate::plugin_chain::testing::chain(&[(&KIND, hidden)]);
    let outcome = send_at(&chain, END_OF_JANUARY).await;
    assert!(
        ["ratelimit", "ratelimit-policy", "x-usage-warning"].iter().all(|name| outcome.response_header(name).is_none())
    );
}

#[tokio::test]
async fn clients_without_a_plan_are_rejected() {
    let plans = json!([{"name": "gold", "groups": ["gold"], "quotas": {"day": 2}}]);
    let chain = chain(&[(&KIND, config(json!({"plans": plans})))]);
    let outcome = send_at(&chain, 0).await;
    assert_eq!((outcome.reply_status(), outcome.reply.unwrap().reason), (Some(StatusCode::FORBIDDEN), "no_usage_plan"));
}

#[test]
fn the_first_plan_of_a_group_applies() {
    let plans = json!([
        {"name": "gold", "groups": ["gold", "other/staff"], "quotas": {"day": 2}},
        {"name": "silver", "groups": ["silver"], "quotas": {"day": 1}},
        {"name": "free", "quotas": {"day": 1}},
    ]);
    let (state, services): (_, Arc<dyn PluginServices>) = (PluginState::default(), Arc::new(OfflineServices));
    let notes = crate::plugin_api::BuildNotes::default();
    let cx = BuildCx { object: "KongPlugin/a/b", state: &state, services: &services, node: "", notes: &notes };
    let config: Config = serde_json::from_value(json!({"plans": plans})).unwrap();
    let plugin = UsagePlan::build(config, &cx).unwrap_or_else(|invalid| panic!("{invalid:?}"));
    for (groups, expected) in [
        (&["a/silver", "other/staff"][..], "gold"),
        (&["a/silver"], "silver"),
        (&["other/silver"], "free"),
        (&[], "free"),
    ] {
        let groups: Vec<Arc<str>> = groups.iter().map(|group| Arc::from(*group)).collect();
        let plan = plugin.plans.iter().find(|plan| plan.is_for(&groups)).unwrap();
        assert_eq!(&*plan.name, expected, "{groups:?}");
    }
}

#[tokio::test]
async fn reports_have_the_use_by_client_and_no_secrets() {
    let (state, services): (_, Arc<dyn PluginServices>) = (PluginState::default(), Arc::new(OfflineServices));
    let fields = json!({"limit_by": "header", "header_name": "x-api-key"});
    let chain = chain_with(&[(&KIND, config(fields))], &state, &services);
    for key in ["first-secret", "first-secret", "first-secret", "second-secret"] {
        TestRequest::get("/").header("x-api-key", key).run(&chain).await;
    }
    let report = UsageReports::of(&state).to_json();
    let object = &report["objects"][0];
    assert_eq!((&object["object"], &object["isComplete"]), (&json!("KongPlugin/default/test"), &json!(true)));
    let mut counts: Vec<_> = object["use"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            assert_eq!((&row["route"], &row["plan"]), (&json!("default.test.web..80"), &json!("free")));
            (row["admitted"].as_u64().unwrap(), row["warned"].as_u64().unwrap(), row["rejected"].as_u64().unwrap())
        })
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [(1, 0, 0), (2, 1, 1)]);
    assert!(!report.to_string().contains("secret"), "{report}");
    let totals: Vec<u64> = UsageReports::of(&state).totals().into_iter().map(|(.., number)| number).collect();
    assert_eq!(totals, [2, 1, 1], "admitted without a warning, warned, rejected");
    drop(chain);
    assert_eq!(UsageReports::of(&state).to_json(), json!({"objects": [], "versions": []}));
}

#[test]
fn invalid_configurations_are_rejected_with_their_field() {
    let plan = |fields: Value| json!({"plans": [fields]});
    for (fields, field) in [
        (json!({"plans": []}), "config.plans"),
        (plan(json!({"quotas": {"day": 1}})), "config.plans[0].name"),
        (plan(json!({"name": "a b", "quotas": {"day": 1}})), "config.plans[0].name"),
        (plan(json!({"name": "a"})), "config.plans[0]"),
        (plan(json!({"name": "a", "rate": {}})), "config.plans[0].rate.requests"),
        (plan(json!({"name": "a", "rate": {"requests": 1, "burst": 0}})), "config.plans[0].rate.burst"),
        (plan(json!({"name": "a", "quotas": {"day": 0}})), "config.plans[0].quotas.day"),
        (plan(json!({"name": "a", "quotas": {"day": 5, "month": 4}})), "config.plans[0].quotas.month"),
        (
            json!({"plans": [{"name": "a", "quotas": {"day": 1}}, {"name": "b", "quotas": {"day": 1}}]}),
            "config.plans[0].groups",
        ),
        (
            json!({"plans": [
                {"name": "a", "groups": ["x"], "quotas": {"day": 1}}, {"name": "a", "quotas": {"day": 1}},
            ]}),
            "config.plans[1].name",
        ),
        (json!({"limit_by": "header"}), "config.limit_by"),
        (json!({"limit_by": "header", "header_name": "a b"}), "config.header_name"),
        (json!({"warn_at": 101}), "config.warn_at"),
        (json!({"limit_by": "ip", "header_name": "x-client"}), "config.header_name"),
        (json!({"policy": "redis"}), "config.redis.host"),
        (json!({"policy": "redis", "redis": {"host": "redis:6379"}}), "config.redis.host"),
        (json!({"policy": "redis", "redis": {"host": "redis://redis.shop"}}), "config.redis.host"),
        (json!({"policy": "redis", "redis": {"cluster_nodes": [{"ip": "a b"}]}}), "config.redis.cluster_nodes[0].ip"),
        (json!({"redis": {"host": "redis.shop"}}), "config.redis"),
    ] {
        let Err(invalid) = build(&KIND, &config(fields.clone())) else { panic!("{fields} was accepted") };
        assert!(invalid.iter().any(|diagnostic| diagnostic.field == field), "{fields}: {invalid:?}");
    }
    assert!(notes(&KIND, &config(json!({})))[0].message.contains("a restart begins again"));
    // One burst uses the quota up, so the rate rejects nothing.
    let rate = |requests: u64, burst: Option<u64>| json!({"requests": requests, "per": "second", "burst": burst});
    for (rate, quotas, fields) in [
        (rate(6, None), json!({"day": 5, "month": 6}), &["config.plans[0].quotas.day"][..]),
        (rate(1, Some(6)), json!({"month": 5}), &["config.plans[0].quotas.month"]),
        (rate(6, Some(5)), json!({"day": 5}), &[]),
    ] {
        let noted = notes(&KIND, &config(plan(json!({"name": "a", "rate": rate, "quotas": quotas}))));
        let found: Vec<_> = noted.iter().map(|note| &*note.field).filter(|field| field.contains("quotas")).collect();
        assert_eq!(found, fields, "{noted:?}");
    }
}
