//! Clients and Services that use up connections: others are served nevertheless.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portico::endpoint_tls::UpstreamProtocol;
use portico::limits::ProxyLimits;
use portico::upstream::{EndpointAddress, Endpoints, Upstream, UpstreamKey};
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::accounting::scrape;
use crate::h2::{Http2Client, get_request};
use crate::h2_upstream;
use crate::harness::{
    Client, Endpoint, Options, Route, TestServer, forward, h2c_routes_to, route, routes_to, upstream_with_protocol,
    with_timeout,
};
use crate::metrics::wait_for_metrics;
use crate::polling::until;
use crate::tls_harness::{TestTlsConnector, TlsListener, certificate, start_tls_server};

async fn server(limits: ProxyLimits, endpoint: &Endpoint) -> TestServer {
    TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await
}

/// Whether a client is still connected after some time.
async fn stays_open(client: &mut Client, time: Duration) -> bool {
    timeout(time, client.socket.read(&mut [0; 64])).await.is_err()
}

/// Longer than a connection must be idle to be evicted.
const EVICTION: Duration = Duration::from_millis(600);

#[tokio::test]
async fn busy_connections_are_not_evicted() {
    let endpoint = Endpoint::scripted(|mut stream, number| async move {
        stream.request().await;
        if number == 0 {
            // Until the client disconnects.
            stream.read_to_end().await;
        }
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    let server = server(ProxyLimits { max_connections: 1, ..ProxyLimits::default() }, &endpoint).await;
    let mut busy = server.connect().await;
    busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    endpoint.log.wait_for("the first request", |log| log.requests().len() == 1).await;
    let mut waiting = server.connect().await;
    waiting.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(stays_open(&mut busy, EVICTION).await);
    assert_eq!(endpoint.log.requests().len(), 1, "the second connection is beyond the limit");
    drop(busy);
    assert_eq!(waiting.response().await.status, 200);
    let metrics = scrape(&server);
    assert_eq!(metrics["portico_connections_delayed_total"], 1.0);
    assert_eq!(metrics["portico_connections_evicted_total"], 0.0);
}

#[tokio::test]
async fn idle_connections_give_way_to_new_ones() {
    let endpoint = Endpoint::ok().await;
    let server = server(ProxyLimits { max_connections: 3, ..ProxyLimits::default() }, &endpoint).await;
    let mut kept = server.connect().await;
    assert_eq!(kept.get("/").await.status, 200);
    let mut unused = server.connect().await;
    let http2 = Http2Client::connect(server.address).await;
    assert_eq!(http2.get("/").await.status, 200);
    until_all_may_give_way().await;
    // The unused one first.
    let mut new = server.connect().await;
    assert_eq!(new.get("/").await.status, 200);
    assert_eq!(unused.read_to_end().await.unwrap_or_default(), b"");
    assert_eq!(kept.get("/").await.status, 200);
    assert_eq!(new.get("/").await.status, 200);
    // Then the one that is idle for the longest time.
    let mut next = server.connect().await;
    assert_eq!(next.get("/").await.status, 200);
    with_timeout("the end of the HTTP/2 connection", http2.wait_for_end()).await.ok();
    assert_eq!(kept.get("/").await.status, 200);
    assert_eq!(scrape(&server)["portico_connections_evicted_total"], 2.0);
}

/// Such a client looked idle, because the record of its request ends when the last part of the response is queued. It
/// was selected again and again, and no connection gave way.
#[tokio::test]
async fn clients_that_do_not_read_are_not_selected_in_place_of_idle_ones() {
    let body = "x".repeat(32 * 1024);
    let endpoint = Endpoint::responding_with(format!("HTTP/1.1 200 OK\r\ncontent-length: 32768\r\n\r\n{body}")).await;
    let server = server(ProxyLimits { max_connections: 2, ..ProxyLimits::default() }, &endpoint).await;
    let mut stuck = server.connect().await;
    // More responses than the buffers of the sockets hold.
    stuck.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000)).await;
    let mut last = (0, Instant::now());
    until("a response that does not fit into the socket", || {
        let requests = endpoint.log.requests().len();
        if requests != last.0 {
            last = (requests, Instant::now());
        }
        std::future::ready(requests > 0 && last.1.elapsed() >= EVICTION)
    })
    .await;
    assert!(last.0 < 1000, "all responses fit into the socket");
    let mut idle = server.connect().await;
    assert_eq!(idle.get("/").await.status, 200);
    until_all_may_give_way().await;
    let mut new = server.connect().await;
    assert_eq!(new.get("/").await.status, 200);
    assert_eq!(idle.read_to_end().await.unwrap_or_default(), b"");
    assert_eq!(scrape(&server)["portico_connections_evicted_total"], 1.0);
    assert_eq!(stuck.response().await.body.len(), body.len());
}

