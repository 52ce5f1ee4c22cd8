//! Test backend that responds to every request with a JSON description of the request.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::http_server::{self, ConnectionAddresses, ServerLimits, WhenFull};
use crate::quantity::duration;

/// Serves `listener` until `shutdown` completes.
///
/// The query selects the response: `?status=503` sets its status code, `?delay=500ms` delays it.
pub async fn serve(listener: TcpListener, shutdown: impl Future<Output = ()>) {
    http_server::serve(listener, LIMITS, |addresses| move |request| respond(request, addresses), shutdown).await;
}

/// Description of the received request, the body of the response.
#[derive(Serialize)]
struct EchoBody<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    host: String,
    headers: BTreeMap<&'a str, Vec<String>>,
    body: String,
    /// `base64` if the received body is not UTF-8; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_encoding: Option<&'static str>,
    /// Whether `body` holds only the start of the received body; absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    body_truncated: bool,
    /// Length of the whole received body.
    body_bytes: u64,
    /// The address of the client, with its port.
    client: String,
    /// The local address of the connection, with its port.
    server: String,
}

async fn respond(request: Request<Incoming>, addresses: ConnectionAddresses) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let options = match ResponseOptions::parse(head.uri.query().unwrap_or_default()) {
        Ok(options) => options,
        Err(message) => return json_response(StatusCode::BAD_REQUEST, &serde_json::json!({ "message": message })),
    };
    let Ok(received) = read_body(body).await else {
        let message = "the body of the request ended early";
        return json_response(StatusCode::BAD_REQUEST, &serde_json::json!({ "message": message }));
    };
    tokio::time::sleep(options.delay).await;
    let body_truncated = (received.start.len() as u64) < received.total_bytes;
    let (body, body_encoding) = match std::str::from_utf8(&received.start) {
        Ok(text) => (text.to_owned(), None),
        // Truncation may have split a character; that alone does not make the body binary.
        Err(error) if body_truncated && error.error_len().is_none() => {
            (String::from_utf8_lossy(&received.start[..error.valid_up_to()]).into_owned(), None)
        }
        Err(_) => (BASE64_STANDARD.encode(&received.start), Some("base64")),
    };
    let host = head.headers.get(HOST).map(lossy_text).or_else(|| head.uri.authority().map(ToString::to_string));
    let echo = EchoBody {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        host: host.unwrap_or_default(),
        headers: header_values_by_name(&head.headers),
        body,
        body_encoding,
        body_truncated,
        body_bytes: received.total_bytes,
        client: addresses.client.to_string(),
        server: addresses.server.to_string(),
    };
    json_response(options.status, &echo)
}

/// What the query of the request selects for the response.
#[derive(Debug, PartialEq)]
struct ResponseOptions {
    status: StatusCode,
    delay: Duration,
}

impl ResponseOptions {
    fn parse(query: &str) -> Result<Self, String> {
        let mut options = ResponseOptions { status: StatusCode::OK, delay: Duration::ZERO };
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "status" => {
                    // An interim (1xx) status is not a final response, and hyper refuses to send one.
                    let status = value.parse().ok().filter(|status| (200..=599).contains(status));
                    options.status = status
                        .and_then(|status: u16| StatusCode::from_u16(status).ok())
                        .ok_or_else(|| format!("status={value}: not a status code; write a number from 200 to 599"))?;
                }
                "delay" => {
                    options.delay = duration(value).map_err(|error| format!("delay={value}: {error}"))?;
                    if options.delay > MAX_DELAY {
                        return Err(format!("delay={value}: too long; write at most 30s"));
                    }
                }
                _ => {}
            }
        }
        Ok(options)
    }
}

struct ReceivedBody {
    /// At most `MAX_SHOWN_BYTES`.
    start: BytesMut,
    /// Length of the whole body.
    total_bytes: u64,
}

/// Reads the whole body, so that the client can send all of it, and keeps its start.
async fn read_body(mut body: Incoming) -> Result<ReceivedBody, hyper::Error> {
    let mut received = ReceivedBody { start: BytesMut::new(), total_bytes: 0 };
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            received.total_bytes += data.len() as u64;
            let room = MAX_SHOWN_BYTES - received.start.len();
            received.start.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    Ok(received)
}

fn header_values_by_name(headers: &HeaderMap) -> BTreeMap<&str, Vec<String>> {
    let mut values: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        values.entry(name.as_str()).or_default().push(lossy_text(value));
    }
    values
}

