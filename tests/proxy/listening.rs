//! Binding and unbinding of listeners, draining, and snapshot changes during requests.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portico::bind_address::BindAddress;
use portico::limits::ProxyLimits;
use portico::proxy::BindState;
use portico::snapshot::Snapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::h2::Http2Client;
use crate::harness::{Client, Endpoint, Options, TestServer, reserve_address, routes_to, snapshot, with_timeout};
use crate::polling::until;

/// An endpoint that sends half of its response, and the rest when notified.
async fn pausing_endpoint() -> (Endpoint, Arc<Notify>) {
    let resume = Arc::new(Notify::new());
    let endpoint_resume = Arc::clone(&resume);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let resume = Arc::clone(&endpoint_resume);
        async move {
            while stream.request().await.is_some() {
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await;
                resume.notified().await;
                stream.send("half").await;
            }
        }
    })
    .await;
    (endpoint, resume)
}

async fn send_get(client: &mut Client) {
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
}

#[tokio::test]
async fn download_continues_across_snapshot_changes() {
    let (endpoint, resume) = pausing_endpoint().await;
    let other = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    send_get(&mut client).await;
    endpoint.log.wait_for("the request", |log| log.requests().len() == 1).await;
    for _ in 0..3 {
        server.replace_routes(routes_to(other.address));
        assert_eq!(server.proxy.reconcile().await, [(BindAddress::tcp(server.address), BindState::Bound)].into());
        assert_eq!(server.connect().await.get("/").await.text(), "ok");
    }
    resume.notify_one();
    assert_eq!(client.response().await.text(), "halfhalf");
    // The next request on the same connection uses the new snapshot.
    assert_eq!(client.get("/").await.text(), "ok");
}

#[tokio::test]
async fn snapshot_swaps_under_load_fail_no_request() {
    let endpoint = Endpoint::ok().await;
    let server =
        TestServer::with_options(Options { workers: 2, ..Options::default() }, routes_to(endpoint.address)).await;
    let clients = async {
        for _ in 0..20 {
            let mut client = server.connect().await;
            for _ in 0..20 {
                assert_eq!(client.get("/").await.text(), "ok");
            }
        }
    };
    let swaps = async {
        loop {
            server.replace_routes(routes_to(endpoint.address));
            server.proxy.reconcile().await;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = clients => {}
        () = swaps => {}
    }
}

#[tokio::test]
async fn removed_listener_serves_its_last_snapshot_until_closed() {
    let (first, last) =
        (Endpoint::ok().await, Endpoint::responding_with("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlast").await);
    let server = TestServer::with_options(Options { workers: 2, ..Options::default() }, routes_to(first.address)).await;
    // No worker has served a request with this snapshot.
    server.replace_routes(routes_to(last.address));
    server.proxy.reconcile().await;
    server.snapshot.store(Arc::new(Snapshot::default()));
    for _ in 0..16 {
        assert_eq!(server.connect().await.get("/").await.text(), "last");
    }
}

#[tokio::test]
async fn removed_listener_finishes_its_requests() {
    let (endpoint, resume) = pausing_endpoint().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let (mut busy, mut idle) = (server.connect().await, server.connect().await);
    send_get(&mut idle).await;
    endpoint.log.wait_for("the first request", |log| log.requests().len() == 1).await;
    resume.notify_one();
    idle.response().await;
    send_get(&mut busy).await;
    endpoint.log.wait_for("the second request", |log| log.requests().len() == 2).await;

    server.snapshot.store(Arc::new(Snapshot::default()));
    assert_eq!(server.proxy.reconcile().await, [].into());
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is still open");
    assert_eq!(idle.read_to_end().await.unwrap(), b"");
    resume.notify_one();
    assert_eq!(busy.response().await.text(), "halfhalf");
    assert_eq!(busy.read_to_end().await.unwrap(), b"");

    // The address can be bound again at once.
    server.replace_routes(routes_to(endpoint.address));
    assert_eq!(server.proxy.reconcile().await, [(BindAddress::tcp(server.address), BindState::Bound)].into());
    resume.notify_one();
    assert_eq!(server.connect().await.get("/").await.text(), "halfhalf");
}

/// While the process leaves, responses ask clients to close, and new connections are still served.
#[tokio::test]
async fn leaving_process_asks_clients_to_close() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let (mut used, mut new) = (server.connect().await, server.connect().await);
    assert_eq!(used.get("/").await.header("connection"), None);
    server.proxy.announce_close().await;
    for client in [&mut used, &mut new, &mut server.connect().await] {
        let response = client.get("/").await;
        assert_eq!((response.text().as_str(), response.header("connection")), ("ok", Some("close")));
        assert_eq!(client.read_to_end().await.unwrap(), b"");
    }
    // HTTP/2 has no such field, and its connections end with GOAWAY when the process drains.
    let client = Http2Client::connect(server.address).await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.status, 200);
    }
    // An idle connection stays until the process drains, because its next request may be on the way.
    let mut idle = server.connect().await;
    until("the connection is accepted", async || server.proxy.stats().accepted() >= 5).await;
    assert_eq!(idle.get("/").await.text(), "ok");
    // A listener that is opened meanwhile asks, too.
    server.snapshot.store(Arc::new(Snapshot::default()));
    server.proxy.reconcile().await;
    server.replace_routes(routes_to(endpoint.address));
    server.proxy.reconcile().await;
    assert_eq!(server.connect().await.get("/").await.header("connection"), Some("close"));
}