/// The response ends the record of the request, but not the request.
#[tokio::test]
async fn clients_that_do_not_send_the_rest_of_a_body_are_not_selected_in_place_of_idle_ones() {
    let endpoint = Endpoint::scripted(|mut stream, number| async move {
        const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        if number == 0 {
            stream.head().await;
            stream.send(OK).await;
            // The rest of the body, until the connection ends.
            stream.read_to_end().await;
        }
        while stream.request().await.is_some() {
            stream.send(OK).await;
        }
    })
    .await;
    let server = server(ProxyLimits { max_connections: 2, ..ProxyLimits::default() }, &endpoint).await;
    let mut uploading = server.connect().await;
    uploading.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\npart").await;
    assert_eq!(uploading.response().await.status, 200);
    let mut idle = server.connect().await;
    assert_eq!(idle.get("/").await.status, 200);
    until_all_may_give_way().await;
    let mut new = server.connect().await;
    assert_eq!(new.get("/").await.status, 200);
    assert_eq!(idle.read_to_end().await.unwrap_or_default(), b"");
    assert_eq!(scrape(&server)["portico_connections_evicted_total"], 1.0);
}

/// Waits until all idle connections may give way to a new one. Before that, an earlier one would give way in place of
/// the unused one if the process was paused between the two.
pub(crate) async fn until_all_may_give_way() {
    tokio::time::sleep(Duration::from_millis(500)).await; // They give way after 250 ms, without a signal.
}

/// The kernel distributes connections to workers, and a worker without idle connections needs those of others.
#[tokio::test]
async fn clients_that_send_nothing_do_not_block_listeners() {
    let endpoint = Endpoint::ok().await;
    let limits = ProxyLimits { max_connections: 30, ..ProxyLimits::default() };
    let options = Options { limits, workers: 4, ..Options::default() };
    let server = TestServer::with_options(options, routes_to(endpoint.address)).await;
    let mut unused = Vec::new();
    for _ in 0..40 {
        unused.push(server.connect().await);
    }
    let began = Instant::now();
    for _ in 0..10 {
        let response = server.request("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert_eq!(response.status, 200);
    }
    assert!(began.elapsed() < ProxyLimits::default().client_idle_timeout / 5);
    drop(unused);
}

#[tokio::test]
async fn connections_without_handshake_give_way() {
    let endpoint = Endpoint::ok().await;
    let limits = ProxyLimits { max_connections: 2, ..ProxyLimits::default() };
    let options = Options { limits, ..Options::default() };
    let certificates = vec![certificate(&["a.example"])];
    let listener = TlsListener { hostname: "", certificates, routes: routes_to(endpoint.address) };
    let server = start_tls_server(options, vec![listener]).await;
    let _unused = (server.connect().await, server.connect().await);
    let began = Instant::now();
    let mut client = TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
    assert_eq!(client.get("/").await.status, 200);
    assert!(began.elapsed() < ProxyLimits::default().handshake_timeout / 2);
}

/// The kernel chooses the worker of a connection, so each worker must be able to accept one.
#[tokio::test]
async fn connection_limit_below_worker_count_blocks_no_worker() {
    let endpoint = Endpoint::ok().await;
    let limits = ProxyLimits { max_connections: 1, ..ProxyLimits::default() };
    let server =
        TestServer::with_options(Options { limits, workers: 4, ..Options::default() }, routes_to(endpoint.address))
            .await;
    for _ in 0..20 {
        let response = server.request("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert_eq!(response.status, 200);
    }
}

/// A route for each host to a Service of the same name.
fn services(hosts: &[&'static str], protocol: UpstreamProtocol, endpoint: SocketAddr) -> Vec<Route> {
    let service = |host: &&'static str| {
        let upstream = upstream_with_protocol(protocol, host, &[endpoint]);
        Route { host, ..route(forward(vec![(1, upstream)])) }
    };
    hosts.iter().map(service).collect()
}

/// A route for this host to a Service of the same name.
fn service_in(namespace: &str, host: &'static str, endpoint: SocketAddr) -> Route {
    let key = UpstreamKey { namespace: namespace.into(), service: host.into(), port: 80, ..UpstreamKey::default() };
    let upstream = Upstream::new(key);
    upstream.set_endpoints(Endpoints { addresses: vec![EndpointAddress::Ip(endpoint)], ..Endpoints::default() });
    Route { host, ..route(forward(vec![(1, Arc::new(upstream))])) }
}

/// A client whose address ends with this number.
async fn client_with_address(server: &TestServer, number: u8) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 1, number], 0))).unwrap();
    Client::from_stream(socket.connect(server.address).await.unwrap())
}

