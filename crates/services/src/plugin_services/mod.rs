//! Connections of plugins to remote servers, such as JWKS issuers and Redis, and the plugins' background tasks. All run
//! on the control runtime.
//!
//! ```text
//!   name ─▶ a Service of the store? its endpoints ─▶ connect ─▶ TLS ─▶ Stream, or HTTP by `RemoteClient`
//!              └ otherwise DNS ────────────────────────┘
//! ```

mod client_shares;
mod connection_limits;
mod datagrams;
mod metadata_endpoints;
mod name_resolver;
mod tls;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::StatusCode;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use connection_limits::{ConnectionLimits, PermittedStream, RequestPermit};
use metadata_endpoints::MetadataEndpoints;
use name_resolver::NameResolver;
pub use name_resolver::ServiceLookup;
use tls::{Alpn, TlsConnectors};

use crate::diagnostic::Diagnostic;
use crate::endpoint_tls::UpstreamTlsSettings;
use crate::plugin_api::aws_environment::AwsEnvironment;
use crate::plugin_api::http_proxy::ProxyRoute;
use crate::plugin_api::server_text::shorten;
use crate::plugin_api::{
    ClientRequestFailure, PluginServices, Remote, RemoteDatagrams, RemoteFailure, RemoteRequest, RemoteResponse,
    RemoteStream, SharedKeys, StreamedResponse,
};
use crate::plugin_kit::idle_connections::IdleConnections;
use crate::plugin_kit::remote_client::{RemoteClient, RemoteConnector};
use crate::shared_limit::Held;
use crate::ssrf_guard::{AddressPolicy, TrustModel};
use crate::upstream::OwnSockets;

/// What plugins can use: tasks, connections to servers, and error reports.
pub struct OnlineServices {
    runtime: Handle,
    connector: Arc<ServerConnector>,
    client: RemoteClient,
    diagnostics: Arc<PluginDiagnostics>,
    /// With a cluster.
    keys: Option<Arc<SharedKeys>>,
    identity: MachineIdentity,
    /// Connects to the endpoints of this machine that have its credentials.
    metadata: RemoteClient,
}

/// What plugins and vaults may do with the identity of this Pod or machine.
#[derive(Default)]
pub struct MachineIdentity {
    /// The identity at AWS, if plugins may act with it.
    pub aws: Option<Arc<AwsEnvironment>>,
    /// Whether vaults may act with the identity at Google Cloud.
    pub google: bool,
}

/// Resolves and connects to a server.
#[derive(Clone)]
struct ServerConnector {
    names: Arc<NameResolver>,
    /// The sockets to which no connections are opened.
    own_sockets: Arc<OwnSockets>,
    limits: Arc<ConnectionLimits>,
    tls: TlsConnectors,
}

/// Errors that running plugins report about the objects that configure them, until the plugins withdraw them.
#[derive(Default)]
pub struct PluginDiagnostics {
    /// By object, `KongPlugin/default/limit`.
    by_object: Mutex<BTreeMap<String, Diagnostic>>,
    changed: Notify,
}

impl PluginDiagnostics {
    /// Waits for a new report.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    pub fn snapshot(&self) -> BTreeMap<String, Diagnostic> {
        self.by_object.lock().clone()
    }
}

impl OnlineServices {
    /// Uses the current runtime for all tasks. The control loop must respond to the returned lookups of Services.
    /// `max_connections`: the limit of connections of all plugins together. `keys`: those of all replicas.
    pub fn start(
        trust: &TrustModel,
        own_sockets: Arc<OwnSockets>,
        max_connections: usize,
        keys: Option<Arc<SharedKeys>>,
        identity: MachineIdentity,
    ) -> anyhow::Result<(Self, tokio::sync::mpsc::Receiver<ServiceLookup>)> {
        let (names, lookups) = NameResolver::new(trust);
        let idle = IdleConnections::default();
        let limits = Arc::new(ConnectionLimits::new(max_connections, idle.clone()));
        let tls = TlsConnectors::new()?;
        let connector = Arc::new(ServerConnector { names: Arc::new(names), own_sockets, limits, tls });
        let client = RemoteClient::with_idle(Arc::clone(&connector) as _, idle);
        let metadata = RemoteClient::new(Arc::new(MetadataEndpoints));
        let (runtime, diagnostics) = (Handle::current(), Arc::default());
        Ok((OnlineServices { runtime, connector, client, diagnostics, keys, identity, metadata }, lookups))
    }

