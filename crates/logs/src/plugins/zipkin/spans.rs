//! The spans of a request in the JSON format of Zipkin's API, version 2, with the names and tags of Kong's plugin.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::HeaderName;
use serde::Serialize;

use super::{Config, PhaseFlavor, SpanName, StaticTag};
use crate::plugin_api::LogCx;
use crate::plugin_api::http_version::protocol_name;
use crate::plugin_api::server_text::shorten;
use crate::plugin_api::timing::PluginPhase;
use crate::plugin_api::trace::attempts::{RequestClock, attempt_spans, attempt_status};
use crate::plugin_api::trace::{AttributeValue, RequestTrace, SpanId};

/// What spans are made of, besides the request.
pub(super) struct SpanRecorder {
    config: Config,
    tags_header: HeaderName,
    node: Box<str>,
}

/// `Span` of Zipkin's API.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ZipkinSpan<'a> {
    trace_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    id: String,
    kind: &'static str,
    name: Cow<'a, str>,
    /// Microseconds since 1970.
    timestamp: u64,
    /// Microseconds, at least 1.
    duration: u64,
    local_endpoint: ZipkinEndpoint<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_endpoint: Option<ZipkinEndpoint<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<Annotation>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<Cow<'a, str>, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ZipkinEndpoint<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    service_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[derive(Serialize)]
struct Annotation {
    timestamp: u64,
    value: &'static str,
}

impl SpanRecorder {
    pub(super) fn new(config: Config, tags_header: HeaderName, node: &str) -> Self {
        SpanRecorder { config, tags_header, node: node.into() }
    }

    /// The spans as the elements of a JSON list, without its brackets.
    pub(super) fn encode(&self, cx: &LogCx<'_>, context: &RequestTrace) -> Bytes {
        let clock = cx.clock();
        let mut spans = vec![self.request_span(cx, context, clock)];
        if let Some(before) = cx.request.before_upstream {
            spans.push(self.proxy_span(cx, context, clock.after(before), clock));
        }
        for (index, attempt, span) in attempt_spans(cx.request.attempts, context, context.server_span, clock) {
            let name = format!("{} (balancer try {})", method(cx), index + 1);
            let mut try_span = self.span(context, span.id, span.parent, "CLIENT", name.into(), (span.start, span.end));
            try_span.remote_endpoint = Some(ZipkinEndpoint::of_server(attempt.endpoint, self.service_name(cx)));
            try_span.tags.insert("kong.balancer.try".into(), (index + 1).to_string());
            if let Some(AttributeValue::Number(status)) = attempt_status(attempt) {
                try_span.tags.insert("http.status_code".into(), status.to_string());
            }
            if let Some(error) = span.error {
                try_span.tags.insert("error".into(), "true".to_owned());
                try_span.tags.insert("kong.balancer.state".into(), "failed".to_owned());
                try_span.tags.insert("kong.balancer.reason".into(), error.into_owned());
            }
            spans.push(try_span);
        }
        let list = serde_json::to_vec(&spans).expect("text and numbers always serialize");
        let list_end = list.len() - 1;
        Bytes::from(list).slice(1..list_end)
    }

