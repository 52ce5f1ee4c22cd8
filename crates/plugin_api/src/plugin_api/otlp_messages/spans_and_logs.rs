//! The messages of spans and logs, as opentelemetry-proto defines them, with the fields that are written.
//!
//! The entry of one request is a field of the message that a server gets, so the entries of a batch, one after the
//! other, are that message.

use bytes::Bytes;
use prost::Message;

use crate::plugin_api::trace::{AttributeValue, RequestTrace, Span, SpanKind};

/// `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ExportTraces {
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<OtlpResource>,
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub struct OtlpResource {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<OtlpAttribute>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<OtlpScope>,
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<OtlpSpan>,
}

/// `InstrumentationScope`.
#[derive(Clone, PartialEq, Message)]
pub struct OtlpScope {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

/// `Span`.
#[derive(Clone, PartialEq, Message)]
pub struct OtlpSpan {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(int32, tag = "6")]
    pub kind: i32,
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<OtlpAttribute>,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<OtlpEvent>,
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

/// `Span.Event`.
#[derive(Clone, PartialEq, Message)]
pub struct OtlpEvent {
    #[prost(fixed64, tag = "1")]
    pub time_unix_nano: u64,
    #[prost(string, tag = "2")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(int32, tag = "3")]
    pub code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct OtlpAttribute {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    #[prost(oneof = "any_value::Value", tags = "1, 2, 3")]
    pub value: Option<any_value::Value>,
}

pub mod any_value {
    //! The value of an `AnyValue`.

    /// The types that are written.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(bool, tag = "2")]
        Boolean(bool),
        #[prost(int64, tag = "3")]
        Number(i64),
    }
}

/// `ExportLogsServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ExportLogs {
    #[prost(message, repeated, tag = "1")]
    pub resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<OtlpResource>,
    #[prost(message, repeated, tag = "2")]
    pub scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<OtlpScope>,
    #[prost(message, repeated, tag = "2")]
    pub log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LogRecord {
    #[prost(fixed64, tag = "1")]
    pub time_unix_nano: u64,
    #[prost(int32, tag = "2")]
    pub severity_number: i32,
    #[prost(string, tag = "3")]
    pub severity_text: String,
    #[prost(message, optional, tag = "5")]
    pub body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    pub attributes: Vec<OtlpAttribute>,
    #[prost(fixed32, tag = "8")]
    pub flags: u32,
    #[prost(bytes = "vec", tag = "9")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    pub span_id: Vec<u8>,
    #[prost(fixed64, tag = "11")]
    pub observed_time_unix_nano: u64,
}

impl OtlpAttribute {
    /// A text with a name.
    pub fn text(key: &str, value: &str) -> Self {
        let value = any_value::Value::Text(value.to_owned());
        OtlpAttribute { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
    }
}

impl OtlpResource {
    pub fn new<'a>(attributes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let attribute = |(key, value): (&str, &str)| key_value(key, &AttributeValue::from(value));
        OtlpResource { attributes: attributes.into_iter().map(attribute).collect() }
    }
}

/// The entry of one request for `ExportTraces`.
pub fn encode_spans(resource: &OtlpResource, scope: &str, spans: &[Span]) -> Bytes {
    let spans = spans.iter().map(OtlpSpan::from).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(instrumentation_scope(scope)), spans }];
    let entry = ResourceSpans { resource: Some(resource.clone()), scope_spans };
    ExportTraces { resource_spans: vec![entry] }.encode_to_vec().into()
}

