//! The PROXY protocol: load balancers that report the client's address.

use std::time::Duration;

use portico::limits::ProxyLimits;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::accounting::scrape;
use crate::harness::{Client, Endpoint, Options, TestServer, header, routes_to, with_timeout};
use crate::tls_harness::{TestTlsConnector, TlsListener, certificate, start_tls_server};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";

fn with_proxy_protocol() -> Options {
    Options { proxy_header_peers: vec!["127.0.0.0/8"], ..Options::default() }
}

/// A header of version 2. Commands: 0 is LOCAL, 1 is PROXY. Families: 0 is unspecified, 0x11 is TCP over IPv4.
fn version_2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family, 0, u8::try_from(payload.len()).unwrap()]);
    header.extend(payload);
    header
}

/// Source 192.0.2.7:12345, destination 127.0.0.1:80.
const IPV4_ADDRESSES: [u8; 12] = [192, 0, 2, 7, 127, 0, 0, 1, 0x30, 0x39, 0, 80];

/// Waits until at least this many headers have this outcome.
async fn wait_for_count(server: &TestServer, outcome: &str, count: f64) {
    let name = format!("portico_proxy_headers_total{{outcome=\"{outcome}\"}}");
    with_timeout(&format!("{count} headers with outcome {outcome}"), async {
        while scrape(server)[&name] < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn client_address_comes_from_the_proxy_header() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_options(with_proxy_protocol(), routes_to(endpoint.address)).await;
    let headers: [(&[u8], &str); 7] = [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 80\r\n", "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 12345 80\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (&version_2(1, 0x11, &IPV4_ADDRESSES), "192.0.2.7"),
        (&version_2(1, 0x11, &[&IPV4_ADDRESSES[..], &[4, 0, 1, 0]].concat()), "192.0.2.7"),
        (&version_2(0, 0x11, &IPV4_ADDRESSES), "127.0.0.1"),
        (&version_2(1, 0, &[]), "127.0.0.1"),
    ];
    for (number, (bytes, expected)) in headers.into_iter().enumerate() {
        // The cut is between header and request, in the middle of the header, or after its first byte.
        for cut in [bytes.len(), bytes.len() / 2, 1] {
            let mut client = server.connect().await;
            client.socket.set_nodelay(true).unwrap();
            let message = [bytes, REQUEST.as_bytes()].concat();
            client.send(&message[..cut]).await;
            tokio::task::yield_now().await;
            client.send(&message[cut..]).await;
            assert_eq!(client.response().await.text(), "ok", "header {number} cut at {cut}");
            let request = endpoint.log.requests().pop().unwrap();
            assert_eq!(header(&request, "x-forwarded-for"), Some(expected), "header {number} cut at {cut}");
            assert_eq!(client.get("/again").await.text(), "ok", "the connection stays open");
        }
    }
    wait_for_count(&server, "client", 12.0).await;
    wait_for_count(&server, "peer", 9.0).await;
}

#[tokio::test]
async fn missing_or_invalid_proxy_header_closes_the_connection() {
    let endpoint = Endpoint::ok().await;
    let options = |limits| Options { limits, ..with_proxy_protocol() };
    let server = TestServer::with_options(options(ProxyLimits::default()), routes_to(endpoint.address)).await;
    let short_limits = ProxyLimits { proxy_header_timeout: Duration::from_millis(300), ..ProxyLimits::default() };
    let server_with_timeout = TestServer::with_options(options(short_limits), routes_to(endpoint.address)).await;
    let too_long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    let cases: [(&[u8], &str); 6] = [
        (REQUEST.as_bytes(), "malformed"),
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 80\n", "malformed"),
        (&version_2(3, 0x11, &IPV4_ADDRESSES), "malformed"),
        (&too_long, "too_long"),
        (b"PROXY TCP4 192.0.2.7", "timeout"),
        (b"", "timeout"),
    ];
    let mut counts = std::collections::BTreeMap::new();
    for (bytes, outcome) in cases {
        let server = if outcome == "timeout" { &server_with_timeout } else { &server };
        let mut client = server.connect().await;
        client.send(bytes).await;
        // A reset is acceptable: the proxy may not have read all that the client sent.
        assert!(client.read_to_end().await.unwrap_or_default().is_empty(), "{outcome}");
        let count = counts.entry(outcome).or_insert(0.0);
        *count += 1.0;
        wait_for_count(server, outcome, *count).await;
    }
    drop(TcpStream::connect(server.address).await.unwrap());
    wait_for_count(&server, "ended", 1.0).await;
    assert!(endpoint.log.requests().is_empty());
}

#[tokio::test]
async fn proxy_header_from_other_peers_is_rejected() {
    let endpoint = Endpoint::ok().await;
    let options = Options { proxy_header_peers: vec!["192.0.2.0/24"], ..Options::default() };
    let server = TestServer::with_options(options, routes_to(endpoint.address)).await;
    assert_eq!(server.request(REQUEST).await.text(), "ok");
    let forged = format!("PROXY TCP4 192.0.2.7 127.0.0.1 12345 80\r\n{REQUEST}");
    assert_eq!(server.request(&forged).await.status, 400);
    assert_eq!(endpoint.log.requests().len(), 1);
}

/// Forwarding headers of an untrusted client are untrusted even if they arrive through a trusted load balancer.
#[tokio::test]
async fn trust_follows_the_address_in_the_proxy_header() {
    let endpoint = Endpoint::ok().await;
    let options = Options { trusted: vec!["127.0.0.0/8"], ..with_proxy_protocol() };
    let server = TestServer::with_options(options, routes_to(endpoint.address)).await;
    let request = "GET / HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: 6.6.6.6\r\n\r\n";
    for (proxy_header, expected) in
        [("PROXY TCP4 192.0.2.7 127.0.0.1 12345 80\r\n", "192.0.2.7"), ("PROXY UNKNOWN\r\n", "6.6.6.6, 127.0.0.1")]
    {
        server.request(&format!("{proxy_header}{request}")).await;
        let received = endpoint.log.requests().pop().unwrap();
        assert_eq!(header(&received, "x-forwarded-for"), Some(expected));
    }
}

#[tokio::test]
async fn proxy_header_precedes_the_tls_handshake() {
    let endpoint = Endpoint::ok().await;
    let certificate = certificate(&["a.example"]);
    let tls_listener =
        TlsListener { hostname: "", certificates: vec![certificate], routes: routes_to(endpoint.address) };
    let server = start_tls_server(with_proxy_protocol(), vec![tls_listener]).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(&version_2(1, 0x11, &IPV4_ADDRESSES)).await.unwrap();
    let mut client: Client<_> = TestTlsConnector::new().connect_over(socket, "a.example").await.unwrap();
    assert_eq!(client.get("/").await.text(), "ok");
    assert_eq!(header(&endpoint.log.requests()[0], "x-forwarded-for"), Some("192.0.2.7"));
}
