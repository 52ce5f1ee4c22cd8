//! Formats a record as a line of text or JSON.
//!
//! Values from clients are escaped, so they cannot forge fields or lines. Possible secrets are not written: no query
//! values, no user and password of a URL, and no header fields other than Host and User-Agent.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Uri};

use super::query::redact_values;
use super::{AccessLogFormat, AccessLogRecord, attempt_list, encode};
use crate::access_log_syntax::AccessLogField;
use crate::plugin_api::completed_request::Attempt;
use crate::plugin_api::masking::MaskedAccessField;
use crate::proxy::telemetry::stats::RequestLabels;
use crate::upstream::EndpointPick;

/// The layout of a line, with its constant parts formatted once.
#[derive(Debug)]
pub(super) struct LineLayout {
    format: AccessLogFormat,
    parts: Box<[LayoutPart]>,
}

#[derive(Debug)]
enum LayoutPart {
    Field(LayoutField),
    Labels(LabelRun),
}

#[derive(Debug)]
struct LayoutField {
    field: AccessLogField,
    /// The constant text before the value, for example `,"status":` or ` route=`.
    prefix: Box<str>,
}

/// Consecutive fields whose values are labels. Their text is the same in all lines of a series, which keeps it.
#[derive(Debug)]
struct LabelRun {
    /// The position among the runs of the layout.
    index: usize,
    fields: Vec<LayoutField>,
}

impl LineLayout {
    pub(super) fn new(format: AccessLogFormat, fields: &[AccessLogField]) -> Self {
        let mut parts: Vec<LayoutPart> = Vec::new();
        let mut run_count = 0;
        for (index, field) in fields.iter().enumerate() {
            let prefix = match (format, index) {
                (AccessLogFormat::Json, 0) => format!("{{\"{field}\":"),
                (AccessLogFormat::Json, _) => format!(",\"{field}\":"),
                (AccessLogFormat::Text, 0) => field.text_prefix().to_owned(),
                (AccessLogFormat::Text, _) => format!(" {}", field.text_prefix()),
            };
            let field = LayoutField { field: *field, prefix: prefix.into() };
            match parts.last_mut() {
                _ if !field.field.is_label() => parts.push(LayoutPart::Field(field)),
                Some(LayoutPart::Labels(run)) => run.fields.push(field),
                _ => {
                    parts.push(LayoutPart::Labels(LabelRun { index: run_count, fields: vec![field] }));
                    run_count += 1;
                }
            }
        }
        LineLayout { format, parts: parts.into() }
    }

    /// Appends one line, including its line feed.
    pub(super) fn write(&self, record: &AccessLogRecord<'_>, line: &mut Vec<u8>) {
        for part in &self.parts {
            match (part, &record.series) {
                (LayoutPart::Field(field), _) => field.write(self.format, record, line),
                (LayoutPart::Labels(run), Some(series)) => {
                    line.extend_from_slice(&series.line_texts.get_or_init(|| self.label_texts(record))[run.index]);
                }
                (LayoutPart::Labels(run), None) => run.write(self.format, record, line),
            }
        }
        line.extend_from_slice(match self.format {
            AccessLogFormat::Text => b"\n",
            AccessLogFormat::Json => b"}\n",
        });
    }

    /// The text of each run of labels.
    fn label_texts(&self, record: &AccessLogRecord<'_>) -> Box<[Box<[u8]>]> {
        let text = |part: &LayoutPart| match part {
            LayoutPart::Field(_) => None,
            LayoutPart::Labels(run) => {
                let mut text = Vec::new();
                run.write(self.format, record, &mut text);
                Some(text.into())
            }
        };
        self.parts.iter().filter_map(text).collect()
    }
}

impl LayoutField {
    fn write(&self, format: AccessLogFormat, record: &AccessLogRecord<'_>, line: &mut Vec<u8>) {
        line.extend_from_slice(self.prefix.as_bytes());
        let mut value = LogValue::from_record(self.field, record);
        if !record.masks().is_empty() {
            value = value.masked(self.field, record);
        }
        match format {
            AccessLogFormat::Text => value.write_text(line),
            AccessLogFormat::Json => value.write_json(line),
        }
    }
}

impl LabelRun {
    fn write(&self, format: AccessLogFormat, record: &AccessLogRecord<'_>, line: &mut Vec<u8>) {
        for field in &self.fields {
            field.write(format, record, line);
        }
    }
}