    pub fn diagnostics(&self) -> Arc<PluginDiagnostics> {
        Arc::clone(&self.diagnostics)
    }

    fn connect_with(&self, server: Remote, alpn: Alpn) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        let connector = Arc::clone(&self.connector);
        let connecting = self.begin(async move {
            let connected = connector.connect_in_time(&server, alpn).await;
            connected.map_err(|failure| shorten(&failure.into_message()).into_owned())
        });
        async move { connecting.await.unwrap_or_else(|_| Err("connecting has failed".to_owned())) }.boxed()
    }

    /// Begins a call on the threads of the control side, where the idle connections are. It ends when its caller is
    /// gone: when the receiver of the outcome is dropped.
    fn begin<T: Send + 'static>(&self, call: impl Future<Output = T> + Send + 'static) -> oneshot::Receiver<T> {
        let (mut sender, receiver) = oneshot::channel();
        self.runtime.spawn(async move {
            let outcome = tokio::select! {
                outcome = call => outcome,
                () = sender.closed() => return,
            };
            drop(sender.send(outcome));
        });
        receiver
    }
}

impl PluginServices for OnlineServices {
    fn address_policy(&self) -> AddressPolicy {
        self.connector.names.address_policy().clone()
    }

    fn resolves_short_names(&self) -> bool {
        self.connector.names.resolves_short_names()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }

    fn shared_keys(&self) -> Option<Arc<SharedKeys>> {
        self.keys.clone()
    }

    fn aws_environment(&self) -> Option<Arc<AwsEnvironment>> {
        self.identity.aws.clone()
    }

    fn allows_google_identity(&self) -> bool {
        self.identity.google
    }

    fn send_to_metadata(&self, request: RemoteRequest) -> BoxFuture<'static, Result<RemoteResponse, String>> {
        if self.identity.aws.is_none() && !self.identity.google {
            return async { Err("plugins may not use the credentials of this machine".to_owned()) }.boxed();
        }
        let client = self.metadata.clone();
        let sending = self.runtime.spawn(async move { client.send(request).await });
        async move { sending.await.unwrap_or_else(|error| Err(format!("sending has failed: {error}"))) }.boxed()
    }

    fn send(&self, request: RemoteRequest) -> BoxFuture<'static, Result<RemoteResponse, String>> {
        let (client, limits) = (self.client.clone(), Arc::clone(&self.connector.limits));
        let sending = self.begin(async move {
            let permit = limits.request(request.remote.share(), request.timeout).await?;
            send_permitted(&client, request, permit).await
        });
        async move { sending.await.unwrap_or_else(|_| Err(SENDING_FAILED.to_owned())) }.boxed()
    }

    fn send_for_client(
        &self,
        address: IpAddr,
        request: RemoteRequest,
    ) -> BoxFuture<'static, Result<RemoteResponse, ClientRequestFailure>> {
        let (client, limits) = (self.client.clone(), Arc::clone(&self.connector.limits));
        let sending = self.begin(async move {
            let permit = limits.request_of_client(request.remote.share(), address, request.timeout).await?;
            send_permitted(&client, request, permit).await.map_err(ClientRequestFailure::Failed)
        });
        let ended = || Err(ClientRequestFailure::Failed(SENDING_FAILED.to_owned()));
        async move { sending.await.unwrap_or_else(|_| ended()) }.boxed()
    }

    fn send_in_place_of_backend(
        &self,
        address: IpAddr,
        request: RemoteRequest,
        route: Option<ProxyRoute>,
    ) -> BoxFuture<'static, Result<StreamedResponse, RemoteFailure>> {
        let (client, limits) = (self.client.clone(), Arc::clone(&self.connector.limits));
        let sending = self.begin(async move {
            let permit = limits.request_in_place_of_backend(request.remote.share(), address, request.timeout).await;
            client.stream(request, route, permit.map_err(RemoteFailure::Busy)?).await
        });
        let ended = || Err(RemoteFailure::NoResponse(SENDING_FAILED.to_owned()));
        async move { sending.await.unwrap_or_else(|_| ended()) }.boxed()
    }

    fn connect(&self, server: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        self.connect_with(server, Alpn::None)
    }

    fn connect_http2(&self, server: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        self.connect_with(server, Alpn::Http2)
    }

    fn connect_datagrams(&self, server: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteDatagrams>, String>> {
        let connector = Arc::clone(&self.connector);
        let opening = self.runtime.spawn(async move {
            let opened = connector.open_datagrams_in_time(&server).await;
            opened.map_err(|error| shorten(&error).into_owned())
        });
        async move { opening.await.unwrap_or_else(|error| Err(format!("opening a socket has failed: {error}"))) }
            .boxed()
    }

    fn start_tls(
        &self,
        stream: Box<dyn RemoteStream>,
        server: Remote,
    ) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        let connector = Arc::clone(&self.connector);
        async move {
            let started = timeout(server.timeout, connector.secure(stream, &server, Alpn::None)).await;
            let timed_out = || Err(format!("{}:{}: no TLS within {:?}", server.host, server.port, server.timeout));
            started.unwrap_or_else(|_| timed_out()).map_err(|error| shorten(&error).into_owned())
        }
        .boxed()
    }

    fn report(&self, object: &str, diagnostic: Option<Diagnostic>) {
        let mut by_object = self.diagnostics.by_object.lock();
        let before = match &diagnostic {
            Some(diagnostic) => by_object.insert(object.to_owned(), diagnostic.clone()),
            None => by_object.remove(object),
        };
        if before != diagnostic {
            self.diagnostics.changed.notify_one();
        }
    }
}

