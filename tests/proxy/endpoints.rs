//! Which endpoint a request goes to, over which connection, and how often.

use std::collections::BTreeMap;

use portico::proxy::Limits;
use portico::snapshot::rule::{Action, Backend, Failure, Filters, Split, Target};
use portico::snapshot::tries::{Limit, Tries};

use crate::books::scrape;
use crate::harness::{Endpoint, Gate, Options, Route, forward, reserve, route, to, trying, upstream};

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut client = gate.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    // Another client of the same worker shares the pool.
    assert_eq!(gate.client().await.get("/").await.text(), "ok");
    assert_eq!(endpoint.log.connections(), 1);
    assert_eq!(endpoint.log.requests().len(), 11);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let path = request.split(' ').nth(1).unwrap();
            stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len())).await;
        }
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut client = gate.client().await;
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
        assert_eq!(client.answer(false).await.text(), format!("/{n}"));
    }
}

#[tokio::test]
async fn shares_are_exact() {
    let (a, b) = (Endpoint::ok().await, Endpoint::ok().await);
    let backend = |weight, target| Backend { weight, filters: Filters::default(), target };
    let split = Split::new(vec![
        backend(7, Target::Upstream(upstream("a", &[a.address]))),
        backend(2, Target::Upstream(upstream("b", &[b.address]))),
        backend(1, Target::Fail(Failure::InvalidBackend)),
    ]);
    let gate = Gate::open(vec![route(Action::Forward(split.unwrap()))]).await;
    let mut client = gate.client().await;
    let mut statuses = BTreeMap::new();
    for _ in 0..100 {
        *statuses.entry(client.get("/").await.status).or_insert(0) += 1;
    }
    assert_eq!(statuses, [(200, 90), (500, 10)].into());
    assert_eq!((a.log.requests().len(), b.log.requests().len()), (70, 20));
}

#[tokio::test]
async fn endpoints_take_turns_and_changes_of_them_need_no_new_snapshot() {
    let endpoints = [Endpoint::ok().await, Endpoint::ok().await, Endpoint::ok().await];
    let upstream = upstream("web", &endpoints.each_ref().map(|endpoint| endpoint.address));
    let gate = Gate::open(vec![route(forward(vec![(1, upstream.clone())]))]).await;
    let mut client = gate.client().await;
    for _ in 0..9 {
        client.get("/").await;
    }
    assert_eq!(endpoints.each_ref().map(|endpoint| endpoint.log.requests().len()), [3, 3, 3]);

    let only = portico::upstream::Address::Ip(endpoints[1].address);
    upstream.set_endpoints(portico::upstream::Endpoints { addresses: vec![only], ..Default::default() });
    for _ in 0..3 {
        client.get("/").await;
    }
    assert_eq!(endpoints.each_ref().map(|endpoint| endpoint.log.requests().len()), [3, 6, 3]);
    upstream.set_endpoints(portico::upstream::Endpoints::default());
    assert_eq!(client.get("/").await.status, 503);
}

#[tokio::test]
async fn who_refuses_is_passed_over() {
    let endpoint = Endpoint::ok().await;
    let (dead, _reserved) = reserve();
    let gate = Gate::open(vec![route(forward(vec![(1, upstream("web", &[dead, endpoint.address]))]))]).await;
    let mut client = gate.client().await;
    for _ in 0..4 {
        let request = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
        client.send(request).await;
        assert_eq!(client.answer(false).await.text(), "ok");
    }
    assert!(endpoint.log.requests().iter().all(|request| request.ends_with("abc")));

    let gate = Gate::open(to(dead)).await;
    let answer = gate.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("The upstream server is currently unavailable"));
}

#[tokio::test]
async fn a_stale_connection_costs_nobody_an_answer() {
    // Each connection takes two requests. The second is answered on the first connection by closing it.
    for (request, tries, status) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", 3, 200),
        ("DELETE / HTTP/1.1\r\nhost: a\r\n\r\n", 3, 200),
        // These may have been processed.
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", 2, 502),
        ("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", 2, 502),
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
        let gate = Gate::open(to(endpoint.address)).await;
        let mut client = gate.client().await;
        assert_eq!(client.get("/").await.status, 200);
        client.send(request).await;
        assert_eq!(client.answer(false).await.status, status, "{request}");
        assert_eq!(endpoint.log.requests().len(), tries, "{request}");
    }
}

