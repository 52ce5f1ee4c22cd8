//! Forwarding under a rule with timeouts or retries (GEP-1742 and GEP-1731).
//!
//! A request that was certainly not processed is retried. An idempotent request with a buffered body is also retried
//! after one of the rule's status codes, after the timeout of one attempt, or if the endpoint closes the connection
//! without a response. Within an attempt, a request may be sent again on a new connection, as `forward.rs` describes.
//! Each retry needs a place in the retry budget of the Service (GEP-3388).

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response};
use http_body::Body;
use smallvec::SmallVec;
use tokio::time::{Instant, sleep, timeout_at};

use super::attempt::AttemptError;
use super::outgoing_request::{OutgoingRequest, ReplayPolicy, is_idempotent};
use super::request_body::RequestBody;
use crate::proxy::buffer_budget::BufferUse;
use crate::proxy::http::client::activity::until_timed_out;
use crate::proxy::http::client::client_connection::Peer;
use crate::proxy::http::client::read_timeout::RuleTimeouts;
use crate::proxy::http::client::response_body::BodySource;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::record::request_record::{RequestRecord, ResponseDeadline};
use crate::proxy::http::steps::rule_action::Destination;
use crate::proxy::limits::MAX_ENDPOINTS;
use crate::snapshot::timeouts_and_retries::{RetryPolicy, TimeoutsAndRetries};
use crate::upstream::Upstream;

/// Forwards a request, and enforces the request timeout of the rule.
pub(in crate::proxy) async fn forward_with_retries(
    destination: Destination<'_>,
    policy: &TimeoutsAndRetries,
    request: Request<RequestBody>,
    record: &mut RequestRecord,
) -> Result<Response<BodySource>, RequestError> {
    record.peer.activity.rule_timeouts.set(RuleTimeouts::from_rule(policy));
    let attempts = run_attempts(destination, policy, request, record);
    let Some(limit) = policy.request.duration() else { return attempts.await };
    let end = Instant::now() + limit;
    let Ok(outcome) = timeout_at(end, attempts).await else { return Err(RequestError::RequestTimeout) };
    // `run_attempts` may have set the deadline of the attempt; the earlier of the two applies.
    if record.deadline.as_ref().is_none_or(|deadline| deadline.sleep.deadline() > end) {
        record.deadline = Some(ResponseDeadline::new(end, RequestError::RequestTimeout));
    }
    outcome
}

/// Runs attempts until one returns a response that is not retried, or no further attempt is allowed.
async fn run_attempts(
    destination: Destination<'_>,
    policy: &TimeoutsAndRetries,
    mut request: Request<RequestBody>,
    record: &mut RequestRecord,
) -> Result<Response<BodySource>, RequestError> {
    let peer = Rc::clone(&record.peer);
    let (upstream, retry) = (destination.upstream, policy.retry.as_ref());
    let replay = ReplayPolicy {
        complete: buffer_body(&peer, &mut request, policy, &upstream.key.namespace).await?,
        idempotent: is_idempotent(request.method()),
        allows_resending: retry.is_none_or(|retry| retry.max_retries > 0),
    };
    let mut outgoing = OutgoingRequest::new(Rc::clone(&peer), destination, request, replay)?;
    let max_retries = retry.map_or(MAX_ENDPOINTS - 1, |retry| usize::try_from(retry.max_retries).unwrap_or(usize::MAX));
    let mut tried = TriedEndpoints::new();
    let mut retries = 0;
    let budget = upstream.begin_request();
    let mut first = outgoing.session_endpoint.take();
    tried.extend(first);
    loop {
        let next = first.take().or_else(|| next_endpoint(&peer, upstream, &mut tried, retry));
        let address = next.ok_or(RequestError::NoEndpoints)?;
        record.start_attempt(address);
        peer.activity.record_progress();
        let attempt_deadline = policy.backend_request.duration().map(|limit| Instant::now() + limit);
        let attempt = outgoing.attempt(address, attempt_deadline);
        let outcome = match attempt_deadline {
            None => attempt.await,
            Some(deadline) => timeout_at(deadline, attempt)
                .await
                .unwrap_or(Err(AttemptError::Failed(RequestError::BackendRequestTimeout))),
        };
        record.end_attempt(&outcome, &mut outgoing);
        let is_last = retries >= max_retries;
        let (failure, without_delay) = match outcome {
            Ok(response) if is_last || !is_retried_status(retry, replay, &response) => {
                record.deadline = attempt_deadline
                    .map(|deadline| ResponseDeadline::new(deadline, RequestError::BackendRequestTimeout));
                outgoing.recycle();
                return Ok(response);
            }
            Ok(response) => {
                release_connection(response);
                // This error is returned only if a timeout expires before the retry.
                (RequestError::ResponseTimeout, false)
            }
            Err(error) => {
                let was_not_processed = error.was_not_processed();
                let may_retry = was_not_processed || is_retried_if_processed(retry, replay, &error);
                let error = error.request_error();
                if is_last || !may_retry || !outgoing.can_be_sent() || peer.activity.timed_out.get() {
                    return Err(error);
                }
                // An unprocessed request goes to the next untried endpoint without delay.
                (error, was_not_processed && upstream.reachable().len() > tried.len())
            }
        };
        if !without_delay && retry.is_none() {
            return Err(failure);
        }
        // Before the delay, so that requests that wait for their retry count.
        if budget.as_ref().is_some_and(|budget| !budget.take_retry()) {
            peer.http.pools.count_refused_retry();
            return Err(RequestError::RetryBudget);
        }
        if let Some(retry) = retry.filter(|_| !without_delay) {
            let wait = retry.backoff_delay(u32::try_from(retries).unwrap_or(u32::MAX), fastrand::f64());
            if !wait.is_zero() && until_timed_out(&peer.activity, sleep(wait)).await.is_none() {
                return Err(failure);
            }
        }
        retries += 1;
        if retry.is_some() {
            peer.http.pools.count_retry();
        }
    }
}

