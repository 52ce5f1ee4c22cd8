//! Settings of load balancing: weights, latency, hashing of connections and UDP sessions, and what happens if no
//! endpoint is available.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portico::upstream::settings::{
    Balancing, BalancingAlgorithm, HashTable, HealthSettings, LatencyAverage, PassiveChecks, RequestLimits,
    WhenUnhealthy,
};
use portico::upstream::{BackendTraffic, EndpointAddress, Endpoints, Upstream};
use tokio::net::{TcpSocket, TcpStream};

use crate::accounting::scrape;
use crate::harness::{
    Client, Endpoint, Options, TestServer, forward, reserve_address, retries, route, upstream, with_timeout,
    with_timeouts_and_retries,
};
use crate::retry::sum;
use crate::{stream, udp};

const MAGLEV: BalancingAlgorithm = BalancingAlgorithm::ConsistentHash(HashTable::Maglev { table_size: 251 });

fn endpoints(addresses: &[SocketAddr], balance: Balancing) -> Endpoints {
    let mut addresses: Vec<_> = addresses.iter().copied().map(EndpointAddress::Ip).collect();
    addresses.sort();
    Endpoints { addresses, balance, ..Endpoints::default() }
}

fn algorithm(algorithm: BalancingAlgorithm) -> Balancing {
    Balancing { algorithm, ..Balancing::default() }
}

async fn server(upstream: &Arc<Upstream>) -> TestServer {
    TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(upstream))]))]).await
}

#[tokio::test]
async fn endpoints_get_requests_by_weight() {
    let (heavy, light) = (Endpoint::ok().await, Endpoint::ok().await);
    let web = upstream("web", &[]);
    let weights = [(EndpointAddress::Ip(heavy.address), 3)].into();
    web.set_endpoints(Endpoints { weights, ..endpoints(&[heavy.address, light.address], Balancing::default()) });
    let server = server(&web).await;
    let mut client = server.connect().await;
    for _ in 0..40 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    let counts = [&heavy, &light].map(|endpoint| endpoint.log.requests().len());
    assert!(counts[0].abs_diff(30) <= 1 && counts[0] + counts[1] == 40, "{counts:?}");
}

#[tokio::test]
async fn endpoint_that_fails_fast_gets_few_requests() {
    let failing = Endpoint::responding_with("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let working = Endpoint::ok().await;
    let web = upstream("web", &[]);
    let (decay, failure_penalty) = (Duration::from_secs(600), Duration::from_secs(60));
    let ewma = BalancingAlgorithm::PeakEwma(LatencyAverage { decay, failure_penalty });
    web.set_endpoints(endpoints(&[failing.address, working.address], algorithm(ewma)));
    let server = server(&web).await;
    let mut client = server.connect().await;
    for _ in 0..50 {
        client.get("/").await;
    }
    let count = failing.log.requests().len();
    assert!(count <= 3, "the failing endpoint has {count} of 50 requests");
}

/// The attempts at a canary count for its own endpoints only (ingress-nginx#4723).
#[tokio::test]
async fn each_backend_of_a_rule_measures_its_endpoints() {
    let failing = Endpoint::responding_with("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let working = Endpoint::ok().await;
    let (decay, failure_penalty) = (Duration::from_secs(600), Duration::from_secs(60));
    let ewma = BalancingAlgorithm::PeakEwma(LatencyAverage { decay, failure_penalty });
    let backends = ["web", "web-canary"].map(|service| {
        let backend = upstream(service, &[]);
        backend.set_endpoints(endpoints(&[failing.address, working.address], algorithm(ewma)));
        (1, backend)
    });
    let server = TestServer::with_routes(vec![route(forward(backends.into()))]).await;
    let mut client = server.connect().await;
    for _ in 0..100 {
        client.get("/").await;
    }
    let count = failing.log.requests().len();
    assert!(count <= 6, "the failing endpoint has {count} of 100 requests");
}

#[tokio::test]
async fn requests_fail_at_once_if_the_policy_says_so() {
    let (refusing, _reserved) = reserve_address();
    let web = upstream("web", &[]);
    let balance = Balancing { when_unhealthy: WhenUnhealthy::Fail, ..Balancing::default() };
    web.set_endpoints(endpoints(&[refusing], balance));
    let server = server(&web).await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        let response = client.get("/").await;
        assert_eq!(response.status, 503);
    }
    let metrics = scrape(&server);
    assert_eq!(metrics["portico_upstream_connects_total{outcome=\"refused\"}"], 1.0, "only the first one connects");
    assert_eq!(metrics["portico_request_errors_total{reason=\"unavailable\"}"], 2.0);
}

#[tokio::test]
async fn endpoint_gets_no_more_requests_than_its_limit() {
    // Does not respond until the client disconnects.
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.read_to_end().await;
    })
    .await;
    let web = upstream("web", &[]);
    let limits = RequestLimits { max_requests_per_endpoint: Some(1), ..RequestLimits::default() };
    let traffic = BackendTraffic { overload: limits.into(), ..BackendTraffic::default() };
    web.set_endpoints(Endpoints { traffic, ..endpoints(&[endpoint.address], Balancing::default()) });
    let server = server(&web).await;
    let mut waiting = server.connect().await;
    waiting.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    endpoint.log.wait_for("the request", |log| log.requests().len() == 1).await;
    assert_eq!(server.connect().await.get("/").await.status, 503);
    assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"over_limit\"}"], 1.0);
    drop(waiting);
}

