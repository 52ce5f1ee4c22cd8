//! Sends a request to an endpoint: selects the endpoint and the connection, and retries where that is safe.
//!
//! A request that may have been processed is never sent again. It is safe to send it again in these cases:
//! - connecting failed, so nothing was sent,
//! - a kept-alive connection closed without a response, the method is idempotent and the request has no body,
//! - an HTTP/2 endpoint reports that it did not process the request, and the replay buffer still holds the body.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use h2::Reason;
use http::header::{HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use tokio::time::{Instant, timeout_at};

use super::activity::{Activity, UploadState};
use super::body::{BodySource, RequestBody};
use super::connection::Peer;
use super::framing;
use super::header_map_pool::HeaderMapPool;
use super::headers::strip_hop_by_hop;
use super::request_error::RequestError;
use super::request_record::RequestRecord;
use super::upgrade::Upgrade;
use crate::upstream::tls::{UpstreamHandshakeError, UpstreamServerName};
use crate::upstream::{ConnectError, Upstream, UpstreamConnection, UpstreamKey, UpstreamProtocol, UpstreamTarget};

pub(crate) async fn forward(
    upstream: &Arc<Upstream>,
    mut request: Request<RequestBody>,
    mut upgrade: Option<Box<Upgrade>>,
    record: &mut RequestRecord,
) -> Result<Response<BodySource>, RequestError> {
    let peer = Rc::clone(&record.peer);
    let aim = convert_for_endpoint(upstream, &mut request, &mut upgrade)?;
    let empty = request.body().is_end_stream();
    let replay =
        ReplayPolicy { complete: empty, idempotent: is_idempotent(request.method()), retry_stale_connection: true };
    let mut failure = RequestError::NoEndpoints;
    // The request to send. During an attempt, a copy of the request if it may be sent again.
    let mut request = Some(request);
    // Does not allocate unless an attempt fails.
    let mut tried = Vec::new();
    while tried.len() < MAX_ENDPOINTS
        && let Some(address) = peer.worker.pools.next_endpoint(aim.upstream, &tried)
    {
        record.address = Some(address);
        let lost = match attempt(&peer, &aim, address, &mut request, &mut upgrade, replay, None).await {
            Ok(response) => {
                if let Some(copy) = request {
                    peer.worker.header_maps.put_back(copy.into_parts().0.headers);
                }
                return Ok(response);
            }
            Err(lost) => lost,
        };
        let again = lost.was_not_processed() && request.is_some() && !peer.activity.timed_out.get();
        failure = lost.into_request_error();
        if !again {
            break;
        }
        tried.push(address);
    }
    Err(failure)
}

/// Converts the request to the HTTP version of the endpoint and returns where to send it, including the TLS server
/// name.
pub(crate) fn convert_for_endpoint<'u>(
    upstream: &'u Arc<Upstream>,
    request: &mut Request<RequestBody>,
    upgrade: &mut Option<Box<Upgrade>>,
) -> Result<UpstreamTarget<'u>, RequestError> {
    let aim = UpstreamTarget {
        upstream,
        server_name: request
            .headers()
            .get(HOST)
            .filter(|_| upstream.key.tls.is_some())
            .map(UpstreamServerName::from_host),
    };
    match upstream.key.protocol {
        UpstreamProtocol::Http1 => {
            *request.version_mut() = Version::HTTP_11;
            if !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
                // Without this header, hyper would drop the body of a GET.
                request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            if let Some(upgrade) = upgrade {
                upgrade.set_request_headers(request.headers_mut());
            }
        }
        UpstreamProtocol::Http2 => {
            if upgrade.take().is_some_and(|upgrade| !upgrade.may_be_ignored()) {
                return Err(RequestError::UpgradeNotSupported);
            }
            convert_to_http2(request, scheme(&upstream.key))?;
        }
    }
    Ok(aim)
}

