//! The metrics in the configuration, and their lines.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::{BuildCx, LogCx};
use crate::plugin_kit::log_entry::WORKSPACE_ID;
use crate::statsd::{ConsumerIdentifier, Measurement, StatKind, StatLines, StatType, TagStyle};

/// A metric of requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricConfig {
    /// What is measured or counted.
    name: MetricName,
    /// Type of the metric. `unique_users` always is a set, and metrics whose names begin with `status_count` and
    /// `request_per_user` always are counters.
    stat_type: StatType,
    /// The part of the requests that are measured, above 0 and up to 1. Required for counters and gauges.
    #[serde(default)]
    sample_rate: Option<f32>,
    /// What identifies the consumer; if unset, `consumer_identifier_default`.
    #[serde(default)]
    consumer_identifier: Option<ConsumerIdentifier>,
    /// What identifies the service; if unset, `service_identifier_default`.
    #[serde(default)]
    service_identifier: Option<ServiceIdentifier>,
    /// What identifies the workspace; if unset, `workspace_identifier_default`.
    #[serde(default)]
    workspace_identifier: Option<WorkspaceIdentifier>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum MetricName {
    KongLatency,
    Latency,
    RequestCount,
    RequestPerUser,
    RequestSize,
    ResponseSize,
    StatusCount,
    StatusCountPerUser,
    StatusCountPerUserPerRoute,
    StatusCountPerWorkspace,
    UniqueUsers,
    UpstreamLatency,
    ShdictUsage,
}

/// What identifies the service in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) enum ServiceIdentifier {
    #[serde(rename = "service_id")]
    Id,
    #[serde(rename = "service_name")]
    Name,
    #[serde(rename = "service_host")]
    Host,
    #[serde(rename = "service_name_or_host")]
    NameOrHost,
}

/// What identifies the workspace in metrics. There is one, `default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum WorkspaceIdentifier {
    WorkspaceId,
    WorkspaceName,
}

/// A validated [`MetricConfig`].
#[derive(Debug)]
pub(super) struct Metric {
    what: What,
    pub(super) kind: StatKind,
    consumer: ConsumerIdentifier,
    service: ServiceIdentifier,
    workspace: WorkspaceIdentifier,
}

/// What a metric measures or counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Measured(Measurement),
    UniqueUsers,
    RequestsOfUser,
    Status,
    StatusOfUser,
    StatusOfUserAndRoute,
    StatusOfWorkspace,
}

/// A request, and what all its lines have.
pub(super) struct LineCx<'l> {
    pub(super) cx: &'l LogCx<'l>,
    pub(super) prefix: &'l str,
    pub(super) node: &'l str,
    pub(super) tag_style: Option<TagStyle>,
}

impl MetricConfig {
    /// Whether the metric is one of Kong's memory, which Portico does not have.
    pub(super) fn is_of_shared_dictionaries(&self) -> bool {
        self.name == MetricName::ShdictUsage
    }

