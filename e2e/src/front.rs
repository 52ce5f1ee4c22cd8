//! A front before the API server that spoils what passes through it, as API servers, balancers and networks do on bad days.
//!
//! ```no_run
//! # async fn example(cluster: &portico_e2e::cluster::Cluster) -> anyhow::Result<()> {
//! use portico_e2e::front::{Fault, Front, Requests};
//!
//! let front = Front::start(cluster).await?;
//! // … Portico runs with --kubeconfig front.kubeconfig() …
//! front.spoil(Requests::Watches, Fault::Status(500));
//! front.met(3).await?;
//! front.mend();
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

/// A running front. Dropping it ends it, and every connection through it.
#[derive(Debug)]
pub struct Front {
    shared: Arc<Shared>,
    kubeconfig: PathBuf,
    token: PathBuf,
    _server: JoinSet<()>,
}

/// Which requests a fault befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requests {
    All,
    Watches,
    /// Everything that changes something.
    Writes,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this status, as the API server does.
    Status(u16),
    /// 429, with the wait in the header alone, as where there is not even time for a `Status`.
    Busy { seconds: u32 },
    /// 429, with the wait in a `Status`, too.
    BusyByStatus { seconds: u32 },
    /// For watches: it begins, and says by an event that its version is no more.
    Gone,
    /// The answer begins, and breaks off after its first piece.
    Cut,
    /// The request is taken, and never answered.
    Silence,
    /// The connection is taken, and there is not even a handshake.
    Deaf,
    /// 401 to whoever does not show this token.
    Unless(String),
}

#[derive(Debug)]
struct Shared {
    fault: Mutex<Option<(Requests, Fault)>>,
    /// The paths of requests that the fault has befallen. Of connections it is not known.
    met: watch::Sender<Vec<String>>,
    /// Changes when open connections have to end.
    cut: watch::Sender<()>,
    upstream: Arc<ClientConfig>,
}

/// How long a fault may take to be met: as long as the longest pause between two tries.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a watch that is to be cut may say nothing.
const FIRST_PIECE: Duration = Duration::from_millis(50);

impl Front {
    /// Starts it, with a kubeconfig that leads through it and logs in as Portico's ServiceAccount. Has to be called in the
    /// cluster's network.
    pub async fn start(cluster: &Cluster) -> Result<Front> {
        portico::install(cluster).await?;
        let listener = TcpListener::bind((ADDRESS, 0)).await.context("no port for the front")?;
        let address = listener.local_addr()?;
        let pki = cluster.pki();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(pki)?));
        let shared = Arc::new(Shared {
            fault: Mutex::default(),
            met: watch::Sender::default(),
            cut: watch::Sender::new(()),
            upstream: Arc::new(client_config(pki)?),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, acceptor, shared.clone()));
        let token = cluster.folder().join(format!("front-{}.token", address.port()));
        let kubeconfig = token.with_extension("kubeconfig");
        write_kubeconfig(&kubeconfig, &format!("https://{address}"), &pki.authority, Credentials::TokenFile(&token))?;
        let front = Front { shared, kubeconfig, token, _server: tasks };
        front.write_token(&new_token(cluster).await?)?;
        Ok(front)
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Writes the token by which whoever uses the kubeconfig logs in.
    pub fn write_token(&self, token: &str) -> Result<()> {
        // In one step: half a token is none.
        let new = self.token.with_extension("new");
        fs::write(&new, token).and_then(|()| fs::rename(new, &self.token)).context("cannot write the token")
    }

    /// Spoils these requests from now on, instead of whatever was spoiled before. Open connections end, so that nothing
    /// goes on past it.
    pub fn spoil(&self, requests: Requests, fault: Fault) {
        *self.shared.fault.lock() = Some((requests, fault));
        self.shared.met.send_replace(Vec::new());
        self.shared.cut.send_replace(());
    }

    /// Spoils nothing more. Who waits for an answer waits on: it will not come.
    pub fn mend(&self) {
        *self.shared.fault.lock() = None;
    }

    /// Waits until the fault has befallen so many requests, or connections.
    pub async fn met(&self, times: usize) -> Result<()> {
        self.until(|met| met.len() >= times).await.with_context(|| format!("the fault was not met {times} times"))
    }

    /// Waits until the fault has befallen a request for these objects: `httproutes`.
    pub async fn met_by(&self, plural: &str) -> Result<()> {
        let about = |met: &Vec<String>| met.iter().any(|path| path.split('/').any(|part| part == plural));
        self.until(about).await.with_context(|| format!("the fault was not met by a request for {plural}"))
    }

    async fn until(&self, done: impl FnMut(&Vec<String>) -> bool) -> Result<()> {
        let mut met = self.shared.met.subscribe();
        let waited = timeout(PATIENCE, met.wait_for(done)).await;
        waited.with_context(|| format!("after {} s: {self:?}", PATIENCE.as_secs()))?.map(drop).context("it is there")
    }
}

