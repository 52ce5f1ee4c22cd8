//! Connections to servers over TLS: whose certificates are trusted, and which one the server gets.

use rustls::server::WebPkiClientVerifier;

use super::*;
use crate::plugin_api::{ClientCertificateFiles, RemoteTls, RemoteUrl, TlsFiles};

/// Serves TLS with a certificate for `localhost` that nothing trusts, and offers sessions to resume.
fn tls_acceptor(versions: &[&'static rustls::SupportedProtocolVersion]) -> tokio_rustls::TlsAcceptor {
    tls_acceptor_and_certificate(versions).0
}

/// The same, and its certificate in PEM.
fn tls_acceptor_and_certificate(
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> (tokio_rustls::TlsAcceptor, String) {
    let generated = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(generated.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![generated.cert.der().clone()], key)
        .unwrap();
    (tokio_rustls::TlsAcceptor::from(Arc::new(config)), generated.cert.pem())
}

/// A resumed session would extend the trust in a certificate beyond its end.
#[tokio::test]
async fn each_connection_to_a_server_is_a_full_handshake() {
    for version in rustls::ALL_VERSIONS {
        let acceptor = tls_acceptor(&[version]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
        for _ in 0..3 {
            let accept = async {
                let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
                stream.write_all(b"+PONG").await.unwrap();
                stream.get_ref().1.handshake_kind()
            };
            let tls = Some(RemoteTls { server_name: None, verify: false, files: None });
            let server = Remote { host: "127.0.0.1".into(), port, namespace: None, tls, timeout: TEST_TIMEOUT };
            let connect = async {
                let mut stream = servers.connect(server).await.unwrap();
                // The sessions that the server offers come before its first bytes.
                stream.read_exact(&mut [0; 5]).await.unwrap();
            };
            let (handshake, ()) = tokio::join!(accept, connect);
            assert_eq!(handshake, Some(rustls::HandshakeKind::Full), "{version:?}");
        }
    }
}

/// A certificate that was renewed needs no restart.
#[tokio::test]
async fn servers_get_the_client_certificate_that_files_have_now() {
    let clients = [(); 2].map(|()| rcgen::generate_simple_self_signed(vec!["gateway".to_owned()]).unwrap());
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(clients.iter().map(|client| client.cert.der().clone()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("ca"), own.cert.pem()).unwrap();
    let (servers, mut lookups) = start(AddressPolicy::default()).unwrap();
    tokio::spawn(async move {
        while let Some(lookup) = lookups.recv().await {
            drop(lookup.reply.send(None));
        }
    });
    let connect = async |client: Option<ClientCertificateFiles>| {
        let files = Some(Arc::new(TlsFiles { authorities: Some(path("ca")), client }));
        let tls = Some(RemoteTls { server_name: None, verify: true, files });
        let server = Remote { host: "localhost".into(), port, namespace: None, tls, timeout: TEST_TIMEOUT };
        let accept = async {
            let stream = acceptor.accept(listener.accept().await.unwrap().0).await.ok()?;
            Some(stream.get_ref().1.peer_certificates()?[0].clone())
        };
        tokio::join!(accept, servers.connect(server)).0
    };
    for client in &clients {
        std::fs::write(path("certificate"), client.cert.pem()).unwrap();
        std::fs::write(path("key"), client.signing_key.serialize_pem()).unwrap();
        let files = ClientCertificateFiles { certificate: path("certificate"), key: path("key") };
        assert_eq!(connect(Some(files)).await.as_ref(), Some(client.cert.der()));
    }
    assert_eq!(connect(None).await, None, "the server requires one");
}

#[tokio::test]
async fn servers_with_an_untrusted_certificate_are_refused() {
    let (acceptor, certificate) = tls_acceptor_and_certificate(rustls::ALL_VERSIONS);
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
    let (servers, mut lookups) = start(AddressPolicy::default()).unwrap();
    tokio::spawn(async move {
        while let Some(lookup) = lookups.recv().await {
            drop(lookup.reply.send(None));
        }
    });
    let url = RemoteUrl::parse(&url).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let save = |name: &str, certificate: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, certificate).unwrap();
        Arc::new(TlsFiles { authorities: Some(path), client: None })
    };
    let own = save("own", &certificate);
    let other = save("other", &tls_acceptor_and_certificate(rustls::ALL_VERSIONS).1);
    for (verify, files, is_accepted) in
        [(true, None, false), (false, None, true), (true, Some(own), true), (true, Some(other), false)]
    {
        let mut remote = url.remote(None, verify, TEST_TIMEOUT);
        remote.tls.as_mut().unwrap().files = files;
        let outcome = servers.send(RemoteRequest {
            remote,
            method: http::Method::POST,
            target: url.target.clone(),
            headers: http::HeaderMap::from_iter([(http::header::HOST, url.authority.clone())]),
            body: bytes::Bytes::from_static(b"{}"),
            timeout: TEST_TIMEOUT,
            keep_alive: None,
            is_repeatable: false,
            response_body: ResponseBodyUse::Discard,
        });
        match outcome.await {
            Err(error) if !is_accepted => assert!(error.contains("TLS handshake failed"), "{error}"),
            Ok(response) if is_accepted => assert_eq!(response.status.as_u16(), 200),
            outcome => panic!("verify {verify}: {outcome:?}"),
        }
    }
}
