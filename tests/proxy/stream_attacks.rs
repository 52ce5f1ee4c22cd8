//! Clients of TCP and TLS listeners that do not finish what they begin, or send more than they may.

use std::time::Duration;

use portico::limits::ProxyLimits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::accounting::wait_for_metrics;
use crate::harness::{Client, Endpoint, Options, TestServer, upstream, with_timeout};
use crate::stream::{echo_endpoint, expect_text, start, to_upstream, wait_for_outcome};
use crate::tls::wait_for_count;
use crate::tls_harness::TestTlsConnector;
use crate::tls_passthrough::{self, https_listener, passthrough, to_endpoint};
use crate::tls_stream_termination::terminating;

fn short_timeouts() -> Options {
    let limits = ProxyLimits {
        handshake_timeout: Duration::from_millis(300),
        proxy_header_timeout: Duration::from_millis(300),
        stream_idle_timeout: Duration::from_millis(500),
        ..ProxyLimits::default()
    };
    Options { limits, ..Options::default() }
}

/// The same handshake message in records of this many bytes.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let (version, message) = (&hello[..3], &hello[5..]);
    let record = |part: &[u8]| [version, &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat();
    message.chunks(size).flat_map(record).collect()
}

async fn expect_closed(server: &TestServer, bytes: &[u8]) {
    let mut client = server.connect().await;
    client.send(bytes).await;
    // An alert, a close and a reset are acceptable.
    let received = client.read_to_end().await.unwrap_or_default();
    assert!(received.len() <= 7, "{received:?}");
}

#[tokio::test]
async fn hello_that_never_ends_times_out_in_both_modes() {
    let endpoint = echo_endpoint().await;
    let hello = TestTlsConnector::new().client_hello("a.example");
    let to_endpoint = || vec![("a.example", to_endpoint(endpoint.address))];
    for tls in [passthrough(to_endpoint()), terminating(to_endpoint())] {
        let server = tls_passthrough::start(short_timeouts(), tls, https_listener("").await).await;
        // Nothing, the type of a record, most of a ClientHello, and one record of a ClientHello in several.
        for beginning in [&[][..], &hello[..1], &hello[..hello.len() - 1], &in_records(&hello, 100)[..105]] {
            expect_closed(&server, beginning).await;
        }
        wait_for_count(&server, "timeout", 4.0).await;
    }
    assert_eq!(endpoint.log.connections(), 0);
}

#[tokio::test]
async fn hello_in_several_records_is_passed_on_unchanged() {
    let endpoint = echo_endpoint().await;
    let tls = passthrough(vec![("a.example", to_endpoint(endpoint.address))]);
    let server = tls_passthrough::start(Options::default(), tls, https_listener("").await).await;
    let hello = TestTlsConnector::new().client_hello("a.example");
    for size in [100, 1_000] {
        let sent = in_records(&hello, size);
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(&sent).await.unwrap();
        let mut received = vec![0; sent.len()];
        with_timeout("the echo", socket.read_exact(&mut received)).await.unwrap();
        assert!(received == sent, "in records of {size} bytes");
    }
}

#[tokio::test]
async fn hello_that_is_too_large_is_refused() {
    let endpoint = echo_endpoint().await;
    let tls = passthrough(vec![("a.example", to_endpoint(endpoint.address))]);
    let server = tls_passthrough::start(Options::default(), tls, https_listener("").await).await;
    // A ClientHello of 16 MiB, in records of the maximum size.
    let header = [1, 0xff, 0xff, 0xff, 3, 3];
    let message = [&header[..], &vec![0; 100_000]].concat();
    let hello = in_records(&[&[22, 3, 1, 0, 0][..], &message].concat(), 16_000);
    let mut client = server.connect().await;
    // The connection may be reset while the client still sends.
    drop(client.socket.write_all(&hello).await);
    assert!(client.read_to_end().await.unwrap_or_default().len() <= 7);
    // Empty records, which do not make the message longer.
    let mut client = server.connect().await;
    drop(client.socket.write_all(&[22, 3, 1, 0, 0].repeat(20_000)).await);
    assert!(client.read_to_end().await.unwrap_or_default().len() <= 7);
    assert_eq!(endpoint.log.connections(), 0);
}

#[tokio::test]
async fn hello_without_server_name_reaches_no_route_with_hostnames() {
    let endpoint = echo_endpoint().await;
    let tls = passthrough(vec![("a.example", to_endpoint(endpoint.address))]);
    let server = tls_passthrough::start(Options::default(), tls, https_listener("*.test").await).await;
    // The TLS library sends no server name if it is an IP address.
    expect_closed(&server, &TestTlsConnector::new().client_hello("192.0.2.1")).await;
    wait_for_count(&server, "unknown_name", 1.0).await;
    assert_eq!(endpoint.log.connections(), 0);
}

#[tokio::test]
async fn half_open_connections_end_after_the_idle_timeout() {
    // The endpoint neither sends nor closes.
    let silent = || {
        Endpoint::scripted(|stream, _| async move {
            let _open = stream;
            std::future::pending::<()>().await;
        })
    };
    let endpoint = silent().await;
    let server = start(short_timeouts(), to_upstream(&upstream("db", &[endpoint.address]))).await;
    let mut silent_client = server.connect().await;
    let mut half_closed = server.connect().await;
    half_closed.socket.shutdown().await.unwrap();
    for client in [&mut silent_client, &mut half_closed] {
        assert_eq!(client.read_to_end().await.unwrap(), b"");
    }
    wait_for_outcome(&server, "idle_timeout", 2.0).await;
    wait_for_metrics(&server, "no connection", |metrics| metrics["portico_streams"] == 0.0).await;
}

#[tokio::test]
async fn proxy_header_that_never_ends_reaches_no_endpoint() {
    let endpoint = echo_endpoint().await;
    let options = Options { proxy_header_peers: vec!["127.0.0.0/8"], ..short_timeouts() };
    let server = start(options, to_upstream(&upstream("db", &[endpoint.address]))).await;
    for beginning in [&b""[..], b"PROXY TCP4 192.0.2.7", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f"] {
        expect_closed(&server, beginning).await;
    }
    let timeouts = "portico_proxy_headers_total{outcome=\"timeout\"}";
    wait_for_metrics(&server, "three timeouts", |metrics| metrics[timeouts] >= 3.0).await;
    assert_eq!(endpoint.log.connections(), 0);
}

/// Other clients are served while many connections neither send nor close.
#[tokio::test]
async fn silent_connections_delay_no_others() {
    let endpoint = echo_endpoint().await;
    let server = start(Options::default(), to_upstream(&upstream("db", &[endpoint.address]))).await;
    let mut silent: Vec<Client> = Vec::new();
    for _ in 0..200 {
        silent.push(server.connect().await);
    }
    let mut client = server.connect().await;
    client.send("served").await;
    expect_text(&mut client, "served").await;
    wait_for_metrics(&server, "all connections", |metrics| metrics["portico_streams"] == 201.0).await;
    drop(silent);
    wait_for_metrics(&server, "one connection", |metrics| metrics["portico_streams"] == 1.0).await;
}
