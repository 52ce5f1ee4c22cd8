//! What the plugins `tcp-log`, `udp-log`, `syslog`, `loggly`, `file-log`, `statsd` and `datadog` write.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use portico::plugin_api::PluginState;
use portico::plugin_chain::testing::chain_with;
use portico::plugins::REGISTRY;
use portico::plugins::file_log::LogFolder;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::harness::{Client, Endpoint, refusing_address, with_timeout};
use crate::http_log::{LoggingServer, consumers, loopback_services, to};
use crate::polling::until;

/// A proxy whose route has this plugin, with the consumer `anna` for requests with the key `secret`.
async fn start(plugin: &str, config: Value) -> LoggingServer {
    start_with(plugin, config, PluginState::default()).await
}

async fn start_with(plugin: &str, config: Value, state: PluginState) -> LoggingServer {
    let endpoint = Endpoint::ok().await;
    let find = |name: &str| REGISTRY.find(name).unwrap();
    let plugins = [(find("key-auth"), json!({"anonymous": "bert"})), (find(plugin), config)];
    let chain = chain_with(&plugins, &state, &loopback_services());
    LoggingServer::with_chain(chain, consumers(), state, to(&endpoint)).await
}

/// A UDP server, and the fields of a configuration that name it.
async fn udp_server() -> (UdpSocket, Value) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, json!({"host": "127.0.0.1", "port": port}))
}

async fn datagram(socket: &UdpSocket) -> String {
    let mut buffer = vec![0; 65_536];
    let length = with_timeout("a datagram", socket.recv(&mut buffer)).await.unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

/// The configuration with further fields.
fn with(mut config: Value, fields: Value) -> Value {
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

fn uri(object: &str) -> String {
    let object: Value = serde_json::from_str(object).unwrap_or_else(|error| panic!("{error}: {object}"));
    object["request"]["uri"].as_str().unwrap().to_owned()
}

struct LineServer {
    listener: TcpListener,
    config: Value,
}

impl LineServer {
    async fn start() -> LineServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        LineServer { listener, config: json!({"host": "127.0.0.1", "port": port}) }
    }

    async fn accept(&self) -> BufReader<TcpStream> {
        let (socket, _) = with_timeout("a connection", self.listener.accept()).await.unwrap();
        BufReader::new(socket)
    }
}

async fn line(reader: &mut BufReader<TcpStream>) -> String {
    let mut text = String::new();
    with_timeout("a line", reader.read_line(&mut text)).await.unwrap();
    text
}

// docs/kong-compatibility.md, 4.36
#[tokio::test]
async fn tcp_log_writes_lines_on_a_connection_that_stays_open() {
    let server = LineServer::start().await;
    let fields = json!({"custom_fields_by_lua": {"tenant": "return kong.request.get_header('x-tenant')"}});
    let logging = start("tcp-log", with(server.config.clone(), fields)).await;
    let mut client = Client::connect(logging.server.address).await;
    client.send("GET /0 HTTP/1.1\r\nHost: a.example\r\nX-Tenant: shop\r\nAuthorization: Basic secret\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    let mut reader = server.accept().await;
    let text = line(&mut reader).await;
    let object: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&object["request"]["uri"], &object["tenant"]), (&json!("/0"), &json!("shop")));
    assert!(text.ends_with("}\n") && !text.contains("Basic secret"), "{text}");
    assert_eq!(client.get("/1").await.status, 200);
    assert_eq!(uri(&line(&mut reader).await), "/1");
    logging.wait_for_counts("both lines to be sent", |counts| counts.sent == 2).await;
}