/// Whether a request may be sent again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplayPolicy {
    /// The whole request is available.
    pub(crate) complete: bool,
    /// The method is idempotent.
    pub(crate) idempotent: bool,
    /// The request may be sent again if a kept-alive connection turns out to be closed.
    pub(crate) retry_stale_connection: bool,
}

/// One attempt at one endpoint, over a pooled connection or else a new one, which must be established by `end`.
pub(crate) async fn attempt(
    peer: &Rc<Peer>,
    aim: &UpstreamTarget<'_>,
    address: SocketAddr,
    request: &mut Option<Request<RequestBody>>,
    upgrade: &mut Option<Box<Upgrade>>,
    replay: ReplayPolicy,
    end: Option<Instant>,
) -> Result<Response<BodySource>, AttemptError> {
    let pools = &peer.worker.pools;
    let copying = match aim.upstream.key.protocol {
        // An HTTP/2 endpoint can report that it did not process a request, whatever the method.
        UpstreamProtocol::Http2 if !replay.complete => CopyMode::Buffered,
        UpstreamProtocol::Http2 => CopyMode::Full,
        UpstreamProtocol::Http1 if replay.complete && replay.idempotent => CopyMode::Full,
        UpstreamProtocol::Http1 => CopyMode::Never,
    };
    let mut refusable = replay.retry_stale_connection;
    let replayable = replay.complete && replay.idempotent && replay.retry_stale_connection;
    let age = if replayable { Duration::MAX } else { FRESH_CONNECTION_AGE };
    while let Some(connection) = pools.idle(aim, address, age) {
        match send(peer, connection, request, upgrade, copying).await {
            Err(AttemptError::NotSent) => {}
            Err(AttemptError::NotProcessed) if refusable && request.is_some() => {
                refusable = false;
                pools.count_replay();
                break;
            }
            Err(AttemptError::NoResponse) if replayable => {
                pools.count_replay();
                // If one connection is stale the others may be too, so use a new one instead of trying each.
                break;
            }
            outcome => {
                if outcome.is_ok() {
                    aim.upstream.record_success(address);
                }
                return outcome;
            }
        }
    }
    loop {
        peer.activity.connecting.set(true);
        // Boxed: connecting is rare, and its state would otherwise enlarge the future of every client connection.
        let connect = Box::pin(async {
            let limit = peer.activity.rule_timeouts.get().connect();
            let connecting = pools.connect(aim, address, limit);
            let end = [end, limit.map(|limit| Instant::now() + limit)].into_iter().flatten().min();
            let Some(end) = end else { return connecting.await };
            let began = Instant::now();
            // A timeout of the rule does not count against the endpoint's health; only the global connect timeout does.
            timeout_at(end, connecting).await.unwrap_or_else(|_| Err(ConnectError::TimedOut(address, began.elapsed())))
        });
        let Some(connected) = until_timed_out(&peer.activity, connect).await else {
            return Err(AttemptError::NotConnected(RequestError::ConnectTimeout));
        };
        peer.activity.connecting.set(false);
        if !peer.activity.rule_timeouts.get().is_unset() {
            // The write and read timeouts start here.
            peer.activity.record_progress();
        }
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, upstream = %aim.upstream.key, "Cannot connect");
                return Err(match error {
                    ConnectError::TimedOut(..) | ConnectError::TlsHandshake(_, UpstreamHandshakeError::TimedOut(_)) => {
                        AttemptError::NotConnected(RequestError::ConnectTimeout)
                    }
                    ConnectError::TlsHandshake(..) => AttemptError::NotConnected(RequestError::TlsHandshake),
                    ConnectError::NotHttp2(_) => AttemptError::NotConnected(RequestError::InvalidResponse),
                    ConnectError::Refused(_) | ConnectError::Failed(..) => {
                        AttemptError::NotConnected(RequestError::ConnectionRefused)
                    }
                    // Another endpoint would need a connection as well.
                    ConnectError::LimitReached(..) => AttemptError::Failed(RequestError::ConnectionLimit),
                });
            }
        };
        match send(peer, connection, request, upgrade, copying).await {
            Err(AttemptError::NotProcessed) if refusable && request.is_some() => {
                refusable = false;
                pools.count_replay();
            }
            outcome => return outcome,
        }
    }
}

