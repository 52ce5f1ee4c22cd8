//! A strict HTTP/1.1 client: single requests, or a continuous load from a thread.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::{TEST_TIMEOUT, eventually};

/// A complete response.
#[derive(Debug)]
pub(crate) struct ClientResponse {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl ClientResponse {
    /// The value of a header field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.map(|(field, value)| (field, value.trim())).find(|(field, _)| field.eq_ignore_ascii_case(name))?.1.into()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.head, self.body))
    }
}

/// A keep-alive connection.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TEST_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Sends a GET request. A truncated response is an error.
    pub(crate) fn get(&mut self, host: &str, path: &str) -> io::Result<ClientResponse> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<ClientResponse> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed after {head:?}")));
            }
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status in {head:?}")))?;
        let mut answer = ClientResponse { status, head, body: String::new() };
        let mut body = Vec::new();
        if answer.field("transfer-encoding") == Some("chunked") {
            loop {
                let mut size = String::new();
                self.stream.read_line(&mut size)?;
                let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
                let start = body.len();
                body.resize(start + size + 2, 0);
                self.stream.read_exact(&mut body[start..])?;
                body.truncate(start + size);
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = answer.field("content-length") {
            body.resize(length.parse().map_err(io::Error::other)?, 0);
            self.stream.read_exact(&mut body)?;
        } else {
            self.stream.read_to_end(&mut body)?;
        }
        answer.body = String::from_utf8(body).map_err(io::Error::other)?;
        Ok(answer)
    }
}

/// One request on a new connection.
pub(crate) fn try_get(address: &str, host: &str, path: &str) -> io::Result<ClientResponse> {
    Connection::open(address)?.get(host, path)
}

/// Like `try_get`; panics without a response.
pub(crate) fn get(address: &str, path: &str) -> ClientResponse {
    try_get(address, address, path).unwrap_or_else(|error| panic!("http://{address}{path}: {error}"))
}

/// A client that repeats one request and records every response other than 200.
pub(crate) struct ContinuousClient {
    stop: Arc<AtomicBool>,
    /// Number of completed requests.
    completed: Arc<AtomicUsize>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl ContinuousClient {
    /// `keep` reuses one connection until the server closes it; otherwise each request opens a new one.
    pub(crate) fn start(address: String, path: &'static str, keep: bool) -> ContinuousClient {
        let stop = Arc::new(AtomicBool::new(false));
        let asked_so_far = Arc::new(AtomicUsize::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&asked_so_far));
        let thread = thread::spawn(move || {
            let (mut count, mut failures) = (0, Vec::new());
            let mut kept: Option<Connection> = None;
            while !stopped.load(Ordering::Relaxed) {
                let asked = kept.take().map_or_else(|| Connection::open(&address), Ok).and_then(|mut connection| {
                    let answer = connection.get(&address, path)?;
                    let closes = answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                    kept = (keep && !closes).then_some(connection);
                    Ok(answer)
                });
                count += 1;
                counted.store(count, Ordering::Relaxed);
                match asked {
                    Ok(answer) if answer.status == 200 => {}
                    Ok(answer) => failures.push(format!("request {count}: {}{}", answer.head, answer.body)),
                    Err(error) => failures.push(format!("request {count}: {error}")),
                }
            }
            (count, failures)
        });
        ContinuousClient { stop, completed: asked_so_far, thread }
    }

    /// Waits until `count` more requests have completed.
    pub(crate) fn wait_more(&self, count: usize) {
        let wanted = self.completed.load(Ordering::Relaxed) + count;
        eventually("more requests", || (self.completed.load(Ordering::Relaxed) >= wanted).then_some(()));
    }

    /// Returns the number of requests. Panics if one of them failed.
    pub(crate) fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let (count, failures) = self.thread.join().expect("the client thread does not panic");
        assert!(failures.is_empty(), "{} of {count} requests failed, first {}", failures.len(), failures[0]);
        count
    }
}
