//! Unary calls of gRPC over one HTTP/2 connection, which stays open.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use tokio::sync::{Mutex, oneshot};
use tokio::time::{sleep, timeout};

use crate::plugin_api::remote::Remote;
use crate::plugin_api::services::PluginServices;

/// A method of a server.
pub(super) struct GrpcMethod {
    pub(super) remote: Remote,
    /// With scheme, authority and path.
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    /// The timeout of a call, with connecting.
    pub(super) timeout: Duration,
    services: Arc<dyn PluginServices>,
    /// `None` before the first call and after an error.
    connection: Mutex<Option<GrpcConnection>>,
}

/// A connection that takes calls.
struct GrpcConnection {
    sender: SendRequest<Bytes>,
    /// When it is dropped, the connection ends, even if the server neither reads nor closes it.
    _in_use: oneshot::Sender<()>,
}

/// What a server has responded.
#[derive(Debug)]
pub(super) struct GrpcResponse {
    pub(super) status: StatusCode,
    /// The fields of the head and of the trailers.
    pub(super) fields: HeaderMap,
    /// The message with its frame. Empty if there is none.
    pub(super) body: Bytes,
}

impl GrpcMethod {
    pub(super) fn new(
        remote: Remote,
        uri: Uri,
        headers: HeaderMap,
        timeout: Duration,
        services: Arc<dyn PluginServices>,
    ) -> Self {
        GrpcMethod { remote, uri, headers, timeout, services, connection: Mutex::new(None) }
    }

    /// Calls the method with a message in its frame. The error contains the server and the cause.
    pub(super) async fn call(&self, message: Bytes) -> Result<GrpcResponse, String> {
        let limit = self.timeout;
        let called = timeout(limit, self.call_untimed(message)).await;
        let failure = match called.unwrap_or_else(|_| Err(format!("no response within {limit:?}"))) {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        // The next call has a new connection.
        *self.connection.lock().await = None;
        Err(format!("{}:{}: {failure}", self.remote.host, self.remote.port))
    }

    async fn call_untimed(&self, message: Bytes) -> Result<GrpcResponse, String> {
        let mut connection = self.connection().await?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        let fields = request.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(TE, HeaderValue::from_static("trailers"));
        fields.entry(USER_AGENT).or_insert(PRODUCT);
        let (response, mut body) = connection.send_request(request, false).map_err(|error| error.to_string())?;
        body.send_data(message, true).map_err(|error| error.to_string())?;
        let (head, mut body) = response.await.map_err(|error| error.to_string())?.into_parts();
        let mut message = Vec::new();
        while let Some(part) = body.data().await {
            let part = part.map_err(|error| error.to_string())?;
            if message.len() + part.len() > MAX_RESPONSE {
                return Err("the response is too large".to_owned());
            }
            message.extend_from_slice(&part);
            body.flow_control().release_capacity(part.len()).map_err(|error| error.to_string())?;
        }
        let mut fields = head.headers;
        fields.extend(body.trailers().await.map_err(|error| error.to_string())?.unwrap_or_default());
        Ok(GrpcResponse { status: head.status, fields, body: message.into() })
    }

    /// The open connection, or a new one.
    async fn connection(&self) -> Result<SendRequest<Bytes>, String> {
        let mut kept = self.connection.lock().await;
        if let Some(GrpcConnection { sender, _in_use }) = kept.take()
            && let Ok(sender) = sender.ready().await
        {
            return Ok(kept.insert(GrpcConnection { sender, _in_use }).sender.clone());
        }
        let stream = self.services.connect_http2(self.remote.clone()).await?;
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false).max_header_list_size(MAX_HEAD);
        let (sender, connection) = builder.handshake(stream).await.map_err(|error| error.to_string())?;
        let (in_use, dropped) = oneshot::channel();
        let grace = self.timeout;
        self.services.spawn(Box::pin(async move {
            // A server that does not read would hold a connection that is to be closed, so its time is limited.
            let unused = async {
                drop(dropped.await);
                sleep(grace).await;
            };
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "A connection to a server of OTLP has ended");
                },
                () = unused => tracing::debug!("A connection to a server of OTLP was closed without its consent"),
            }
        }));
        let sender = sender.ready().await.map_err(|error| error.to_string())?;
        Ok(kept.insert(GrpcConnection { sender, _in_use: in_use }).sender.clone())
    }
}

const PRODUCT: HeaderValue = HeaderValue::from_static(concat!("portico/", env!("CARGO_PKG_VERSION")));
/// Maximum size in bytes of the fields of a response, and of its trailers.
const MAX_HEAD: u32 = 16 * 1024;
/// Maximum size in bytes of a response, which has at most a text.
const MAX_RESPONSE: usize = 64 * 1024;
