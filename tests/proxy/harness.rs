//! A proxy, endpoints that follow a script, and clients that write bytes.

use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use portico::plugin::Chain;
use portico::proxy::access_log::{AccessLog, Destination, Field, Format};
use portico::proxy::{BindState, Config, KongHeaders, Limits, Product, Proxy, TlsPolicy};
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::kong::Manner;
use portico::snapshot::router::{Age, Candidate, HostRouter, PathMatch};
use portico::snapshot::rule::{Action, Backend, Filters, Rule, RuleId, Split, Target};
use portico::snapshot::tries::Tries;
use portico::snapshot::{Bind, Listener, Routes, Snapshot};
use portico::upstream::{Address, Endpoints, Protocol, Upstream, UpstreamKey};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

/// What a test waits for at most. Only a failure lasts that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// A running proxy and its configuration.
pub(crate) struct Gate {
    pub(crate) proxy: Proxy,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<AccessLog>,
    // Keeps the port from being given to somebody else between tests.
    _reserved: Socket,
}

pub(crate) struct Options {
    pub(crate) limits: Limits,
    pub(crate) trusted: Vec<&'static str>,
    pub(crate) workers: usize,
    pub(crate) log: Destination,
    pub(crate) tls: TlsPolicy,
    pub(crate) balancers: Vec<&'static str>,
    pub(crate) kong_headers: KongHeaders,
    pub(crate) product: Product,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            limits: Limits::default(),
            trusted: vec![],
            workers: 1,
            log: Destination::Off,
            tls: TlsPolicy::default(),
            balancers: vec![],
            kong_headers: KongHeaders::default(),
            product: Product::default(),
        }
    }
}

impl Gate {
    pub(crate) async fn open(routes: Vec<Route>) -> Gate {
        Gate::with(Options::default(), routes).await
    }

    pub(crate) async fn with(options: Options, routes: Vec<Route>) -> Gate {
        let (address, reserved) = reserve();
        let gate = Gate::start(options, address, reserved, snapshot(address, routes));
        let binds = gate.proxy.reconcile().await;
        assert_eq!(binds.get(&address), Some(&BindState::Bound));
        gate
    }

    pub(crate) fn start(options: Options, address: SocketAddr, reserved: Socket, snapshot: Snapshot) -> Gate {
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        let log = Arc::new(AccessLog::start(options.log, Format::Json, &Field::usual()).unwrap());
        let config = Config {
            workers: NonZeroUsize::new(options.workers).unwrap(),
            limits: options.limits,
            trusted: options.trusted.iter().map(|text| text.parse().unwrap()).collect(),
            access_log: Arc::clone(&log),
            tls: options.tls,
            balancers: options.balancers.iter().map(|text| text.parse().unwrap()).collect(),
            allow_port_sharing: false,
            kong_headers: options.kong_headers,
            product: options.product,
            max_series: 100,
        };
        let proxy = Proxy::start(config, Arc::clone(&snapshot)).unwrap();
        Gate { proxy, snapshot, address, log, _reserved: reserved }
    }

    pub(crate) fn swap(&self, routes: Vec<Route>) {
        self.snapshot.store(Arc::new(snapshot(self.address, routes)));
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        let mut client = self.client().await;
        client.send(request).await;
        client.answer(request.starts_with("HEAD ")).await
    }
}

/// An address of loopback with a free port, and what keeps it free for us. A socket that is bound but does not listen is in
/// nobody's way who sets SO_REUSEADDR, as we do.
pub(crate) fn reserve() -> (SocketAddr, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap(), socket)
}

/// A route of the test's only listener, which takes every host and says its port is 80.
pub(crate) struct Route {
    pub(crate) host: &'static str,
    pub(crate) path: &'static str,
    pub(crate) filters: Filters,
    pub(crate) plugins: Option<Arc<Chain>>,
    pub(crate) kong: Option<Box<Manner>>,
    pub(crate) action: Action,
}

pub(crate) fn route(action: Action) -> Route {
    Route { host: "", path: "/", filters: Filters::default(), plugins: None, kong: None, action }
}

/// All requests to one endpoint.
pub(crate) fn to(address: SocketAddr) -> Vec<Route> {
    vec![route(forward(vec![(1, upstream("web", &[address]))]))]
}

pub(crate) fn forward(shares: Vec<(u32, Arc<Upstream>)>) -> Action {
    let backends = shares.into_iter().map(|(weight, upstream)| Backend {
        weight,
        filters: Filters::default(),
        target: Target::Upstream(upstream),
    });
    Action::Forward(Split::new(backends.collect()).unwrap())
}

