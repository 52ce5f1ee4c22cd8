//! The HTTP client of plugins: HTTP/1.1 over the connections of a [`RemoteConnector`], with a pool of idle ones.
//!
//! ```text
//!   send ─▶ idle connection? ──yes──────────────────────────▶ request ─▶ response ─▶ idle until the timeout
//!              └ no ─▶ RemoteConnector: name, socket, TLS ─────▲
//! ```
//!
//! A server may close an idle connection at any time, also while a request is on the way to it. If it does so before
//! any byte of a response, the request is sent once more, on a new connection, unless the server may have acted on it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{HOST, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::idle_connections::{ConnectionTarget, IdleConnections, RemoteConnection};
use super::observed_stream::ObservedStream;
use crate::plugin_api::http_proxy::ProxyRoute;
use crate::plugin_api::remote::{Remote, RemoteStream};
use crate::plugin_api::remote_request::{RemoteRequest, RemoteResponse, ResponseBodyUse};
use crate::plugin_api::streamed_response::{BodyPart, RemoteBody, RemoteFailure, StreamedResponse};

#[cfg(test)]
mod tests;

/// Opens the connections of a client.
pub trait RemoteConnector: Send + Sync + 'static {
    /// Resolves the name, connects and performs the TLS handshake.
    fn connect(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, RemoteFailure>>;

    /// The same through a proxy.
    fn connect_through(
        &self,
        remote: Remote,
        route: ProxyRoute,
    ) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, RemoteFailure>> {
        let message = format!("{}:{}: proxies are not available here", remote.host, route.proxy_for(&remote).host);
        Box::pin(async move { Err(RemoteFailure::Unreachable(message)) })
    }

    /// Called when a connection of this namespace has become idle, which makes room for others if it is closed.
    fn became_idle(&self, namespace: &str) {
        let _ = namespace;
    }
}

/// An HTTP client. Clones share their idle connections.
#[derive(Clone)]
pub struct RemoteClient {
    connector: Arc<dyn RemoteConnector>,
    idle: IdleConnections,
}

/// A connection whose request has been sent. It is closed if it is dropped.
struct UsedConnection {
    connection: RemoteConnection,
    target: ConnectionTarget,
    keep_alive: Option<Duration>,
}

impl RemoteClient {
    pub fn new(connector: Arc<dyn RemoteConnector>) -> Self {
        RemoteClient::with_idle(connector, IdleConnections::default())
    }

    /// A client whose idle connections the connector may close.
    pub fn with_idle(connector: Arc<dyn RemoteConnector>, idle: IdleConnections) -> Self {
        RemoteClient { connector, idle }
    }

    /// Sends a request. An error says whether connecting failed, or why there is no response.
    pub async fn send(&self, request: RemoteRequest) -> Result<RemoteResponse, String> {
        let limit = request.timeout;
        let timed_out = || Err(format!("no response within {limit:?}"));
        timeout(limit, self.send_untimed(request)).await.unwrap_or_else(|_| timed_out())
    }

    /// Sends a request, and passes on the body of the response as it arrives, whatever the request says about it.
    /// `held` is dropped at the end of the response. Each part may take as long as the head, on both sides.
    pub async fn stream(
        &self,
        request: RemoteRequest,
        route: Option<ProxyRoute>,
        held: impl Send + 'static,
    ) -> Result<StreamedResponse, RemoteFailure> {
        let limit = request.timeout;
        let timed_out = || Err(RemoteFailure::NoResponse(format!("no response within {limit:?}")));
        let (used, response) = timeout(limit, self.exchange(request, route)).await.unwrap_or_else(|_| timed_out())?;
        let (head, incoming) = response.into_parts();
        let body = if incoming.is_end_stream() {
            let client = self.clone();
            tokio::spawn(async move {
                client.keep(used).await;
                drop(held);
            });
            RemoteBody::empty()
        } else {
            let (parts, body) = RemoteBody::new(incoming.size_hint().exact());
            let client = self.clone();
            tokio::spawn(async move {
                if relay_parts(incoming, parts, limit).await {
                    client.keep(used).await;
                }
                drop(held);
            });
            body
        };
        Ok(StreamedResponse { status: head.status, headers: head.headers, body })
    }

