//! Test harness: a running proxy and its routes, scripted HTTP/1.1 endpoints, and clients that write raw bytes.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use portico::access_log_syntax::AccessLogField;
use portico::access_log_syntax::LineRules;
use portico::bind_address::BindAddress;
use portico::endpoint_tls::UpstreamProtocol;
use portico::http1::NameCase;
use portico::limits::ProxyLimits;
use portico::plugin_chain::Chain;
use portico::proxy::access_log::{
    AccessLogConfig, AccessLogDestination, AccessLogFormat, AccessLogLines, AccessLogger, Privacy,
};
use portico::proxy::{BindState, ProductHeaderMode, ProductToken, Proxy, ProxyConfig, RejectedPaths, TlsPolicy};
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::regex::RegexLimit;
use portico::snapshot::router::{HostRouter, PathMatch, PathPattern, RouteMatch, TieBreaker};
use portico::snapshot::rule::{Action, Backend, BackendTarget, Filters, RouteRule, RuleId, WeightedBackends};
use portico::snapshot::rule_options::{RuleOptions, UnmatchedStyle};
use portico::snapshot::timeouts_and_retries::{RetryPolicy, RetryScope, TimeoutsAndRetries};
use portico::snapshot::{Bind, HttpListener, Routes, Snapshot};
use portico::upstream::{EndpointAddress, Endpoints, Upstream, UpstreamKey};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

#[allow(unused_imports, reason = "only the tests with Redis use them, which not all programs have")]
pub(crate) use crate::{polling, ports};

/// An address that refuses connections until a test listens on it.
pub(crate) fn refusing_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_port(Ipv4Addr::LOCALHOST)))
}

/// Upper bound of every wait in a test; only a failing test takes that long.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Short timeouts of the proxy are this long if what a test expects to succeed could exceed them. A busy machine pauses
/// its processes for up to two seconds.
pub(crate) const LONGER_THAN_PAUSES: Duration = Duration::from_secs(3);

/// Awaits the future for at most [`TEST_TIMEOUT`]; `what` names in the panic what the test waited for.
pub(crate) async fn with_timeout<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(TEST_TIMEOUT, future).await.unwrap_or_else(|_| panic!("timed out waiting for: {what}"))
}

/// A running proxy and its configuration.
pub(crate) struct TestServer {
    pub(crate) proxy: Proxy,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<AccessLogger>,
    // Keeps the port from being assigned to another process while the proxy does not listen.
    _reserved: Socket,
}

/// Settings of the proxy that tests change.
pub(crate) struct Options {
    pub(crate) limits: ProxyLimits,
    pub(crate) trusted: Vec<&'static str>,
    pub(crate) rejected_paths: RejectedPaths,
    pub(crate) name_case: NameCase,
    pub(crate) workers: usize,
    pub(crate) log: AccessLogDestination,
    pub(crate) tls: TlsPolicy,
    pub(crate) proxy_header_peers: Vec<&'static str>,
    pub(crate) product_headers: ProductHeaderMode,
    pub(crate) product: ProductToken,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            limits: ProxyLimits::default(),
            trusted: vec![],
            rejected_paths: RejectedPaths::default(),
            name_case: NameCase::Lower,
            workers: 1,
            log: AccessLogDestination::Off,
            tls: TlsPolicy::default(),
            proxy_header_peers: vec![],
            product_headers: ProductHeaderMode::default(),
            product: ProductToken::default(),
        }
    }
}

impl TestServer {
    pub(crate) async fn with_routes(routes: Vec<Route>) -> TestServer {
        TestServer::with_options(Options::default(), routes).await
    }

    pub(crate) async fn with_options(options: Options, routes: Vec<Route>) -> TestServer {
        let (address, reserved) = reserve_address();
        let server = TestServer::start(options, address, reserved, snapshot(address, routes));
        let binds = server.proxy.reconcile().await;
        assert_eq!(binds.get(&BindAddress::tcp(address)), Some(&BindState::Bound));
        server
    }

