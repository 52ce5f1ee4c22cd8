//! What a response holds in memory counts until its client has it, and so long is its request in progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use portico::limits::ProxyLimits;
use portico::plugin_api::instance::PluginInstance;
use portico::plugin_api::{
    BackendReplacement, BeyondLimit, BodyFilter, BufferedFilter, Phases, Plugin, ReplaceBackendCx, Reply, ReplyBody,
};
use portico::plugin_chain::Chain;
use portico::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use portico::plugin_chain::testing::{global_instance, names};
use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::Snapshot;
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

use crate::accounting::{access_log_records, scrape, wait_for_metrics};
use crate::frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RawConnection, WINDOW_UPDATE};
use crate::frames::{GET as GET_FIELDS, frame, get_request, header_block, initial_window_size};
use crate::harness::{Client, Endpoint, LONGER_THAN_PAUSES, Options, Route, TestServer};
use crate::harness::{forward, route, snapshot, upstream, with_timeout};
use crate::plugins::{ScriptedPlugin, chain, route_with_plugins};
use crate::slow_clients::{SLOW, other};

/// More than what the sockets of a connection take.
const BODY: usize = 24 << 20;
const CLIENTS: usize = 3;
const GET: &str = "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";

/// A filter that reads the whole body, which the plugins mask, jq and the transformers add.
fn changing_bodies() -> Option<Arc<Chain>> {
    chain(vec![ScriptedPlugin::response(|cx| {
        cx.push_body_filter(BodyFilter::Buffered(BufferedFilter {
            max_bytes: 2 * BODY,
            beyond_limit: BeyondLimit::PassUnchanged,
            reads_text: false,
            transform: Box::new(|body: &[u8]| Some(Bytes::copy_from_slice(body))),
        }));
    })])
}

/// A filter that makes a small body large, as decoding does.
fn growing_bodies() -> Option<Arc<Chain>> {
    chain(vec![ScriptedPlugin::response(|cx| {
        cx.push_body_filter(BodyFilter::Buffered(BufferedFilter {
            max_bytes: 2 * BODY,
            beyond_limit: BeyondLimit::PassUnchanged,
            reads_text: false,
            transform: Box::new(|_: &[u8]| Some(vec![b'x'; BODY].into())),
        }));
    })])
}

/// Responds in place of the backend, as aws-lambda and aggregate do.
struct Collecting;

impl Plugin for Collecting {
    fn replace_backend<'a>(&'a self, cx: &'a mut ReplaceBackendCx<'_>) -> BackendReplacement<'a> {
        BackendReplacement::Wait(Box::pin(async move {
            let mut kept = cx.body_budget.begin();
            kept.grow(BODY).await.unwrap();
            cx.kept.push(kept);
            Reply::new(StatusCode::OK, ReplyBody::Collected(vec![b'x'; BODY].into()), Reply::NO_REASON)
        }))
    }
}

fn collecting() -> Option<Arc<Chain>> {
    let instance = PluginInstance { phases: Phases::REPLACE_BACKEND, ..global_instance(Arc::new(Collecting)) };
    let mut builder = ChainBuilder::default();
    builder.add("collecting", 10, AttachmentPoint::Base(BaseScope::Route), instance);
    builder.build(names())
}

