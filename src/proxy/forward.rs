//! Sending a request to an endpoint: which one, over which connection, and how often.
//!
//! Nothing is sent twice that may have been processed: a connect that failed sent nothing; a kept-alive connection that
//! closes without an answer was closed by its peer before it saw the request, or the method says that twice is as good as
//! once and there is no body. An endpoint of HTTP/2 can say that it has not looked at a request; the body is then sent again
//! if no more of it has gone than is kept.

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

use super::activity::{Activity, Upload};
use super::body::{RequestBody, Source};
use super::connection::Peer;
use super::exchange::Exchange;
use super::fault::Fault;
use super::framing;
use super::headers::strip_hop_by_hop;
use super::spares::Spares;
use super::upgrade::Upgrade;
use crate::upstream::tls::{HandshakeFailure, Name};
use crate::upstream::{Aim, ConnectFailure, Connection, Protocol, Upstream, UpstreamKey};

pub(crate) async fn forward(
    upstream: &Arc<Upstream>,
    mut request: Request<RequestBody>,
    mut upgrade: Option<Box<Upgrade>>,
    exchange: &mut Exchange,
) -> Result<Response<Source>, Fault> {
    let peer = Rc::clone(&exchange.peer);
    let aim = prepare(upstream, &mut request, &mut upgrade)?;
    let empty = request.body().is_end_stream();
    let replay = Replay { whole: empty, idempotent: is_idempotent(request.method()), stale: true };
    let mut failure = Fault::NoEndpoints;
    // What is still to be sent. While an attempt runs, a copy of what it sends, if it may be sent again.
    let mut request = Some(request);
    // Empty, and so without memory, unless something fails.
    let mut tried = Vec::new();
    while tried.len() < ENDPOINTS
        && let Some(address) = peer.worker.pools.next(aim.upstream, &tried)
    {
        exchange.address = Some(address);
        let lost = match attempt(&peer, &aim, address, &mut request, &mut upgrade, replay, None).await {
            Ok(answer) => {
                if let Some(copy) = request {
                    peer.worker.spares.give_back(copy.into_parts().0.headers);
                }
                return Ok(answer);
            }
            Err(lost) => lost,
        };
        let again = lost.was_not_processed() && request.is_some() && !peer.activity.overdue.get();
        failure = lost.fault();
        if !again {
            break;
        }
        tried.push(address);
    }
    Err(failure)
}

/// Puts the request into the protocol of the endpoint, and says under which name it goes there.
pub(crate) fn prepare<'u>(
    upstream: &'u Arc<Upstream>,
    request: &mut Request<RequestBody>,
    upgrade: &mut Option<Box<Upgrade>>,
) -> Result<Aim<'u>, Fault> {
    let aim = Aim { upstream, name: request.headers().get(HOST).filter(|_| upstream.key.tls.is_some()).map(Name::of) };
    match upstream.key.protocol {
        Protocol::Http1 => {
            *request.version_mut() = Version::HTTP_11;
            if !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
                // hyper would leave out the body of a GET that does not say so.
                request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            if let Some(upgrade) = upgrade {
                upgrade.ask(request.headers_mut());
            }
        }
        Protocol::Http2 => {
            if upgrade.take().is_some_and(|upgrade| !upgrade.may_be_ignored()) {
                return Err(Fault::Protocol);
            }
            put_into_http2(request, scheme(&upstream.key))?;
        }
    }
    Ok(aim)
}

/// What may be sent again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replay {
    /// All of the request is there.
    pub(crate) whole: bool,
    /// Twice is as good as once.
    pub(crate) idempotent: bool,
    /// A kept-alive connection that turns out to be gone may cost a request another try.
    pub(crate) stale: bool,
}