    /// `None` for a metric without effect, and after an addition to `invalid`.
    pub(super) fn parse(
        self,
        path: &str,
        (consumer, service, workspace): (ConsumerIdentifier, ServiceIdentifier, WorkspaceIdentifier),
        cx: &BuildCx<'_>,
        invalid: &mut Vec<Diagnostic>,
    ) -> Option<Metric> {
        let before = invalid.len();
        let what = self.name.what();
        let (stat_type, name) = match what {
            None | Some(What::Measured(_)) => (self.stat_type, ""),
            Some(What::UniqueUsers) => (StatType::Set, "set"),
            Some(_) => (StatType::Counter, "counter"),
        };
        if stat_type != self.stat_type {
            let message = format!("has no effect: this metric always is a {name}");
            cx.note(Diagnostic::in_config(format!("{path}.stat_type"), message, format!("set it to {name}")));
        }
        if self.stat_type == StatType::Distribution {
            let message = "is a type of Datadog, which StatsD does not have";
            let remedy = "use timer or histogram, or the plugin datadog";
            invalid.push(Diagnostic::in_config(format!("{path}.stat_type"), message, remedy));
        }
        let field = format!("{path}.sample_rate");
        let remedy = "set it to a number above 0 and up to 1, usually 1";
        match self.sample_rate {
            None if matches!(self.stat_type, StatType::Counter | StatType::Gauge) => {
                invalid.push(Diagnostic::in_config(field, "is missing", remedy));
            }
            Some(rate) if rate <= 0.0 || rate > 1.0 => {
                invalid.push(Diagnostic::in_config(field, format!("{rate} is out of range"), remedy));
            }
            _ => {}
        }
        let kind = StatKind { stat_type, sample_rate: self.sample_rate.unwrap_or(1.0) };
        what.filter(|_| invalid.len() == before).map(|what| Metric {
            what,
            kind,
            consumer: self.consumer_identifier.unwrap_or(consumer),
            service: self.service_identifier.unwrap_or(service),
            workspace: self.workspace_identifier.unwrap_or(workspace),
        })
    }
}

impl MetricName {
    /// `None` if nothing is measured.
    fn what(self) -> Option<What> {
        Some(match self {
            MetricName::KongLatency => What::Measured(Measurement::GatewayLatency),
            MetricName::Latency => What::Measured(Measurement::Latency),
            MetricName::RequestCount => What::Measured(Measurement::RequestCount),
            MetricName::RequestSize => What::Measured(Measurement::RequestSize),
            MetricName::ResponseSize => What::Measured(Measurement::ResponseSize),
            MetricName::UpstreamLatency => What::Measured(Measurement::UpstreamLatency),
            MetricName::RequestPerUser => What::RequestsOfUser,
            MetricName::StatusCount => What::Status,
            MetricName::StatusCountPerUser => What::StatusOfUser,
            MetricName::StatusCountPerUserPerRoute => What::StatusOfUserAndRoute,
            MetricName::StatusCountPerWorkspace => What::StatusOfWorkspace,
            MetricName::UniqueUsers => What::UniqueUsers,
            MetricName::ShdictUsage => return None,
        })
    }
}

impl Metric {
    /// Whether the metric needs the heads of requests, or the description of the service that comes with them.
    pub(super) fn needs_heads(&self) -> bool {
        let needs_description = !matches!(self.service, ServiceIdentifier::Name | ServiceIdentifier::NameOrHost)
            || self.what == What::StatusOfUserAndRoute;
        needs_description || matches!(self.what, What::Measured(measurement) if measurement.needs_heads())
    }

    /// Adds the line of a request, if it has the value.
    pub(super) fn write(&self, line: &LineCx<'_>, lines: &mut StatLines) {
        match line.tag_style {
            Some(style) => self.write_with_tags(line, style, lines),
            None => self.write_by_name(line, lines),
        }
    }

    fn write_with_tags(&self, line: &LineCx<'_>, style: TagStyle, lines: &mut StatLines) {
        let cx = line.cx;
        let (What::Measured(measurement), Some(service)) = (self.what, self.service.of(cx)) else { return };
        let Some(value) = measurement.value(cx) else { return };
        let mut tags = vec![
            ("service", Some(service.as_str())),
            ("route", Some(&*cx.names.route)),
            ("workspace", Some(self.workspace.as_str())),
            ("node", Some(line.node)),
            ("status", Some(cx.summary.status.as_str())),
        ];
        tags.extend(self.consumer.of(cx.identity).map(|consumer| ("consumer", Some(consumer))));
        lines.push(format_args!("{}.{}", line.prefix, measurement.suffix()), value, self.kind, Some((style, &tags)));
    }

