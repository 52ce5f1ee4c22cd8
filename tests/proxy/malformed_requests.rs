//! Malformed HTTP/1.1 requests: the proxy responds with an error in the usual format, and logs and counts them.

use portico::limits::ProxyLimits;
use portico::proxy::access_log::AccessLogDestination;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::accounting::{access_log_records, scrape};
use crate::harness::{
    Client, Endpoint, Options, TEST_TIMEOUT, TestResponse, TestServer, header, routes_to, with_timeout,
};
use crate::kong;
use crate::tls_harness::{TestTlsConnector, TlsListener, certificate, start_tls_server};

struct Case {
    /// What the client sends.
    bytes: String,
    status: u16,
    /// The field `error` of the log record, and the reason of the metric.
    error: &'static str,
    /// Further fields of the log record: method, path, host and user agent (`-` if unknown).
    log_fields: [&'static str; 4],
}

fn case(bytes: impl Into<String>, status: u16, error: &'static str, log_fields: [&'static str; 4]) -> Case {
    Case { bytes: bytes.into(), status, error, log_fields }
}

fn cases() -> Vec<Case> {
    let user_agent = "user-agent: me\r\n";
    vec![
        case("nonsense\r\n\r\n", 400, "malformed_request", ["-", "-", "-", "-"]),
        case("\x16\x03\x01\x02", 400, "malformed_request", ["-", "-", "-", "-"]),
        case(
            format!("GET /x HTTP/1.1\r\nhost: a\r\n{user_agent}x y: z\r\n\r\n"),
            400,
            "malformed_request",
            ["GET", "/x", "a", "me"],
        ),
        case("GET /x HTTP/3.0\r\nhost: a\r\n\r\n", 505, "unsupported_version", ["GET", "/x", "a", "-"]),
        case("HEAD /x HTTP/1.1\r\nhost : a\r\n\r\n", 400, "malformed_request", ["HEAD", "/x", "-", "-"]),
        case(
            format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(66_000)),
            414,
            "target_too_long",
            ["GET", "-", "a", "-"],
        ),
        case(
            format!("GET /x HTTP/1.1\r\nhost: a\r\nx: {}", "y".repeat(300_000)),
            431,
            "header_too_large",
            ["GET", "/x", "a", "-"],
        ),
        case(
            format!("GET /x HTTP/1.1\r\n{user_agent}{}\r\n", "x: y\r\n".repeat(101)),
            431,
            "too_many_headers",
            ["GET", "/x", "-", "me"],
        ),
        // The HTTP/2 preface is valid only at the start of a connection.
        case("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "unsupported_version", ["PRI", "*", "-", "-"]),
    ]
}

/// Sends the case as the first request of the connection, or after a valid one.
async fn send_case<S: AsyncRead + AsyncWrite + Unpin>(
    mut client: Client<S>,
    case: &Case,
    is_first: bool,
) -> TestResponse {
    if !is_first {
        client.send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 2\r\n\r\nhi").await;
    }
    // The proxy may close the connection while the client is still writing.
    drop(client.socket.write_all(case.bytes.as_bytes()).await);
    if !is_first {
        assert_eq!(client.response().await.status, 200);
    }
    let response = client.response_to(&case.bytes).await;
    assert_eq!(client.read_to_end().await.unwrap_or_default(), b"", "{:.60?}", case.bytes);
    response
}

#[tokio::test]
async fn malformed_requests_get_errors_and_log_records() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::ok().await;
    let limits = || ProxyLimits { max_request_head: 128 * 1024, ..ProxyLimits::default() };
    for (tls, is_first) in [(false, true), (false, false), (true, true), (true, false)] {
        let path = folder.path().join(format!("{tls}{is_first}"));
        let options = Options { limits: limits(), log: AccessLogDestination::File(path.clone()), ..Options::default() };
        let server = if tls {
            let certificates = vec![certificate(&["a.example"])];
            start_tls_server(
                options,
                vec![TlsListener { hostname: "", certificates, routes: routes_to(endpoint.address) }],
            )
            .await
        } else {
            TestServer::with_options(options, routes_to(endpoint.address)).await
        };
        let mut expected = Vec::new();
        for case in cases() {
            if is_first && case.bytes.starts_with("PRI") {
                continue;
            }
            let response = if tls {
                send_case(TestTlsConnector::new().connect(&server, "a.example").await.unwrap(), &case, is_first).await
            } else {
                send_case(server.connect().await, &case, is_first).await
            };
            let what = format!("{tls} {is_first} {:.60?}", case.bytes);
            assert_eq!(response.status, case.status, "{what}");
            let id = response.header("x-request-id").expect("a request id").to_owned();
            assert_eq!(response.header("connection"), Some("close"), "{what}");
            assert!(response.header("date").is_some_and(|date| date.ends_with(" GMT")), "{what}");
            assert_eq!(response.header("content-type"), Some("application/json; charset=utf-8"), "{what}");
            if case.log_fields[0] == "HEAD" {
                assert_ne!(response.header("content-length"), Some("0"), "{what}");
            } else {
                let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
                assert_eq!(body["request_id"], id, "{what}");
                assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}");
            }
            let mut fields = vec![id, case.status.to_string(), case.error.to_owned(), "127.0.0.1".to_owned()];
            fields.extend(case.log_fields.map(str::to_owned));
            fields.extend([response.body.len().to_string(), (if tls { "TLSv1.3" } else { "-" }).to_owned()]);
            expected.push(fields);
        }
        assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
        server.log.finish();
        let field = |record: &serde_json::Value, name: &str| match &record[name] {
            serde_json::Value::Null => "-".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let field_names =
            ["request_id", "status", "error", "client", "method", "path", "host", "user_agent", "bytes_out"];
        let logged: Vec<Vec<String>> = access_log_records(&path)
            .iter()
            .filter(|record| record["status"] != 200)
            .map(|record| {
                let mut fields: Vec<_> = field_names.iter().chain(&["tls"]).map(|name| field(record, name)).collect();
                fields[3].truncate("127.0.0.1".len());
                fields
            })
            .collect();
        assert_eq!(logged, expected, "{tls} {is_first}");
        let metrics = scrape(&server);
        for reason in
            ["malformed_request", "unsupported_version", "target_too_long", "header_too_large", "too_many_headers"]
        {
            let count = expected.iter().filter(|fields| fields[2] == reason).count();
            let metric = metrics[&format!("portico_request_errors_total{{reason=\"{reason}\"}}")];
            assert_eq!(metric, count as f64, "{reason}");
        }
    }
}

