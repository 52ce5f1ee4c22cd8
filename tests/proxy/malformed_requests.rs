//! Malformed requests: they get an error response in the usual format, and are logged and counted.

use portico::proxy::ProxyLimits;
use portico::proxy::access_log::AccessLogDestination;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::accounting::{records, scrape};
use crate::harness::{
    Client, Endpoint, Options, TEST_TIMEOUT, TestResponse, TestServer, header, routes_to, with_timeout,
};
use crate::tls_harness::{TlsCaller, TlsListener, certificate, start_tls_server};

/// The bytes sent, the status and `error` of the response, and the known log fields: method, path, host and user agent.
struct Case {
    bytes: String,
    status: u16,
    error: &'static str,
    known: [&'static str; 4],
}

fn case(bytes: impl Into<String>, status: u16, error: &'static str, known: [&'static str; 4]) -> Case {
    Case { bytes: bytes.into(), status, error, known }
}

fn cases() -> Vec<Case> {
    let agent = "user-agent: me\r\n";
    vec![
        case("nonsense\r\n\r\n", 400, "malformed_request", ["-", "-", "-", "-"]),
        case("\x16\x03\x01\x02", 400, "malformed_request", ["-", "-", "-", "-"]),
        case(
            format!("GET /x HTTP/1.1\r\nhost: a\r\n{agent}x y: z\r\n\r\n"),
            400,
            "malformed_request",
            ["GET", "/x", "a", "me"],
        ),
        case("GET /x HTTP/3.0\r\nhost: a\r\n\r\n", 400, "malformed_request", ["GET", "/x", "a", "-"]),
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
            format!("GET /x HTTP/1.1\r\n{agent}{}\r\n", "x: y\r\n".repeat(101)),
            431,
            "too_many_headers",
            ["GET", "/x", "-", "me"],
        ),
        // The HTTP/2 preface is valid only at the start of a connection.
        case("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed_request", ["PRI", "*", "-", "-"]),
    ]
}

/// Sends the case as the first request, or after a valid one.
async fn send_case<S: AsyncRead + AsyncWrite + Unpin>(mut client: Client<S>, case: &Case, first: bool) -> TestResponse {
    if !first {
        client.send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 2\r\n\r\nhi").await;
    }
    // The proxy may close the connection while the client is still writing.
    drop(client.socket.write_all(case.bytes.as_bytes()).await);
    if !first {
        assert_eq!(client.response(false).await.status, 200);
    }
    let answer = client.response(case.bytes.starts_with("HEAD")).await;
    assert_eq!(client.read_to_end().await.unwrap_or_default(), b"", "{:.60?}", case.bytes);
    answer
}

#[tokio::test]
async fn malformed_requests_get_errors_and_log_records() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::ok().await;
    let limits = || ProxyLimits { max_request_head: 128 * 1024, ..ProxyLimits::default() };
    for (secure, first) in [(false, true), (false, false), (true, true), (true, false)] {
        let path = folder.path().join(format!("{secure}{first}"));
        let options = Options { limits: limits(), log: AccessLogDestination::File(path.clone()), ..Options::default() };
        let server = if secure {
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
            if first && case.bytes.starts_with("PRI") {
                continue;
            }
            let answer = if secure {
                send_case(TlsCaller::new().connect(&server, "a.example").await.unwrap(), &case, first).await
            } else {
                send_case(server.connect().await, &case, first).await
            };
            let what = format!("{secure} {first} {:.60?}", case.bytes);
            assert_eq!(answer.status, case.status, "{what}");
            let id = answer.header("x-request-id").expect("a request id").to_owned();
            assert_eq!(answer.header("connection"), Some("close"), "{what}");
            assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")), "{what}");
            assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"), "{what}");
            if case.known[0] == "HEAD" {
                assert_ne!(answer.header("content-length"), Some("0"), "{what}");
            } else {
                let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                assert_eq!(body["request_id"], id, "{what}");
                assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}");
            }
            let mut line = vec![id, case.status.to_string(), case.error.to_owned(), "127.0.0.1".to_owned()];
            line.extend(case.known.map(str::to_owned));
            line.extend([answer.body.len().to_string(), (if secure { "TLSv1.3" } else { "-" }).to_owned()]);
            expected.push(line);
        }
        assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
        server.log.finish();
        let field = |record: &serde_json::Value, name: &str| match &record[name] {
            serde_json::Value::Null => "-".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let names = ["request_id", "status", "error", "client", "method", "path", "host", "user_agent", "bytes_out"];
        let logged: Vec<Vec<String>> = records(&path)
            .iter()
            .filter(|record| record["status"] != 200)
            .map(|record| {
                let mut line: Vec<_> = names.iter().chain(&["tls"]).map(|name| field(record, name)).collect();
                line[3].truncate("127.0.0.1".len());
                line
            })
            .collect();
        assert_eq!(logged, expected, "{secure} {first}");
        let metrics = scrape(&server);
        for word in ["malformed_request", "target_too_long", "header_too_large", "too_many_headers"] {
            let count = expected.iter().filter(|line| line[2] == word).count();
            let counted = metrics[&format!("portico_request_errors_total{{reason=\"{word}\"}}")];
            assert_eq!(counted, count as f64, "{word}");
        }
    }
}

#[tokio::test]
async fn error_format_follows_the_readable_headers() {
    let server = TestServer::with_routes(vec![]).await;
    let cases = [
        ("accept: text/html\r\n", 400, "text/html; charset=utf-8", "<p>Bad request</p>"),
        ("accept: text/plain\r\n", 400, "text/plain; charset=utf-8", "Bad request\nrequest_id: "),
        ("ACCEPT:text/xml\r\n", 400, "application/xml; charset=utf-8", "<message>Bad request</message>"),
        ("content-type: application/grpc\r\n", 200, "application/grpc", ""),
    ];
    for (fields, status, content_type, part) in cases {
        let answer = server.request(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}x y: z\r\n\r\n")).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, Some(content_type)), "{fields}");
        assert!(answer.text().contains(part), "{fields}{}", answer.text());
        assert_eq!(answer.header("grpc-status").is_some(), status == 200, "{fields}");
    }
}

/// A response that ends before its request does, then malformed bytes, while much of the response waits for the client
/// to read. The error response must follow the response or be omitted.
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
        let mut read = Vec::new();
        while !scrape(&server).keys().any(|name| name.starts_with("portico_requests_total")) {
            let mut some = [0; 65_536];
            let length = with_timeout("part of the response", socket.read(&mut some)).await.unwrap();
            read.extend_from_slice(&some[..length]);
        }
        socket.write_all(b"90nonsense nonsense\r\n\r\n").await.unwrap();
        with_timeout("the rest", socket.read_to_end(&mut read)).await.unwrap_or_default();
        let end = read.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let (answer, after) = read[end..].split_at_checked(size).expect("a complete response");
        assert!(answer.iter().all(|byte| *byte == b'x'), "{size}: the response contains foreign bytes");
        assert!(after.is_empty() || after.starts_with(b"HTTP/1.1 400 "), "{:.40}", String::from_utf8_lossy(after));
    }
}