    pub(crate) fn start(options: Options, address: SocketAddr, reserved: Socket, snapshot: Snapshot) -> TestServer {
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        let log = AccessLogConfig {
            destination: options.log,
            lines: AccessLogLines::Fields(AccessLogFormat::Json, AccessLogField::defaults()),
            rules: LineRules::default(),
            privacy: Privacy::default(),
        };
        let log = Arc::new(AccessLogger::start(log).unwrap());
        let config = ProxyConfig {
            workers: NonZeroUsize::new(options.workers).unwrap(),
            limits: options.limits,
            rejected_paths: options.rejected_paths,
            name_case: options.name_case,
            trusted_ips: options.trusted.iter().map(|text| text.parse().unwrap()).collect(),
            access_log: Arc::clone(&log),
            tls: options.tls,
            proxy_protocol_peers: options.proxy_header_peers.iter().map(|text| text.parse().unwrap()).collect(),
            allow_port_sharing: false,
            product_headers: options.product_headers,
            product_token: options.product,
            max_series: 100,
            counts_endpoints: false,
            location_metrics: None,
        };
        let proxy = Proxy::start(config, Arc::clone(&snapshot)).unwrap();
        TestServer { proxy, snapshot, address, log, _reserved: reserved }
    }

    pub(crate) fn replace_routes(&self, routes: Vec<Route>) {
        self.snapshot.store(Arc::new(snapshot(self.address, routes)));
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Sends one request on a new connection.
    pub(crate) async fn request(&self, request: &str) -> TestResponse {
        let mut client = self.connect().await;
        client.send(request).await;
        client.response_to(request).await
    }
}

/// A loopback address with a free port, and the socket that reserves it. The proxy can bind the address as well: it
/// sets SO_REUSEADDR, and the reserving socket does not listen.
pub(crate) fn reserve_address() -> (SocketAddr, Socket) {
    reserve_address_at(Ipv4Addr::LOCALHOST)
}

/// Like [`reserve_address`]. A port that is free at one address may be in use at another one, and then not at all
/// addresses together.
pub(crate) fn reserve_address_at(address: Ipv4Addr) -> (SocketAddr, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap(), socket)
}

/// A route with one rule, for a listener on port 80 without hostname. An empty `host` matches all hosts.
pub(crate) struct Route {
    pub(crate) namespace: &'static str,
    pub(crate) host: &'static str,
    /// A prefix, or an expression that begins with a tilde.
    pub(crate) path: &'static str,
    pub(crate) filters: Filters,
    pub(crate) plugins: Option<Arc<Chain>>,
    pub(crate) options: Option<Box<RuleOptions>>,
    pub(crate) action: Action,
}

/// A route for all hosts and paths.
pub(crate) fn route(action: Action) -> Route {
    Route {
        namespace: "default",
        host: "",
        path: "/",
        filters: Filters::default(),
        plugins: None,
        options: None,
        action,
    }
}

/// Routes that send all requests to one endpoint.
pub(crate) fn routes_to(address: SocketAddr) -> Vec<Route> {
    vec![route(forward(vec![(1, upstream("web", &[address]))]))]
}

/// Routes that send all requests to one endpoint by HTTP/2 without TLS.
pub(crate) fn h2c_routes_to(address: SocketAddr) -> Vec<Route> {
    vec![route(forward(vec![(1, h2c_upstream(address))]))]
}

/// Forwards to upstreams by their weights.
pub(crate) fn forward(weighted_upstreams: Vec<(u32, Arc<Upstream>)>) -> Action {
    let backends = weighted_upstreams.into_iter().map(|(weight, upstream)| Backend {
        weight,
        filters: Filters::default(),
        target: BackendTarget::Upstream(upstream),
    });
    Action::Forward(WeightedBackends::new(backends.collect()).unwrap())
}

/// The forwarding action with these timeouts and retries of its rule.
pub(crate) fn with_timeouts_and_retries(action: Action, policy: TimeoutsAndRetries) -> Action {
    let Action::Forward(mut split) = action else { panic!("only a forwarding action has retries and timeouts") };
    split.timeouts_and_retries = Some(Box::new(policy));
    Action::Forward(split)
}

/// Up to `max_retries` retries after responses with these codes, almost without a delay.
pub(crate) fn retries(max_retries: u32, codes: &[u16]) -> TimeoutsAndRetries {
    let (backoff, scope) = (Duration::from_millis(1), RetryScope::default());
    let retry = RetryPolicy { max_retries, codes: codes.into(), backoff, scope };
    TimeoutsAndRetries { retry: Some(retry), ..TimeoutsAndRetries::default() }
}

