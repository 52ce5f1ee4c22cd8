//! The messages of spans and logs as JSON: its specification, "JSON Protobuf Encoding". Identifiers are
//! hexadecimal, integers of 64 bits are texts, enums are numbers, and fields with defaults are left out.

use bytes::Bytes;
use prost::{DecodeError, Message};
use serde_json::{Map, Value, json};

use super::spans_and_logs::{
    AnyValue, ExportLogs, ExportTraces, LogRecord, OtlpAttribute, OtlpEvent, OtlpResource, OtlpScope, OtlpSpan,
    any_value,
};
use crate::plugin_api::consumers::hex;

/// The JSON of an encoded `ExportTraces`.
pub fn traces_to_json(encoded: &[u8]) -> Result<Bytes, DecodeError> {
    let traces = ExportTraces::decode(encoded)?;
    let entries = traces.resource_spans.iter().map(|entry| {
        let scopes = entry.scope_spans.iter().map(|scope| {
            let spans: Vec<Value> = scope.spans.iter().map(span).collect();
            json!({"scope": scope_of(scope.scope.as_ref()), "spans": spans})
        });
        let scopes: Vec<Value> = scopes.collect();
        json!({"resource": resource(entry.resource.as_ref()), "scopeSpans": scopes})
    });
    Ok(to_bytes(&json!({"resourceSpans": entries.collect::<Vec<Value>>()})))
}

/// The JSON of an encoded `ExportLogs`.
pub fn logs_to_json(encoded: &[u8]) -> Result<Bytes, DecodeError> {
    let logs = ExportLogs::decode(encoded)?;
    let entries = logs.resource_logs.iter().map(|entry| {
        let scopes = entry.scope_logs.iter().map(|scope| {
            let records: Vec<Value> = scope.log_records.iter().map(log_record).collect();
            json!({"scope": scope_of(scope.scope.as_ref()), "logRecords": records})
        });
        let scopes: Vec<Value> = scopes.collect();
        json!({"resource": resource(entry.resource.as_ref()), "scopeLogs": scopes})
    });
    Ok(to_bytes(&json!({"resourceLogs": entries.collect::<Vec<Value>>()})))
}

fn to_bytes(message: &Value) -> Bytes {
    message.to_string().into()
}

fn span(span: &OtlpSpan) -> Value {
    let mut members = Map::new();
    let mut add = |name: &str, value: Value| members.insert(name.to_owned(), value);
    add("traceId", hex(&span.trace_id).into());
    add("spanId", hex(&span.span_id).into());
    if !span.parent_span_id.is_empty() {
        add("parentSpanId", hex(&span.parent_span_id).into());
    }
    add("flags", span.flags.into());
    add("name", span.name.as_str().into());
    add("kind", span.kind.into());
    add("startTimeUnixNano", span.start_time_unix_nano.to_string().into());
    add("endTimeUnixNano", span.end_time_unix_nano.to_string().into());
    if !span.attributes.is_empty() {
        add("attributes", attributes(&span.attributes));
    }
    if !span.events.is_empty() {
        add("events", span.events.iter().map(event).collect::<Vec<Value>>().into());
    }
    if let Some(status) = &span.status {
        add("status", json!({"code": status.code, "message": status.message}));
    }
    members.into()
}

fn event(event: &OtlpEvent) -> Value {
    json!({"timeUnixNano": event.time_unix_nano.to_string(), "name": event.name})
}

fn log_record(record: &LogRecord) -> Value {
    let mut members = Map::new();
    let mut add = |name: &str, value: Value| members.insert(name.to_owned(), value);
    add("timeUnixNano", record.time_unix_nano.to_string().into());
    add("observedTimeUnixNano", record.observed_time_unix_nano.to_string().into());
    add("severityNumber", record.severity_number.into());
    add("severityText", record.severity_text.as_str().into());
    if let Some(body) = &record.body {
        add("body", any_value(body));
    }
    if !record.attributes.is_empty() {
        add("attributes", attributes(&record.attributes));
    }
    add("flags", record.flags.into());
    if !record.trace_id.is_empty() {
        add("traceId", hex(&record.trace_id).into());
        add("spanId", hex(&record.span_id).into());
    }
    members.into()
}

pub(super) fn resource(resource: Option<&OtlpResource>) -> Value {
    json!({"attributes": attributes(resource.map_or(&[][..], |resource| &resource.attributes))})
}

pub(super) fn scope_of(scope: Option<&OtlpScope>) -> Value {
    scope.map_or_else(|| json!({}), |scope| json!({"name": scope.name, "version": scope.version}))
}

pub(super) fn attributes(attributes: &[OtlpAttribute]) -> Value {
    let members = attributes.iter().map(|attribute| {
        let value = attribute.value.as_ref().map_or_else(|| json!({}), any_value);
        json!({"key": attribute.key, "value": value})
    });
    members.collect::<Vec<Value>>().into()
}