/// What is kept of a request while it is sent.
#[derive(Clone, Copy, Debug)]
enum CopyMode {
    Never,
    /// A full copy: the whole request is available and can be sent a second time.
    Full,
    /// A replay buffer: the request can be sent again if the endpoint did not process it.
    Buffered,
}

/// Why an attempt yielded no response.
pub(crate) enum AttemptError {
    /// No connection could be established.
    NotConnected(RequestError),
    /// Not a byte of the request was sent; the request was put back.
    NotSent,
    /// The endpoint reports that it did not process the request. A copy can be sent again, if one was kept.
    NotProcessed,
    /// The connection closed before the first byte of a response.
    NoResponse,
    Failed(RequestError),
}

impl AttemptError {
    fn from_hyper(error: &hyper::Error) -> Self {
        let source = std::error::Error::source(error);
        if let Some(error) = source.and_then(|source| source.downcast_ref::<h2::Error>()) {
            let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
            // After a GOAWAY, streams up to its last stream id continue. h2 reports the error only to streams beyond
            // it, which the endpoint did not process (RFC 9113, section 6.8).
            let beyond = error.is_go_away();
            return match error {
                error if error.is_remote() && (refused || beyond) => AttemptError::NotProcessed,
                error if error.is_io() || error.is_go_away() => AttemptError::NoResponse,
                _ => AttemptError::Failed(RequestError::InvalidResponse),
            };
        }
        let is_io = source.is_some_and(|source| source.is::<std::io::Error>());
        if error.is_incomplete_message() || error.is_canceled() || error.is_closed() || is_io {
            AttemptError::NoResponse
        } else {
            AttemptError::Failed(RequestError::InvalidResponse)
        }
    }

    pub(crate) fn into_request_error(self) -> RequestError {
        match self {
            AttemptError::NotSent | AttemptError::NotProcessed | AttemptError::NoResponse => RequestError::NoResponse,
            AttemptError::NotConnected(fault) | AttemptError::Failed(fault) => fault,
        }
    }

    /// Whether the endpoint certainly did not process the request.
    pub(crate) fn was_not_processed(&self) -> bool {
        match self {
            AttemptError::NotConnected(_) | AttemptError::NotSent | AttemptError::NotProcessed => true,
            AttemptError::NoResponse | AttemptError::Failed(_) => false,
        }
    }
}

