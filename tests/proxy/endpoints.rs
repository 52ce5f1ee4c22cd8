//! Which endpoint a request goes to, over which connection, and how many times.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use portico::limits::ProxyLimits;
use portico::snapshot::rule::{Action, Backend, BackendTarget, Filters, RouteFailure, WeightedBackends};
use portico::snapshot::timeouts_and_retries::{TimeoutSetting, TimeoutsAndRetries};
use portico::upstream::{Outcome, OutcomeClass};

use crate::accounting::scrape;
use crate::harness::{
    Endpoint, LONGER_THAN_PAUSES, Options, Route, TestServer, forward, reserve_address, route, routes_to, upstream,
    with_timeout, with_timeouts_and_retries,
};
use crate::upstream_tls::is_healthy;

#[tokio::test]
async fn upstream_connections_are_reused() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    // Another client of the same worker shares the pool.
    assert_eq!(server.connect().await.get("/").await.text(), "ok");
    assert_eq!(endpoint.log.connections(), 1);
    assert_eq!(endpoint.log.requests().len(), 11);
}

#[tokio::test]
async fn pipelined_requests_get_responses_in_order() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let path = request.split(' ').nth(1).unwrap();
            stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len())).await;
        }
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    let requests: String = (0..50)
        .map(|n| {
            if n % 2 == 0 {
                format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n")
            } else {
                format!("POST /{n} HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nGET ")
            }
        })
        .collect();
    client.send(requests).await;
    for n in 0..50 {
        assert_eq!(client.response().await.text(), format!("/{n}"));
    }
}

#[tokio::test]
async fn backend_weights_are_exact() {
    let (a, b) = (Endpoint::ok().await, Endpoint::ok().await);
    let backend = |weight, target| Backend { weight, filters: Filters::default(), target };
    let split = WeightedBackends::new(vec![
        backend(7, BackendTarget::Upstream(upstream("a", &[a.address]))),
        backend(2, BackendTarget::Upstream(upstream("b", &[b.address]))),
        backend(1, BackendTarget::Fail(RouteFailure::InvalidBackend)),
    ]);
    let server = TestServer::with_routes(vec![route(Action::Forward(split.unwrap()))]).await;
    let mut client = server.connect().await;
    let mut statuses = BTreeMap::new();
    for _ in 0..100 {
        *statuses.entry(client.get("/").await.status).or_insert(0) += 1;
    }
    assert_eq!(statuses, [(200, 90), (500, 10)].into());
    assert_eq!((a.log.requests().len(), b.log.requests().len()), (70, 20));
}

#[tokio::test]
async fn endpoints_rotate_and_change_without_a_new_snapshot() {
    let endpoints = [Endpoint::ok().await, Endpoint::ok().await, Endpoint::ok().await];
    let upstream = upstream("web", &endpoints.each_ref().map(|endpoint| endpoint.address));
    let server = TestServer::with_routes(vec![route(forward(vec![(1, upstream.clone())]))]).await;
    let mut client = server.connect().await;
    for _ in 0..9 {
        client.get("/").await;
    }
    assert_eq!(endpoints.each_ref().map(|endpoint| endpoint.log.requests().len()), [3, 3, 3]);

    let remaining = portico::upstream::EndpointAddress::Ip(endpoints[1].address);
    upstream.set_endpoints(portico::upstream::Endpoints { addresses: vec![remaining], ..Default::default() });
    for _ in 0..3 {
        client.get("/").await;
    }
    assert_eq!(endpoints.each_ref().map(|endpoint| endpoint.log.requests().len()), [3, 6, 3]);
    upstream.set_endpoints(portico::upstream::Endpoints::default());
    assert_eq!(client.get("/").await.status, 503);
}

#[tokio::test]
async fn refusing_endpoint_is_skipped() {
    let endpoint = Endpoint::ok().await;
    let (refusing, _reserved) = reserve_address();
    let server =
        TestServer::with_routes(vec![route(forward(vec![(1, upstream("web", &[refusing, endpoint.address]))]))]).await;
    let mut client = server.connect().await;
    for _ in 0..4 {
        let request = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
        client.send(request).await;
        assert_eq!(client.response().await.text(), "ok");
    }
    assert!(endpoint.log.requests().iter().all(|request| request.ends_with("abc")));

    let server = TestServer::with_routes(routes_to(refusing)).await;
    let response = server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(response.status, 503);
    assert!(response.text().contains("The upstream server is currently unavailable"));
}

