//! A record as a line of text or JSON. Whatever a client sent stays one field of one line.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Uri, Version};
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::Record;
use crate::proxy::stats::Labels;

pub(super) fn write_json(record: &Record, line: &mut String) {
    let labels = record.labels.as_deref();
    let text = |label: fn(&Labels) -> &Arc<str>| labels.map(label).filter(|text| !text.is_empty()).map(|text| &**text);
    let fields = Line {
        time: Shown(time(record)),
        client: record.client,
        method: record.method.as_ref().map(Method::as_str),
        tls: record.tls,
        sni: record.server_name.as_deref(),
        host: record.host.as_ref().map(lossy),
        path: path(record).map(Shown),
        protocol: protocol(record),
        status: record.status.as_u16(),
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        duration_ms: milliseconds(record),
        gateway: text(|labels| &labels.gateway),
        listener: text(|labels| &labels.listener),
        route: text(|labels| &labels.route),
        rule: text(|labels| &labels.rule),
        upstream: text(|labels| &labels.backend),
        address: record.address,
        request_id: record.id.as_ref().map(lossy),
        fault: record.fault,
        user_agent: record.agent.as_ref().map(lossy),
    };
    // Into the memory of the line before.
    let mut bytes = std::mem::take(line).into_bytes();
    serde_json::to_writer(&mut bytes, &fields).expect("strings and numbers only");
    *line = String::from_utf8(bytes).expect("JSON is UTF-8");
}

/// The fields in the order they are written. Borrowed, since this is a good part of what a request costs.
#[derive(Serialize)]
struct Line<'r> {
    time: Shown<Time>,
    client: SocketAddr,
    method: Option<&'r str>,
    tls: Option<&'r str>,
    sni: Option<&'r str>,
    host: Option<Cow<'r, str>>,
    path: Option<Shown<Path<'r>>>,
    protocol: Option<&'r str>,
    status: u16,
    bytes_in: u64,
    bytes_out: u64,
    duration_ms: f64,
    gateway: Option<&'r str>,
    listener: Option<&'r str>,
    route: Option<&'r str>,
    rule: Option<&'r str>,
    upstream: Option<&'r str>,
    address: Option<SocketAddr>,
    request_id: Option<Cow<'r, str>>,
    fault: Option<&'r str>,
    user_agent: Option<Cow<'r, str>>,
}

pub(super) fn write_text(record: &Record, line: &mut String) {
    let label = |label: fn(&Labels) -> &Arc<str>| match record.labels.as_deref().map(label) {
        Some(text) if !text.is_empty() => Arc::clone(text),
        _ => "-".into(),
    };
    let quoted = |value: &Option<HeaderValue>| value.as_ref().map_or("-".to_owned(), |value| escaped(&lossy(value)));
    write!(
        line,
        "{} {} {} {} {} {} {} in={} out={} {:.3}ms tls={} sni={} route={} rule={} upstream={} address={} id={} fault={} agent={}",
        time(record),
        record.client,
        record.method.as_ref().map_or("-", Method::as_str),
        quoted(&record.host),
        path(record).map_or("-".to_owned(), |path| escaped(&path.to_string())),
        protocol(record).unwrap_or("-"),
        record.status.as_u16(),
        record.bytes_in,
        record.bytes_out,
        milliseconds(record),
        record.tls.unwrap_or("-"),
        record.server_name.as_deref().map_or("-".to_owned(), escaped),
        label(|labels| &labels.route),
        label(|labels| &labels.rule),
        label(|labels| &labels.backend),
        record.address.map_or("-".to_owned(), |address| address.to_string()),
        quoted(&record.id),
        record.fault.unwrap_or("-"),
        quoted(&record.agent),
    )
    .expect("a String takes everything");
}

/// RFC 3339 with milliseconds.
struct Time(Timestamp);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

fn time(record: &Record) -> Time {
    Time(Timestamp::try_from(record.time).unwrap_or_default())
}

/// Written as it is shown, with no text of its own in between.
struct Shown<T>(T);

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

fn protocol(record: &Record) -> Option<&'static str> {
    Some(match record.version? {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    })
}

/// As it was sent. HTTP/2 sends the host apart.
enum Path<'r> {
    Http1(&'r Uri),
    Http2(&'r PathAndQuery),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Http1(target) => target.fmt(f),
            Path::Http2(path) => path.fmt(f),
        }
    }
}

fn path(record: &Record) -> Option<Path<'_>> {
    let target = record.target.as_ref()?;
    Some(match target.path_and_query() {
        Some(path) if record.version == Some(Version::HTTP_2) => Path::Http2(path),
        _ => Path::Http1(target),
    })
}

fn milliseconds(record: &Record) -> f64 {
    (record.duration.as_secs_f64() * 1e6).round() / 1e3
}

fn lossy(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// As one word that cannot be mistaken for more: control characters, quotes and spaces would let a client write lines
/// and fields of its own.
fn escaped(text: &str) -> String {
    if !text.is_empty()
        && text.chars().all(|character| character.is_ascii_graphic() && character != '"' && character != '\\')
    {
        return text.to_owned();
    }
    format!("{text:?}")
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

    #[test]
    fn text() {
        let mut line = String::new();
        write_text(&record("/x?y=1"), &mut line);
        assert_eq!(
            line,
            "2023-11-14T22:13:20.123Z 10.0.0.1:5 GET a.example /x?y=1 HTTP/2 200 in=1 out=2 1.500ms tls=TLSv1.3 sni=a.example route=HTTPRoute/ns/a rule=0 \
             upstream=ns/web:80 address=10.0.0.2:80 id=id fault=- agent=\"a \\\"b\\\"\\t\u{fffd}\""
        );
    }

    #[test]
    fn json() {
        let mut line = String::new();
        write_json(&record("/x?y=1"), &mut line);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["path"], "/x?y=1");
        assert_eq!(value["protocol"], "HTTP/2");
        assert_eq!(value["duration_ms"], 1.5);
        assert_eq!(value["user_agent"], "a \"b\"\t\u{fffd}");
        assert_eq!(value["gateway"], serde_json::Value::Null);
    }
}
