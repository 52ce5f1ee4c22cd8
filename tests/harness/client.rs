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
        self.get_with(host, path, "")
    }

    /// Like [`Connection::get`], with further header fields, each of which ends with CRLF.
    pub(crate) fn get_with(&mut self, host: &str, path: &str, fields: &str) -> io::Result<ClientResponse> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n"))
    }

    /// Sends a whole request, which must not be a HEAD request.
    pub(crate) fn send(&mut self, request: impl AsRef<[u8]>) -> io::Result<ClientResponse> {
        self.stream.get_mut().write_all(request.as_ref())?;
        self.read_response()
    }

    fn read_response(&mut self) -> io::Result<ClientResponse> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed after {head:?}")));
            }
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status in {head:?}")))?;
        let mut response = ClientResponse { status, head, body: String::new() };
        let mut body = Vec::new();
        if response.field("transfer-encoding") == Some("chunked") {
            loop {
                let mut size_line = String::new();
                self.stream.read_line(&mut size_line)?;
                let size = usize::from_str_radix(size_line.trim(), 16).map_err(io::Error::other)?;
                let start = body.len();
                body.resize(start + size + 2, 0);
                self.stream.read_exact(&mut body[start..])?;
                body.truncate(start + size);
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = response.field("content-length") {
            body.resize(length.parse().map_err(io::Error::other)?, 0);
            self.stream.read_exact(&mut body)?;
        } else {
            self.stream.read_to_end(&mut body)?;
        }
        response.body = String::from_utf8(body).map_err(io::Error::other)?;
        Ok(response)
    }
}

/// One request on a new connection.
pub(crate) fn try_get(address: &str, host: &str, path: &str) -> io::Result<ClientResponse> {
    Connection::open(address)?.get(host, path)
}

/// Like `try_get` with the address as the host. Panics on an error.
pub(crate) fn get(address: &str, path: &str) -> ClientResponse {
    try_get(address, address, path).unwrap_or_else(|error| panic!("http://{address}{path}: {error}"))
}

/// A client that repeats one request and records errors and responses other than 200.
pub(crate) struct ContinuousClient {
    stop: Arc<AtomicBool>,
    /// Number of completed requests.
    completed: Arc<AtomicUsize>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl ContinuousClient {
    /// With `keep_alive`, one connection is used until the server closes it. Otherwise each request opens a new one.
    pub(crate) fn start(address: String, path: &'static str, keep_alive: bool) -> ContinuousClient {
        let stop = Arc::new(AtomicBool::new(false));
        let completed = Arc::new(AtomicUsize::new(0));
        let (thread_stop, thread_completed) = (Arc::clone(&stop), Arc::clone(&completed));
        let thread = thread::spawn(move || {
            let (mut count, mut failures) = (0, Vec::new());
            let mut idle_connection: Option<Connection> = None;
            while !thread_stop.load(Ordering::Relaxed) {
                let connection = idle_connection.take().map_or_else(|| Connection::open(&address), Ok);
                let result = connection.and_then(|mut connection| {
                    let response = connection.get(&address, path)?;
                    let closes = response.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                    idle_connection = (keep_alive && !closes).then_some(connection);
                    Ok(response)
                });
                count += 1;
                thread_completed.store(count, Ordering::Relaxed);
                match result {
                    Ok(response) if response.status == 200 => {}
                    Ok(response) => failures.push(format!("request {count}: {}{}", response.head, response.body)),
                    Err(error) => failures.push(format!("request {count}: {error}")),
                }
            }
            (count, failures)
        });
        ContinuousClient { stop, completed, thread }
    }

    /// Waits until `count` more requests have completed.
    pub(crate) fn wait_for_completed(&self, count: usize) {
        let target = self.completed.load(Ordering::Relaxed) + count;
        eventually("more requests", || (self.completed.load(Ordering::Relaxed) >= target).then_some(()));
    }

    /// Stops the client and returns the number of requests. Panics if one of them failed.
    pub(crate) fn stop(self) -> usize {
        let (count, failures) = self.end();
        assert!(failures.is_empty(), "{} of {count} requests failed, first {}", failures.len(), failures[0]);
        count
    }

    /// Stops the client and returns the number of requests, and the failed ones.
    pub(crate) fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the client thread does not panic")
    }
}