/// The same, within the limits of a rule.
pub(crate) fn trying(action: Action, tries: Tries) -> Action {
    let Action::Forward(mut split) = action else { panic!("only what is forwarded is tried") };
    split.tries = Some(Box::new(tries));
    Action::Forward(split)
}

pub(crate) fn upstream(service: &str, addresses: &[SocketAddr]) -> Arc<Upstream> {
    upstream_of(Protocol::Http1, service, addresses)
}

pub(crate) fn upstream_of(protocol: Protocol, service: &str, addresses: &[SocketAddr]) -> Arc<Upstream> {
    let key = UpstreamKey {
        namespace: "default".into(),
        service: service.into(),
        port: 80,
        protocol,
        ..UpstreamKey::default()
    };
    let upstream = Upstream::new(key);
    let mut addresses: Vec<_> = addresses.iter().copied().map(Address::Ip).collect();
    addresses.sort();
    upstream.set_endpoints(Endpoints { addresses, ..Default::default() });
    Arc::new(upstream)
}

pub(crate) fn snapshot(address: SocketAddr, routes: Vec<Route>) -> Snapshot {
    let listeners = HostMap::new([(HostPattern::Any, Arc::new(listener(routes)))]);
    Snapshot { binds: [(address, Arc::new(Bind { listeners, tls: None }))].into(), ..Snapshot::default() }
}

pub(crate) fn listener(routes: Vec<Route>) -> Listener {
    let mut hosts: std::collections::BTreeMap<HostPattern, Vec<Candidate>> = Default::default();
    for (index, route) in routes.into_iter().enumerate() {
        let name: Arc<str> = format!("HTTPRoute/default/r{index}").into();
        let id = RuleId { route: Arc::clone(&name), rule: "0".into() };
        let candidate = Candidate {
            path: PathMatch::Prefix(route.path.strip_suffix('/').unwrap_or(route.path).into()),
            method: None,
            headers: vec![],
            query: vec![],
            server_names: Arc::default(),
            age: Age { created: None, route: name, rule: 0, index: 0 },
            rule: Arc::new(Rule {
                id,
                filters: route.filters,
                plugins: route.plugins,
                action: route.action,
                kong: route.kong,
            }),
        };
        hosts.entry(HostPattern::parse(Some(route.host))).or_default().push(candidate);
    }
    let hosts = hosts.into_iter().map(|(host, candidates)| (host, Arc::new(HostRouter::build(candidates))));
    Listener {
        gateway: "default/gw".into(),
        name: "http".into(),
        port: 80,
        routes: Routes::Gateway(HostMap::new(hosts)),
    }
}

/// An endpoint: a listener with a script for each connection.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<Log>,
}

/// What an endpoint saw.
#[derive(Default)]
pub(crate) struct Log {
    requests: Mutex<Vec<String>>,
    pub(crate) connections: AtomicUsize,
    /// Connections that ended, however.
    pub(crate) ended: AtomicUsize,
    changed: Notify,
}

type Script = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Endpoint {
    /// Runs the script for every connection; it is given the connection's number.
    pub(crate) async fn scripted<F>(script: impl Fn(Stream, usize) -> F + Send + 'static) -> Endpoint
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Endpoint::listening(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    /// The same, on a socket that is there already.
    pub(crate) fn listening<F>(listener: TcpListener, script: impl Fn(Stream, usize) -> F + Send + 'static) -> Endpoint
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Log::default());
        let accepted = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let number = accepted.connections.fetch_add(1, Ordering::SeqCst);
                accepted.changed.notify_waiters();
                let stream = Stream { socket, buffer: Vec::new(), log: Arc::clone(&accepted) };
                let script: Script = Box::pin(script(stream, number));
                let ended = Arc::clone(&accepted);
                tokio::spawn(async move {
                    script.await;
                    ended.ended.fetch_add(1, Ordering::SeqCst);
                    ended.changed.notify_waiters();
                });
            }
        });
        Endpoint { address, log }
    }

    /// Answers every request with the same bytes and keeps the connection.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Endpoint {
        let answer = Arc::new(answer.into());
        Endpoint::scripted(move |mut stream, _| {
            let answer = Arc::clone(&answer);
            async move {
                while stream.request().await.is_some() {
                    stream.send(&*answer).await;
                }
            }
        })
        .await
    }

    pub(crate) async fn ok() -> Endpoint {
        Endpoint::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await
    }
}

