//! Load balancing: round robin and least requests, ejection of unreachable endpoints, and both address families.

use std::collections::BTreeSet;
use std::time::Duration;

use portico::limits::ProxyLimits;
use portico::upstream::settings::{Balancing, BalancingAlgorithm};
use portico::upstream::{EndpointAddress, Endpoints};
use tokio::net::TcpListener;

use crate::accounting::scrape;
use crate::harness::{Endpoint, Options, TestServer, forward, reserve_address, route, upstream, with_timeout};

const REFUSED: &str = "portico_upstream_connects_total{outcome=\"refused\"}";

#[tokio::test]
async fn ejected_endpoint_gets_few_requests_until_it_recovers() {
    let endpoint = Endpoint::ok().await;
    let (refusing, reserved) = reserve_address();
    let server =
        TestServer::with_routes(vec![route(forward(vec![(1, upstream("web", &[refusing, endpoint.address]))]))]).await;
    let mut client = server.connect().await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    // Without ejection, every other request would try the refusing endpoint.
    let refused = scrape(&server)[REFUSED];
    assert!((1.0..=5.0).contains(&refused), "{refused}");

    // The endpoint listens again and is probed once its ejection time has passed.
    reserved.listen(16).unwrap();
    reserved.set_nonblocking(true).unwrap();
    let recovered = TcpListener::from_std(reserved.into()).unwrap();
    let accepted = recovered.accept();
    let requests = async {
        loop {
            client.get("/").await;
            tokio::time::sleep(Duration::from_millis(10)).await; // Between two requests.
        }
    };
    with_timeout("a connection to the recovered endpoint", async {
        tokio::select! {
            _ = accepted => {}
            () = requests => {}
        }
    })
    .await;
}

#[tokio::test]
async fn least_requests_prefers_the_idle_endpoint() {
    // Does not respond on its first connection, and responds on all others.
    let busy = Endpoint::scripted(|mut stream, number| async move {
        while stream.request().await.is_some() {
            if number == 0 {
                stream.read_to_end().await;
                return;
            }
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbusy").await;
        }
    })
    .await;
    let idle = Endpoint::ok().await;
    let web = upstream("web", &[]);
    let only_endpoint = |address| Endpoints {
        addresses: vec![EndpointAddress::Ip(address)],
        balance: least_requests(),
        ..Endpoints::default()
    };
    web.set_endpoints(only_endpoint(busy.address));
    let server = TestServer::with_routes(vec![route(forward(vec![(1, web.clone())]))]).await;
    let mut waiting = server.connect().await;
    waiting.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    busy.log.wait_for("the request", |log| log.requests().len() == 1).await;

    let mut addresses = vec![EndpointAddress::Ip(busy.address), EndpointAddress::Ip(idle.address)];
    addresses.sort();
    web.set_endpoints(Endpoints { addresses, balance: least_requests(), ..Endpoints::default() });
    let mut client = server.connect().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    // This ends the pending request, so both endpoints are idle.
    drop(waiting);
    busy.log
        .wait_for("the end of the connection", |log| log.ended.load(std::sync::atomic::Ordering::SeqCst) == 1)
        .await;
    with_timeout("a request to the formerly busy endpoint", async { while client.get("/").await.text() != "busy" {} })
        .await;
}

#[tokio::test]
async fn removed_endpoint_finishes_its_requests() {
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let released = std::sync::Mutex::new(Some(released));
    let old = Endpoint::scripted(move |mut stream, _| {
        let released = released.lock().unwrap().take();
        async move {
            stream.request().await;
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await;
            drop(released.expect("one connection").await);
            stream.send("done").await;
            stream.read_to_end().await;
        }
    })
    .await;
    let new = Endpoint::ok().await;
    let web = upstream("web", &[old.address]);
    let server = TestServer::with_routes(vec![route(forward(vec![(1, web.clone())]))]).await;
    let mut waiting = server.connect().await;
    waiting.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    old.log.wait_for("the request", |log| log.requests().len() == 1).await;
    web.set_endpoints(Endpoints { addresses: vec![EndpointAddress::Ip(new.address)], ..Default::default() });
    assert_eq!(server.connect().await.get("/").await.text(), "ok");
    release.send(()).unwrap();
    assert_eq!(waiting.response().await.text(), "halfdone");
}

#[tokio::test]
async fn ipv6_endpoints_are_served() {
    // Skipped on machines without IPv6.
    let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
    let endpoint = Endpoint::on_listener(listener, |mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    });
    let server = TestServer::with_routes(vec![route(forward(vec![(1, upstream("web", &[endpoint.address]))]))]).await;
    assert_eq!(server.connect().await.get("/").await.text(), "ok");
    assert_eq!(endpoint.log.connections(), 1);
}

#[tokio::test]
async fn workers_share_the_endpoints_of_large_upstreams() {
    let mut endpoints = Vec::new();
    for number in 0..34 {
        let response = format!("HTTP/1.1 200 OK\r\nx-endpoint: {number}\r\ncontent-length: 0\r\n\r\n");
        endpoints.push(Endpoint::responding_with(response).await);
    }
    let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    let limits = ProxyLimits { max_upstream_connections: 200, ..ProxyLimits::default() };
    let options = Options { workers: 2, limits, ..Options::default() };
    let server = TestServer::with_options(options, vec![route(forward(vec![(1, upstream("web", &addresses))]))]).await;
    // The kernel assigns each connection to one of the workers.
    let mut parts = BTreeSet::new();
    while parts.len() < 2 {
        let mut client = server.connect().await;
        let mut part = BTreeSet::new();
        for _ in 0..addresses.len() {
            part.insert(client.get("/").await.header("x-endpoint").unwrap().to_owned());
        }
        assert_eq!(part.len(), 17, "{part:?}");
        parts.insert(part);
    }
    let used: BTreeSet<_> = parts.iter().flatten().collect();
    assert_eq!(used.len(), 34, "each endpoint belongs to one worker");
}

fn least_requests() -> Balancing {
    Balancing { algorithm: BalancingAlgorithm::LeastRequests, ..Balancing::default() }
}
