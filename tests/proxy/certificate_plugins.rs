//! Plugins that authenticate clients by certificates, on the wire.

use std::sync::Arc;

use portico::plugin_api::ConsumerDirectory;
use portico::plugin_chain::Chain;
use portico::plugin_chain::testing::{chain, consumer};
use portico::plugins::REGISTRY;
use portico::snapshot::Snapshot;
use rcgen::{CertificateParams, DnType};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};

use crate::client_certificates::ClientAuthority;
use crate::harness::{
    Endpoint, Options, Route, TestServer, forward, header, reserve_address, route, snapshot, upstream,
};
use crate::tls_harness::{TestTlsConnector, TlsClient, TlsListener, certificate, secure_snapshot};

fn named(name: &'static str) -> impl FnOnce(&mut CertificateParams) {
    move |params| params.distinguished_name.push(DnType::CommonName, name)
}

fn mtls_chain(authority: &ClientAuthority, fields: &Value) -> Arc<Chain> {
    let mut config = json!({"ca_certificates": [authority.pem()]});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    chain(&[(REGISTRY.find("mtls-auth").unwrap(), config)])
}

fn consumers() -> Arc<ConsumerDirectory> {
    let mut consumers = ConsumerDirectory::default();
    for name in ["anna", "guest"] {
        consumers.add(&consumer(name, &[]));
    }
    Arc::new(consumers)
}

/// Listeners for `a.example`, with this chain, and for `b.example`, without plugins.
fn listeners(endpoint: &Endpoint, plugins: Option<Arc<Chain>>) -> Vec<TlsListener> {
    let routes = |plugins| {
        let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
        vec![Route { plugins, ..route(action) }]
    };
    let listener = |hostname, plugins| TlsListener {
        hostname,
        certificates: vec![certificate(&[hostname])],
        routes: routes(plugins),
    };
    vec![listener("a.example", plugins), listener("b.example", None)]
}

async fn start(endpoint: &Endpoint, plugins: Option<Arc<Chain>>) -> TestServer {
    let (address, reserved) = reserve_address();
    let snapshot = Snapshot { consumers: consumers(), ..secure_snapshot(address, listeners(endpoint, plugins)) };
    let server = TestServer::start(Options::default(), address, reserved, snapshot);
    server.proxy.reconcile().await;
    server
}

async fn status(client: &mut TlsClient, host: &str) -> u16 {
    client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\nx-consumer-username: forged\r\n\r\n")).await;
    client.response().await.status
}

fn connector(certificate: Option<&Arc<CertifiedKey>>) -> Vec<TestTlsConnector> {
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13].into_iter();
    let connectors = versions.map(|version| {
        let connector = TestTlsConnector::with_version(version);
        match certificate {
            Some(certificate) => connector.with_client_certificate(certificate),
            None => connector,
        }
    });
    connectors.collect()
}

#[tokio::test]
async fn certificates_of_clients_identify_consumers() {
    let endpoint = Endpoint::ok().await;
    let (authority, other) = (ClientAuthority::new(), ClientAuthority::new());
    let server = start(&endpoint, Some(mtls_chain(&authority, &json!({})))).await;
    let (anna, unknown) = (authority.issue_with(named("anna")), authority.issue_with(named("unknown")));
    let foreign = other.issue_with(named("anna"));
    for (what, certificate, expected) in [
        ("anna", Some(&anna), 200),
        ("unknown", Some(&unknown), 401),
        ("of another authority", Some(&foreign), 401),
        ("none", None, 401),
    ] {
        for connector in connector(certificate) {
            // The second connection resumes the session of the first one, with the same certificate.
            for _ in 0..2 {
                let mut client = connector.connect(&server, "a.example").await.unwrap();
                assert_eq!(status(&mut client, "a.example").await, expected, "{what}");
            }
            let mut client = connector.connect(&server, "b.example").await.unwrap();
            assert_eq!(status(&mut client, "b.example").await, 200, "{what}, on the listener without the plugin");
        }
    }
    let forwarded = endpoint.log.requests();
    let of_anna = forwarded.iter().filter(|request| header(request, "x-consumer-username") == Some("anna"));
    assert_eq!(of_anna.count(), 4);
}

/// A client with the certificate of another one does not have its key.
#[tokio::test]
async fn clients_must_have_the_key_of_their_certificate() {
    let endpoint = Endpoint::ok().await;
    let authority = ClientAuthority::new();
    let server = start(&endpoint, Some(mtls_chain(&authority, &json!({})))).await;
    let (anna, eve) = (authority.issue_with(named("anna")), authority.issue_with(named("eve")));
    let stolen = Arc::new(CertifiedKey::new(anna.cert.clone(), Arc::clone(&eve.key)));
    for connector in connector(Some(&stolen)) {
        let Ok(mut client) = connector.connect(&server, "a.example").await else { continue };
        client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        assert!(client.try_response().await.is_none(), "the handshake must fail");
    }
    assert_eq!(endpoint.log.requests().len(), 0);
}

#[tokio::test]
async fn clients_that_were_not_asked_open_another_connection() {
    let endpoint = Endpoint::ok().await;
    let authority = ClientAuthority::new();
    let server = start(&endpoint, None).await;
    let anna = authority.issue_with(named("anna"));
    for connector in connector(Some(&anna)) {
        let plain = Snapshot { consumers: consumers(), ..secure_snapshot(server.address, listeners(&endpoint, None)) };
        server.snapshot.store(Arc::new(plain));
        let mut early = connector.connect(&server, "a.example").await.unwrap();
        assert_eq!(status(&mut early, "a.example").await, 200);
        let with_plugin = listeners(&endpoint, Some(mtls_chain(&authority, &json!({}))));
        let snapshot = Snapshot { consumers: consumers(), ..secure_snapshot(server.address, with_plugin) };
        server.snapshot.store(Arc::new(snapshot));
        assert_eq!(status(&mut early, "a.example").await, 421);
        // A session that began without a certificate must not be resumed.
        let mut late = connector.connect(&server, "a.example").await.unwrap();
        assert_eq!(status(&mut late, "a.example").await, 200);
    }
}

// docs/kong-compatibility.md, 5.7
#[tokio::test]
async fn certificates_in_headers_count_only_from_trusted_peers() {
    let endpoint = Endpoint::ok().await;
    let authority = ClientAuthority::new();
    let anna = authority.issue_with(named("anna"));
    let config = json!({
        "ca_certificates": [authority.pem()], "certificate_header_name": "x-client-cert",
        "certificate_header_format": "base64_encoded",
    });
    let value = {
        use base64::Engine;
        base64::prelude::BASE64_STANDARD.encode(&anna.cert[0])
    };
    for (trusted, expected) in [("127.0.0.0/8", 200), ("192.0.2.0/24", 401)] {
        let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
        let plugins = chain(&[(REGISTRY.find("header-cert-auth").unwrap(), config.clone())]);
        let route = Route { plugins: Some(plugins), ..route(action) };
        let (address, reserved) = reserve_address();
        let snapshot = Snapshot { consumers: consumers(), ..snapshot(address, vec![route]) };
        let options = Options { trusted: vec![trusted], ..Options::default() };
        let server = TestServer::start(options, address, reserved, snapshot);
        server.proxy.reconcile().await;
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nx-client-cert: {value}\r\n\r\n");
        assert_eq!(server.request(&request).await.status, expected, "{trusted}");
    }
    let forwarded = endpoint.log.requests();
    assert_eq!((forwarded.len(), header(&forwarded[0], "x-consumer-username")), (1, Some("anna")));
}