impl Log {
    pub(crate) fn note(&self, request: &str) {
        self.requests.lock().unwrap().push(request.to_owned());
        self.changed.notify_waiters();
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until what was seen satisfies the condition.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Log) -> bool) {
        within(what, async {
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

/// A connection as an endpoint sees it.
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    buffer: Vec<u8>,
    log: Arc<Log>,
}

impl Stream {
    /// Reads a whole request and notes it; None at the end of the connection.
    pub(crate) async fn request(&mut self) -> Option<String> {
        let head = self.head().await?;
        let body = read_body(&mut self.socket, &mut self.buffer, &head, false).await?;
        let request = head + &String::from_utf8_lossy(&body);
        self.note(&request);
        Some(request)
    }

    pub(crate) async fn head(&mut self) -> Option<String> {
        read_head(&mut self.socket, &mut self.buffer).await
    }

    pub(crate) fn note(&self, request: &str) {
        self.log.note(request);
    }

    /// For scripts that take the connection apart.
    pub(crate) fn log(&self) -> Arc<Log> {
        Arc::clone(&self.log)
    }

    /// Some bytes as they come; None at the end of the connection.
    pub(crate) async fn more(&mut self) -> Option<Vec<u8>> {
        if self.buffer.is_empty() {
            // An empty buffer is read into in pieces of 64 bytes, and whoever looks at all that has come after each piece does
            // so a thousand times for the largest head.
            self.buffer.reserve(PIECE);
            fill(&mut self.socket, &mut self.buffer).await?;
        }
        Some(self.buffered())
    }

    /// What was read beyond the last head.
    pub(crate) fn buffered(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The peer may be gone, which is what some scripts are about.
        drop(self.socket.write_all(bytes.as_ref()).await);
    }

    /// Reads until the other side closes, and says how many bytes that were.
    pub(crate) async fn rest(&mut self) -> usize {
        let mut rest = Vec::new();
        drop(self.socket.read_to_end(&mut rest).await);
        rest.len() + std::mem::take(&mut self.buffer).len()
    }
}

/// A client that writes bytes and reads answers.
pub(crate) struct Client<S = TcpStream> {
    pub(crate) socket: S,
    buffer: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// With the status line, in lower case where that does not matter.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn over(socket: S) -> Client<S> {
        Client { socket, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
    }

    pub(crate) async fn answer(&mut self, head_only: bool) -> Answer {
        self.try_answer(head_only).await.expect("a whole answer")
    }

    /// None if the connection ends before the answer does.
    pub(crate) async fn try_answer(&mut self, head_only: bool) -> Option<Answer> {
        within("an answer", async {
            let head = read_head(&mut self.socket, &mut self.buffer).await?;
            let status = head.split(' ').nth(1)?.parse().ok()?;
            let no_body = head_only || matches!(status, 100..=199 | 204 | 304);
            let body =
                if no_body { Vec::new() } else { read_body(&mut self.socket, &mut self.buffer, &head, true).await? };
            Some(Answer { status, head, body })
        })
        .await
    }

    /// What was read beyond the last answer.
    pub(crate) fn buffered(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
        self.answer(false).await
    }

    /// Reads until the connection ends. An error means that it was reset.
    pub(crate) async fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        within("the end of the connection", async {
            let mut rest = std::mem::take(&mut self.buffer);
            self.socket.read_to_end(&mut rest).await?;
            Ok(rest)
        })
        .await
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The value of the first field of this name.
pub(crate) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Of what an endpoint reads at a time.
const PIECE: usize = 64 * 1024;

async fn fill(socket: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<()> {
    match socket.read_buf(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(()),
    }
}

async fn read_head(socket: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = buffer.drain(..end + 4).collect();
            return Some(String::from_utf8(head).unwrap());
        }
        fill(socket, buffer).await?;
    }
}

/// Reads the body as the head frames it; chunks come back decoded, with the trailers behind the last.
async fn read_body(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    head: &str,
    answer: bool,
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
    if answer {
        while fill(socket, buffer).await.is_some() {}
        return Some(std::mem::take(buffer));
    }
    Some(Vec::new())
}

async fn read_line(socket: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(2).position(|window| window == b"\r\n") {
            return Some(String::from_utf8(buffer.drain(..end + 2).collect()).unwrap());
        }
        fill(socket, buffer).await?;
    }
}