/// A connection that was accepted but has sent no request is served if it does so within a second, with
/// `Connection: close`.
#[tokio::test]
async fn removed_listener_serves_first_requests() {
    for _ in 0..20 {
        let endpoint = Endpoint::ok().await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let mut client = server.connect().await;
        until("the connection is accepted", async || server.proxy.stats().accepted() >= 1).await;
        let begin = Instant::now();
        server.snapshot.store(Arc::new(Snapshot::default()));
        server.proxy.reconcile().await;
        // Fails if the connection is already closed.
        drop(client.socket.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await);
        let response = client.try_response().await;
        if response.is_none() && begin.elapsed() >= Duration::from_secs(1) {
            // The machine paused, so the request was too late.
            continue;
        }
        let response = response.expect("the request is served");
        assert_eq!((response.text().as_str(), response.header("connection")), ("ok", Some("close")));
        return;
    }
    panic!("the request was too late in every attempt");
}

#[tokio::test]
async fn removed_listener_closes_connections_after_its_timeout() {
    let (endpoint, _resume) = pausing_endpoint().await;
    let limits = ProxyLimits { listener_grace_period: Duration::from_millis(100), ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await;
    let mut busy = server.connect().await;
    send_get(&mut busy).await;
    endpoint.log.wait_for("the request", |log| log.requests().len() == 1).await;
    server.snapshot.store(Arc::new(Snapshot::default()));
    server.proxy.reconcile().await;
    assert_eq!(busy.try_response().await, None);
}

#[tokio::test]
async fn occupied_port_is_reported_and_bound_once_free() {
    let endpoint = Endpoint::ok().await;
    let (address, reserved) = reserve_address();
    // Stands for another process that listens on the port and would share it.
    reserved.set_reuse_port(true).unwrap();
    let other_listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    other_listener.set_reuse_port(true).unwrap();
    other_listener.set_reuse_address(true).unwrap();
    other_listener.bind(&address.into()).unwrap();
    other_listener.listen(1).unwrap();
    let server =
        TestServer::start(Options::default(), address, reserved, snapshot(address, routes_to(endpoint.address)));
    for _ in 0..2 {
        assert_eq!(server.proxy.reconcile().await, [(BindAddress::tcp(address), BindState::InUse)].into());
    }
    drop(other_listener);
    assert_eq!(server.proxy.reconcile().await, [(BindAddress::tcp(address), BindState::Bound)].into());
    assert_eq!(server.connect().await.get("/").await.text(), "ok");
}

#[tokio::test]
async fn failed_bind_does_not_affect_other_addresses() {
    let endpoint = Endpoint::ok().await;
    let (address, reserved) = reserve_address();
    let not_local = "192.0.2.1:8080".parse().unwrap();
    let mut two_binds = snapshot(address, routes_to(endpoint.address));
    let other_bind = snapshot(not_local, vec![]).binds[&BindAddress::tcp(not_local)].clone();
    two_binds.binds.set(BindAddress::tcp(not_local), Some(other_bind));
    let server = TestServer::start(Options::default(), address, reserved, two_binds);
    let binds = server.proxy.reconcile().await;
    assert_eq!(binds[&BindAddress::tcp(address)], BindState::Bound);
    assert_eq!(binds[&BindAddress::tcp(not_local)], BindState::NotLocal);
    assert_eq!(server.connect().await.get("/").await.text(), "ok");
}

#[tokio::test]
async fn refresh_is_enough_while_all_addresses_are_bound() {
    let endpoint = Endpoint::ok().await;
    let (address, reserved) = reserve_address();
    let server =
        TestServer::start(Options::default(), address, reserved, snapshot(address, routes_to(endpoint.address)));
    assert!(!server.proxy.refresh().await, "nothing is bound yet");
    server.proxy.reconcile().await;
    let with = |other: SocketAddr| {
        let mut binds = server.snapshot.load().binds.clone();
        binds.set(BindAddress::tcp(address), snapshot(address, vec![]).binds.get(&BindAddress::tcp(address)).cloned());
        binds.set(BindAddress::tcp(other), snapshot(other, vec![]).binds.get(&BindAddress::tcp(other)).cloned());
        server.snapshot.store(Arc::new(Snapshot { binds, ..Snapshot::default() }));
    };
    with(address);
    assert!(server.proxy.refresh().await, "only the routes changed");
    assert_eq!(server.connect().await.get("/").await.status, 404);
    with("192.0.2.1:8080".parse().unwrap());
    for _ in 0..2 {
        assert!(!server.proxy.refresh().await, "an address is not bound");
        server.proxy.reconcile().await;
    }
}

#[tokio::test]
async fn draining_finishes_requests_or_cuts_them_at_the_deadline() {
    for finishes in [true, false] {
        let (endpoint, resume) = pausing_endpoint().await;
        let server =
            TestServer::with_options(Options { workers: 2, ..Options::default() }, routes_to(endpoint.address)).await;
        let mut busy = server.connect().await;
        send_get(&mut busy).await;
        endpoint.log.wait_for("the request", |log| log.requests().len() == 1).await;
        let timeout = if finishes { Duration::from_secs(20) } else { Duration::from_millis(100) };
        let (cut_connections, response) = tokio::join!(server.proxy.drain(timeout), async {
            // Whether the first half arrives before draining begins does not matter.
            if finishes {
                resume.notify_one();
            }
            busy.try_response().await
        });
        if finishes {
            assert_eq!((cut_connections, response.map(|response| response.text())), (0, Some("halfhalf".to_owned())));
        } else {
            assert_eq!((cut_connections, response), (1, None));
        }
        assert!(TcpStream::connect(server.address).await.is_err(), "the port is still open");
        assert_eq!(server.proxy.reconcile().await, [].into(), "an address is still bound");
        assert_eq!(server.proxy.stats().connections(), 0);
    }
}

#[tokio::test]
async fn draining_serves_queued_requests() {
    let endpoint = Endpoint::ok().await;
    let server =
        TestServer::with_options(Options { workers: 2, ..Options::default() }, routes_to(endpoint.address)).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = server.connect().await;
        send_get(&mut client).await;
        clients.push(client);
    }
    assert_eq!(server.proxy.drain(Duration::from_secs(20)).await, 0);
    for mut client in clients {
        assert_eq!(client.response().await.text(), "ok");
        assert_eq!(client.read_to_end().await.unwrap(), b"");
    }
}

