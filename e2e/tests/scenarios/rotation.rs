//! Replaces the certificate of a listener while clients connect.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use portico_e2e::cluster::Cluster;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::load::Load;
use crate::scenarios::objects::{apply, gateway, prefix, route, until, wait_until_programmed};

const HOST: &str = "rotation.example";
/// How often the certificate is replaced.
const ROUNDS: usize = 5;
/// Requests that must be served before the next step.
const REQUESTS: usize = 50;

pub(crate) async fn certificate_rotation_fails_no_handshake(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "rotation").await?;
    let certificates = (0..=ROUNDS).map(|_| CertificateSecret::make()).collect::<Result<Vec<_>>>()?;
    let mut gateway = gateway("rotation");
    gateway["spec"]["listeners"] = json!([{
        "name": "https", "port": 443, "protocol": "HTTPS", "hostname": HOST,
        "tls": { "certificateRefs": [{ "name": "rotation" }] },
    }]);
    let route = route("rotation", "rotation", HOST, prefix("/"), "rotation");
    apply(cluster, &[certificates[0].secret.clone(), gateway, route]).await?;
    let address = SocketAddr::new(wait_until_programmed(cluster, "rotation").await?.ip(), 443);
    let tls = Some(Arc::new(client_config(&certificates)?));
    let target = Target { tls, ..Target::new(address, HOST, "/") };
    until("the route is served", async || target.expect(200, "rotation").await).await?;

    let load = Load::start(&target);
    load.wait_for_more(REQUESTS).await?;
    for new in &certificates[1..] {
        apply(cluster, std::slice::from_ref(&new.secret)).await?;
        until("the new certificate is served", async || match target.connect().await?.certificate {
            Some(served) if served == new.certificate => Ok(()),
            _ => bail!("the server has another certificate"),
        })
        .await?;
        load.wait_for_more(REQUESTS).await?;
    }
    let results = load.stop().await?;
    for (round, expected) in certificates.iter().enumerate() {
        ensure!(
            results.certificates.contains(&expected.certificate),
            "the certificate of round {round} was never served"
        );
    }
    cluster.kubectl(&["delete", "gateway,httproute,service,endpointslice,secret", "rotation"]).await.map(drop)
}

/// A self-signed certificate and its Secret.
struct CertificateSecret {
    certificate: CertificateDer<'static>,
    secret: Value,
}

impl CertificateSecret {
    fn make() -> Result<CertificateSecret> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([HOST.to_owned()])?.self_signed(&key)?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": { "name": "rotation" },
            "stringData": { "tls.crt": certificate.pem(), "tls.key": key.serialize_pem() },
        });
        Ok(CertificateSecret { certificate: certificate.der().clone(), secret })
    }
}

/// The configuration of a client that trusts these certificates.
fn client_config(certificates: &[CertificateSecret]) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.certificate.clone()).context("rustls rejects the certificate of rcgen")?;
    }
    let mut client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    // The server sends no certificate when a session is resumed.
    client.resumption = Resumption::disabled();
    Ok(client)
}
