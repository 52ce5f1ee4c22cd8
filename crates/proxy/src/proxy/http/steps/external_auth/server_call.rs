//! Sends a request to an endpoint of an authorization server, over the same pools of connections as all requests.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body::Body;

use crate::hop_count::HopCount;
use crate::proxy::buffer_budget::{BufferUse, BufferedBytes};
use crate::proxy::http::exchange::body_source::BodySource;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::forwarding::attempt_policy::is_idempotent;
use crate::proxy::http::forwarding::caller::Caller;
use crate::proxy::http::forwarding::failover::{MAX_REPLACED_BODY, admit};
use crate::proxy::http::forwarding::forwarded::ForwardError;
use crate::proxy::http::forwarding::outgoing_request::{UnsentRequest, copy_request};
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::steps::side_request;
use crate::upstream::settings::FallbackResponse;
use crate::upstream::{Alternatives, ClientSlot, RequestArrival, Upstream};

/// Sends the request, and to another endpoint if the first did not process it, or to an alternative that the policy of
/// the server names. `hops` is that of the client's request, so that a server that sends requests back does not loop.
/// `hash` is of the client's request, too.
pub(super) async fn send(
    exchange: &Rc<ClientExchange>,
    upstream: &Arc<Upstream>,
    request: Request<RequestBody>,
    hops: HopCount,
    client: ClientSlot,
    hash: Option<u64>,
) -> Result<Response<BodySource>, RequestError> {
    let destination = |upstream| side_request::destination(upstream, hops, client, hash);
    let Some(alternatives) = upstream.alternatives() else {
        let (outcome, _) = side_request::attempt(exchange, destination(upstream), request).await;
        return outcome.or_else(|error| decide(error, true));
    };
    let spare = spare_copy(exchange, &alternatives, &request);
    let head = copy_request(&request, (), exchange.header_maps());
    let mut first = destination(upstream);
    let admitted = admit(&**exchange, &mut first, &alternatives, RequestArrival::Complete).await;
    let mut is_server = Arc::ptr_eq(first.upstream, upstream);
    let mut tried = vec![upstream, first.upstream];
    let (mut outcome, mut unsent) = match admitted {
        Ok(()) => side_request::attempt(exchange, first, request).await,
        Err(error) => (Err(error), None),
    };
    while let Some(UnsentRequest { body, .. }) = unsent.take()
        && let Some(next) = alternatives.after(&tried)
    {
        is_server = false;
        tried.push(next);
        let request = copy_request(&head, body, exchange.header_maps());
        (outcome, unsent) = side_request::attempt(exchange, destination(next), request).await;
    }
    let response = outcome.or_else(|error| decide(error, is_server))?;
    match (alternatives.next(upstream), spare) {
        (Some(next), Some(spare)) if is_server && alternatives.replaces(response.status().as_u16()) => {
            // A bad response is better than none: it denies the request.
            Ok(side_request::attempt(exchange, destination(next), spare).await.0.unwrap_or(response))
        }
        _ => Ok(response),
    }
}

/// What decides if there is no response. `is_server`: the request was for the server itself, whose circuit breaker may
/// decide. That of an alternative denies the request.
fn decide(error: ForwardError, is_server: bool) -> Result<Response<BodySource>, RequestError> {
    let settings = error.fallback.filter(|_| is_server);
    let response = settings.as_deref().and_then(|settings| settings.fallback.as_ref()).map(circuit_fallback);
    response.ok_or_else(|| authorization_error(error.error))
}

/// A copy of a request whose response may be replaced by that of an alternative, if it can be sent twice.
fn spare_copy(
    exchange: &ClientExchange,
    alternatives: &Alternatives,
    request: &Request<RequestBody>,
) -> Option<Request<RequestBody>> {
    let is_small = request.body().size_hint().upper().is_some_and(|size| size <= MAX_REPLACED_BODY as u64);
    let is_repeatable = !alternatives.on_statuses.is_empty() && is_idempotent(request.method()) && is_small;
    is_repeatable.then(|| copy_request(request, request.body().duplicate(), exchange.header_maps()))
}

/// The response that the circuit breaker of the Service has instead of the server's. It decides as one of the server.
fn circuit_fallback(fallback: &FallbackResponse) -> Response<BodySource> {
    let mut response = Response::new(BodySource::Local(fallback.body.clone()));
    *response.status_mut() = fallback.status;
    *response.headers_mut() = fallback.headers.clone();
    response
}

/// The error of a request whose authorization has failed for this reason.
fn authorization_error(error: RequestError) -> RequestError {
    tracing::debug!(reason = error.details().reason, "No response of an authorization server");
    match error {
        RequestError::ConnectionLimit | RequestError::OverLimit | RequestError::QueueTimeout => error,
        RequestError::InvalidResponse => RequestError::InvalidAuthorization,
        RequestError::ConnectTimeout | RequestError::ResponseTimeout => RequestError::AuthorizationTimeout,
        _ => RequestError::AuthorizationUnavailable,
    }
}

/// A response body that was read to its end.
pub(super) struct CollectedBody {
    pub data: Bytes,
    pub trailers: Option<HeaderMap>,
    pub kept: BufferedBytes,
}

/// Reads a body of at most `max_bytes` bytes from a server of this namespace.
pub(super) async fn collect(
    exchange: &ClientExchange,
    mut body: BodySource,
    max_bytes: usize,
    namespace: &str,
) -> Result<CollectedBody, RequestError> {
    let mut kept = exchange.buffered(BufferUse::Response, namespace);
    let mut data = BytesMut::new();
    let mut trailers = None;
    while !body.is_end_stream()
        && let Some(frame) = poll_fn(|cx| body.poll_next(None, cx)).await
    {
        match frame.map_err(|_| RequestError::InvalidAuthorization)?.into_data() {
            Ok(part) if data.len() + part.len() > max_bytes => return Err(RequestError::InvalidAuthorization),
            Ok(part) => {
                kept.grow(part.len()).await.map_err(|_| RequestError::BufferLimit)?;
                data.extend_from_slice(&part);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    body.release();
    Ok(CollectedBody { data: data.freeze(), trailers, kept })
}
