//! Requests that come over the connection of another listener (`gateway-api.md` §3.3).

use std::sync::Arc;

use portico::snapshot::certs::Certificate;
use portico::snapshot::{Bind, Snapshot};

use crate::harness::{Client, Endpoint, Options, Route, listener, to};
use crate::secure::{Caller, Secure, certificate, open, swap};

fn on(hostname: &'static str, own: &Arc<Certificate>, routes: Vec<Route>) -> Secure {
    Secure { hostname, certificates: vec![Arc::clone(own)], routes }
}

#[tokio::test]
async fn each_request_is_for_the_listener_of_its_connection() {
    let endpoint = Endpoint::ok().await;
    let own = certificate(&["*.example"]);
    let served = || to(endpoint.address);
    // A route for one host only, so that the others of its listener have none.
    let partly = || vec![Route { host: "known.wide.example", ..served().remove(0) }];
    let apart =
        || vec![on("a.example", &own, served()), on("b.example", &own, served()), on("*.wide.example", &own, partly())];
    let gate = open(Options::default(), apart()).await;
    let caller = Caller::new();
    let check = async |name: &'static str, requests: &[(&str, u16)]| {
        // All over one connection: what is wrong with one request says nothing about the next.
        let mut client = caller.connect(&gate, name).await.unwrap();
        for (host, expected) in requests {
            client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
            let answer = client.answer(false).await;
            assert_eq!(answer.status, *expected, "{name} asks for {host}: {}", answer.text());
        }
    };
    let requests = [
        ("a.example", 200),
        ("b.example", 421),
        ("A.EXAMPLE:443", 200),
        ("a.wide.example", 421),
        ("unknown.test", 421),
        ("a.example.", 200),
    ];
    check("a.example", &requests).await;
    let requests =
        [("known.wide.example", 200), ("x.wide.example", 404), ("a.b.wide.example", 404), ("a.example", 421)];
    check("known.wide.example", &requests).await;
    check("x.wide.example", &requests).await;

    let mut with_any = apart();
    with_any.push(on("", &own, served()));
    swap(&gate.snapshot, gate.address, with_any);
    let unknown = [("unknown.test", 200), ("other.test", 200), ("a.example", 421), ("x.wide.example", 421)];
    check("unknown.test", &unknown).await;
    check("", &unknown).await;
    check("a.example", &[("a.example", 200), ("unknown.test", 421), ("b.example", 421)]).await;
}

#[tokio::test]
async fn a_request_follows_the_present_listeners_and_not_those_of_the_handshake() {
    let endpoint = Endpoint::ok().await;
    let own = certificate(&["*.example"]);
    let gate = open(Options::default(), vec![on("*.example", &own, to(endpoint.address))]).await;
    let mut client = Caller::new().connect(&gate, "a.example").await.unwrap();
    let mut ask = async |host: &str| {
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        client.answer(false).await.status
    };
    assert_eq!((ask("a.example").await, ask("b.example").await), (200, 200));
    let both = vec![on("*.example", &own, to(endpoint.address)), on("b.example", &own, to(endpoint.address))];
    swap(&gate.snapshot, gate.address, both);
    assert_eq!((ask("a.example").await, ask("b.example").await), (200, 421));
}

/// What is meant for HTTPS must not go over a connection in plain text that was there before, nor the other way.
#[tokio::test]
async fn a_port_that_turns_to_tls_answers_no_old_connection() {
    let endpoint = Endpoint::ok().await;
    let own = certificate(&["a.example"]);
    let secure = || vec![on("", &own, to(endpoint.address))];
    let gate = open(Options::default(), secure()).await;
    let mut over_tls = Caller::new().connect(&gate, "a.example").await.unwrap();
    assert_eq!(over_tls.get("/").await.status, 200);

    let plain = portico::snapshot::host::HostMap::new([(
        portico::snapshot::host::HostPattern::Any,
        Arc::new(listener(to(endpoint.address))),
    )]);
    let bind = Bind { listeners: plain, tls: None };
    gate.snapshot.store(Arc::new(Snapshot { binds: [(gate.address, Arc::new(bind))].into(), ..Snapshot::default() }));
    let mut in_plain = Client::connect(gate.address).await;
    assert_eq!(in_plain.get("/").await.status, 200);
    assert_eq!(over_tls.get("/").await.status, 421);

    swap(&gate.snapshot, gate.address, secure());
    assert_eq!(in_plain.get("/").await.status, 421);
}