/// One try at one endpoint: over a connection that was kept, or else a new one, which has to be there by `end`.
pub(crate) async fn attempt(
    peer: &Rc<Peer>,
    aim: &Aim<'_>,
    address: SocketAddr,
    request: &mut Option<Request<RequestBody>>,
    upgrade: &mut Option<Box<Upgrade>>,
    replay: Replay,
    end: Option<Instant>,
) -> Result<Response<Source>, Lost> {
    let pools = &peer.worker.pools;
    let copying = match aim.upstream.key.protocol {
        // It can say that it has not looked at a request, whatever the method.
        Protocol::Http2 if !replay.whole => Copying::Lend,
        Protocol::Http2 => Copying::Whole,
        Protocol::Http1 if replay.whole && replay.idempotent => Copying::Whole,
        Protocol::Http1 => Copying::No,
    };
    let mut refusable = replay.stale;
    let replayable = replay.whole && replay.idempotent && replay.stale;
    let age = if replayable { Duration::MAX } else { FRESH };
    while let Some(connection) = pools.idle(aim, address, age) {
        match send(peer, connection, request, upgrade, copying).await {
            Err(Lost::Unsent) => {}
            Err(Lost::Unprocessed) if refusable && request.is_some() => {
                refusable = false;
                pools.replayed();
                break;
            }
            Err(Lost::Unanswered) if replayable => {
                pools.replayed();
                // If one has gone stale the others may have too, and this request shall not find out about each.
                break;
            }
            outcome => {
                if outcome.is_ok() {
                    aim.upstream.succeeded(address);
                }
                return outcome;
            }
        }
    }
    loop {
        peer.activity.connecting.set(true);
        // Boxed: connecting is rare, and what it needs meanwhile would be set aside for every connection of a client.
        let connect = Box::pin(async {
            let limit = peer.activity.told.get().connect();
            let connecting = pools.connect(aim, address, limit);
            let end = [end, limit.map(|limit| Instant::now() + limit)].into_iter().flatten().min();
            let Some(end) = end else { return connecting.await };
            let began = Instant::now();
            // The end of a rule's patience says nothing about the endpoint; only that of our own makes it one to pass over.
            timeout_at(end, connecting)
                .await
                .unwrap_or_else(|_| Err(ConnectFailure::TimedOut(address, began.elapsed())))
        });
        let Some(connected) = patiently(&peer.activity, connect).await else {
            return Err(Lost::Unconnected(Fault::ConnectTimeout));
        };
        peer.activity.connecting.set(false);
        if !peer.activity.told.get().is_nothing() {
            // Its silence counts from here.
            peer.activity.moved();
        }
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, upstream = %aim.upstream.key, "Cannot connect");
                return Err(match error {
                    ConnectFailure::TimedOut(..) | ConnectFailure::Handshake(_, HandshakeFailure::TimedOut(_)) => {
                        Lost::Unconnected(Fault::ConnectTimeout)
                    }
                    ConnectFailure::Handshake(..) => Lost::Unconnected(Fault::Handshake),
                    ConnectFailure::Foreign(_) => Lost::Unconnected(Fault::BadAnswer),
                    ConnectFailure::Refused(_) | ConnectFailure::Failed(..) => Lost::Unconnected(Fault::Refused),
                    // Another endpoint would need a connection as well.
                    ConnectFailure::NoRoom(..) => Lost::Fault(Fault::Crowded),
                });
            }
        };
        match send(peer, connection, request, upgrade, copying).await {
            Err(Lost::Unprocessed) if refusable && request.is_some() => {
                refusable = false;
                pools.replayed();
            }
            outcome => return outcome,
        }
    }
}

/// What is kept of a request while it is being sent.
#[derive(Clone, Copy, Debug)]
enum Copying {
    No,
    /// All of it is there, so that it can be sent a second time.
    Whole,
    /// It can be sent a second time if an endpoint says that it has not looked at it.
    Lend,
}

/// What became of a request that got no answer.
pub(crate) enum Lost {
    /// There is no connection that it could have been sent on.
    Unconnected(Fault),
    /// Not a byte of it was sent; it is back where it was.
    Unsent,
    /// The endpoint says that it has not looked at it. What is left to send again is a copy, if one was kept.
    Unprocessed,
    /// The connection closed before a byte of the answer came.
    Unanswered,
    Fault(Fault),
}

impl Lost {
    fn by(error: &hyper::Error) -> Self {
        let source = std::error::Error::source(error);
        if let Some(error) = source.and_then(|source| source.downcast_ref::<h2::Error>()) {
            let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
            // Streams that a GOAWAY still covers go on, whatever its reason, and end with the connection; the library tells
            // only the others of it, and those were not looked at (RFC 9113, section 6.8).
            let beyond = error.is_go_away();
            return match error {
                error if error.is_remote() && (refused || beyond) => Lost::Unprocessed,
                error if error.is_io() || error.is_go_away() => Lost::Unanswered,
                _ => Lost::Fault(Fault::BadAnswer),
            };
        }
        let is_io = source.is_some_and(|source| source.is::<std::io::Error>());
        if error.is_incomplete_message() || error.is_canceled() || error.is_closed() || is_io {
            Lost::Unanswered
        } else {
            Lost::Fault(Fault::BadAnswer)
        }
    }

    pub(crate) fn fault(self) -> Fault {
        match self {
            Lost::Unsent | Lost::Unprocessed | Lost::Unanswered => Fault::NoAnswer,
            Lost::Unconnected(fault) | Lost::Fault(fault) => fault,
        }
    }

    /// Whether it is certain that nobody has done what it asks for.
    pub(crate) fn was_not_processed(&self) -> bool {
        match self {
            Lost::Unconnected(_) | Lost::Unsent | Lost::Unprocessed => true,
            Lost::Unanswered | Lost::Fault(_) => false,
        }
    }
}