    fn write_by_name(&self, line: &LineCx<'_>, lines: &mut StatLines) {
        let (cx, prefix, kind) = (line.cx, line.prefix, self.kind);
        let scope = match self.service.of(cx) {
            Some(service) => format!("service.{}", service.replace('.', "_")),
            None => "global.unmatched".to_owned(),
        };
        let status = cx.summary.status.as_str();
        let user = || self.consumer.of(cx.identity).map(|user| user.replace('.', "_"));
        match self.what {
            What::Measured(measurement) => {
                let Some(value) = measurement.value(cx) else { return };
                lines.push(format_args!("{prefix}.{scope}.{}", measurement.suffix()), value, kind, None);
            }
            What::Status => lines.push(format_args!("{prefix}.{scope}.status.{status}"), 1, kind, None),
            What::StatusOfWorkspace => {
                let workspace = self.workspace.as_str();
                lines.push(format_args!("{prefix}.{scope}.workspace.{workspace}.status.{status}"), 1, kind, None);
            }
            What::UniqueUsers => {
                let Some(user) = self.consumer.of(cx.identity) else { return };
                lines.push(format_args!("{prefix}.{scope}.user.uniques"), user, kind, None);
            }
            What::RequestsOfUser => {
                let Some(user) = user() else { return };
                lines.push(format_args!("{prefix}.{scope}.user.{user}.request.count"), 1, kind, None);
            }
            What::StatusOfUser => {
                let Some(user) = user() else { return };
                lines.push(format_args!("{prefix}.{scope}.user.{user}.status.{status}"), 1, kind, None);
            }
            What::StatusOfUserAndRoute => {
                let (Some(user), Some(route)) = (user(), route_id(cx)) else { return };
                lines.push(format_args!("{prefix}.route.{route}.user.{user}.status.{status}"), 1, kind, None);
            }
        }
    }
}

impl ServiceIdentifier {
    /// `None` if the request has no service.
    fn of(self, cx: &LogCx<'_>) -> Option<String> {
        let name = &*cx.names.service;
        if name.is_empty() {
            return None;
        }
        match self {
            ServiceIdentifier::Name | ServiceIdentifier::NameOrHost => Some(name.to_owned()),
            ServiceIdentifier::Id => described(cx, "id"),
            ServiceIdentifier::Host => described(cx, "host"),
        }
    }
}

/// A field of the service's description.
fn described(cx: &LogCx<'_>, field: &str) -> Option<String> {
    field_of(cx.description?.service.get(), field)
}

fn route_id(cx: &LogCx<'_>) -> Option<String> {
    field_of(cx.description?.route.get(), "id")
}

fn field_of(json: &str, field: &str) -> Option<String> {
    let object: Value = serde_json::from_str(json).ok()?;
    object.get(field)?.as_str().map(str::to_owned)
}

impl WorkspaceIdentifier {
    fn as_str(self) -> &'static str {
        match self {
            WorkspaceIdentifier::WorkspaceId => WORKSPACE_ID,
            WorkspaceIdentifier::WorkspaceName => "default",
        }
    }
}

/// All metrics, as Kong sends them by default.
pub(super) fn default_metrics() -> Vec<MetricConfig> {
    let metrics = [
        (MetricName::RequestCount, StatType::Counter),
        (MetricName::Latency, StatType::Timer),
        (MetricName::RequestSize, StatType::Counter),
        (MetricName::StatusCount, StatType::Counter),
        (MetricName::ResponseSize, StatType::Counter),
        (MetricName::UniqueUsers, StatType::Set),
        (MetricName::RequestPerUser, StatType::Counter),
        (MetricName::UpstreamLatency, StatType::Timer),
        (MetricName::KongLatency, StatType::Timer),
        (MetricName::StatusCountPerUser, StatType::Counter),
        (MetricName::StatusCountPerWorkspace, StatType::Counter),
        (MetricName::StatusCountPerUserPerRoute, StatType::Counter),
    ];
    let metric = |(name, stat_type)| MetricConfig {
        name,
        stat_type,
        sample_rate: Some(1.0),
        consumer_identifier: None,
        service_identifier: None,
        workspace_identifier: None,
    };
    metrics.map(metric).into()
}
