//! A small HTTP/1.1 server without TLS for everything except the proxy: echo, status and admin. Untrusted clients may
//! reach it, so every connection has limits.

mod activity;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use activity::{LastActivity, MonitoredStream};

/// The two addresses of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionAddresses {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
}

/// Limits on what untrusted clients may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerLimits {
    pub(crate) connections: usize,
    pub(crate) when_full: WhenFull,
    /// Time for the head of the next request to arrive, from the start of the connection or the end of the previous
    /// response.
    pub(crate) idle_timeout: Duration,
    /// Time without write progress after which the connection is closed.
    pub(crate) write_timeout: Duration,
    /// Time from the first write that is blocked until all of a response is written, after which the connection is
    /// closed.
    pub(crate) response_timeout: Duration,
    /// Limit of the request line and all header fields together, in bytes.
    pub(crate) header_bytes: usize,
    /// Limit of the number of header fields.
    pub(crate) header_count: usize,
}

/// Handling of connections beyond the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// New connections wait in the kernel's accept queue until another connection closes.
    Wait,
    /// The connection with the oldest activity is closed for the new one, so that idle clients cannot block others.
    CloseLongestIdle,
}

/// Serves `listener` until `shutdown` completes; running requests then get a short grace period. `new_handler` creates
/// the request handler of a connection.
pub(crate) async fn serve<W, H, F>(
    listener: TcpListener,
    limits: ServerLimits,
    new_handler: W,
    shutdown: impl Future<Output = ()>,
) where
    W: Fn(ConnectionAddresses) -> H,
    H: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let stop = CancellationToken::new();
    let mut connections = OpenConnections::default();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepts_connections =
            connections.len() < limits.connections || limits.when_full == WhenFull::CloseLongestIdle;
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept(), if accepts_connections => accepted,
            () = connections.join_next() => continue,
        };
        match accepted
            .and_then(|(stream, client)| Ok((ConnectionAddresses { client, server: stream.local_addr()? }, stream)))
        {
            Ok((addresses, stream)) => {
                // Without TCP_NODELAY, the second packet of a response waits for the acknowledgment of the first.
                stream.set_nodelay(true).ok();
                if connections.len() >= limits.connections {
                    connections.close_longest_idle().await;
                }
                let last_activity = Arc::new(LastActivity::now());
                let stream = MonitoredStream::new(stream, Arc::clone(&last_activity), limits);
                let (handler, stop) = (new_handler(addresses), stop.clone());
                connections.add(last_activity, async move {
                    serve_connection(stream, addresses.client, limits, handler, stop).await
                });
            }
            Err(error) => handle_accept_error(&error, &listener).await,
        }
    }
    drop(listener);
    stop.cancel();
    let finished = async {
        while connections.len() > 0 {
            connections.join_next().await;
        }
    };
    // Connections that are still open are aborted when `connections` is dropped.
    tokio::time::timeout(SHUTDOWN_GRACE, finished).await.ok();
}

/// Tasks of the open connections.
#[derive(Default)]
struct OpenConnections {
    tasks: JoinSet<()>,
    open: HashMap<Id, (Arc<LastActivity>, AbortHandle)>,
}

impl OpenConnections {
    fn len(&self) -> usize {
        self.open.len()
    }

    fn add(&mut self, last_activity: Arc<LastActivity>, connection: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(connection);
        self.open.insert(task.id(), (last_activity, task));
    }

    /// Waits until a connection ends; pends forever if none is open.
    async fn join_next(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => {
                let id = ended.map_or_else(|error: JoinError| error.id(), |(id, ())| id);
                self.open.remove(&id);
            }
            None => std::future::pending().await,
        }
    }

    /// Closes the connection with the oldest activity and waits until a connection has ended, so that the limit
    /// is never exceeded.
    async fn close_longest_idle(&mut self) {
        let longest_idle = self.open.values().min_by_key(|(last_activity, _)| last_activity.get());
        if let Some((_, task)) = longest_idle {
            task.abort();
            self.join_next().await;
        }
    }
}

