//! The polite client: sends requests at a fixed rate over kept connections, checks each response, and never retries.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use http::header::HOST;
use http::{Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::endpoints::NUMBER;
use super::objects::{CLIENT_HOST, EDIT, EDITED_ROUTES, ROUTE};
use super::record::{Failure, FailureKind, Recorder};
use crate::netns::Netns;

/// A running client, in a thread of its own, so that neither floods nor edits delay it.
pub(super) struct PoliteClient {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

/// What the client needs.
pub(super) struct ClientSettings {
    pub(super) netns: Netns,
    pub(super) gateway: IpAddr,
    pub(super) tls: Arc<ClientConfig>,
    /// Requests per second.
    pub(super) rate: u32,
    pub(super) recorder: Arc<Recorder>,
}

/// Longer than any response takes, also when a replica is paused.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Tasks with a connection of their own: without TLS, and with TLS.
const HTTP1_TASKS: usize = 48;
const HTTPS_TASKS: usize = 8;
/// HTTP/2 connections, and the tasks that share each.
const HTTP2_CONNECTIONS: usize = 2;
const STREAMS: usize = 8;
const MAX_BODY: usize = 4096;
/// Requests of a task until it opens another connection, so that a restarted replica gets its share.
const REQUESTS_PER_CONNECTION: u32 = 50;

impl PoliteClient {
    pub(super) fn start(settings: ClientSettings) -> PoliteClient {
        let stop = Arc::new(AtomicBool::new(false));
        let state = Arc::new(ClientState { settings, stop: Arc::clone(&stop), next: AtomicU64::new(0) });
        let thread = std::thread::spawn(move || {
            state.settings.netns.enter()?;
            let runtime = Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
            runtime.block_on(run(state));
            Ok(())
        });
        PoliteClient { stop, thread }
    }

    /// Waits until all requests have ended.
    pub(super) fn stop(self) -> Result<()> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow!("the polite client panicked"))?
    }
}

struct ClientState {
    settings: ClientSettings,
    stop: Arc<AtomicBool>,
    /// The number of the next request.
    next: AtomicU64,
}

/// How a task sends its requests.
enum Transport {
    Http1(Option<KeptHttp1>),
    Https(Option<KeptHttp1>),
    Http2(Arc<Mutex<Option<KeptHttp2>>>),
}

type KeptHttp1 = KeptConnection<http1::SendRequest<Full<Bytes>>>;
type KeptHttp2 = KeptConnection<http2::SendRequest<Full<Bytes>>>;

#[derive(Clone)]
struct KeptConnection<Sender> {
    sender: Sender,
    opened: Instant,
}

async fn run(state: Arc<ClientState>) {
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    let mut spawn = |transport| drop(tasks.spawn(send_requests(Arc::clone(&state), transport, begin)));
    (0..HTTP1_TASKS).for_each(|_| spawn(Transport::Http1(None)));
    (0..HTTPS_TASKS).for_each(|_| spawn(Transport::Https(None)));
    for _ in 0..HTTP2_CONNECTIONS {
        let connection = Arc::default();
        (0..STREAMS).for_each(|_| spawn(Transport::Http2(Arc::clone(&connection))));
    }
    while tasks.join_next().await.is_some() {}
}

/// Sends requests when they are due, or at once if they are late.
async fn send_requests(state: Arc<ClientState>, mut transport: Transport, begin: Instant) {
    let ClientSettings { rate, recorder, .. } = &state.settings;
    let mut on_connection = 0;
    while !state.stop.load(Relaxed) {
        if on_connection == REQUESTS_PER_CONNECTION {
            transport.close().await;
            on_connection = 0;
        }
        on_connection += 1;
        let number = state.next.fetch_add(1, Relaxed);
        let due = begin + Duration::from_secs_f64(number as f64 / f64::from(*rate));
        sleep_until(due).await;
        let planned = PlannedRequest::new(number);
        let sent = Instant::now();
        let mut opened = sent;
        let exchange = transport.exchange(&state.settings, &planned, &mut opened);
        let outcome = timeout(RESPONSE_TIMEOUT, exchange).await;
        let outcome = outcome.unwrap_or_else(|_| {
            Err((FailureKind::Timeout, anyhow!("no response within {} s", RESPONSE_TIMEOUT.as_secs())))
        });
        match outcome {
            Ok(()) => recorder.add_response(due),
            Err((kind, error)) => {
                let PlannedRequest { method, path, .. } = planned;
                let (protocol, end, reason) = (transport.name(), Instant::now(), format!("{error:#}"));
                let failure = Failure { number, method, path, protocol, opened, begin: sent, end, kind, reason };
                recorder.add_failure(failure);
            }
        }
    }
}

/// A request and the route that must respond to it.
struct PlannedRequest {
    number: u64,
    method: &'static str,
    path: String,
    route: String,
}

impl PlannedRequest {
    /// The request with this number. Two of ten requests are not idempotent.
    fn new(number: u64) -> PlannedRequest {
        let (method, path) = match number % 10 {
            0..=3 => ("GET", "/steady".to_owned()),
            4 => ("POST", "/steady".to_owned()),
            5 => ("GET", format!("/edited-{}", number / 10 % EDITED_ROUTES as u64)),
            6 => ("GET", "/limited".to_owned()),
            7 => ("GET", "/named".to_owned()),
            8 => ("GET", "/slow".to_owned()),
            _ => ("POST", "/slow".to_owned()),
        };
        let route = path.trim_start_matches('/').to_owned();
        PlannedRequest { number, method, path, route }
    }