pub(crate) fn upstream(service: &str, addresses: &[SocketAddr]) -> Arc<Upstream> {
    upstream_with_protocol(UpstreamProtocol::Http1, service, addresses)
}

/// An endpoint with HTTP/2 without TLS.
pub(crate) fn h2c_upstream(address: SocketAddr) -> Arc<Upstream> {
    upstream_with_protocol(UpstreamProtocol::Http2, "h2c", &[address])
}

pub(crate) fn upstream_with_protocol(
    protocol: UpstreamProtocol,
    service: &str,
    addresses: &[SocketAddr],
) -> Arc<Upstream> {
    let key = UpstreamKey {
        namespace: "default".into(),
        service: service.into(),
        port: 80,
        protocol,
        ..UpstreamKey::default()
    };
    let upstream = Upstream::new(key);
    let mut addresses: Vec<_> = addresses.iter().copied().map(EndpointAddress::Ip).collect();
    addresses.sort();
    upstream.set_endpoints(Endpoints { addresses, ..Default::default() });
    Arc::new(upstream)
}

/// A snapshot with one listener at this address, for all hosts.
pub(crate) fn snapshot(address: SocketAddr, routes: Vec<Route>) -> Snapshot {
    let listeners = HostMap::new([(HostPattern::Any, Arc::new(listener(routes)))]);
    Snapshot {
        binds: [(BindAddress::tcp(address), Arc::new(Bind::with_http(listeners, None)))].into(),
        ..Snapshot::default()
    }
}

/// A listener on port 80. The routes are named `HTTPRoute/NAMESPACE/r0`, `r1` and so on.
pub(crate) fn listener(routes: Vec<Route>) -> HttpListener {
    let mut hosts: std::collections::BTreeMap<HostPattern, Vec<RouteMatch>> = Default::default();
    for (index, route) in routes.into_iter().enumerate() {
        let name: Arc<str> = format!("HTTPRoute/{}/r{index}", route.namespace).into();
        let id = RuleId { route: Arc::clone(&name), rule: "0".into() };
        let candidate = RouteMatch {
            path: match route.path.strip_prefix('~') {
                Some(pattern) => PathMatch::Regex(PathPattern::compile(pattern, RegexLimit::MEMORY_ONLY).unwrap()),
                None => PathMatch::Prefix(route.path.strip_suffix('/').unwrap_or(route.path).into()),
            },
            method: None,
            headers: vec![],
            query: vec![],
            call: None,
            server_names: Arc::default(),
            tie_breaker: TieBreaker { created: None, route: name, rule: 0, index: 0 },
            rule: Arc::new(RouteRule {
                id,
                filters: route.filters,
                plugins: route.plugins,
                action: route.action,
                options: route.options,
            }),
        };
        hosts.entry(HostPattern::parse(Some(route.host))).or_default().push(candidate);
    }
    let hosts = hosts.into_iter().map(|(host, candidates)| (host, Arc::new(HostRouter::build(candidates))));
    HttpListener {
        gateway: "default/gw".into(),
        name: "http".into(),
        port: 80,
        routes: Routes::ByHost(HostMap::new(hosts)),
        unmatched: UnmatchedStyle::default(),
    }
}

/// An endpoint: a TCP listener that runs a script for each connection.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<EndpointLog>,
}

/// What an endpoint received, and its connections.
#[derive(Default)]
pub(crate) struct EndpointLog {
    requests: Mutex<Vec<String>>,
    /// Accepted connections.
    pub(crate) connections: AtomicUsize,
    /// Connections whose script has ended.
    pub(crate) ended: AtomicUsize,
    changed: Notify,
}