    fn request_span<'a>(&'a self, cx: &'a LogCx<'_>, context: &RequestTrace, clock: RequestClock) -> ZipkinSpan<'a> {
        let times = (clock.start(), clock.end());
        let name = match (self.config.http_span_name, cx.request.heads) {
            (SpanName::MethodPath, Some(heads)) => {
                Cow::Owned(format!("{} {}", method(cx), shorten(heads.target.path())))
            }
            _ => method(cx).into(),
        };
        let mut span = self.span(context, context.server_span, context.parent, "SERVER", name, times);
        let tags = &mut span.tags;
        tags.extend(self.config.static_tags.iter().map(|StaticTag { name, value }| (name.into(), value.clone())));
        if let Some(heads) = cx.request.heads {
            span.remote_endpoint = Some(ZipkinEndpoint::of_address(heads.client));
            if let Some(value) = heads.request.get(&self.tags_header) {
                tags.extend(parse_tags(value.as_bytes()).map(|(name, value)| (name.to_owned().into(), value)));
            }
            tags.insert("http.method".into(), heads.method.to_string());
            tags.insert("http.host".into(), String::from_utf8_lossy(heads.host.as_bytes()).into_owned());
            tags.insert("http.path".into(), shorten(heads.target.path()).into_owned());
            tags.insert("http.protocol".into(), protocol_name(heads.version).to_owned());
        }
        tags.insert("lc".into(), "kong".to_owned());
        tags.insert("http.status_code".into(), cx.summary.status.as_u16().to_string());
        tags.insert("kong.node.id".into(), self.node.to_string());
        if let Some(consumer) = &cx.identity.consumer {
            tags.insert("kong.consumer".into(), consumer.reported_id().to_string());
        }
        if let Some(credential) = cx.identity.credential().filter(|_| self.config.include_credential) {
            tags.insert("kong.credential".into(), credential.to_string());
        }
        if cx.summary.status.is_server_error() {
            tags.insert("error".into(), "true".to_owned());
        }
        if let Some(reason) = cx.request.error {
            tags.insert("kong.error".into(), reason.to_owned());
        }
        if cx.request.before_upstream.is_none() {
            self.add_service(cx, tags);
        }
        span
    }

    /// The span from the beginning of the first phase, whose annotations it has, to the end of the request. No other
    /// span refers to it: those of attempts have the same parent.
    fn proxy_span<'a>(
        &'a self,
        cx: &'a LogCx<'_>,
        context: &RequestTrace,
        forwarded_at: u64,
        clock: RequestClock,
    ) -> ZipkinSpan<'a> {
        let name = format!("{} (proxy)", method(cx)).into();
        let phases = phases(cx, clock);
        let start = phases.iter().map(|phase| phase.start).fold(forwarded_at, u64::min);
        let times = (start, clock.end());
        let mut span = self.span(context, SpanId::random(), Some(context.server_span), "CLIENT", name, times);
        self.add_service(cx, &mut span.tags);
        if let Some(last) = cx.request.attempts.last() {
            span.tags.insert("peer.hostname".into(), last.endpoint.ip().to_string());
            span.remote_endpoint = Some(ZipkinEndpoint::of_server(last.endpoint, self.service_name(cx)));
        }
        for phase in phases {
            match self.config.phase_duration_flavor {
                PhaseFlavor::Tags => {
                    let milliseconds = (phase.end - phase.start) / 1_000_000;
                    span.tags.insert(phase.tag.into(), milliseconds.to_string());
                }
                PhaseFlavor::Annotations => {
                    let [begin, end] = phase.annotations;
                    span.annotations.push(Annotation { timestamp: phase.start / 1000, value: begin });
                    span.annotations.push(Annotation { timestamp: phase.end / 1000, value: end });
                }
            }
        }
        span
    }

    fn span<'a>(
        &'a self,
        context: &RequestTrace,
        id: SpanId,
        parent: Option<SpanId>,
        kind: &'static str,
        name: Cow<'a, str>,
        (start, end): (u64, u64),
    ) -> ZipkinSpan<'a> {
        ZipkinSpan {
            trace_id: context.trace.to_string(),
            parent_id: parent.map(|parent| parent.to_string()),
            id: id.to_string(),
            kind,
            name,
            timestamp: start / 1000,
            duration: microseconds(start, end),
            local_endpoint: ZipkinEndpoint {
                service_name: Some(&self.config.local_service_name),
                ..ZipkinEndpoint::NONE
            },
            remote_endpoint: None,
            annotations: Vec::new(),
            tags: BTreeMap::new(),
        }
    }

    fn service_name<'a>(&'a self, cx: &'a LogCx<'_>) -> Option<&'a str> {
        let service = Some(&*cx.names.service).filter(|name| !name.is_empty());
        service.or(self.config.default_service_name.as_deref())
    }

    fn add_service(&self, cx: &LogCx<'_>, tags: &mut BTreeMap<Cow<'_, str>, String>) {
        if let Some(service) = self.service_name(cx) {
            tags.insert("kong.service".into(), service.to_owned());
            tags.insert("kong.service_name".into(), service.to_owned());
        }
        tags.insert("kong.route".into(), cx.names.route.to_string());
        tags.insert("kong.route_name".into(), cx.names.route.to_string());
    }
}

