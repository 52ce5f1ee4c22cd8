//! A small HTTP/1.1 server for what stands beside the proxy: echo, status and admin. Strangers may reach it, so everything
//! about a connection has a limit.

mod moves;

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

use moves::{Moved, Watched};

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
}

/// What strangers may cost us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) when_full: WhenFull,
    /// How long a request may take to arrive, from the end of the last answer.
    pub(crate) idle: Duration,
    /// How long an answer may wait for its reader to take any of it.
    pub(crate) stuck: Duration,
    /// Of the request line and all fields together.
    pub(crate) header_bytes: usize,
    pub(crate) header_count: usize,
}

/// What becomes of connections beyond the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// They wait in the kernel's queue until another one closes.
    Wait,
    /// The one on which nothing moved for longest is closed for a new one, so that nobody keeps others out by staying.
    CloseLongestStill,
}

/// Answers requests on `listener` until `shutdown` is over; requests being answered then get a moment to finish. `welcome` gives
/// each connection what answers its requests.
pub(crate) async fn serve<W, H, F>(
    listener: TcpListener,
    limits: Limits,
    welcome: W,
    shutdown: impl Future<Output = ()>,
) where
    W: Fn(Ends) -> H,
    H: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let stop = CancellationToken::new();
    let mut connections = Connections::default();
    let mut shutdown = pin!(shutdown);
    loop {
        let takes_one_more = connections.len() < limits.connections || limits.when_full == WhenFull::CloseLongestStill;
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept(), if takes_one_more => accepted,
            () = connections.one_ends() => continue,
        };
        match accepted.and_then(|(stream, client)| Ok((Ends { client, server: stream.local_addr()? }, stream))) {
            Ok((ends, stream)) => {
                // An answer in two packets would otherwise wait for the acknowledgment of the first.
                stream.set_nodelay(true).ok();
                if connections.len() >= limits.connections {
                    connections.close_longest_still().await;
                }
                let moved = Arc::new(Moved::now());
                let stream = Watched::new(stream, Arc::clone(&moved), limits.stuck);
                let (handler, stop) = (welcome(ends), stop.clone());
                connections.add(moved, async move { connection(stream, ends.client, limits, handler, stop).await });
            }
            Err(error) => after_refused_accept(&error, &listener).await,
        }
    }
    drop(listener);
    stop.cancel();
    let finished = async {
        while connections.len() > 0 {
            connections.one_ends().await;
        }
    };
    // Whoever is still not done is cut off when the set is dropped.
    tokio::time::timeout(LAST_WORDS, finished).await.ok();
}

/// Those that are open.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: HashMap<Id, (Arc<Moved>, AbortHandle)>,
}

impl Connections {
    fn len(&self) -> usize {
        self.open.len()
    }

    fn add(&mut self, moved: Arc<Moved>, connection: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(connection);
        self.open.insert(task.id(), (moved, task));
    }

    /// Waits until one of them has ended, for ever if there is none.
    async fn one_ends(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => drop(self.open.remove(&ended.map_or_else(|error: JoinError| error.id(), |(id, ())| id))),
            None => std::future::pending().await,
        }
    }

    /// Closes the one on which nothing moved for longest, and waits until one has ended, so that there never are more.
    async fn close_longest_still(&mut self) {
        let longest_still = self.open.values().min_by_key(|(moved, _)| moved.last());
        if let Some((_, task)) = longest_still {
            task.abort();
            self.one_ends().await;
        }
    }
}

