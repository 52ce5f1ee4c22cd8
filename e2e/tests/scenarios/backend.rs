//! Backends in this process, which say their name: what a Service leads to where no Pod is needed.

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

/// A server whose every answer is `NAME PATH`. It ends with this value.
pub(crate) struct Backend {
    name: String,
    address: SocketAddr,
    _server: JoinSet<()>,
}

impl Backend {
    /// Starts it, and makes the Service that leads to it.
    pub(crate) async fn start(cluster: &Cluster, name: &str) -> Result<Backend> {
        let listener = TcpListener::bind((ADDRESS, 0)).await.context("no port for a backend")?;
        let address = listener.local_addr()?;
        let mut server = JoinSet::new();
        server.spawn(serve(listener, name.to_owned()));
        let backend = Backend { name: name.to_owned(), address, _server: server };
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": backend.objects() }).to_string()).await?;
        Ok(backend)
    }

    /// A Service without a selector, and its endpoints.
    fn objects(&self) -> [Value; 2] {
        let Backend { name, address, .. } = self;
        let port = json!({ "name": "http", "port": 80 });
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": { "ports": [port] },
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
            "endpoints": [{ "addresses": [address.ip()], "conditions": { "ready": true } }],
            "ports": [{ "name": "http", "port": address.port(), "protocol": "TCP" }],
        });
        [service, slice]
    }
}

async fn serve(listener: TcpListener, name: String) {
    let mut connections = JoinSet::new();
    // Only a lack of descriptors or a fault of ours makes it fail; the test then misses answers.
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let name = name.clone();
        connections.spawn(async move {
            let answer = service_fn(|request: Request<Incoming>| {
                let text = format!("{name} {}", request.uri().path());
                async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text)))) }
            });
            // How a connection ends is its client's business.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
        });
    }
}
