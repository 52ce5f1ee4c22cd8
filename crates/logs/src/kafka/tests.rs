//! Tests of the producer with brokers that respond as a function says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::checksum::crc32;
use super::connection::{Mechanism, Sasl};
use super::delivery::{AwaitedMessages, NotProduced};
use super::message::KafkaMessage;
use super::producer::{KafkaProducer, ProducerSettings};
use super::protocol::Acks;
use super::wire::{WireReader, WireWriter};
use crate::log_delivery::DeliveryReports;
use crate::plugin_api::PluginState;
use crate::plugin_api::RouteNames;
use crate::plugin_api::batch_queue::QueuedBytes;
use crate::plugin_api::kind::{BuildCx, BuildNotes};
use crate::plugin_api::remote::{Remote, RemoteStream};
use crate::plugin_api::services::PluginServices;

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
const HANDSHAKE: i16 = 17;
const API_VERSIONS: i16 = 18;
const AUTHENTICATE: i16 = 36;

/// A request as a broker has got it.
#[derive(Clone, Debug)]
struct Received {
    host: String,
    api: i16,
    body: Vec<u8>,
}

/// What a broker does.
enum Act {
    Respond(Vec<u8>),
    /// Bytes in place of a response with its length and its number.
    Send(Vec<u8>),
    Close,
    RespondAndClose(Vec<u8>),
    Nothing,
}

type Script = dyn Fn(&Received) -> Act + Send + Sync;

/// Brokers at all addresses.
struct Brokers {
    script: Arc<Script>,
    received: Arc<Mutex<Vec<Received>>>,
    connections: AtomicUsize,
}

impl Brokers {
    fn new(script: impl Fn(&Received) -> Act + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Brokers { script: Arc::new(script), received: Arc::default(), connections: AtomicUsize::new(0) })
    }

    fn producer(self: &Arc<Self>, change: impl FnOnce(&mut ProducerSettings)) -> KafkaProducer {
        let remote = |host: &str| Remote {
            host: host.to_owned(),
            port: 9092,
            namespace: None,
            tls: None,
            timeout: Duration::from_secs(5),
        };
        let mut settings = ProducerSettings {
            bootstrap: vec![remote("a.example")],
            sasl: None,
            acks: Acks::Leader,
            request_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(10),
            idle_limit: Duration::from_secs(60),
            max_messages: 200,
            max_bytes: 1 << 20,
            max_retries: 3,
            backoff: Duration::from_millis(100),
        };
        change(&mut settings);
        KafkaProducer::new(settings, Arc::clone(self) as _)
    }

    fn received(&self, api: i16) -> Vec<Received> {
        self.received.lock().iter().filter(|received| received.api == api).cloned().collect()
    }
}

impl PluginServices for Brokers {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn connect(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        let (client, server) = tokio::io::duplex(1 << 16);
        self.connections.fetch_add(1, Relaxed);
        tokio::spawn(serve(server, remote.host, Arc::clone(&self.script), Arc::clone(&self.received)));
        async move { Ok(Box::new(client) as Box<dyn RemoteStream>) }.boxed()
    }
}

async fn serve(mut stream: DuplexStream, host: String, script: Arc<Script>, received: Arc<Mutex<Vec<Received>>>) {
    while let Ok(length) = stream.read_u32().await {
        let mut request = vec![0; length as usize];
        stream.read_exact(&mut request).await.unwrap();
        let mut reader = WireReader(&request);
        let (api, _, id) = (reader.i16().unwrap(), reader.i16().unwrap(), reader.i32().unwrap());
        assert_eq!(reader.string(), Ok("portico"));
        let request = Received { host: host.clone(), api, body: reader.0.to_vec() };
        received.lock().push(request.clone());
        let act = script(&request);
        let closes = matches!(act, Act::Close | Act::RespondAndClose(_));
        let bytes = match act {
            Act::Respond(body) | Act::RespondAndClose(body) => {
                let mut response = WireWriter::default();
                response.length(body.len() + 4);
                response.i32(id);
                [response.0, body].concat()
            }
            Act::Send(bytes) => bytes,
            Act::Close | Act::Nothing => Vec::new(),
        };
        stream.write_all(&bytes).await.unwrap();
        if closes {
            return;
        }
    }
}

