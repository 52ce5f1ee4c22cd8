//! The JSON object that log plugins write for a request: the one of Kong's log plugins. Credentials are replaced in all
//! its values, and then long values are cut.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::plugin_api::completed_request::{
    Attempt, AttemptOutcome, CONNECTION_REFUSED, CredentialLocations, LoggedHeads, LoggedTls, REDACTED,
};
use crate::plugin_api::context::{LogCx, ResponseSource};
use crate::plugin_api::fields::UrlEncodedForm;
use crate::plugin_api::masking::{LogMask, mask_object};
use crate::plugin_api::server_text::shorten_to;
use crate::plugin_api::trace::{RequestTrace, TraceFormat};

/// The log object of a request. Credentials are replaced by [`REDACTED`].
#[derive(Serialize)]
pub struct LogEntry<'a> {
    request: RequestJson<'a>,
    upstream_uri: Cow<'a, str>,
    /// The status of each attempt.
    upstream_status: String,
    response: ResponseJson<'a>,
    latencies: Latencies,
    tries: Vec<TryJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ip: Option<std::net::IpAddr>,
    started_at: u64,
    route: Option<&'a RawValue>,
    service: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<ConsumerJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authenticated_entity: Option<AuthenticatedEntityJson<'a>>,
    /// The identifier of the trace in W3C's format, and in that of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<BTreeMap<&'static str, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<Cow<'a, str>>,
    workspace: &'static str,
    workspace_name: &'static str,
    source: &'static str,
    #[serde(skip)]
    masks: &'a [Arc<LogMask>],
}

#[derive(Serialize)]
struct RequestJson<'a> {
    id: Cow<'a, str>,
    #[serde(flatten)]
    head: Option<RequestHeadJson<'a>>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsJson<'a>>,
}

#[derive(Serialize)]
struct RequestHeadJson<'a> {
    method: &'a str,
    uri: Cow<'a, str>,
    url: String,
    querystring: QueryJson<'a>,
    headers: HeadersJson<'a>,
}

#[derive(Serialize)]
pub(super) struct TlsJson<'a> {
    version: &'static str,
    cipher: Option<Cow<'static, str>>,
    client_verify: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<&'a str>,
}

#[derive(Serialize)]
struct ResponseJson<'a> {
    status: u16,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<HeadersJson<'a>>,
}

/// Durations in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latencies {
    pub request: u64,
    /// The time before the request was forwarded, or all of it without an endpoint.
    #[serde(rename = "kong")]
    pub gateway: u64,
    /// -1 if the request was not forwarded.
    pub proxy: i64,
    receive: u64,
}

/// One attempt; the name is Kong's.
#[derive(Serialize)]
pub(super) struct TryJson {
    balancer_start: u64,
    balancer_start_ns: u64,
    balancer_latency: u64,
    balancer_latency_ns: u64,
    ip: std::net::IpAddr,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct ConsumerJson<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_id: Option<&'a str>,
}

#[derive(Serialize)]
struct AuthenticatedEntityJson<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_id: Option<&'a str>,
}

impl<'a> LogEntry<'a> {
    pub fn new(cx: &'a LogCx<'_>) -> Self {
        let (request, summary) = (cx.request, cx.summary);
        let credentials = request.credentials;
        let consumer = cx.identity.consumer.as_deref();
        let heads = request.heads;
        LogEntry {
            request: RequestJson {
                id: shorten_value(to_text(request.id)),
                head: heads.map(|heads| RequestHeadJson::new(heads, credentials)),
                size: request_size(cx),
                tls: request.tls.map(TlsJson::from),
            },
            upstream_uri: heads
                .and_then(|heads| heads.upstream_target.as_ref())
                .map_or(Cow::Borrowed(""), |target| redacted_target(target, credentials)),
            upstream_status: upstream_status(request.attempts),
            response: ResponseJson {
                status: summary.status.as_u16(),
                size: response_size(cx),
                headers: heads.map(|heads| HeadersJson { headers: &heads.response, credentials }),
            },
            latencies: Latencies::new(cx),
            tries: request.attempts.iter().map(|attempt| TryJson::new(attempt, cx)).collect(),
            client_ip: heads.map(|heads| heads.client),
            started_at: milliseconds(request.started_at.duration_since(UNIX_EPOCH).unwrap_or_default()),
            route: cx.description.map(|description| &*description.route),
            service: cx.description.map(|description| &*description.service),
            consumer: consumer.map(|consumer| ConsumerJson {
                id: consumer.reported_id(),
                username: consumer.username.as_deref(),
                custom_id: consumer.custom_id().map(|id| &**id),
            }),
            authenticated_entity: cx.identity.credential().map(|id| AuthenticatedEntityJson {
                id,
                consumer_id: consumer.map(|consumer| &**consumer.reported_id()),
            }),
            trace_id: cx.trace.map(trace_ids),
            span_id: cx.trace.map(|trace| trace.server_span.to_string()),
            correlation_id: cx.correlation_id.map(|(name, id)| HeadersJson::value(credentials, name, id)),
            workspace: WORKSPACE_ID,
            workspace_name: "default",
            source: if summary.source == ResponseSource::Service { "upstream" } else { "kong" },
            masks: &credentials.masks,
        }
    }