    async fn send_untimed(&self, request: RemoteRequest) -> Result<RemoteResponse, String> {
        let response_body = request.response_body;
        let (used, response) = self.exchange(request, None).await.map_err(RemoteFailure::into_message)?;
        let (response, is_reusable) = read_response(response, response_body).await?;
        if is_reusable {
            self.keep(used).await;
        }
        Ok(response)
    }

    /// Sends a request and reads the head of the response.
    async fn exchange(
        &self,
        request: RemoteRequest,
        route: Option<ProxyRoute>,
    ) -> Result<(UsedConnection, Response<Incoming>), RemoteFailure> {
        let RemoteRequest { remote, method, target, headers, body, keep_alive, is_repeatable, .. } = request;
        let is_harmless = is_repeatable || method.is_idempotent();
        let mut message = Request::new(Full::new(body));
        *message.method_mut() = method;
        let is_for_proxy = route.is_some() && remote.tls.is_none();
        *message.uri_mut() = if is_for_proxy { whole_url(&headers, target)? } else { target.into() };
        *message.headers_mut() = headers;
        message.headers_mut().entry(USER_AGENT).or_insert(PRODUCT);
        let target = ConnectionTarget { remote, route };
        // An idle connection may turn out to be closed.
        while let Some(mut connection) = self.idle.take(&target) {
            let before = connection.traffic.so_far();
            // A write over TLS that has failed may have sent a part, so only what is harmless can follow.
            let copy = (is_harmless || !has_tls(&target)).then(|| message.clone());
            let mut error = match connection.sender.try_send_request(message).await {
                Ok(response) => return Ok((UsedConnection { connection, target, keep_alive }, response)),
                Err(error) => error,
            };
            if let Some(unsent) = error.take_message() {
                message = unsent;
                continue;
            }
            if !connection.traffic.so_far().may_repeat(before, is_harmless) {
                return Err(no_response(&error.into_error()));
            }
            let Some(copy) = copy else { return Err(no_response(&error.into_error())) };
            message = copy;
            break;
        }
        // A new connection. A server that closes this one as well closes it because of the request.
        let mut connection = self.connect(target.clone()).await?;
        match connection.sender.send_request(message).await {
            Ok(response) => Ok((UsedConnection { connection, target, keep_alive }, response)),
            Err(error) => Err(no_response(&error)),
        }
    }

    /// Keeps a connection after the end of a response.
    async fn keep(&self, used: UsedConnection) {
        let UsedConnection { mut connection, target, keep_alive } = used;
        let Some(keep_alive) = keep_alive else { return };
        // The connection is ready as soon as its task has noticed the end of the response.
        if let Ok(Ok(())) = timeout(MAX_DISCARD_TIME, connection.sender.ready()).await {
            let namespace = target.remote.namespace.clone();
            self.idle.keep(target, connection, keep_alive);
            self.connector.became_idle(namespace.as_deref().unwrap_or_default());
        }
    }

    async fn connect(&self, target: ConnectionTarget) -> Result<RemoteConnection, RemoteFailure> {
        let stream = match target.route {
            Some(route) => self.connector.connect_through(target.remote, route).await?,
            None => self.connector.connect(target.remote).await?,
        };
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD);
        let (stream, traffic) = ObservedStream::new(stream);
        let connected = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = connected.map_err(|error| no_response(&error))?;
        let (idle_until, changes) = watch::channel(None);
        // The task ends when the connection is dropped, was idle for too long, or is closed by the server.
        tokio::spawn(drive(connection, changes));
        Ok(RemoteConnection { sender, traffic, idle_until })
    }
}

