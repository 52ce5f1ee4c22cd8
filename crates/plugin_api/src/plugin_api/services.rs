//! Runtime services for plugins: background tasks, HTTP requests, connections to other servers, status reports.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, HOST};
use http::{HeaderMap, HeaderValue, Method};

use super::aws_environment::AwsEnvironment;
use super::http_proxy::ProxyRoute;
use super::remote::{Remote, RemoteDatagrams, RemoteStream};
use super::remote_request::{ClientRequestFailure, RemoteRequest, RemoteResponse, RemoteUrl, ResponseBodyUse};
use super::shared_keys::SharedKeys;
use super::streamed_response::{RemoteFailure, StreamedResponse};
use crate::diagnostic::Diagnostic;
use crate::ssrf_guard::{AddressPolicy, LoopbackPolicy};

/// Services that plugins get when they are built. Requests do not wait for them unless a plugin implements that
/// explicitly.
pub trait PluginServices: Send + Sync {
    /// Runs a task on the threads of the control plane. A plugin that spawns an endless task must end it when the
    /// plugin is dropped.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Which addresses connections may have.
    fn address_policy(&self) -> AddressPolicy {
        AddressPolicy { loopback: LoopbackPolicy::Blocked, ..AddressPolicy::default() }
    }

    /// Whether a name without dots may be that of a server, which the search domains of the machine make complete. If
    /// not, such a name is a Service in the namespace of the object.
    fn resolves_short_names(&self) -> bool {
        true
    }

    /// The keys that all replicas share; `None` if this process has no cluster to share them in.
    fn shared_keys(&self) -> Option<Arc<SharedKeys>> {
        None
    }

    /// The identity of Portico's own Pod or machine at AWS; `None` if plugins must not act with it.
    fn aws_environment(&self) -> Option<Arc<AwsEnvironment>> {
        None
    }

    /// Whether vaults may act with the identity of Portico's own Pod or machine at Google Cloud.
    fn allows_google_identity(&self) -> bool {
        false
    }

    /// Like [`send`](Self::send), to an endpoint of the machine that has the credentials of its identity, whose
    /// addresses `send` blocks. Only with [`aws_environment`](Self::aws_environment) or
    /// [`allows_google_identity`](Self::allows_google_identity).
    fn send_to_metadata(&self, request: RemoteRequest) -> BoxFuture<'static, Result<RemoteResponse, String>> {
        let message = format!("credentials of {} are not available here", request.remote.host);
        Box::pin(async move { Err(message) })
    }

    /// Sends an HTTP request and reads the response. Does not follow redirects. The error contains the server and the
    /// cause, and nothing else of the request. Dropping the future ends the request: one that must complete needs a
    /// [task](Self::spawn).
    fn send(&self, request: RemoteRequest) -> BoxFuture<'static, Result<RemoteResponse, String>> {
        let message = format!("requests to {}:{} are not available here", request.remote.host, request.remote.port);
        Box::pin(async move { Err(message) })
    }

    /// Like [`send`](Self::send), for a request whose response only this client waits for. Each client has a share of
    /// the requests of its namespace.
    fn send_for_client(
        &self,
        address: IpAddr,
        request: RemoteRequest,
    ) -> BoxFuture<'static, Result<RemoteResponse, ClientRequestFailure>> {
        let _ = address;
        let sending = self.send(request);
        Box::pin(async move { sending.await.map_err(ClientRequestFailure::Failed) })
    }

    /// Sends the request of a client in place of a backend, through a proxy if there is a route. The body of the
    /// response streams. All such requests together have a part of the connections, so that plugins which decide about
    /// requests have the others, and each client `address` has a share of them. Dropping the future ends the request.
    fn send_in_place_of_backend(
        &self,
        address: IpAddr,
        request: RemoteRequest,
        route: Option<ProxyRoute>,
    ) -> BoxFuture<'static, Result<StreamedResponse, RemoteFailure>> {
        let _ = address;
        let sending = route.is_none().then(|| self.send(request));
        Box::pin(async move {
            let unavailable = || RemoteFailure::Unreachable("proxies are not available here".to_owned());
            let response = sending.ok_or_else(unavailable)?.await;
            response.map(StreamedResponse::from).map_err(RemoteFailure::Unreachable)
        })
    }

    /// Fetches a document by `http` or `https`, verifying the certificate with the system's root certificates. A body
    /// larger than `max_bytes` is an error. `namespace`: that of the object whose plugin needs the document.
    fn fetch(
        &self,
        uri: &str,
        namespace: Option<&str>,
        timeout: Duration,
        max_bytes: usize,
    ) -> BoxFuture<'static, Result<RemoteResponse, String>> {
        let uri = uri.to_owned();
        let url = match RemoteUrl::parse(&uri) {
            Ok(url) => url,
            Err(error) => return Box::pin(async move { Err(format!("{uri}: {error}")) }),
        };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, url.authority.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
        let sending = self.send(RemoteRequest {
            remote: url.remote(namespace, true, timeout),
            method: Method::GET,
            target: url.target,
            headers,
            body: Bytes::new(),
            timeout,
            keep_alive: None,
            is_repeatable: false,
            response_body: ResponseBodyUse::Collect { max_bytes },
        });
        Box::pin(async move { sending.await.map_err(|error| format!("{uri}: {error}")) })
    }

    /// Opens a connection for a protocol other than HTTP. A name is looked up as a Service of the cluster first (`svc`,
    /// `svc.ns`, `svc.ns.svc…`). All others are looked up in DNS, in a cluster without search domains. The error
    /// contains the address and the cause.
    fn connect(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        let message = format!("connections to {}:{} are not available here", remote.host, remote.port);
        Box::pin(async move { Err(message) })
    }

    /// Like [`connect`](Self::connect), for HTTP/2, which TLS negotiates by ALPN.
    fn connect_http2(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        self.connect(remote)
    }

    /// Opens a UDP socket for datagrams to a server, whose name is looked up as that of [`connect`](Self::connect).
    fn connect_datagrams(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteDatagrams>, String>> {
        let message = format!("datagrams to {}:{} are not available here", remote.host, remote.port);
        Box::pin(async move { Err(message) })
    }

    /// Starts TLS on a connection whose server has agreed to that, with the settings of `remote`.
    fn start_tls(
        &self,
        stream: Box<dyn RemoteStream>,
        remote: Remote,
    ) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        drop(stream);
        let message = format!("connections to {}:{} are not available here", remote.host, remote.port);
        Box::pin(async move { Err(message) })
    }

    /// Sets the runtime problem of an object for its conditions, or `None` when it is resolved. Called on each change.
    fn report(&self, object: &str, diagnostic: Option<Diagnostic>) {
        let _ = (object, diagnostic);
    }
}

/// Services without any effect, and without blocked addresses: for `portico check`, and for tests of configurations.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfflineServices;

impl PluginServices for OfflineServices {
    fn address_policy(&self) -> AddressPolicy {
        AddressPolicy::default()
    }

    /// Whether plugins may use it is a setting of the process that serves.
    fn aws_environment(&self) -> Option<Arc<AwsEnvironment>> {
        Some(Arc::default())
    }

    /// Like the one of AWS.
    fn allows_google_identity(&self) -> bool {
        true
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(task);
    }
}
