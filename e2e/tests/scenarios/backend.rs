//! Backends in this process, for Services without Pods. They respond with their name and the path.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portico_e2e::cluster::{ADDRESS, Cluster};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A server that responds with `NAME PATH`. It stops when dropped.
pub(crate) struct Backend {
    name: String,
    address: SocketAddr,
    _server: JoinSet<()>,
}

impl Backend {
    /// Starts the server and creates its Service.
    pub(crate) async fn start(cluster: &Cluster, name: &str) -> Result<Backend> {
        let backend = Backend::listen(name, SocketAddr::from((ADDRESS, 0))).await?;
        let objects = [service(name, json!({})), backend.slice(name, json!({}))];
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()).await?;
        Ok(backend)
    }

    /// Starts the server at this address.
    pub(crate) async fn listen(name: &str, address: SocketAddr) -> Result<Backend> {
        let listener = TcpListener::bind(address).await.context("cannot bind a port for the backend")?;
        let address = listener.local_addr()?;
        let mut server = JoinSet::new();
        server.spawn(serve(listener, name.to_owned()));
        Ok(Backend { name: name.to_owned(), address, _server: server })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// An EndpointSlice of this Service with the backend as its only endpoint, which has these fields in addition.
    pub(crate) fn slice(&self, service: &str, fields: Value) -> Value {
        let Backend { name, address, .. } = self;
        let mut endpoint = json!({ "addresses": [address.ip()], "conditions": { "ready": true } });
        for (field, value) in fields.as_object().into_iter().flatten() {
            endpoint[field] = value.clone();
        }
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": service } },
            "endpoints": [endpoint],
            "ports": [{ "name": "http", "port": address.port(), "protocol": "TCP" }],
        })
    }
}

/// A Service without a selector, with these fields of its spec besides the port.
pub(crate) fn service(name: &str, fields: Value) -> Value {
    let mut spec = json!({ "ports": [{ "name": "http", "port": 80 }] });
    for (field, value) in fields.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec })
}

async fn serve(listener: TcpListener, name: String) {
    let mut connections = JoinSet::new();
    // Accepting fails only without free file descriptors. Clients then get no response, which fails the test.
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let name = name.clone();
        connections.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let text = format!("{name} {}", request.uri().path());
                async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text)))) }
            });
            // Errors are reported by the client.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}
