//! Tests against local servers.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::plugin_api::{PluginFactory, RemoteUrl, ResponseBodyUse};
use crate::plugins::REGISTRY;
use crate::upstream::{EndpointAddress, LoopbackPolicy};

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

#[tokio::test]
async fn documents_are_complete_or_an_error() {
    let (servers, _lookups) = OnlineServices::start(AddressPolicy::default()).unwrap();
    let fetch = async |response, max_bytes| {
        let address = fixed_server(response).await;
        servers.fetch(&format!("http://{address}/keys?a=b"), TEST_TIMEOUT, max_bytes).await
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
        let error = servers.fetch(uri, TEST_TIMEOUT, 9).await.unwrap_err();
        assert!(error.contains(expected), "{uri}: {error}");
    }
    let plain = fixed_server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let error = servers.fetch(&format!("https://{plain}/"), TEST_TIMEOUT, 9).await.unwrap_err();
    assert!(error.contains("TLS handshake failed"), "{error}");
}

#[tokio::test]
async fn unresponsive_server_times_out() {
    let (servers, _lookups) = OnlineServices::start(AddressPolicy::default()).unwrap();
    let unresponsive = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", unresponsive.local_addr().unwrap());
    let error = servers.fetch(&uri, Duration::from_millis(50), 9).await.unwrap_err();
    assert!(error.contains("no response within 50ms"), "{error}");
}

#[tokio::test]
async fn service_names_precede_dns() {
    let (servers, mut lookups) = OnlineServices::start(AddressPolicy::default()).unwrap();
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
        let (servers, mut lookups) =
            OnlineServices::start(AddressPolicy { loopback, ..AddressPolicy::default() }).unwrap();
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
            let fetched = servers.fetch(&format!("http://{host}:{}/", address.port()), TEST_TIMEOUT, 9).await.map(drop);
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

#[tokio::test]
async fn servers_in_denied_networks_are_not_contacted() {
    let address = fixed_server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let denied = Arc::from(["127.0.0.0/8".parse().unwrap()]);
    let (servers, _lookups) =
        OnlineServices::start(AddressPolicy { loopback: LoopbackPolicy::Allowed, denied }).unwrap();
    let fetched = servers.fetch(&format!("http://{address}/"), TEST_TIMEOUT, 9).await.map(drop);
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
        let (servers, _lookups) =
            OnlineServices::start(AddressPolicy { loopback, ..AddressPolicy::default() }).unwrap();
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
    let (servers, _lookups) = OnlineServices::start(AddressPolicy::default()).unwrap();
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

#[tokio::test]
async fn servers_with_an_untrusted_certificate_are_refused() {
    let generated = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(generated.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![generated.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/in", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(socket).await else { continue };
            let mut head = vec![0; 1024];
            drop(stream.read(&mut head).await);
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await);
        }
    });
    let (servers, mut lookups) = OnlineServices::start(AddressPolicy::default()).unwrap();
    tokio::spawn(async move {
        while let Some(lookup) = lookups.recv().await {
            drop(lookup.reply.send(None));
        }
    });
    let url = RemoteUrl::parse(&url).unwrap();
    for verify in [true, false] {
        let outcome = servers.send(RemoteRequest {
            remote: url.remote(None, verify, TEST_TIMEOUT),
            method: http::Method::POST,
            target: url.target.clone(),
            headers: http::HeaderMap::from_iter([(http::header::HOST, url.authority.clone())]),
            body: bytes::Bytes::from_static(b"{}"),
            timeout: TEST_TIMEOUT,
            keep_alive: None,
            response_body: ResponseBodyUse::Discard,
        });
        match outcome.await {
            Err(error) if verify => assert!(error.contains("TLS handshake failed"), "{error}"),
            Ok(response) if !verify => assert_eq!(response.status.as_u16(), 200),
            outcome => panic!("verify {verify}: {outcome:?}"),
        }
    }
}