#[tokio::test]
async fn stale_connection_is_retried_when_safe() {
    // The endpoint closes its first connection at the second request, without a response.
    for (request, attempts, status) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", 3, 200),
        ("DELETE / HTTP/1.1\r\nhost: a\r\n\r\n", 3, 200),
        ("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", 3, 200),
        // The endpoint may have processed these requests, so they are not retried.
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", 2, 502),
        ("PATCH / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", 2, 502),
    ] {
        let endpoint = Endpoint::scripted(|mut stream, number| async move {
            stream.request().await;
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            stream.request().await;
            if number > 0 {
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        })
        .await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.status, 200);
        client.send(request).await;
        assert_eq!(client.response().await.status, status, "{request}");
        assert_eq!(endpoint.log.requests().len(), attempts, "{request}");
    }
}

#[tokio::test]
async fn new_connection_without_response_is_not_retried() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let response = server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(response.status, 502);
    assert!(response.text().contains("An invalid response was received from the upstream server"));
    assert_eq!(endpoint.log.requests().len(), 1);
}

#[tokio::test]
async fn client_disconnect_cancels_the_upstream_request() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        // Never responds; ends when the proxy closes.
        stream.read_to_end().await;
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    endpoint.log.wait_for("the request", |log| log.requests().len() == 1).await;
    drop(client);
    endpoint
        .log
        .wait_for("the end of the connection", |log| log.ended.load(std::sync::atomic::Ordering::SeqCst) == 1)
        .await;
}

/// An address that accepts no connections: its listen queue is full, so the kernel leaves new connections pending. The
/// caller keeps the queued connections and the listening socket.
pub(crate) async fn unresponsive_address() -> (std::net::SocketAddr, Vec<tokio::net::TcpStream>, socket2::Socket) {
    let (address, listener) = reserve_address();
    listener.listen(0).unwrap();
    let mut queue = Vec::new();
    let limit = Duration::from_millis(200);
    while let Ok(stream) = tokio::time::timeout(limit, tokio::net::TcpStream::connect(address)).await {
        queue.push(stream.unwrap());
    }
    (address, queue, listener)
}

#[tokio::test]
async fn connect_timeout_tries_another_endpoint() {
    let endpoint = Endpoint::ok().await;
    let (unresponsive, _queue, _listener) = unresponsive_address().await;
    let limits = ProxyLimits { connect_timeout: Duration::from_millis(100), ..ProxyLimits::default() };
    let both = forward(vec![(1, upstream("web", &[unresponsive, endpoint.address]))]);
    let routes = vec![
        route(both),
        Route { path: "/unresponsive", ..route(forward(vec![(1, upstream("unresponsive", &[unresponsive]))])) },
    ];
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    assert_eq!(client.get("/unresponsive").await.status, 504);

    // The response timeout includes the time to connect.
    let limits = ProxyLimits { response_timeout: Duration::from_millis(100), ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes_to(unresponsive)).await;
    assert_eq!(server.connect().await.get("/").await.status, 504);
}

#[tokio::test]
async fn timeout_of_one_rule_ejects_no_endpoint() {
    let endpoint = Endpoint::ok().await;
    let (unresponsive, _queue, _listener) = unresponsive_address().await;
    // The other endpoint responds within this time.
    let timeout = TimeoutSetting::After(LONGER_THAN_PAUSES);
    let check = async |policy: TimeoutsAndRetries, expected: u16| {
        let web = upstream("web", &[unresponsive, endpoint.address]);
        let server =
            TestServer::with_routes(vec![route(with_timeouts_and_retries(forward(vec![(1, web.clone())]), policy))])
                .await;
        let mut client = server.connect().await;
        // Round robin: one of the two requests goes to the unresponsive endpoint.
        let statuses = [client.get("/").await.status, client.get("/").await.status];
        assert!(statuses.contains(&expected) && statuses.contains(&200), "{statuses:?}");
        assert_eq!(web.endpoint_counts().ejected, 0);
    };
    tokio::join!(
        // Nothing was sent, so the other endpoint may be tried.
        check(TimeoutsAndRetries { backend_request: timeout, ..TimeoutsAndRetries::default() }, 200),
        check(TimeoutsAndRetries { request: timeout, ..TimeoutsAndRetries::default() }, 504),
    );
}

#[tokio::test]
async fn hostname_endpoint_serves_once_it_is_resolved() {
    let endpoint = Endpoint::ok().await;
    let upstream = upstream("web", &[]);
    let name = portico::upstream::EndpointAddress::Name { host: "db.example".into(), port: endpoint.address.port() };
    upstream.set_endpoints(portico::upstream::Endpoints { addresses: vec![name], ..Default::default() });
    let server = TestServer::with_routes(vec![route(forward(vec![(1, upstream.clone())]))]).await;
    let mut client = server.connect().await;
    assert_eq!(client.get("/").await.status, 503);
    upstream.set_resolved("db.example", vec![endpoint.address.ip()]);
    assert_eq!(client.get("/").await.text(), "ok");
}