async fn send(
    peer: &Rc<Peer>,
    mut connection: UpstreamConnection<RequestBody>,
    request: &mut Option<Request<RequestBody>>,
    upgrade: &mut Option<Box<Upgrade>>,
    copying: CopyMode,
) -> Result<Response<BodySource>, AttemptError> {
    let activity = &peer.activity;
    let sending = {
        let mut original =
            request.take().expect("an unsent request is put back, and a sent one is repeated only with a copy");
        let body = match copying {
            CopyMode::Never => None,
            CopyMode::Full => Some(original.body().duplicate()),
            CopyMode::Buffered => Some(original.body_mut().share_for_replay(peer.worker.limits.max_replay_body)),
        };
        *request = body.map(|body| copy_request(&original, body, &peer.worker.header_maps));
        connection.send(original)
    };
    let outcome = until_timed_out(activity, sending).await;
    let mut response = match outcome {
        None if activity.upload.get() == UploadState::AwaitingClient => {
            return Err(AttemptError::Failed(RequestError::RequestBodyTimeout));
        }
        None => return Err(AttemptError::Failed(RequestError::ResponseTimeout)),
        Some(Ok(response)) => response,
        Some(Err(mut error)) => {
            if let Some(unsent) = error.take_message() {
                *request = Some(unsent);
                return Err(AttemptError::NotSent);
            }
            if activity.body_too_large.get() {
                return Err(AttemptError::Failed(RequestError::BodyTooLarge));
            }
            if activity.body_invalid.get() {
                return Err(AttemptError::Failed(RequestError::InvalidBody));
            }
            let error = error.into_error();
            tracing::debug!(%error, address = %connection.address, "No response");
            let lost = match AttemptError::from_hyper(&error) {
                AttemptError::NoResponse if connection.was_rejected() => {
                    AttemptError::Failed(RequestError::TlsHandshake)
                }
                // An endpoint that has begun to respond has processed the request.
                AttemptError::NoResponse if connection.has_begun_response() => {
                    AttemptError::Failed(RequestError::NoResponse)
                }
                lost => lost,
            };
            if let CopyMode::Buffered = copying {
                let unprocessed = request.take_if(|_| matches!(lost, AttemptError::NotProcessed));
                *request = unprocessed.and_then(reclaim_body);
            }
            return Err(lost);
        }
    };
    if response.headers().len() > peer.worker.limits.max_response_fields {
        return Err(AttemptError::Failed(RequestError::InvalidResponse));
    }
    let switched = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // A 101 for a protocol that was not requested is an invalid response.
        let upgrade = upgrade.take().filter(|upgrade| upgrade.is_accepted_by(response.headers()));
        let upgrade = upgrade.ok_or(AttemptError::Failed(RequestError::InvalidResponse))?;
        Some((upgrade, hyper::upgrade::on(&mut response)))
    } else if upgrade.as_ref().is_some_and(|upgrade| upgrade.is_misleading(response.status())) {
        return Err(AttemptError::Failed(RequestError::InvalidResponse));
    } else {
        None
    };
    let (mut head, incoming) = response.into_parts();
    framing::normalize_response(&mut head.headers).map_err(AttemptError::Failed)?;
    strip_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
    Ok(Response::from_parts(
        head,
        match switched {
            Some((upgrade, endpoint)) => BodySource::Upgraded(upgrade, endpoint),
            None => BodySource::Upstream { incoming, connection: Some(connection) },
        },
    ))
}

/// Returns None if the connection's timer expires first: it sets the flag and polls the task, and this future gives up.
pub(crate) async fn until_timed_out<T>(activity: &Activity, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending if activity.timed_out.get() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Converts a request to HTTP/2, which carries the host and the scheme as part of the target.
pub(crate) fn convert_to_http2<B>(request: &mut Request<B>, scheme: Scheme) -> Result<(), RequestError> {
    let host = request.headers_mut().remove(HOST).ok_or(RequestError::InvalidRewrite)?;
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    target.authority = Some(Authority::try_from(host.as_bytes()).map_err(|_| RequestError::InvalidRewrite)?);
    target.scheme = Some(scheme);
    *request.uri_mut() = Uri::from_parts(target).map_err(|_| RequestError::InvalidRewrite)?;
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

pub(crate) fn scheme(key: &UpstreamKey) -> Scheme {
    if key.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
}

fn copy_request(request: &Request<RequestBody>, body: RequestBody, spares: &HeaderMapPool) -> Request<RequestBody> {
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = spares.copy(request.headers());
    copy
}

fn reclaim_body(request: Request<RequestBody>) -> Option<Request<RequestBody>> {
    let (head, body) = request.into_parts();
    Some(Request::from_parts(head, body.reclaim()?))
}

/// Whether the method is idempotent (RFC 9110, section 9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE].contains(method)
}

/// Longest idle time of a connection for requests that must not be sent twice. Servers commonly close idle connections
/// after 5 seconds or more, and a request that crosses the close is lost.
pub(super) const FRESH_CONNECTION_AGE: Duration = Duration::from_secs(3);

/// How many endpoints one request may try to connect to, unless its rule configures retries.
pub(crate) const MAX_ENDPOINTS: usize = 3;
