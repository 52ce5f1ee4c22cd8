//! Forwarding under a rule that says how long it may take and how often it is tried (`gateway-api.md` §3.6).
//!
//! Tried again is what was certainly not processed, and, for idempotent methods whose body is small enough to be kept, what
//! was answered with one of the rule's codes or not answered within the time of one try. Nothing else is sent twice.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response};
use http_body::Body;
use tokio::time::{Instant, sleep, timeout_at};

use super::body::{RequestBody, Source};
use super::connection::Peer;
use super::exchange::{CutOff, Exchange};
use super::fault::Fault;
use super::forward::{ENDPOINTS, Lost, Replay, attempt, is_idempotent, patiently, prepare};
use crate::snapshot::tries::{Retry, Tries};
use crate::upstream::Upstream;

pub(crate) async fn forward(
    upstream: &Arc<Upstream>,
    request: Request<RequestBody>,
    exchange: &mut Exchange,
    tries: &Tries,
) -> Result<Response<Source>, Fault> {
    exchange.peer.activity.patient.set(tries.decides_patience());
    let Some(limit) = tries.request.duration() else { return all(upstream, request, exchange, tries).await };
    let end = Instant::now() + limit;
    let Ok(outcome) = timeout_at(end, all(upstream, request, exchange, tries)).await else {
        return Err(Fault::RequestTimeout);
    };
    if exchange.cut_off.as_ref().is_none_or(|cut_off| cut_off.sleep.deadline() > end) {
        exchange.cut_off = Some(CutOff::at(end, Fault::RequestTimeout));
    }
    outcome
}

/// All tries.
async fn all(
    upstream: &Arc<Upstream>,
    mut request: Request<RequestBody>,
    exchange: &mut Exchange,
    tries: &Tries,
) -> Result<Response<Source>, Fault> {
    let peer = Rc::clone(&exchange.peer);
    let pools = &peer.worker.pools;
    let retry = tries.retry.as_ref();
    let replay = Replay {
        whole: is_replayable(&peer, &mut request, tries).await?,
        stale: retry.is_none_or(|retry| retry.attempts > 0),
    };
    prepare(&peer, upstream, &mut request)?;
    let most = retry.map_or(ENDPOINTS - 1, |retry| usize::try_from(retry.attempts).unwrap_or(usize::MAX));
    let mut request = Some(request);
    let mut tried = Vec::new();
    let mut further = 0;
    loop {
        let Some(address) = next(&peer, upstream, &mut tried, retry) else { return Err(Fault::NoEndpoints) };
        exchange.address = Some(address);
        peer.activity.moved();
        let end = tries.backend_request.duration().map(|limit| Instant::now() + limit);
        let trying = attempt(&peer, upstream, address, &mut request, replay, end);
        let outcome = match end {
            None => trying.await,
            Some(end) => timeout_at(end, trying).await.unwrap_or(Err(Lost::Fault(Fault::BackendTimeout))),
        };
        let is_last = further >= most;
        let failure = match outcome {
            Ok(answer) if !is_last && replay.whole && retry.is_some_and(|retry| refuses(retry, &answer)) => {
                discard(answer);
                None
            }
            Ok(answer) => {
                exchange.cut_off = end.map(|end| CutOff::at(end, Fault::BackendTimeout));
                return Ok(answer);
            }
            Err(lost) => {
                let again = match lost {
                    Lost::Unsent | Lost::Unprocessed | Lost::Fault(Fault::Refused | Fault::ConnectTimeout) => true,
                    Lost::Fault(Fault::BackendTimeout) => retry.is_some(),
                    Lost::Unanswered | Lost::Fault(_) => false,
                };
                let fault = lost.fault();
                // It is there if it was not sent, or if it may be sent again.
                if is_last || !again || request.is_none() || peer.activity.overdue.get() {
                    return Err(fault);
                }
                Some(fault)
            }
        };
        let another = upstream.reachable().len() > tried.len();
        match (failure, retry) {
            // The next one knows nothing of it.
            (Some(Fault::Refused | Fault::ConnectTimeout | Fault::NoAnswer), _) if another => {}
            (Some(fault), None) => return Err(fault),
            (_, retry) => {
                let wait = retry.map(|retry| retry.wait(u32::try_from(further).unwrap_or(u32::MAX), fastrand::f64()));
                if let Some(wait) = wait.filter(|wait| !wait.is_zero())
                    && patiently(&peer.activity, sleep(wait)).await.is_none()
                {
                    return Err(failure.unwrap_or(Fault::AnswerTimeout));
                }
            }
        }
        further += 1;
        if retry.is_some() {
            pools.retried();
        }
    }
}

/// Another endpoint on each try. When all have been tried, they are tried again if the rule says so.
fn next(
    peer: &Peer,
    upstream: &Arc<Upstream>,
    tried: &mut Vec<SocketAddr>,
    retry: Option<&Retry>,
) -> Option<SocketAddr> {
    let pools = &peer.worker.pools;
    let address = pools.next(upstream, tried).or_else(|| {
        retry?;
        // Not the one that has just failed, if there is a choice.
        let last = tried.pop();
        tried.clear();
        pools.next(upstream, last.as_slice()).or_else(|| pools.next(upstream, &[]))
    })?;
    tried.push(address);
    Some(address)
}

/// Whether the whole request may be sent again, after reading its body ahead if something may come of that.
async fn is_replayable(peer: &Peer, request: &mut Request<RequestBody>, tries: &Tries) -> Result<bool, Fault> {
    if !is_idempotent(request.method()) {
        return Ok(false);
    }
    if request.body().is_end_stream() {
        return Ok(true);
    }
    let may_come =
        |retry: &Retry| retry.attempts > 0 && (!retry.codes.is_empty() || tries.backend_request.duration().is_some());
    if !tries.retry.as_ref().is_some_and(may_come) {
        return Ok(false);
    }
    let most = peer.worker.limits.replay_body;
    match patiently(&peer.activity, request.body_mut().read_ahead(most)).await {
        None => Err(Fault::UploadTimeout),
        Some(Err(_)) => Err(Fault::Body),
        Some(Ok(whole)) => Ok(whole),
    }
}

fn refuses(retry: &Retry, answer: &Response<Source>) -> bool {
    retry.codes.binary_search(&answer.status().as_u16()).is_ok()
}

/// Without a body to read, its connection can take the next request.
fn discard(answer: Response<Source>) {
    if let Source::Upstream { incoming, connection: Some(connection) } = answer.into_body()
        && incoming.is_end_stream()
    {
        connection.keep();
    }
}