#[tokio::test]
async fn ssrf_guard_blocks_resolved_addresses() {
    use portico::endpoint_tls::TrustAnchors;
    use portico::ssrf_guard::{AddressPolicy, AddressSources, LoopbackPolicy, TrustModel};
    use portico::upstream::{EndpointAddress, Endpoints, UpstreamRegistry};

    let denied = || std::sync::Arc::from(["127.0.0.0/8".parse().unwrap()]);
    for (loopback, denied, expected) in [
        (LoopbackPolicy::Allowed, std::sync::Arc::default(), 200),
        (LoopbackPolicy::Blocked, std::sync::Arc::default(), 503),
        (LoopbackPolicy::Allowed, denied(), 503),
    ] {
        let addresses = AddressPolicy { loopback, denied };
        let endpoint = Endpoint::ok().await;
        let key = upstream("web", &[]).key.clone();
        let upstream = UpstreamRegistry::new(
            TrustAnchors::default(),
            TrustModel::MultiTenant { addresses, sources: AddressSources::ALL },
        )
        .upstream(&key);
        let name = EndpointAddress::Name { host: "db.example".into(), port: endpoint.address.port() };
        upstream.set_endpoints(Endpoints { addresses: vec![name], ..Endpoints::default() });
        let server = TestServer::with_routes(vec![route(forward(vec![(1, upstream.clone())]))]).await;
        let mut client = server.connect().await;
        upstream.set_resolved("db.example", vec![endpoint.address.ip()]);
        assert_eq!(client.get("/").await.status, expected, "{loopback:?}");
        upstream.set_resolved("db.example", vec!["169.254.169.254".parse().unwrap(), "fd20:ce::254".parse().unwrap()]);
        assert_eq!(client.get("/").await.status, 503, "a blocked address was connected to");
    }
}

