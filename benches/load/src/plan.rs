//! What to send, at which rate, and which responses are correct.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::grpc;
use crate::http1::LoadResponse;
use crate::tls::Tls;
use crate::websocket;

/// Returns the error in a response, if any.
pub type ResponseCheck = Arc<dyn Fn(&CompletedRequest, &LoadResponse) -> Result<(), String> + Send + Sync>;

/// Returns the error in a certificate that was received between two instants, if any.
pub type CertificateCheck = Arc<dyn Fn(Instant, Instant, &[u8]) -> Result<(), String> + Send + Sync>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Http1,
    /// Several concurrent requests share a keep-alive connection.
    Http2,
    /// A request is a message on an open WebSocket, and its response is the echo.
    WebSocket,
    /// A request is a message of a bidirectional gRPC call, and its response is the echo. Calls stay open and share
    /// connections as requests of HTTP/2 do.
    GrpcStream,
}

/// One run.
#[derive(Clone)]
pub struct Plan {
    pub target: SocketAddr,
    /// Requests per second. `None`: each connection sends its next request after the response.
    pub rate: Option<u32>,
    pub duration: Duration,
    /// Number of keep-alive connections.
    pub keep_alive: usize,
    /// Number of concurrent connections with one request each.
    pub single_use: usize,
    /// The requests, sent in rotation.
    pub shapes: Vec<RequestShape>,
    /// `None`: without TLS.
    pub tls: Option<Tls>,
    pub protocol: Protocol,
    /// Concurrent requests, or open calls, on each HTTP/2 connection that stays open.
    pub streams: usize,
    /// Additional check of responses.
    pub response_check: Option<ResponseCheck>,
    /// Check of the server certificate.
    pub certificate_check: Option<CertificateCheck>,
}

impl Plan {
    /// Keep-alive HTTP/1.1 connections at full speed.
    pub fn new(target: SocketAddr, shapes: Vec<RequestShape>, duration: Duration, keep_alive: usize) -> Plan {
        Plan {
            target,
            rate: None,
            duration,
            keep_alive,
            single_use: 0,
            shapes,
            tls: None,
            protocol: Protocol::Http1,
            streams: 8,
            response_check: None,
            certificate_check: None,
        }
    }
}

/// One kind of request.
#[derive(Clone, Debug)]
pub struct RequestShape {
    pub method: &'static str,
    pub host: String,
    pub path: String,
    /// Bytes of the body; `None` without a body.
    pub body: Option<usize>,
    /// Send the body in chunks.
    pub chunked: bool,
    /// Expected length of the response body.
    pub response_length: usize,
    /// Additional header lines with CRLF; HTTP/1.1 only.
    pub fields: Arc<str>,
    /// A gRPC call, whose bodies are messages; HTTP/2 only.
    pub is_grpc: bool,
}

impl RequestShape {
    pub fn get(host: &str, path: &str) -> Self {
        RequestShape {
            method: "GET",
            host: host.to_owned(),
            path: path.to_owned(),
            body: None,
            chunked: false,
            response_length: crate::backend::response_bytes(path),
            fields: "".into(),
            is_grpc: false,
        }
    }

    pub fn post(host: &str, path: &str, body: usize, chunked: bool) -> Self {
        RequestShape { method: "POST", body: Some(body), chunked, ..RequestShape::get(host, path) }
    }

    /// A unary gRPC call with a message of this many bytes.
    pub(crate) fn call(host: &str, message: usize) -> Self {
        RequestShape { is_grpc: true, ..RequestShape::post(host, grpc::PATH, message, false) }
    }

    /// A message of this many bytes in a bidirectional gRPC call, and its echo.
    pub(crate) fn call_message(host: &str, message: usize) -> Self {
        let shape = RequestShape::post(host, grpc::STREAM_PATH, message, false);
        RequestShape { is_grpc: true, response_length: message, ..shape }
    }

    /// A WebSocket message of this many bytes.
    pub(crate) fn message(host: &str, message: usize) -> Self {
        RequestShape { response_length: message, ..RequestShape::post(host, websocket::PATH, message, false) }
    }
}

/// A completed request.
#[derive(Clone, Copy, Debug)]
pub struct CompletedRequest<'p> {
    pub shape: &'p RequestShape,
    /// The requests of a run are numbered from 0.
    pub number: u64,
    /// Before the first byte of the request, or before connecting if the connection is new.
    pub begin: Instant,
    /// After the last byte of the response.
    pub end: Instant,
}