/// Fields may have tabs, quotes, and bytes that are no UTF-8.
#[tokio::test]
async fn bytes_of_clients_end_no_line_and_no_text() {
    let server = LineServer::start().await;
    let logging = start("tcp-log", server.config.clone()).await;
    let mut client = Client::connect(logging.server.address).await;
    client.send(b"GET /a?b=%0a HTTP/1.1\r\nHost: a.example\r\nx-mark: a\t\xff\"}{\"b\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(client.get("/next").await.status, 200);
    let mut reader = server.accept().await;
    let text = line(&mut reader).await;
    assert!(!text.trim_end_matches('\n').contains(char::is_control), "{text:?}");
    let object: Value = serde_json::from_str(&text).unwrap();
    let mark = object["request"]["headers"]["x-mark"].as_str().unwrap_or_else(|| panic!("{text}"));
    assert!(mark.starts_with("a\t") && mark.ends_with("\"}{\"b"), "{mark:?}");
    assert_eq!(uri(&line(&mut reader).await), "/next");
}

/// The plugin notices the end of its connection before it writes, so nothing is lost.
#[tokio::test]
async fn tcp_log_connects_again_after_a_restart_of_the_server() {
    let server = LineServer::start().await;
    let logging = start("tcp-log", server.config.clone()).await;
    for round in 0..3 {
        logging.get(1).await;
        let mut reader = server.accept().await;
        assert_eq!(uri(&line(&mut reader).await), "/0", "round {round}");
        logging.wait_for_counts("the line to be counted", |counts| counts.sent == round + 1).await;
    }
}

#[tokio::test]
async fn tcp_log_keeps_lines_while_the_server_is_away() {
    let address = refusing_address();
    let logging = start("tcp-log", json!({"host": "127.0.0.1", "port": address.port()})).await;
    logging.get(2).await;
    logging.wait_for_counts("a failure", |counts| counts.retries > 0).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let (socket, _) = with_timeout("a connection", listener.accept()).await.unwrap();
    let mut reader = BufReader::new(socket);
    assert_eq!(uri(&line(&mut reader).await), "/0");
    assert_eq!(uri(&line(&mut reader).await), "/1");
}

// docs/kong-compatibility.md, 4.36
#[tokio::test]
async fn udp_log_sends_a_datagram_for_each_request() {
    let (socket, config) = udp_server().await;
    let logging = start("udp-log", config).await;
    logging.get(3).await;
    for number in 0..3 {
        assert_eq!(uri(&datagram(&socket).await), format!("/{number}"));
    }
}

// docs/kong-compatibility.md, 4.35
#[tokio::test]
async fn syslog_messages_have_severity_and_facility() {
    let (socket, config) = udp_server().await;
    let fields = json!({"facility": "local3", "log_level": "notice", "successful_severity": "notice"});
    let logging = start("syslog", with(config, fields)).await;
    logging.get(1).await;
    let message = datagram(&socket).await;
    let (head, object) = message.split_once('{').unwrap();
    let [priority, time, node, app, process, id, data, ""] = head.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{message}")
    };
    // local3 is 19, and notice 5.
    assert_eq!((priority, node, app, process, id, data), ("<157>1", "test", "kong", "-", "-", "-"));
    assert!(time.ends_with('Z') && time.len() == "2026-11-27T16:00:00.000Z".len(), "{time}");
    assert_eq!(uri(&format!("{{{object}")), "/0");
}

