//! The formats of trace contexts in header fields, and the fields of each.

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::TraceId;
use crate::begun_trace::BegunTrace;

/// A format that is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TraceFormat {
    /// `traceparent` and `tracestate`: W3C Trace Context.
    W3c,
    /// `X-B3-TraceId` and the other fields of Zipkin. The single field `b3` is read as well.
    B3,
    /// The single field `b3` of Zipkin.
    #[serde(rename = "b3-single")]
    B3Single,
    /// `uber-trace-id`.
    Jaeger,
    /// `ot-tracer-traceid` and others, of OpenTracing.
    Ot,
    /// `x-datadog-trace-id` and others.
    Datadog,
    /// `X-Amzn-Trace-Id`.
    Aws,
    /// `X-Cloud-Trace-Context`, of Google Cloud.
    Gcp,
    /// `X-Instana-T`, `X-Instana-S` and `X-Instana-L`.
    Instana,
}

/// What is written for endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedFormat {
    Format(TraceFormat),
    /// The format in which the request has a context, or else the default format.
    Preserve,
}

impl TraceFormat {
    /// The order in which formats are read by default.
    pub(crate) const ALL_READ: [TraceFormat; 8] = [
        TraceFormat::W3c,
        TraceFormat::B3,
        TraceFormat::Jaeger,
        TraceFormat::Ot,
        TraceFormat::Datadog,
        TraceFormat::Aws,
        TraceFormat::Gcp,
        TraceFormat::Instana,
    ];

    /// The name, as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            TraceFormat::W3c => "w3c",
            TraceFormat::B3 => "b3",
            TraceFormat::B3Single => "b3-single",
            TraceFormat::Jaeger => "jaeger",
            TraceFormat::Ot => "ot",
            TraceFormat::Datadog => "datadog",
            TraceFormat::Aws => "aws",
            TraceFormat::Gcp => "gcp",
            TraceFormat::Instana => "instana",
        }
    }

    /// The format with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = TraceFormat::ALL_READ.into_iter().chain([TraceFormat::B3Single]);
        all.into_iter().find(|format| format.name() == name)
    }

    /// The identifier of a trace as the format writes it.
    pub fn trace_text(self, trace: TraceId) -> String {
        match self {
            TraceFormat::W3c | TraceFormat::Gcp => trace.long_text(),
            TraceFormat::Datadog => trace.low().to_string(),
            TraceFormat::Aws => {
                let digits = trace.long_text();
                let (time, rest) = digits.split_at(8);
                format!("1-{time}-{rest}")
            }
            TraceFormat::B3 | TraceFormat::B3Single | TraceFormat::Jaeger | TraceFormat::Ot | TraceFormat::Instana => {
                trace.to_string()
            }
        }
    }

    /// All fields that writing the format sets or removes.
    pub fn fields(self) -> &'static [HeaderName] {
        static W3C: [HeaderName; 2] = [TRACEPARENT, TRACESTATE];
        static B3_MULTI: [HeaderName; 5] = [B3_TRACE_ID, B3_SPAN_ID, B3_PARENT_SPAN_ID, B3_SAMPLED, B3_FLAGS];
        static B3_SINGLE: [HeaderName; 1] = [B3];
        static JAEGER: [HeaderName; 1] = [UBER_TRACE_ID];
        static OT: [HeaderName; 3] = [OT_TRACE_ID, OT_SPAN_ID, OT_SAMPLED];
        static DATADOG: [HeaderName; 4] = [DATADOG_TRACE_ID, DATADOG_PARENT_ID, DATADOG_PRIORITY, DATADOG_TAGS];
        static AWS: [HeaderName; 1] = [AMZN_TRACE_ID];
        static GCP: [HeaderName; 1] = [CLOUD_TRACE_CONTEXT];
        static INSTANA: [HeaderName; 3] = [INSTANA_T, INSTANA_S, INSTANA_L];
        match self {
            TraceFormat::W3c => &W3C,
            TraceFormat::B3 => &B3_MULTI,
            TraceFormat::B3Single => &B3_SINGLE,
            TraceFormat::Jaeger => &JAEGER,
            TraceFormat::Ot => &OT,
            TraceFormat::Datadog => &DATADOG,
            TraceFormat::Aws => &AWS,
            TraceFormat::Gcp => &GCP,
            TraceFormat::Instana => &INSTANA,
        }
    }
}

/// Whether a request with this field may have a context, or a part of one.
pub(super) fn is_of_context(name: &HeaderName) -> bool {
    // For speed: few other fields begin with these letters.
    match name.as_str().as_bytes() {
        [b't', b'r', ..] => *name != TRACESTATE,
        [b'x', b'-', b'd', ..] => *name != DATADOG_TAGS,
        [b'b', b'3', ..] | [b'u', b'b', ..] | [b'o', b't', ..] | [b'x', b'-', b'a' | b'b' | b'c' | b'i', ..] => true,
        _ => false,
    }
}

pub(super) const TRACEPARENT: HeaderName = BegunTrace::FIELD;
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub(super) const B3: HeaderName = HeaderName::from_static("b3");
pub(super) const B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
pub(super) const B3_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
pub(super) const B3_PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
pub(super) const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
pub(super) const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
pub(super) const UBER_TRACE_ID: HeaderName = HeaderName::from_static("uber-trace-id");
pub(super) const OT_TRACE_ID: HeaderName = HeaderName::from_static("ot-tracer-traceid");
pub(super) const OT_SPAN_ID: HeaderName = HeaderName::from_static("ot-tracer-spanid");
pub(super) const OT_SAMPLED: HeaderName = HeaderName::from_static("ot-tracer-sampled");
pub(super) const DATADOG_TRACE_ID: HeaderName = HeaderName::from_static("x-datadog-trace-id");
pub(super) const DATADOG_PARENT_ID: HeaderName = HeaderName::from_static("x-datadog-parent-id");
pub(super) const DATADOG_PRIORITY: HeaderName = HeaderName::from_static("x-datadog-sampling-priority");
pub(super) const DATADOG_TAGS: HeaderName = HeaderName::from_static("x-datadog-tags");
pub(super) const AMZN_TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
pub(super) const CLOUD_TRACE_CONTEXT: HeaderName = HeaderName::from_static("x-cloud-trace-context");
pub(super) const INSTANA_T: HeaderName = HeaderName::from_static("x-instana-t");
pub(super) const INSTANA_S: HeaderName = HeaderName::from_static("x-instana-s");
pub(super) const INSTANA_L: HeaderName = HeaderName::from_static("x-instana-l");
/// The tag with the upper 64 bits of a trace, in the fields of Datadog.
pub(super) const DATADOG_UPPER_BITS: &str = "_dd.p.tid";