/// The endpoints that were tried for a request. Usually there is only one.
type TriedEndpoints = SmallVec<[SocketAddr; 2]>;

/// The next endpoint, different for each attempt. After all were tried, they are reused if the rule has retries.
fn next_endpoint(
    peer: &Peer,
    upstream: &Arc<Upstream>,
    tried: &mut TriedEndpoints,
    retry: Option<&RetryPolicy>,
) -> Option<SocketAddr> {
    let pools = &peer.http.pools;
    let address = pools.next_endpoint(upstream, tried).or_else(|| {
        retry?;
        // Avoids the endpoint that has just failed, if there is another.
        let last = tried.pop();
        tried.clear();
        let avoid_none = [];
        pools.next_endpoint(upstream, last.as_slice()).or_else(|| pools.next_endpoint(upstream, &avoid_none))
    })?;
    tried.push(address);
    Some(address)
}

/// Whether the whole request is available. Buffers the body if the rule may retry the request.
async fn buffer_body(
    peer: &Peer,
    request: &mut Request<RequestBody>,
    policy: &TimeoutsAndRetries,
    namespace: &str,
) -> Result<bool, RequestError> {
    if request.body().is_end_stream() {
        return Ok(true);
    }
    if !is_idempotent(request.method()) {
        return Ok(false);
    }
    let may_retry = |retry: &RetryPolicy| {
        retry.max_retries > 0 && (!retry.codes.is_empty() || policy.backend_request.duration().is_some())
    };
    if !policy.retry.as_ref().is_some_and(may_retry) {
        return Ok(false);
    }
    let max_bytes = peer.worker().limits.max_replay_body;
    let buffering = request.body_mut().buffer_up_to(max_bytes, BufferUse::Replay, namespace);
    match until_timed_out(&peer.activity, buffering).await {
        None => Err(peer.activity.body_timeout_error()),
        Some(Err(_)) => Err(RequestError::InvalidBody),
        Some(Ok(is_whole)) => Ok(is_whole),
    }
}

/// Whether the response has one of the rule's retry codes, and the request can be sent again.
fn is_retried_status(retry: Option<&RetryPolicy>, replay: ReplayPolicy, response: &Response<BodySource>) -> bool {
    let is_listed = |retry: &RetryPolicy| retry.codes.binary_search(&response.status().as_u16()).is_ok();
    replay.complete && replay.idempotent && retry.is_some_and(is_listed)
}

/// Whether the request is retried although it may have been processed: it must be idempotent and available as a whole,
/// and the attempt has timed out, or the endpoint has closed the connection without a byte of a response.
fn is_retried_if_processed(retry: Option<&RetryPolicy>, replay: ReplayPolicy, error: &AttemptError) -> bool {
    let is_retried =
        matches!(error, AttemptError::NoResponse | AttemptError::Failed(RequestError::BackendRequestTimeout));
    is_retried && retry.is_some() && replay.complete && replay.idempotent
}

/// Returns the connection of a discarded response to its pool, if there is no body left to read.
fn release_connection(response: Response<BodySource>) {
    let body = response.into_body();
    if body.is_end_stream() {
        body.release();
    }
}