    pub fn to_json(&self) -> Vec<u8> {
        mask_object(self.masks, serde_json::to_vec(self).expect("text and numbers always serialize"))
    }

    /// The object as a value, to add fields to it. It is to be masked with [`mask_object`] afterwards.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("text and numbers always serialize")
    }
}

impl<'a> RequestHeadJson<'a> {
    fn new(heads: &'a LoggedHeads, credentials: &'a CredentialLocations) -> Self {
        let uri = redacted_target(&heads.target, credentials);
        RequestHeadJson {
            method: heads.method.as_str(),
            url: logged_url(heads, credentials),
            uri,
            querystring: QueryJson { query: heads.target.query().unwrap_or_default(), credentials },
            headers: HeadersJson { headers: &heads.request, credentials },
        }
    }
}

/// The URL of a request, with credentials replaced and cut if it is long.
pub fn logged_url(heads: &LoggedHeads, credentials: &CredentialLocations) -> String {
    let uri = redacted_target(&heads.target, credentials);
    let host = to_text(&heads.host);
    // A bracket or a name precedes the port.
    let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
    let url = if has_port {
        format!("{}://{host}{uri}", heads.scheme)
    } else {
        format!("{}://{host}:{}{uri}", heads.scheme, heads.port)
    };
    shorten_value(Cow::Owned(url)).into_owned()
}

fn trace_ids(context: &RequestTrace) -> BTreeMap<&'static str, String> {
    let formats = [Some(TraceFormat::W3c), context.format];
    formats.into_iter().flatten().map(|format| (format.name(), format.trace_text(context.trace))).collect()
}

impl<'a> From<LoggedTls<'a>> for TlsJson<'a> {
    fn from(tls: LoggedTls<'a>) -> Self {
        // rustls calls the suites of TLS 1.3 TLS13_…, and the registry calls them TLS_….
        let cipher = tls.cipher.map(|cipher| match cipher.strip_prefix("TLS13_") {
            Some(name) => Cow::Owned(format!("TLS_{name}")),
            None => Cow::Borrowed(cipher),
        });
        TlsJson { version: tls.version, cipher, client_verify: "NONE", server_name: tls.server_name }
    }
}

impl Latencies {
    pub fn new(cx: &LogCx<'_>) -> Self {
        let (request, summary) = (cx.request, cx.summary);
        let total = summary.total;
        let (before_response, receive) = match (summary.upstream, request.until_response) {
            (Some(_), Some(response)) => (request.before_upstream, total.saturating_sub(response)),
            _ => (request.until_response, Duration::ZERO),
        };
        Latencies {
            request: milliseconds(total),
            gateway: milliseconds(before_response.unwrap_or(total)),
            proxy: summary.upstream.map_or(-1, |upstream| i64::try_from(upstream.as_millis()).unwrap_or(i64::MAX)),
            receive: milliseconds(receive),
        }
    }
}

impl TryJson {
    pub(super) fn new(attempt: &Attempt, cx: &LogCx<'_>) -> Self {
        let since_start = attempt.started_at.saturating_duration_since(cx.request.started_instant);
        let started_at = (cx.request.started_at + since_start).duration_since(UNIX_EPOCH).unwrap_or_default();
        let connect = attempt.connect.unwrap_or_default();
        let failure = match attempt.outcome {
            AttemptOutcome::Failed { status, reason } => Some(failure_status(status, reason).as_u16()),
            AttemptOutcome::Status(_) | AttemptOutcome::Unfinished => None,
        };
        TryJson {
            balancer_start: milliseconds(started_at),
            balancer_start_ns: nanoseconds(started_at),
            balancer_latency: milliseconds(connect),
            balancer_latency_ns: nanoseconds(connect),
            ip: attempt.endpoint.ip(),
            port: attempt.endpoint.port(),
            state: failure.map(|_| "failed"),
            code: failure,
        }
    }
}