#[tokio::test]
async fn error_format_follows_the_readable_headers() {
    let server = TestServer::with_routes(vec![]).await;
    let cases = [
        ("accept: text/html\r\n", 400, "text/html; charset=utf-8", "<p>Bad request.</p>"),
        ("accept: text/plain\r\n", 400, "text/plain; charset=utf-8", "Bad request\nrequest_id: "),
        ("ACCEPT:text/xml\r\n", 400, "application/xml; charset=utf-8", "<message>Bad request</message>"),
        // gRPC needs HTTP/2.
        ("content-type: application/grpc\r\n", 400, "application/json; charset=utf-8", "Bad request"),
    ];
    for (fields, status, content_type, body_part) in cases {
        let response = server.request(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}x y: z\r\n\r\n")).await;
        assert_eq!((response.status, response.header("content-type")), (status, Some(content_type)), "{fields}");
        assert!(response.text().contains(body_part), "{fields}{}", response.text());
    }
}

/// The host of these requests cannot be read, so the listener decides.
// docs/kong-compatibility.md, 3.6
#[tokio::test]
async fn malformed_requests_to_ingresses_get_the_headers_of_kong() {
    let of_ingresses = kong::server(Options::default(), vec![]).await;
    let of_a_gateway = TestServer::with_routes(vec![]).await;
    for request in
        ["GET / HTTP/1.1\r\nhost: a\r\nx y: z\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET /% HTTP/1.1\r\nhost: a\r\n\r\n"]
    {
        let response = of_ingresses.request(request).await;
        assert_eq!(response.status, 400, "{request}");
        assert!(response.header("server").is_some_and(|server| server.starts_with("portico/")), "{request}");
        let latency = response.header("x-kong-response-latency");
        assert!(latency.is_some_and(|latency| latency.parse::<u32>().is_ok()), "{request} {latency:?}");
        let id = response.header("x-kong-request-id").expect("the id of the request");
        assert!(response.text().contains(id), "{request} {}", response.text());
        let response = of_a_gateway.request(request).await;
        let product = ["server", "x-kong-response-latency", "x-kong-request-id"].map(|name| response.header(name));
        assert_eq!((response.status, product), (400, [None; 3]), "{request}");
    }
}

/// The endpoint responds before the request ends, the client sends malformed bytes, and a part of the response is still
/// unread. The error response must follow the whole response or be omitted.
#[tokio::test]
async fn error_response_is_not_mixed_into_a_response() {
    let endpoint = Endpoint::scripted(move |mut stream, _| async move {
        while let Some(head) = stream.head().await {
            let size: usize = header(&head, "x-size").unwrap().parse().unwrap();
            stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n")).await;
            stream.send(vec![b'x'; size]).await;
            stream.read_to_end().await;
        }
    })
    .await;
    // How much is buffered in the socket and in the proxy depends on the system, so the size varies.
    for size in (2_400_000..4_000_000).step_by(100_000) {
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut socket = socket.connect(server.address).await.unwrap();
        let head =
            format!("POST / HTTP/1.1\r\nhost: a.example\r\nx-size: {size}\r\ncontent-length: 10\r\n\r\n12345678");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut received = Vec::new();
        while !scrape(&server).keys().any(|name| name.starts_with("portico_requests_total")) {
            let mut block = [0; 65_536];
            let length = with_timeout("part of the response", socket.read(&mut block)).await.unwrap();
            received.extend_from_slice(&block[..length]);
        }
        socket.write_all(b"90nonsense nonsense\r\n\r\n").await.unwrap();
        with_timeout("the rest", socket.read_to_end(&mut received)).await.unwrap_or_default();
        let end = received.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let (response, after) = received[end..].split_at_checked(size).expect("a complete response");
        assert!(response.iter().all(|byte| *byte == b'x'), "{size}: the response contains foreign bytes");
        assert!(after.is_empty() || after.starts_with(b"HTTP/1.1 400 "), "{:.40}", String::from_utf8_lossy(after));
    }
}