#[tokio::test]
async fn a_fresh_connection_that_gives_no_answer_is_not_tried_again() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let answer = gate.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("An invalid response was received from the upstream server"));
    assert_eq!(endpoint.log.requests().len(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        // Nothing is ever answered; this ends when the proxy closes.
        stream.rest().await;
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    endpoint.log.until("the request", |log| log.requests().len() == 1).await;
    drop(client);
    endpoint
        .log
        .until("the end of the connection", |log| log.ended.load(std::sync::atomic::Ordering::SeqCst) == 1)
        .await;
}

/// An address where nobody answers: the queue of its listener is full, so the system leaves newcomers waiting.
pub(crate) async fn deaf() -> (std::net::SocketAddr, Vec<tokio::net::TcpStream>, socket2::Socket) {
    let (address, listener) = reserve();
    listener.listen(0).unwrap();
    let mut queue = Vec::new();
    let patience = std::time::Duration::from_millis(200);
    while let Ok(stream) = tokio::time::timeout(patience, tokio::net::TcpStream::connect(address)).await {
        queue.push(stream.unwrap());
    }
    (address, queue, listener)
}

#[tokio::test]
async fn who_does_not_answer_a_connect_is_passed_over() {
    let endpoint = Endpoint::ok().await;
    let (deaf, _queue, _listener) = deaf().await;
    let limits = Limits { connect_timeout: std::time::Duration::from_millis(100), ..Limits::default() };
    let both = forward(vec![(1, upstream("web", &[deaf, endpoint.address]))]);
    let routes = vec![route(both), Route { path: "/deaf", ..route(forward(vec![(1, upstream("deaf", &[deaf]))])) }];
    let gate = Gate::with(Options { limits, ..Options::default() }, routes).await;
    let mut client = gate.client().await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    assert_eq!(client.get("/deaf").await.status, 504);

    // The patience for an answer counts while connecting, too.
    let limits = Limits { answer_timeout: std::time::Duration::from_millis(100), ..Limits::default() };
    let gate = Gate::with(Options { limits, ..Options::default() }, to(deaf)).await;
    assert_eq!(gate.client().await.get("/").await.status, 504);
}

#[tokio::test]
async fn the_patience_of_one_rule_takes_no_endpoint_from_the_others() {
    let endpoint = Endpoint::ok().await;
    let (deaf, _queue, _listener) = deaf().await;
    let both = upstream("web", &[deaf, endpoint.address]);
    let after = Limit::After(std::time::Duration::from_millis(100));
    for (tries, expected) in [
        // Nothing was sent, so the other one may be tried.
        (Tries { backend_request: after, ..Tries::default() }, 200),
        (Tries { request: after, ..Tries::default() }, 504),
    ] {
        let gate = Gate::open(vec![route(trying(forward(vec![(1, both.clone())]), tries))]).await;
        let mut client = gate.client().await;
        // In turn, so that one of two goes to the deaf one.
        let statuses = [client.get("/").await.status, client.get("/").await.status];
        assert!(statuses.contains(&expected) && statuses.contains(&200), "{statuses:?}");
    }
    let drawn: std::collections::BTreeSet<_> = (0..4).filter_map(|turn| both.next(turn, &[])).collect();
    assert_eq!(drawn, [deaf, endpoint.address].into());
}

#[tokio::test]
async fn a_named_endpoint_serves_once_it_is_resolved() {
    let endpoint = Endpoint::ok().await;
    let upstream = upstream("web", &[]);
    let name = portico::upstream::Address::Name { host: "db.example".into(), port: endpoint.address.port() };
    upstream.set_endpoints(portico::upstream::Endpoints { addresses: vec![name], ..Default::default() });
    let gate = Gate::open(vec![route(forward(vec![(1, upstream.clone())]))]).await;
    let mut client = gate.client().await;
    assert_eq!(client.get("/").await.status, 503);
    upstream.set_resolved("db.example", vec![endpoint.address.ip()]);
    assert_eq!(client.get("/").await.text(), "ok");
}

#[tokio::test]
async fn a_name_that_dns_turns_to_ourselves_or_to_the_cloud_gets_nothing_more() {
    use portico::upstream::{Address, Endpoints, Loopback, Registry, tls::Anchors};

    for (loopback, expected) in [(Loopback::Served, 200), (Loopback::Refused, 503)] {
        let own = Endpoint::ok().await;
        let key = upstream("web", &[]).key.clone();
        let upstream = Registry::new(Anchors::default(), loopback).upstream(&key);
        let name = Address::Name { host: "db.example".into(), port: own.address.port() };
        upstream.set_endpoints(Endpoints { addresses: vec![name], ..Endpoints::default() });
        let gate = Gate::open(vec![route(forward(vec![(1, upstream.clone())]))]).await;
        let mut client = gate.client().await;
        upstream.set_resolved("db.example", vec![own.address.ip()]);
        assert_eq!(client.get("/").await.status, expected, "{loopback:?}");
        upstream.set_resolved("db.example", vec!["169.254.169.254".parse().unwrap(), "fd20:ce::254".parse().unwrap()]);
        assert_eq!(client.get("/").await.status, 503, "nothing is even tried");
    }
}

/// Two connections to endpoints for the whole process, and little patience.
fn narrow() -> Options {
    let limits = Limits {
        max_upstream_connections: 2,
        connect_timeout: std::time::Duration::from_millis(100),
        ..Limits::default()
    };
    Options { limits, ..Options::default() }
}

#[tokio::test]
async fn connections_to_endpoints_have_a_limit() {
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let told = std::sync::Arc::clone(&go);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let told = std::sync::Arc::clone(&told);
        async move {
            while stream.request().await.is_some() {
                told.notified().await;
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let gate = Gate::with(narrow(), to(endpoint.address)).await;
    let mut busy = [gate.client().await, gate.client().await];
    for client in &mut busy {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    }
    endpoint.log.until("two requests", |log| log.requests().len() == 2).await;
    let answer = gate.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("Too many requests at a time"), "{}", answer.text());
    assert_eq!(scrape(&gate)["portico_faults_total{reason=\"no_room\"}"], 1.0);
    // Nobody thinks ill of the endpoint, and whose turn it is gets the place of who is done.
    go.notify_one();
    go.notify_one();
    for client in &mut busy {
        assert_eq!(client.answer(false).await.text(), "ok");
    }
    go.notify_one();
    assert_eq!(gate.client().await.get("/").await.text(), "ok");
    assert_eq!(endpoint.log.requests().len(), 3);
}

#[tokio::test]
async fn idle_connections_make_room_for_needed_ones() {
    let (one, two, three) = (Endpoint::ok().await, Endpoint::ok().await, Endpoint::ok().await);
    let named = |path, name, endpoint: &Endpoint| Route {
        path,
        ..route(forward(vec![(1, upstream(name, &[endpoint.address]))]))
    };
    let routes = vec![named("/one", "one", &one), named("/two", "two", &two), named("/three", "three", &three)];
    let gate = Gate::with(narrow(), routes).await;
    let mut client = gate.client().await;
    for path in ["/one", "/two", "/three", "/one"] {
        assert_eq!(client.get(path).await.text(), "ok", "{path}");
    }
}

#[tokio::test]
async fn a_kept_connection_is_no_sign_of_health_before_there_is_an_answer() {
    let dying = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        // The node dies, and nobody says so.
        stream.rest().await;
    })
    .await;
    let other = Endpoint::ok().await;
    let limits = Limits { answer_timeout: std::time::Duration::from_millis(100), ..Limits::default() };
    let upstream = upstream("web", &[dying.address]);
    let routes = vec![route(forward(vec![(1, upstream.clone())]))];
    let gate = Gate::with(Options { limits, ..Options::default() }, routes).await;
    assert_eq!(gate.client().await.get("/").await.text(), "ok");
    upstream.failed(dying.address);
    assert_eq!(gate.client().await.get("/").await.status, 504);
    let addresses = [dying.address, other.address].map(portico::upstream::Address::Ip).to_vec();
    upstream.set_endpoints(portico::upstream::Endpoints { addresses, ..Default::default() });
    for turn in 0..4 {
        assert_eq!(upstream.next(turn, &[]), Some(other.address), "the other is still passed over");
    }
}