/// The status of each attempt; of one without a response, the status that Kong has for it.
fn upstream_status(attempts: &[Attempt]) -> String {
    let statuses = attempts.iter().filter_map(|attempt| match attempt.outcome {
        AttemptOutcome::Status(status) => Some(status),
        AttemptOutcome::Failed { status, reason } => Some(failure_status(status, reason)),
        AttemptOutcome::Unfinished => None,
    });
    let mut text = String::new();
    for status in statuses {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(status.as_str());
    }
    text
}

/// Kong has 502 for a refused connection, for which clients of a Gateway get 503.
fn failure_status(status: StatusCode, reason: &str) -> StatusCode {
    if reason == CONNECTION_REFUSED { StatusCode::BAD_GATEWAY } else { status }
}

/// Path and query, with the values of credentials replaced.
fn redacted_target<'a>(target: &'a Uri, credentials: &CredentialLocations) -> Cow<'a, str> {
    let redacted = match target.query().and_then(|query| credentials.redact_query(query)) {
        Some(query) => Cow::Owned(format!("{}?{query}", target.path())),
        None => Cow::Borrowed(target.path_and_query().map_or("/", PathAndQuery::as_str)),
    };
    // A parameter may contain the URL of another page.
    shorten_value(credentials.redact_text(&redacted).map_or(redacted, Cow::Owned))
}

/// The value, without what is beyond the limit of a value in a log object. To be called after credentials were
/// replaced: the rest of a credential that is cut would not be recognized.
pub(crate) fn shorten_value(value: Cow<'_, str>) -> Cow<'_, str> {
    match value {
        Cow::Borrowed(value) => shorten_to(value, MAX_VALUE_BYTES),
        Cow::Owned(value) if value.len() <= MAX_VALUE_BYTES => Cow::Owned(value),
        Cow::Owned(value) => Cow::Owned(shorten_to(&value, MAX_VALUE_BYTES).into_owned()),
    }
}

/// An object with the lower-case names of headers. A header that occurs several times has a list of values.
struct HeadersJson<'a> {
    headers: &'a HeaderMap,
    credentials: &'a CredentialLocations,
}

impl Serialize for HeadersJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.headers.keys_len()))?;
        for name in self.headers.keys() {
            let mut values =
                self.headers.get_all(name).iter().map(|value| HeadersJson::value(self.credentials, name, value));
            match (values.next(), values.next()) {
                (Some(only), None) => map.serialize_entry(name.as_str(), &only)?,
                (first, second) => {
                    let all: Vec<_> = first.into_iter().chain(second).chain(values).collect();
                    map.serialize_entry(name.as_str(), &all)?;
                }
            }
        }
        map.end()
    }
}

impl HeadersJson<'_> {
    fn value<'v>(credentials: &CredentialLocations, name: &HeaderName, value: &'v HeaderValue) -> Cow<'v, str> {
        let text = to_text(value);
        shorten_value(credentials.redact_header(name, &text).unwrap_or(text))
    }
}

/// An object with the decoded parameters. A parameter without a value is true, and one that occurs several times has a
/// list of values.
struct QueryJson<'a> {
    query: &'a str,
    credentials: &'a CredentialLocations,
}

impl Serialize for QueryJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parameters = indexmap::IndexMap::<String, SmallVec<[Value; 1]>>::new();
        let pairs = UrlEncodedForm(self.query.as_bytes()).pairs().filter(|pair| !pair.name().is_empty());
        for pair in pairs {
            let name = pair.name();
            let value = match pair.value() {
                None => Value::Bool(true),
                Some(_) if self.credentials.has_parameter(&name) => REDACTED.into(),
                Some(value) => {
                    let text = String::from_utf8_lossy(&value);
                    shorten_value(self.credentials.redact_text(&text).map_or(text, Cow::Owned)).into()
                }
            };
            let name = shorten_value(String::from_utf8_lossy(&name));
            parameters.entry(name.into_owned()).or_default().push(value);
        }
        let mut map = serializer.serialize_map(Some(parameters.len()))?;
        for (name, values) in &parameters {
            match &values[..] {
                [only] => map.serialize_entry(name, only)?,
                all => map.serialize_entry(name, all)?,
            }
        }
        map.end()
    }
}

