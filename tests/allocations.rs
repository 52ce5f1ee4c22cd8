//! Allocations per request. A plain request must not allocate more than hyper itself. A request with Kong
//! compatibility, without plugins and with a typical plugin chain, must stay within the constants below. The exact
//! numbers are in `benches/baseline.toml`, so that improvements are kept, too; `UPDATE=1 make baseline` rewrites
//! them.
//!
//! The same requests go through Portico and through a minimal hyper proxy. Client and endpoint do not allocate here, so
//! all counted allocations belong to the proxy.

#![expect(clippy::unwrap_used, reason = "a panic fails the test, in helpers too")]

#[path = "proxy/frames.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod frames;
#[path = "proxy/harness.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod harness;
#[path = "allocations/http2_client.rs"]
mod http2_client;
#[path = "proxy/metrics.rs"]
mod metrics;
#[path = "harness/polling.rs"]
mod polling;
#[path = "harness/ports.rs"]
mod ports;
#[path = "proxy/tls_harness.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod tls_harness;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portico::compile::kong::rule_options;
use portico::limits::ProxyLimits;
use portico::plugin_api::ConsumerDirectory;
use portico::plugin_api::consumers::{EntityId, KeyCredential};
use portico::plugin_chain::testing::{chain, consumer};
use portico::plugins::REGISTRY;
use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::Snapshot;
use portico::snapshot::timeouts_and_retries::TimeoutsAndRetries;
use portico_load::baseline;
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use crate::harness::{
    Options, Route, TestServer, forward, reserve_address, route, routes_to, snapshot, upstream,
    with_timeouts_and_retries,
};
use crate::http2_client::Http2Client;
use crate::metrics::wait_for_metrics;
use crate::tls_harness::{TestTlsConnector, TlsListener, certificate, start_tls_server};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Number of measured requests, and of requests before.
const REQUESTS: usize = 1000;
/// The rounds in which they are measured.
const ROUNDS: usize = 10;
/// Additional allocations for an access log entry, which is written into an existing buffer.
const LOG_ALLOCATIONS: usize = 0;
const REQUEST: &[u8] = b"GET /path?query HTTP/1.1\r\nhost: a.example\r\nuser-agent: test\r\naccept: */*\r\n\r\n";
const REQUEST_WITH_KEY: &[u8] =
    b"GET /path?query HTTP/1.1\r\nhost: a.example\r\nuser-agent: test\r\naccept: */*\r\napikey: key\r\n\r\n";
/// Additional allocations of Kong compatibility, compared with hyper alone.
const KONG_ALLOCATIONS: usize = 3;
/// Additional allocations of key-auth, rate-limiting and correlation-id together.
const PLUGIN_ALLOCATIONS: usize = 2;
/// Half of the idle connections of a measurement. Each has two sockets in this process.
const IDLE_CONNECTIONS: usize = 100;
/// Bytes of an idle connection. Allocators round up, and resident memory is larger.
const MAX_IDLE_BYTES: usize = 1_740;
const MAX_IDLE_TLS_BYTES: usize = 10_000;
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";

/// Serializes the tests, since the allocator counts for the whole process.
static SERIAL: Mutex<()> = Mutex::new(());

#[test]
fn plain_request_allocates_no_more_than_hyper() {
    let _serial = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
    let endpoint = start_endpoint();
    let bare = per_request(start_bare_proxy(endpoint), REQUEST);
    let runtime = runtime();
    let server = runtime.block_on(TestServer::with_routes(routes_to(endpoint)));
    let portico = per_request(server.address, REQUEST);
    println!("allocations per request: hyper alone {bare:?}, Portico {portico:?}");
    assert!(
        portico.0 <= bare.0,
        "Portico allocates {} times per request and hyper alone {}: valgrind --tool=dhat shows where",
        portico.0,
        bare.0
    );
    // Its name is not one that the `http` crate defines.
    let with_key = per_request(server.address, REQUEST_WITH_KEY);
    println!("allocations per request with a field `apikey`: {with_key:?}");

    // The access log is on by default.
    let folder = tempfile::tempdir().unwrap();
    let log = AccessLogDestination::File(folder.path().join("access.log"));
    let server = runtime.block_on(TestServer::with_options(Options { log, ..Options::default() }, routes_to(endpoint)));
    let logged = per_request(server.address, REQUEST);
    println!("allocations per request with the access log: {logged:?}");
    assert!(
        logged.0 <= portico.0 + LOG_ALLOCATIONS,
        "Portico allocates {} times per request with the access log, and {} times without",
        logged.0,
        portico.0
    );
    let http2 = per_http2_request(server.address);
    println!("allocations per request over HTTP/2 with the access log: {http2:?}");
    expect_baseline(
        "allocations",
        &[
            ("hyper alone", bare.0),
            ("HTTP/1.1", portico.0),
            ("HTTP/1.1 with a field `apikey`", with_key.0),
            ("HTTP/1.1 with the access log", logged.0),
            ("HTTP/2 to HTTP/1.1 with the access log", http2.0),
        ],
    );
}

