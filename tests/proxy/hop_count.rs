//! Loops: the number of hops ends those that lead through other proxies, and nothing connects to an own listener.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use portico::bind_address::BindAddress;
use portico::limits::ProxyLimits;
use portico::plugin_api::AccessOutcome;
use portico::plugin_chain::{Chain, testing};
use portico::plugins::REGISTRY;
use portico::proxy::BindState;
use portico::snapshot::rule::{Filters, HeaderEdits};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::accounting::scrape;
use crate::external_auth::{authorization_server, guarded_routes, http_filter};
use crate::h2::read_body;
use crate::h2_upstream::http2_endpoint;
use crate::harness::{
    Client, Endpoint, Options, Route, TestServer, forward, h2c_routes_to, h2c_upstream, header, reserve_address_at,
    route, routes_to, snapshot, upstream, with_timeout,
};
use crate::mirror::{mirror, mirrored_routes};
use crate::plugins::{ScriptedPlugin, chain};

/// A load balancer that forwards its connections to the address that it gets. `edit` changes the bytes of requests.
async fn load_balancer(edit: fn(Vec<u8>) -> Vec<u8>) -> (Endpoint, watch::Sender<Option<SocketAddr>>) {
    let (sender, receiver) = watch::channel(None::<SocketAddr>);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let mut receiver = receiver.clone();
        async move {
            let address = receiver.wait_for(Option::is_some).await.unwrap().expect("there is an address");
            let mut upstream = TcpStream::connect(address).await.unwrap();
            let mut buffer = vec![0; 1 << 16];
            loop {
                let forwarded = tokio::select! {
                    request = stream.read_some() => match request {
                        Some(bytes) => upstream.write_all(&edit(bytes)).await,
                        None => return,
                    },
                    read = upstream.read(&mut buffer) => match read {
                        Ok(length @ 1..) => {
                            stream.send(&buffer[..length]).await;
                            Ok(())
                        }
                        Ok(0) | Err(_) => return,
                    },
                };
                if forwarded.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (endpoint, sender)
}

fn loops_detected(server: &TestServer) -> f64 {
    scrape(server).get("portico_request_errors_total{reason=\"loop_detected\"}").copied().unwrap_or_default()
}

#[tokio::test]
async fn a_loop_through_a_load_balancer_ends_with_508() {
    /// Like a proxy that forwards names as CGI spells them.
    fn with_underscores(bytes: Vec<u8>) -> Vec<u8> {
        String::from_utf8(bytes).unwrap().replace("portico-hops", "portico_hops").into_bytes()
    }
    type RoutesTo = fn(SocketAddr) -> Vec<Route>;
    type Edit = fn(Vec<u8>) -> Vec<u8>;
    let cases: [(&str, RoutesTo, Edit); 3] = [
        ("HTTP/1", routes_to, |bytes| bytes),
        ("HTTP/1 with underscores", routes_to, with_underscores),
        ("HTTP/2", h2c_routes_to, |bytes| bytes),
    ];
    for (what, routes_to, edit) in cases {
        let (balancer, target) = load_balancer(edit).await;
        let server = TestServer::with_routes(routes_to(balancer.address)).await;
        target.send(Some(server.address)).unwrap();
        let response = server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!((response.status, response.text().contains("Loop detected")), (508, true), "{what}");
        assert_eq!(loops_detected(&server), 1.0, "{what}");
        let connections = balancer.log.connections.load(SeqCst);
        assert!((1..=8).contains(&connections), "{what}: {connections} connections");
    }
}

#[tokio::test]
async fn the_limit_is_the_number_of_hops() {
    let endpoint = Endpoint::ok().await;
    let limits = ProxyLimits { max_hops: 2, ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await;
    // The fields of the request, and the number that the endpoint gets.
    for (fields, expected) in [
        ("", Some("1")),
        ("portico-hops: 0\r\n", Some("1")),
        ("Portico-Hops: 1\r\n", Some("2")),
        ("portico-hops: 2\r\n", None),
        ("portico_hops: 2\r\n", None),
        ("portico-hops: 0\r\nPORTICO_HOPS: 300\r\n", None),
        ("portico-hops: 0, 2\r\n", None),
        ("portico-hops: 2\r\nconnection: portico-hops\r\n", None),
        ("portico-hops: x\r\n", Some("1")),
    ] {
        let earlier = endpoint.log.requests().len();
        let response = server.request(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
        assert_eq!(response.status, if expected.is_some() { 200 } else { 508 }, "{fields}");
        let requests = endpoint.log.requests();
        let received = requests.get(earlier).map(String::as_str);
        assert_eq!(received.and_then(|request| header(request, "portico-hops")), expected, "{fields}");
    }
}

/// Filters and plugins, each of which attempts to set, add or remove the number.
fn interfering_filters_and_plugins() -> Vec<(&'static str, Filters, Option<Arc<Chain>>)> {
    let number = |name| (HeaderName::from_static(name), HeaderValue::from_static("0"));
    let edits = |edits| Filters { request_headers: Some(edits), ..Filters::default() };
    let set = HeaderEdits { set: vec![number("portico-hops"), number("portico_hops")], ..HeaderEdits::default() };
    let add = HeaderEdits { add: vec![number("portico-hops"), number("portico_hops")], ..HeaderEdits::default() };
    let remove = HeaderEdits { remove: vec![HeaderName::from_static("portico-hops")], ..HeaderEdits::default() };
    let transformer = json!({
        "add": {"headers": ["portico-hops:0", "portico_hops:0"]},
        "append": {"headers": ["portico-hops:0"]},
        "rename": {"headers": ["x-number:portico_hops"]},
    });
    let transformer = testing::chain(&[(REGISTRY.find("request-transformer").unwrap(), transformer)]);
    let scripted = ScriptedPlugin::access(|cx| {
        for name in ["portico-hops", "portico_hops"] {
            cx.head.headers.insert(name, HeaderValue::from_static("0"));
        }
        AccessOutcome::Continue
    });
    vec![
        ("set", edits(set), None),
        ("add", edits(add), None),
        ("remove", edits(remove), None),
        ("request-transformer", Filters::default(), Some(transformer)),
        ("a plugin", Filters::default(), chain(vec![scripted])),
    ]
}

/// With a number in the trailers.
const NUMBERED_REQUEST: &str = "POST / HTTP/1.1\r\nhost: a\r\nportico-hops: 3\r\nx-number: 0\r\n\
                                trailer: portico-hops, portico_hops, x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
                                1\r\nx\r\n0\r\nportico-hops: 0\r\nportico_hops: 0\r\nx-sum: 1\r\n\r\n";

#[tokio::test]
async fn filters_and_plugins_cannot_change_the_number() {
    for (what, filters, plugins) in interfering_filters_and_plugins() {
        let endpoint = Endpoint::ok().await;
        let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
        let server = TestServer::with_routes(vec![Route { filters, plugins, ..route(action) }]).await;
        assert_eq!(server.request(NUMBERED_REQUEST).await.status, 200, "{what}");
        let received = endpoint.log.requests().remove(0);
        let lines = received.lines().filter(|line| line.replace('_', "-").starts_with("portico-hops:"));
        assert_eq!(lines.collect::<Vec<_>>(), ["portico-hops: 4"], "{what}: {received}");
        assert!(received.ends_with("x-sum: 1\r\n"), "other trailers arrive: {received}");
    }
}

#[tokio::test]
async fn filters_and_plugins_cannot_change_the_number_over_http2() {
    let (sender, mut received) = mpsc::channel(1);
    let endpoint = http2_endpoint(h2::server::Builder::new(), move |mut call| {
        let sender = sender.clone();
        async move {
            let (head, mut body) = call.request.into_parts();
            let (_, trailers) = read_body(&mut body).await.unwrap();
            sender.send((head.headers, trailers.unwrap_or_default())).await.unwrap();
            call.response.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    for (what, filters, plugins) in interfering_filters_and_plugins() {
        let action = forward(vec![(1, h2c_upstream(endpoint.address))]);
        let server = TestServer::with_routes(vec![Route { filters, plugins, ..route(action) }]).await;
        assert_eq!(server.request(NUMBERED_REQUEST).await.status, 200, "{what}");
        let (headers, trailers) = with_timeout("the request", received.recv()).await.unwrap();
        assert_eq!(hops_of(&headers), ["portico-hops: 4"], "{what}");
        assert_eq!((hops_of(&trailers), trailers.contains_key("x-sum")), (vec![], true), "{what}");
    }
}

/// The fields that are the number, or appear to be it.
fn hops_of(headers: &HeaderMap) -> Vec<String> {
    let fields = headers.iter().filter(|(name, _)| name.as_str().replace('_', "-") == "portico-hops");
    fields.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

#[tokio::test]
async fn mirrors_and_authorization_servers_get_the_number() {
    let request = "GET / HTTP/1.1\r\nhost: a\r\nportico-hops: 3\r\n\r\n";
    let (endpoint, copies) = (Endpoint::ok().await, Endpoint::ok().await);
    let mirrors = vec![mirror(upstream("mirror", &[copies.address]), 1, 1)];
    let server = TestServer::with_routes(mirrored_routes(&endpoint, mirrors)).await;
    assert_eq!(server.request(request).await.status, 200);
    copies.log.wait_for("the copy", |log| log.requests().len() == 1).await;

    let authorization = authorization_server().await;
    let filter = http_filter(upstream("auth", &[authorization.address]));
    let server = TestServer::with_routes(guarded_routes(filter, &endpoint)).await;
    assert_eq!(server.request(request).await.status, 200);
    for log in [&endpoint.log, &copies.log, &authorization.log] {
        for received in log.requests() {
            assert_eq!(header(&received, "portico-hops"), Some("4"), "{received}");
        }
    }
    assert_eq!((endpoint.log.requests().len(), authorization.log.requests().len()), (2, 1));

    // A request that has taken too many hops is not sent to the authorization server.
    assert_eq!(server.request(&request.replace('3', "8")).await.status, 508);
    assert_eq!(authorization.log.requests().len(), 1);
}

#[tokio::test]
async fn no_connection_is_opened_to_a_listener_of_the_process() {
    let machine = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Without a route to other networks, the machine has no other address.
    machine.connect("192.0.2.1:9").ok();
    let machine = Some(machine.local_addr().unwrap().ip()).filter(|ip| !ip.is_unspecified());
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let cases = [(Ipv4Addr::LOCALHOST, Some(loopback)), (Ipv4Addr::UNSPECIFIED, Some(loopback))];
    for (listener, endpoint) in cases.into_iter().chain([(Ipv4Addr::UNSPECIFIED, machine)]) {
        let Some(endpoint) = endpoint else { continue };
        let (address, reserved) = reserve_address_at(listener);
        let reserved_address = SocketAddr::new(loopback, address.port());
        let endpoint = SocketAddr::new(endpoint, address.port());
        let server = TestServer::start(Options::default(), address, reserved, snapshot(address, routes_to(endpoint)));
        assert_eq!(server.proxy.reconcile().await[&BindAddress::tcp(address)], BindState::Bound);
        let get = async || Client::connect(reserved_address).await.get("/").await;
        assert_eq!(get().await.status, 508, "{listener} {endpoint}");
        // The request and nothing else was received.
        assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"loop_detected\"}"], 1.0, "{listener}");
        // Other endpoints are used.
        let other = Endpoint::ok().await;
        let action = forward(vec![(1, upstream("two", &[endpoint, other.address]))]);
        server.snapshot.store(Arc::new(snapshot(address, vec![route(action)])));
        server.proxy.reconcile().await;
        for _ in 0..4 {
            assert_eq!(get().await.status, 200, "{listener} {endpoint}");
        }
    }
}

#[tokio::test]
async fn fixed_listeners_of_the_process_are_no_endpoints() {
    let admin = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(admin.address)).await;
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 200);
    let server = TestServer::with_routes(routes_to(admin.address)).await;
    server.proxy.own_sockets().add_fixed(admin.address);
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 508);
    assert_eq!(admin.log.requests().len(), 1);
}