fn any_value(value: &AnyValue) -> Value {
    match &value.value {
        Some(any_value::Value::Text(text)) => json!({"stringValue": text}),
        Some(any_value::Value::Boolean(value)) => json!({"boolValue": value}),
        Some(any_value::Value::Number(number)) => json!({"intValue": number.to_string()}),
        None => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::super::spans_and_logs::{ResourceLogs, ResourceSpans, ScopeLogs, ScopeSpans, Status};
    use super::*;

    fn text(value: &str) -> Option<AnyValue> {
        Some(AnyValue { value: Some(any_value::Value::Text(value.to_owned())) })
    }

    fn common() -> (Option<OtlpResource>, Option<OtlpScope>) {
        let attributes = vec![OtlpAttribute { key: "service.name".to_owned(), value: text("my.service") }];
        let scope = OtlpScope { name: "my.library".to_owned(), version: "1.0.0".to_owned() };
        (Some(OtlpResource { attributes }), Some(scope))
    }

    /// With the values of `examples/trace.json` in the repository opentelemetry-proto.
    #[test]
    fn spans_have_the_published_form() {
        let (resource, scope) = common();
        let number = AnyValue { value: Some(any_value::Value::Number(i64::MAX)) };
        let span = OtlpSpan {
            trace_id: b"\x5B\x8E\xFF\xF7\x98\x03\x81\x03\xD2\x69\xB6\x33\x81\x3F\xC6\x0C".to_vec(),
            span_id: b"\xEE\xE1\x9B\x7E\xC3\xC1\xB1\x74".to_vec(),
            parent_span_id: b"\xEE\xE1\x9B\x7E\xC3\xC1\xB1\x73".to_vec(),
            name: "I'm a server span".to_owned(),
            start_time_unix_nano: 1_544_712_660_000_000_000,
            end_time_unix_nano: 1_544_712_661_000_000_000,
            kind: 2,
            attributes: vec![
                OtlpAttribute { key: "my.span.attr".to_owned(), value: text("some value") },
                OtlpAttribute { key: "number".to_owned(), value: Some(number) },
            ],
            events: vec![OtlpEvent { time_unix_nano: 1_544_712_660_500_000_000, name: "retry".to_owned() }],
            status: Some(Status { message: "busy".to_owned(), code: 2 }),
            flags: 1,
        };
        let root = OtlpSpan {
            parent_span_id: Vec::new(),
            attributes: Vec::new(),
            events: Vec::new(),
            status: None,
            ..span.clone()
        };
        let spans = ScopeSpans { scope, spans: vec![span, root] };
        let traces = ExportTraces { resource_spans: vec![ResourceSpans { resource, scope_spans: vec![spans] }] };
        let written: Value = serde_json::from_slice(&traces_to_json(&traces.encode_to_vec()).unwrap()).unwrap();
        let root = json!({
            "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "flags": 1,
            "name": "I'm a server span", "kind": 2, "startTimeUnixNano": "1544712660000000000",
            "endTimeUnixNano": "1544712661000000000",
        });
        let mut span = root.clone();
        span["parentSpanId"] = json!("eee19b7ec3c1b173");
        span["attributes"] = json!([
            {"key": "my.span.attr", "value": {"stringValue": "some value"}},
            {"key": "number", "value": {"intValue": "9223372036854775807"}},
        ]);
        span["events"] = json!([{"timeUnixNano": "1544712660500000000", "name": "retry"}]);
        span["status"] = json!({"code": 2, "message": "busy"});
        let expected = json!({"resourceSpans": [{
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "my.service"}}]},
            "scopeSpans": [{"scope": {"name": "my.library", "version": "1.0.0"}, "spans": [span, root]}],
        }]});
        assert_eq!(written, expected);
        assert!(traces_to_json(&[0xFF]).is_err());
    }

    #[test]
    fn log_records_have_the_published_form() {
        let (resource, scope) = common();
        let record = LogRecord {
            time_unix_nano: 1_544_712_660_300_000_000,
            observed_time_unix_nano: 1_544_712_660_300_000_000,
            severity_number: 10,
            severity_text: "Information".to_owned(),
            body: text("Example log record"),
            attributes: vec![OtlpAttribute {
                key: "flag".to_owned(),
                value: Some(AnyValue { value: Some(any_value::Value::Boolean(true)) }),
            }],
            flags: 1,
            trace_id: vec![0x5B; 16],
            span_id: vec![0xEE; 8],
        };
        let logs = ScopeLogs { scope, log_records: vec![record] };
        let logs = ExportLogs { resource_logs: vec![ResourceLogs { resource, scope_logs: vec![logs] }] };
        let written: Value = serde_json::from_slice(&logs_to_json(&logs.encode_to_vec()).unwrap()).unwrap();
        let expected = json!({
            "timeUnixNano": "1544712660300000000", "observedTimeUnixNano": "1544712660300000000",
            "severityNumber": 10, "severityText": "Information", "body": {"stringValue": "Example log record"},
            "attributes": [{"key": "flag", "value": {"boolValue": true}}], "flags": 1,
            "traceId": "5b".repeat(16), "spanId": "ee".repeat(8),
        });
        assert_eq!(written["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0], expected);
    }
}
