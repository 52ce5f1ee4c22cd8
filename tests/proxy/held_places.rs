//! What one client can hold of the limits of a Service with requests and connections that do not end: others find
//! places nevertheless.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portico::upstream::settings::{AdaptiveLimit, OverloadSettings, RequestLimits};
use portico::upstream::{AlternativeBackends, BackendTraffic, EndpointAddress, Endpoints, Upstream, UpstreamRegistry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::failover::{alternatives, key};
use crate::harness::{
    Client, Endpoint, Options, TestServer, forward, retries, route, with_timeout, with_timeouts_and_retries,
};
use crate::slow_clients::{GET, SLOW, client_of, other, stream_of};
use crate::stream;

const HANDSHAKE: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// An endpoint that reads all of a request, responds at once, and accepts WebSockets, which it leaves idle.
async fn endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            if request.contains("upgrade: websocket") {
                stream
                    .send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
                    .await;
                stream.read_to_end().await;
                return;
            }
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await
}

/// Four places, and a queue with as many.
fn four_places() -> RequestLimits {
    RequestLimits {
        max_requests: Some(4),
        max_pending: Some(4),
        queue_timeout: Duration::from_secs(20),
        ..RequestLimits::default()
    }
}

fn limited(endpoint: &Endpoint, limits: RequestLimits, alternatives: Option<AlternativeBackends>) -> Arc<Upstream> {
    let traffic = BackendTraffic {
        overload: OverloadSettings { limits: Some(Arc::new(limits)), circuit_breaker: None },
        alternatives: alternatives.map(Arc::new),
        ..BackendTraffic::default()
    };
    let addresses = vec![EndpointAddress::Ip(endpoint.address)];
    UpstreamRegistry::default().set_endpoints(&key("web"), Endpoints { addresses, traffic, ..Endpoints::default() })
}

async fn server_of(web: &Arc<Upstream>) -> TestServer {
    TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(web))]))]).await
}

/// Twelve connections of the slow client that send this, and then nothing. They have all places and all of the queue.
async fn fill(server: &TestServer, web: &Upstream, sent: &str) -> Vec<Client> {
    let mut held = Vec::new();
    for _ in 0..12 {
        let mut client = client_of(server, SLOW).await;
        client.send(sent).await;
        held.push(client);
    }
    let full = async {
        while web.overload_report().is_none_or(|report| (report.active, report.pending) != (4, 4)) {
            tokio::task::yield_now().await;
        }
    };
    with_timeout("all places to be taken", full).await;
    held
}

async fn status_for_another_client(server: &TestServer) -> u16 {
    let mut client = client_of(server, other()).await;
    client.send(GET).await;
    client.response().await.status
}

/// The client leaves a request unfinished for which the proxy waits after it was admitted: in the body that is kept for
/// another Service, or in a tunnel.
#[tokio::test]
async fn one_client_leaves_half_of_the_places_to_others() {
    let upload = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nx";
    for (sent, alternatives) in [(upload, alternatives(&["other"], &[500])), (HANDSHAKE, None)] {
        let endpoint = endpoint().await;
        let web = limited(&endpoint, four_places(), alternatives);
        let server = server_of(&web).await;
        let _held = fill(&server, &web, sent).await;
        for number in 0..12 {
            assert_eq!(status_for_another_client(&server).await, 200, "{number} after {sent}");
        }
    }
}

#[tokio::test]
async fn idle_connections_of_one_client_leave_half_of_the_places_to_others() {
    let endpoint = stream::echo_endpoint().await;
    let web = limited(&endpoint, four_places(), None);
    let server = stream::start(Options::default(), stream::to_upstream(&web)).await;
    let _held = fill(&server, &web, "").await;
    for _ in 0..12 {
        let mut client = client_of(&server, other()).await;
        client.send("hi").await;
        stream::expect_text(&mut client, "hi").await;
    }
}

/// WebSockets took the places of a limit that follows the time to the heads of responses.
#[tokio::test]
async fn websockets_do_not_count_in_the_adaptive_limit() {
    let endpoint = endpoint().await;
    let limits = RequestLimits { adaptive: Some(AdaptiveLimit { min: 1, max: 2 }), ..RequestLimits::default() };
    let web = limited(&endpoint, limits, None);
    let server = server_of(&web).await;
    let mut held = Vec::new();
    for number in 0..6 {
        let mut client = client_of(&server, SLOW).await;
        client.send(HANDSHAKE).await;
        assert_eq!(client.response().await.status, 101, "{number}");
        held.push(client);
        assert_eq!(status_for_another_client(&server).await, 200, "after {number}");
    }
    assert_eq!(web.overload_report().unwrap().active, 6);
}

/// The client got its response by a retry, and did not read it: nothing of others was sent again meanwhile.
#[tokio::test]
async fn unread_response_of_a_retry_keeps_no_place_of_retries() {
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some(request) = stream.request().await {
                let path = request.split(' ').nth(1).unwrap().to_owned();
                let length = if path == "/large" { 8 << 20 } else { 2 };
                let is_first = seen.lock().unwrap().insert(path);
                let (status, length) = if is_first { ("503 X", 0) } else { ("200 OK", length) };
                let body = "x".repeat(length);
                stream.send(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")).await;
            }
        }
    })
    .await;
    let limits = RequestLimits { max_retries: Some(1), ..RequestLimits::default() };
    let web = limited(&endpoint, limits, None);
    let action = with_timeouts_and_retries(forward(vec![(1, Arc::clone(&web))]), retries(1, &[503]));
    let server = TestServer::with_routes(vec![route(action)]).await;
    let mut unread = stream_of(&server, SLOW).await;
    unread.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    with_timeout("the head", unread.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    assert_eq!(status_for_another_client(&server).await, 200);
}
