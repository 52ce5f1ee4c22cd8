//! HTTP/2 and WebSocket over TLS: agreed on by ALPN, and the same from there on.

use std::time::Duration;

use h2::client;
use http::Request;
use portico::proxy::Limits;

use crate::h2::read;
use crate::harness::{Endpoint, Gate, Options, to, within};
use crate::secure::{Caller, Secure, certificate, open};

fn caller(protocols: &[&[u8]]) -> Caller {
    Caller::new().adjust(|config| config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect())
}

async fn gate(endpoint: &Endpoint) -> Gate {
    with(Options::default(), endpoint).await
}

async fn with(options: Options, endpoint: &Endpoint) -> Gate {
    let secure = |hostname, names: &[&str]| Secure {
        hostname,
        certificates: vec![certificate(names)],
        routes: to(endpoint.address),
    };
    let both = ["a.example", "b.example"];
    open(options, vec![secure("a.example", &both), secure("b.example", &both)]).await
}

#[tokio::test]
async fn http2_is_agreed_on_and_misdirected_requests_are_sent_elsewhere() {
    let endpoint = Endpoint::ok().await;
    let gate = gate(&endpoint).await;
    let stream = caller(&[b"h2", b"http/1.1"]).connect(&gate, "a.example").await.unwrap();
    assert_eq!(stream.socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (send, connection) = within("settings", client::handshake(stream.socket)).await.unwrap();
    tokio::spawn(connection);
    for (host, expected) in [("a.example", 200), ("b.example", 421), ("c.example", 421), ("a.example", 200)] {
        let request = Request::get(format!("https://{host}/")).body(()).unwrap();
        let (answer, _) = send.clone().ready().await.unwrap().send_request(request, true).unwrap();
        assert_eq!(read(answer).await.unwrap().status, expected, "{host}");
    }
    let seen = endpoint.log.requests();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].contains("\r\nx-forwarded-proto: https\r\n"), "{}", seen[0]);
}

#[tokio::test]
async fn who_does_not_ask_for_http2_does_not_get_it() {
    let endpoint = Endpoint::ok().await;
    let gate = gate(&endpoint).await;
    for protocols in [&[][..], &[&b"http/1.1"[..]]] {
        let mut client = caller(protocols).connect(&gate, "a.example").await.unwrap();
        assert_eq!(client.get("/").await.text(), "ok");
    }
}

#[tokio::test]
async fn who_agrees_on_http2_and_says_nothing_does_not_stay() {
    let limits = Limits { header_timeout: Duration::from_millis(100), ..Limits::default() };
    let gate = with(Options { limits, ..Options::default() }, &Endpoint::ok().await).await;
    let mut stream = caller(&[b"h2"]).connect(&gate, "a.example").await.unwrap();
    stream.rest().await.unwrap_or_default();
}

#[tokio::test]
async fn a_websocket_goes_through_tls() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello").await;
    })
    .await;
    let gate = gate(&endpoint).await;
    let mut client = caller(&[b"http/1.1"]).connect(&gate, "a.example").await.unwrap();
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(client.answer(false).await.status, 101);
    assert_eq!(client.rest().await.unwrap(), b"hello");
}
