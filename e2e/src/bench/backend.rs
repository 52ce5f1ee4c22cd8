//! A backend in this process, so that what is measured is not how a Pod answers.

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

/// A server whose every answer is an empty 200. It ends with this value.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    _server: JoinSet<()>,
}

impl Backend {
    pub(super) async fn start() -> Result<Backend> {
        let listener = TcpListener::bind((ADDRESS, 0)).await.context("no port for a backend")?;
        let address = listener.local_addr()?;
        let mut server = JoinSet::new();
        server.spawn(serve(listener));
        Ok(Backend { address, _server: server })
    }
}

async fn serve(listener: TcpListener) {
    let mut connections = JoinSet::new();
    // Should it fail, for want of descriptors, then the bench does not get the answers it waits for.
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let answer =
                service_fn(|_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
            // How a connection ends is its client's business.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
        });
    }
}
