//! TLS listeners that decrypt connections and forward the plain bytes.

use std::sync::Arc;

use portico::snapshot::certs::Certificates;
use portico::snapshot::host::HostPattern;
use portico::snapshot::port_tls::{StreamHosts, TlsListener};
use portico::snapshot::stream::StreamAction;

use crate::harness::{Endpoint, Options};
use crate::metrics::scrape;
use crate::stream::wait_for_outcome;
use crate::tls_harness::{TestTlsConnector, certificate};
use crate::tls_passthrough::{https_listener, rule, start, to_endpoint};

/// A listener for `*.example` that terminates TLS, with these routes.
pub(crate) fn terminating(routes: Vec<(&str, StreamAction)>) -> (HostPattern, TlsListener) {
    let rule_of = |(host, action)| (HostPattern::parse(Some(host)), rule("terminate", host, Some(action)));
    let hosts = routes.into_iter().map(rule_of).collect();
    let hosts = StreamHosts { hosts, unrouted: rule("terminate", "", None) };
    let certificates = Arc::new(Certificates::new(vec![certificate(&["*.example"])]));
    (HostPattern::parse(Some("*.example")), TlsListener::TerminateStream(certificates, hosts))
}

/// An endpoint that receives so many bytes, sends them back, and closes.
async fn echo_endpoint(length: usize) -> Endpoint {
    Endpoint::scripted(move |mut stream, _| async move {
        let mut received = Vec::new();
        while received.len() < length
            && let Some(bytes) = stream.read_some().await
        {
            received.extend(bytes);
        }
        stream.send(received).await;
    })
    .await
}

#[tokio::test]
async fn decrypted_bytes_are_forwarded_in_both_directions() {
    let sent: Vec<u8> = (0..300_000_u32).map(|index| (index / 7 % 251) as u8).collect();
    let endpoint = echo_endpoint(sent.len()).await;
    let tls = terminating(vec![("a.example", to_endpoint(endpoint.address))]);
    let server = start(Options::default(), tls, https_listener("").await).await;
    // Of what the client offers, no protocol is selected.
    let connector = TestTlsConnector::new().with_alpn(&[b"unknown"]);
    let mut client = connector.connect(&server, "a.example").await.unwrap();
    client.send(&sent).await;
    assert!(client.read_to_end().await.unwrap() == sent);
    client.finish().await;
    wait_for_outcome(&server, "completed", 1.0).await;
    assert_eq!(scrape(&server)["portico_tls_handshakes_total{outcome=\"full\"}"], 1.0);
}

/// Bytes may be missing: the end of the TCP connection is not authenticated.
#[tokio::test]
async fn client_that_closes_without_an_alert_resets_the_endpoint() {
    let endpoint = echo_endpoint(1_000).await;
    let tls = terminating(vec![("a.example", to_endpoint(endpoint.address))]);
    let server = start(Options::default(), tls, https_listener("").await).await;
    let mut client = TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
    client.send("the first half").await;
    drop(client);
    wait_for_outcome(&server, "client_reset", 1.0).await;
}

#[tokio::test]
async fn connections_without_a_route_are_closed_after_the_handshake() {
    let server = start(Options::default(), terminating(vec![]), https_listener("").await).await;
    let mut client = TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
    assert!(client.read_to_end().await.is_err(), "the connection is reset");
    wait_for_outcome(&server, "no_route", 1.0).await;
}

#[tokio::test]
async fn requests_for_a_host_of_forwarded_connections_are_misdirected() {
    let server = start(Options::default(), terminating(vec![]), https_listener("").await).await;
    let mut client = TestTlsConnector::new().connect(&server, "a.test").await.unwrap();
    for (host, status) in [("a.test", 200), ("b.example", 421)] {
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(client.response().await.status, status, "{host}");
    }
}
