//! A proxy in front of the API server that injects errors: error responses, broken connections and hangs.
//!
//! ```no_run
//! # async fn example(cluster: &portico_e2e::cluster::Cluster) -> anyhow::Result<()> {
//! use portico_e2e::error_injector::{ErrorInjector, InjectedError, Requests};
//!
//! let injector = ErrorInjector::start(cluster).await?;
//! // … Portico runs with --kubeconfig injector.kubeconfig() …
//! injector.inject(Requests::Watches, InjectedError::Status(500));
//! injector.wait_for_hits(3).await?;
//! injector.clear();
//! # Ok(())
//! # }
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt, stream};
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::cluster::{ADDRESS, API_SERVER, Cluster};
use crate::pki::{Credentials, Pki, write_kubeconfig};
use crate::portico::{self, NAMESPACE, SERVICE_ACCOUNT};

/// A running proxy. Dropping it closes every connection.
#[derive(Debug)]
pub struct ErrorInjector {
    shared: Arc<ProxyState>,
    kubeconfig: PathBuf,
    token: PathBuf,
    _server: JoinSet<()>,
}

/// The requests that an injected error applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requests {
    All,
    Watches,
    /// All methods but GET and HEAD.
    Writes,
}

/// The injected error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectedError {
    /// Responds with this status code and a `Status` body, like the API server.
    Status(u16),
    /// 429 with the delay only in Retry-After, without a `Status` body.
    Busy { seconds: u32 },
    /// 429 with the delay also in a `Status` body.
    BusyByStatus { seconds: u32 },
    /// For watches: the watch starts, and an ERROR event says that its resourceVersion is too old.
    Gone,
    /// The response starts and is cut after its first chunk.
    Cut,
    /// The request is read and never gets a response.
    NoResponse,
    /// The connection is accepted without a TLS handshake.
    NoHandshake,
    /// 401 for requests without this token.
    RequireToken(String),
}

#[derive(Debug)]
struct ProxyState {
    injected: Mutex<Option<(Requests, InjectedError)>>,
    /// Paths of requests that hit the error; empty strings for connections.
    hits: watch::Sender<Vec<String>>,
    /// Changes when open connections must close.
    cut: watch::Sender<()>,
    upstream: Arc<ClientConfig>,
}

/// How long to wait for a request that hits the error: as long as the longest back-off.
const HIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a watch that will be cut may be without events.
const FIRST_PIECE: Duration = Duration::from_millis(50);

impl ErrorInjector {
    /// Starts the proxy and writes a kubeconfig for it with the credentials of Portico's ServiceAccount. Must be called
    /// in the cluster's network namespace.
    pub async fn start(cluster: &Cluster) -> Result<ErrorInjector> {
        portico::install(cluster).await?;
        let listener = TcpListener::bind((ADDRESS, 0)).await.context("cannot bind a port for the proxy")?;
        let address = listener.local_addr()?;
        let pki = cluster.pki();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(pki)?));
        let shared = Arc::new(ProxyState {
            injected: Mutex::default(),
            hits: watch::Sender::default(),
            cut: watch::Sender::new(()),
            upstream: Arc::new(client_config(pki)?),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, acceptor, shared.clone()));
        let token = cluster.folder().join(format!("front-{}.token", address.port()));
        let kubeconfig = token.with_extension("kubeconfig");
        write_kubeconfig(&kubeconfig, &format!("https://{address}"), &pki.authority, Credentials::TokenFile(&token))?;
        let front = ErrorInjector { shared, kubeconfig, token, _server: tasks };
        front.write_token(&new_token(cluster).await?)?;
        Ok(front)
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Replaces the token of the kubeconfig.
    pub fn write_token(&self, token: &str) -> Result<()> {
        // Atomically, so that no incomplete token is read.
        let new = self.token.with_extension("new");
        fs::write(&new, token).and_then(|()| fs::rename(new, &self.token)).context("cannot write the token")
    }

    /// Injects this error into these requests, instead of the previous one. Open connections are closed, so that no
    /// request bypasses it.
    pub fn inject(&self, requests: Requests, fault: InjectedError) {
        *self.shared.injected.lock() = Some((requests, fault));
        self.shared.hits.send_replace(Vec::new());
        self.shared.cut.send_replace(());
    }

    /// Stops injecting errors. Requests that already hang keep hanging.
    pub fn clear(&self) {
        *self.shared.injected.lock() = None;
    }

    /// Waits until this number of requests or connections has hit the error.
    pub async fn wait_for_hits(&self, times: usize) -> Result<()> {
        self.until(|met| met.len() >= times)
            .await
            .with_context(|| format!("the injected error was not hit {times} times"))
    }

    /// Waits until a request for these objects, such as `httproutes`, has hit the error.
    pub async fn wait_for_hit_by(&self, plural: &str) -> Result<()> {
        let about = |met: &Vec<String>| met.iter().any(|path| path.split('/').any(|part| part == plural));
        self.until(about).await.with_context(|| format!("no request for {plural} hit the injected error"))
    }

    async fn until(&self, done: impl FnMut(&Vec<String>) -> bool) -> Result<()> {
        let mut met = self.shared.hits.subscribe();
        let waited = timeout(HIT_TIMEOUT, met.wait_for(done)).await;
        waited
            .with_context(|| format!("after {} s: {self:?}", HIT_TIMEOUT.as_secs()))?
            .map(drop)
            .context("the sender is gone")
    }
}

