//! Which endpoint gets a request: in turn or by load, past those that are down, of either family.

use std::time::Duration;

use portico::upstream::{Address, Balance, Endpoints};
use tokio::net::TcpListener;

use crate::books::scrape;
use crate::harness::{Endpoint, Gate, forward, reserve, route, upstream, within};

const REFUSED: &str = "portico_upstream_connects_total{outcome=\"refused\"}";

#[tokio::test]
async fn who_is_down_is_asked_seldom_until_it_is_back() {
    let endpoint = Endpoint::ok().await;
    let (address, reserved) = reserve();
    let gate = Gate::open(vec![route(forward(vec![(1, upstream("web", &[address, endpoint.address]))]))]).await;
    let mut client = gate.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    // One request in two would have found out again.
    let refused = scrape(&gate)[REFUSED];
    assert!((1.0..=5.0).contains(&refused), "{refused}");

    // Somebody listens there again, and is asked again when its time has come.
    reserved.listen(16).unwrap();
    reserved.set_nonblocking(true).unwrap();
    let back = TcpListener::from_std(reserved.into()).unwrap();
    let asked = back.accept();
    let asking = async {
        loop {
            client.get("/").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("a connection to who is back", async {
        tokio::select! {
            _ = asked => {}
            () = asking => {}
        }
    })
    .await;
}

#[tokio::test]
async fn the_idlest_is_next() {
    // Holds its first request until it is told, and answers all others.
    let busy = Endpoint::scripted(|mut stream, number| async move {
        while stream.request().await.is_some() {
            if number == 0 {
                stream.rest().await;
                return;
            }
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbusy").await;
        }
    })
    .await;
    let idle = Endpoint::ok().await;
    let web = upstream("web", &[]);
    let only = |address| Endpoints { addresses: vec![Address::Ip(address)], balance: Balance::LeastRequests };
    web.set_endpoints(only(busy.address));
    let gate = Gate::open(vec![route(forward(vec![(1, web.clone())]))]).await;
    let mut waiting = gate.client().await;
    waiting.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    busy.log.until("the request", |log| log.requests().len() == 1).await;

    let mut addresses = vec![Address::Ip(busy.address), Address::Ip(idle.address)];
    addresses.sort();
    web.set_endpoints(Endpoints { addresses, balance: Balance::LeastRequests });
    let mut client = gate.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    // The request it had is over, and both are alike.
    drop(waiting);
    busy.log.until("its end", |log| log.ended.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    within("a request to who was busy", async { while client.get("/").await.text() != "busy" {} }).await;
}

#[tokio::test]
async fn an_endpoint_that_is_removed_finishes_what_it_has() {
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let released = std::sync::Mutex::new(Some(released));
    let old = Endpoint::scripted(move |mut stream, _| {
        let released = released.lock().unwrap().take();
        async move {
            stream.request().await;
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await;
            drop(released.expect("one connection").await);
            stream.send("done").await;
            stream.rest().await;
        }
    })
    .await;
    let new = Endpoint::ok().await;
    let web = upstream("web", &[old.address]);
    let gate = Gate::open(vec![route(forward(vec![(1, web.clone())]))]).await;
    let mut waiting = gate.client().await;
    waiting.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    old.log.until("the request", |log| log.requests().len() == 1).await;
    web.set_endpoints(Endpoints { addresses: vec![Address::Ip(new.address)], ..Default::default() });
    assert_eq!(gate.client().await.get("/").await.text(), "ok");
    release.send(()).unwrap();
    assert_eq!(waiting.answer(false).await.text(), "halfdone");
}

#[tokio::test]
async fn endpoints_of_ipv6() {
    // Not every machine has it; then there is nothing to show.
    let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
    let endpoint = Endpoint::listening(listener, |mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    });
    let gate = Gate::open(vec![route(forward(vec![(1, upstream("web", &[endpoint.address]))]))]).await;
    assert_eq!(gate.client().await.get("/").await.text(), "ok");
    assert_eq!(endpoint.log.connections(), 1);
}
