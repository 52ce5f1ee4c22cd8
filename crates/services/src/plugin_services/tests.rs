//! Tests against local servers.

mod clients;
mod through_proxies;
mod tls;

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use super::*;
use crate::plugin_api::PluginRegistry;
use crate::plugin_api::ResponseBodyUse;
use crate::plugin_api::remote::MAX_REMOTE_TIMEOUT;
use crate::plugin_chain::PluginFactory;
use crate::ssrf_guard::{AddressSources, LoopbackPolicy};
use crate::upstream::EndpointAddress;

/// Plugins with servers.
const REGISTRY: PluginRegistry = PluginRegistry {
    kinds: &[
        &portico_guards::plugins::KINDS,
        &portico_logins::plugins::KINDS,
        &portico_logs::plugins::KINDS,
        &portico_traffic::plugins::KINDS,
    ],
    internal: &[],
};

/// Starts a server that responds to any input with these bytes, and returns its address.
async fn fixed_server(response: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = vec![0; 1024];
            drop(socket.read(&mut head).await);
            drop(socket.write_all(response).await);
        }
    });
    address
}

const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Services for objects of tenants, with a limit of 16 connections.
fn start(addresses: AddressPolicy) -> anyhow::Result<(OnlineServices, Receiver<ServiceLookup>)> {
    start_with(addresses, Arc::default())
}

/// The same, which open no connections to these sockets.
fn start_with(
    addresses: AddressPolicy,
    own_sockets: Arc<OwnSockets>,
) -> anyhow::Result<(OnlineServices, Receiver<ServiceLookup>)> {
    let trust = TrustModel::MultiTenant { addresses, sources: AddressSources::ALL };
    OnlineServices::start(&trust, own_sockets, 16, None, MachineIdentity::default())
}