#[test]
fn kong_compatible_request_allocates_little_more() {
    let _serial = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
    let endpoint = start_endpoint();
    let bare = per_request(start_bare_proxy(endpoint), REQUEST_WITH_KEY);
    let runtime = runtime();
    let start_server = |plugins| {
        let (address, reserved) = reserve_address();
        let minute = Duration::from_secs(60);
        let action = with_timeouts_and_retries(
            forward(vec![(1, upstream("web", &[endpoint]))]),
            TimeoutsAndRetries::per_attempt(minute, minute, minute, 5),
        );
        let route = Route { plugins, options: Some(Box::new(rule_options::defaults())), ..route(action) };
        let snapshot = Snapshot { consumers: consumers().into(), ..snapshot(address, vec![route]) };
        runtime.block_on(async {
            let server = TestServer::start(Options::default(), address, reserved, snapshot);
            server.proxy.reconcile().await;
            server
        })
    };
    let server = start_server(None);
    let without_plugins = per_request(server.address, REQUEST_WITH_KEY);
    let plugins = [
        ("key-auth", json!({})),
        ("rate-limiting", json!({"minute": 9000, "policy": "local"})),
        ("correlation-id", json!({"echo_downstream": true})),
    ];
    let plugins = plugins.map(|(name, config)| (REGISTRY.find(name).unwrap(), config));
    let server = start_server(Some(chain(&plugins)));
    let with_plugins = per_request(server.address, REQUEST_WITH_KEY);
    println!(
        "allocations per request: hyper alone {bare:?}, Kong compatibility {without_plugins:?}, with plugins \
         {with_plugins:?}"
    );
    assert!(
        without_plugins.0 <= bare.0 + KONG_ALLOCATIONS,
        "a request with Kong compatibility allocates {} times, with hyper alone {}",
        without_plugins.0,
        bare.0
    );
    assert!(
        with_plugins.0 <= without_plugins.0 + PLUGIN_ALLOCATIONS,
        "a request allocates {} times with plugins, and {} times without",
        with_plugins.0,
        without_plugins.0
    );
    expect_baseline(
        "allocations-kong",
        &[
            ("hyper alone", bare.0),
            ("HTTP/1.1", without_plugins.0),
            ("HTTP/1.1 with key-auth, rate-limiting, correlation-id", with_plugins.0),
        ],
    );
}

/// A connection that waits for a request has no buffers, whatever it was used for.
#[test]
fn idle_connections_take_little_memory() {
    let _serial = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
    let endpoint = start_endpoint();
    let runtime = runtime();
    let limits = ProxyLimits { park_after: Duration::from_millis(1), ..ProxyLimits::default() };
    let options = || Options { limits: limits.clone(), ..Options::default() };
    let plain = runtime.block_on(TestServer::with_options(options(), routes_to(endpoint)));
    let certificates = vec![certificate(&["a.example"])];
    let listener = TlsListener { hostname: "", certificates, routes: routes_to(endpoint) };
    let tls = runtime.block_on(start_tls_server(options(), vec![listener]));
    let connector = TestTlsConnector::new();
    let mut upload = b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 400000\r\n\r\n".to_vec();
    upload.resize(upload.len() + 400_000, b'x');
    for (what, request) in [("before a request", &b""[..]), ("after a request", REQUEST), ("after an upload", &upload)]
    {
        let in_plain_text = per_idle_connection(&runtime, &plain, || idle_client(&plain, request));
        let with_tls = per_idle_connection(&runtime, &tls, || idle_tls_client(&tls, &connector, request));
        println!("bytes per idle connection {what}: {in_plain_text}, with TLS {with_tls}");
        assert!(
            in_plain_text <= MAX_IDLE_BYTES && with_tls <= MAX_IDLE_TLS_BYTES,
            "an idle connection {what} takes {in_plain_text} bytes, with TLS {with_tls}: valgrind --tool=dhat shows \
             where"
        );
    }
}

/// Bytes of the heap for each connection, once they are parked.
fn per_idle_connection(runtime: &Runtime, server: &TestServer, connect: impl Fn() -> TcpStream) -> usize {
    let wait_for_parked = |count: usize| {
        runtime.block_on(wait_for_metrics(server, "parked connections", |metrics| {
            metrics["portico_parked_connections"] == f64::from(u32::try_from(count).unwrap())
        }));
    };
    // The first connections create what all share.
    let mut clients: Vec<TcpStream> = Vec::with_capacity(2 * IDLE_CONNECTIONS);
    clients.extend((0..IDLE_CONNECTIONS).map(|_| connect()));
    wait_for_parked(IDLE_CONNECTIONS);
    let region = Region::new(ALLOCATOR);
    clients.extend((0..IDLE_CONNECTIONS).map(|_| connect()));
    wait_for_parked(2 * IDLE_CONNECTIONS);
    let change = region.change();
    drop(clients);
    wait_for_parked(0);
    change.bytes_allocated.saturating_sub(change.bytes_deallocated) / IDLE_CONNECTIONS
}