async fn connection<S, H, F>(stream: S, client: SocketAddr, limits: Limits, handler: H, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let retire = Instant::now() + LIFETIME;
    let service = service_fn(move |request| {
        let answering = handler(request);
        async move {
            let mut answer = answering.await;
            if Instant::now() >= retire {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_headers(limits.header_count)
        .max_header_size(limits.header_bytes)
        // What is read ahead of a body fits too.
        .max_buf_size(limits.header_bytes * 2)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        // It reads a byte now and then, or sends for ever; dropping it is all that is left.
        () = tokio::time::sleep(LIFETIME + limits.idle + LAST_WORDS) => return,
    };
    if let Err(error) = ended {
        debug!(%client, %error, "Connection ended early");
    }
}

/// Without a pause, a lack of file descriptors would become a busy loop.
async fn after_refused_accept(error: &io::Error, listener: &TcpListener) {
    let is_of_one_connection =
        matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset);
    if !is_of_one_connection {
        let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
        warn!(address, %error, "Cannot accept connections; is the limit of open files (ulimit -n) too low?");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// After this an answer says that it is the connection's last, so that none holds its slot for good.
const LIFETIME: Duration = Duration::from_secs(600);
/// For requests that are being answered when we stop.
const LAST_WORDS: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
pub(crate) mod testing {
    //! A server on a port of its own, and plain bytes to ask it with.

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    pub(crate) async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Sends `request` as it is and reads until the server closes.
    pub(crate) async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
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

    const LIMITS: Limits = Limits {
        connections: 4,
        when_full: WhenFull::Wait,
        idle: Duration::from_secs(20),
        stuck: Duration::from_secs(10),
        header_bytes: 16 << 10,
        header_count: 100,
    };
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    async fn hello(_request: Request<Incoming>) -> Response<Full<Bytes>> {
        Response::new(Full::from("hello"))
    }

    #[tokio::test]
    async fn stops_when_told_and_closes_idle_connections() {
        let (listener, address) = testing::listener().await;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, LIMITS, |_| hello, async { stopped.await.unwrap() }));
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut some = [0; 12];
        idle.read_exact(&mut some).await.unwrap();
        assert_eq!(&some, b"HTTP/1.1 200");
        stop.send(()).unwrap();
        server.await.unwrap();
        idle.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_for_a_slot() {
        let (listener, address) = testing::listener().await;
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let handler = {
            let (now, most) = (now.clone(), most.clone());
            move |_request| {
                let (now, most) = (now.clone(), most.clone());
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Room for the others to come in, if anything lets them.
                    for _ in 0..200 {
                        tokio::task::yield_now().await;
                    }
                    now.fetch_sub(1, Ordering::SeqCst);
                    Response::new(Full::from("done"))
                }
            }
        };
        let limits = Limits { connections: 2, ..LIMITS };
        let server = tokio::spawn(serve(listener, limits, move |_| handler.clone(), std::future::pending()));
        let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let answers = futures_util::future::join_all((0..8).map(|_| testing::exchange(address, request))).await;
        assert!(answers.iter().all(|answer| answer.ends_with("\r\n\r\ndone")), "{answers:?}");
        assert_eq!(most.load(Ordering::SeqCst), 2);
        server.abort();
    }

    #[tokio::test]
    async fn too_large_a_header_is_refused() {
        let (listener, address) = testing::listener().await;
        let server = tokio::spawn(serve(listener, LIMITS, |_| hello, std::future::pending()));
        let fields: String = (0..101).map(|index| format!("x-{index}: y\r\n")).collect();
        let answer = testing::exchange(address, &format!("GET / HTTP/1.1\r\n{fields}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        let long = "y".repeat(LIMITS.header_bytes);
        let answer = testing::exchange(address, &format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        server.abort();
    }

    /// One end of a connection in memory, where paused time cannot run ahead of the bytes.
    fn connected(limits: Limits) -> (DuplexStream, JoinSet<()>) {
        let (client, server) = tokio::io::duplex(1024);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut task = JoinSet::new();
        let server = Watched::new(server, Arc::new(Moved::now()), limits.stuck);
        task.spawn(connection(server, nowhere, limits, hello, CancellationToken::new()));
        (client, task)
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_does_not_come_and_an_idle_connection_are_not_waited_for() {
        for (sent, received) in [("", ""), ("GET / HT", ""), ("GET / HTTP/1.1\r\n\r\n", "hello")] {
            let begin = Instant::now();
            let (mut client, _task) = connected(LIMITS);
            client.write_all(sent.as_bytes()).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with(received), "{sent:?}: {answer}");
            assert!(begin.elapsed() < LIMITS.idle + Duration::from_secs(1), "{sent:?}: {:?}", begin.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_connection_is_told_to_end_with_its_next_answer() {
        let (mut client, _task) = connected(Limits { idle: LIFETIME * 2, ..LIMITS });
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let mut young = Vec::new();
        client.write_all(request).await.unwrap();
        while !young.ends_with(b"hello") {
            client.read_buf(&mut young).await.unwrap();
        }
        tokio::time::sleep(LIFETIME).await;
        let mut old = String::new();
        client.write_all(request).await.unwrap();
        client.read_to_string(&mut old).await.unwrap();
        assert!(!String::from_utf8(young).unwrap().contains("connection: close"));
        assert!(old.contains("connection: close"), "{old}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_dropped_soon() {
        let (mut client, mut task) = connected(LIMITS);
        let asking = async {
            // Until the answers that nobody reads fill the connection, and then for ever.
            loop {
                if client.write_all(REQUEST).await.is_err() {
                    break;
                }
            }
        };
        let begin = Instant::now();
        tokio::join!(asking, task.join_next());
        assert!(begin.elapsed() <= LIMITS.stuck + Duration::from_secs(1), "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_gets_everything() {
        const REQUESTS: usize = 40;
        let (mut client, _task) = connected(LIMITS);
        // Their answers are more than the connection holds.
        client.write_all(&REQUEST.repeat(REQUESTS - 1)).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let (mut answers, begin) = (Vec::new(), Instant::now());
        let mut some = [0; 64];
        loop {
            tokio::time::sleep(LIMITS.stuck / 2).await;
            match client.read(&mut some).await.unwrap() {
                0 => break,
                count => answers.extend_from_slice(&some[..count]),
            }
        }
        assert_eq!(String::from_utf8(answers).unwrap().matches("hello").count(), REQUESTS);
        assert!(begin.elapsed() > LIMITS.stuck * 2, "{:?}", begin.elapsed());
    }

    /// An answer that no buffers of sockets can hold.
    fn long() -> Response<Full<Bytes>> {
        static LONG: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![b'x'; 64 << 20]));
        Response::new(Full::new(LONG.clone()))
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_ends_its_connection() {
        let (listener, address) = testing::listener().await;
        let limits = Limits { stuck: Duration::from_millis(50), ..LIMITS };
        let (here, mut gone) = mpsc::channel::<()>(1);
        let here = Mutex::new(Some(here));
        let welcome = move |_| {
            let here = here.lock().take();
            move |_request| {
                let _here = &here;
                async { long() }
            }
        };
        let server = tokio::spawn(serve(listener, limits, welcome, std::future::pending()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(REQUEST).await.unwrap();
        // Long before anything else would end it.
        let ended = tokio::time::timeout(LIMITS.stuck, gone.recv()).await;
        assert_eq!(ended, Ok(None), "it is still there");
        server.abort();
    }

    #[tokio::test]
    async fn those_who_do_not_read_keep_nobody_out() {
        let (listener, address) = testing::listener().await;
        let hour = Duration::from_secs(3600);
        let limits = Limits { when_full: WhenFull::CloseLongestStill, stuck: hour, idle: hour, ..LIMITS };
        let (asked, mut asking) = mpsc::channel(1);
        let handler = move |request: Request<Incoming>| {
            let asked = asked.clone();
            async move {
                if request.uri().path() == "/probe" {
                    return Response::new(Full::from("probed"));
                }
                asked.send(()).await.unwrap();
                long()
            }
        };
        let server = tokio::spawn(serve(listener, limits, move |_| handler.clone(), std::future::pending()));
        let mut stuck = Vec::new();
        for _ in 0..limits.connections {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(REQUEST).await.unwrap();
            asking.recv().await.unwrap();
            stuck.push(client);
        }
        let request = "GET /probe HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        for _ in 0..limits.connections * 2 {
            let probe = tokio::time::timeout(Duration::from_secs(10), testing::exchange(address, request)).await;
            assert!(probe.expect("there is room for it").ends_with("probed"));
        }
        server.abort();
    }

    #[tokio::test]
    async fn the_connection_that_was_still_for_longest_is_closed_for_another() {
        let (listener, address) = testing::listener().await;
        let hour = Duration::from_secs(3600);
        let limits = Limits { connections: 2, when_full: WhenFull::CloseLongestStill, idle: hour, ..LIMITS };
        let server = tokio::spawn(serve(listener, limits, |_| hello, std::future::pending()));
        let ask = async |client: &mut TcpStream| {
            client.write_all(REQUEST).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"hello") {
                assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0, "closed");
            }
        };
        let mut first = TcpStream::connect(address).await.unwrap();
        ask(&mut first).await;
        let mut second = TcpStream::connect(address).await.unwrap();
        ask(&mut second).await;
        ask(&mut first).await;
        let mut third = TcpStream::connect(address).await.unwrap();
        ask(&mut third).await;
        second.read_to_end(&mut Vec::new()).await.unwrap();
        ask(&mut first).await;
        server.abort();
    }
}