/// The size of the request in bytes; without that of its head if no plugin of the chain reads heads.
pub fn request_size(cx: &LogCx<'_>) -> u64 {
    cx.request.heads.map_or(0, request_head_size) + cx.summary.bytes_in
}

/// The size of the response in bytes; without that of its head if no plugin of the chain reads heads.
pub fn response_size(cx: &LogCx<'_>) -> u64 {
    cx.request.heads.map_or(0, response_head_size) + cx.summary.bytes_out
}

/// The size of the head of the request in HTTP/1.1, whichever version the client used.
fn request_head_size(heads: &LoggedHeads) -> u64 {
    let target = heads.target.path_and_query().map_or(1, |target| target.as_str().len());
    let host = if heads.version >= Version::HTTP_2 { "host: \r\n".len() + heads.host.len() } else { 0 };
    let line = heads.method.as_str().len() + target + "  HTTP/1.1\r\n".len();
    (line + host + headers_size(&heads.request)) as u64
}

/// The size of the head of the response in HTTP/1.1. 0 if there was no response.
fn response_head_size(heads: &LoggedHeads) -> u64 {
    if heads.response.is_empty() { 0 } else { ("HTTP/1.1 200 OK\r\n".len() + headers_size(&heads.response)) as u64 }
}

fn headers_size(headers: &HeaderMap) -> usize {
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    fields + "\r\n".len()
}

fn to_text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Kong's workspaces do not exist here; programs that read the log require an id.
pub const WORKSPACE_ID: &str = "00000000-0000-0000-0000-000000000000";
/// The longest value of a log object in bytes. Objects wait in memory for their server.
const MAX_VALUE_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn credentials() -> CredentialLocations {
        CredentialLocations { parameters: vec!["key".into()], ..CredentialLocations::default() }
    }

    fn headers(fields: &[(&'static str, String)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn credentials_are_replaced_in_all_fields_that_repeat_the_target() {
        let (fields, credentials) = (
            ["referer", "location", "content-location", "link", "refresh", "x-original-url", "x-anything"]
                .map(|name| (name, "/a?key=secret&b=c".to_owned())),
            credentials(),
        );
        let object =
            serde_json::to_value(HeadersJson { headers: &headers(&fields), credentials: &credentials }).unwrap();
        for (name, _) in fields {
            assert_eq!(object[name], "/a?key=REDACTED&b=c", "{name}");
        }
        let query = QueryJson { query: "next=%2Fa%3Fkey%3Dsecret&key=secret&n=1", credentials: &credentials };
        let query = serde_json::to_value(query).unwrap();
        assert_eq!(query, json!({"next": "/a?key=REDACTED", "key": "REDACTED", "n": "1"}));
        let target: Uri = "/login?next=%2Fa%3Fkey%3Dsecret&key=secret".parse().unwrap();
        assert_eq!(redacted_target(&target, &credentials), "/login?next=%2Fa%3Fkey%3DREDACTED&key=REDACTED");
    }

    #[test]
    fn long_values_are_cut_after_credentials_are_replaced() {
        let credentials = credentials();
        let padding = "p".repeat(MAX_VALUE_BYTES - 8);
        // The value of the credential begins before the limit and ends after it.
        let url = format!("/{padding}?key=secret-secret");
        let fields = [("referer", url.clone()), ("x-short", "p".repeat(MAX_VALUE_BYTES)), ("x-long", "ä".repeat(8000))];
        let object =
            serde_json::to_value(HeadersJson { headers: &headers(&fields), credentials: &credentials }).unwrap();
        assert_eq!(object["referer"], format!("/{padding}?key=RE…"));
        assert_eq!(object["x-short"], fields[1].1.as_str());
        assert_eq!(object["x-long"], format!("{}…", "ä".repeat(MAX_VALUE_BYTES / 2)));
        let target: Uri = url.parse().unwrap();
        assert_eq!(redacted_target(&target, &credentials), format!("/{padding}?key=RE…"));
        let query = format!("a={}&{}=b", "x".repeat(9000), "n".repeat(9000));
        let query = serde_json::to_value(QueryJson { query: &query, credentials: &credentials }).unwrap();
        let (long_value, long_name) = (format!("{}…", "x".repeat(MAX_VALUE_BYTES)), "n".repeat(MAX_VALUE_BYTES) + "…");
        assert_eq!(query, json!({"a": long_value, long_name: "b"}));
    }
}