#[tokio::test]
async fn documents_are_complete_or_an_error() {
    let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
    let fetch = async |response, max_bytes| {
        let address = fixed_server(response).await;
        servers.fetch(&format!("http://{address}/keys?a=b"), None, TEST_TIMEOUT, max_bytes).await
    };
    let whole = fetch(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 5).await.unwrap();
    assert_eq!((whole.status.as_u16(), &*whole.body), (200, &b"hello"[..]));
    assert!(fetch(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello!", 5).await.is_err(), "longer than the limit");
    assert!(fetch(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", 9).await.is_err(), "truncated");
    assert!(fetch(b"nonsense\r\n\r\n", 9).await.is_err());
    for (uri, expected) in [
        ("ftp://127.0.0.1/", "must start with http:// or https://"),
        ("/keys", "must start with http:// or https://"),
        ("http://127.0.0.1:1/", "cannot connect"),
    ] {
        let error = servers.fetch(uri, None, TEST_TIMEOUT, 9).await.unwrap_err();
        assert!(error.contains(expected), "{uri}: {error}");
    }
    let plain = fixed_server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let error = servers.fetch(&format!("https://{plain}/"), None, TEST_TIMEOUT, 9).await.unwrap_err();
    assert!(error.contains("TLS handshake failed"), "{error}");
}

#[tokio::test]
async fn unresponsive_server_times_out() {
    let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
    let unresponsive = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", unresponsive.local_addr().unwrap());
    let error = servers.fetch(&uri, None, Duration::from_millis(50), 9).await.unwrap_err();
    assert!(error.contains("no response within 50ms"), "{error}");
}

#[tokio::test]
async fn service_names_precede_dns() {
    let (servers, mut lookups) = start(AddressPolicy::default()).unwrap();
    let address = fixed_server(b"+PONG\r\n").await;
    tokio::spawn(async move {
        while let Some(lookup) = lookups.recv().await {
            let is_redis = lookup.service.to_string() == "shop/redis" && lookup.port == 6379;
            drop(lookup.reply.send(is_redis.then(|| vec![EndpointAddress::Ip(address)])));
        }
    });
    let server =
        Remote { host: "redis".into(), port: 6379, namespace: Some("shop".into()), tls: None, timeout: TEST_TIMEOUT };
    let mut stream = servers.connect(server.clone()).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut response = [0; 5];
    stream.read_exact(&mut response).await.unwrap();
    assert_eq!(&response, b"+PONG");
    let nowhere = Remote { host: "no such host".into(), ..server };
    assert!(servers.connect(nowhere).await.is_err());
}

#[tokio::test]
async fn blocked_addresses_are_not_contacted() {
    let address = fixed_server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let named = |host: &str| EndpointAddress::Name { host: host.into(), port: address.port() };
    let known = [
        ("shop/own", vec![EndpointAddress::Ip(address)]),
        ("shop/named", vec![named("localhost")]),
        ("shop/metadata", vec![EndpointAddress::Ip("169.254.169.254:80".parse().unwrap())]),
        ("shop/mixed", vec![EndpointAddress::Ip("169.254.169.254:80".parse().unwrap()), EndpointAddress::Ip(address)]),
    ];
    let loopback_error = "a loopback address of the machine or Pod";
    let link_local_error = "a link-local, multicast";
    for (loopback, cases) in [
        (
            LoopbackPolicy::Allowed,
            [
                ("127.0.0.1", None),
                ("own.shop", None),
                ("named.shop", None),
                ("mixed.shop", None),
                ("localhost", None),
                ("metadata.shop", Some(link_local_error)),
                ("169.254.169.254", Some(link_local_error)),
            ],
        ),
        (
            LoopbackPolicy::Blocked,
            [
                ("127.0.0.1", Some(loopback_error)),
                ("own.shop", Some(loopback_error)),
                ("named.shop", Some(loopback_error)),
                ("mixed.shop", Some(loopback_error)),
                ("localhost", Some(loopback_error)),
                ("metadata.shop", Some(link_local_error)),
                ("169.254.169.254", Some(link_local_error)),
            ],
        ),
    ] {
        let (servers, mut lookups) = start(AddressPolicy { loopback, ..AddressPolicy::default() }).unwrap();
        let known = known.clone();
        tokio::spawn(async move {
            while let Some(lookup) = lookups.recv().await {
                let service = lookup.service.to_string();
                let found = known.iter().find(|(name, _)| *name == service).map(|(_, addresses)| addresses.clone());
                drop(lookup.reply.send(found));
            }
        });
        for (host, expected) in cases {
            let server =
                Remote { host: host.into(), port: address.port(), namespace: None, tls: None, timeout: TEST_TIMEOUT };
            let connected = servers.connect(server).await.map(drop);
            let uri = format!("http://{host}:{}/", address.port());
            let fetched = servers.fetch(&uri, None, TEST_TIMEOUT, 9).await.map(drop);
            for outcome in [connected, fetched] {
                match (outcome, expected) {
                    (Ok(()), None) => {}
                    (Err(error), Some(expected)) if error.contains(expected) => {}
                    (outcome, _) => panic!("{host}: {outcome:?}, {loopback:?}"),
                }
            }
        }
    }
}

/// A plugin that logs to a listener of its own process would log its own requests without end.
#[tokio::test]
async fn listeners_of_this_process_are_not_contacted() {
    let address = fixed_server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let other = fixed_server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let own_sockets: Arc<OwnSockets> = Arc::default();
    let (servers, mut lookups) = start_with(AddressPolicy::default(), Arc::clone(&own_sockets)).unwrap();
    tokio::spawn(async move {
        while let Some(lookup) = lookups.recv().await {
            let addresses = [address, other].map(EndpointAddress::Ip);
            let found = match &*lookup.service.name {
                "own" => Some(addresses[..1].to_vec()),
                "mixed" => Some(addresses.to_vec()),
                _ => None,
            };
            drop(lookup.reply.send(found));
        }
    });
    let refused = format!("{address} is a listener of this Portico process");
    let unspecified = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), address.port());
    for sockets in [vec![], vec![address], vec![unspecified]] {
        own_sockets.set_listeners(sockets.iter().copied());
        for host in ["127.0.0.1", "localhost", "own.shop", "mixed.shop"] {
            let server =
                Remote { host: host.into(), port: address.port(), namespace: None, tls: None, timeout: TEST_TIMEOUT };
            let connected = servers.connect(server).await.map(drop);
            let fetched =
                servers.fetch(&format!("http://{host}:{}/", address.port()), None, TEST_TIMEOUT, 9).await.map(drop);
            for outcome in [connected, fetched] {
                match outcome {
                    Ok(()) if sockets.is_empty() || host == "mixed.shop" => {}
                    // `localhost` has an IPv6 address as well, where nothing listens.
                    Err(_) if !sockets.is_empty() && host == "localhost" => {}
                    Err(error) if !sockets.is_empty() && error.contains(&refused) => {}
                    outcome => panic!("{host}: {outcome:?}, {sockets:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn servers_in_denied_networks_are_not_contacted() {
    let address = fixed_server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let denied = Arc::from(["127.0.0.0/8".parse().unwrap()]);
    let (servers, _lookups) = start(AddressPolicy { loopback: LoopbackPolicy::Allowed, denied }).unwrap();
    let fetched = servers.fetch(&format!("http://{address}/"), None, TEST_TIMEOUT, 9).await.map(drop);
    let error = fetched.unwrap_err();
    assert!(error.contains("127.0.0.1 is in 127.0.0.0/8, a network that --deny-endpoint-cidrs denies"), "{error}");
}

#[tokio::test]
async fn local_servers_are_allowed_only_with_loopback() {
    let redis = |host: &str| json!({"hour": 1, "policy": "redis", "redis": {"host": host}});
    let keys = |uri: &str| json!({"jwks": [{"issuer": "i", "uri": uri}]});
    let cases = [
        ("rate-limiting", "config.redis.host", redis("127.0.0.1")),
        ("rate-limiting", "config.redis.host", redis("::1")),
        ("rate-limiting", "config.redis.host", redis("localhost.")),
        ("jwt", "config.jwks[0].uri", keys("http://127.0.0.1:8101/keys")),
        ("jwt", "config.jwks[0].uri", keys("https://[::ffff:127.0.0.1]/keys")),
        ("jwt", "config.jwks[0].uri", keys("https://LOCALHOST/keys")),
    ];
    for (loopback, is_accepted) in [(LoopbackPolicy::Allowed, true), (LoopbackPolicy::Blocked, false)] {
        let (servers, _lookups) = start(AddressPolicy { loopback, ..AddressPolicy::default() }).unwrap();
        let factory = PluginFactory { services: Arc::new(servers), ..PluginFactory::offline(REGISTRY) };
        for (kind, field, config) in &cases {
            let built = factory.build(REGISTRY.find(kind).unwrap(), "KongPlugin/default/test", config);
            let diagnostics = built.err().unwrap_or_default();
            let fields: Vec<_> = diagnostics.iter().map(|diagnostic| &*diagnostic.field).collect();
            assert_eq!(fields, if is_accepted { vec![] } else { vec![*field] }, "{config}");
        }
    }
}

#[tokio::test]
async fn repeated_reports_notify_once() {
    let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
    let diagnostics = servers.diagnostics();
    let diagnostic = || Some(Diagnostic::in_config("redis.host", "cannot be reached", "start it"));
    servers.report("KongPlugin/a/b", diagnostic());
    diagnostics.changed().await;
    servers.report("KongPlugin/a/b", diagnostic());
    assert!(diagnostics.changed().now_or_never().is_none(), "no new report");
    assert_eq!(diagnostics.snapshot().len(), 1);
    servers.report("KongPlugin/a/b", None);
    diagnostics.changed().await;
    assert!(diagnostics.snapshot().is_empty());
}

/// A server in a namespace.
fn remote(namespace: &str, address: SocketAddr, timeout: Duration) -> Remote {
    let (host, namespace) = (address.ip().to_string(), Some(namespace.to_owned()));
    Remote { host, port: address.port(), namespace, tls: None, timeout }
}

/// A request whose connection may stay idle for a minute.
fn request(remote: Remote) -> RemoteRequest {
    RemoteRequest {
        timeout: remote.timeout,
        remote,
        method: http::Method::POST,
        target: "/".parse().unwrap(),
        headers: http::HeaderMap::new(),
        body: bytes::Bytes::from_static(b"{}"),
        keep_alive: Some(Duration::from_secs(60)),
        is_repeatable: false,
        response_body: ResponseBodyUse::Discard,
    }
}

/// A server that accepts connections and requests, and never responds.
async fn silent_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut accepted = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            accepted.push(socket);
        }
    });
    address
}

/// Responds to each request on each connection.
async fn accepting_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = vec![0; 1024];
                while socket.read(&mut head).await.is_ok_and(|length| length > 0) {
                    if socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn plugins_of_one_namespace_leave_requests_and_connections_to_others() {
    let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
    let servers = Arc::new(servers);
    let silent = silent_server().await;
    // More requests and connections than the limit, which take as long as a configuration permits.
    let mut greedy: Vec<_> =
        (0..40).map(|_| tokio::spawn(servers.send(request(remote("greedy", silent, MAX_REMOTE_TIMEOUT))))).collect();
    for _ in 0..40 {
        let connecting = servers.connect(remote("greedy", silent, MAX_REMOTE_TIMEOUT));
        greedy.push(tokio::spawn(async move {
            let _connected = connecting.await;
            std::future::pending().await
        }));
    }
    let accepting = accepting_server().await;
    for namespace in ["other", "third"] {
        let server = remote(namespace, accepting, TEST_TIMEOUT);
        let response = servers.send(request(server.clone())).await.unwrap();
        assert_eq!(response.status.as_u16(), 200, "{namespace}");
        drop(servers.connect(server).await.unwrap());
    }
    for task in greedy {
        task.abort();
    }
}

#[tokio::test]
async fn connections_beyond_the_share_wait_and_fail_with_the_reason() {
    let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
    let silent = silent_server().await;
    let connect = |namespace: &str| servers.connect(remote(namespace, silent, Duration::from_millis(200)));
    let mut connections = Vec::new();
    while let Ok(connection) = connect("shop").await {
        connections.push(connection);
    }
    assert_eq!(connections.len(), 14, "seven eighths of 16");
    let error = connect("shop").await.err().unwrap();
    let expected = "the plugins of the namespace shop have 14 connections, their share of the limit of 16; raise \
                    --max-plugin-connections";
    assert!(error.contains(&silent.to_string()) && error.contains(expected), "{error}");
    let mut others = Vec::new();
    while let Ok(connection) = connect("").await {
        others.push(connection);
    }
    let error = connect("new").await.err().unwrap();
    assert!(error.contains("all 16 connections of plugins are in use; raise --max-plugin-connections"), "{error}");
    let waiting = servers.connect(remote("shop", silent, TEST_TIMEOUT));
    let waiting = tokio::spawn(waiting);
    connections.truncate(1);
    drop(waiting.await.unwrap().unwrap());
}

#[tokio::test]
async fn failing_requests_are_sent_at_a_limited_rate() {
    let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
    // Bound, so that no other test gets the port, and not listening.
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refusing = bound.local_addr().unwrap();
    let failing = fixed_server(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await;
    for server in [refusing, failing] {
        let began = Instant::now();
        let requests = (0..30).map(|_| servers.send(request(remote("shop", server, TEST_TIMEOUT))));
        futures_util::future::join_all(requests).await;
        // 14 at the same time are the share of a namespace, and each takes at least 250 ms.
        assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn idle_connections_make_room_for_others_of_their_namespace() {
    let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
    // Each server keeps an idle connection.
    for _ in 0..14 {
        servers.send(request(remote("shop", accepting_server().await, TEST_TIMEOUT))).await.unwrap();
    }
    let began = Instant::now();
    let accepting = accepting_server().await;
    let mut connections = Vec::new();
    for _ in 0..14 {
        connections.push(servers.connect(remote("shop", accepting, TEST_TIMEOUT)).await.unwrap());
    }
    assert!(began.elapsed() < TEST_TIMEOUT / 2, "no connection waits until the others have been idle for long");
    // A connection that becomes idle while another one waits is closed, too.
    drop(connections.pop());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = listener.local_addr().unwrap();
    let sending = tokio::spawn(servers.send(request(remote("shop", slow, TEST_TIMEOUT))));
    let (mut socket, _) = listener.accept().await.unwrap();
    assert!(socket.read(&mut [0; 1024]).await.unwrap() > 0);
    let waiting = tokio::spawn(servers.connect(remote("shop", accepting, TEST_TIMEOUT)));
    while !servers.connector.limits.has_waiting("shop") {
        tokio::task::yield_now().await;
    }
    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    sending.await.unwrap().unwrap();
    connections.push(waiting.await.unwrap().unwrap());
}

#[tokio::test]
async fn idle_connections_make_room_for_a_namespace_without_any() {
    let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
    let accepting = accepting_server().await;
    let mut connections = Vec::new();
    for namespace in ["a", "b", "c"] {
        while let Ok(connection) = servers.connect(remote(namespace, accepting, Duration::from_millis(50))).await {
            connections.push(connection);
        }
    }
    assert_eq!(connections.len(), 16);
    // The last connection, which is one of `b`, is replaced by an idle one.
    drop(connections.pop());
    servers.send(request(remote("b", accepting, TEST_TIMEOUT))).await.unwrap();
    drop(servers.connect(remote("new", accepting, TEST_TIMEOUT)).await.unwrap());
}

#[tokio::test]
async fn texts_of_servers_are_shortened() {
    let (servers, mut lookups) = start(AddressPolicy::default()).unwrap();
    tokio::spawn(async move {
        while let Some(lookup) = lookups.recv().await {
            drop(lookup.reply.send(None));
        }
    });
    let host = "a".repeat(10_000);
    let server = Remote { host, ..remote("shop", "127.0.0.1:1".parse().unwrap(), TEST_TIMEOUT) };
    let errors = [servers.connect(server.clone()).await.err(), servers.send(request(server)).await.err()];
    for error in errors {
        assert!(error.unwrap().len() < 600);
    }
}

#[tokio::test]
async fn short_names_of_tenants_are_services_or_an_error() {
    let (servers, mut lookups) = start(AddressPolicy::default()).unwrap();
    let address = fixed_server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    tokio::spawn(async move {
        while let Some(lookup) = lookups.recv().await {
            let exists = lookup.service.to_string() == "shop/keys";
            drop(lookup.reply.send(exists.then(|| vec![EndpointAddress::Ip(address)])));
        }
    });
    let fetch = async |host: &str, namespace: Option<&str>| {
        servers.fetch(&format!("http://{host}:81/"), namespace, TEST_TIMEOUT, 9).await.map(|response| response.body)
    };
    for (host, namespace) in [("keys", Some("shop")), ("keys.shop", None), ("keys.shop.svc", Some("other"))] {
        assert_eq!(fetch(host, namespace).await.unwrap(), "ok", "{host}");
    }
    for (host, namespace, expected) in [
        ("keys", Some("other"), "there is no Service other/keys"),
        ("keys.", Some("other"), "there is no Service other/keys"),
        ("logs.other.svc", Some("shop"), "there is no Service other/logs"),
        ("keys", None, "write SERVICE.NAMESPACE.svc"),
    ] {
        let error = fetch(host, namespace).await.unwrap_err();
        assert!(error.contains(expected), "{host}: {error}");
    }
}

#[tokio::test]
async fn short_names_in_objects_without_namespace_are_rejected_unless_they_may_be_hosts() {
    let configs = |host: &str| {
        [
            ("rate-limiting", "config.redis.host", json!({"hour": 1, "policy": "redis", "redis": {"host": host}})),
            ("jwt", "config.jwks[0].uri", json!({"jwks": [{"issuer": "i", "uri": format!("https://{host}/keys")}]})),
            ("http-log", "config.http_endpoint", json!({"http_endpoint": format!("http://{host}/")})),
        ]
    };
    let has_tenants = TrustModel::MultiTenant { addresses: AddressPolicy::default(), sources: AddressSources::ALL };
    for (trust, object, host, is_accepted) in [
        (&has_tenants, "KongClusterPlugin/test", "server", false),
        (&has_tenants, "KongClusterPlugin/test", "server.", false),
        (&has_tenants, "KongClusterPlugin/test", "server.shop", true),
        (&has_tenants, "KongClusterPlugin/test", "localhost", true),
        (&has_tenants, "KongClusterPlugin/test", "127.0.0.1", true),
        (&has_tenants, "KongPlugin/shop/test", "server", true),
        (&TrustModel::SingleTenant, "KongClusterPlugin/test", "server", true),
    ] {
        let (servers, _lookups) =
            OnlineServices::start(trust, Arc::default(), 16, None, MachineIdentity::default()).unwrap();
        let factory = PluginFactory { services: Arc::new(servers), ..PluginFactory::offline(REGISTRY) };
        for (kind, field, config) in configs(host) {
            let built = factory.build(REGISTRY.find(kind).unwrap(), object, &config);
            let diagnostics = built.err().unwrap_or_default();
            let fields: Vec<_> = diagnostics.iter().map(|diagnostic| &*diagnostic.field).collect();
            assert_eq!(fields, if is_accepted { vec![] } else { vec![field] }, "{object}: {config}");
        }
    }
}
