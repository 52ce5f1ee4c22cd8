//! What a response holds in memory counts until its client has it, and so long is its request in progress.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use portico::plugin_api::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use portico::plugin_api::instance::PluginInstance;
use portico::plugin_api::testing::{global_instance, names};
use portico::plugin_api::{
    BackendReplacement, BeyondLimit, BodyFilter, BufferedFilter, Chain, Phases, Plugin, ReplaceBackendCx, Reply,
    ReplyBody,
};
use portico::proxy::ProxyLimits;
use portico::proxy::access_log::AccessLogDestination;
use tokio::io::AsyncReadExt;

use crate::accounting::{access_log_records, scrape};
use crate::frames::{DATA, HEADERS, RawConnection, get_request, initial_window_size};
use crate::harness::{Client, Endpoint, Options, Route, TestServer, forward, route, upstream, with_timeout};
use crate::plugins::{ScriptedPlugin, chain};

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