fn lossy_text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn json_response(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let mut body = serde_json::to_vec_pretty(value).expect("strings and numbers only");
    body.push(b'\n');
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Larger than the limits of a proxy in front, so that an error comes from the proxy's limit and not from this server.
/// This server must not close a connection before the proxy does, nor while the client of the proxy reads slowly.
const LIMITS: ServerLimits = ServerLimits {
    connections: 4096,
    when_full: WhenFull::Wait,
    idle_timeout: Duration::from_secs(120),
    write_timeout: Duration::from_secs(120),
    response_timeout: Duration::from_secs(600),
    header_bytes: 2 << 20,
    header_count: 20_000,
};
/// Length of the start of a received body that the response contains.
const MAX_SHOWN_BYTES: usize = 1 << 20;
const MAX_DELAY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http_server::testing;

    /// Returns the status code and the JSON body of the response to `request`.
    async fn send(request: &str) -> (u16, Value) {
        let (listener, address) = testing::listener().await;
        let server = tokio::spawn(serve(listener, std::future::pending()));
        let response = testing::roundtrip(address, request).await;
        server.abort();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let mut body: Value = serde_json::from_str(body).unwrap();
        // Ports differ from run to run.
        if let Some(client) = body.get_mut("client") {
            assert!(client.as_str().unwrap().starts_with("127.0.0.1:"));
            assert_eq!(body["server"].take(), json!(address.to_string()));
            body["client"].take();
        }
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    #[tokio::test]
    async fn response_describes_the_request() {
        let request = "POST /a%2Fb?x=1&y HTTP/1.1\r\nHost: web.example:80\r\nX-Twice: 1\r\nx-twice: 2\r\n\
                       Connection: close\r\nContent-Length: 5\r\n\r\nhello";
        let expected = json!({
            "method": "POST",
            "path": "/a%2Fb",
            "query": "x=1&y",
            "host": "web.example:80",
            "headers": {
                "connection": ["close"],
                "content-length": ["5"],
                "host": ["web.example:80"],
                "x-twice": ["1", "2"],
            },
            "body": "hello",
            "body_bytes": 5,
            "client": null,
            "server": null,
        });
        assert_eq!(send(request).await, (200, expected));
    }

    #[tokio::test]
    async fn binary_body_is_base64() {
        let head = "PUT / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
        let (listener, address) = testing::listener().await;
        let server = tokio::spawn(serve(listener, std::future::pending()));
        let mut request = head.as_bytes().to_vec();
        // 0xC2 starts a UTF-8 character of two bytes, and `a` cannot be its second byte.
        request.extend_from_slice(b"2\r\n\xc2a\r\n0\r\n\r\n");
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &request).await.unwrap();
        let mut response = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut response).await.unwrap();
        server.abort();
        let body: Value = serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&body["body"], &body["body_encoding"]), (&json!("wmE="), &json!("base64")));
    }

    #[tokio::test]
    async fn long_body_is_read_fully_and_shown_truncated() {
        let length = MAX_SHOWN_BYTES + 70_000;
        let request = format!(
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{}",
            // Three bytes each, so that the truncation splits a character.
            "€".repeat(length / 3) + &"x".repeat(length % 3)
        );
        let (status, body) = send(&request).await;
        assert_eq!(status, 200);
        assert_eq!(body["body_bytes"], json!(length));
        assert_eq!(body["body_truncated"], json!(true));
        assert_eq!(body["body"].as_str().unwrap().len(), MAX_SHOWN_BYTES / 3 * 3);
        assert_eq!(body.get("body_encoding"), None);
    }

    #[tokio::test]
    async fn query_sets_the_status() {
        let (status, body) = send("GET /?status=503 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert_eq!((status, &body["query"]), (503, &json!("status=503")));
        let (status, body) = send("GET /?status=9000 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        let message = "status=9000: not a status code; write a number from 200 to 599";
        assert_eq!((status, body), (400, json!({ "message": message })));
    }

    #[tokio::test]
    async fn no_body_is_sent_with_statuses_that_forbid_one() {
        let (listener, address) = testing::listener().await;
        let server = tokio::spawn(serve(listener, std::future::pending()));
        for (status, has_body) in [(204, false), (304, false), (205, true), (200, true), (599, true)] {
            let request = format!("GET /?status={status} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            let response = testing::roundtrip(address, &request).await;
            assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{response}");
            assert_eq!(!response.ends_with("\r\n\r\n"), has_body, "{response}");
        }
        server.abort();
    }

    #[test]
    fn query_options_are_parsed() {
        let options = |status: u16, delay| {
            Ok(ResponseOptions { status: StatusCode::from_u16(status).unwrap(), delay: Duration::from_millis(delay) })
        };
        let cases = [
            ("", options(200, 0)),
            ("a=b&status=404", options(404, 0)),
            ("delay=500ms&status=201", options(201, 500)),
            ("delay=30s", options(200, 30_000)),
            ("delay=31s", Err("delay=31s: too long; write at most 30s".to_owned())),
            ("delay=5", Err("delay=5: has no unit; write 5s or 5ms".to_owned())),
            ("status=101", Err("status=101: not a status code; write a number from 200 to 599".to_owned())),
            ("status=", Err("status=: not a status code; write a number from 200 to 599".to_owned())),
        ];
        for (query, expected) in cases {
            assert_eq!(ResponseOptions::parse(query), expected, "{query:?}");
        }
    }
}
