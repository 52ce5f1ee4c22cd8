//! Listening, stopping to listen, draining, and new snapshots under running requests.

use std::sync::Arc;
use std::time::Duration;

use portico::proxy::{BindState, Limits};
use portico::snapshot::Snapshot;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::harness::{Client, Endpoint, Gate, Options, reserve, snapshot, to, within};

/// An endpoint that sends half of its answer, and the rest when it is told to.
async fn halting() -> (Endpoint, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let told = Arc::clone(&told);
        async move {
            while stream.request().await.is_some() {
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await;
                told.notified().await;
                stream.send("half").await;
            }
        }
    })
    .await;
    (endpoint, go)
}

async fn ask(client: &mut Client) {
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
}

#[tokio::test]
async fn a_download_goes_on_through_new_snapshots() {
    let (endpoint, go) = halting().await;
    let other = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut client = gate.client().await;
    ask(&mut client).await;
    endpoint.log.until("the request", |log| log.requests().len() == 1).await;
    for _ in 0..3 {
        gate.swap(to(other.address));
        assert_eq!(gate.proxy.reconcile().await, [(gate.address, BindState::Bound)].into());
        assert_eq!(gate.client().await.get("/").await.text(), "ok");
    }
    go.notify_one();
    assert_eq!(client.answer(false).await.text(), "halfhalf");
    // The connection goes by the new snapshot from its next request on.
    assert_eq!(client.get("/").await.text(), "ok");
}

#[tokio::test]
async fn many_swaps_under_many_requests_fail_none() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::with(Options { workers: 2, ..Options::default() }, to(endpoint.address)).await;
    let clients = async {
        for _ in 0..20 {
            let mut client = gate.client().await;
            for _ in 0..20 {
                assert_eq!(client.get("/").await.text(), "ok");
            }
        }
    };
    let swaps = async {
        loop {
            gate.swap(to(endpoint.address));
            gate.proxy.reconcile().await;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = clients => {}
        () = swaps => {}
    }
}

#[tokio::test]
async fn until_its_socket_is_closed_an_address_is_served_as_by_its_last_snapshot() {
    let (first, last) =
        (Endpoint::ok().await, Endpoint::answering("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlast").await);
    let gate = Gate::with(Options { workers: 2, ..Options::default() }, to(first.address)).await;
    // No worker has a request under this one.
    gate.swap(to(last.address));
    gate.proxy.reconcile().await;
    gate.snapshot.store(Arc::new(Snapshot::default()));
    for _ in 0..16 {
        assert_eq!(gate.client().await.get("/").await.text(), "last");
    }
}

#[tokio::test]
async fn a_listener_that_goes_lets_its_requests_finish() {
    let (endpoint, go) = halting().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let (mut busy, mut idle, mut fresh) = (gate.client().await, gate.client().await, gate.client().await);
    ask(&mut idle).await;
    endpoint.log.until("the first request", |log| log.requests().len() == 1).await;
    go.notify_one();
    idle.answer(false).await;
    ask(&mut busy).await;
    endpoint.log.until("the second request", |log| log.requests().len() == 2).await;

    gate.snapshot.store(Arc::new(Snapshot::default()));
    assert_eq!(gate.proxy.reconcile().await, [].into());
    assert!(TcpStream::connect(gate.address).await.is_err(), "nobody listens");
    assert_eq!(idle.rest().await.unwrap(), b"");
    go.notify_one();
    assert_eq!(busy.answer(false).await.text(), "halfhalf");
    assert_eq!(busy.rest().await.unwrap(), b"");
    // One that was accepted but has not asked yet is still served as before, and told that this was the last.
    ask(&mut fresh).await;
    go.notify_one();
    let answer = fresh.answer(false).await;
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("halfhalf", Some("close")));

    // The address can be had again at once.
    gate.swap(to(endpoint.address));
    assert_eq!(gate.proxy.reconcile().await, [(gate.address, BindState::Bound)].into());
    go.notify_one();
    assert_eq!(gate.client().await.get("/").await.text(), "halfhalf");
}