/// All versions of all requests.
fn api_versions() -> Act {
    let mut response = WireWriter::default();
    response.i16(0);
    response.length(4);
    for api in [PRODUCE, METADATA, HANDSHAKE, AUTHENTICATE] {
        response.i16(api);
        response.i16(0);
        response.i16(9);
    }
    Act::Respond(response.0)
}

/// The brokers 1 `a.example` and 2 `b.example`, and the topic with a partition for each leader.
fn metadata(topic: &str, leaders: &[i32]) -> Act {
    metadata_at(["a.example", "b.example"], topic, leaders)
}

fn metadata_at(hosts: [&str; 2], topic: &str, leaders: &[i32]) -> Act {
    let mut response = WireWriter::default();
    response.i32(0);
    response.length(2);
    for (id, host) in (1..).zip(hosts) {
        response.i32(id);
        response.string(host);
        response.i32(9092);
        response.null_string();
    }
    response.null_string();
    response.i32(1);
    response.length(1);
    response.i16(0);
    response.string(topic);
    response.i8(0);
    response.length(leaders.len());
    for (index, leader) in leaders.iter().enumerate() {
        response.i16(0);
        response.length(index);
        response.i32(*leader);
        response.length(0);
        response.length(0);
    }
    Act::Respond(response.0)
}

/// The result of partition 0.
fn produced(topic: &str, error: i16) -> Act {
    produced_in(0, topic, error)
}

fn produced_in(partition: i32, topic: &str, error: i16) -> Act {
    let mut response = WireWriter::default();
    response.length(1);
    response.string(topic);
    response.length(1);
    response.i32(partition);
    response.i16(error);
    response.i64(7);
    response.i64(-1);
    response.i32(0);
    Act::Respond(response.0)
}

fn messages(values: &[&'static str]) -> Vec<KafkaMessage> {
    let message = |value: &&'static str| KafkaMessage {
        topic: Arc::from("logs"),
        key: None,
        value: Bytes::from_static(value.as_bytes()),
        timestamp: 0,
    };
    values.iter().map(message).collect()
}

#[tokio::test(start_paused = true)]
async fn messages_follow_the_leader_of_their_partition() {
    let moved = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&moved);
    let brokers = Brokers::new(move |request| match (request.api, &*request.host) {
        (API_VERSIONS, _) => api_versions(),
        (METADATA, _) => metadata("logs", &[if asked.fetch_add(1, Relaxed) == 0 { 1 } else { 2 }]),
        (_, "a.example") => produced("logs", 6),
        _ => produced("logs", 0),
    });
    let producer = brokers.producer(|_| ());
    assert_eq!(producer.produce(&messages(&["one", "two"])).await, [None, None]);
    assert_eq!(producer.produce(&messages(&["three"])).await, [None]);
    let hosts: Vec<String> = brokers.received(PRODUCE).into_iter().map(|request| request.host).collect();
    assert_eq!(hosts, ["a.example", "b.example", "b.example"]);
    assert_eq!((moved.load(Relaxed), brokers.connections.load(Relaxed)), (2, 2), "connections are used again");
    let first = &brokers.received(PRODUCE)[0].body;
    // No transaction, one acknowledgment, 2000 ms, one topic with one partition.
    assert_eq!(first[..8], [0xFF, 0xFF, 0, 1, 0, 0, 0x07, 0xD0]);
    assert_eq!(first[8..26], *b"\0\0\0\x01\0\x04logs\0\0\0\x01\0\0\0\0");
}