async fn server(plugins: Option<Arc<Chain>>, response: usize, options: Options) -> (TestServer, Endpoint) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {response}\r\n\r\n");
    let endpoint = Endpoint::responding_with([head.into_bytes(), vec![b'x'; response]].concat()).await;
    let limits = ProxyLimits { max_buffered_bytes: 8 * CLIENTS * BODY, ..ProxyLimits::default() };
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let routes = vec![Route { plugins, ..route(action) }];
    (TestServer::with_options(Options { limits, ..options }, routes).await, endpoint)
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    with_timeout(what, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn buffered(server: &TestServer) -> usize {
    scrape(server)["portico_buffered_bytes"] as usize
}

/// A client that reads a response in its own time.
struct SlowReader {
    client: Client,
    /// How much of the body it has read.
    read: usize,
}

impl SlowReader {
    /// Reads the head of the response, and little of its body.
    async fn begin(server: &TestServer) -> SlowReader {
        let mut client = server.connect().await;
        client.send(GET).await;
        let mut received = Vec::new();
        let read = with_timeout("the head", async {
            loop {
                client.socket.read_buf(&mut received).await.unwrap();
                let mut ends = received.windows(4).enumerate().filter(|(_, bytes)| *bytes == b"\r\n\r\n");
                if let Some((end, _)) = ends.next() {
                    break received.len() - end - 4;
                }
            }
        });
        let read = read.await;
        SlowReader { client, read }
    }

    async fn read_all(&mut self) {
        let mut rest = vec![0; BODY - self.read];
        with_timeout("the body", self.client.socket.read_exact(&mut rest)).await.unwrap();
    }
}

#[tokio::test]
async fn bodies_that_plugins_have_made_count_until_their_clients_have_read_them() {
    let cases = [
        ("changed", changing_bodies(), BODY),
        ("grown", growing_bodies(), 10),
        ("in place of the backend", collecting(), 10),
    ];
    for (name, plugin, length) in cases {
        let (server, _endpoint) = server(plugin, length, Options::default()).await;
        let mut clients = Vec::new();
        for number in 1..=CLIENTS {
            clients.push(SlowReader::begin(&server).await);
            assert!(buffered(&server) >= number * BODY, "{name}: {} of {number}", buffered(&server));
        }
        let mut reading = clients.remove(0);
        reading.read_all().await;
        wait_until("the bytes of one to be returned", || buffered(&server) < CLIENTS * BODY).await;
        assert!(buffered(&server) >= (CLIENTS - 1) * BODY, "{name}");
        drop((reading, clients));
        wait_until("the bytes to be returned", || buffered(&server) < BODY).await;
    }
}

/// The library takes a part only while the client has a window, and takes all of a part.
#[tokio::test]
async fn streams_that_are_not_read_hold_a_part_and_count_the_rest() {
    for (name, plugin, length) in [("changed", changing_bodies(), BODY), ("of a function", collecting(), 10)] {
        let (server, _endpoint) = server(plugin, length, Options::default()).await;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let settings = initial_window_size(1000);
            let mut raw = RawConnection::connect_with_settings(server.address, &settings).await;
            raw.send(get_request(1)).await;
            raw.wait_for("the head", |frame| frame.kind == HEADERS).await;
            raw.wait_for("data", |frame| frame.kind == DATA).await;
            clients.push(raw);
        }
        let metrics = scrape(&server);
        let unforwarded = metrics["portico_unforwarded_bytes"] as usize;
        assert!(unforwarded < CLIENTS * (256 << 10), "{name}: {unforwarded} bytes");
        assert!(buffered(&server) >= CLIENTS * BODY, "{name}: {}", buffered(&server));
        drop(clients);
        wait_until("the bytes to be returned", || buffered(&server) < BODY).await;
        wait_until("the rest to be returned", || scrape(&server)["portico_unforwarded_bytes"] < 200_000.0).await;
    }
}

/// The log said that a client which has read nothing has all bytes.
#[tokio::test]
async fn log_has_the_bytes_that_were_sent_and_not_those_that_waited() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let options = Options { log: AccessLogDestination::File(path.clone()), ..Options::default() };
    let (server, _endpoint) = server(changing_bodies(), BODY, options).await;
    drop(SlowReader::begin(&server).await);
    let settings = initial_window_size(100_000);
    let mut stream = RawConnection::connect_with_settings(server.address, &settings).await;
    stream.send(get_request(1)).await;
    stream.wait_for("the head", |frame| frame.kind == HEADERS).await;
    drop(stream);
    let mut whole = SlowReader::begin(&server).await;
    whole.read_all().await;
    drop(whole);
    wait_until("the bytes to be returned", || buffered(&server) < BODY).await;
    assert_eq!(server.proxy.drain(crate::harness::TEST_TIMEOUT).await, 0);
    server.log.finish();
    let records = access_log_records(&path);
    let logged: Vec<_> =
        records.iter().map(|record| (record["error"].as_str(), record["bytes_out"].as_u64().unwrap())).collect();
    assert_eq!(logged.len(), 3, "{logged:?}");
    let whole = logged.iter().filter(|(error, bytes)| error.is_none() && *bytes == BODY as u64).count();
    let cut = logged.iter().filter(|(error, _)| *error == Some("client_disconnected"));
    let cut: Vec<_> = cut.map(|(_, bytes)| *bytes).collect();
    assert_eq!((whole, cut.len()), (1, 2), "{logged:?}");
    assert!(cut.iter().all(|bytes| *bytes < BODY as u64) && cut.iter().any(|bytes| *bytes <= 100_000), "{cut:?}");
}