/// The entry of one request for `ExportLogs`. The body is the text of the log entry.
pub fn encode_log(
    resource: &OtlpResource,
    scope: &str,
    time: u64,
    body: String,
    attributes: &[(&'static str, AttributeValue)],
    context: Option<&RequestTrace>,
) -> Bytes {
    let record = LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: SEVERITY_INFO,
        severity_text: "INFO".to_owned(),
        body: Some(AnyValue { value: Some(any_value::Value::Text(body)) }),
        attributes: attributes.iter().map(|(name, value)| key_value(name, value)).collect(),
        flags: context.map_or(0, |context| u32::from(context.is_sampled)),
        trace_id: context.map_or_else(Vec::new, |context| context.trace.value().to_be_bytes().to_vec()),
        span_id: context.map_or_else(Vec::new, |context| context.server_span.value().to_be_bytes().to_vec()),
    };
    let scope_logs = vec![ScopeLogs { scope: Some(instrumentation_scope(scope)), log_records: vec![record] }];
    let entry = ResourceLogs { resource: Some(resource.clone()), scope_logs };
    ExportLogs { resource_logs: vec![entry] }.encode_to_vec().into()
}

impl From<&Span> for OtlpSpan {
    fn from(span: &Span) -> Self {
        OtlpSpan {
            trace_id: span.trace.value().to_be_bytes().to_vec(),
            span_id: span.id.value().to_be_bytes().to_vec(),
            parent_span_id: span.parent.map_or_else(Vec::new, |parent| parent.value().to_be_bytes().to_vec()),
            name: span.name.to_string(),
            kind: match span.kind {
                SpanKind::Internal => 1,
                SpanKind::Server => 2,
                SpanKind::Client => 3,
            },
            start_time_unix_nano: span.start,
            end_time_unix_nano: span.end.max(span.start),
            attributes: span.attributes.iter().map(|(name, value)| key_value(name, value)).collect(),
            events: span
                .events
                .iter()
                .map(|event| OtlpEvent { time_unix_nano: event.time, name: event.name.to_string() })
                .collect(),
            status: span.error.as_ref().map(|error| Status { message: error.to_string(), code: STATUS_ERROR }),
            flags: 1,
        }
    }
}

pub(super) fn instrumentation_scope(name: &str) -> OtlpScope {
    OtlpScope { name: name.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

fn key_value(key: &str, value: &AttributeValue) -> OtlpAttribute {
    let value = match value {
        AttributeValue::Text(text) => any_value::Value::Text(text.to_string()),
        AttributeValue::Number(number) => any_value::Value::Number(*number),
        AttributeValue::Boolean(value) => any_value::Value::Boolean(*value),
    };
    OtlpAttribute { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

const SEVERITY_INFO: i32 = 9;
const STATUS_ERROR: i32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::trace::{SpanId, TraceId};

    #[test]
    fn entries_of_a_batch_are_one_message() {
        let span = |name: &'static str, error: Option<&'static str>| Span {
            trace: TraceId::new(0x0102).unwrap(),
            id: SpanId::new(3).unwrap(),
            parent: SpanId::new(4),
            name: name.into(),
            kind: SpanKind::Server,
            start: 20,
            end: 10,
            attributes: vec![("a".into(), true.into()), ("b".into(), 7_u16.into()), ("c".into(), "d".into())],
            events: Vec::new(),
            error: error.map(Into::into),
        };
        let resource = OtlpResource::new([("service.name", "shop")]);
        let mut body = encode_spans(&resource, "test", &[span("one", None), span("two", Some("refused"))]).to_vec();
        body.extend_from_slice(&encode_spans(&resource, "test", &[span("three", None)]));
        let message = ExportTraces::decode(&*body).unwrap();
        let spans: Vec<_> =
            message.resource_spans.iter().flat_map(|entry| &entry.scope_spans).flat_map(|scope| &scope.spans).collect();
        assert_eq!(spans.iter().map(|span| &*span.name).collect::<Vec<_>>(), ["one", "two", "three"]);
        assert_eq!((spans[0].trace_id.len(), &spans[0].trace_id[14..]), (16, &[1, 2][..]));
        assert_eq!(
            (&spans[0].span_id[..], &spans[0].parent_span_id[..]),
            (&[0, 0, 0, 0, 0, 0, 0, 3][..], &[0, 0, 0, 0, 0, 0, 0, 4][..])
        );
        assert_eq!((spans[0].kind, spans[0].start_time_unix_nano, spans[0].end_time_unix_nano), (2, 20, 20));
        assert_eq!(spans[1].status.as_ref().map(|status| (status.code, &*status.message)), Some((2, "refused")));
        assert_eq!((spans[0].attributes.len(), spans[0].status.is_none()), (3, true));
    }
}