/// A rejection by Portico itself neither counts against endpoints nor is it sent again.
#[tokio::test]
async fn rejections_beyond_the_limit_eject_no_endpoint() {
    const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    // Does not respond until the client disconnects.
    let hanging = || {
        Endpoint::scripted(|mut stream, _| async move {
            stream.request().await;
            stream.read_to_end().await;
        })
    };
    let (first, second) = (hanging().await, hanging().await);
    let web = upstream("web", &[]);
    let limits = RequestLimits { max_requests_per_endpoint: Some(1), ..RequestLimits::default() };
    let passive =
        PassiveChecks { local_origin_failures: 1, gateway_errors: 1, server_errors: 1, ..PassiveChecks::default() };
    let health = HealthSettings { passive, ..HealthSettings::default() };
    let (overload, health) = (limits.into(), Some(Arc::new(health)));
    let traffic = BackendTraffic { overload, health, ..BackendTraffic::default() };
    web.set_endpoints(Endpoints { traffic, ..endpoints(&[first.address, second.address], Balancing::default()) });
    let action = with_timeouts_and_retries(forward(vec![(1, Arc::clone(&web))]), retries(3, &[503]));
    let server = TestServer::with_routes(vec![route(action)]).await;
    let mut waiting = Vec::new();
    for count in 1..=2 {
        let mut client = server.connect().await;
        client.send(GET).await;
        waiting.push(client);
        with_timeout("the request", async {
            while first.log.requests().len() + second.log.requests().len() < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    for _ in 0..5 {
        assert_eq!(server.request(GET).await.status, 503);
    }
    let metrics = scrape(&server);
    assert_eq!(metrics["portico_request_errors_total{reason=\"over_limit\"}"], 5.0);
    assert_eq!(sum(&metrics, "portico_upstream_retries_total", &[]), 0.0);
    assert_eq!(web.endpoint_counts().ejected, 0);
    drop(waiting);
}

/// The name that the endpoint of the next connection from this address sends.
async fn name_for(server: &TestServer, client: [u8; 4]) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((client, 0))).unwrap();
    let stream: TcpStream = socket.connect(server.address).await.unwrap();
    let mut client = Client::from_stream(stream);
    let mut name = [0];
    with_timeout("the name", tokio::io::AsyncReadExt::read_exact(&mut client.socket, &mut name)).await.unwrap();
    String::from_utf8(name.into()).unwrap()
}

#[tokio::test]
async fn connections_of_a_client_have_one_endpoint() {
    let named = |name: &'static str| {
        Endpoint::scripted(move |mut stream, _| async move {
            stream.send(name).await;
            stream.read_to_end().await;
        })
    };
    let (a, b, c) = (named("a").await, named("b").await, named("c").await);
    let db = upstream("db", &[]);
    db.set_endpoints(endpoints(&[a.address, b.address, c.address], algorithm(MAGLEV)));
    let options = Options { workers: 2, ..Options::default() };
    let server = stream::start(options, stream::to_upstream(&db)).await;
    let mut names = BTreeSet::new();
    for client in 1..=32 {
        let name = name_for(&server, [127, 0, 0, client]).await;
        for _ in 0..3 {
            assert_eq!(name_for(&server, [127, 0, 0, client]).await, name, "127.0.0.{client}");
        }
        names.insert(name);
    }
    assert_eq!(names.len(), 3, "clients are divided among the endpoints");
}

#[tokio::test]
async fn datagrams_of_a_client_have_one_endpoint() {
    let dns = udp::udp_upstream("dns", &[]);
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
    dns.set_endpoints(endpoints(&addresses, algorithm(MAGLEV)));
    let server = udp::start(Options::default(), udp::to_upstream(&dns)).await;
    // Each socket of the client begins a session of its own.
    let mut clients = Vec::new();
    for _ in 0..20 {
        let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"query", server.address).await.unwrap();
        clients.push(client);
    }
    let mut receivers = BTreeSet::new();
    let mut buffer = [0; 16];
    for _ in 0..clients.len() {
        let received = async {
            loop {
                for (number, socket) in sockets.iter().enumerate() {
                    if socket.try_recv_from(&mut buffer).is_ok() {
                        return number;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        receivers.insert(with_timeout("a datagram", received).await);
    }
    assert_eq!(receivers.len(), 1);
}
