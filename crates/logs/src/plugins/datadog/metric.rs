//! The metrics in the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::statsd::{ConsumerIdentifier, Measurement, StatKind, StatType};

/// A metric of requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricConfig {
    /// What is measured.
    name: MetricName,
    /// Type of the metric.
    stat_type: StatType,
    /// Further tags, in the form `name:value` or `name`.
    #[serde(default)]
    tags: Vec<String>,
    /// The part of the requests that are measured, from 0 to 1. Required for counters and gauges.
    #[serde(default)]
    sample_rate: Option<f32>,
    /// The name of the consumer in the tag of the consumer. If unset, there is no such tag.
    #[serde(default)]
    consumer_identifier: Option<ConsumerIdentifier>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum MetricName {
    KongLatency,
    Latency,
    RequestCount,
    RequestSize,
    ResponseSize,
    UpstreamLatency,
}

/// A validated [`MetricConfig`].
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) measurement: Measurement,
    pub(super) kind: StatKind,
    /// Names and values, if they have one.
    pub(super) tags: Vec<(Box<str>, Option<Box<str>>)>,
    pub(super) consumer_identifier: Option<ConsumerIdentifier>,
}

impl MetricConfig {
    /// `None` after an addition to `invalid`.
    pub(super) fn parse(self, path: &str, invalid: &mut Vec<Diagnostic>) -> Option<Metric> {
        let before = invalid.len();
        let needs_rate = matches!(self.stat_type, StatType::Counter | StatType::Gauge);
        let remedy = "set it to a number from 0 to 1, usually 1";
        let field = format!("{path}.sample_rate");
        match self.sample_rate {
            None if needs_rate => invalid.push(Diagnostic::in_config(field, "is missing", remedy)),
            Some(rate) if !(0.0..=1.0).contains(&rate) => {
                invalid.push(Diagnostic::in_config(field, format!("{rate} is out of range"), remedy));
            }
            _ => {}
        }
        let mut tags = Vec::new();
        for (index, tag) in self.tags.iter().enumerate() {
            if tag.is_empty() || tag.starts_with(':') || tag.ends_with(':') {
                let message = format!("{tag:?} is not a tag");
                let remedy = "write it as name:value, or as a name";
                invalid.push(Diagnostic::in_config(format!("{path}.tags[{index}]"), message, remedy));
            }
            let (name, value) = tag.split_once(':').map_or((&**tag, None), |(name, value)| (name, Some(value)));
            tags.push((name.into(), value.map(Box::from)));
        }
        let kind = StatKind { stat_type: self.stat_type, sample_rate: self.sample_rate.unwrap_or(1.0) };
        let measurement = self.name.measurement();
        (invalid.len() == before).then_some(Metric {
            measurement,
            kind,
            tags,
            consumer_identifier: self.consumer_identifier,
        })
    }
}

impl MetricName {
    fn measurement(self) -> Measurement {
        match self {
            MetricName::KongLatency => Measurement::GatewayLatency,
            MetricName::Latency => Measurement::Latency,
            MetricName::RequestCount => Measurement::RequestCount,
            MetricName::RequestSize => Measurement::RequestSize,
            MetricName::ResponseSize => Measurement::ResponseSize,
            MetricName::UpstreamLatency => Measurement::UpstreamLatency,
        }
    }
}

/// All metrics, as Kong sends them by default.
pub(super) fn default_metrics() -> Vec<MetricConfig> {
    let names = [
        MetricName::RequestCount,
        MetricName::Latency,
        MetricName::RequestSize,
        MetricName::ResponseSize,
        MetricName::UpstreamLatency,
        MetricName::KongLatency,
    ];
    let metric = |name| MetricConfig {
        name,
        stat_type: if name == MetricName::RequestCount { StatType::Counter } else { StatType::Timer },
        tags: vec!["app:kong".to_owned()],
        sample_rate: Some(1.0),
        consumer_identifier: Some(ConsumerIdentifier::CustomId),
    };
    names.map(metric).into()
}