#[tokio::test(start_paused = true)]
async fn final_errors_are_not_tried_again() {
    let brokers = Brokers::new(|request| match request.api {
        API_VERSIONS => api_versions(),
        METADATA => metadata("logs", &[1]),
        _ => produced("logs", 29),
    });
    let producer = brokers.producer(|settings| settings.max_bytes = 1024);
    let long = "x".repeat(1024).leak();
    let results = producer.produce(&messages(&[long, "short"])).await;
    assert_eq!(results[0].as_deref(), Some("a message of 1024 bytes is too large"));
    let expected = "a.example:9092: topic logs: error 29 TOPIC_AUTHORIZATION_FAILED";
    assert_eq!(results[1].as_deref(), Some(expected));
    assert_eq!(brokers.received(PRODUCE).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_are_within_their_limits_and_keep_the_order() {
    let brokers = Brokers::new(|request| match request.api {
        API_VERSIONS => api_versions(),
        METADATA => metadata("logs", &[1]),
        _ => produced("logs", 0),
    });
    let producer = brokers.producer(|settings| settings.max_messages = 2);
    assert_eq!(producer.produce(&messages(&["a1", "b2", "c3", "d4", "e5"])).await, vec![None; 5]);
    let sent: Vec<String> =
        brokers.received(PRODUCE).iter().map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect();
    let values = ["a1", "b2", "c3", "d4", "e5"].map(|value| sent.iter().position(|body| body.contains(value)));
    assert_eq!(values, [0, 0, 1, 1, 2].map(Some));
    let producer = brokers.producer(|settings| settings.max_bytes = 1024);
    let long = "x".repeat(900).leak();
    assert_eq!(producer.produce(&messages(&[long, long])).await, [None, None]);
    assert_eq!(brokers.received(PRODUCE).len(), 3 + 2);
}

#[tokio::test(start_paused = true)]
async fn brokers_that_break_the_protocol_are_left() {
    let too_long = u32::MAX.to_be_bytes().to_vec();
    let another_number = [&8_u32.to_be_bytes()[..], &[9; 8]].concat();
    for (bytes, reason) in [
        (too_long, "a response of 4294967295 bytes is not one of Kafka's protocol"),
        (another_number, "the response belongs to another request"),
        (vec![0, 0, 0, 3, 1, 2, 3], "a response of 3 bytes is not one of Kafka's protocol"),
        (vec![], "no response within 10s"),
    ] {
        let answer = bytes.clone();
        let brokers = Brokers::new(move |request| match request.api {
            API_VERSIONS => api_versions(),
            METADATA => metadata("logs", &[1]),
            _ => Act::Send(answer.clone()),
        });
        let producer = brokers.producer(|settings| settings.max_retries = 1);
        let results = producer.produce(&messages(&["a"])).await;
        assert_eq!(results, [Some(format!("a.example:9092: {reason}"))]);
        // Each attempt has a connection of its own, and asks for the leader again.
        assert_eq!((brokers.received(PRODUCE).len(), brokers.received(METADATA).len()), (2, 2), "{reason}");
    }
    let brokers = Brokers::new(|request| match request.api {
        API_VERSIONS => api_versions(),
        METADATA => Act::Respond(vec![0xFF; 64]),
        _ => Act::Close,
    });
    let results = brokers.producer(|settings| settings.max_retries = 0).produce(&messages(&["a"])).await;
    assert_eq!(results, [Some("a.example:9092: the response is not one of Kafka's protocol".to_owned())]);
    let old = Brokers::new(|_| Act::Respond(vec![0, 0, 0, 0, 0, 0]));
    let results = old.producer(|settings| settings.max_retries = 0).produce(&messages(&["a"])).await;
    let expected = "a.example:9092: the broker does not support version 3 of request 0";
    assert_eq!(results, [Some(expected.to_owned())]);
}

/// Without acknowledgments, nothing shows that a message was lost, and without retries, nothing repeats it.
#[tokio::test(start_paused = true)]
async fn messages_after_a_pause_need_no_other_attempt() {
    for acks in [Acks::None, Acks::Leader] {
        let is_answered = acks == Acks::Leader;
        let brokers = Brokers::new(move |request| match (request.api, produced("logs", 0)) {
            (API_VERSIONS, _) => api_versions(),
            (METADATA, _) => metadata("logs", &[1]),
            (_, Act::Respond(response)) if is_answered => Act::RespondAndClose(response),
            _ => Act::Close,
        });
        let producer = brokers.producer(|settings| (settings.acks, settings.max_retries) = (acks, 0));
        for (number, value) in ["one", "two", "three"].into_iter().enumerate() {
            let began = Instant::now();
            assert_eq!(producer.produce(&messages(&[value])).await, [None], "{acks:?}");
            assert_eq!(began.elapsed(), Duration::ZERO, "{acks:?}");
            tokio::time::sleep(Duration::from_secs(30)).await; // Time is paused, and Portico closes what is idle later.
            assert_eq!(brokers.received(PRODUCE).len(), number + 1, "{acks:?}");
        }
        assert_eq!(brokers.connections.load(Relaxed), 3, "{acks:?}");
    }
}

/// As behind a proxy, which chooses the broker by itself.
#[tokio::test(start_paused = true)]
async fn brokers_with_the_same_address_keep_their_connections() {
    let brokers = Brokers::new(|request| match request.api {
        API_VERSIONS => api_versions(),
        METADATA => metadata_at(["proxy.example"; 2], "logs", &[1, 2]),
        _ => {
            let partition = if String::from_utf8_lossy(&request.body).contains("one") { 0 } else { 1 };
            produced_in(partition, "logs", 0)
        }
    });
    let producer = brokers.producer(|_| ());
    assert_eq!((crc32(b"d") % 2, crc32(b"a") % 2), (0, 1));
    let mut of_both = messages(&["one", "two"]);
    for (message, key) in of_both.iter_mut().zip(["d", "a"]) {
        message.key = Some(Bytes::from(key));
    }
    for _ in 0..5 {
        assert_eq!(producer.produce(&of_both).await, [None, None]);
    }
    assert_eq!(brokers.received(PRODUCE).len(), 10);
    // That of the server which knows the brokers, and one for each broker.
    assert_eq!(brokers.connections.load(Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn connections_that_a_broker_has_closed_are_replaced() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let brokers = Brokers::new(move |request| match request.api {
        API_VERSIONS => api_versions(),
        METADATA => metadata("logs", &[1]),
        _ if counted.fetch_add(1, Relaxed) == 1 => Act::Close,
        _ => produced("logs", 0),
    });
    let producer = brokers.producer(|_| ());
    assert_eq!(producer.produce(&messages(&["a"])).await, [None]);
    assert_eq!(producer.produce(&messages(&["b"])).await, [None]);
    assert_eq!((requests.load(Relaxed), brokers.connections.load(Relaxed)), (3, 2));
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(producer.produce(&messages(&["c"])).await, [None]);
    assert_eq!(brokers.connections.load(Relaxed), 3, "an idle connection is closed");
}

#[tokio::test(start_paused = true)]
async fn without_acknowledgments_nothing_is_awaited() {
    let brokers = Brokers::new(|request| match request.api {
        API_VERSIONS => api_versions(),
        METADATA => metadata("logs", &[1]),
        _ => Act::Nothing,
    });
    let producer = brokers.producer(|settings| settings.acks = Acks::None);
    let began = Instant::now();
    assert_eq!(producer.produce(&messages(&["a"])).await, [None]);
    assert_eq!(producer.produce(&messages(&["b"])).await, [None]);
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_reported_without_them() {
    let response = |error: i16, rest: &[u8]| Act::Respond([&error.to_be_bytes()[..], rest].concat());
    let brokers = Brokers::new(move |request| match request.api {
        API_VERSIONS => api_versions(),
        HANDSHAKE => response(0, &[0, 0, 0, 0]),
        // SASL_AUTHENTICATION_FAILED, with a text that repeats the password.
        AUTHENTICATE => response(58, &[&[0, 6][..], b"secret", &[0, 0, 0, 0]].concat()),
        _ => Act::Close,
    });
    let sasl = Sasl { mechanism: Mechanism::Plain, user: Arc::from("anna"), password: Arc::from("secret") };
    assert!(!format!("{sasl:?}").contains("secret"));
    let producer = brokers.producer(|settings| {
        settings.sasl = Some(sasl);
        settings.max_retries = 0;
    });
    let results = producer.produce(&messages(&["a"])).await;
    let expected = "a.example:9092: the broker does not accept the user and the password: \
                    error 58 SASL_AUTHENTICATION_FAILED";
    assert_eq!(results, [Some(expected.to_owned())]);
    assert_eq!(brokers.received(AUTHENTICATE)[0].body, *b"\0\0\0\x0c\0anna\0secret");
    assert_eq!(brokers.received(HANDSHAKE)[0].body, *b"\0\x05PLAIN");
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_their_own_messages() {
    let brokers = Brokers::new(|request| match request.api {
        API_VERSIONS => api_versions(),
        METADATA => metadata("logs", &[1]),
        _ => produced("logs", 0),
    });
    let producer = Arc::new(brokers.producer(|settings| settings.max_bytes = 1024));
    let (state, notes) = (PluginState::default(), BuildNotes::default());
    let services: Arc<dyn PluginServices> = Arc::clone(&brokers) as _;
    let cx = BuildCx { object: "KongPlugin/a/b", state: &state, services: &services, node: "test", notes: &notes };
    // The first caller sets the limit of the process.
    let limit = QueuedBytes::of(&state, 10_000);
    let reports = DeliveryReports::of("messages", "bootstrap_servers", &cx);
    let route = &RouteNames::default();
    let awaited = AwaitedMessages::start(producer, reports, &cx);
    let (long, longer) = ("x".repeat(1024).leak(), "x".repeat(10_001).leak());
    let (first, second, third) = tokio::join!(
        awaited.send(route, messages(&[long, "a", "b"])),
        awaited.send(route, messages(&["c"])),
        awaited.send(route, messages(&[longer])),
    );
    assert_eq!((first, second, third), (Err(NotProduced::Failed), Ok(()), Err(NotProduced::Busy)));
    assert_eq!(brokers.received(PRODUCE).len(), 1, "messages of several requests are sent together");
    assert_eq!(limit.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn confirmed_messages_do_not_wait_for_a_broker_that_hangs() {
    let brokers = Brokers::new(|request| match (request.api, &*request.host) {
        (API_VERSIONS, _) => api_versions(),
        (METADATA, _) => metadata("logs", &[2, 1]),
        (_, "b.example") => Act::Nothing,
        _ => match request.body.windows(7).any(|bytes| bytes == b"refused") {
            // TOPIC_AUTHORIZATION_FAILED
            true => produced_in(1, "logs", 29),
            false => produced_in(1, "logs", 0),
        },
    });
    let of_partition = |partition: u32, value: &'static str| {
        let key = ('a'..='z').map(String::from).find(|key| crc32(key.as_bytes()) % 2 == partition).unwrap();
        vec![KafkaMessage { key: Some(Bytes::from(key)), ..messages(&[value]).remove(0) }]
    };
    let producer = Arc::new(brokers.producer(|settings| settings.max_retries = 0));
    let (state, notes) = (PluginState::default(), BuildNotes::default());
    let services: Arc<dyn PluginServices> = Arc::clone(&brokers) as _;
    let cx = BuildCx { object: "KongPlugin/a/b", state: &state, services: &services, node: "test", notes: &notes };
    let route = &RouteNames::default();
    let awaited = AwaitedMessages::start(producer, DeliveryReports::of("messages", "bootstrap_servers", &cx), &cx);
    let began = Instant::now();
    let timed = async |messages| (awaited.send(route, messages).await, began.elapsed().as_secs());
    let both = [of_partition(1, "x"), of_partition(0, "y")].concat();
    let (hanging, confirmed, mixed) =
        tokio::join!(timed(of_partition(0, "slow")), timed(of_partition(1, "quick")), timed(both));
    assert_eq!(confirmed, (Ok(()), 0));
    assert_eq!((hanging, mixed), ((Err(NotProduced::Failed), 10), (Err(NotProduced::Failed), 10)));
    assert_eq!(brokers.received(PRODUCE).len(), 2, "each leader gets one request");
    let refused = [of_partition(0, "slow"), of_partition(1, "refused")].concat();
    assert_eq!(awaited.send(route, refused).await, Err(NotProduced::Failed));
    assert_eq!(began.elapsed().as_secs(), 10, "one refused message decides about its request");
}