/// The value of one field of a record. Borrowed, because formatting is a considerable part of the cost of a request.
enum LogValue<'r> {
    None,
    Text(Cow<'r, str>),
    Number(u64),
    Milliseconds(Duration),
    Time(SystemTime),
    Address(&'r SocketAddr),
    Tries(&'r [Attempt]),
}

impl<'r> LogValue<'r> {
    fn from_record(field: AccessLogField, record: &'r AccessLogRecord) -> Self {
        let label = |read: fn(&RequestLabels) -> &Arc<str>| {
            LogValue::text_or_none(record.series.as_ref().map(|series| &**read(&series.labels)))
        };
        let header = |value: &'r Option<HeaderValue>| match value {
            Some(value) => LogValue::Text(to_text_lossy(value)),
            None => LogValue::None,
        };
        match field {
            AccessLogField::Time => LogValue::Time(record.time),
            AccessLogField::Client => LogValue::Address(&record.client),
            AccessLogField::Method => LogValue::text_or_none(record.method.as_ref().map(Method::as_str)),
            AccessLogField::Host => {
                record.host.as_ref().map_or(LogValue::None, |host| LogValue::Text(strip_user_info(to_text_lossy(host))))
            }
            AccessLogField::Path => {
                LogValue::text_or_none(record.target.as_ref().map(Uri::path).filter(|path| !path.is_empty()))
            }
            AccessLogField::Query => {
                let query = record.target.as_ref().and_then(Uri::query);
                let shows = |name: &str| record.shows_parameter(name);
                query.map_or(LogValue::None, |query| LogValue::Text(Cow::Owned(redact_values(query, shows))))
            }
            AccessLogField::Protocol => LogValue::text_or_none(record.protocol),
            AccessLogField::Status => {
                record.status.map_or(LogValue::None, |status| LogValue::Number(u64::from(status.as_u16())))
            }
            AccessLogField::BytesIn => LogValue::Number(record.bytes_in),
            AccessLogField::BytesOut => LogValue::Number(record.bytes_out),
            AccessLogField::DurationMs => LogValue::Milliseconds(record.duration),
            AccessLogField::ConnectMs => record.connect_duration.map_or(LogValue::None, LogValue::Milliseconds),
            AccessLogField::Tls => LogValue::text_or_none(record.tls),
            AccessLogField::Sni => LogValue::text_or_none(record.server_name.as_deref()),
            AccessLogField::Gateway => label(|labels| &labels.gateway),
            AccessLogField::Listener => label(|labels| &labels.listener),
            AccessLogField::Route => label(|labels| &labels.route),
            AccessLogField::Rule => label(|labels| &labels.rule),
            AccessLogField::Upstream => label(|labels| &labels.backend),
            AccessLogField::Address => record.address.as_ref().map_or(LogValue::None, LogValue::Address),
            AccessLogField::Picked => LogValue::text_or_none(record.pick.map(EndpointPick::name)),
            AccessLogField::Circuit => LogValue::text_or_none(record.error.filter(|error| *error == CIRCUIT_OPEN)),
            AccessLogField::Limited => LogValue::text_or_none(record.error.filter(|error| LIMITS.contains(error))),
            AccessLogField::Tries if record.tries.is_empty() => LogValue::None,
            AccessLogField::Tries => LogValue::Tries(record.tries),
            AccessLogField::RetryStop => LogValue::text_or_none(record.retry_stop),
            AccessLogField::Consumer => LogValue::text_or_none(record.consumer.as_deref()),
            AccessLogField::RequestId => header(&record.request_id),
            AccessLogField::TraceId => {
                record.trace.map_or(LogValue::None, |trace| LogValue::Text(Cow::Owned(trace.trace.long_text())))
            }
            AccessLogField::SpanId => {
                record.trace.map_or(LogValue::None, |trace| LogValue::Text(Cow::Owned(trace.server_span.to_string())))
            }
            AccessLogField::Error => LogValue::text_or_none(record.error),
            AccessLogField::UserAgent => header(&record.user_agent),
        }
    }

    /// The value without what the masks of the request cover.
    #[cold]
    fn masked(self, field: AccessLogField, record: &'r AccessLogRecord) -> Self {
        let field = match field {
            AccessLogField::Client => Some(MaskedAccessField::Client),
            AccessLogField::Consumer => Some(MaskedAccessField::Consumer),
            AccessLogField::Host | AccessLogField::Sni => Some(MaskedAccessField::Host),
            AccessLogField::Path => Some(MaskedAccessField::Path),
            AccessLogField::UserAgent => Some(MaskedAccessField::UserAgent),
            AccessLogField::Query => None,
            _ => return self,
        };
        match self {
            LogValue::Text(text) => LogValue::Text(record.masked(field, text)),
            LogValue::Address(_) => {
                let mask = field.and_then(|field| record.mask_of(field));
                mask.map_or(self, |mask| LogValue::Text(Cow::Borrowed(mask)))
            }
            other => other,
        }
    }

    /// `LogValue::None` if there is no text or the text is empty.
    fn text_or_none(text: Option<&'r str>) -> Self {
        text.filter(|text| !text.is_empty()).map_or(LogValue::None, |text| LogValue::Text(Cow::Borrowed(text)))
    }

    fn write_json(self, line: &mut Vec<u8>) {
        match self {
            LogValue::None => line.extend_from_slice(b"null"),
            LogValue::Text(text) => encode::json(&text, line),
            LogValue::Number(number) => encode::number(number, line),
            LogValue::Milliseconds(duration) => encode::milliseconds(duration, 1, line),
            LogValue::Time(time) => {
                line.push(b'"');
                encode::time(time, line);
                line.push(b'"');
            }
            LogValue::Address(address) => {
                line.push(b'"');
                encode::address(address, line);
                line.push(b'"');
            }
            LogValue::Tries(tries) => attempt_list::write_json(tries, line),
        }
    }

    fn write_text(self, line: &mut Vec<u8>) {
        match self {
            LogValue::None => line.push(b'-'),
            LogValue::Text(text) => encode::quoted_if_needed(&text, line),
            LogValue::Number(number) => encode::number(number, line),
            LogValue::Milliseconds(duration) => {
                encode::milliseconds(duration, 3, line);
                line.extend_from_slice(b"ms");
            }
            LogValue::Time(time) => encode::time(time, line),
            LogValue::Address(address) => encode::address(address, line),
            LogValue::Tries(tries) => attempt_list::write_text(tries, line),
        }
    }
}

/// Removes the user information of `user:password@host`. Such requests are rejected but still logged.
pub(super) fn strip_user_info(host: Cow<'_, str>) -> Cow<'_, str> {
    match memchr::memrchr(b'@', host.as_bytes()) {
        Some(separator) => Cow::Owned(host[separator + 1..].to_owned()),
        None => host,
    }
}

pub(super) fn to_text_lossy(value: &HeaderValue) -> Cow<'_, str> {
    // For speed: the check of whole values is faster than the search for invalid parts.
    match str::from_utf8(value.as_bytes()) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(value.as_bytes()),
    }
}

