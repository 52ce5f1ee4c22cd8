//! What a request costs in allocations. A plain one: those of hyper, and none of ours. One of Kong's class, without plugins and
//! with the chain that nearly every installation has: few more, and no more than is written down here.
//!
//! The same requests go through Portico and through the least that hyper can do as a proxy. Client and endpoint here
//! allocate nothing, so whatever is counted in this process is the proxy's.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to panic, in what helps it too")]

#[path = "proxy/harness.rs"]
#[expect(dead_code, reason = "made for more than one test")]
mod harness;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::thread;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portico::plugin::Directory;
use portico::plugin::consumers::{Id, KeyCredential};
use portico::plugin::testing::{chain, consumer};
use portico::plugins::REGISTRY;
use portico::proxy::access_log::Destination;
use portico::snapshot::Snapshot;
use portico::snapshot::tries::Tries;
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use crate::harness::{Gate, Options, Route, forward, reserve, route, snapshot, to, trying, upstream};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: usize = 1000;
/// What a record may cost: nothing, since it becomes text in memory that is there.
const LOGGING: usize = 0;
const REQUEST: &[u8] = b"GET /path?query HTTP/1.1\r\nhost: a.example\r\nuser-agent: test\r\naccept: */*\r\n\r\n";
const WITH_KEY: &[u8] =
    b"GET /path?query HTTP/1.1\r\nhost: a.example\r\nuser-agent: test\r\naccept: */*\r\napikey: key\r\n\r\n";
/// Of Kong's manner.
const MANNER: usize = 3;
/// Of key-auth, rate-limiting and correlation-id besides.
const CHAIN: usize = 3;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";

/// What is counted is what the whole process does.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_plain_request_allocates_no_more_than_hyper_does() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let endpoint = endpoint();
    let bare = per_request(bare_proxy(endpoint), REQUEST);
    let runtime = runtime();
    let gate = runtime.block_on(Gate::open(to(endpoint)));
    let portico = per_request(gate.address, REQUEST);
    println!("allocations per request: hyper alone {bare:?}, Portico {portico:?}");
    assert!(
        portico.0 <= bare.0,
        "Portico allocates {} times per request and hyper alone {}: valgrind --tool=dhat says where",
        portico.0,
        bare.0
    );

    // The access log is on by default.
    let folder = tempfile::tempdir().unwrap();
    let log = Destination::File(folder.path().join("access.log"));
    let gate = runtime.block_on(Gate::with(Options { log, ..Options::default() }, to(endpoint)));
    let logged = per_request(gate.address, REQUEST);
    println!("allocations per request with the access log: {logged:?}");
    assert!(
        logged.0 <= portico.0 + LOGGING,
        "with the access log Portico allocates {} times per request, and {} times without",
        logged.0,
        portico.0
    );
}

#[test]
fn a_request_of_kongs_class_allocates_little_more_and_hardly_anything_for_its_plugins() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let endpoint = endpoint();
    let bare = per_request(bare_proxy(endpoint), WITH_KEY);
    let runtime = runtime();
    let open = |plugins| {
        let (address, reserved) = reserve();
        let action = trying(forward(vec![(1, upstream("web", &[endpoint]))]), Tries::usual_of_service());
        let route = Route { plugins, kong: Some(Box::default()), ..route(action) };
        let snapshot = Snapshot { consumers: consumers().into(), ..snapshot(address, vec![route]) };
        runtime.block_on(async {
            let gate = Gate::start(Options::default(), address, reserved, snapshot);
            gate.proxy.reconcile().await;
            gate
        })
    };
    let gate = open(None);
    let plain = per_request(gate.address, WITH_KEY);
    let plugins = [
        ("key-auth", json!({})),
        ("rate-limiting", json!({"minute": 9000, "policy": "local"})),
        ("correlation-id", json!({"echo_downstream": true})),
    ];
    let plugins = plugins.map(|(name, config)| (REGISTRY.find(name).unwrap(), config));
    let gate = open(Some(chain(&plugins)));
    let chained = per_request(gate.address, WITH_KEY);
    println!("allocations per request: hyper alone {bare:?}, Kong's manner {plain:?}, with plugins {chained:?}");
    assert!(plain.0 <= bare.0 + MANNER, "Kong's manner allocates {} times, and hyper alone {}", plain.0, bare.0);
    assert!(chained.0 <= plain.0 + CHAIN, "with plugins it is {} times, and {} without", chained.0, plain.0);
}

/// One, with a key.
fn consumers() -> Directory {
    let mut directory = Directory::default();
    let anna = consumer("anna", &[]);
    directory.add(&anna);
    directory.keys.insert(KeyCredential::new(Id::of("id-key"), b"key", None, anna).into());
    directory
}

/// Allocations and bytes, of whoever works in this process while a client asks.
fn per_request(proxy: SocketAddr, request: &[u8]) -> (usize, usize) {
    let mut client = TcpStream::connect(proxy).unwrap();
    client.set_nodelay(true).unwrap();
    let mut buffer = [0; 4096];
    let mut ask = || {
        client.write_all(request).unwrap();
        let mut read = 0;
        while !buffer[..read].ends_with(b"\r\n\r\nok") {
            let more = client.read(&mut buffer[read..]).unwrap();
            assert!(more > 0, "the connection closed: {:?}", String::from_utf8_lossy(&buffer[..read]));
            read += more;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    };
    // Connections, series and buffers are made by the first ones.
    for _ in 0..REQUESTS {
        ask();
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..REQUESTS {
        ask();
    }
    let change = region.change();
    let (times, bytes) = (change.allocations + change.reallocations, change.bytes_allocated);
    // Something that happens every now and then is not of a request.
    ((times + REQUESTS / 2) / REQUESTS, bytes / REQUESTS)
}

/// Answers every request, without allocating.
fn endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                let mut read = 0;
                while let Ok(more @ 1..) = stream.read(&mut buffer[read..]) {
                    read += more;
                    if buffer[..read].ends_with(b"\r\n\r\n") {
                        read = 0;
                        if stream.write_all(ANSWER).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

/// One connection in, one out, nothing decided.
fn bare_proxy(endpoint: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (client, _) = listener.accept().await.unwrap();
            let upstream = tokio::net::TcpStream::connect(endpoint).await.unwrap();
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(upstream)).await.unwrap();
            tokio::task::spawn_local(connection);
            let sender = Rc::new(tokio::sync::Mutex::new(sender));
            let service = service_fn(move |request| {
                let sender = Rc::clone(&sender);
                async move {
                    let mut sender = sender.lock().await;
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            });
            // It ends with the client.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), service).await);
        };
        runtime().block_on(LocalSet::new().run_until(serve));
    });
    address
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}