/// The last part of a response has no stream any more, and another stream kept the connection open.
#[tokio::test]
async fn connection_closes_if_its_client_does_not_read_the_end_of_a_response() {
    const LENGTH: usize = 1 << 20;
    /// Less than the last part.
    const UNREAD: usize = 1000;
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            if request.starts_with("GET /hang ") {
                stream.read_to_end().await;
                return;
            }
            stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
            stream.send(vec![b'x'; LENGTH]).await;
        }
    })
    .await;
    let limits = ProxyLimits { stall_timeout: LONGER_THAN_PAUSES, ..ProxyLimits::default() };
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let routes = vec![Route { plugins: changing_bodies(), ..route(action) }];
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    let settings = initial_window_size((LENGTH - UNREAD) as u32);
    let mut raw = RawConnection::connect_with_settings(server.address, &settings).await;
    let hanging = [(":method", "GET"), (":scheme", "http"), (":path", "/hang"), (":authority", "a.example")];
    let requests = [frame(HEADERS, END_HEADERS | END_STREAM, 1, &header_block(&hanging)), get_request(3)];
    raw.send([frame(WINDOW_UPDATE, 0, 0, &(LENGTH as u32).to_be_bytes()), requests.concat()].concat()).await;
    let mut received = 0;
    while received < LENGTH - UNREAD {
        received += raw.wait_for("the response", |frame| frame.kind == DATA).await.payload.len();
    }
    assert!(buffered(&server) >= LENGTH);
    // Far less than the response timeout of the other stream, and than the timeout of a ping.
    let rest = timeout(10 * LONGER_THAN_PAUSES, raw.read_to_end()).await.expect("the connection stays open");
    assert!(rest.iter().any(|frame| frame.kind == GOAWAY), "{rest:?}");
    wait_until("the bytes to be returned", || buffered(&server) < LENGTH).await;
}

/// A client that does not read has this time while bodies in memory are scarce.
const SCARCE_STALL_TIMEOUT: Duration = Duration::from_millis(300);
/// A body of these tests is two fifths of the limit, which is as much as one may be.
const LIMIT: usize = BODY / 2 * 5;
/// Namespaces, the paths of their routes, whose plugins read bodies, and what such a body may take of the limit in
/// percent.
const UPLOADS: [(&str, &str, usize); 4] = [("a", "/a", 40), ("b", "/b", 26), ("c", "/c", 14), ("d", "/d", 8)];

async fn server_with_uploads(plugins: Option<Arc<Chain>>) -> (TestServer, Endpoint) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n");
    let endpoint = Endpoint::responding_with([head.into_bytes(), vec![b'x'; BODY]].concat()).await;
    let action = || forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let mut routes = vec![Route { plugins, ..route(action()) }];
    for (namespace, path, _) in UPLOADS {
        let reading = vec![ScriptedPlugin::reading_bodies(LIMIT)];
        routes.push(Route { namespace, path, ..route_with_plugins(reading, action()) });
    }
    let limits =
        ProxyLimits { max_buffered_bytes: LIMIT, scarce_stall_timeout: SCARCE_STALL_TIMEOUT, ..ProxyLimits::default() };
    (TestServer::with_options(Options { limits, ..Options::default() }, routes).await, endpoint)
}

