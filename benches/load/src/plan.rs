//! What is to be sent, how often, and what is right.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::http1::Answer;
use crate::tls::Tls;

/// Says what is wrong with an answer, if anything is.
pub type Judge = Arc<dyn Fn(&Sent, &Answer) -> Result<(), String> + Send + Sync>;

/// Says what is wrong with a certificate that was shown between two moments.
pub type Inspect = Arc<dyn Fn(Instant, Instant, &[u8]) -> Result<(), String> + Send + Sync>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Http1,
    /// Several places for requests share a connection that is kept.
    Http2,
}

/// One run.
#[derive(Clone)]
pub struct Plan {
    pub target: SocketAddr,
    /// Requests per second. None: each connection sends as soon as it has its answer.
    pub rate: Option<u32>,
    pub duration: Duration,
    /// Connections that are kept.
    pub kept: usize,
    /// Places for connections that serve one request each.
    pub fresh: usize,
    /// Sent in turn.
    pub shapes: Vec<Shape>,
    /// None: without TLS.
    pub tls: Option<Tls>,
    pub protocol: Protocol,
    /// Beyond what is checked of every answer.
    pub judge: Option<Judge>,
    /// Says what is wrong with the certificate that was shown, if anything is.
    pub inspect: Option<Inspect>,
}

impl Plan {
    /// Kept connections of HTTP/1.1, as fast as it goes.
    pub fn new(target: SocketAddr, shapes: Vec<Shape>, duration: Duration, kept: usize) -> Plan {
        Plan {
            target,
            rate: None,
            duration,
            kept,
            fresh: 0,
            shapes,
            tls: None,
            protocol: Protocol::Http1,
            judge: None,
            inspect: None,
        }
    }
}

/// One kind of request.
#[derive(Clone, Debug)]
pub struct Shape {
    pub method: &'static str,
    pub host: String,
    pub path: String,
    /// Bytes of the body; None if there is none.
    pub body: Option<usize>,
    /// Send the body in chunks.
    pub chunked: bool,
    /// Bytes of the answer's body.
    pub answer: usize,
    /// Further lines of the head, each with its end. Of HTTP/1.1 only.
    pub fields: Arc<str>,
}

impl Shape {
    pub fn get(host: &str, path: &str) -> Self {
        Shape {
            method: "GET",
            host: host.to_owned(),
            path: path.to_owned(),
            body: None,
            chunked: false,
            answer: crate::backend::answer_bytes(path),
            fields: "".into(),
        }
    }

    pub fn post(host: &str, path: &str, body: usize, chunked: bool) -> Self {
        Shape { method: "POST", body: Some(body), chunked, ..Shape::get(host, path) }
    }
}

/// A request that was sent and has its answer.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'p> {
    pub shape: &'p Shape,
    pub number: u64,
    /// Before the first byte of it, and of the connection if that is its own.
    pub begin: Instant,
    /// After the last byte of the answer.
    pub end: Instant,
}
