//! Requests of clients that plugins send through proxies.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;

use super::*;
use crate::endpoint_tls::UpstreamProtocol;
use crate::endpoint_tls::{EndpointIdentity, IdentityName, TlsTrust, TrustAnchors};
use crate::plugin_api::RemoteTls;
use crate::plugin_api::http_proxy::HttpProxy;

/// A proxy that opens a tunnel to itself, in which it serves TLS with a certificate of `authority` for `name`.
async fn tunneling_proxy(authority: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>, name: &str) -> SocketAddr {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            assert!(head.starts_with(b"CONNECT api.partner.example:443 HTTP/1.1\r\n"));
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let Ok(mut stream) = acceptor.accept(socket).await else { continue };
            let mut head = vec![0; 1024];
            drop(stream.read(&mut head).await);
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await);
        }
    });
    address
}

fn authority() -> rcgen::CertifiedIssuer<'static, rcgen::KeyPair> {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
}

/// A request for a server through a proxy.
fn request_through(
    proxy: SocketAddr,
    host: &str,
    tls: Option<UpstreamTlsSettings>,
) -> (RemoteRequest, Option<ProxyRoute>) {
    let server = Remote {
        host: host.to_owned(),
        port: if tls.is_some() { 443 } else { 80 },
        tls: tls.as_ref().map(|_| RemoteTls { server_name: None, verify: true, files: None }),
        ..remote("shop", proxy, TEST_TIMEOUT)
    };
    let through = remote("shop", proxy, TEST_TIMEOUT);
    let proxy = Arc::new(HttpProxy { plain: through.clone(), secure: through, authorization: None });
    let mut request = request(server);
    request.headers.insert(http::header::HOST, http::HeaderValue::try_from(host).unwrap());
    (request, Some(ProxyRoute { proxy, tls }))
}

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The trust of a BackendTLSPolicy, and the names that it requires, also apply behind a proxy.
#[tokio::test]
async fn handshakes_through_a_proxy_have_the_settings_of_the_backend() {
    let (authority, other) = (authority(), authority());
    let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
    let settings = |authority: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>, alternative: Option<&str>| {
        let anchors = Arc::new(TrustAnchors::new([authority.der().clone()]));
        let identity = alternative.map(|name| EndpointIdentity {
            server_name: http::HeaderValue::from_static("api.partner.example"),
            alternatives: Box::new([IdentityName::Uri(name.into())]),
        });
        let trust = TlsTrust { anchors, max_intermediates: None, identity };
        UpstreamTlsSettings::new(UpstreamProtocol::Http1, Some(trust), None).unwrap()
    };
    for (name, settings, is_trusted) in [
        ("api.partner.example", settings(&authority, None), true),
        ("api.partner.example", settings(&other, None), false),
        ("other.example", settings(&authority, None), false),
        ("api.partner.example", settings(&authority, Some("spiffe://other")), false),
    ] {
        let proxy = tunneling_proxy(&authority, name).await;
        let (request, route) = request_through(proxy, "api.partner.example", Some(settings));
        match servers.send_in_place_of_backend(CLIENT, request, route).await {
            Ok(response) => assert!(is_trusted && response.status.as_u16() == 200, "{name}"),
            Err(RemoteFailure::Unreachable(error)) => {
                assert!(!is_trusted && error.contains("TLS handshake failed"), "{name}: {error}");
            }
            Err(failure) => panic!("{name}: {failure:?}"),
        }
    }
}

/// Clients that read slowly, or nothing at all, have half of the connections of their namespace at most.
#[tokio::test]
async fn requests_of_clients_leave_connections_to_plugins_that_decide() {
    let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
    let proxy = fixed_server(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nincomplete").await;
    let mut responses = Vec::new();
    let failure = loop {
        let (request, route) = request_through(proxy, "api.partner.example", None);
        let request = RemoteRequest { timeout: Duration::from_secs(6), ..request };
        match servers.send_in_place_of_backend(CLIENT, request, route).await {
            Ok(response) => responses.push(response),
            Err(failure) => break failure,
        }
        assert!(responses.len() <= 8, "clients have more than half of 16 connections");
    };
    let RemoteFailure::Busy(error) = failure else { panic!("{failure:?}") };
    assert!(responses.len() >= 6 && error.contains("requests in place of backends"), "{error}");
    let accepting = accepting_server().await;
    let began = Instant::now();
    servers.send(request(remote("shop", accepting, TEST_TIMEOUT))).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "the request of a guard waits");
    // A client that goes away leaves its place to others.
    responses.pop();
    let (request, route) = request_through(proxy, "api.partner.example", None);
    servers.send_in_place_of_backend(CLIENT, request, route).await.unwrap();
}

/// A lack of connections says nothing about the server.
#[tokio::test]
async fn requests_that_get_no_connection_are_no_failures_of_the_server() {
    let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
    let silent = silent_server().await;
    let limited = |timeout| remote("shop", silent, timeout);
    let mut connections = Vec::new();
    for _ in 0..14 {
        connections.push(servers.connect(limited(TEST_TIMEOUT)).await.unwrap());
    }
    assert!(servers.connect(limited(Duration::from_millis(400))).await.is_err(), "the share is seven eighths of 16");
    let request = request(limited(Duration::from_secs(1)));
    let outcome = servers.send_in_place_of_backend(CLIENT, request, None).await;
    assert!(matches!(outcome, Err(RemoteFailure::Busy(_))), "{outcome:?}");
}

/// A body of which nothing is read does not fill the memory.
#[tokio::test]
async fn bodies_through_a_proxy_are_read_as_clients_read_them() {
    const PART: usize = 64 << 10;
    let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let (wait, waits) = oneshot::channel();
    let (close, closed) = oneshot::channel();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        drop(socket.read(&mut [0; 1024]).await);
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").await.unwrap();
        let (mut sent, mut wait) = (0, Some(wait));
        loop {
            let mut writing = pin!(socket.write_all(&[b'x'; PART]));
            let written = match timeout(Duration::from_secs(3), &mut writing).await {
                Ok(written) => written,
                // Nothing is read any more.
                Err(_) => {
                    if let Some(wait) = wait.take() {
                        _ = wait.send(());
                    }
                    writing.await
                }
            };
            if written.is_err() {
                break;
            }
            sent += PART;
            // The buffers of the two sockets take some megabytes.
            assert!(sent < 64 << 20, "{sent} bytes were read");
        }
        _ = close.send(());
    });
    let (request, route) = request_through(proxy, "api.partner.example", None);
    let response = servers.send_in_place_of_backend(CLIENT, request, route).await.unwrap();
    waits.await.expect("the proxy never has to wait");
    drop(response);
    closed.await.unwrap();
}