impl RemoteConnector for ServerConnector {
    fn connect(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, RemoteFailure>> {
        let connector = self.clone();
        async move { connector.connect_in_time(&remote, Alpn::None).await }.boxed()
    }

    fn connect_through(
        &self,
        remote: Remote,
        route: ProxyRoute,
    ) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, RemoteFailure>> {
        let connector = self.clone();
        async move { connector.connect_through_in_time(&remote, &route).await }.boxed()
    }

    fn became_idle(&self, namespace: &str) {
        self.limits.became_idle(namespace);
    }
}

impl ServerConnector {
    async fn connect_in_time(&self, server: &Remote, alpn: Alpn) -> Result<Box<dyn RemoteStream>, RemoteFailure> {
        let permit = self.limits.connection(server.share(), server.timeout).await;
        let busy = |error: String| RemoteFailure::Busy(format!("{}:{}: {error}", server.host, server.port));
        let opening = self.open(server, permit.map_err(busy)?, alpn);
        let timed_out = || Err(format!("{}:{}: no connection within {:?}", server.host, server.port, server.timeout));
        let opened = timeout(server.timeout, opening).await.unwrap_or_else(|_| timed_out());
        opened.map_err(RemoteFailure::Unreachable)
    }

    async fn connect_through_in_time(
        &self,
        server: &Remote,
        route: &ProxyRoute,
    ) -> Result<Box<dyn RemoteStream>, RemoteFailure> {
        let proxy = route.proxy_for(server);
        let address = format!("{}:{}", proxy.host, proxy.port);
        let permit = self.limits.connection(proxy.share(), proxy.timeout).await;
        let permit = permit.map_err(|error| RemoteFailure::Busy(format!("{address}: {error}")))?;
        let opening = async {
            let mut stream = self.open(proxy, permit, Alpn::None).await?;
            if server.tls.is_none() {
                return Ok(stream);
            }
            let opened = route.open_tunnel(&mut stream, server).await;
            opened.map_err(|error| format!("{address}: {error}"))?;
            match &route.tls {
                Some(settings) => self.secure_as_backend(stream, server, settings).await,
                None => self.secure(stream, server, Alpn::None).await,
            }
        };
        let timed_out = || Err(format!("{address}: no connection within {:?}", proxy.timeout));
        let opened = timeout(proxy.timeout, opening).await.unwrap_or_else(|_| timed_out());
        opened.map_err(|error| RemoteFailure::Unreachable(shorten(&error).into_owned()))
    }