async fn serve_connection<S, H, F>(
    stream: S,
    client: SocketAddr,
    limits: ServerLimits,
    handler: H,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let close_from = Instant::now() + MAX_CONNECTION_AGE;
    let service = service_fn(move |request| {
        let response = handler(request);
        async move {
            let mut response = response.await;
            if Instant::now() >= close_from {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_headers(limits.header_count)
        .max_header_size(limits.header_bytes)
        // Leaves room for body bytes that are read together with the header.
        .max_buf_size(limits.header_bytes * 2)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let result = tokio::select! {
        result = &mut serving => result,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        // No other limit ends the connection of a client that never stops sending.
        () = tokio::time::sleep(MAX_CONNECTION_AGE + limits.idle_timeout + SHUTDOWN_GRACE) => return,
    };
    if let Err(error) = result {
        debug!(%client, %error, "Connection ended early");
    }
}

/// Ignores errors of a single connection. After any other error, a pause prevents a busy loop, for example while file
/// descriptors are exhausted.
async fn handle_accept_error(error: &io::Error, listener: &TcpListener) {
    let is_of_one_connection =
        matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset);
    if !is_of_one_connection {
        let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
        warn!(address, %error, "Cannot accept connections; is the limit of open files (ulimit -n) too low?");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Age after which a response closes its connection, so that no client keeps a slot forever.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(600);
/// Grace period for running requests during shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Pause after an error of the listener.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
pub(crate) mod testing {
    //! A listener on a free port and raw requests to it.

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    pub(crate) async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Sends `request` unchanged and reads until the server closes the connection.
    pub(crate) async fn roundtrip(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        String::from_utf8(response).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::net::TcpStream;
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    const LIMITS: ServerLimits = ServerLimits {
        connections: 4,
        when_full: WhenFull::Wait,
        idle_timeout: Duration::from_secs(20),
        write_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(30),
        header_bytes: 16 << 10,
        header_count: 100,
    };
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    async fn hello(_request: Request<Incoming>) -> Response<Full<Bytes>> {
        Response::new(Full::from("hello"))
    }

    #[tokio::test]
    async fn shutdown_closes_idle_connections() {
        let (listener, address) = testing::listener().await;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, LIMITS, |_| hello, async { stopped.await.unwrap() }));
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(REQUEST).await.unwrap();
        let mut status_line = [0; 12];
        idle.read_exact(&mut status_line).await.unwrap();
        assert_eq!(&status_line, b"HTTP/1.1 200");
        stop.send(()).unwrap();
        server.await.unwrap();
        idle.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn connections_beyond_limit_wait() {
        let (listener, address) = testing::listener().await;
        let (running, max_running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let handler = {
            let (running, max_running) = (running.clone(), max_running.clone());
            move |_request| {
                let (running, max_running) = (running.clone(), max_running.clone());
                async move {
                    max_running.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Gives other connections the chance to be accepted if nothing prevents it.
                    for _ in 0..200 {
                        tokio::task::yield_now().await;
                    }
                    running.fetch_sub(1, Ordering::SeqCst);
                    Response::new(Full::from("done"))
                }
            }
        };
        let limits = ServerLimits { connections: 2, ..LIMITS };
        let server = tokio::spawn(serve(listener, limits, move |_| handler.clone(), std::future::pending()));
        let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let responses = futures_util::future::join_all((0..8).map(|_| testing::roundtrip(address, request))).await;
        assert!(responses.iter().all(|response| response.ends_with("\r\n\r\ndone")), "{responses:?}");
        assert_eq!(max_running.load(Ordering::SeqCst), 2);
        server.abort();
    }

    #[tokio::test]
    async fn large_header_is_rejected() {
        let (listener, address) = testing::listener().await;
        let server = tokio::spawn(serve(listener, LIMITS, |_| hello, std::future::pending()));
        let fields: String = (0..101).map(|index| format!("x-{index}: y\r\n")).collect();
        let response = testing::roundtrip(address, &format!("GET / HTTP/1.1\r\n{fields}\r\n")).await;
        assert!(response.starts_with("HTTP/1.1 431"), "{response}");
        let long = "y".repeat(LIMITS.header_bytes);
        let response = testing::roundtrip(address, &format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n")).await;
        assert!(response.starts_with("HTTP/1.1 431"), "{response}");
        server.abort();
    }

    /// An in-memory connection, so that paused time cannot advance while bytes are in flight.
    fn connected(limits: ServerLimits) -> (DuplexStream, JoinSet<()>) {
        let (client, server) = tokio::io::duplex(1024);
        let client_address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut task = JoinSet::new();
        let server = MonitoredStream::new(server, Arc::new(LastActivity::now()), limits);
        task.spawn(serve_connection(server, client_address, limits, hello, CancellationToken::new()));
        (client, task)
    }

    #[tokio::test(start_paused = true)]
    async fn slow_headers_and_idle_connections_time_out() {
        for (sent, expected_end) in [("", ""), ("GET / HT", ""), ("GET / HTTP/1.1\r\n\r\n", "hello")] {
            let begin = Instant::now();
            let (mut client, _task) = connected(LIMITS);
            client.write_all(sent.as_bytes()).await.unwrap();
            let mut response = String::new();
            client.read_to_string(&mut response).await.unwrap();
            assert!(response.ends_with(expected_end), "{sent:?}: {response}");
            assert!(begin.elapsed() < LIMITS.idle_timeout + Duration::from_secs(1), "{sent:?}: {:?}", begin.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn old_connection_closes_after_next_response() {
        let (mut client, _task) = connected(ServerLimits { idle_timeout: MAX_CONNECTION_AGE * 2, ..LIMITS });
        let mut first_response = Vec::new();
        client.write_all(REQUEST).await.unwrap();
        while !first_response.ends_with(b"hello") {
            client.read_buf(&mut first_response).await.unwrap();
        }
        tokio::time::sleep(MAX_CONNECTION_AGE).await; // Time is paused.
        let mut last_response = String::new();
        client.write_all(REQUEST).await.unwrap();
        client.read_to_string(&mut last_response).await.unwrap();
        assert!(!String::from_utf8(first_response).unwrap().contains("connection: close"));
        assert!(last_response.contains("connection: close"), "{last_response}");
    }

    #[tokio::test(start_paused = true)]
    async fn non_reading_client_is_disconnected() {
        let (mut client, mut task) = connected(LIMITS);
        let sending = async {
            // Unread responses fill the connection, then the write blocks forever.
            loop {
                if client.write_all(REQUEST).await.is_err() {
                    break;
                }
            }
        };
        let begin = Instant::now();
        tokio::join!(sending, task.join_next());
        assert!(begin.elapsed() <= LIMITS.write_timeout + Duration::from_secs(1), "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_reader_receives_everything() {
        const REQUESTS: usize = 40;
        let (mut client, _task) = connected(LIMITS);
        // The responses exceed the connection's buffer.
        client.write_all(&REQUEST.repeat(REQUESTS - 1)).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let (mut responses, begin) = (Vec::new(), Instant::now());
        let mut chunk = [0; 64];
        loop {
            tokio::time::sleep(LIMITS.write_timeout / 2).await; // Time is paused.
            match client.read(&mut chunk).await.unwrap() {
                0 => break,
                count => responses.extend_from_slice(&chunk[..count]),
            }
        }
        assert_eq!(String::from_utf8(responses).unwrap().matches("hello").count(), REQUESTS);
        assert!(begin.elapsed() > LIMITS.write_timeout * 2, "{:?}", begin.elapsed());
    }

    /// Otherwise it would keep the rest of the response in memory for hours.
    #[tokio::test(start_paused = true)]
    async fn client_that_reads_a_little_at_a_time_is_disconnected() {
        let (mut client, mut server) = (tokio::io::duplex(1024), JoinSet::new());
        let stream = MonitoredStream::new(client.1, Arc::new(LastActivity::now()), LIMITS);
        let client_address = SocketAddr::from(([127, 0, 0, 1], 1));
        let handler = |_request| async { Response::new(Full::from(vec![b'x'; 1 << 20])) };
        server.spawn(serve_connection(stream, client_address, LIMITS, handler, CancellationToken::new()));
        let begin = Instant::now();
        client.0.write_all(REQUEST).await.unwrap();
        let mut received = 0;
        loop {
            tokio::time::sleep(LIMITS.write_timeout / 5).await; // Time is paused.
            match client.0.read(&mut [0; 512]).await.unwrap() {
                0 => break,
                count => received += count,
            }
        }
        assert!(received < 20_000, "{received}");
        // What was written before is still read.
        assert!(begin.elapsed() <= LIMITS.response_timeout + LIMITS.write_timeout, "{:?}", begin.elapsed());
    }

    /// A response larger than all socket buffers.
    fn long_response() -> Response<Full<Bytes>> {
        static BODY: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![b'x'; 64 << 20]));
        Response::new(Full::new(BODY.clone()))
    }

    #[tokio::test]
    async fn unread_response_closes_the_connection() {
        let (listener, address) = testing::listener().await;
        let limits = ServerLimits { write_timeout: Duration::from_millis(50), ..LIMITS };
        let (open, mut closed) = mpsc::channel::<()>(1);
        let open = Mutex::new(Some(open));
        // The handler, and with it the sender, is dropped together with the connection.
        let new_handler = move |_| {
            let open = open.lock().take();
            move |_request| {
                let _open = &open;
                async { long_response() }
            }
        };
        let server = tokio::spawn(serve(listener, limits, new_handler, std::future::pending()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(REQUEST).await.unwrap();
        // 10 s: longer than the write timeout of this server, and shorter than its other timeouts.
        let ended = tokio::time::timeout(LIMITS.write_timeout, closed.recv()).await;
        assert_eq!(ended, Ok(None), "the connection is still open");
        server.abort();
    }

    #[tokio::test]
    async fn non_reading_clients_do_not_block_others() {
        let (listener, address) = testing::listener().await;
        let hour = Duration::from_secs(3600);
        let limits = ServerLimits {
            when_full: WhenFull::CloseLongestIdle,
            write_timeout: hour,
            response_timeout: hour,
            idle_timeout: hour,
            ..LIMITS
        };
        let (received, mut receptions) = mpsc::channel(1);
        let handler = move |request: Request<Incoming>| {
            let received = received.clone();
            async move {
                if request.uri().path() == "/probe" {
                    return Response::new(Full::from("probed"));
                }
                received.send(()).await.unwrap();
                long_response()
            }
        };
        let server = tokio::spawn(serve(listener, limits, move |_| handler.clone(), std::future::pending()));
        let mut stuck = Vec::new();
        for _ in 0..limits.connections {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(REQUEST).await.unwrap();
            receptions.recv().await.unwrap();
            stuck.push(client);
        }
        let request = "GET /probe HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        for _ in 0..limits.connections * 2 {
            let probe = tokio::time::timeout(Duration::from_secs(10), testing::roundtrip(address, request)).await;
            assert!(probe.expect("the probe is served").ends_with("probed"));
        }
        server.abort();
    }

    #[tokio::test]
    async fn longest_idle_connection_is_closed_first() {
        let (listener, address) = testing::listener().await;
        let hour = Duration::from_secs(3600);
        let limits =
            ServerLimits { connections: 2, when_full: WhenFull::CloseLongestIdle, idle_timeout: hour, ..LIMITS };
        let server = tokio::spawn(serve(listener, limits, |_| hello, std::future::pending()));
        let send_request = async |client: &mut TcpStream| {
            client.write_all(REQUEST).await.unwrap();
            let mut response = Vec::new();
            while !response.ends_with(b"hello") {
                assert_ne!(client.read_buf(&mut response).await.unwrap(), 0, "closed");
            }
        };
        let mut first = TcpStream::connect(address).await.unwrap();
        send_request(&mut first).await;
        let mut second = TcpStream::connect(address).await.unwrap();
        send_request(&mut second).await;
        send_request(&mut first).await;
        let mut third = TcpStream::connect(address).await.unwrap();
        send_request(&mut third).await;
        second.read_to_end(&mut Vec::new()).await.unwrap();
        send_request(&mut first).await;
        server.abort();
    }
}