/// The reason of requests that a circuit breaker has rejected.
const CIRCUIT_OPEN: &str = "circuit_open";
/// The reasons of requests that a limit of their Service or of the process has rejected.
const LIMITS: [&str; 4] = ["over_limit", "queue_timeout", "connection_limit", "retry_budget"];

#[cfg(any(test, fuzzing))]
pub(super) mod testing {
    use http::StatusCode;

    use super::*;
    use crate::proxy::telemetry::access_log::Privacy;
    use crate::proxy::telemetry::stats::RequestSeries;

    static NOTHING_CHOSEN: Privacy = Privacy { shown_parameters: Vec::new(), masks_clients: false };

    pub(in crate::proxy::telemetry::access_log) fn record(target: &'static str) -> AccessLogRecord<'static> {
        AccessLogRecord {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            client: "10.0.0.1:5".parse().expect("a constant address"),
            tls: Some("TLSv1.3"),
            tls_cipher: None,
            server_name: Some("a.example".into()),
            listen_port: None,
            method: Some(Method::GET),
            protocol: Some("HTTP/2"),
            host: Some(HeaderValue::from_static("a.example")),
            target: Some(Uri::from_static(target)),
            status: Some(StatusCode::OK),
            bytes_in: 1,
            bytes_out: 2,
            duration: Duration::from_micros(1_500),
            connect_duration: None,
            series: Some(Arc::new(RequestSeries::new(Arc::new(RequestLabels {
                route: "HTTPRoute/ns/a".into(),
                rule: "0".into(),
                backend: "ns/web:80".into(),
                ..RequestLabels::default()
            })))),
            telemetry: None,
            address: Some("10.0.0.2:80".parse().expect("a constant address")),
            pick: None,
            tries: &[],
            retry_stop: None,
            consumer: None,
            request_id: Some(HeaderValue::from_static("id")),
            trace: None,
            error: None,
            user_agent: Some(HeaderValue::from_bytes(b"a \"b\"\t\xff").expect("a constant value")),
            captured: None,
            credentials: None,
            privacy: &NOTHING_CHOSEN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::record;
    use super::*;
    use crate::plugin_api::completed_request::CredentialLocations;
    use crate::plugin_api::masking::LogMask;
    use crate::plugin_api::masking::json_mask::JsonMask;
    use crate::plugin_api::masking::text_mask::{MaskedKind, TextMask};
    use crate::proxy::telemetry::access_log::Privacy;

    fn line(format: AccessLogFormat, fields: &[AccessLogField], record: &AccessLogRecord<'_>) -> String {
        let mut line = Vec::new();
        LineLayout::new(format, fields).write(record, &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn default_fields_as_text() {
        assert_eq!(
            line(AccessLogFormat::Text, &AccessLogField::defaults(), &record("/x?y=1")),
            "2023-11-14T22:13:20.123Z 10.0.0.1:5 GET a.example /x HTTP/2 200 in=1 out=2 1.500ms tls=TLSv1.3 \
             sni=a.example gateway=- listener=- route=HTTPRoute/ns/a rule=0 upstream=ns/web:80 address=10.0.0.2:80 \
             id=id error=- agent=\"a \\\"b\\\"\\t\u{fffd}\"\n"
        );
    }

    #[test]
    fn masks_cover_queries_and_server_names() {
        let text = TextMask::new(&[MaskedKind::Email], Vec::new(), "***");
        let mask = LogMask { object: JsonMask::new(Vec::new(), text), access_log: vec![MaskedAccessField::Host] };
        let credentials = CredentialLocations { masks: vec![Arc::new(mask)], ..CredentialLocations::default() };
        let privacy = Privacy { shown_parameters: vec!["to".into()], ..Privacy::default() };
        let record = AccessLogRecord {
            credentials: Some(&credentials),
            privacy: &privacy,
            ..record("/x?to=eve@b.example&key=k")
        };
        let fields = [AccessLogField::Host, AccessLogField::Query, AccessLogField::Sni];
        let expected = "{\"host\":\"***\",\"query\":\"to=***&key=*\",\"sni\":\"***\"}\n";
        assert_eq!(line(AccessLogFormat::Json, &fields, &record), expected);
    }

    #[test]
    fn default_fields_as_json() {
        let line = line(AccessLogFormat::Json, &AccessLogField::defaults(), &record("/x?y=1"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "time": "2023-11-14T22:13:20.123Z", "client": "10.0.0.1:5", "method": "GET", "host": "a.example",
            "path": "/x", "protocol": "HTTP/2", "status": 200, "bytes_in": 1, "bytes_out": 2, "duration_ms": 1.5,
            "tls": "TLSv1.3", "sni": "a.example", "gateway": null, "listener": null, "route": "HTTPRoute/ns/a",
            "rule": "0", "upstream": "ns/web:80", "address": "10.0.0.2:80", "request_id": "id", "error": null,
            "user_agent": "a \"b\"\t\u{fffd}",
        });
        assert_eq!(value, expected);
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line:?}");
    }

    #[test]
    fn configured_fields_are_written_in_order() {
        let record = AccessLogRecord { consumer: Some("anna".into()), ..record("/") };
        let fields = [AccessLogField::Status, AccessLogField::Consumer, AccessLogField::Error];
        assert_eq!(line(AccessLogFormat::Text, &fields, &record), "200 consumer=anna error=-\n");
        assert_eq!(
            line(AccessLogFormat::Json, &fields, &record),
            "{\"status\":200,\"consumer\":\"anna\",\"error\":null}\n"
        );
    }

    #[test]
    fn rejections_by_limits_and_circuits_have_fields_of_their_own() {
        let fields = [AccessLogField::Circuit, AccessLogField::Limited];
        for (error, expected) in [
            (Some("circuit_open"), "circuit=circuit_open limited=-\n"),
            (Some("over_limit"), "circuit=- limited=over_limit\n"),
            (Some("no_route"), "circuit=- limited=-\n"),
            (None, "circuit=- limited=-\n"),
        ] {
            assert_eq!(line(AccessLogFormat::Text, &fields, &AccessLogRecord { error, ..record("/") }), expected);
        }
    }

    #[test]
    fn labels_are_written_wherever_they_are_configured() {
        use AccessLogField::{Gateway, Route, Status, Upstream};
        for (format, with_labels, without_labels) in [
            (
                AccessLogFormat::Text,
                "route=HTTPRoute/ns/a gateway=- 200 upstream=ns/web:80",
                "route=- gateway=- 200 upstream=-",
            ),
            (
                AccessLogFormat::Json,
                r#"{"route":"HTTPRoute/ns/a","gateway":null,"status":200,"upstream":"ns/web:80"}"#,
                r#"{"route":null,"gateway":null,"status":200,"upstream":null}"#,
            ),
        ] {
            let layout = LineLayout::new(format, &[Route, Gateway, Status, Upstream]);
            let written = |record: &AccessLogRecord| {
                let mut line = Vec::new();
                layout.write(record, &mut line);
                String::from_utf8(line).unwrap()
            };
            let with_series = record("/");
            // The second line has the text that the first one has left in the series.
            for _ in 0..2 {
                assert_eq!(written(&with_series).trim_end(), with_labels);
            }
            let without_series = AccessLogRecord { series: None, ..record("/") };
            assert_eq!(written(&without_series).trim_end(), without_labels);
        }
    }

    #[test]
    fn every_field_parses_and_is_written() {
        let all: Vec<AccessLogField> = AccessLogField::ALL.iter().map(|(field, _)| *field).collect();
        let value: serde_json::Value =
            serde_json::from_str(&line(AccessLogFormat::Json, &all, &record("/x?y"))).unwrap();
        for (field, name) in AccessLogField::ALL {
            assert_eq!(name.parse(), Ok(*field));
            assert!(value.get(name).is_some(), "{name}");
        }
        let text = line(AccessLogFormat::Text, &all, &record("/x"));
        // Without the space in the user agent, spaces only separate fields.
        assert_eq!(text.trim_end().replace("a \\\"", "a").split(' ').count(), all.len(), "{text}");
        let error = "referer".parse::<AccessLogField>().unwrap_err();
        let expected = "there is no field `referer`; use a comma-separated list of time, client, ";
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn possible_secrets_are_not_logged() {
        let all: Vec<AccessLogField> = AccessLogField::ALL.iter().map(|(field, _)| *field).collect();
        for (target, logged_query) in [
            ("/x?apikey=hunter2&page=hunter2", "apikey=*&page=*"),
            ("/x?hunter2", "*"),
            ("/x?a=1=hunter2&&b", "a=*&&*"),
            ("http://anna:hunter2@a.example/x?y=hunter2", "y=*"),
            // May be padded base64 instead of a name.
            ("/x?hunter2=", "query=*"),
            ("/x?hunter2==&page=2", "query=*&page=*"),
            ("/x?page=2&hunter2==", "page=*&*"),
            // Not plausible as names.
            ("/x?hunter2;page=2", "query=*"),
            ("/x?hunter2%3D%3D=1&a.b[0]-_=1", "query=*&a.b[0]-_=*"),
            ("/x?eyJhbGciOiJIUzI1NiJ9hunter2dGVzdA=1", "query=*"),
        ] {
            let host = Some(HeaderValue::from_static("anna:hunter2@a.example"));
            let record = AccessLogRecord { host, ..record(target) };
            for format in [AccessLogFormat::Text, AccessLogFormat::Json] {
                let line = line(format, &all, &record);
                assert!(!line.contains("hunter2") && !line.contains("anna"), "{target}: {line}");
                let logged_query = if format == AccessLogFormat::Json {
                    logged_query.replace("query=", "\"query\":\"")
                } else {
                    logged_query.to_owned()
                };
                assert!(line.contains(&logged_query) && line.contains("a.example"), "{target}: {line}");
            }
        }
    }
}