async fn send(
    peer: &Rc<Peer>,
    mut connection: Connection<RequestBody>,
    request: &mut Option<Request<RequestBody>>,
    upgrade: &mut Option<Box<Upgrade>>,
    copying: Copying,
) -> Result<Response<Source>, Lost> {
    let activity = &peer.activity;
    let sending = {
        let mut original =
            request.take().expect("what was not sent is put back, and what was is not sent again without copy");
        let body = match copying {
            Copying::No => None,
            Copying::Whole => Some(original.body().again()),
            Copying::Lend => Some(original.body_mut().lend(peer.worker.limits.replay_body)),
        };
        *request = body.map(|body| copy(&original, body, &peer.worker.spares));
        connection.send(original)
    };
    let outcome = patiently(activity, sending).await;
    let mut answer = match outcome {
        None if activity.upload.get() == Upload::Awaited => return Err(Lost::Fault(Fault::UploadTimeout)),
        None => return Err(Lost::Fault(Fault::AnswerTimeout)),
        Some(Ok(answer)) => answer,
        Some(Err(mut error)) => {
            if let Some(unsent) = error.take_message() {
                *request = Some(unsent);
                return Err(Lost::Unsent);
            }
            if activity.oversized.get() {
                return Err(Lost::Fault(Fault::TooLarge));
            }
            if activity.broken.get() {
                return Err(Lost::Fault(Fault::Body));
            }
            let error = error.into_error();
            tracing::debug!(%error, address = %connection.address, "No answer");
            let lost = match Lost::by(&error) {
                Lost::Unanswered if connection.was_refused() => Lost::Fault(Fault::Handshake),
                // Who has begun to answer has looked at it.
                Lost::Unanswered if connection.has_begun_to_answer() => Lost::Fault(Fault::NoAnswer),
                lost => lost,
            };
            if let Copying::Lend = copying {
                let unprocessed = request.take_if(|_| matches!(lost, Lost::Unprocessed));
                *request = unprocessed.and_then(recall);
            }
            return Err(lost);
        }
    };
    if answer.headers().len() > peer.worker.limits.max_answer_fields {
        return Err(Lost::Fault(Fault::BadAnswer));
    }
    let switched = if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        // Whoever switches to what we have not asked for is not talking to us.
        let upgrade = upgrade.take().filter(|upgrade| upgrade.is_answered_by(answer.headers()));
        let upgrade = upgrade.ok_or(Lost::Fault(Fault::BadAnswer))?;
        Some((upgrade, hyper::upgrade::on(&mut answer)))
    } else if upgrade.as_ref().is_some_and(|upgrade| upgrade.is_confused_by(answer.status())) {
        return Err(Lost::Fault(Fault::BadAnswer));
    } else {
        None
    };
    let (mut head, incoming) = answer.into_parts();
    framing::settle_answer(&mut head.headers).map_err(Lost::Fault)?;
    strip_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
    Ok(Response::from_parts(
        head,
        match switched {
            Some((upgrade, endpoint)) => Source::Switched(upgrade, endpoint),
            None => Source::Upstream { incoming, connection: Some(connection) },
        },
    ))
}

/// None if the patience of the connection's timer ends first: it then polls everything once more, and this gives up.
pub(crate) async fn patiently<T>(activity: &Activity, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending if activity.overdue.get() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// HTTP/2 has the host and the scheme in the target.
pub(crate) fn put_into_http2<B>(request: &mut Request<B>, scheme: Scheme) -> Result<(), Fault> {
    let host = request.headers_mut().remove(HOST).ok_or(Fault::Rewrite)?;
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    target.authority = Some(Authority::try_from(host.as_bytes()).map_err(|_| Fault::Rewrite)?);
    target.scheme = Some(scheme);
    *request.uri_mut() = Uri::from_parts(target).map_err(|_| Fault::Rewrite)?;
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

pub(crate) fn scheme(key: &UpstreamKey) -> Scheme {
    if key.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
}

fn copy(request: &Request<RequestBody>, body: RequestBody, spares: &Spares) -> Request<RequestBody> {
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = spares.copy(request.headers());
    copy
}

fn recall(request: Request<RequestBody>) -> Option<Request<RequestBody>> {
    let (head, body) = request.into_parts();
    Some(Request::from_parts(head, body.recall()?))
}

/// RFC 9110, section 9.2.2.
pub(crate) fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE].contains(method)
}

/// A request that must not be sent twice takes only a connection that was used a moment ago: servers commonly close theirs
/// after 5 seconds or more, and a request that crosses the close is lost.
pub(super) const FRESH: Duration = Duration::from_secs(3);

/// Endpoints that one request may try to connect to, if its rule says nothing about it.
pub(crate) const ENDPOINTS: usize = 3;
