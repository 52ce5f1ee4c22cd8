//! A record as a line of text or JSON. Whatever a client sent stays one field of one line, and what may open something is
//! not written: no value of a query, no user and password of a URL, no header but Host and User-Agent.

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};
use std::sync::Arc;

use http::{HeaderValue, Method, Uri, Version};
use jiff::Timestamp;
use serde::Serialize;

use super::{Field, Format, Record};
use crate::proxy::stats::Labels;

/// How a line is made, with everything in it that is the same in all lines.
#[derive(Debug)]
pub(super) struct Layout {
    format: Format,
    fields: Box<[Part]>,
}

#[derive(Debug)]
struct Part {
    field: Field,
    /// `,"status":`, or ` route=`.
    before: Box<str>,
}

impl Layout {
    pub(super) fn new(format: Format, fields: &[Field]) -> Self {
        let part = |(index, field): (usize, &Field)| {
            let before = match (format, index) {
                (Format::Json, 0) => format!("{{\"{field}\":"),
                (Format::Json, _) => format!(",\"{field}\":"),
                (Format::Text, 0) => field.mark().to_owned(),
                (Format::Text, _) => format!(" {}", field.mark()),
            };
            Part { field: *field, before: before.into() }
        };
        Layout { format, fields: fields.iter().enumerate().map(part).collect() }
    }

    /// One line with its end.
    pub(super) fn write(&self, record: &Record, line: &mut String) {
        match self.format {
            Format::Text => self.write_text(record, line),
            Format::Json => self.write_json(record, line),
        }
        line.push('\n');
    }

    fn write_json(&self, record: &Record, line: &mut String) {
        // Into the memory of the line before.
        let mut bytes = std::mem::take(line).into_bytes();
        for Part { field, before } in &self.fields {
            bytes.extend_from_slice(before.as_bytes());
            match Value::of(*field, record) {
                Value::None => bytes.extend_from_slice(b"null"),
                Value::Word(word) => json(&word, &mut bytes),
                Value::Number(number) => json(&number, &mut bytes),
                Value::Milliseconds(number) => json(&number, &mut bytes),
                Value::Time(time) => plain(format_args!("\"{time:.3}\""), &mut bytes),
                Value::Plain(word) => plain(format_args!("\"{word}\""), &mut bytes),
            }
        }
        bytes.push(b'}');
        *line = String::from_utf8(bytes).expect("JSON is UTF-8");
    }

    fn write_text(&self, record: &Record, line: &mut String) {
        for Part { field, before } in &self.fields {
            line.push_str(before);
            let written = match Value::of(*field, record) {
                Value::None => line.write_str("-"),
                Value::Word(word) => line.write_str(&escaped(&word)),
                Value::Number(number) => write!(line, "{number}"),
                Value::Milliseconds(number) => write!(line, "{number:.3}ms"),
                Value::Time(time) => write!(line, "{time:.3}"),
                Value::Plain(plain) => write!(line, "{plain}"),
            };
            written.expect("a String takes everything");
        }
    }
}

fn json(value: &impl Serialize, bytes: &mut Vec<u8>) {
    serde_json::to_writer(bytes, value).expect("strings and numbers only");
}

fn plain(text: fmt::Arguments<'_>, bytes: &mut Vec<u8>) {
    std::io::Write::write_fmt(bytes, text).expect("a Vec takes everything");
}

