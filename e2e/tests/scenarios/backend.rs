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
        let listener = TcpListener::bind((ADDRESS, 0)).await.context("cannot bind a port for the backend")?;
        let address = listener.local_addr()?;
        let mut server = JoinSet::new();
        server.spawn(serve(listener, name.to_owned()));
        let backend = Backend { name: name.to_owned(), address, _server: server };
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": backend.objects() }).to_string()).await?;
        Ok(backend)
    }

    /// A Service without a selector, and its EndpointSlice.
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