    fn build(&self, version: Version) -> Result<Request<Full<Bytes>>> {
        let body = if self.method == "POST" { Full::new(Bytes::from_static(&[b'a'; 256])) } else { Full::default() };
        let request = Request::builder().method(self.method).header(NUMBER, self.number);
        let request = if version == Version::HTTP_2 {
            let authority = CLIENT_HOST;
            let uri = Uri::builder().scheme("https").authority(authority).path_and_query(self.path.as_str()).build()?;
            request.version(version).uri(uri)
        } else {
            request.header(HOST, CLIENT_HOST).uri(&self.path)
        };
        request.body(body).context("invalid request")
    }

    /// Checks that the response is that of the route to this request.
    async fn check(&self, response: Response<Incoming>) -> Result<(), Failed> {
        let (head, body) = response.into_parts();
        #[expect(clippy::disallowed_methods, reason = "the body is limited")]
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|error| (FailureKind::Broken, anyhow!("the response is incomplete: {error}")))?;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if head.status != 200 {
            return Err((FailureKind::Status(head.status.as_u16()), anyhow!("{text}")));
        }
        let is_edited = self.route.starts_with("edited");
        let is_right = header(ROUTE) == self.route
            && header(NUMBER) == self.number.to_string()
            && (!is_edited || header(EDIT).parse::<u64>().is_ok());
        if !is_right {
            return Err((FailureKind::Wrong, anyhow!("route {} responded: {:?}", header(ROUTE), head.headers)));
        }
        Ok(())
    }
}

type Failed = (FailureKind, anyhow::Error);

impl Transport {
    fn name(&self) -> &'static str {
        match self {
            Transport::Http1(_) => "HTTP/1.1",
            Transport::Https(_) => "HTTP/1.1 with TLS",
            Transport::Http2(_) => "HTTP/2",
        }
    }

    /// Sends a request and checks the response. `opened` is the time at which a new connection is opened; it becomes
    /// that of the kept connection, if there is one.
    async fn exchange(
        &mut self,
        settings: &ClientSettings,
        planned: &PlannedRequest,
        opened: &mut Instant,
    ) -> Result<(), Failed> {
        let wrong = |error| (FailureKind::Wrong, error);
        let is_secure = matches!(self, Transport::Https(_));
        let response = match self {
            Transport::Http1(kept) | Transport::Https(kept) => {
                let is_open = match kept {
                    Some(connection) => connection.sender.ready().await.is_ok(),
                    None => false,
                };
                let mut connection = match kept.take() {
                    Some(connection) if is_open => connection,
                    _ => KeptConnection { sender: open_http1(settings, is_secure).await?, opened: *opened },
                };
                *opened = connection.opened;
                let response = connection.sender.send_request(planned.build(Version::HTTP_11).map_err(wrong)?).await;
                let response = response.map_err(broken)?;
                planned.check(response).await?;
                *kept = Some(connection);
                return Ok(());
            }
            Transport::Http2(shared) => {
                let mut shared = shared.lock().await;
                let is_open = match shared.as_mut() {
                    Some(connection) => connection.sender.ready().await.is_ok(),
                    None => false,
                };
                let mut connection = match shared.as_ref() {
                    Some(connection) if is_open => connection.clone(),
                    _ => {
                        let sender = open_http2(settings).await?;
                        shared.insert(KeptConnection { sender, opened: *opened }).clone()
                    }
                };
                drop(shared);
                *opened = connection.opened;
                connection.sender.send_request(planned.build(Version::HTTP_2).map_err(wrong)?).await.map_err(broken)?
            }
        };
        planned.check(response).await
    }

    /// Closes the connection; one of HTTP/2 when the last of its requests has ended.
    async fn close(&mut self) {
        match self {
            Transport::Http1(kept) | Transport::Https(kept) => *kept = None,
            Transport::Http2(shared) => *shared.lock().await = None,
        }
    }
}

async fn open_http1(settings: &ClientSettings, is_secure: bool) -> Result<http1::SendRequest<Full<Bytes>>, Failed> {
    if is_secure {
        http1_over(open_tls(settings, b"http/1.1").await?).await
    } else {
        http1_over(open_tcp(SocketAddr::new(settings.gateway, 80)).await?).await
    }
}

async fn http1_over<S>(stream: S) -> Result<http1::SendRequest<Full<Bytes>>, Failed>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // The connection's errors are reported to its requests.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn open_http2(settings: &ClientSettings) -> Result<http2::SendRequest<Full<Bytes>>, Failed> {
    let stream = TokioIo::new(open_tls(settings, b"h2").await?);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.map_err(broken)?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn broken(error: hyper::Error) -> Failed {
    (FailureKind::Broken, error.into())
}

async fn open_tls(settings: &ClientSettings, protocol: &[u8]) -> Result<TlsStream<TcpStream>, Failed> {
    let stream = open_tcp(SocketAddr::new(settings.gateway, 443)).await?;
    let mut config = ClientConfig::clone(&settings.tls);
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from(CLIENT_HOST).map_err(|error| (FailureKind::Wrong, error.into()))?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    connected.context("the TLS handshake failed").map_err(|error| (FailureKind::Broken, error))
}

async fn open_tcp(address: SocketAddr) -> Result<TcpStream, Failed> {
    let connected = TcpStream::connect(address).await.context("cannot connect");
    let stream = connected.map_err(|error| (FailureKind::Connect, error))?;
    stream.set_nodelay(true).map_err(|error| (FailureKind::Connect, error.into()))?;
    Ok(stream)
}