#[tokio::test]
async fn syslog_does_not_send_what_is_less_severe_than_its_level() {
    let (socket, config) = udp_server().await;
    let fields = json!({"log_level": "warning", "client_errors_severity": "err"});
    let logging = start("syslog", with(config, fields)).await;
    let mut client = Client::connect(logging.server.address).await;
    assert_eq!(client.get("/served").await.status, 200);
    // A request body without an end is an error of the client.
    client.send("POST /rejected HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await;
    assert_eq!(client.response().await.status, 400);
    let message = datagram(&socket).await;
    assert!(message.starts_with("<11>1 ") && message.contains("/rejected"), "{message}");
}

/// RFC 6587, section 3.4.1.
#[tokio::test]
async fn syslog_on_tcp_counts_octets() {
    let server = LineServer::start().await;
    let logging = start("syslog", with(server.config.clone(), json!({"protocol": "tcp"}))).await;
    logging.get(2).await;
    let mut reader = server.accept().await;
    for number in 0..2 {
        let mut length = Vec::new();
        with_timeout("a length", reader.read_until(b' ', &mut length)).await.unwrap();
        let length: usize = String::from_utf8(length).unwrap().trim().parse().unwrap();
        let mut message = vec![0; length];
        with_timeout("a message", reader.read_exact(&mut message)).await.unwrap();
        let message = String::from_utf8(message).unwrap();
        let (head, object) = message.split_once('{').unwrap();
        assert!(head.starts_with("<14>1 "), "{message}");
        assert_eq!(uri(&format!("{{{object}")), format!("/{number}"));
    }
}

// docs/kong-compatibility.md, 4.19
#[tokio::test]
async fn loggly_messages_have_the_token_and_the_tags() {
    let (socket, config) = udp_server().await;
    let fields = json!({"key": "0123-abcd", "tags": ["kong", "shop"]});
    let logging = start("loggly", with(config, fields)).await;
    logging.get(1).await;
    let message = datagram(&socket).await;
    let (head, object) = message.split_once('{').unwrap();
    assert!(head.ends_with(" test kong - - [0123-abcd@41058 tag=\"kong\" tag=\"shop\"] "), "{message}");
    assert_eq!(uri(&format!("{{{object}")), "/0");
}

// docs/kong-compatibility.md, 4.10
#[tokio::test]
async fn file_log_appends_lines_and_opens_a_moved_file_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("requests.log"), folder.path().join("requests.log.1"));
    fs::write(&path, "first\n").unwrap();
    let state = PluginState::default();
    let _folder = LogFolder::set(&state, Some(folder.path().to_owned()));
    let logging = start_with("file-log", json!({"path": path}), state).await;
    logging.get(2).await;
    until("two lines in the file", async || lines(&path).len() == 3).await;
    let written = lines(&path);
    assert_eq!((&*written[0], uri(&written[1]), uri(&written[2])), ("first", "/0".to_owned(), "/1".to_owned()));
    fs::rename(&path, &moved).unwrap();
    logging.get(1).await;
    until("a line in a new file", async || lines(&path).len() == 1).await;
    assert_eq!(lines(&moved).len(), 3);
}

