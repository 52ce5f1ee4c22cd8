//! Pings of HTTP/2 connections to endpoints that send nothing.

use std::cell::Cell;
use std::time::Duration;

use portico::limits::ProxyLimits;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::frames::{ACK, GOAWAY, HEADERS, PING, RawConnection, frame};
use crate::h2::{Http2Client, get_request};
use crate::harness::{LONGER_THAN_PAUSES, Options, TestServer, h2c_routes_to, with_timeout};

const INTERVAL: Duration = Duration::from_millis(200);
const ENHANCE_YOUR_CALM: u32 = 11;

/// Calls whose streams had no messages for two minutes failed, because servers permit one ping in five minutes without
/// data: <https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md>.
#[test]
fn pings_are_as_rare_as_servers_of_grpc_permit() {
    assert!(ProxyLimits::default().upstream_ping_interval > Duration::from_secs(5 * 60));
}

/// Servers of gRPC close connections with this code after three pings that they do not permit, with all their streams.
#[tokio::test]
async fn endpoint_that_closes_connections_because_of_pings_gets_fewer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (report, mut silences) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut raw = RawConnection::accept(socket).await;
            let stream = raw.wait_for("a request", |frame| frame.kind == HEADERS).await.stream;
            let silent_since = Instant::now();
            raw.wait_for("a ping", |frame| frame.kind == PING && frame.flags & ACK == 0).await;
            report.send(silent_since.elapsed()).await.ok();
            let payload = [stream.to_be_bytes(), ENHANCE_YOUR_CALM.to_be_bytes()].concat();
            raw.send(frame(GOAWAY, 0, 0, &payload)).await;
        }
    });
    let limits = ProxyLimits { upstream_ping_interval: INTERVAL, ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, h2c_routes_to(address)).await;
    let client = Http2Client::connect(server.address).await;
    for doublings in 0..2 {
        let (response, silence) =
            tokio::join!(client.request(get_request("/")), with_timeout("the ping", silences.recv()));
        assert_eq!(response.unwrap().status, 502, "the connection has ended");
        let silence = silence.unwrap();
        // The request arrives a little later than the connection begins to wait.
        let expected = INTERVAL * (1 << doublings) - INTERVAL / 4;
        assert!(silence >= expected, "{doublings} doublings: pinged after {silence:?}");
    }
}

/// Complaints about resets made pings 32 times as rare.
#[tokio::test]
async fn complaints_without_pings_do_not_slow_pings() {
    const WITHOUT_PINGS: usize = 8;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (report, mut silences) = mpsc::channel(8);
    tokio::spawn(async move {
        let mut connections = 0;
        while let Ok((socket, _)) = listener.accept().await {
            let mut raw = RawConnection::accept(socket).await;
            let stream = raw.wait_for("a request", |frame| frame.kind == HEADERS).await.stream;
            connections += 1;
            if connections > WITHOUT_PINGS {
                let silent_since = Instant::now();
                raw.wait_for("a ping", |frame| frame.kind == PING && frame.flags & ACK == 0).await;
                report.send(silent_since.elapsed()).await.ok();
            }
            let payload = [stream.to_be_bytes(), ENHANCE_YOUR_CALM.to_be_bytes()].concat();
            raw.send(frame(GOAWAY, 0, 0, &payload)).await;
        }
    });
    let limits = ProxyLimits { upstream_ping_interval: INTERVAL, ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, h2c_routes_to(address)).await;
    let client = Http2Client::connect(server.address).await;
    let is_pinged = Cell::new(false);
    let requests = async {
        // Each is sent again a few times on another connection.
        while !is_pinged.get() {
            client.request(get_request("/")).await.ok();
        }
    };
    let silence = async {
        let silence = with_timeout("the ping", silences.recv()).await.unwrap();
        is_pinged.set(true);
        silence
    };
    let ((), silence) = tokio::join!(requests, silence);
    assert!(silence < LONGER_THAN_PAUSES, "pinged after {silence:?}");
}