#[tokio::test]
async fn a_listener_that_goes_does_not_keep_its_connections_for_ever() {
    let (endpoint, _go) = halting().await;
    let limits = Limits { listener_leave: Duration::from_millis(100), ..Limits::default() };
    let gate = Gate::with(Options { limits, ..Options::default() }, to(endpoint.address)).await;
    let mut busy = gate.client().await;
    ask(&mut busy).await;
    endpoint.log.until("the request", |log| log.requests().len() == 1).await;
    gate.snapshot.store(Arc::new(Snapshot::default()));
    gate.proxy.reconcile().await;
    assert_eq!(busy.try_answer(false).await, None);
}

#[tokio::test]
async fn an_occupied_port_is_reported_and_taken_when_it_is_free() {
    let endpoint = Endpoint::ok().await;
    let (address, reserved) = reserve();
    // Somebody else who would share the port.
    reserved.set_reuse_port(true).unwrap();
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    other.set_reuse_port(true).unwrap();
    other.set_reuse_address(true).unwrap();
    other.bind(&address.into()).unwrap();
    other.listen(1).unwrap();
    let gate = Gate::start(Options::default(), address, reserved, snapshot(address, to(endpoint.address)));
    for _ in 0..2 {
        assert_eq!(gate.proxy.reconcile().await, [(address, BindState::InUse)].into());
    }
    drop(other);
    assert_eq!(gate.proxy.reconcile().await, [(address, BindState::Bound)].into());
    assert_eq!(gate.client().await.get("/").await.text(), "ok");
}

#[tokio::test]
async fn one_address_that_fails_does_not_keep_others_from_being_served() {
    let endpoint = Endpoint::ok().await;
    let (address, reserved) = reserve();
    let foreign = "192.0.2.1:8080".parse().unwrap();
    let mut both = snapshot(address, to(endpoint.address));
    both.binds.extend(snapshot(foreign, vec![]).binds);
    let gate = Gate::start(Options::default(), address, reserved, both);
    let binds = gate.proxy.reconcile().await;
    assert_eq!(binds[&address], BindState::Bound);
    assert_eq!(binds[&foreign], BindState::NotOurs);
    assert_eq!(gate.client().await.get("/").await.text(), "ok");
}

#[tokio::test]
async fn draining_lets_requests_finish_and_cuts_what_does_not() {
    for finish in [true, false] {
        let (endpoint, go) = halting().await;
        let gate = Gate::with(Options { workers: 2, ..Options::default() }, to(endpoint.address)).await;
        let mut busy = gate.client().await;
        ask(&mut busy).await;
        endpoint.log.until("the request", |log| log.requests().len() == 1).await;
        let timeout = if finish { Duration::from_secs(20) } else { Duration::from_millis(100) };
        let (cut, answer) = tokio::join!(gate.proxy.drain(timeout), async {
            // The half that is there already is read first, so that draining has begun in the meantime or not, as it likes.
            if finish {
                go.notify_one();
            }
            busy.try_answer(false).await
        });
        if finish {
            assert_eq!((cut, answer.map(|answer| answer.text())), (0, Some("halfhalf".to_owned())));
        } else {
            assert_eq!((cut, answer), (1, None));
        }
        assert!(TcpStream::connect(gate.address).await.is_err(), "nobody listens");
        assert_eq!(gate.proxy.reconcile().await, [].into(), "nothing is bound any more");
        assert_eq!(gate.proxy.stats().connections(), 0);
    }
}

#[tokio::test]
async fn draining_answers_what_was_queued() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::with(Options { workers: 2, ..Options::default() }, to(endpoint.address)).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = gate.client().await;
        ask(&mut client).await;
        clients.push(client);
    }
    assert_eq!(gate.proxy.drain(Duration::from_secs(20)).await, 0);
    for mut client in clients {
        assert_eq!(client.answer(false).await.text(), "ok");
        assert_eq!(client.rest().await.unwrap(), b"");
    }
}

#[tokio::test]
async fn dropping_the_proxy_ends_everything_at_once() {
    let (endpoint, _go) = halting().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let (mut busy, mut idle) = (gate.client().await, gate.client().await);
    ask(&mut busy).await;
    endpoint.log.until("the request", |log| log.requests().len() == 1).await;
    let Gate { proxy, address, .. } = gate;
    drop(proxy);
    assert_eq!(busy.try_answer(false).await, None);
    assert!(idle.rest().await.unwrap_or_default().is_empty());
    // The threads end one after the other.
    within("the end of listening", async { while TcpStream::connect(address).await.is_ok() {} }).await;
}