/// Sends all but the last byte of a body.
async fn upload(server: &TestServer, path: &str, percent: usize) -> Client {
    let length = LIMIT / 100 * percent;
    let mut client = server.connect().await;
    client.send(format!("POST {path} HTTP/1.1\r\nhost: a.example\r\ncontent-length: {}\r\n\r\n", length + 1)).await;
    client.send(vec![b'x'; length]).await;
    client
}

/// A client that paused lost its response because of what others hold.
#[tokio::test]
async fn response_without_a_body_in_memory_may_wait_while_these_are_scarce() {
    let (server, _endpoint) = server_with_uploads(None).await;
    let mut reader = SlowReader::begin(&server).await;
    let (mut uploads, mut held) = (Vec::new(), 0);
    for (_, path, percent) in UPLOADS {
        uploads.push(upload(&server, path, percent).await);
        held += LIMIT / 100 * percent;
        wait_until("the body to be kept", || buffered(&server) >= held).await;
    }
    sleep(10 * SCARCE_STALL_TIMEOUT).await; // Longer than a client may take whose response holds a body.
    reader.read_all().await;
    drop(uploads);
}

#[tokio::test]
async fn response_with_a_body_in_memory_ends_while_these_are_scarce() {
    let (server, _endpoint) = server_with_uploads(changing_bodies()).await;
    let reader = SlowReader::begin(&server).await;
    let (mut uploads, mut held) = (Vec::new(), LIMIT / 100 * 40);
    for (_, path, percent) in &UPLOADS[1..] {
        wait_until("the body to be kept", || buffered(&server) >= held).await;
        uploads.push(upload(&server, path, *percent).await);
        held += LIMIT / 100 * percent;
    }
    wait_for_metrics(&server, "the end of the response", |metrics| metrics.get(DISCONNECTED) == Some(&1.0)).await;
    drop((reader, uploads));
}

const DISCONNECTED: &str = "portico_request_errors_total{reason=\"client_disconnected\"}";

/// What requests without a route hold was counted for the peer, or for the client of its last request with one.
#[tokio::test]
async fn bodies_without_a_route_count_for_the_client_that_a_peer_reports() {
    const LIMIT: usize = 1_000_000;
    /// As much as one client may hold.
    const HELD: [usize; 4] = [400_000, 220_000, 120_000, 60_000];
    /// There is room for it, but not for the same client.
    const OTHER: usize = 30_000;
    let length = Arc::new(AtomicUsize::new(0));
    let next = Arc::clone(&length);
    let unmatched_plugins = chain(vec![ScriptedPlugin::response(move |cx| {
        let length = next.load(SeqCst);
        cx.push_body_filter(BodyFilter::Buffered(BufferedFilter {
            max_bytes: LIMIT,
            beyond_limit: BeyondLimit::PassUnchanged,
            reads_text: false,
            transform: Box::new(move |_: &[u8]| Some(vec![b'x'; length].into())),
        }));
    })]);
    let routes = || vec![Route { path: "/shop", ..route(forward(vec![(1, upstream("web", &[]))])) }];
    let limits = ProxyLimits { max_buffered_bytes: LIMIT, ..ProxyLimits::default() };
    let options = Options { limits, trusted: vec!["127.0.0.1/32"], ..Options::default() };
    let server = TestServer::with_options(options, routes()).await;
    server.snapshot.store(Snapshot { unmatched_plugins, ..snapshot(server.address, routes()) }.into());
    let mut raw = RawConnection::connect_with_settings(server.address, &initial_window_size(0)).await;
    let client = SLOW.to_string();
    let fields = [GET_FIELDS.as_slice(), &[("x-forwarded-for", client.as_str())]].concat();
    for (stream, bytes) in [1, 3, 5, 7].into_iter().zip(HELD) {
        length.store(bytes, SeqCst);
        raw.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &header_block(&fields))).await;
        raw.wait_for("the head", |frame| frame.kind == HEADERS && frame.stream == stream).await;
    }
    assert!(buffered(&server) >= HELD.iter().sum::<usize>());
    length.store(OTHER, SeqCst);
    let request = format!("GET / HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: {}\r\n\r\n", other());
    let response = server.request(&request).await;
    assert_eq!((response.status, response.text().len()), (404, OTHER));
}
