//! The HTTP client of plugins: HTTP/1.1 over the connections of a [`RemoteConnector`], with a pool of idle ones.
//!
//! ```text
//!   send ─▶ idle connection? ──yes──────────────────────────▶ request ─▶ response ─▶ idle until the timeout
//!              └ no ─▶ RemoteConnector: name, socket, TLS ─────▲
//! ```

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{HOST, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::idle_connections::{IdleConnections, RemoteConnection};
use super::remote::{Remote, RemoteStream};
use super::remote_request::{RemoteRequest, RemoteResponse, ResponseBodyUse};

/// Opens the connections of a client.
pub trait RemoteConnector: Send + Sync + 'static {
    /// Resolves the name, connects and performs the TLS handshake.
    fn connect(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>>;

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
    /// Whether the targets of requests without TLS are whole URLs, as proxies need them.
    is_for_proxy: bool,
}

impl RemoteClient {
    pub fn new(connector: Arc<dyn RemoteConnector>) -> Self {
        RemoteClient::with_idle(connector, IdleConnections::default())
    }

    /// A client whose idle connections the connector may close.
    pub fn with_idle(connector: Arc<dyn RemoteConnector>, idle: IdleConnections) -> Self {
        RemoteClient { connector, idle, is_for_proxy: false }
    }

    /// A client whose connections without TLS lead to an HTTP proxy.
    pub fn for_proxy(connector: Arc<dyn RemoteConnector>) -> Self {
        RemoteClient { is_for_proxy: true, ..RemoteClient::new(connector) }
    }

    /// Sends a request once. An error says whether connecting failed, or why there is no response.
    pub async fn send(&self, request: RemoteRequest) -> Result<RemoteResponse, String> {
        let limit = request.timeout;
        let timed_out = || Err(format!("no response within {limit:?}"));
        timeout(limit, self.send_untimed(request)).await.unwrap_or_else(|_| timed_out())
    }

    async fn send_untimed(&self, request: RemoteRequest) -> Result<RemoteResponse, String> {
        let RemoteRequest { remote, method, target, headers, body, keep_alive, response_body, .. } = request;
        let mut message = Request::new(Full::new(body));
        *message.method_mut() = method;
        *message.uri_mut() =
            if self.is_for_proxy && remote.tls.is_none() { whole_url(&headers, target)? } else { target.into() };
        *message.headers_mut() = headers;
        message.headers_mut().entry(USER_AGENT).or_insert(PRODUCT);
        let (mut connection, response) = loop {
            let (mut connection, is_new) = match self.idle.take(&remote) {
                Some(connection) => (connection, false),
                None => (self.connect(remote.clone()).await?, true),
            };
            match connection.sender.try_send_request(message).await {
                Ok(response) => break (connection, response),
                // An idle connection may turn out to be closed, in which case the whole request is returned.
                Err(mut error) => match error.take_message().filter(|_| !is_new) {
                    Some(unsent) => message = unsent,
                    None => return Err(describe(&error.into_error())),
                },
            }
        };
        let (response, is_reusable) = read_response(response, response_body).await?;
        // The connection is ready as soon as its task has noticed the end of the response.
        if let Some(keep_alive) = keep_alive.filter(|_| is_reusable)
            && let Ok(Ok(())) = timeout(MAX_DISCARD_TIME, connection.sender.ready()).await
        {
            let namespace = remote.namespace.clone();
            self.idle.keep(remote, connection, keep_alive);
            self.connector.became_idle(namespace.as_deref().unwrap_or_default());
        }
        Ok(response)
    }

    async fn connect(&self, remote: Remote) -> Result<RemoteConnection, String> {
        let stream = self.connector.connect(remote).await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| describe(&error))?;
        let (idle_until, changes) = watch::channel(None);
        // The task ends when the connection is dropped, was idle for too long, or is closed by the server.
        tokio::spawn(drive(connection, changes));
        Ok(RemoteConnection { sender, idle_until })
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

/// The `http` URL of a target at the host of the request (RFC 9112, section 3.2.2).
fn whole_url(headers: &HeaderMap, target: PathAndQuery) -> Result<Uri, String> {
    let host = headers.get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let url = Uri::builder().scheme(Scheme::HTTP).authority(host).path_and_query(target).build();
    url.map_err(|_| "the host is not valid in a URL".to_owned())
}

/// hyper's message with its cause, which hyper's own text omits.
fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

const PRODUCT: HeaderValue = HeaderValue::from_static(concat!("portico/", env!("CARGO_PKG_VERSION")));
/// Maximum size of the head of a response in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// How much of an unused body is read to keep the connection.
const MAX_DISCARDED_BYTES: usize = 64 * 1024;
/// How long the rest of an unused body may take.
const MAX_DISCARD_TIME: Duration = Duration::from_secs(1);