#[tokio::test]
async fn dropping_the_proxy_closes_all_connections() {
    let (endpoint, _resume) = pausing_endpoint().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let (mut busy, mut idle) = (server.connect().await, server.connect().await);
    send_get(&mut busy).await;
    endpoint.log.wait_for("the request", |log| log.requests().len() == 1).await;
    let TestServer { proxy, address, .. } = server;
    drop(proxy);
    assert_eq!(busy.try_response().await, None);
    assert!(idle.read_to_end().await.unwrap_or_default().is_empty());
    // The worker threads end one after the other.
    with_timeout("the port to be closed", async { while TcpStream::connect(address).await.is_ok() {} }).await;
}

/// The kernel would assign them at random: two to each of two workers in three of eight cases.
#[tokio::test]
async fn a_few_connections_are_spread_over_the_workers() {
    let endpoint = Endpoint::ok().await;
    for (workers, connections, expected) in [(2, 4, vec![2, 2]), (3, 3, vec![1, 1, 1])] {
        for _ in 0..8 {
            let options = Options { workers, ..Options::default() };
            let server = TestServer::with_options(options, routes_to(endpoint.address)).await;
            let mut clients = Vec::new();
            for _ in 0..connections {
                let mut client = server.connect().await;
                assert_eq!(client.get("/").await.status, 200);
                clients.push(client);
            }
            assert_eq!(server.proxy.connections_by_worker(), expected);
        }
    }
}

/// HTTP/1.0 has no chunks, so a client takes the orderly end of a connection for the end of a body without a length.
#[tokio::test]
async fn a_response_that_the_drain_cuts_off_is_not_taken_for_complete() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
        stream.read_to_end().await;
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
    let mut received = Vec::new();
    while !received.ends_with(b"half") {
        assert_ne!(client.socket.read_buf(&mut received).await.unwrap(), 0, "the response ends too early");
    }
    assert_eq!(server.proxy.drain(Duration::ZERO).await, 1);
    assert_eq!(client.read_to_end().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