fn get_from(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_hanging_service_leaves_connections_for_others() {
    let hanging = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.read_to_end().await;
    })
    .await;
    let healthy = Endpoint::ok().await;
    let mut routes = services(&["hanging.example"], UpstreamProtocol::Http1, hanging.address);
    routes.extend(services(&["healthy.example"], UpstreamProtocol::Http1, healthy.address));
    let limits = ProxyLimits {
        max_upstream_connections: 20,
        connect_timeout: Duration::from_millis(300),
        ..ProxyLimits::default()
    };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    let mut clients = Vec::new();
    for number in 0..30 {
        let mut client = client_with_address(&server, number + 1).await;
        client.send(get_from("hanging.example")).await;
        clients.push(client);
    }
    // Half of the connections, and no more.
    for client in &mut clients[10..] {
        let response = client.response().await;
        assert_eq!(response.status, 503);
        assert!(response.text().contains("Too many requests at a time"), "{response:?}");
    }
    hanging.log.wait_for("ten connections", |log| log.connections() >= 10).await;
    assert_eq!(hanging.log.connections(), 10);
    for _ in 0..10 {
        assert_eq!(server.request(&get_from("healthy.example")).await.status, 200);
    }
    let metrics = scrape(&server);
    assert_eq!(metrics["portico_upstream_connects_total{outcome=\"share\"}"], 20.0);
    assert_eq!(metrics["portico_upstream_connects_total{outcome=\"limit\"}"], 0.0);
}

#[tokio::test]
async fn hanging_services_of_a_namespace_leave_connections_for_other_namespaces() {
    let hanging = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.read_to_end().await;
    })
    .await;
    let healthy = Endpoint::ok().await;
    let mut routes: Vec<_> = HOSTS[..4].iter().map(|host| service_in("hanging", host, hanging.address)).collect();
    routes.push(service_in("healthy", "healthy.example", healthy.address));
    let limits = ProxyLimits {
        max_upstream_connections: 80,
        connect_timeout: Duration::from_millis(500),
        ..ProxyLimits::default()
    };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    let mut clients = Vec::new();
    for number in 0..120 {
        let mut client = client_with_address(&server, number + 1).await;
        client.send(get_from(HOSTS[usize::from(number) % 4])).await;
        clients.push(client);
    }
    let share = "portico_upstream_connects_total{outcome=\"share\"}";
    wait_for_metrics(&server, "50 requests that fail", |metrics| metrics[share] == 50.0).await;
    assert_eq!(hanging.log.connections(), 70, "seven eighths");
    for _ in 0..10 {
        assert_eq!(server.request(&get_from("healthy.example")).await.status, 200);
    }
    assert_eq!(scrape(&server)["portico_upstream_connects_total{outcome=\"limit\"}"], 0.0);
    // The clients leave, and another namespace may have as many connections.
    drop(clients);
    for _ in 0..10 {
        assert_eq!(server.request(&get_from("healthy.example")).await.status, 200);
    }
}

