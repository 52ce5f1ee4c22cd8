//! HTTP/2 and WebSocket over TLS, negotiated with ALPN.

use std::time::Duration;

use h2::client;
use http::Request;
use portico::proxy::ProxyLimits;

use crate::h2::read_response;
use crate::harness::{Endpoint, Options, TestServer, routes_to, with_timeout};
use crate::tls_harness::{TlsCaller, TlsListener, certificate, start_tls_server};

fn caller(protocols: &[&[u8]]) -> TlsCaller {
    TlsCaller::new().adjust(|config| config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect())
}

async fn server(endpoint: &Endpoint) -> TestServer {
    server_with_options(Options::default(), endpoint).await
}

async fn server_with_options(options: Options, endpoint: &Endpoint) -> TestServer {
    let secure = |hostname, names: &[&str]| TlsListener {
        hostname,
        certificates: vec![certificate(names)],
        routes: routes_to(endpoint.address),
    };
    let both = ["a.example", "b.example"];
    start_tls_server(options, vec![secure("a.example", &both), secure("b.example", &both)]).await
}

#[tokio::test]
async fn alpn_selects_http2_and_misdirected_requests_get_421() {
    let endpoint = Endpoint::ok().await;
    let server = server(&endpoint).await;
    let stream = caller(&[b"h2", b"http/1.1"]).connect(&server, "a.example").await.unwrap();
    assert_eq!(stream.socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (send, connection) = with_timeout("settings", client::handshake(stream.socket)).await.unwrap();
    tokio::spawn(connection);
    for (host, expected) in [("a.example", 200), ("b.example", 421), ("c.example", 421), ("a.example", 200)] {
        let request = Request::get(format!("https://{host}/")).body(()).unwrap();
        let (answer, _) = send.clone().ready().await.unwrap().send_request(request, true).unwrap();
        assert_eq!(read_response(answer).await.unwrap().status, expected, "{host}");
    }
    let seen = endpoint.log.requests();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].contains("\r\nx-forwarded-proto: https\r\n"), "{}", seen[0]);
}

#[tokio::test]
async fn http2_is_used_only_when_offered() {
    let endpoint = Endpoint::ok().await;
    let server = server(&endpoint).await;
    for protocols in [&[][..], &[&b"http/1.1"[..]]] {
        let mut client = caller(protocols).connect(&server, "a.example").await.unwrap();
        assert_eq!(client.get("/").await.text(), "ok");
    }
}

#[tokio::test]
async fn silent_http2_connection_is_closed() {
    let limits = ProxyLimits { header_timeout: Duration::from_millis(100), ..ProxyLimits::default() };
    let server = server_with_options(Options { limits, ..Options::default() }, &Endpoint::ok().await).await;
    let mut stream = caller(&[b"h2"]).connect(&server, "a.example").await.unwrap();
    stream.read_to_end().await.unwrap_or_default();
}

#[tokio::test]
async fn websocket_works_over_tls() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello").await;
    })
    .await;
    let server = server(&endpoint).await;
    let mut client = caller(&[b"http/1.1"]).connect(&server, "a.example").await.unwrap();
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(client.response(false).await.status, 101);
    assert_eq!(client.read_to_end().await.unwrap(), b"hello");
}
