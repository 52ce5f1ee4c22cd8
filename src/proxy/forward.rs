//! Sending a request to an endpoint: which one, over which connection, and how often.
//!
//! Nothing is sent twice that may have been processed: a connect that failed sent nothing; a kept-alive connection that
//! closes without an answer was closed by its peer before it saw the request, or the method says that twice is as good as
//! once and there is no body.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::TRANSFER_ENCODING;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use tokio::time::{Instant, timeout_at};

use super::activity::Activity;
use super::body::{RequestBody, Source};
use super::connection::Peer;
use super::exchange::Exchange;
use super::fault::Fault;
use super::framing;
use super::headers::strip_hop_by_hop;
use super::spares::Spares;
use crate::upstream::{ConnectFailure, Connection, Upstream};

pub(crate) async fn forward(
    upstream: &Arc<Upstream>,
    mut request: Request<RequestBody>,
    exchange: &mut Exchange,
) -> Result<Response<Source>, Fault> {
    let peer = Rc::clone(&exchange.peer);
    prepare(&mut request);
    let replay = Replay { whole: request.body().is_end_stream() && is_idempotent(request.method()), stale: true };
    let mut failure = Fault::NoEndpoints;
    // What is still to be sent. While an attempt runs, a copy of what it sends, if it may be sent again.
    let mut request = Some(request);
    // Empty, and so without memory, unless something fails.
    let mut tried = Vec::new();
    while tried.len() < ENDPOINTS
        && let Some(address) = peer.worker.pools.next(upstream, &tried)
    {
        exchange.address = Some(address);
        match attempt(&peer, upstream, address, &mut request, replay, None).await {
            Ok(answer) => {
                if let Some(copy) = request {
                    peer.worker.spares.give_back(copy.into_parts().0.headers);
                }
                return Ok(answer);
            }
            Err(lost @ (Lost::Unsent | Lost::Fault(Fault::Refused | Fault::ConnectTimeout)))
                if !peer.activity.overdue.get() =>
            {
                failure = lost.fault();
                tried.push(address);
            }
            Err(lost) => return Err(lost.fault()),
        }
    }
    Err(failure)
}

/// Makes the request one of HTTP/1.1.
pub(crate) fn prepare(request: &mut Request<RequestBody>) {
    *request.version_mut() = Version::HTTP_11;
    if !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
        // hyper would leave out the body of a GET that does not say so.
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// What may be sent again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replay {
    /// All of the request is there, and twice is as good as once.
    pub(crate) whole: bool,
    /// A kept-alive connection that turns out to be gone may cost a request another try.
    pub(crate) stale: bool,
}

/// One try at one endpoint: over a connection that was kept, or else a new one, which has to be there by `end`.
pub(crate) async fn attempt(
    peer: &Rc<Peer>,
    upstream: &Arc<Upstream>,
    address: SocketAddr,
    request: &mut Option<Request<RequestBody>>,
    replay: Replay,
    end: Option<Instant>,
) -> Result<Response<Source>, Lost> {
    let pools = &peer.worker.pools;
    let replayable = replay.whole && replay.stale;
    let age = if replayable { Duration::MAX } else { FRESH };
    while let Some(connection) = pools.idle(upstream, address, age) {
        match send(peer, connection, request, replay.whole).await {
            Err(Lost::Unsent) => {}
            Err(Lost::Unanswered) if replayable => {
                pools.replayed();
                // If one has gone stale the others may have too, and this request shall not find out about each.
                break;
            }
            outcome => return outcome,
        }
    }
    // Boxed: connecting is rare, and what it needs meanwhile would be set aside for every connection of a client.
    let connect = Box::pin(async {
        let connecting = pools.connect(upstream, address);
        let Some(end) = end else { return connecting.await };
        let began = Instant::now();
        timeout_at(end, connecting).await.unwrap_or_else(|_| {
            upstream.failed(address);
            Err(ConnectFailure::TimedOut(address, began.elapsed()))
        })
    });
    let Some(connected) = patiently(&peer.activity, connect).await else {
        return Err(Lost::Fault(Fault::ConnectTimeout));
    };
    match connected {
        Ok(connection) => send(peer, connection, request, replay.whole).await,
        Err(error) => {
            tracing::debug!(%error, upstream = %upstream.key, "Cannot connect");
            Err(Lost::Fault(match error {
                ConnectFailure::TimedOut(..) => Fault::ConnectTimeout,
                ConnectFailure::Refused(_) | ConnectFailure::Failed(..) => Fault::Refused,
            }))
        }
    }
}

/// What became of a request that got no answer.
pub(crate) enum Lost {
    /// Not a byte of it was sent; it is back where it was.
    Unsent,
    /// The connection closed before the answer began.
    Unanswered,
    Fault(Fault),
}

impl Lost {
    pub(crate) fn fault(self) -> Fault {
        match self {
            Lost::Unsent | Lost::Unanswered => Fault::NoAnswer,
            Lost::Fault(fault) => fault,
        }
    }
}

async fn send(
    peer: &Rc<Peer>,
    mut connection: Connection<RequestBody>,
    request: &mut Option<Request<RequestBody>>,
    keep_copy: bool,
) -> Result<Response<Source>, Lost> {
    let activity = &peer.activity;
    let sending = {
        let original =
            request.take().expect("what was not sent is put back, and what was is not sent again without copy");
        if keep_copy {
            *request = Some(copy(&original, &peer.worker.spares));
        }
        connection.send(original)
    };
    let outcome = patiently(activity, sending).await;
    let answer = match outcome {
        None if activity.uploading.get() => return Err(Lost::Fault(Fault::UploadTimeout)),
        None => return Err(Lost::Fault(Fault::AnswerTimeout)),
        Some(Ok(answer)) => answer,
        Some(Err(mut error)) => {
            if let Some(unsent) = error.take_message() {
                *request = Some(unsent);
                return Err(Lost::Unsent);
            }
            if activity.broken.get() {
                return Err(Lost::Fault(Fault::Body));
            }
            let error = error.into_error();
            tracing::debug!(%error, address = %connection.address, "No answer");
            let unanswered = error.is_incomplete_message() || error.is_canceled() || error.is_closed() || is_io(&error);
            return Err(if unanswered { Lost::Unanswered } else { Lost::Fault(Fault::BadAnswer) });
        }
    };
    // We never ask for another protocol, so whoever switches to one is not talking to us.
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Lost::Fault(Fault::BadAnswer));
    }
    let (mut head, incoming) = answer.into_parts();
    framing::settle_answer(&mut head.headers).map_err(Lost::Fault)?;
    strip_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
    Ok(Response::from_parts(head, Source::Upstream { incoming, connection: Some(connection) }))
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

fn is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

fn copy(request: &Request<RequestBody>, spares: &Spares) -> Request<RequestBody> {
    let mut copy = Request::new(request.body().again());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = spares.copy(request.headers());
    copy
}

/// RFC 9110, section 9.2.2.
pub(crate) fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE].contains(method)
}

/// A request that must not be sent twice takes only a connection that was used a moment ago: servers commonly close theirs
/// after 5 seconds or more, and a request that crosses the close is lost.
const FRESH: Duration = Duration::from_secs(3);

/// Endpoints that one request may try to connect to, if its rule says nothing about it.
pub(crate) const ENDPOINTS: usize = 3;