type Script = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Endpoint {
    /// Runs the script for every connection, with the number of the connection, starting at 0.
    pub(crate) async fn scripted<F>(script: impl Fn(EndpointStream, usize) -> F + Send + 'static) -> Endpoint
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Endpoint::on_listener(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    /// Like [`Endpoint::scripted`], on a socket that listens already.
    pub(crate) fn on_listener<F>(
        listener: TcpListener,
        script: impl Fn(EndpointStream, usize) -> F + Send + 'static,
    ) -> Endpoint
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let log = Arc::new(EndpointLog::default());
        let accept_log = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let number = accept_log.connections.fetch_add(1, Ordering::SeqCst);
                accept_log.changed.notify_waiters();
                let stream = EndpointStream { socket, buffer: Vec::new(), log: Arc::clone(&accept_log) };
                let script: Script = Box::pin(script(stream, number));
                let script_log = Arc::clone(&accept_log);
                tokio::spawn(async move {
                    script.await;
                    script_log.ended.fetch_add(1, Ordering::SeqCst);
                    script_log.changed.notify_waiters();
                });
            }
        });
        Endpoint { address, log }
    }

    /// Sends the same response to every request and keeps the connection open.
    pub(crate) async fn responding_with(response: impl Into<Vec<u8>>) -> Endpoint {
        let response = Arc::new(response.into());
        Endpoint::scripted(move |mut stream, _| {
            let response = Arc::clone(&response);
            async move {
                while stream.request().await.is_some() {
                    stream.send(&*response).await;
                }
            }
        })
        .await
    }

    /// Responds to every request with 200 and the body `ok`.
    pub(crate) async fn ok() -> Endpoint {
        Endpoint::responding_with("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await
    }
}