/// Runs a connection until it ends or was idle for too long.
async fn drive(connection: impl Future<Output = hyper::Result<()>>, mut idle_until: watch::Receiver<Option<Instant>>) {
    let mut connection = pin!(connection);
    loop {
        let deadline = *idle_until.borrow_and_update();
        let expiry = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // The request in progress gets the error.
            _ = &mut connection => return,
            changed = idle_until.changed() => if changed.is_err() { return },
            () = expiry => return,
        }
    }
}

/// Passes on the parts of a body. Returns whether its end was reached. `limit`: the time for each part, until it is
/// there, and until the client has room for it.
async fn relay_parts(mut incoming: Incoming, parts: mpsc::Sender<BodyPart>, limit: Duration) -> bool {
    loop {
        // Before it is read, so that a body of which the client reads nothing takes no memory.
        let Ok(Ok(place)) = timeout(limit, parts.reserve()).await else { return false };
        let frame = tokio::select! {
            biased;
            frame = timeout(limit, incoming.frame()) => frame,
            () = parts.closed() => return false,
        };
        match frame {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    place.send(BodyPart::Data(data));
                }
                // The client may not ask for the end of a body of known length.
                if incoming.is_end_stream() {
                    drop(timeout(limit, parts.send(BodyPart::End)).await);
                    return true;
                }
            }
            Ok(None) => {
                place.send(BodyPart::End);
                return true;
            }
            Ok(Some(Err(_))) | Err(_) => return false,
        }
    }
}

/// Reads the body. The second value is whether the connection can be used for another request.
async fn read_response(
    response: Response<Incoming>,
    response_body: ResponseBodyUse,
) -> Result<(RemoteResponse, bool), String> {
    let (head, body) = response.into_parts();
    let (body, is_complete) = match response_body {
        ResponseBodyUse::Collect { max_bytes } => {
            #[expect(clippy::disallowed_methods, reason = "the body is limited")]
            let body = Limited::new(body, max_bytes).collect().await;
            (body.map_err(|error| format!("reading the response has failed: {error}"))?.to_bytes(), true)
        }
        ResponseBodyUse::Discard => (Bytes::new(), discard(body).await),
    };
    Ok((RemoteResponse { status: head.status, headers: head.headers, body }, is_complete))
}

/// Reads a body to its end, unless it is long or slow. Returns whether the end was reached.
async fn discard(mut body: Incoming) -> bool {
    let read = async {
        let mut remaining = MAX_DISCARDED_BYTES;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let length = frame.data_ref().map_or(0, Bytes::len);
            if length > remaining {
                return false;
            }
            remaining -= length;
        }
        true
    };
    timeout(MAX_DISCARD_TIME, read).await.unwrap_or(false)
}

/// Whether the bytes of a request go through TLS, to the server or to the proxy.
fn has_tls(target: &ConnectionTarget) -> bool {
    let of_proxy = target.route.as_ref().is_some_and(|route| route.proxy_for(&target.remote).tls.is_some());
    of_proxy || target.remote.tls.is_some()
}

/// The `http` URL of a target at the host of the request (RFC 9112, section 3.2.2).
fn whole_url(headers: &HeaderMap, target: PathAndQuery) -> Result<Uri, RemoteFailure> {
    let host = headers.get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let url = Uri::builder().scheme(Scheme::HTTP).authority(host).path_and_query(target).build();
    url.map_err(|_| RemoteFailure::NoResponse("the host is not valid in a URL".to_owned()))
}

/// A failure with hyper's message and its cause, which hyper's own text omits.
fn no_response(error: &hyper::Error) -> RemoteFailure {
    RemoteFailure::NoResponse(match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

const PRODUCT: HeaderValue = HeaderValue::from_static(concat!("portico/", env!("CARGO_PKG_VERSION")));
/// Maximum size of the head of a response in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// How much of an unused body is read to keep the connection.
const MAX_DISCARDED_BYTES: usize = 64 * 1024;
/// How long the rest of an unused body may take.
const MAX_DISCARD_TIME: Duration = Duration::from_secs(1);
