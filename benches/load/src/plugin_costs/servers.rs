//! The backend, and the servers that plugins call: they respond at once, always with the same.

use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket};

use crate::http2::{OutgoingBody, read_body};

pub(super) struct Servers {
    /// The backend; also every other server with HTTP, by the path.
    pub(super) http: SocketAddr,
    /// Reads and forgets.
    tcp: SocketAddr,
    /// Bound, but not read.
    udp: UdpSocket,
}

impl Servers {
    pub(super) async fn start() -> Result<Servers> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (http, tcp) = (TcpListener::bind(any).await?, TcpListener::bind(any).await?);
        let servers = Servers { http: http.local_addr()?, tcp: tcp.local_addr()?, udp: UdpSocket::bind(any).await? };
        tokio::spawn(async move {
            while let Ok((stream, _)) = http.accept().await {
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(respond));
                // An error is one of the request, which its sender reports.
                tokio::spawn(async move { connection.await.ok() });
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                tokio::spawn(async move {
                    let mut buffer = vec![0; 1 << 16];
                    while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
                });
            }
        });
        Ok(servers)
    }

    /// Replaces the names of ports in a configuration.
    pub(super) fn insert_ports(&self, config: &str) -> String {
        let udp = self.udp.local_addr().map_or(0, |address| address.port());
        let ports = [("HTTP_PORT", self.http.port()), ("TCP_PORT", self.tcp.port()), ("UDP_PORT", udp)];
        ports.iter().fold(config.to_owned(), |config, (name, port)| config.replace(name, &port.to_string()))
    }
}

async fn respond(request: Request<Incoming>) -> Result<Response<OutgoingBody>> {
    let body: &'static [u8] = match request.uri().path() {
        "/v1/data/allow" => br#"{"result":true}"#,
        "/introspect" => br#"{"active":true,"scope":"orders","client_id":"bench","username":"bench"}"#,
        "/token" => br#"{"access_token":"b3a1c6f2d94e4f0f8a7b5c3d","token_type":"Bearer","expires_in":3600}"#,
        "/schema" => SCHEMA.as_bytes(),
        _ => ORDER.as_bytes(),
    };
    read_body(request.into_body(), false).await?;
    let mut response = Response::new(OutgoingBody::whole(Bytes::from_static(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// What requests and responses contain: an order of 692 bytes.
pub(super) const ORDER: &str = include_str!("order.json");

/// What the GraphQL server says about its types.
const SCHEMA: &str = include_str!("schema.json");
