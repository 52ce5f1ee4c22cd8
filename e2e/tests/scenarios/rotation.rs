//! A certificate is replaced while handshakes come in.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use portico_e2e::cluster::Cluster;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::backend::Backend;
use crate::client::Target;
use crate::load::Load;
use crate::objects::{apply, gateway, prefix, programmed, route, until};

const HOST: &str = "rotation.example";
const ROUNDS: usize = 5;
const SOME: usize = 50;

pub(crate) async fn a_new_certificate_is_shown_without_a_failed_handshake(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "rotation").await?;
    let pairs = (0..=ROUNDS).map(|_| Certificate::make()).collect::<Result<Vec<_>>>()?;
    let mut gateway = gateway("rotation");
    gateway["spec"]["listeners"] = json!([{
        "name": "https", "port": 443, "protocol": "HTTPS", "hostname": HOST,
        "tls": { "certificateRefs": [{ "name": "rotation" }] },
    }]);
    let route = route("rotation", "rotation", HOST, prefix("/"), "rotation");
    apply(cluster, &[pairs[0].secret.clone(), gateway, route]).await?;
    let address = SocketAddr::new(programmed(cluster, "rotation").await?.ip(), 443);
    let tls = Some(Arc::new(trusting(&pairs)?));
    let target = Target { tls, ..Target::new(address, HOST, "/") };
    until("the route answers", async || target.expect(200, "rotation").await).await?;

    let load = Load::start(&target);
    load.more(SOME).await?;
    for pair in &pairs[1..] {
        apply(cluster, std::slice::from_ref(&pair.secret)).await?;
        until("the new certificate is shown", async || match target.connect().await?.certificate {
            Some(shown) if shown == pair.certificate => Ok(()),
            _ => bail!("it is another one"),
        })
        .await?;
        load.more(SOME).await?;
    }
    let seen = load.stop()?;
    for (round, pair) in pairs.iter().enumerate() {
        ensure!(seen.certificates.contains(&pair.certificate), "the certificate of round {round} was never shown");
    }
    cluster.kubectl(&["delete", "gateway,httproute,service,endpointslice,secret", "rotation"]).await.map(drop)
}

/// One that vouches for itself, and the Secret that holds it.
struct Certificate {
    certificate: CertificateDer<'static>,
    secret: Value,
}

impl Certificate {
    fn make() -> Result<Certificate> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([HOST.to_owned()])?.self_signed(&key)?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": { "name": "rotation" },
            "stringData": { "tls.crt": certificate.pem(), "tls.key": key.serialize_pem() },
        });
        Ok(Certificate { certificate: certificate.der().clone(), secret })
    }
}

/// A client that trusts all of these.
fn trusting(certificates: &[Certificate]) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.certificate.clone()).context("rustls takes no certificate of rcgen")?;
    }
    let mut client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    // Who resumes a session is shown no certificate.
    client.resumption = Resumption::disabled();
    Ok(client)
}
