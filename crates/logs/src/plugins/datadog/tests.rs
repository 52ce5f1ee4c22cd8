//! Tests of the configuration.

use serde_json::{Value, json};

use super::Datadog;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::build;

const KIND: RegisteredKind<Datadog> = RegisteredKind::NEW;

// docs/kong-compatibility.md, 4.9
#[test]
fn invalid_metrics_are_reported_with_their_fields() {
    let metric = |fields: Value| {
        let mut metric = json!({"name": "latency", "stat_type": "timer"});
        metric.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"metrics": [metric]})
    };
    for (config, expected) in [
        (json!({}), None),
        (metric(json!({"tags": ["app:kong", "edge", "url:http://a"]})), None),
        (metric(json!({"stat_type": "distribution"})), None),
        (metric(json!({"stat_type": "counter"})), Some("config.metrics[0].sample_rate")),
        (metric(json!({"sample_rate": 1.5})), Some("config.metrics[0].sample_rate")),
        (metric(json!({"tags": ["app:"]})), Some("config.metrics[0].tags[0]")),
        (metric(json!({"name": "requests"})), Some("config.metrics[0].name")),
        (json!({"host": ""}), Some("config.host")),
        (json!({"retry_count": 10, "queue_size": 2, "flush_timeout": 0.5}), None),
        (json!({"queue_size": 0}), Some("config.queue.max_batch_size")),
        (json!({"port": 0}), Some("config.port")),
        (json!({"queue": {"max_entries": 0}}), Some("config.queue.max_entries")),
    ] {
        let field = build(&KIND, &config).err().map(|invalid| invalid[0].field.clone());
        assert_eq!(field.as_deref(), expected, "{config}");
    }
}
