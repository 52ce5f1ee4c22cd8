//! Plugin services for tests: background tasks, a fake DNS, and a record of reported diagnostics.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use portico::diagnostic::Diagnostic;
use portico::plugin_api::{PluginServices, Remote, RemoteResponse, RemoteStream, RemoteTls};
use portico::ssrf_guard::AddressPolicy;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::redis::server::Authority;

pub(crate) struct TestServices {
    /// The only name that has an address.
    resolved_name: &'static str,
    roots: RootCertStore,
    diagnostics: Mutex<HashMap<String, Option<Diagnostic>>>,
}

impl TestServices {
    /// Resolves this name to the loopback address.
    pub(crate) fn resolving(name: &'static str) -> Arc<TestServices> {
        Arc::new(TestServices { resolved_name: name, roots: RootCertStore::empty(), diagnostics: Mutex::default() })
    }

    /// Also trusts the certificates of this authority.
    pub(crate) fn trusting(name: &'static str, authority: &Authority) -> Arc<TestServices> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der()).unwrap();
        Arc::new(TestServices { resolved_name: name, roots, diagnostics: Mutex::default() })
    }

    /// The last diagnostic of an object.
    pub(crate) fn diagnostic(&self, object: &str) -> Option<Diagnostic> {
        self.diagnostics.lock().unwrap().get(object).cloned().flatten()
    }

    fn tls(&self, tls: &RemoteTls) -> TlsConnector {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = match tls.verify {
            true => builder.with_root_certificates(self.roots.clone()).with_no_client_auth(),
            false => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(NoServerVerification))
                .with_no_client_auth(),
        };
        TlsConnector::from(Arc::new(config))
    }
}

impl PluginServices for TestServices {
    fn address_policy(&self) -> AddressPolicy {
        AddressPolicy::default()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn fetch(
        &self,
        uri: &str,
        _namespace: Option<&str>,
        _timeout: Duration,
        _max_bytes: usize,
    ) -> BoxFuture<'static, Result<RemoteResponse, String>> {
        panic!("unexpected fetch of {uri}");
    }

    fn connect(&self, to: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        let tls = to.tls.as_ref().map(|tls| self.tls(tls));
        let resolved_name = self.resolved_name;
        Box::pin(async move {
            assert_eq!(to.namespace.as_deref(), Some("default"), "names are resolved in the namespace of the plugin");
            let address = match to.host.parse::<IpAddr>() {
                Ok(address) => address,
                Err(_) if to.host == resolved_name => Ipv4Addr::LOCALHOST.into(),
                Err(_) => return Err(format!("{} has no address", to.host)),
            };
            let with_address = |error: std::io::Error| format!("{}:{}: {error}", to.host, to.port);
            let stream = TcpStream::connect((address, to.port)).await.map_err(with_address)?;
            match tls {
                Some(connector) => secure(stream, &connector, &to).await,
                None => Ok(Box::new(stream) as Box<dyn RemoteStream>),
            }
        })
    }

    fn start_tls(
        &self,
        stream: Box<dyn RemoteStream>,
        to: Remote,
    ) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        let connector = self.tls(to.tls.as_ref().expect("TLS has settings"));
        Box::pin(async move { secure(stream, &connector, &to).await })
    }

    fn report(&self, object: &str, diagnostic: Option<Diagnostic>) {
        self.diagnostics.lock().unwrap().insert(object.to_owned(), diagnostic);
    }
}

async fn secure<S: RemoteStream + 'static>(
    stream: S,
    connector: &TlsConnector,
    to: &Remote,
) -> Result<Box<dyn RemoteStream>, String> {
    let server_name = to.tls.as_ref().and_then(|tls| tls.server_name.clone()).unwrap_or_else(|| to.host.clone());
    let server_name = ServerName::try_from(server_name).map_err(|error| error.to_string())?;
    let secured = connector.connect(server_name, stream).await;
    Ok(Box::new(secured.map_err(|error| format!("{}:{}: {error}", to.host, to.port))?))
}

/// Accepts all certificates.
#[derive(Debug)]
struct NoServerVerification;

impl ServerCertVerifier for NoServerVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
