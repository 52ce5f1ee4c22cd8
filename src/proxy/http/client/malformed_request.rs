//! Responses to requests that cannot be parsed: regular error responses, which are counted and logged.

use std::io::Write as _;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Uri, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::activity::ActivityPhase;
use super::client_connection::{Peer, SHUTDOWN_TIMEOUT};
use super::client_stream::ClientStream;
use crate::http1::InvalidMessage;
use crate::proxy::connection::listener_connections::ConnectionRegistration;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::record::request_id::X_REQUEST_ID;
use crate::proxy::http::record::request_record::{MalformedInput, record_malformed};
use crate::proxy::http::steps::error_response::ErrorFormat;
use crate::proxy::limits::ProxyLimits;

/// Responds to unparsable input with an error and closes the connection.
pub(in crate::proxy) async fn reject(
    mut stream: ClientStream,
    received: Bytes,
    error: InvalidMessage,
    peer: Rc<Peer>,
    registration: ConnectionRegistration,
) {
    let partial = PartialHead::parse(&received);
    drop(received);
    let error = match error {
        InvalidMessage::TooLarge => partial.size_error(&peer.worker().limits),
        InvalidMessage::MajorVersion => RequestError::UnsupportedVersion,
        _ => RequestError::MalformedRequest,
    };
    let details = error.details();
    let id = peer.http.request_ids.next();
    let mut response = ErrorFormat::for_http1(partial.method.as_ref(), &partial.headers).render_error(&details, &id);
    response.headers_mut().insert(X_REQUEST_ID, id.clone());
    let bytes = serialize_http1(&response);
    let input = MalformedInput {
        head: partial,
        status: response.status(),
        reason: details.reason,
        id: Some(id),
        bytes_out: response.body().len() as u64,
    };
    record_malformed(&peer, input);
    peer.activity.enter_phase(ActivityPhase::SendingResponse, Instant::now());
    let send = async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await
    };
    // The connection is closed after this time, even if the client has not read the response.
    let sent = timeout(SHUTDOWN_TIMEOUT, send).await;
    drop(registration);
    if let Ok(Ok(())) = sent {
        lingering_close(stream).await;
    }
}

/// Reads and discards what the client still sends, for a limited time. Closing a socket with unread bytes sends a
/// reset, which may discard a response that the client has not read yet.
pub(in crate::proxy) async fn lingering_close(mut stream: ClientStream) {
    let mut remaining = LINGER_BYTES;
    let mut buffer = vec![0; 4096];
    let drain = async {
        while let Ok(read @ 1..) = stream.read(&mut buffer).await
            && read < remaining
        {
            remaining -= read;
        }
    };
    // A client that still sends after this time does not read the response.
    drop(timeout(LINGER_TIMEOUT, drain).await);
}

/// How long `lingering_close` reads, and how much.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024;

/// Serializes a response as HTTP/1.1 with `Connection: close`.
fn serialize_http1(response: &Response<Bytes>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    const CANNOT_FAIL: &str = "writing to a Vec cannot fail";
    write!(bytes, "HTTP/1.1 {}\r\n", response.status()).expect(CANNOT_FAIL);
    for (name, value) in response.headers() {
        write!(bytes, "{name}: ").expect(CANNOT_FAIL);
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    if !response.headers().contains_key(CONTENT_LENGTH) {
        write!(bytes, "{CONTENT_LENGTH}: {}\r\n", response.body().len()).expect(CANNOT_FAIL);
    }
    let date = httpdate::fmt_http_date(SystemTime::now());
    write!(bytes, "{CONNECTION}: close\r\n{DATE}: {date}\r\n\r\n").expect(CANNOT_FAIL);
    bytes.extend_from_slice(response.body());
    bytes
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
    fn parse(received: &[u8]) -> Self {
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
    fn size_error(&self, limits: &ProxyLimits) -> RequestError {
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
