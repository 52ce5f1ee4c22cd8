//! Connections of plugins to remote servers, such as JWKS issuers and Redis, and the plugins' background tasks. All run
//! on the control runtime.
//!
//! ```text
//!   name ─▶ a Service of the store? its endpoints ─▶ connect ─▶ TLS ─▶ Stream, or one GET
//!              └ otherwise DNS ────────────────────────┘
//! ```

mod name_resolver;
mod tls;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;

use name_resolver::NameResolver;
pub(super) use name_resolver::ServiceLookup;
use tls::TlsConnectors;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::{FetchResponse, PluginServices, Remote, RemoteStream, RemoteTls};
use crate::upstream::LoopbackPolicy;

/// What plugins can use: tasks, connections to servers, and error reports.
pub(super) struct OnlineServices {
    runtime: Handle,
    connector: Arc<ServerConnector>,
    diagnostics: Arc<PluginDiagnostics>,
}

/// Resolves and connects to a server.
struct ServerConnector {
    names: NameResolver,
    tls: TlsConnectors,
}

/// Errors that running plugins report about the objects that configure them, until the plugins withdraw them.
#[derive(Default)]
pub(super) struct PluginDiagnostics {
    /// By object, `KongPlugin/default/limit`.
    by_object: Mutex<BTreeMap<String, Diagnostic>>,
    changed: Notify,
}

impl PluginDiagnostics {
    /// Waits for a new report.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn snapshot(&self) -> BTreeMap<String, Diagnostic> {
        self.by_object.lock().clone()
    }
}

impl OnlineServices {
    /// Uses the current runtime for all tasks. The control loop must respond to the returned lookups of Services.
    pub(super) fn start(
        loopback: LoopbackPolicy,
    ) -> anyhow::Result<(Self, tokio::sync::mpsc::Receiver<ServiceLookup>)> {
        let (names, lookups) = NameResolver::new(loopback);
        let connector = Arc::new(ServerConnector { names, tls: TlsConnectors::new()? });
        Ok((OnlineServices { runtime: Handle::current(), connector, diagnostics: Arc::default() }, lookups))
    }

    pub(super) fn diagnostics(&self) -> Arc<PluginDiagnostics> {
        Arc::clone(&self.diagnostics)
    }
}

impl PluginServices for OnlineServices {
    fn loopback(&self) -> LoopbackPolicy {
        self.connector.names.loopback()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }

    fn fetch(
        &self,
        uri: &str,
        time_limit: Duration,
        max_bytes: usize,
    ) -> BoxFuture<'static, Result<FetchResponse, String>> {
        let (connector, uri) = (Arc::clone(&self.connector), uri.to_owned());
        let fetching = self.runtime.spawn(async move {
            let timed_out = || Err(format!("{uri}: no response within {time_limit:?}"));
            timeout(time_limit, connector.fetch(&uri, time_limit, max_bytes)).await.unwrap_or_else(|_| timed_out())
        });
        async move { fetching.await.unwrap_or_else(|error| Err(format!("fetching has failed: {error}"))) }.boxed()
    }

    fn connect(&self, server: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        let connector = Arc::clone(&self.connector);
        let connecting = self.runtime.spawn(async move {
            let timed_out =
                || Err(format!("{}:{}: no connection within {:?}", server.host, server.port, server.timeout));
            timeout(server.timeout, connector.connect(&server)).await.unwrap_or_else(|_| timed_out())
        });
        async move { connecting.await.unwrap_or_else(|error| Err(format!("connecting has failed: {error}"))) }.boxed()
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

impl ServerConnector {
    async fn connect(&self, server: &Remote) -> Result<Box<dyn RemoteStream>, String> {
        let address = format!("{}:{}", server.host, server.port);
        let addresses = self.names.resolve(server).await.map_err(|error| format!("{address}: {error}"))?;
        let socket = connect_first(&addresses).await.map_err(|error| format!("{address}: cannot connect: {error}"))?;
        // Requests and responses are short and alternate, which suits TCP_NODELAY.
        socket.set_nodelay(true).map_err(|error| format!("{address}: {error}"))?;
        let Some(tls) = &server.tls else { return Ok(Box::new(socket)) };
        let name = tls.server_name.as_deref().unwrap_or(&server.host);
        let stream = self.tls.connect(socket, name, tls.verify).await;
        Ok(Box::new(stream.map_err(|error| format!("{address}: TLS handshake failed: {error}"))?))
    }

    async fn fetch(&self, uri: &str, time_limit: Duration, max_bytes: usize) -> Result<FetchResponse, String> {
        let message = |error: &dyn std::fmt::Display| format!("{uri}: {error}");
        let target: Uri = uri.parse().map_err(|error| message(&error))?;
        let is_secure = match target.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(message(&"the URL must start with http:// or https://")),
        };
        let host = target.host().ok_or_else(|| message(&"the URL has no host"))?;
        let server = Remote {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: target.port_u16().unwrap_or(if is_secure { 443 } else { 80 }),
            namespace: None,
            tls: is_secure.then_some(RemoteTls { server_name: None, verify: true }),
            timeout: time_limit,
        };
        let stream = self.connect(&server).await?;
        let (mut sender, connection) =
            http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(|error| message(&error))?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() =
            target.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
        let authority = target.authority().map_or("", http::uri::Authority::as_str);
        // The Host header contains no user information, which ends with an @.
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::try_from(authority).map_err(|error| message(&error))?);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("portico/", env!("CARGO_PKG_VERSION"))));
        let response = async {
            let response = sender.send_request(request).await.map_err(|error| message(&error))?;
            let (head, body) = response.into_parts();
            #[expect(clippy::disallowed_methods, reason = "the body is limited")]
            let body = Limited::new(body, max_bytes).collect().await.map_err(|error| message(&error))?;
            Ok(FetchResponse { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        let mut response = std::pin::pin!(response);
        // The connection makes progress only while it is polled. If it ends first, the data that it has read is still
        // delivered to the response.
        tokio::select! {
            biased;
            outcome = &mut response => outcome,
            _ = connection => response.await,
        }
    }
}

/// Connects to the first address that accepts.
async fn connect_first(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last_error = io::Error::other("the host has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last_error = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(last_error)
}

#[cfg(test)]
mod tests;