/// Another token for Portico's ServiceAccount.
pub async fn new_token(cluster: &Cluster) -> Result<String> {
    let arguments = ["create", "token", SERVICE_ACCOUNT, "--namespace", NAMESPACE, "--duration=24h"];
    Ok(cluster.kubectl(&arguments).await?.trim().to_owned())
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<ProxyState>) {
    let mut connections = JoinSet::new();
    loop {
        // Most likely out of file descriptors, which become free shortly.
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        connections.spawn(async move {
            let mut cut = shared.cut.subscribe();
            tokio::select! {
                () = serve_connection(stream, acceptor, shared) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn serve_connection(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<ProxyState>) {
    if shared.injected.lock().as_ref().is_some_and(|(_, fault)| *fault == InjectedError::NoHandshake) {
        shared.record_hit("");
        return std::future::pending().await;
    }
    // The client sees the failed handshake.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request| respond(request, shared.clone()));
    drop(server::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

type ProxyResponse = Response<BoxBody<Bytes, io::Error>>;

async fn respond(request: Request<Incoming>, shared: Arc<ProxyState>) -> Result<ProxyResponse> {
    let fault = shared.error_for(&request);
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match fault {
        None => forward(request, &shared).await,
        Some(InjectedError::RequireToken(expected)) if token == Some(&expected) => forward(request, &shared).await,
        Some(fault) => {
            shared.record_hit(request.uri().path());
            respond_with_fault(fault, request, &shared).await
        }
    }
}

async fn respond_with_fault(
    fault: InjectedError,
    request: Request<Incoming>,
    shared: &ProxyState,
) -> Result<ProxyResponse> {
    match fault {
        InjectedError::Status(code) => status(code, "injected by a test", 0),
        InjectedError::BusyByStatus { seconds } => status(429, "too many requests, please try again later", seconds),
        InjectedError::Busy { seconds } => {
            let body = Full::new(Bytes::from("Too many requests, please try again later.\n"));
            let answer = Response::builder().status(429).header(RETRY_AFTER, seconds);
            Ok(answer.body(body.map_err(|never| match never {}).boxed())?)
        }
        InjectedError::Gone => {
            let event = json!({ "type": "ERROR", "object": body_of(410, "too old resource version", 0) });
            let body = Full::new(Bytes::from(format!("{event}\n"))).map_err(|never| match never {});
            Ok(Response::builder().header(CONTENT_TYPE, "application/json").body(body.boxed())?)
        }
        InjectedError::Cut => {
            let (head, body) = forward(request, shared).await?.into_parts();
            let mut pieces = body.into_data_stream();
            let first = timeout(FIRST_PIECE, pieces.next()).await.ok().flatten();
            let first = first.map(|piece| piece.map(Frame::data));
            let pieces = stream::iter(first).chain(stream::iter([Err(io::Error::other("cut"))]));
            Ok(Response::from_parts(head, BodyExt::boxed(StreamBody::new(pieces))))
        }
        InjectedError::RequireToken(_) => status(401, "Unauthorized", 0),
        InjectedError::NoResponse | InjectedError::NoHandshake => std::future::pending().await,
    }
}

fn status(code: u16, message: &str, seconds: u32) -> Result<ProxyResponse> {
    let body = Full::new(Bytes::from(body_of(code, message, seconds).to_string())).map_err(|never| match never {});
    let mut answer = Response::builder().status(code).header(CONTENT_TYPE, "application/json");
    if seconds > 0 {
        answer = answer.header(RETRY_AFTER, seconds);
    }
    Ok(answer.body(body.boxed())?)
}

fn body_of(code: u16, message: &str, seconds: u32) -> serde_json::Value {
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code,
    });
    if seconds > 0 {
        status["details"] = json!({ "retryAfterSeconds": seconds });
    }
    status
}

/// Forwards a request unchanged on a new connection.
async fn forward(request: Request<Incoming>, shared: &ProxyState) -> Result<ProxyResponse> {
    let stream = TcpStream::connect(API_SERVER).await.context("cannot connect to the API server")?;
    stream.set_nodelay(true)?;
    let name = ServerName::from(std::net::IpAddr::V4(ADDRESS));
    let stream = TlsConnector::from(shared.upstream.clone()).connect(name, stream).await?;
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    // The task ends with the response, or when the client is gone.
    tokio::spawn(async move { drop(connection.await) });
    let answer = sender.send_request(request).await.context("the API server does not respond")?;
    Ok(answer.map(|body| body.map_err(io::Error::other).boxed()))
}

impl ProxyState {
    /// The injected error that applies to this request, if any.
    fn error_for(&self, request: &Request<Incoming>) -> Option<InjectedError> {
        let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
        let fault = self.injected.lock();
        let (requests, fault) = fault.as_ref()?;
        let applies = match requests {
            Requests::All => true,
            Requests::Watches => watches,
            Requests::Writes => writes,
        };
        applies.then(|| fault.clone())
    }

    fn record_hit(&self, path: &str) {
        self.hits.send_modify(|met| met.push(path.to_owned()));
    }
}

/// Uses the API server's certificate, which has this address, too.
fn server_config(pki: &Pki) -> Result<ServerConfig> {
    let certificate =
        CertificateDer::from_pem_file(&pki.apiserver.certificate).context("the API server's certificate")?;
    let key = PrivateKeyDer::from_pem_file(&pki.apiserver.key).context("the API server's key")?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().context("cannot set up TLS for the proxy")?;
    config.with_no_client_auth().with_single_cert(vec![certificate], key).context("cannot set up TLS for the proxy")
}

fn client_config(pki: &Pki) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&pki.authority).context("the authority's certificate")?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().context("cannot set up TLS for the proxy")?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
