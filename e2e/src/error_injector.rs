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

use anyhow::{Context, Result, ensure};
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
    token_file: PathBuf,
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
    /// The response comes after this delay.
    Delay(Duration),
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
    /// Paths of requests that hit the error; empty strings for connections without a TLS handshake.
    hits: watch::Sender<Vec<String>>,
    /// Changes when open connections must close.
    disconnect: watch::Sender<()>,
    upstream: Arc<ClientConfig>,
}

/// How long to wait for a request that hits the error: longer than the longest back-off, also on a busy machine.
const HIT_TIMEOUT: Duration = Duration::from_secs(120);
/// How long to wait for the first chunk of a response that will be cut. A watch without events has none.
const FIRST_CHUNK_TIMEOUT: Duration = Duration::from_millis(50);

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
            disconnect: watch::Sender::new(()),
            upstream: Arc::new(client_config(pki)?),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, acceptor, shared.clone()));
        let token_file = cluster.folder().join(format!("error-injector-{}.token", address.port()));
        let kubeconfig = token_file.with_extension("kubeconfig");
        write_kubeconfig(
            &kubeconfig,
            &format!("https://{address}"),
            &pki.authority,
            Credentials::TokenFile(&token_file),
        )?;
        let injector = ErrorInjector { shared, kubeconfig, token_file, _server: tasks };
        injector.write_token(&new_token(cluster).await?)?;
        Ok(injector)
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Replaces the token of the kubeconfig.
    pub fn write_token(&self, token: &str) -> Result<()> {
        // Atomically, so that no incomplete token is read.
        let new_file = self.token_file.with_extension("new");
        fs::write(&new_file, token)
            .and_then(|()| fs::rename(new_file, &self.token_file))
            .context("cannot write the token")
    }

    /// Injects this error into these requests, instead of the previous one. Open connections are closed, so that no
    /// request bypasses it.
    pub fn inject(&self, requests: Requests, error: InjectedError) {
        // Locked until all connections are marked as closing: requests on them are no hits.
        let mut injected = self.shared.injected.lock();
        *injected = Some((requests, error));
        self.shared.hits.send_replace(Vec::new());
        self.shared.disconnect.send_replace(());
    }

    /// Stops injecting errors. Requests that already hang keep hanging.
    pub fn clear(&self) {
        *self.shared.injected.lock() = None;
    }

    /// Stops injecting errors and closes all connections, also those of requests that hang.
    pub fn clear_and_disconnect(&self) {
        self.clear();
        self.shared.disconnect.send_replace(());
    }

    /// Waits until this number of requests or connections has hit the error.
    pub async fn wait_for_hits(&self, times: usize) -> Result<()> {
        self.wait_until(|hits| hits.len() >= times)
            .await
            .with_context(|| format!("the injected error was not hit {times} times"))
    }

    /// Waits until a request for these objects, such as `httproutes`, has hit the error.
    pub async fn wait_for_hit_by(&self, plural: &str) -> Result<()> {
        let is_for_plural =
            |hits: &Vec<String>| hits.iter().any(|path| path.split('/').any(|segment| segment == plural));
        self.wait_until(is_for_plural).await.with_context(|| format!("no request for {plural} hit the injected error"))
    }

    async fn wait_until(&self, condition: impl FnMut(&Vec<String>) -> bool) -> Result<()> {
        let mut hits = self.shared.hits.subscribe();
        let waited = timeout(HIT_TIMEOUT, hits.wait_for(condition)).await;
        waited
            .with_context(|| format!("after {} s: {self:?}", HIT_TIMEOUT.as_secs()))?
            .map(drop)
            .context("the sender is gone")
    }
}

/// Creates another token for Portico's ServiceAccount.
pub async fn new_token(cluster: &Cluster) -> Result<String> {
    let arguments = ["create", "token", SERVICE_ACCOUNT, "--namespace", NAMESPACE, "--duration=24h"];
    Ok(cluster.kubectl(&arguments).await?.trim().to_owned())
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<ProxyState>) {
    let mut connections = JoinSet::new();
    loop {
        // An error is most likely a lack of file descriptors, which become free shortly.
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        connections.spawn(async move {
            let disconnect = shared.disconnect.subscribe();
            let mut disconnected = disconnect.clone();
            tokio::select! {
                () = serve_connection(stream, acceptor, shared, &disconnect) => {}
                _ = disconnected.changed() => {}
            }
        });
    }
}

