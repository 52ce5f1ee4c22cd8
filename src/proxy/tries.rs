//! Forwarding under a rule that says how long it may take and how often it is tried (`gateway-api.md` §3.6).
//!
//! Tried again is what was certainly not processed, and, for idempotent methods whose body is small enough to be kept, what
//! was answered with one of the rule's codes or not answered within the time of one try. Nothing else is sent twice.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response};
use http_body::Body;
use smallvec::SmallVec;
use tokio::time::{Instant, sleep, timeout_at};

use super::body::{RequestBody, Source};
use super::connection::Peer;
use super::exchange::{CutOff, Exchange};
use super::fault::Fault;
use super::forward::{ENDPOINTS, Lost, Replay, attempt, is_idempotent, patiently, prepare};
use super::silence::Told;
use super::upgrade::Upgrade;
use crate::snapshot::tries::{Retry, Tries};
use crate::upstream::Upstream;

pub(crate) async fn forward(
    upstream: &Arc<Upstream>,
    request: Request<RequestBody>,
    upgrade: Option<Box<Upgrade>>,
    exchange: &mut Exchange,
    tries: &Tries,
) -> Result<Response<Source>, Fault> {
    let activity = &exchange.peer.activity;
    activity.patient.set(tries.decides_patience());
    activity.told.set(Told::of(tries));
    let all = all(upstream, request, upgrade, exchange, tries);
    let Some(limit) = tries.request.duration() else { return all.await };
    let end = Instant::now() + limit;
    let Ok(outcome) = timeout_at(end, all).await else { return Err(Fault::RequestTimeout) };
    if exchange.cut_off.as_ref().is_none_or(|cut_off| cut_off.sleep.deadline() > end) {
        exchange.cut_off = Some(CutOff::at(end, Fault::RequestTimeout));
    }
    outcome
}

/// All tries.
async fn all(
    upstream: &Arc<Upstream>,
    mut request: Request<RequestBody>,
    mut upgrade: Option<Box<Upgrade>>,
    exchange: &mut Exchange,
    tries: &Tries,
) -> Result<Response<Source>, Fault> {
    let peer = Rc::clone(&exchange.peer);
    let pools = &peer.worker.pools;
    let retry = tries.retry.as_ref();
    let replay = Replay {
        whole: is_whole(&peer, &mut request, tries).await?,
        idempotent: is_idempotent(request.method()),
        stale: retry.is_none_or(|retry| retry.attempts > 0),
    };
    let aim = prepare(upstream, &mut request, &mut upgrade)?;
    let most = retry.map_or(ENDPOINTS - 1, |retry| usize::try_from(retry.attempts).unwrap_or(usize::MAX));
    let mut request = Some(request);
    let mut tried = Tried::new();
    let mut further = 0;
    loop {
        let Some(address) = next(&peer, aim.upstream, &mut tried, retry) else { return Err(Fault::NoEndpoints) };
        exchange.address = Some(address);
        peer.activity.moved();
        let end = tries.backend_request.duration().map(|limit| Instant::now() + limit);
        let trying = attempt(&peer, &aim, address, &mut request, &mut upgrade, replay, end);
        let outcome = match end {
            None => trying.await,
            Some(end) => timeout_at(end, trying).await.unwrap_or(Err(Lost::Fault(Fault::BackendTimeout))),
        };
        let is_last = further >= most;
        let (failure, at_once) = match outcome {
            Ok(answer) => {
                let sent_again = replay.whole && replay.idempotent && !is_last;
                if !(sent_again && retry.is_some_and(|retry| refuses(retry, &answer))) {
                    exchange.cut_off = end.map(|end| CutOff::at(end, Fault::BackendTimeout));
                    if let Some(copy) = request {
                        peer.worker.spares.give_back(copy.into_parts().0.headers);
                    }
                    return Ok(answer);
                }
                discard(answer);
                (Fault::AnswerTimeout, false)
            }
            Err(lost) => {
                let was_not_processed = lost.was_not_processed();
                let fault = lost.fault();
                // Too late for it to be known to be unprocessed, so it has to be there, and to bear repeating.
                let is_late = fault == Fault::BackendTimeout && retry.is_some() && replay.whole && replay.idempotent;
                let again = was_not_processed || is_late;
                if is_last || !again || request.is_none() || peer.activity.overdue.get() {
                    return Err(fault);
                }
                // The next one knows nothing of it.
                (fault, was_not_processed && aim.upstream.reachable().len() > tried.len())
            }
        };
        if !at_once {
            let Some(retry) = retry else { return Err(failure) };
            let wait = retry.wait(u32::try_from(further).unwrap_or(u32::MAX), fastrand::f64());
            if !wait.is_zero() && patiently(&peer.activity, sleep(wait)).await.is_none() {
                return Err(failure);
            }
        }
        further += 1;
        if retry.is_some() {
            pools.retried();
        }
    }
}

/// Nearly always one.
type Tried = SmallVec<[SocketAddr; 2]>;

/// Another endpoint on each try. When all have been tried, they are tried again if the rule says so.
fn next(peer: &Peer, upstream: &Arc<Upstream>, tried: &mut Tried, retry: Option<&Retry>) -> Option<SocketAddr> {
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

/// Whether all of the request is there, after reading its body ahead if something may come of that.
async fn is_whole(peer: &Peer, request: &mut Request<RequestBody>, tries: &Tries) -> Result<bool, Fault> {
    if request.body().is_end_stream() {
        return Ok(true);
    }
    if !is_idempotent(request.method()) {
        return Ok(false);
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