/// The Service responds to other requests.
#[tokio::test]
async fn hanging_requests_of_a_client_leave_connections_for_other_clients() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            if request.starts_with("GET /hanging") {
                stream.read_to_end().await;
                return;
            }
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let limits = ProxyLimits {
        max_upstream_connections: 80,
        connect_timeout: Duration::from_millis(500),
        ..ProxyLimits::default()
    };
    // Three quarters of what the Service may have.
    check_shares_of_clients(limits, routes_to(endpoint.address), 30).await;
    assert_eq!(endpoint.log.connections(), 30 + 1);
}

/// One connection has several requests, and many requests wait until it is open.
#[tokio::test]
async fn hanging_requests_of_a_client_leave_streams_for_other_clients() {
    let (release, released) = watch::channel(false);
    let endpoint =
        h2_upstream::counting_endpoint(h2::server::Builder::new(), released, |path| path == "/hanging").await;
    let limits = ProxyLimits {
        max_upstream_connections: 8,
        max_upstream_streams: 4,
        connect_timeout: Duration::from_millis(500),
        ..ProxyLimits::default()
    };
    // Four connections with four requests each, of which three quarters.
    check_shares_of_clients(limits, h2c_routes_to(endpoint.address), 12).await;
    drop(release);
}

/// The connection of the request for which it has waited.
#[tokio::test]
async fn request_that_waited_for_the_share_of_its_client_takes_an_idle_connection() {
    let (release, released) = watch::channel(false);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let mut released = released.clone();
        async move {
            while stream.request().await.is_some() {
                released.wait_for(|released| *released).await.unwrap();
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let limits = ProxyLimits { max_upstream_connections: 80, ..ProxyLimits::default() };
    let options = Options { limits, ..Options::default() };
    let server = TestServer::with_options(options, routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let mut requests = Vec::new();
    // Three quarters of what the Service may have, and one more.
    for _ in 0..30 + 1 {
        requests.push(client.start(get_request("/")).await);
    }
    endpoint.log.wait_for("the share of the client", |log| log.requests().len() == 30).await;
    // Portico has read the last request when it responds to a later one itself.
    assert_eq!(client.get("/%zz").await.status, 400);
    release.send_replace(true);
    for (response, _) in requests {
        assert_eq!(with_timeout("a response", response).await.unwrap().status(), 200);
    }
    assert_eq!(endpoint.log.connections(), 30);
}

/// One client sends 60 requests that hang, of which `expected` get a connection. Then other clients are served.
async fn check_shares_of_clients(limits: ProxyLimits, routes: Vec<Route>, expected: usize) {
    const REQUESTS: usize = 60;
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    let busy = [Http2Client::connect(server.address).await, Http2Client::connect(server.address).await];
    let mut hanging = Vec::new();
    for number in 0..REQUESTS {
        hanging.push(busy[number % 2].start(get_request("/hanging")).await);
    }
    let share = "portico_upstream_connects_total{outcome=\"share\"}";
    let failed = (REQUESTS - expected) as f64;
    wait_for_metrics(&server, "requests that fail", |metrics| metrics[share] >= failed).await;
    let mut served = 0;
    for number in 0..10 {
        let mut client = client_with_address(&server, number + 1).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        served += usize::from(client.response().await.status == 200);
    }
    // Few of them, if any, are counted together with the busy client.
    assert!(served >= 8, "{served}");
    let refused = scrape(&server)[share] - failed;
    assert!(refused <= (10 - served) as f64, "only requests of the busy client wait in vain: {refused}");
    drop(hanging);
}

const HOSTS: [&str; 8] =
    ["a.example", "b.example", "c.example", "d.example", "e.example", "f.example", "g.example", "h.example"];

#[tokio::test]
async fn idle_connections_of_all_workers_make_room() {
    let endpoint = Endpoint::ok().await;
    let http2_endpoint = h2_upstream::echo_endpoint().await;
    for (protocol, endpoint) in
        [(UpstreamProtocol::Http1, endpoint.address), (UpstreamProtocol::Http2, http2_endpoint.address)]
    {
        let limits = ProxyLimits { max_upstream_connections: 4, ..ProxyLimits::default() };
        let options = Options { limits, workers: 4, ..Options::default() };
        let server = TestServer::with_options(options, services(&HOSTS, protocol, endpoint)).await;
        let began = Instant::now();
        for host in HOSTS.iter().cycle().take(32) {
            assert_eq!(server.request(&get_from(host)).await.status, 200, "{host}, {protocol:?}");
        }
        // Far less than if each request waited for an eviction.
        assert!(began.elapsed() < 2 * ProxyLimits::default().connect_timeout, "{protocol:?}");
    }
}

#[tokio::test]
async fn unread_responses_give_up_scarce_connections() {
    let large = Endpoint::scripted(|mut stream, _| async move {
        while stream.request().await.is_some() {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n").await;
            stream.send(vec![b'x'; 10_000_000]).await;
        }
    })
    .await;
    let small = Endpoint::ok().await;
    let mut routes = services(&HOSTS[..2], UpstreamProtocol::Http1, large.address);
    routes.push(service_in("other", HOSTS[2], large.address));
    routes.extend(services(&HOSTS[3..4], UpstreamProtocol::Http1, small.address));
    let limits = ProxyLimits {
        max_upstream_connections: 8,
        scarce_stall_timeout: Duration::from_millis(300),
        ..ProxyLimits::default()
    };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    let mut unread = Vec::new();
    let mut http1 = Vec::new();
    let mut requests = 0;
    // The shares of three Services in two namespaces are all connections.
    for (host, count) in HOSTS.iter().zip([4, 2, 2]) {
        for number in 0..count {
            if number == 0 {
                let mut client = server.connect().await;
                client.send(get_from(host)).await;
                http1.push(client);
            } else {
                let client = Http2Client::connect(server.address).await;
                let mut request = get_request("/");
                *request.uri_mut() = format!("http://{host}/").parse().unwrap();
                unread.push((client.start(request).await, client));
            }
            requests += 1;
            large.log.wait_for("a request", |log| log.requests().len() == requests).await;
        }
    }
    assert_eq!(requests, 8);
    let response = server.request(&get_from(HOSTS[3])).await;
    assert_eq!(response.status, 200);
    drop((unread, http1));
}

/// Local and remote addresses of the sockets that wait for late segments of a connection to this port.
fn waiting_sockets(port: u16) -> HashSet<(String, String)> {
    const TIME_WAIT: &str = "06";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[2].ends_with(&remote) && fields[3] == TIME_WAIT)
        .map(|fields| (fields[1].to_owned(), fields[2].to_owned()))
        .collect()
}

#[tokio::test]
async fn abandoned_requests_occupy_no_local_ports() {
    const REQUESTS: usize = 20;
    let endpoint = Endpoint::scripted(|mut stream, number| async move {
        stream.head().await;
        if number < REQUESTS {
            stream.read_to_end().await;
            stream.record("closed");
        } else {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let server = server(ProxyLimits::default(), &endpoint).await;
    // A client of another test may have had the same port.
    let earlier = waiting_sockets(endpoint.address.port());
    for number in 0..REQUESTS {
        let mut client = server.connect().await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf").await;
        endpoint.log.wait_for("the connection", |log| log.connections() > number).await;
    }
    endpoint.log.wait_for("the end of all connections", |log| log.requests().len() == REQUESTS).await;
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.status, 200);
    assert!(waiting_sockets(endpoint.address.port()).is_subset(&earlier));
}