/// Another token of Portico's ServiceAccount.
pub async fn new_token(cluster: &Cluster) -> Result<String> {
    let arguments = ["create", "token", SERVICE_ACCOUNT, "--namespace", NAMESPACE, "--duration=24h"];
    Ok(cluster.kubectl(&arguments).await?.trim().to_owned())
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        // No more files, most likely: some are given back in a moment.
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        connections.spawn(async move {
            let mut cut = shared.cut.subscribe();
            tokio::select! {
                () = converse(stream, acceptor, shared) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn converse(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    if shared.fault.lock().as_ref().is_some_and(|(_, fault)| *fault == Fault::Deaf) {
        shared.meets("");
        return std::future::pending().await;
    }
    // Whoever breaks off has no use for an answer.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request| answer(request, shared.clone()));
    drop(server::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

type Answer = Response<BoxBody<Bytes, io::Error>>;

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Answer> {
    let fault = shared.fault_of(&request);
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match fault {
        None => forward(request, &shared).await,
        Some(Fault::Unless(expected)) if token == Some(&expected) => forward(request, &shared).await,
        Some(fault) => {
            shared.meets(request.uri().path());
            spoiled(fault, request, &shared).await
        }
    }
}

async fn spoiled(fault: Fault, request: Request<Incoming>, shared: &Shared) -> Result<Answer> {
    match fault {
        Fault::Status(code) => status(code, "as a scenario has it", 0),
        Fault::BusyByStatus { seconds } => status(429, "too many requests, please try again later", seconds),
        Fault::Busy { seconds } => {
            let body = Full::new(Bytes::from("Too many requests, please try again later.\n"));
            let answer = Response::builder().status(429).header(RETRY_AFTER, seconds);
            Ok(answer.body(body.map_err(|never| match never {}).boxed())?)
        }
        Fault::Gone => {
            let event = json!({ "type": "ERROR", "object": body_of(410, "too old resource version", 0) });
            let body = Full::new(Bytes::from(format!("{event}\n"))).map_err(|never| match never {});
            Ok(Response::builder().header(CONTENT_TYPE, "application/json").body(body.boxed())?)
        }
        Fault::Cut => {
            let (head, body) = forward(request, shared).await?.into_parts();
            let mut pieces = body.into_data_stream();
            let first = timeout(FIRST_PIECE, pieces.next()).await.ok().flatten();
            let first = first.map(|piece| piece.map(Frame::data));
            let pieces = stream::iter(first).chain(stream::iter([Err(io::Error::other("cut"))]));
            Ok(Response::from_parts(head, BodyExt::boxed(StreamBody::new(pieces))))
        }
        Fault::Unless(_) => status(401, "Unauthorized", 0),
        Fault::Silence | Fault::Deaf => std::future::pending().await,
    }
}

fn status(code: u16, message: &str, seconds: u32) -> Result<Answer> {
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

/// Passes a request on as it is, on a connection of its own.
async fn forward(request: Request<Incoming>, shared: &Shared) -> Result<Answer> {
    let stream = TcpStream::connect(API_SERVER).await.context("no connection to the API server")?;
    stream.set_nodelay(true)?;
    let name = ServerName::from(std::net::IpAddr::V4(ADDRESS));
    let stream = TlsConnector::from(shared.upstream.clone()).connect(name, stream).await?;
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, or when nobody waits for it any more.
    tokio::spawn(async move { drop(connection.await) });
    let answer = sender.send_request(request).await.context("the API server does not answer")?;
    Ok(answer.map(|body| body.map_err(io::Error::other).boxed()))
}

impl Shared {
    /// What befalls this request, if anything.
    fn fault_of(&self, request: &Request<Incoming>) -> Option<Fault> {
        let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
        let fault = self.fault.lock();
        let (requests, fault) = fault.as_ref()?;
        let meant = match requests {
            Requests::All => true,
            Requests::Watches => watches,
            Requests::Writes => writes,
        };
        meant.then(|| fault.clone())
    }

    fn meets(&self, path: &str) {
        self.met.send_modify(|met| met.push(path.to_owned()));
    }
}

/// With the API server's own certificate, which has our address.
fn server_config(pki: &Pki) -> Result<ServerConfig> {
    let certificate =
        CertificateDer::from_pem_file(&pki.apiserver.certificate).context("the API server's certificate")?;
    let key = PrivateKeyDer::from_pem_file(&pki.apiserver.key).context("the API server's key")?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().context("cannot set up TLS for the front")?;
    config.with_no_client_auth().with_single_cert(vec![certificate], key).context("cannot set up TLS for the front")
}

fn client_config(pki: &Pki) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&pki.authority).context("the authority's certificate")?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().context("cannot set up TLS for the front")?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
