//! Balancers that say who the client is.

use std::time::Duration;

use portico::proxy::Limits;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::books::scrape;
use crate::harness::{Client, Endpoint, Gate, Options, header, to, within};
use crate::secure::{Caller, Secure, certificate, open};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";

fn behind_a_balancer() -> Options {
    let limits = Limits { proxy_header_timeout: Duration::from_millis(300), ..Limits::default() };
    Options { balancers: vec!["127.0.0.0/8"], limits, ..Options::default() }
}

fn version_2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family, 0, u8::try_from(payload.len()).unwrap()]);
    header.extend(payload);
    header
}

const PAYLOAD: [u8; 12] = [192, 0, 2, 7, 127, 0, 0, 1, 0x30, 0x39, 0, 80];

async fn booked(gate: &Gate, outcome: &str, count: f64) {
    let name = format!("portico_proxy_headers_total{{outcome=\"{outcome}\"}}");
    within(&format!("{count} headers with outcome {outcome}"), async {
        while scrape(gate)[&name] < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_client_is_who_the_balancer_says() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::with(behind_a_balancer(), to(endpoint.address)).await;
    let headers: [(&[u8], &str); 7] = [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 80\r\n", "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 12345 80\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (&version_2(1, 0x11, &PAYLOAD), "192.0.2.7"),
        (&version_2(1, 0x11, &[&PAYLOAD[..], &[4, 0, 1, 0]].concat()), "192.0.2.7"),
        (&version_2(0, 0x11, &PAYLOAD), "127.0.0.1"),
        (&version_2(1, 0, &[]), "127.0.0.1"),
    ];
    for (number, (bytes, expected)) in headers.into_iter().enumerate() {
        // With the request in the same segment, then in two parts that split the header.
        for cut in [bytes.len(), bytes.len() / 2, 1] {
            let mut client = gate.client().await;
            client.socket.set_nodelay(true).unwrap();
            let whole = [bytes, REQUEST.as_bytes()].concat();
            client.send(&whole[..cut]).await;
            tokio::task::yield_now().await;
            client.send(&whole[cut..]).await;
            assert_eq!(client.answer(false).await.text(), "ok", "header {number} cut at {cut}");
            let request = endpoint.log.requests().pop().unwrap();
            assert_eq!(header(&request, "x-forwarded-for"), Some(expected), "header {number} cut at {cut}");
            assert_eq!(client.get("/again").await.text(), "ok", "the connection goes on");
        }
    }
    booked(&gate, "client", 12.0).await;
    booked(&gate, "peer", 9.0).await;
}

#[tokio::test]
async fn who_sends_no_header_or_a_wrong_one_is_not_served() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::with(behind_a_balancer(), to(endpoint.address)).await;
    let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    let cases: [(&[u8], &str); 6] = [
        (REQUEST.as_bytes(), "malformed"),
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 80\n", "malformed"),
        (&version_2(3, 0x11, &PAYLOAD), "malformed"),
        (&long, "too_long"),
        (b"PROXY TCP4 192.0.2.7", "timeout"),
        (b"", "timeout"),
    ];
    let mut counts = std::collections::BTreeMap::new();
    for (bytes, outcome) in cases {
        let mut client = gate.client().await;
        client.send(bytes).await;
        // A reset is fine: what the client sent may be unread.
        assert!(client.rest().await.unwrap_or_default().is_empty(), "{outcome}");
        let count = counts.entry(outcome).or_insert(0.0);
        *count += 1.0;
        booked(&gate, outcome, *count).await;
    }
    drop(TcpStream::connect(gate.address).await.unwrap());
    booked(&gate, "ended", 1.0).await;
    assert!(endpoint.log.requests().is_empty());
}

#[tokio::test]
async fn a_header_from_anybody_else_is_no_header() {
    let endpoint = Endpoint::ok().await;
    let options = Options { balancers: vec!["192.0.2.0/24"], ..Options::default() };
    let gate = Gate::with(options, to(endpoint.address)).await;
    assert_eq!(gate.ask(REQUEST).await.text(), "ok");
    let forged = format!("PROXY TCP4 192.0.2.7 127.0.0.1 12345 80\r\n{REQUEST}");
    assert_eq!(gate.ask(&forged).await.status, 400);
    assert_eq!(endpoint.log.requests().len(), 1);
}

/// The word of an untrusted client behind a trusted balancer is still that of an untrusted client.
#[tokio::test]
async fn forwarded_headers_are_believed_by_the_address_in_the_header() {
    let endpoint = Endpoint::ok().await;
    let options = Options { trusted: vec!["127.0.0.0/8"], ..behind_a_balancer() };
    let gate = Gate::with(options, to(endpoint.address)).await;
    let request = "GET / HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: 6.6.6.6\r\n\r\n";
    for (start, expected) in
        [("PROXY TCP4 192.0.2.7 127.0.0.1 12345 80\r\n", "192.0.2.7"), ("PROXY UNKNOWN\r\n", "6.6.6.6, 127.0.0.1")]
    {
        gate.ask(&format!("{start}{request}")).await;
        let seen = endpoint.log.requests().pop().unwrap();
        assert_eq!(header(&seen, "x-forwarded-for"), Some(expected));
    }
}

#[tokio::test]
async fn the_header_comes_before_the_handshake() {
    let endpoint = Endpoint::ok().await;
    let own = certificate(&["a.example"]);
    let secure = Secure { hostname: "", certificates: vec![own], routes: to(endpoint.address) };
    let gate = open(behind_a_balancer(), vec![secure]).await;
    let mut socket = TcpStream::connect(gate.address).await.unwrap();
    socket.write_all(&version_2(1, 0x11, &PAYLOAD)).await.unwrap();
    let mut client: Client<_> = Caller::new().over(socket, "a.example").await.unwrap();
    assert_eq!(client.get("/").await.text(), "ok");
    assert_eq!(header(&endpoint.log.requests()[0], "x-forwarded-for"), Some("192.0.2.7"));
}