/// What a record says in one field. Borrowed, since this is a good part of what a request costs.
enum Value<'r> {
    None,
    Word(Cow<'r, str>),
    Number(u64),
    Milliseconds(f64),
    /// RFC 3339 with milliseconds.
    Time(Timestamp),
    /// Of characters that need no escape in either form.
    Plain(&'r dyn Display),
}

impl<'r> Value<'r> {
    fn of(field: Field, record: &'r Record) -> Self {
        let label =
            |label: fn(&Labels) -> &Arc<str>| Value::word(record.labels.as_deref().map(label).map(|text| &**text));
        let header = |value: &'r Option<HeaderValue>| match value {
            Some(value) => Value::Word(lossy(value)),
            None => Value::None,
        };
        match field {
            Field::Time => Value::Time(Timestamp::try_from(record.time).unwrap_or_default()),
            Field::Client => Value::Plain(&record.client),
            Field::Method => Value::word(record.method.as_ref().map(Method::as_str)),
            Field::Host => record.host.as_ref().map_or(Value::None, |host| Value::Word(without_user(lossy(host)))),
            Field::Path => Value::word(record.target.as_ref().map(Uri::path).filter(|path| !path.is_empty())),
            Field::Query => {
                let query = record.target.as_ref().and_then(Uri::query);
                query.map_or(Value::None, |query| Value::Word(Cow::Owned(without_values(query))))
            }
            Field::Protocol => Value::word(record.version.map(protocol)),
            Field::Status => Value::Number(u64::from(record.status.as_u16())),
            Field::BytesIn => Value::Number(record.bytes_in),
            Field::BytesOut => Value::Number(record.bytes_out),
            Field::DurationMs => Value::Milliseconds((record.duration.as_secs_f64() * 1e6).round() / 1e3),
            Field::Tls => Value::word(record.tls),
            Field::Sni => Value::word(record.server_name.as_deref()),
            Field::Gateway => label(|labels| &labels.gateway),
            Field::Listener => label(|labels| &labels.listener),
            Field::Route => label(|labels| &labels.route),
            Field::Rule => label(|labels| &labels.rule),
            Field::Upstream => label(|labels| &labels.backend),
            Field::Address => record.address.as_ref().map_or(Value::None, |address| Value::Plain(address)),
            Field::Consumer => Value::word(record.consumer.as_deref()),
            Field::RequestId => header(&record.id),
            Field::Fault => Value::word(record.fault),
            Field::UserAgent => header(&record.agent),
        }
    }

    /// Nothing, if there is no word or an empty one.
    fn word(word: Option<&'r str>) -> Self {
        word.filter(|word| !word.is_empty()).map_or(Value::None, |word| Value::Word(Cow::Borrowed(word)))
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// `user:password@host` is refused, and logged nevertheless.
fn without_user(host: Cow<'_, str>) -> Cow<'_, str> {
    match host.rfind('@') {
        Some(at) => Cow::Owned(host[at + 1..].to_owned()),
        None => host,
    }
}

/// `page=*&key=*`. What has no name is all value, and so is what may be one: what ends with `=` may be padded base64, and what is
/// no usual name may be anything.
fn without_values(query: &str) -> String {
    let mut names = String::with_capacity(query.len());
    for (index, parameter) in query.split('&').enumerate() {
        if index > 0 {
            names.push('&');
        }
        if let Some((name, value)) = parameter.split_once('=')
            && !value.trim_start_matches('=').is_empty()
            && is_usual_name(name)
        {
            names.push_str(name);
            names.push('=');
        }
        if !parameter.is_empty() {
            names.push('*');
        }
    }
    names
}

fn is_usual_name(name: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.[]".contains(&byte);
    name.len() <= LONGEST_NAME && name.bytes().all(is_usual)
}

/// Shorter than the keys and tokens that people have.
const LONGEST_NAME: usize = 30;

fn lossy(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// As one word that cannot be mistaken for more: control characters, quotes and spaces would let a client write lines
/// and fields of its own.
fn escaped(text: &str) -> Cow<'_, str> {
    let plain = |character: char| character.is_ascii_graphic() && character != '"' && character != '\\';
    if !text.is_empty() && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    fmt::write(&mut quoted, format_args!("{text:?}")).expect("a String takes everything");
    Cow::Owned(quoted)
}

#[cfg(test)]
pub(super) mod testing {
    use std::time::{Duration, SystemTime};

    use http::StatusCode;

    use super::*;

    pub(in super::super) fn record(target: &'static str) -> Record {
        Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            client: "10.0.0.1:5".parse().unwrap(),
            tls: Some("TLSv1.3"),
            server_name: Some("a.example".into()),
            method: Some(Method::GET),
            version: Some(Version::HTTP_2),
            host: Some(HeaderValue::from_static("a.example")),
            target: Some(Uri::from_static(target)),
            status: StatusCode::OK,
            bytes_in: 1,
            bytes_out: 2,
            duration: Duration::from_micros(1_500),
            labels: Some(Arc::new(Labels {
                route: "HTTPRoute/ns/a".into(),
                rule: "0".into(),
                backend: "ns/web:80".into(),
                ..Labels::default()
            })),
            address: Some("10.0.0.2:80".parse().unwrap()),
            consumer: None,
            id: Some(HeaderValue::from_static("id")),
            fault: None,
            agent: Some(
                HeaderValue::from_bytes(b"a \"b\"\t\xff\x1b".trim_ascii_end().strip_suffix(b"\x1b").unwrap()).unwrap(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::record;
    use super::*;

    fn line(format: Format, fields: &[Field], record: &Record) -> String {
        let mut line = String::new();
        Layout::new(format, fields).write(record, &mut line);
        line
    }

    #[test]
    fn text() {
        assert_eq!(
            line(Format::Text, &Field::usual(), &record("/x?y=1")),
            "2023-11-14T22:13:20.123Z 10.0.0.1:5 GET a.example /x HTTP/2 200 in=1 out=2 1.500ms tls=TLSv1.3 sni=a.example \
             gateway=- listener=- route=HTTPRoute/ns/a rule=0 upstream=ns/web:80 address=10.0.0.2:80 id=id fault=- \
             agent=\"a \\\"b\\\"\\t\u{fffd}\"\n"
        );
    }

    #[test]
    fn json() {
        let line = line(Format::Json, &Field::usual(), &record("/x?y=1"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "time": "2023-11-14T22:13:20.123Z", "client": "10.0.0.1:5", "method": "GET", "host": "a.example", "path": "/x",
            "protocol": "HTTP/2", "status": 200, "bytes_in": 1, "bytes_out": 2, "duration_ms": 1.5, "tls": "TLSv1.3",
            "sni": "a.example", "gateway": null, "listener": null, "route": "HTTPRoute/ns/a", "rule": "0",
            "upstream": "ns/web:80", "address": "10.0.0.2:80", "request_id": "id", "fault": null,
            "user_agent": "a \"b\"\t\u{fffd}",
        });
        assert_eq!(value, expected);
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line:?}");
    }

    #[test]
    fn fields_are_those_that_were_asked_for_in_that_order() {
        let record = Record { consumer: Some("anna".into()), ..record("/") };
        let fields = [Field::Status, Field::Consumer, Field::Fault];
        assert_eq!(line(Format::Text, &fields, &record), "200 consumer=anna fault=-\n");
        assert_eq!(line(Format::Json, &fields, &record), "{\"status\":200,\"consumer\":\"anna\",\"fault\":null}\n");
    }

    #[test]
    fn every_field_has_its_name_and_its_mark() {
        let all: Vec<Field> = Field::ALL.iter().map(|(field, _)| *field).collect();
        let value: serde_json::Value = serde_json::from_str(&line(Format::Json, &all, &record("/x?y"))).unwrap();
        for (field, name) in Field::ALL {
            assert_eq!(name.parse(), Ok(*field));
            assert!(value.get(name).is_some(), "{name}");
        }
        let text = line(Format::Text, &all, &record("/x"));
        assert_eq!(text.trim_end().replace("a \\\"", "a").split(' ').count(), all.len(), "{text}");
        let refused = "referer".parse::<Field>().unwrap_err();
        assert!(refused.starts_with("there is no field `referer`; write names of time, client, "), "{refused}");
    }

    #[test]
    fn what_may_open_something_is_not_written() {
        let all: Vec<Field> = Field::ALL.iter().map(|(field, _)| *field).collect();
        for (target, query) in [
            ("/x?apikey=hunter2&page=hunter2", "apikey=*&page=*"),
            ("/x?hunter2", "*"),
            ("/x?a=1=hunter2&&b", "a=*&&*"),
            ("http://anna:hunter2@a.example/x?y=hunter2", "y=*"),
            // What may be padded base64, and has no name then.
            ("/x?hunter2=", "query=*"),
            ("/x?hunter2==&page=2", "query=*&page=*"),
            ("/x?page=2&hunter2==", "page=*&*"),
            // No names that anybody uses.
            ("/x?hunter2;page=2", "query=*"),
            ("/x?hunter2%3D%3D=1&a.b[0]-_=1", "query=*&a.b[0]-_=*"),
            ("/x?eyJhbGciOiJIUzI1NiJ9hunter2dGVzdA=1", "query=*"),
        ] {
            let host = Some(HeaderValue::from_static("anna:hunter2@a.example"));
            let record = Record { host, ..record(target) };
            for format in [Format::Text, Format::Json] {
                let line = line(format, &all, &record);
                assert!(!line.contains("hunter2") && !line.contains("anna"), "{target}: {line}");
                let query =
                    if format == Format::Json { query.replace("query=", "\"query\":\"") } else { query.to_owned() };
                assert!(line.contains(&query) && line.contains("a.example"), "{target}: {line}");
            }
        }
    }
}