impl EndpointLog {
    pub(crate) fn record(&self, request: &str) {
        self.requests.lock().unwrap().push(request.to_owned());
        self.changed.notify_waiters();
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until the log satisfies the condition.
    pub(crate) async fn wait_for(&self, what: &str, condition: impl Fn(&EndpointLog) -> bool) {
        with_timeout(what, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if condition(self) {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }
}

/// A connection from the endpoint's side.
pub(crate) struct EndpointStream {
    pub(crate) socket: TcpStream,
    buffer: Vec<u8>,
    log: Arc<EndpointLog>,
}

impl EndpointStream {
    /// Reads a complete request and records it; None at the end of the connection.
    pub(crate) async fn request(&mut self) -> Option<String> {
        let head = self.head().await?;
        let body = read_body(&mut self.socket, &mut self.buffer, &head, UnframedBody::Empty).await?;
        let request = head + &String::from_utf8_lossy(&body);
        self.record(&request);
        Some(request)
    }

    /// Reads a request head without recording it.
    pub(crate) async fn head(&mut self) -> Option<String> {
        read_head(&mut self.socket, &mut self.buffer).await
    }

    pub(crate) fn record(&self, request: &str) {
        self.log.record(request);
    }

    /// The endpoint's log, for scripts that move the socket out of the stream.
    pub(crate) fn log(&self) -> Arc<EndpointLog> {
        Arc::clone(&self.log)
    }

    /// Returns the next bytes; None at the end of the connection.
    pub(crate) async fn read_some(&mut self) -> Option<Vec<u8>> {
        if self.buffer.is_empty() {
            // Without reserved space, each read would return at most 64 bytes, and scripts that parse all bytes after
            // each read would be slow.
            self.buffer.reserve(READ_SIZE);
            fill(&mut self.socket, &mut self.buffer).await?;
        }
        Some(self.take_buffered())
    }

    /// Takes the bytes that were read but not yet returned.
    pub(crate) fn take_buffered(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The peer may have closed the connection; some scripts are about that.
        drop(self.socket.write_all(bytes.as_ref()).await);
    }

    /// Reads until the peer closes, and returns the number of bytes.
    pub(crate) async fn read_to_end(&mut self) -> usize {
        let mut rest = Vec::new();
        drop(self.socket.read_to_end(&mut rest).await);
        rest.len() + std::mem::take(&mut self.buffer).len()
    }
}

/// A client that writes raw bytes and reads responses.
pub(crate) struct Client<S = TcpStream> {
    pub(crate) socket: S,
    buffer: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TestResponse {
    pub(crate) status: u16,
    /// Status line and header fields as they were received.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        Client::from_stream(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn from_stream(socket: S) -> Client<S> {
        Client { socket, buffer: Vec::new() }
    }

    /// Ends this direction, with TLS by a close_notify.
    pub(crate) async fn finish(&mut self) {
        self.socket.shutdown().await.unwrap();
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
        // TLS may keep what the socket does not take at once, and reading does not send it.
        self.socket.flush().await.unwrap();
    }

    /// Reads the response to a request whose method is not HEAD.
    pub(crate) async fn response(&mut self) -> TestResponse {
        self.response_to("").await
    }

    /// Reads the response to this request, without a body if the method is HEAD.
    pub(crate) async fn response_to(&mut self, request: impl AsRef<[u8]>) -> TestResponse {
        self.try_response_to(request).await.expect("a complete response")
    }

    /// Like [`Client::response`]; None if the connection ends before the response does.
    pub(crate) async fn try_response(&mut self) -> Option<TestResponse> {
        self.try_response_to("").await
    }

    /// Like [`Client::response_to`]; None if the connection ends before the response does. Early hints are skipped.
    pub(crate) async fn try_response_to(&mut self, request: impl AsRef<[u8]>) -> Option<TestResponse> {
        loop {
            let response = self.try_next_response_to(&request).await?;
            if response.status != 103 {
                return Some(response);
            }
        }
    }

    /// Reads the next response, which may be informational. None if the connection ends before it does.
    pub(crate) async fn try_next_response_to(&mut self, request: impl AsRef<[u8]>) -> Option<TestResponse> {
        let is_head_request = request.as_ref().starts_with(b"HEAD ");
        with_timeout("a response", async {
            let head = read_head(&mut self.socket, &mut self.buffer).await?;
            let status = head.split(' ').nth(1)?.parse().ok()?;
            let has_no_body = is_head_request || matches!(status, 100..=199 | 204 | 304);
            let body = if has_no_body {
                Vec::new()
            } else {
                read_body(&mut self.socket, &mut self.buffer, &head, UnframedBody::UntilEnd).await?
            };
            Some(TestResponse { status, head, body })
        })
        .await
    }

    /// Takes the bytes that were read after the last response.
    pub(crate) fn take_buffered(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    pub(crate) async fn get(&mut self, path: &str) -> TestResponse {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
        self.response().await
    }

    /// Reads all bytes until the connection ends; an error if it was reset.
    pub(crate) async fn read_to_end(&mut self) -> std::io::Result<Vec<u8>> {
        with_timeout("the end of the connection", async {
            let mut rest = std::mem::take(&mut self.buffer);
            self.socket.read_to_end(&mut rest).await?;
            Ok(rest)
        })
        .await
    }
}

impl TestResponse {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The value of the first header with this name, in the head of a request or response.
pub(crate) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Buffer space in bytes for a read of an endpoint.
const READ_SIZE: usize = 64 * 1024;

/// Reads more bytes into the buffer; None at the end of the connection.
async fn fill(socket: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<()> {
    match socket.read_buf(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(()),
    }
}

async fn read_head(socket: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            return Some(String::from_utf8_lossy(&head).into_owned());
        }
        fill(socket, buffer).await?;
    }
}

/// What follows a head without Content-Length and without `Transfer-Encoding: chunked` (RFC 9112, section 6.3).
#[derive(Clone, Copy)]
enum UnframedBody {
    /// Nothing: the message is a request.
    Empty,
    /// A body that ends with the connection: the message is a response.
    UntilEnd,
}

/// Reads the body as the head frames it. The result of a chunked body is its data and then its trailer lines.
async fn read_body(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    head: &str,
    unframed: UnframedBody,
) -> Option<Vec<u8>> {
    if header(head, "transfer-encoding").is_some_and(|coding| coding == "chunked") {
        let mut body = Vec::new();
        loop {
            let line = read_line(socket, buffer).await?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            if size == 0 {
                loop {
                    let trailer = read_line(socket, buffer).await?;
                    if trailer == "\r\n" {
                        return Some(body);
                    }
                    body.extend_from_slice(trailer.as_bytes());
                }
            }
            while buffer.len() < size + 2 {
                fill(socket, buffer).await?;
            }
            body.extend(buffer.drain(..size));
            buffer.drain(..2);
        }
    }
    if let Some(length) = header(head, "content-length") {
        let length: usize = length.parse().unwrap();
        while buffer.len() < length {
            fill(socket, buffer).await?;
        }
        return Some(buffer.drain(..length).collect());
    }
    match unframed {
        UnframedBody::Empty => Some(Vec::new()),
        UnframedBody::UntilEnd => {
            while fill(socket, buffer).await.is_some() {}
            Some(std::mem::take(buffer))
        }
    }
}

async fn read_line(socket: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(2).position(|window| window == b"\r\n") {
            return Some(String::from_utf8(buffer.drain(..end + 2).collect()).unwrap());
        }
        fill(socket, buffer).await?;
    }
}