    async fn open_datagrams_in_time(&self, server: &Remote) -> Result<Box<dyn RemoteDatagrams>, String> {
        let address = format!("{}:{}", server.host, server.port);
        let opening = async {
            // A socket counts as a connection: both are file descriptors.
            let permit = self.limits.connection(server.share(), server.timeout).await?;
            let addresses = self.names.resolve(server).await?;
            let socket = datagrams::connect_first(&addresses, &self.own_sockets, permit).await;
            socket.map_err(|error| error.to_string())
        };
        let opened = timeout(server.timeout, opening).await;
        let opened = opened.unwrap_or_else(|_| Err(format!("no address within {:?}", server.timeout)));
        opened.map_err(|error| format!("{address}: {error}"))
    }

    async fn open(&self, server: &Remote, permit: Held, alpn: Alpn) -> Result<Box<dyn RemoteStream>, String> {
        let address = format!("{}:{}", server.host, server.port);
        let addresses = self.names.resolve(server).await.map_err(|error| format!("{address}: {error}"))?;
        let socket =
            self.connect_first(&addresses).await.map_err(|error| format!("{address}: cannot connect: {error}"))?;
        // Requests and responses are short and alternate, which suits TCP_NODELAY.
        socket.set_nodelay(true).map_err(|error| format!("{address}: {error}"))?;
        self.secure(PermittedStream::new(socket, permit), server, alpn).await
    }

    /// The stream with TLS, if the server has settings of it.
    async fn secure<S: RemoteStream + 'static>(
        &self,
        stream: S,
        server: &Remote,
        alpn: Alpn,
    ) -> Result<Box<dyn RemoteStream>, String> {
        let Some(tls) = &server.tls else { return Ok(Box::new(stream)) };
        let name = tls.server_name.as_deref().unwrap_or(&server.host);
        let stream = self.tls.connect(stream, name, tls, alpn).await;
        let failed = |error| format!("{}:{}: TLS handshake failed: {error}", server.host, server.port);
        Ok(Box::new(stream.map_err(failed)?))
    }

    /// The stream with the TLS of a backend: its trust, the names that it requires, and its client certificate.
    async fn secure_as_backend<S: RemoteStream + 'static>(
        &self,
        stream: S,
        server: &Remote,
        settings: &UpstreamTlsSettings,
    ) -> Result<Box<dyn RemoteStream>, String> {
        let name = server.tls.as_ref().and_then(|tls| tls.server_name.as_deref()).unwrap_or(&server.host);
        let failed = |error| format!("{}:{}: TLS handshake failed: {error}", server.host, server.port);
        let name_of_server = ServerName::try_from(name.to_owned())
            .map_err(|_| failed(io::Error::other(format!("{name:?} is not a valid server name"))))?;
        let connector = TlsConnector::from(settings.library_config());
        Ok(Box::new(connector.connect(name_of_server, stream).await.map_err(failed)?))
    }

    /// Connects to the first address that accepts, and is not an own listener.
    async fn connect_first(&self, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let mut last_error = io::Error::other("the host has no address");
        for address in addresses {
            match self.connect_to(*address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.own_sockets.check(address).map_err(io::Error::other)?;
        let connected = TcpStream::connect(address).await;
        let socket = connected.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
        let local = || socket.local_addr().ok().map(|local| local.ip());
        self.own_sockets.check_connected(address, local).map_err(io::Error::other)?;
        Ok(socket)
    }
}

/// Sends a request, and keeps the permit for a moment longer if there is no result.
async fn send_permitted(
    client: &RemoteClient,
    request: RemoteRequest,
    permit: RequestPermit,
) -> Result<RemoteResponse, String> {
    let outcome = client.send(request).await;
    if outcome.as_ref().is_ok_and(|response| is_result(response.status)) {
        permit.release();
    }
    outcome.map_err(|error| shorten(&error).into_owned())
}

/// The error of a request whose task has ended without an outcome.
const SENDING_FAILED: &str = "sending has failed";

/// Whether a request with this response has not failed. A server that decides about requests of clients redirects those
/// that it does not know to a login page, or denies them, so these statuses are as frequent as clients want.
fn is_result(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection() || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

#[cfg(test)]
mod tests;
