//! Sending a request to an endpoint: which one, over which connection, and how often.
//!
//! Nothing is sent twice that may have been processed: a connect that failed sent nothing; a kept-alive connection that
//! closes without an answer was closed by its peer before it saw the request, or the method says that twice is as good as
//! once and there is no body.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::TRANSFER_ENCODING;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, request};
use http_body::Body;

use super::body::{RequestBody, Source};
use super::connection::Peer;
use super::exchange::Exchange;
use super::fault::Fault;
use super::framing;
use super::headers::strip_hop_by_hop;
use crate::upstream::{ConnectFailure, Connection, Upstream};

pub(crate) async fn forward(
    peer: &Rc<Peer>,
    upstream: &Arc<Upstream>,
    mut head: request::Parts,
    body: RequestBody,
    exchange: &mut Exchange,
) -> Result<Response<Source>, Fault> {
    let pools = &peer.worker.pools;
    head.version = Version::HTTP_11;
    let empty = body.is_end_stream();
    if !empty && body.size_hint().exact().is_none() {
        // hyper would leave out the body of a GET that does not say so.
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let replayable = empty && is_idempotent(&head.method);
    let mut request = Request::from_parts(head, body);
    let mut failure = Fault::NoEndpoints;

    for address in pools.turn(upstream) {
        exchange.address = Some(address);
        let age = if replayable { Duration::MAX } else { FRESH };
        while let Some(connection) = pools.idle(upstream, address, age) {
            let spare = replayable.then(|| copy(&request, peer));
            request = match send(peer, connection, request).await {
                Ok(answer) => return Ok(answer),
                Err(Lost::Unsent(request)) => *request,
                Err(Lost::Unanswered) => {
                    let Some(spare) = spare else { return Err(Fault::NoAnswer) };
                    pools.replayed();
                    // If one has gone stale the others may have too, and this request shall not find out about each.
                    request = spare;
                    break;
                }
                Err(Lost::Fault(fault)) => return Err(fault),
            };
        }
        match pools.connect(upstream, address).await {
            Ok(connection) => match send(peer, connection, request).await {
                Ok(answer) => return Ok(answer),
                Err(Lost::Unsent(unsent)) => {
                    request = *unsent;
                    failure = Fault::NoAnswer;
                }
                Err(Lost::Unanswered) => return Err(Fault::NoAnswer),
                Err(Lost::Fault(fault)) => return Err(fault),
            },
            Err(error) => {
                tracing::debug!(%error, upstream = %upstream.key, "Cannot connect");
                failure = match error {
                    ConnectFailure::TimedOut(..) => Fault::ConnectTimeout,
                    ConnectFailure::Refused(_) | ConnectFailure::Failed(..) => Fault::Refused,
                };
            }
        }
    }
    Err(failure)
}

/// What became of a request that got no answer.
enum Lost {
    /// Not a byte of it was sent.
    Unsent(Box<Request<RequestBody>>),
    /// The connection closed before the answer began.
    Unanswered,
    Fault(Fault),
}

async fn send(
    peer: &Rc<Peer>,
    mut connection: Connection<RequestBody>,
    request: Request<RequestBody>,
) -> Result<Response<Source>, Lost> {
    let activity = &peer.activity;
    let outcome = {
        let mut answer = pin!(connection.send(request));
        poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            // The connection's timer ran out and polls everything once more.
            Poll::Pending if activity.overdue.get() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    };
    let answer = match outcome {
        None if activity.uploading.get() => return Err(Lost::Fault(Fault::UploadTimeout)),
        None => return Err(Lost::Fault(Fault::AnswerTimeout)),
        Some(Ok(answer)) => answer,
        Some(Err(mut error)) => {
            if let Some(request) = error.take_message() {
                return Err(Lost::Unsent(Box::new(request)));
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

fn is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

fn copy(request: &Request<RequestBody>, peer: &Rc<Peer>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty(peer));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// RFC 9110, section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE].contains(method)
}

/// A request that must not be sent twice takes only a connection that was used a moment ago: servers commonly close theirs
/// after 5 seconds or more, and a request that crosses the close is lost.
const FRESH: Duration = Duration::from_secs(3);
