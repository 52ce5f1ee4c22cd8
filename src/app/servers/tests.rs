//! Against servers of their own on loopback.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::plugin::Workshop;
use crate::plugins::REGISTRY;
use crate::upstream::Address;

/// A server that answers whatever comes with these bytes, and its address.
async fn server(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = vec![0; 1024];
            drop(socket.read(&mut head).await);
            drop(socket.write_all(answer).await);
        }
    });
    address
}

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn documents_come_whole_or_not_at_all() {
    let (servers, _lookups) = Servers::start(Loopback::Served).unwrap();
    let fetch = async |answer, most| {
        let address = server(answer).await;
        servers.fetch(&format!("http://{address}/keys?a=b"), SOON, most).await
    };
    let whole = fetch(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 5).await.unwrap();
    assert_eq!((whole.status.as_u16(), &*whole.body), (200, &b"hello"[..]));
    assert!(fetch(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello!", 5).await.is_err(), "too long");
    assert!(fetch(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", 9).await.is_err(), "cut short");
    assert!(fetch(b"nonsense\r\n\r\n", 9).await.is_err());
    for (uri, expected) in [
        ("ftp://127.0.0.1/", "neither http:// nor https://"),
        ("/keys", "neither http:// nor https://"),
        ("http://127.0.0.1:1/", "cannot connect"),
    ] {
        let error = servers.fetch(uri, SOON, 9).await.unwrap_err();
        assert!(error.contains(expected), "{uri}: {error}");
    }
    let plain = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let error = servers.fetch(&format!("https://{plain}/"), SOON, 9).await.unwrap_err();
    assert!(error.contains("no TLS"), "{error}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_not_waited_for() {
    let (servers, _lookups) = Servers::start(Loopback::Served).unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", silent.local_addr().unwrap());
    let error = servers.fetch(&uri, Duration::from_millis(50), 9).await.unwrap_err();
    assert!(error.contains("no answer within 50ms"), "{error}");
}

#[tokio::test]
async fn names_of_services_are_looked_up_before_dns() {
    let (servers, mut lookups) = Servers::start(Loopback::Served).unwrap();
    let address = server(b"+PONG\r\n").await;
    tokio::spawn(async move {
        while let Some(lookup) = lookups.recv().await {
            let known = lookup.service.to_string() == "shop/redis" && lookup.port == 6379;
            drop(lookup.answer.send(known.then(|| vec![Address::Ip(address)])));
        }
    });
    let to = Remote { host: "redis".into(), port: 6379, namespace: Some("shop".into()), tls: None, timeout: SOON };
    let mut stream = servers.connect(to.clone()).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"+PONG");
    let nowhere = Remote { host: "no such host".into(), ..to };
    assert!(servers.connect(nowhere).await.is_err());
}

#[tokio::test]
async fn nothing_is_asked_where_no_server_can_be() {
    let address = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let named = |host: &str| Address::Name { host: host.into(), port: address.port() };
    let known = [
        ("shop/own", vec![Address::Ip(address)]),
        ("shop/named", vec![named("localhost")]),
        ("shop/metadata", vec![Address::Ip("169.254.169.254:80".parse().unwrap())]),
        ("shop/mixed", vec![Address::Ip("169.254.169.254:80".parse().unwrap()), Address::Ip(address)]),
    ];
    let own = "within the machine or Pod";
    let link = "of a link or a group";
    for (loopback, cases) in [
        (
            Loopback::Served,
            [
                ("127.0.0.1", None),
                ("own.shop", None),
                ("named.shop", None),
                ("mixed.shop", None),
                ("localhost", None),
                ("metadata.shop", Some(link)),
                ("169.254.169.254", Some(link)),
            ],
        ),
        (
            Loopback::Refused,
            [
                ("127.0.0.1", Some(own)),
                ("own.shop", Some(own)),
                ("named.shop", Some(own)),
                ("mixed.shop", Some(own)),
                ("localhost", Some(own)),
                ("metadata.shop", Some(link)),
                ("169.254.169.254", Some(link)),
            ],
        ),
    ] {
        let (servers, mut lookups) = Servers::start(loopback).unwrap();
        let known = known.clone();
        tokio::spawn(async move {
            while let Some(lookup) = lookups.recv().await {
                let service = lookup.service.to_string();
                let found = known.iter().find(|(name, _)| *name == service).map(|(_, addresses)| addresses.clone());
                drop(lookup.answer.send(found));
            }
        });
        for (host, refusal) in cases {
            let to = Remote { host: host.into(), port: address.port(), namespace: None, tls: None, timeout: SOON };
            let connected = servers.connect(to).await.map(drop);
            let fetched = servers.fetch(&format!("http://{host}:{}/", address.port()), SOON, 9).await.map(drop);
            for outcome in [connected, fetched] {
                match (outcome, refusal) {
                    (Ok(()), None) => {}
                    (Err(error), Some(refusal)) if error.contains(refusal) => {}
                    (outcome, _) => panic!("{host}: {outcome:?}, {loopback:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_plugin_may_name_a_server_of_this_machine_where_nobody_else_writes_plugins() {
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
    for (loopback, is_taken) in [(Loopback::Served, true), (Loopback::Refused, false)] {
        let (servers, _lookups) = Servers::start(loopback).unwrap();
        let workshop = Workshop { services: Arc::new(servers), ..Workshop::offline(REGISTRY) };
        for (kind, field, config) in &cases {
            let built = workshop.build(REGISTRY.find(kind).unwrap(), "KongPlugin/default/test", config);
            let wrong = built.err().unwrap_or_default();
            let fields: Vec<_> = wrong.iter().map(|wrong| &*wrong.field).collect();
            assert_eq!(fields, if is_taken { vec![] } else { vec![*field] }, "{config}");
        }
    }
}

#[tokio::test]
async fn what_is_said_is_heard_once() {
    let (servers, _lookups) = Servers::start(Loopback::Served).unwrap();
    let troubles = servers.troubles();
    let trouble = || Some(Invalid::new("redis.host", "cannot be reached", "start it"));
    servers.tell("KongPlugin/a/b", trouble());
    troubles.changed().await;
    servers.tell("KongPlugin/a/b", trouble());
    assert!(troubles.changed().now_or_never().is_none(), "nothing new");
    assert_eq!(troubles.said().len(), 1);
    servers.tell("KongPlugin/a/b", None);
    troubles.changed().await;
    assert!(troubles.said().is_empty());
}
