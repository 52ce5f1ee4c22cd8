//! The objects of test streams: a Gateway with a listener for each protocol, their routes and Service, and the TLS
//! settings of backends and clients.

use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::scenarios::objects::gateway;
use crate::scenarios::stream_client::{HOST, Protocol};

/// The name of the Gateway, the Service and the routes.
pub(crate) const NAME: &str = "streams";

/// The Gateway with a listener for each protocol, a route for each of them, and the Service of all routes.
pub(crate) fn objects() -> Vec<Value> {
    let mut gateway = gateway(NAME);
    gateway["spec"]["listeners"] = Protocol::ALL.map(listener).into();
    let ports = Protocol::ALL.map(|protocol| {
        let (port, transport) = (protocol.port(), protocol.transport());
        json!({ "name": protocol.name(), "port": port, "protocol": transport })
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": NAME }, "spec": { "ports": ports },
    });
    [gateway, service].into_iter().chain(Protocol::ALL.map(stream_route)).collect()
}

fn listener(protocol: Protocol) -> Value {
    let mut listener = json!({ "name": protocol.name(), "port": protocol.port() });
    listener["protocol"] = match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Tls => "TLS",
        Protocol::Udp => "UDP",
        Protocol::Grpc => "HTTP",
    }
    .into();
    if protocol == Protocol::Tls {
        listener["tls"] = json!({ "mode": "Passthrough" });
    }
    listener
}

fn stream_route(protocol: Protocol) -> Value {
    let (kind, has_host) = match protocol {
        Protocol::Tcp => ("TCPRoute", false),
        Protocol::Tls => ("TLSRoute", true),
        Protocol::Udp => ("UDPRoute", false),
        Protocol::Grpc => ("GRPCRoute", true),
    };
    let mut spec = json!({
        "parentRefs": [{ "name": NAME, "sectionName": protocol.name() }],
        "rules": [{ "backendRefs": [{ "name": NAME, "port": protocol.port() }] }],
    });
    if has_host {
        spec["hostnames"] = json!([HOST]);
    }
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": { "name": NAME }, "spec": spec,
    })
}

/// The settings of backends with a new certificate, and of clients that trust it.
pub(crate) fn tls_configs() -> Result<(Arc<ServerConfig>, Arc<ClientConfig>)> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([HOST.to_owned()])?.self_signed(&key)?.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).context("rustls rejects the certificate of rcgen")?;
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key)?;
    Ok((Arc::new(server), Arc::new(client)))
}
