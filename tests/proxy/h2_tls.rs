//! HTTP/2 and WebSocket over TLS, negotiated with ALPN.

use std::time::Duration;

use h2::client;
use http::Request;
use portico::limits::ProxyLimits;

use crate::h2::read_response;
use crate::harness::{Endpoint, Options, TestServer, routes_to, with_timeout};
use crate::tls_harness::{TestTlsConnector, TlsListener, certificate, start_tls_server};

fn connector(alpn_protocols: &[&[u8]]) -> TestTlsConnector {
    TestTlsConnector::new().with_alpn(alpn_protocols)
}

/// A proxy with HTTPS listeners for a.example and b.example. The certificate of each covers both names.
async fn server(endpoint: &Endpoint) -> TestServer {
    server_with_options(Options::default(), endpoint).await
}

async fn server_with_options(options: Options, endpoint: &Endpoint) -> TestServer {
    let tls_listener = |hostname| TlsListener {
        hostname,
        certificates: vec![certificate(&["a.example", "b.example"])],
        routes: routes_to(endpoint.address),
    };
    start_tls_server(options, vec![tls_listener("a.example"), tls_listener("b.example")]).await
}

#[tokio::test]
async fn alpn_selects_http2_and_misdirected_requests_get_421() {
    let endpoint = Endpoint::ok().await;
    let server = server(&endpoint).await;
    let tls_client = connector(&[b"h2", b"http/1.1"]).connect(&server, "a.example").await.unwrap();
    assert_eq!(tls_client.socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = with_timeout("settings", client::handshake(tls_client.socket)).await.unwrap();
    tokio::spawn(connection);
    for (host, expected) in [("a.example", 200), ("b.example", 421), ("c.example", 404), ("a.example", 200)] {
        let request = Request::get(format!("https://{host}/")).body(()).unwrap();
        let (response, _) = sender.clone().ready().await.unwrap().send_request(request, true).unwrap();
        assert_eq!(read_response(response).await.unwrap().status, expected, "{host}");
    }
    let requests = endpoint.log.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[0].contains("\r\nx-forwarded-proto: https\r\n"), "{}", requests[0]);
}

#[tokio::test]
async fn http2_is_used_only_when_offered() {
    let endpoint = Endpoint::ok().await;
    let server = server(&endpoint).await;
    for protocols in [&[][..], &[&b"http/1.1"[..]]] {
        let mut client = connector(protocols).connect(&server, "a.example").await.unwrap();
        assert_eq!(client.get("/").await.text(), "ok");
    }
}

#[tokio::test]
async fn silent_http2_connection_is_closed() {
    let limits = ProxyLimits { header_timeout: Duration::from_millis(100), ..ProxyLimits::default() };
    let server = server_with_options(Options { limits, ..Options::default() }, &Endpoint::ok().await).await;
    let mut client = connector(&[b"h2"]).connect(&server, "a.example").await.unwrap();
    client.read_to_end().await.unwrap_or_default();
}

#[tokio::test]
async fn websocket_works_over_tls() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello").await;
    })
    .await;
    let server = server(&endpoint).await;
    let mut client = connector(&[b"http/1.1"]).connect(&server, "a.example").await.unwrap();
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(client.response().await.status, 101);
    assert_eq!(client.read_to_end().await.unwrap(), b"hello");
}
