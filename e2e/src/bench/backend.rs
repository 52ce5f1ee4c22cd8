//! A backend in this process, so that measurements do not depend on a Pod.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::cluster::ADDRESS;

/// A server that responds to every request with an empty 200. It stops when dropped.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    _server: JoinSet<()>,
}

impl Backend {
    pub(super) async fn start() -> Result<Backend> {
        let listener = TcpListener::bind((ADDRESS, 0)).await.context("cannot bind a port for the backend")?;
        let address = listener.local_addr()?;
        let mut server = JoinSet::new();
        server.spawn(serve(listener));
        Ok(Backend { address, _server: server })
    }
}

async fn serve(listener: TcpListener) {
    let mut connections = JoinSet::new();
    // If accept fails, for example because of a lack of file descriptors, the benchmark fails without responses.
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let service =
                service_fn(|_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
            // Errors are reported by the client.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}
