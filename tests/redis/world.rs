//! The world of plugins under test: tasks run beside it, names lead to this machine, and what is told is remembered.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use portico::plugin::{Fetched, Invalid, Remote, RemoteTls, Services, Stream};
use portico::upstream::Loopback;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::server::Authority;

pub(crate) struct World {
    name: &'static str,
    roots: RootCertStore,
    told: Mutex<HashMap<String, Option<Invalid>>>,
}

impl World {
    /// Where this name is one of this machine.
    pub(crate) fn knowing(name: &'static str) -> Arc<World> {
        Arc::new(World { name, roots: RootCertStore::empty(), told: Mutex::default() })
    }

    pub(crate) fn trusting(name: &'static str, authority: &Authority) -> Arc<World> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der()).unwrap();
        Arc::new(World { name, roots, told: Mutex::default() })
    }

    /// What is wrong with an object.
    pub(crate) fn told(&self, object: &str) -> Option<Invalid> {
        self.told.lock().unwrap().get(object).cloned().flatten()
    }

    fn tls(&self, tls: &RemoteTls) -> TlsConnector {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = match tls.verify {
            true => builder.with_root_certificates(self.roots.clone()).with_no_client_auth(),
            false => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth(),
        };
        TlsConnector::from(Arc::new(config))
    }
}

impl Services for World {
    fn loopback(&self) -> Loopback {
        Loopback::Served
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn fetch(&self, uri: &str, _timeout: Duration, _most: usize) -> BoxFuture<'static, Result<Fetched, String>> {
        panic!("{uri} is fetched");
    }

    fn connect(&self, to: Remote) -> BoxFuture<'static, Result<Box<dyn Stream>, String>> {
        let tls = to.tls.as_ref().map(|tls| self.tls(tls));
        let name = self.name;
        Box::pin(async move {
            assert_eq!(to.namespace.as_deref(), Some("default"), "names are looked up from the plugin's namespace");
            let address = match to.host.parse::<IpAddr>() {
                Ok(address) => address,
                Err(_) if to.host == name => Ipv4Addr::LOCALHOST.into(),
                Err(_) => return Err(format!("{} is not known", to.host)),
            };
            let failed = |error: std::io::Error| format!("{}:{}: {error}", to.host, to.port);
            let stream = TcpStream::connect((address, to.port)).await.map_err(failed)?;
            let Some(connector) = tls else { return Ok(Box::new(stream) as Box<dyn Stream>) };
            let server_name = to.tls.and_then(|tls| tls.server_name).unwrap_or_else(|| to.host.clone());
            let server_name = ServerName::try_from(server_name).map_err(|error| error.to_string())?;
            Ok(Box::new(connector.connect(server_name, stream).await.map_err(failed)?) as Box<dyn Stream>)
        })
    }

    fn tell(&self, object: &str, trouble: Option<Invalid>) {
        self.told.lock().unwrap().insert(object.to_owned(), trouble);
    }
}

/// Believes everybody.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
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
