//! What is to be sent, how often, and what is right.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::http1::Answer;

/// Says what is wrong with an answer, if anything is.
pub type Judge = Arc<dyn Fn(&Sent, &Answer) -> Result<(), String> + Send + Sync>;

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
    /// Beyond what is checked of every answer.
    pub judge: Option<Judge>,
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
