//! Tests of the configuration.

use serde_json::{Value, json};

use super::Statsd;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{build, notes};

const KIND: RegisteredKind<Statsd> = RegisteredKind::NEW;

// docs/kong-compatibility.md, 4.34
#[test]
fn invalid_fields_are_reported() {
    let metric = |name: &str, stat_type: &str, rate: Value| json!({"metrics": [{"name": name, "stat_type": stat_type, "sample_rate": rate}]});
    for (config, expected) in [
        (json!({}), None),
        (metric("latency", "histogram", json!(null)), None),
        (metric("request_count", "counter", json!(null)), Some("config.metrics[0].sample_rate")),
        (metric("latency", "gauge", json!(-0.5)), Some("config.metrics[0].sample_rate")),
        (metric("latency", "timer", json!(0)), Some("config.metrics[0].sample_rate")),
        (metric("unique_users", "counter", json!(1)), None),
        (metric("status_count", "timer", json!(1)), None),
        (metric("latency", "distribution", json!(1)), Some("config.metrics[0].stat_type")),
        (metric("requests", "counter", json!(1)), Some("config.metrics[0].name")),
        (json!({"allow_status_codes": ["200-299", "404-404"]}), None),
        (json!({"allow_status_codes": ["404"]}), Some("config.allow_status_codes[0]")),
        (json!({"allow_status_codes": ["299-200"]}), Some("config.allow_status_codes[0]")),
        (json!({"allow_status_codes": ["0-299"]}), None),
        (json!({"prefix": ""}), Some("config.prefix")),
        (json!({"retry_count": 10, "queue_size": 2, "flush_timeout": 0.5}), None),
        (json!({"queue_size": 0}), Some("config.queue.max_batch_size")),
        (json!({"udp_packet_size": 65_508}), Some("config.udp_packet_size")),
        (json!({"tag_style": "graphite"}), Some("config.tag_style")),
        (json!({"host": ""}), Some("config.host")),
    ] {
        let field = build(&KIND, &config).err().map(|invalid| invalid[0].field.clone());
        assert_eq!(field.as_deref(), expected, "{config}");
    }
}

#[test]
fn metrics_of_shared_dictionaries_have_a_note() {
    let metric = json!({"name": "shdict_usage", "stat_type": "gauge", "sample_rate": 1});
    assert_eq!(notes(&KIND, &json!({"metrics": [metric]}))[0].field, "config.metrics[0].name");
    assert!(notes(&KIND, &json!({})).is_empty(), "the default has no note");
}

// docs/kong-compatibility.md, 4.34
#[test]
fn types_without_effect_and_deprecated_fields_have_notes() {
    let metric = json!({"name": "unique_users", "stat_type": "counter", "sample_rate": 1});
    let notes = notes(&KIND, &json!({"metrics": [metric], "retry_count": 10, "queue_size": 2, "flush_timeout": 2}));
    let mut fields: Vec<_> = notes.iter().map(|note| note.field.as_str()).collect();
    fields.sort_unstable();
    let expected = ["config.flush_timeout", "config.metrics[0].stat_type", "config.queue_size", "config.retry_count"];
    assert_eq!(fields, expected);
}

// docs/kong-compatibility.md, 4.34
#[test]
fn sizes_are_counters_by_default() {
    let sizes = super::default_metrics();
    let of = |name: &str| sizes.iter().map(|metric| format!("{metric:?}")).find(|metric| metric.contains(name));
    for (name, stat_type) in
        [("RequestSize", "Counter"), ("ResponseSize", "Counter"), ("name: Latency", "Timer"), ("UniqueUsers", "Set")]
    {
        assert!(of(name).unwrap().contains(&format!("stat_type: {stat_type}")), "{name}");
    }
}
