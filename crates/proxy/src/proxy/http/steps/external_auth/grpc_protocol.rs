//! Authorization by a call of Envoy's `ext_authz`, with its generated client over Portico's own connections.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tonic::codegen::Service;

use super::check_response::{self, InvalidCheck};
use super::decision::Decision;
use super::ext_authz::CheckRequest;
use super::ext_authz::authorization_client::AuthorizationClient;
use super::server_call;
use crate::hop_count::HopCount;
use crate::proxy::buffer_budget::{BufferUse, BufferedBytes};
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::external_auth::GrpcAuthorization;
use crate::upstream::{ClientSlot, Upstream};

pub(super) async fn check(
    exchange: &Rc<ClientExchange>,
    upstream: &Arc<Upstream>,
    settings: &GrpcAuthorization,
    hops: HopCount,
    client: ClientSlot,
    hash: Option<u64>,
    call: CheckRequest,
) -> Result<Decision, RequestError> {
    let outcome = TransportOutcome::default();
    let transport =
        PooledTransport { exchange, upstream, authority: &settings.authority, hops, client, hash, outcome: &outcome };
    let mut client = AuthorizationClient::new(transport).max_decoding_message_size(MAX_RESPONSE);
    let response = client.check(call).await.map_err(|status| {
        tracing::debug!(%status, "A call of an authorization server failed");
        // Without an error of the connection, the server has refused the call, or its response is not one of gRPC.
        outcome.error.take().unwrap_or(RequestError::AuthorizationUnavailable)
    })?;
    let max_fields = exchange.worker().limits.max_response_fields;
    let decision = check_response::decide(response.into_inner(), max_fields);
    match decision.map_err(|InvalidCheck| RequestError::InvalidAuthorization)? {
        Decision::Denied { response, kept: _ } => Ok(Decision::Denied { response, kept: outcome.kept.take() }),
        allowed => Ok(allowed),
    }
}

/// What the library does not return.
#[derive(Default)]
struct TransportOutcome {
    error: Cell<Option<RequestError>>,
    /// The bytes of the response.
    kept: Cell<Option<BufferedBytes>>,
}

/// Sends the calls of the generated client over the pools of the worker.
#[derive(Clone, Copy)]
struct PooledTransport<'c> {
    exchange: &'c Rc<ClientExchange>,
    upstream: &'c Arc<Upstream>,
    authority: &'c HeaderValue,
    /// That of the client's request.
    hops: HopCount,
    client: ClientSlot,
    hash: Option<u64>,
    outcome: &'c TransportOutcome,
}

/// The error is in [`TransportOutcome`].
#[derive(Debug, thiserror::Error)]
#[error("the authorization server did not respond")]
struct TransportError;

impl<'c> Service<Request<tonic::body::Body>> for PooledTransport<'c> {
    type Response = Response<CallBody>;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<CallBody>, TransportError>> + 'c>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let transport = *self;
        Box::pin(async move {
            transport.send(request).await.map_err(|error| {
                transport.outcome.error.set(Some(error));
                TransportError
            })
        })
    }
}

impl PooledTransport<'_> {
    async fn send(self, request: Request<tonic::body::Body>) -> Result<Response<CallBody>, RequestError> {
        let (head, body) = request.into_parts();
        #[expect(clippy::disallowed_methods, reason = "the message is Portico's own, and its body is limited")]
        let message = body.collect().await.map_err(|_| RequestError::InvalidAuthorization)?.to_bytes();
        // The body of the request counts already, and its copy in the message is kept until the response.
        let namespace = &self.upstream.key.namespace;
        let mut kept = self.exchange.buffered(BufferUse::Request, namespace);
        if message.len() > MAX_UNCOUNTED {
            kept.grow(message.len()).await.map_err(|_| RequestError::BufferLimit)?;
        }
        let mut request = Request::from_parts(head, RequestBody::from_bytes(message, self.exchange));
        request.headers_mut().insert(HOST, self.authority.clone());
        let response =
            server_call::send(self.exchange, self.upstream, request, self.hops, self.client, self.hash).await?;
        let (head, body) = response.into_parts();
        let collected = server_call::collect(self.exchange, body, MAX_RESPONSE, namespace).await?;
        self.outcome.kept.set(Some(collected.kept));
        let body = CallBody { data: Some(collected.data), trailers: collected.trailers };
        Ok(Response::from_parts(head, body))
    }
}

/// The complete body of a response.
struct CallBody {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let data = this.data.take().map(Frame::data);
        Poll::Ready(data.or_else(|| this.trailers.take().map(Frame::trailers)).map(Ok))
    }
}

/// Calls without a body are smaller, and are made while the process may keep no more bytes.
const MAX_UNCOUNTED: usize = 16 * 1024;
/// The maximum size of a response, of which most is the body for a client that is denied. Decoded, many small headers
/// take about forty times as much.
const MAX_RESPONSE: usize = 256 * 1024;
