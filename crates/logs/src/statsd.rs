//! Lines of the StatsD protocol, and what requests measure in them.

use std::fmt::{self, Write as _};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plugin_api::context::LogCx;
use crate::plugin_api::identity::Identity;
use crate::plugin_kit::log_entry::{Latencies, request_size, response_size};

/// The types of StatsD and DogStatsD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StatType {
    Counter,
    Gauge,
    Histogram,
    Meter,
    Set,
    Timer,
    /// Of DogStatsD only.
    Distribution,
}

impl StatType {
    fn code(self) -> &'static str {
        match self {
            StatType::Counter => "c",
            StatType::Gauge => "g",
            StatType::Histogram => "h",
            StatType::Meter => "m",
            StatType::Set => "s",
            StatType::Timer => "ms",
            StatType::Distribution => "d",
        }
    }

    /// Whether the server multiplies what it gets of a part of the requests. It does not for the latest value, and for
    /// the number of different values.
    fn is_sampled(self) -> bool {
        !matches!(self, StatType::Gauge | StatType::Set)
    }
}

/// What identifies the consumer in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConsumerIdentifier {
    ConsumerId,
    CustomId,
    Username,
}

impl ConsumerIdentifier {
    /// `None` without a consumer, or if the consumer has no such name.
    pub(crate) fn of(self, identity: &Identity) -> Option<&str> {
        let consumer = identity.consumer.as_deref()?;
        match self {
            ConsumerIdentifier::ConsumerId => Some(consumer.reported_id()),
            ConsumerIdentifier::CustomId => consumer.custom_id().map(|id| &**id),
            ConsumerIdentifier::Username => consumer.username.as_deref(),
        }
    }
}

/// A measurement that all requests have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measurement {
    RequestCount,
    RequestSize,
    ResponseSize,
    Latency,
    UpstreamLatency,
    GatewayLatency,
}

impl Measurement {
    /// The last part of the name of the metric.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Measurement::RequestCount => "request.count",
            Measurement::RequestSize => "request.size",
            Measurement::ResponseSize => "response.size",
            Measurement::Latency => "latency",
            Measurement::UpstreamLatency => "upstream_latency",
            Measurement::GatewayLatency => "kong_latency",
        }
    }

    /// `None` if the request was not forwarded and so has no such value.
    pub(crate) fn value(self, cx: &LogCx<'_>) -> Option<u64> {
        let latencies = || Latencies::new(cx);
        match self {
            Measurement::RequestCount => Some(1),
            Measurement::RequestSize => Some(request_size(cx)),
            Measurement::ResponseSize => Some(response_size(cx)),
            Measurement::Latency => Some(latencies().request),
            Measurement::UpstreamLatency => u64::try_from(latencies().proxy).ok(),
            Measurement::GatewayLatency => Some(latencies().gateway),
        }
    }

    /// Whether the value contains the sizes of heads.
    pub(crate) fn needs_heads(self) -> bool {
        matches!(self, Measurement::RequestSize | Measurement::ResponseSize)
    }
}

/// How tags are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TagStyle {
    /// `name:1|c|#service:cart`
    Dogstatsd,
    /// `name,service=cart:1|c`
    Influxdb,
    /// `name#service=cart:1|c`
    Librato,
    /// `name[service=cart]:1|c`
    Signalfx,
}

/// The name of a tag and its value, if it is of the kind that has one.
pub(crate) type StatTag<'t> = (&'t str, Option<&'t str>);

/// The lines of a request, separated by line ends.
#[derive(Debug, Default)]
pub(crate) struct StatLines(String);

/// A line without its name and value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatKind {
    pub stat_type: StatType,
    /// The part of the requests that are measured, from 0 to 1.
    pub sample_rate: f32,
}

impl StatKind {
    /// Decides whether this request is measured.
    pub(crate) fn takes(self) -> bool {
        !self.stat_type.is_sampled() || self.sample_rate >= 1.0 || fastrand::f32() < self.sample_rate
    }
}