impl<'a> ZipkinEndpoint<'a> {
    const NONE: ZipkinEndpoint<'static> = ZipkinEndpoint { service_name: None, ipv4: None, ipv6: None, port: None };

    fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => ZipkinEndpoint { ipv4: Some(address), ..ZipkinEndpoint::NONE },
            IpAddr::V6(_) => ZipkinEndpoint { ipv6: Some(address), ..ZipkinEndpoint::NONE },
        }
    }

    fn of_server(address: SocketAddr, service_name: Option<&'a str>) -> Self {
        ZipkinEndpoint { port: Some(address.port()), service_name, ..ZipkinEndpoint::of_address(address.ip()) }
    }
}

/// The time of a phase in nanoseconds since 1970, and its names.
struct Phase {
    start: u64,
    end: u64,
    annotations: [&'static str; 2],
    tag: &'static str,
}

/// The phases that the request had, each from its first plugin to its last.
fn phases(cx: &LogCx<'_>, clock: RequestClock) -> Vec<Phase> {
    let of_plugins = [
        (&[PluginPhase::Access, PluginPhase::BeforeForward][..], ["kas", "kaf"], "kong.access.duration_ms"),
        (&[PluginPhase::Response], ["khs", "khf"], "kong.header_filter.duration_ms"),
        (&[PluginPhase::Body], ["kbs", "kbf"], "kong.body_filter.duration_ms"),
    ];
    let mut phases = Vec::new();
    for (kinds, annotations, tag) in of_plugins {
        let times = cx.timings.all().filter(|timing| kinds.contains(&timing.phase));
        let times = times.map(|timing| (timing.started_at, timing.started_at + timing.duration));
        if let Some((start, end)) = times.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1))) {
            phases.push(Phase { start: clock.at(start), end: clock.at(end), annotations, tag });
        }
    }
    phases
}

/// Why a tag cannot have this name.
pub(super) fn tag_problem(name: &str) -> Option<String> {
    let is_reserved =
        ["error", "lc"].contains(&name) || ["http.", "kong.", "peer."].iter().any(|prefix| name.starts_with(prefix));
    if name.is_empty() {
        return Some("is empty".to_owned());
    }
    is_reserved.then(|| format!("{name} is reserved"))
}

/// The tags of a header, such as `a=b; c=d`. Those that cannot be tags are left out.
fn parse_tags(value: &[u8]) -> impl Iterator<Item = (&str, String)> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(name, value)| (name.trim(), shorten(value.trim()).into_owned()));
    pairs.filter(|(name, _)| name.len() <= MAX_TAG_NAME && tag_problem(name).is_none()).take(MAX_TAGS)
}

/// The duration in whole microseconds. It ends with the microsecond in which the span ends: durations that are rounded
/// by themselves can make a span end after the one that contains it.
fn microseconds(start: u64, end: u64) -> u64 {
    (end / 1000 + 1).saturating_sub(start / 1000)
}

fn method<'a>(cx: &'a LogCx<'_>) -> &'a str {
    cx.request.heads.map_or("HTTP", |heads| heads.method.as_str())
}

const MAX_TAGS: usize = 32;
const MAX_TAG_NAME: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_within_others_are_within_them_after_rounding() {
        let times = [0, 1, 999, 1000, 1001, 1900, 5000, 9999, 10_000, 10_100];
        let written = |start: u64, end: u64| (start / 1000, start / 1000 + microseconds(start, end));
        for (first, start) in times.into_iter().enumerate() {
            for (last, end) in times.into_iter().enumerate().skip(first) {
                let (start_of_parent, end_of_parent) = written(start, end);
                assert!(start_of_parent < end_of_parent, "Zipkin refuses spans without a duration");
                for inner_start in &times[first..=last] {
                    for inner_end in times[first..=last].iter().filter(|inner_end| *inner_end >= inner_start) {
                        let (start, end) = written(*inner_start, *inner_end);
                        let is_within = start_of_parent <= start && end <= end_of_parent;
                        assert!(is_within, "{inner_start} to {inner_end} in {start_of_parent} to {end_of_parent}");
                    }
                }
            }
        }
    }
}