async fn serve_connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    shared: Arc<ProxyState>,
    disconnect: &watch::Receiver<()>,
) {
    if shared.prevents_handshake() {
        return std::future::pending().await;
    }
    // The client sees the failed handshake.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request| respond(request, &shared, disconnect));
    drop(server::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

type ProxyResponse = Response<BoxBody<Bytes, io::Error>>;

async fn respond(
    request: Request<Incoming>,
    shared: &ProxyState,
    disconnect: &watch::Receiver<()>,
) -> Result<ProxyResponse> {
    match shared.hit_by(&request, disconnect)? {
        None => forward(request, shared).await,
        Some(error) => respond_with_error(error, request, shared).await,
    }
}

async fn respond_with_error(
    error: InjectedError,
    request: Request<Incoming>,
    shared: &ProxyState,
) -> Result<ProxyResponse> {
    match error {
        InjectedError::Status(code) => status_response(code, "injected by a test", NO_RETRY_AFTER),
        InjectedError::BusyByStatus { seconds } => {
            status_response(429, "too many requests, please try again later", seconds)
        }
        InjectedError::Busy { seconds } => {
            let body = Full::new(Bytes::from("Too many requests, please try again later.\n"));
            let response = Response::builder().status(429).header(RETRY_AFTER, seconds);
            Ok(response.body(body.map_err(|never| match never {}).boxed())?)
        }
        InjectedError::Gone => {
            let event =
                json!({ "type": "ERROR", "object": status_body(410, "too old resource version", NO_RETRY_AFTER) });
            let body = Full::new(Bytes::from(format!("{event}\n"))).map_err(|never| match never {});
            Ok(Response::builder().header(CONTENT_TYPE, "application/json").body(body.boxed())?)
        }
        InjectedError::Cut => {
            let (head, body) = forward(request, shared).await?.into_parts();
            let mut chunks = body.into_data_stream();
            let first_chunk = timeout(FIRST_CHUNK_TIMEOUT, chunks.next()).await.ok().flatten();
            let first_chunk = first_chunk.map(|chunk| chunk.map(Frame::data));
            let chunks = stream::iter(first_chunk).chain(stream::iter([Err(io::Error::other("cut"))]));
            Ok(Response::from_parts(head, BodyExt::boxed(StreamBody::new(chunks))))
        }
        InjectedError::Delay(delay) => {
            sleep(delay).await;
            forward(request, shared).await
        }
        InjectedError::RequireToken(_) => status_response(401, "Unauthorized", NO_RETRY_AFTER),
        InjectedError::NoResponse | InjectedError::NoHandshake => std::future::pending().await,
    }
}

/// No delay for the client in a response with an error.
const NO_RETRY_AFTER: u32 = 0;

/// A response like the API server's, with a `Status` body. `retry_after` is in seconds.
fn status_response(code: u16, message: &str, retry_after: u32) -> Result<ProxyResponse> {
    let body =
        Full::new(Bytes::from(status_body(code, message, retry_after).to_string())).map_err(|never| match never {});
    let mut response = Response::builder().status(code).header(CONTENT_TYPE, "application/json");
    if retry_after != NO_RETRY_AFTER {
        response = response.header(RETRY_AFTER, retry_after);
    }
    Ok(response.body(body.boxed())?)
}

fn status_body(code: u16, message: &str, retry_after: u32) -> serde_json::Value {
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code,
    });
    if retry_after != NO_RETRY_AFTER {
        status["details"] = json!({ "retryAfterSeconds": retry_after });
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
    // The task ends with the response, or when `sender` and the response are dropped.
    tokio::spawn(async move { drop(connection.await) });
    let response = sender.send_request(request).await.context("the API server does not respond")?;
    Ok(response.map(|body| body.map_err(io::Error::other).boxed()))
}

impl ProxyState {
    /// The injected error that applies to this request, if any, which counts as a hit. Fails if the connection is about
    /// to be closed, since the client might not receive the response.
    fn hit_by(&self, request: &Request<Incoming>, disconnect: &watch::Receiver<()>) -> Result<Option<InjectedError>> {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let is_write = !matches!(*request.method(), Method::GET | Method::HEAD);
        let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let injected = self.injected.lock();
        ensure!(!disconnect.has_changed()?, "the connection is about to be closed");
        let Some((requests, error)) = injected.as_ref() else { return Ok(None) };
        let applies = match requests {
            Requests::All => true,
            Requests::Watches => is_watch,
            Requests::Writes => is_write,
        };
        let is_authorized = matches!(error, InjectedError::RequireToken(expected) if token == Some(expected));
        if !applies || is_authorized {
            return Ok(None);
        }
        self.record_hit(request.uri().path());
        Ok(Some(error.clone()))
    }

    /// Whether the injected error prevents handshakes. A connection that it applies to counts as a hit.
    fn prevents_handshake(&self) -> bool {
        let injected = self.injected.lock();
        let prevents = injected.as_ref().is_some_and(|(_, error)| *error == InjectedError::NoHandshake);
        if prevents {
            self.record_hit("");
        }
        prevents
    }

    fn record_hit(&self, path: &str) {
        self.hits.send_modify(|hits| hits.push(path.to_owned()));
    }
}

/// TLS for clients of the proxy. The API server's certificate is valid for the proxy's address as well.
fn server_config(pki: &Pki) -> Result<ServerConfig> {
    let certificate =
        CertificateDer::from_pem_file(&pki.apiserver.certificate).context("the API server's certificate")?;
    let key = PrivateKeyDer::from_pem_file(&pki.apiserver.key).context("the API server's key")?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().context("cannot set up TLS for the proxy")?;
    config.with_no_client_auth().with_single_cert(vec![certificate], key).context("cannot set up TLS for the proxy")
}

/// TLS for connections to the API server.
fn client_config(pki: &Pki) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&pki.authority).context("the authority's certificate")?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().context("cannot set up TLS for the proxy")?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