impl StatLines {
    /// Adds a line for a request that [`StatKind::takes`]. Bytes of the name and the tags that have a meaning in the
    /// protocol become `_`.
    pub(crate) fn push(
        &mut self,
        name: fmt::Arguments<'_>,
        value: impl fmt::Display,
        kind: StatKind,
        tags: Option<(TagStyle, &[StatTag<'_>])>,
    ) {
        let line = &mut self.0;
        if !line.is_empty() {
            line.push('\n');
        }
        push_sanitized(line, format_args!("{name}"));
        let has_tags = tags.filter(|(_, tags)| !tags.is_empty());
        match has_tags {
            Some((TagStyle::Influxdb, tags)) => push_tags(line, ",", "=", tags, ""),
            Some((TagStyle::Librato, tags)) => push_tags(line, "#", "=", tags, ""),
            Some((TagStyle::Signalfx, tags)) => push_tags(line, "[", "=", tags, "]"),
            Some((TagStyle::Dogstatsd, _)) | None => {}
        }
        line.push(':');
        push_sanitized(line, format_args!("{value}"));
        line.push('|');
        line.push_str(kind.stat_type.code());
        if kind.stat_type.is_sampled() && kind.sample_rate < 1.0 {
            line.push_str(&format!("|@{}", kind.sample_rate));
        }
        if let Some((TagStyle::Dogstatsd, tags)) = has_tags {
            push_tags(line, "|#", ":", tags, "");
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

fn push_tags(line: &mut String, begin: &str, separator: &str, tags: &[StatTag<'_>], end: &str) {
    for (index, (name, value)) in tags.iter().enumerate() {
        line.push_str(if index == 0 { begin } else { "," });
        push_sanitized(line, format_args!("{name}"));
        if let Some(value) = value {
            line.push_str(separator);
            // Only the first colon of a DogStatsD tag ends its name.
            let mut sanitized = Sanitized { line: &mut *line, keeps_colons: separator == ":" };
            sanitized.write_str(value).expect("writing to a String cannot fail");
        }
    }
    line.push_str(end);
}

fn push_sanitized(line: &mut String, text: fmt::Arguments<'_>) {
    Sanitized { line, keeps_colons: false }.write_fmt(text).expect("writing to a String cannot fail");
}

/// Replaces what would end a name, a value or a tag. Names of consumers are chosen by others than the operator.
struct Sanitized<'s> {
    line: &'s mut String,
    keeps_colons: bool,
}

impl fmt::Write for Sanitized<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.line.extend(text.chars().map(|character| match character {
            ':' if self.keeps_colons => ':',
            ':' | '|' | '@' | '#' | ',' | '=' | '[' | ']' => '_',
            other if other.is_control() || other.is_whitespace() => '_',
            other => other,
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTER: StatKind = StatKind { stat_type: StatType::Counter, sample_rate: 1.0 };

    fn line(name: &str, kind: StatKind, tags: Option<(TagStyle, &[StatTag<'_>])>) -> String {
        let mut lines = StatLines::default();
        lines.push(format_args!("{name}"), 1, kind, tags);
        lines.0
    }

    #[test]
    fn tags_have_the_form_of_their_style() {
        let tags: &[StatTag<'_>] = &[("service", Some("cart")), ("status", Some("200"))];
        for (style, expected) in [
            (TagStyle::Dogstatsd, "n:1|c|#service:cart,status:200"),
            (TagStyle::Influxdb, "n,service=cart,status=200:1|c"),
            (TagStyle::Librato, "n#service=cart,status=200:1|c"),
            (TagStyle::Signalfx, "n[service=cart,status=200]:1|c"),
        ] {
            assert_eq!(line("n", COUNTER, Some((style, tags))), expected);
            assert_eq!(line("n", COUNTER, Some((style, &[]))), "n:1|c");
        }
    }

    #[test]
    fn types_and_rates_are_written() {
        let with = |stat_type, sample_rate| line("n", StatKind { stat_type, sample_rate }, None);
        assert_eq!(with(StatType::Timer, 1.0), "n:1|ms");
        assert_eq!(with(StatType::Counter, 0.25), "n:1|c|@0.25");
        // A server does not multiply these.
        assert_eq!(with(StatType::Gauge, 0.25), "n:1|g");
        assert_eq!(with(StatType::Set, 0.25), "n:1|s");
    }

    #[test]
    fn names_cannot_add_lines_or_tags() {
        let name = "kong.user.a:1|c\nother:5|c|#x";
        assert_eq!(line(name, COUNTER, None), "kong.user.a_1_c_other_5_c__x:1|c");
        let tags: &[StatTag<'_>] = &[("consumer", Some("a,status:500\n"))];
        assert_eq!(line("n", COUNTER, Some((TagStyle::Dogstatsd, tags))), "n:1|c|#consumer:a_status:500_");
        assert_eq!(line("n", COUNTER, Some((TagStyle::Influxdb, tags))), "n,consumer=a_status_500_:1|c");
    }

    // docs/kong-compatibility.md, 4.9
    #[test]
    fn tags_may_have_no_value_an_empty_one_and_colons() {
        let tags: &[StatTag<'_>] = &[("name", Some("")), ("T2", Some("V2:V3")), ("T4", None)];
        assert_eq!(line("n", COUNTER, Some((TagStyle::Dogstatsd, tags))), "n:1|c|#name:,T2:V2:V3,T4");
    }

    #[test]
    fn a_part_of_the_requests_is_measured() {
        fastrand::seed(7);
        let kind = StatKind { sample_rate: 0.25, ..COUNTER };
        let taken = (0..10_000).filter(|_| kind.takes()).count();
        assert!((2_300..2_700).contains(&taken), "{taken}");
        let set = StatKind { stat_type: StatType::Set, sample_rate: 0.0 };
        assert!(set.takes());
    }
}