/// A connection after this request, if it is not empty.
fn idle_client(server: &TestServer, request: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(server.address).unwrap();
    exchange(&mut client, request);
    client
}

/// The socket of such a connection with TLS. The memory of the client's session is released.
fn idle_tls_client(server: &TestServer, connector: &TestTlsConnector, request: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(server.address).unwrap();
    let mut session = connector.session("a.example");
    session.complete_io(&mut socket).unwrap();
    exchange(&mut rustls::Stream::new(&mut session, &mut socket), request);
    socket
}

fn exchange(client: &mut (impl Read + Write), request: &[u8]) {
    if request.is_empty() {
        return;
    }
    client.write_all(request).unwrap();
    let mut response = [0; 4096];
    let mut read = 0;
    while !response[..read].ends_with(b"\r\n\r\nok") {
        let more = client.read(&mut response[read..]).unwrap();
        assert!(more > 0, "the connection closed: {:?}", String::from_utf8_lossy(&response[..read]));
        read += more;
    }
}

/// The same allocations as in the baseline, no more and no fewer.
fn expect_baseline(section: &str, measured: &[(&str, usize)]) {
    let measured: Vec<_> =
        measured.iter().map(|(name, allocations)| (*name, u64::try_from(*allocations).unwrap())).collect();
    baseline::compare(section, "allocations per request", &measured, 0.0).unwrap_or_else(|message| panic!("{message}"));
}

/// One consumer with a key.
fn consumers() -> ConsumerDirectory {
    let mut directory = ConsumerDirectory::default();
    let anna = consumer("anna", &[]);
    directory.add(&anna);
    directory.keys.insert(KeyCredential::new(EntityId::from_text("id-key"), b"key", None, anna).into());
    directory
}

/// Number of allocations and of allocated bytes for a request in this process.
fn per_request(proxy: SocketAddr, request: &[u8]) -> (usize, usize) {
    let mut client = TcpStream::connect(proxy).unwrap();
    client.set_nodelay(true).unwrap();
    let mut buffer = [0; 4096];
    measure_exchanges(|| {
        client.write_all(request).unwrap();
        let mut read = 0;
        while !buffer[..read].ends_with(b"\r\n\r\nok") {
            let more = client.read(&mut buffer[read..]).unwrap();
            assert!(more > 0, "the connection closed: {:?}", String::from_utf8_lossy(&buffer[..read]));
            read += more;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    })
}

/// Like [`per_request`], but over HTTP/2.
fn per_http2_request(proxy: SocketAddr) -> (usize, usize) {
    let mut client = Http2Client::connect(proxy);
    measure_exchanges(|| client.exchange())
}

/// Number of allocations and of allocated bytes for a call in this process.
fn measure_exchanges(mut exchange: impl FnMut()) -> (usize, usize) {
    // The first requests create connections, series and buffers.
    for _ in 0..REQUESTS {
        exchange();
    }
    // On a busy machine, the parts of a message may arrive apart, which takes more allocations: the round with the
    // fewest is that of messages that arrive whole.
    (0..ROUNDS).map(|_| measure_round(&mut exchange)).min().unwrap()
}

fn measure_round(exchange: &mut impl FnMut()) -> (usize, usize) {
    const OF_ROUND: usize = REQUESTS / ROUNDS;
    let region = Region::new(ALLOCATOR);
    for _ in 0..OF_ROUND {
        exchange();
    }
    let change = region.change();
    let (times, bytes) = (change.allocations + change.reallocations, change.bytes_allocated);
    // Rounding removes occasional allocations that do not belong to a request.
    ((times + OF_ROUND / 2) / OF_ROUND, bytes / OF_ROUND)
}

/// Starts an upstream endpoint that responds to every request without allocating.
fn start_endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                // `missing` bytes of the current request have not arrived, unless its head is incomplete.
                let (mut read, mut missing) = (0, 0);
                while let Ok(more @ 1..) = stream.read(&mut buffer[read..]) {
                    read += more;
                    if missing == 0 {
                        let Some(end) = buffer[..read].windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                            continue;
                        };
                        missing = end + 4 + content_length(&buffer[..end]);
                    }
                    missing -= std::mem::take(&mut read);
                    if missing == 0 && stream.write_all(RESPONSE).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// The length of the body, 0 if the head does not have one.
fn content_length(head: &[u8]) -> usize {
    let head = str::from_utf8(head).unwrap();
    head.split_once("content-length: ").map_or(0, |(_, rest)| rest.lines().next().unwrap().parse().unwrap())
}

/// Starts a proxy that only uses hyper, with one downstream and one upstream connection.
fn start_bare_proxy(endpoint: SocketAddr) -> SocketAddr {
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
            // Ends together with the client.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), service).await);
        };
        runtime().block_on(LocalSet::new().run_until(serve));
    });
    address
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}
