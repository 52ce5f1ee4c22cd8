//! What remains of input that cannot be parsed as a request: its recognizable parts, which are counted and logged.

use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};

use crate::limits::ProxyLimits;
use crate::plugin_api::http_version::protocol_name;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::telemetry::access_log::AccessLogRecord;

/// Input that could not be parsed as a request.
pub(in crate::proxy) struct MalformedInput {
    /// What could be parsed of it.
    pub(in crate::proxy) head: PartialHead,
    pub(in crate::proxy) status: StatusCode,
    pub(in crate::proxy) reason: &'static str,
    /// The request id of the error response, if one is sent.
    pub(in crate::proxy) id: Option<HeaderValue>,
    /// The size of the body of the error response.
    pub(in crate::proxy) bytes_out: u64,
}

/// Records input that could not be parsed as a request.
pub(in crate::proxy) fn record_malformed(exchange: &ClientExchange, input: MalformedInput) {
    let MalformedInput { mut head, status, reason, id, bytes_out } = input;
    let duration = exchange.activity.head_started_at().map_or(Duration::ZERO, |since| since.elapsed());
    exchange.worker().unrouted_series().add(status, duration, 0, bytes_out);
    exchange.worker().count_error(reason);
    let log = &exchange.worker().log;
    log.write(AccessLogRecord {
        time: SystemTime::now() - duration,
        client: exchange.address,
        tls: exchange.tls.as_ref().map(|tls| tls.version),
        tls_cipher: exchange.tls.as_ref().and_then(|tls| tls.cipher),
        server_name: exchange.tls.as_ref().and_then(|tls| tls.server_name.clone()),
        listen_port: None,
        method: head.method,
        protocol: head.version.map(protocol_name),
        host: head.headers.remove(HOST),
        target: head.target,
        status: Some(status),
        bytes_in: 0,
        bytes_out,
        duration,
        connect_duration: None,
        series: None,
        telemetry: None,
        address: None,
        tries: &[],
        pick: None,
        retry_stop: None,
        consumer: None,
        request_id: id,
        trace: None,
        error: Some(reason),
        user_agent: head.headers.remove(USER_AGENT),
        captured: None,
        credentials: None,
        privacy: log.privacy(),
    });
}

/// The recognizable parts of an unparsable request head, used only for the access log and the error format. Nothing
/// else may depend on it, since other parsers may read these bytes differently.
#[derive(Debug, Default)]
pub(in crate::proxy) struct PartialHead {
    pub(in crate::proxy) method: Option<Method>,
    pub(in crate::proxy) target: Option<Uri>,
    pub(in crate::proxy) version: Option<Version>,
    /// The first value of each header in [`KEPT_HEADERS`].
    pub(in crate::proxy) headers: HeaderMap,
    /// Lengths of the request line and of its target, as far as received.
    line_length: usize,
    target_length: usize,
    field_count: usize,
}

static KEPT_HEADERS: [HeaderName; 4] = [ACCEPT, CONTENT_TYPE, HOST, USER_AGENT];

impl PartialHead {
    pub(in crate::proxy) fn parse(received: &[u8]) -> Self {
        let mut partial = PartialHead::default();
        let mut lines = received.split_inclusive(|byte| *byte == b'\n');
        if let Some(line) = lines.clone().next() {
            partial.line_length = line.trim_ascii_end().len();
            partial.target_length = line.split(|byte| *byte == b' ').nth(1).map_or(0, <[u8]>::len);
        }
        // Only complete lines: half of a name could be a different name.
        let mut next_line = || lines.next()?.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let Some(first) = next_line() else { return partial };
        let mut words = first.split(|byte| *byte == b' ');
        if let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        {
            partial.method = Method::from_bytes(method).ok();
            partial.target = Uri::try_from(target).ok();
            partial.version = match version {
                b"HTTP/1.1" => Some(Version::HTTP_11),
                b"HTTP/1.0" => Some(Version::HTTP_10),
                _ => None,
            };
        }
        while let Some(field) = next_line()
            && !field.is_empty()
        {
            partial.field_count += 1;
            let mut name_and_value = field.splitn(2, |byte| *byte == b':');
            if let (Some(name), Some(value)) = (name_and_value.next(), name_and_value.next())
                && let Some(name) =
                    KEPT_HEADERS.iter().find(|known| name.eq_ignore_ascii_case(known.as_str().as_bytes()))
                && let Ok(value) = HeaderValue::from_bytes(value.trim_ascii())
            {
                partial.headers.entry(name).or_insert(value);
            }
        }
        partial
    }

    /// The error for a head that exceeds a limit.
    pub(in crate::proxy) fn size_error(&self, limits: &ProxyLimits) -> RequestError {
        // The same result whether or not the end of the line has arrived yet, which depends on packet timing.
        let line_too_long =
            self.line_length >= limits.max_request_head && self.target_length > limits.max_request_head / 2;
        if line_too_long || self.target_length > MAX_TARGET {
            RequestError::TargetTooLong
        } else if self.field_count > limits.max_request_fields {
            RequestError::TooManyHeaders
        } else {
            RequestError::HeaderTooLarge
        }
    }
}

/// The longest target that the `http` crate supports, even if `--client-header-bytes` allows more.
const MAX_TARGET: usize = u16::MAX as usize - 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn partial_heads_are_parsed_leniently() {
        let cases: &[(&str, [&str; 4])] = &[
            ("", ["-", "-", "-", "-"]),
            ("GET /half", ["-", "-", "-", "-"]),
            ("nonsense\r\n\r\n", ["-", "-", "-", "-"]),
            ("GET /x HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\nHost: b", ["GET", "/x", "a", "text/html"]),
            ("GET /x HTTP/1.1\r\nhost: a\r\nhost: b\r\nacc", ["GET", "/x", "a", "-"]),
            ("GET /x HTTP/1.1\nHost : a\nACCEPT:text/plain\n\n", ["GET", "/x", "-", "text/plain"]),
            ("G\0T /x HTTP/9\r\nhost: a\0\r\n\r\n", ["-", "/x", "-", "-"]),
            ("GET /x y HTTP/1.1\r\nhost: a\r\n\r\n", ["-", "-", "a", "-"]),
        ];
        for (bytes, expected) in cases {
            let partial = PartialHead::parse(bytes.as_bytes());
            let field = |name| partial.headers.get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
            let parsed = [
                partial.method.as_ref().map_or("-".to_owned(), ToString::to_string),
                partial.target.as_ref().map_or("-".to_owned(), ToString::to_string),
                field(HOST),
                field(ACCEPT),
            ];
            assert_eq!(&parsed, expected, "{bytes:?}");
        }
    }

    #[test]
    fn oversized_heads_map_to_specific_errors() {
        let limits = ProxyLimits::default();
        let cases = [
            (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(65_534)), RequestError::TargetTooLong),
            (format!("GET /{}", "a".repeat(65_536)), RequestError::TargetTooLong),
            (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101)), RequestError::TooManyHeaders),
            (format!("GET / HTTP/1.1\r\na: {}", "b".repeat(65_536)), RequestError::HeaderTooLarge),
            ("a".repeat(65_536), RequestError::HeaderTooLarge),
        ];
        for (bytes, expected) in cases {
            assert_eq!(PartialHead::parse(bytes.as_bytes()).size_error(&limits), expected, "{bytes:.40}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            PartialHead::parse(&bytes);
        }
    }
}