#[tokio::test]
async fn full_disk_does_not_affect_requests() {
    let state = PluginState::default();
    let _folder = LogFolder::set(&state, Some("/dev".into()));
    let logging = start_with("file-log", json!({"path": "/dev/full"}), state).await;
    logging.get(3).await;
    // The line is tried again, since the disk may have space later.
    logging.wait_for_counts("another attempt", |counts| counts.retries > 0 && counts.sent == 0).await;
    logging.get(3).await;
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The lines of one request: those of `anna`, whose key is in the request.
async fn stat_lines(logging: &LoggingServer, socket: &UdpSocket, count: usize) -> Vec<String> {
    let mut client = Client::connect(logging.server.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\napikey: secret\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    let mut lines = Vec::new();
    while lines.len() < count {
        lines.extend(datagram(socket).await.split('\n').map(str::to_owned));
    }
    lines
}

/// The line with `N` in place of a duration or a size.
fn without_value(line: &str) -> String {
    let (name, rest) = line.split_once(':').unwrap();
    let (value, kind) = rest.split_once('|').unwrap();
    let value = if kind.starts_with("ms") || name.ends_with(".size") { "N" } else { value };
    format!("{name}:{value}|{kind}")
}

// docs/kong-compatibility.md, 4.34
#[tokio::test]
async fn statsd_names_have_service_consumer_and_status() {
    let (socket, config) = udp_server().await;
    let logging = start("statsd", with(config, json!({"consumer_identifier_default": "username"}))).await;
    let lines = stat_lines(&logging, &socket, 11).await;
    let lines: BTreeSet<_> = lines.iter().map(|line| without_value(line)).collect();
    let workspace = "00000000-0000-0000-0000-000000000000";
    let expected = [
        "kong.service.default_web_80.request.count:1|c".to_owned(),
        "kong.service.default_web_80.latency:N|ms".to_owned(),
        "kong.service.default_web_80.request.size:N|c".to_owned(),
        "kong.service.default_web_80.status.200:1|c".to_owned(),
        "kong.service.default_web_80.response.size:N|c".to_owned(),
        "kong.service.default_web_80.user.uniques:anna|s".to_owned(),
        "kong.service.default_web_80.user.anna.request.count:1|c".to_owned(),
        "kong.service.default_web_80.upstream_latency:N|ms".to_owned(),
        "kong.service.default_web_80.kong_latency:N|ms".to_owned(),
        "kong.service.default_web_80.user.anna.status.200:1|c".to_owned(),
        format!("kong.service.default_web_80.workspace.{workspace}.status.200:1|c"),
    ];
    assert_eq!(lines, BTreeSet::from(expected));
}

#[tokio::test]
async fn statsd_tags_take_the_place_of_names() {
    let (socket, config) = udp_server().await;
    let metrics = json!([
        {"name": "request_count", "stat_type": "counter", "sample_rate": 1, "consumer_identifier": "username"},
        {"name": "status_count", "stat_type": "counter", "sample_rate": 1},
        {"name": "latency", "stat_type": "timer"},
    ]);
    let fields = json!({"tag_style": "dogstatsd", "metrics": metrics, "udp_packet_size": 1000});
    let logging = start("statsd", with(config, fields)).await;
    let mut client = Client::connect(logging.server.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\napikey: secret\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    // Both lines fit into a datagram.
    let text = datagram(&socket).await;
    let tags = "service:default.web.80,route:default.test.web..80,\
                workspace:00000000-0000-0000-0000-000000000000,node:test,status:200";
    let lines: Vec<_> = text.split('\n').map(without_value).collect();
    let expected = [
        format!("kong.request.count:1|c|#{tags},consumer:anna"),
        format!("kong.latency:N|ms|#{tags},consumer:custom-anna"),
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn statsd_measures_allowed_statuses_by_tcp() {
    let server = LineServer::start().await;
    let metrics = json!([{"name": "status_count", "stat_type": "counter", "sample_rate": 1}]);
    let fields = json!({"use_tcp": true, "metrics": metrics, "allow_status_codes": ["400-499"], "prefix": "edge"});
    let logging = start("statsd", with(server.config.clone(), fields)).await;
    let mut client = Client::connect(logging.server.address).await;
    assert_eq!(client.get("/served").await.status, 200);
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await;
    assert_eq!(client.response().await.status, 400);
    let mut reader = server.accept().await;
    assert_eq!(line(&mut reader).await, "edge.service.default_web_80.status.400:1|c\n");
}

// docs/kong-compatibility.md, 4.9
#[tokio::test]
async fn datadog_metrics_have_tags() {
    let (socket, config) = udp_server().await;
    let logging = start("datadog", with(config, json!({"consumer_tag": "user", "status_tag": ""}))).await;
    let lines = stat_lines(&logging, &socket, 6).await;
    let lines: BTreeSet<_> = lines.iter().map(|line| without_value(line)).collect();
    let tags = "|#name:default_web_80,user:custom-anna,app:kong";
    let expected = [
        format!("kong.request.count:1|c{tags}"),
        format!("kong.latency:N|ms{tags}"),
        format!("kong.request.size:N|ms{tags}"),
        format!("kong.response.size:N|ms{tags}"),
        format!("kong.upstream_latency:N|ms{tags}"),
        format!("kong.kong_latency:N|ms{tags}"),
    ];
    assert_eq!(lines, BTreeSet::from(expected));
}

/// A change of another field must not drop what waits for a server that is away.
#[tokio::test]
async fn waiting_lines_survive_a_change_of_other_fields() {
    let address = refusing_address();
    let config = json!({"host": "127.0.0.1", "port": address.port()});
    let logging = start("tcp-log", config.clone()).await;
    logging.get(1).await;
    let find = |name: &str| REGISTRY.find(name).unwrap();
    let changed = with(config, json!({"custom_fields_by_lua": {"edge": "return 'a'"}}));
    let chain = chain_with(&[(find("tcp-log"), changed)], &logging.state, &loopback_services());
    drop(Arc::clone(&chain));
    let listener = TcpListener::bind(address).await.unwrap();
    let (socket, _) = with_timeout("a connection", listener.accept()).await.unwrap();
    assert_eq!(uri(&line(&mut BufReader::new(socket)).await), "/0");
}