#[tokio::test]
async fn upstream_connections_are_limited() {
    let release = std::sync::Arc::new(tokio::sync::Notify::new());
    let released = std::sync::Arc::clone(&release);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let released = std::sync::Arc::clone(&released);
        async move {
            while stream.request().await.is_some() {
                released.notified().await;
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    // A request waits for a connection for as long as connecting may take.
    let connect_timeout = Duration::from_millis(100);
    let limits = ProxyLimits { max_upstream_connections: 4, connect_timeout, ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await;
    // An upstream that is the only one may have half of the connections.
    let mut busy = [server.connect().await, server.connect().await];
    for client in &mut busy {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    }
    endpoint.log.wait_for("two requests", |log| log.requests().len() == 2).await;
    let response = server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(response.status, 503);
    assert!(response.text().contains("Too many requests at a time"), "{}", response.text());
    assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"connection_limit\"}"], 1.0);
    // The endpoint is not ejected, and a waiting request gets the connection of a finished one.
    release.notify_one();
    release.notify_one();
    for client in &mut busy {
        assert_eq!(client.response().await.text(), "ok");
    }
    release.notify_one();
    assert_eq!(server.connect().await.get("/").await.text(), "ok");
    assert_eq!(endpoint.log.requests().len(), 3);
}

#[tokio::test]
async fn idle_connections_are_closed_to_make_room() {
    let (first, second, third) = (Endpoint::ok().await, Endpoint::ok().await, Endpoint::ok().await);
    let route_to = |path, name, endpoint: &Endpoint| Route {
        path,
        ..route(forward(vec![(1, upstream(name, &[endpoint.address]))]))
    };
    let routes = vec![
        route_to("/first", "first", &first),
        route_to("/second", "second", &second),
        route_to("/third", "third", &third),
    ];
    let limits = ProxyLimits { max_upstream_connections: 2, ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    let mut client = server.connect().await;
    let requests = async {
        for round in 0..50 {
            for path in ["/first", "/second", "/third"] {
                assert_eq!(client.get(path).await.text(), "ok", "round {round}: {path}");
            }
        }
    };
    // Meanwhile, the worker is occupied with other commands.
    let commands = async {
        loop {
            server.proxy.reconcile().await;
        }
    };
    tokio::select! {
        () = requests => {}
        () = commands => {}
    }
}

#[tokio::test]
async fn idle_connections_are_not_used_after_a_failed_connection() {
    let dead = Endpoint::scripted(|mut stream, connection| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        // The node dies without closing the first connection, and another one gets its address.
        while connection > 0 && stream.request().await.is_some() {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
        stream.read_to_end().await;
    })
    .await;
    let upstream = upstream("web", &[dead.address]);
    let server = TestServer::with_routes(vec![route(forward(vec![(1, upstream.clone())]))]).await;
    assert_eq!(server.connect().await.get("/").await.text(), "ok");
    upstream.report(dead.address, &Outcome::of(OutcomeClass::ConnectFailed));
    for _ in 0..2 {
        assert_eq!(server.connect().await.get("/").await.text(), "ok");
    }
    assert_eq!(dead.log.connections(), 2);
    assert!(is_healthy(&upstream, dead.address), "a connection was opened");
}

#[tokio::test]
async fn reused_connection_alone_does_not_prove_health() {
    let failed = std::sync::Arc::new(tokio::sync::Notify::new());
    let has_failed = std::sync::Arc::clone(&failed);
    let dying = Endpoint::scripted(move |mut stream, _| {
        let has_failed = std::sync::Arc::clone(&has_failed);
        async move {
            stream.request().await;
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no").await;
            has_failed.notified().await;
            stream.send("k").await;
            // The node dies without closing the connection.
            stream.read_to_end().await;
        }
    })
    .await;
    let limits = ProxyLimits { response_timeout: LONGER_THAN_PAUSES, ..ProxyLimits::default() };
    let upstream = upstream("web", &[dying.address]);
    let routes = vec![route(forward(vec![(1, upstream.clone())]))];
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\no") {
        let read = tokio::io::AsyncReadExt::read_buf(&mut client.socket, &mut response);
        assert_ne!(with_timeout("the first half of the response", read).await.unwrap(), 0);
    }
    // The connection becomes idle after the failure of another one, so that it is used again.
    upstream.report(dying.address, &Outcome::of(OutcomeClass::ConnectFailed));
    failed.notify_one();
    let mut rest = [0];
    let read = tokio::io::AsyncReadExt::read_exact(&mut client.socket, &mut rest);
    with_timeout("the rest of the response", read).await.unwrap();
    assert_eq!(server.connect().await.get("/").await.status, 504);
    assert_eq!(dying.log.connections(), 1);
    // Without a success, it is unhealthy for longer than it is ejected.
    assert!(!is_healthy(&upstream, dying.address));
}

/// Requests that must not be sent twice need recently used connections. The others do not pile up.
#[tokio::test]
async fn rare_posts_leave_few_connections() {
    let endpoint = Endpoint::ok().await;
    let age = Duration::from_millis(20);
    let limits = ProxyLimits { max_idle_for_unrepeatable: age, ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    for _ in 0..8 {
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx").await;
        assert_eq!(client.response().await.status, 200);
        tokio::time::sleep(age * 2).await; // Longer than a connection for this method may be idle.
    }
    assert_eq!(endpoint.log.connections(), 8);
    endpoint.log.wait_for("the end of surplus connections", |log| log.ended.load(SeqCst) >= 5).await;
    // A request that may be sent again uses an old one.
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(endpoint.log.connections(), 8);
}

/// An endpoint closes its idle connections after the time that it announces, so a request just before it could arrive
/// too late. A POST is not sent again.
#[tokio::test]
async fn idle_connections_close_before_the_endpoint_closes_them() {
    for (fields, kept) in [
        ("connection: keep-alive\r\nkeep-alive: timeout=0\r\n", false),
        ("connection: Keep-Alive\r\nkeep-alive: max=9, Timeout = 0\r\n", false),
        ("connection: keep-alive\r\nkeep-alive: timeout=100, max=9\r\n", true),
        // These have no meaning.
        ("connection: keep-alive\r\nkeep-alive: timeout=-1\r\n", true),
        ("keep-alive: timeout=0\r\n", true),
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\nok");
        let endpoint = Endpoint::responding_with(response).await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let mut client = server.connect().await;
        for _ in 0..3 {
            let response = client.get("/").await;
            assert_eq!((response.text().as_str(), response.header("keep-alive")), ("ok", None));
        }
        assert_eq!(endpoint.log.connections(), if kept { 1 } else { 3 }, "{fields:?}");
    }
}

/// A second before the end of the time that the endpoint announces, or half of the time if that is less.
#[tokio::test]
async fn idle_connection_closes_within_the_time_of_the_endpoint() {
    let response = "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nkeep-alive: timeout=1\r\ncontent-length: 2\r\n\r\nok";
    let endpoint = Endpoint::scripted(move |mut stream, _| async move {
        while stream.request().await.is_some() {
            stream.send(response).await;
        }
        stream.record("closed");
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    assert_eq!(server.connect().await.get("/").await.text(), "ok");
    // Without it, the connection closes after 60 s.
    endpoint.log.wait_for("the end of the connection", |log| log.requests().contains(&"closed".to_owned())).await;
}
