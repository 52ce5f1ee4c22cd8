//! Forwards a request to another upstream than that of the rule, as the policy of the Service says: that of the rule
//! has too few endpoints or none that can be reached, its circuit is open, or its response has a status that is
//! replaced.
//!
//! ```text
//!   too few endpoints ─▶ the first alternative with enough of them ─┐
//!   circuit is open ───▶ its fallback ──────────────────────────────┼─▶ forward ─▶ response
//!   otherwise ─────────▶ the upstream of the rule ──────────────────┘      ▲  │        │ its status is replaced
//!                                                                          │  │        │ once, by an alternative
//!                       no endpoint could be reached: the next alternative ┴──┘◀───────┘
//! ```

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::Request;
use http_body::Body;
use smallvec::SmallVec;
use tokio::time::timeout_at;

use super::arrival::{arrival_of, read_before_trial};
use super::attempt_policy::is_idempotent;
use super::attempt_timeouts::TimeLimit;
use super::caller::{Caller, RepeatableBody, until_timed_out};
use super::destination::Destination;
use super::forwarded::{ForwardError, Forwarded};
use super::outgoing_request::{UnsentRequest, copy_request};
use super::time_limits::{forward_in_time, forward_until};
use super::upgrade::Upgrade;
use crate::proxy::http::record::request_attempts::Attempts;
use crate::proxy::http::record::request_error::RequestError;
use crate::turn_clock;
use crate::upstream::{Alternatives, RequestArrival, Upstream};

/// Forwards a request to its upstream, or to an alternative of it. Also returns when the response must be complete.
pub(in crate::proxy) async fn forward_with_alternatives<C: Caller>(
    caller: &Rc<C>,
    destination: Destination<'_>,
    request: Request<C::Body>,
    attempts: &mut Attempts,
) -> (Forwarded<C>, Option<TimeLimit>) {
    let Some(alternatives) = destination.upstream.alternatives() else {
        return forward_in_time(caller, destination, request, attempts).await;
    };
    // Boxed, since the requests of most Services have no alternatives.
    Box::pin(forward_or_replace(alternatives, caller, destination, request, attempts)).await
}

async fn forward_or_replace<C: Caller>(
    alternatives: Arc<Alternatives>,
    caller: &Rc<C>,
    mut destination: Destination<'_>,
    mut request: Request<C::Body>,
    attempts: &mut Attempts,
) -> (Forwarded<C>, Option<TimeLimit>) {
    let primary = destination.upstream;
    // One limit for all that follows, whichever upstream responds.
    let limit = destination.time_limit(turn_clock::now());
    let preparing = async {
        read_before_trial(&**caller, primary, &mut request).await?;
        admit(&**caller, &mut destination, &alternatives, arrival_of(&request)).await?;
        let is_primary = Arc::ptr_eq(destination.upstream, primary);
        let spare =
            if is_primary { spare_copy(&**caller, &destination, &alternatives, &mut request).await? } else { None };
        Ok::<_, ForwardError>(spare)
    };
    let spare = match limit {
        None => preparing.await,
        Some(limit) => timeout_at(limit.end, preparing).await.unwrap_or(Err(limit.error.into())),
    };
    let spare = match spare {
        Ok(spare) => spare,
        Err(error) => return (Err(error), limit),
    };
    // What all upstreams get, with the retries and timeouts of the first Service, since they are about its requests.
    let head = copy_request(&request, (), caller.header_maps());
    let first = destination.upstream;
    let template = Destination { pinned_others: destination.pinned_others.clone(), ..destination.at(first) };
    let next = NextDestination { first: &template, head: &head, limit };
    let (mut outcome, mut first_limit, mut unsent) = forward_until(limit, caller, destination, request, attempts).await;
    let mut tried: SmallVec<[&Arc<Upstream>; 4]> = SmallVec::from_slice(&[primary, first]);
    while let Some(sendable) = unsent.take() {
        let UnsentRequest { body, upgrade } = *sendable;
        let Some(upstream) = alternatives.after(&tried) else { break };
        tried.push(upstream);
        (outcome, first_limit, unsent) = next.forward(caller, upstream, body, upgrade, attempts).await;
    }
    let (Ok(response), Some(spare)) = (&outcome, spare) else { return (outcome, first_limit) };
    if tried.len() > 2 || !alternatives.replaces(response.status().as_u16()) {
        return (outcome, first_limit);
    }
    let Some(upstream) = alternatives.next(primary) else { return (outcome, first_limit) };
    let (replacing, second_limit, _) = next.forward(caller, upstream, spare, None, attempts).await;
    match (replacing, outcome) {
        (Ok(replacing), Ok(response)) => {
            response.into_body().discard();
            (Ok(replacing), second_limit)
        }
        // A bad response is better than none.
        (_, outcome) => (outcome, first_limit),
    }
}

/// How a request is forwarded that another upstream did not get, or could not respond to.
struct NextDestination<'d> {
    first: &'d Destination<'d>,
    head: &'d Request<()>,
    limit: Option<TimeLimit>,
}

impl<'d> NextDestination<'d> {
    async fn forward<C: Caller>(
        &self,
        caller: &Rc<C>,
        upstream: &'d Arc<Upstream>,
        body: C::Body,
        upgrade: Option<Box<Upgrade>>,
        attempts: &mut Attempts,
    ) -> (Forwarded<C>, Option<TimeLimit>, Option<Box<UnsentRequest<C::Body>>>) {
        let destination = Destination { upgrade, ..self.first.at(upstream) };
        let request = copy_request(self.head, body, caller.header_maps());
        forward_until(self.limit, caller, destination, request, attempts).await
    }
}

/// Admits the request to its upstream, or to the one that takes its place, which is then that of the destination, also
/// if it has rejected the request.
pub(in crate::proxy) async fn admit<'a, C: Caller>(
    caller: &C,
    destination: &mut Destination<'a>,
    alternatives: &'a Alternatives,
    arrival: RequestArrival,
) -> Result<(), ForwardError> {
    let (primary, client) = (destination.upstream, destination.client);
    let admitting = alternatives.admit(primary, |upstream| upstream.admit(client, arrival));
    let (upstream, admission) = until_timed_out(caller, pin!(admitting)).await.ok_or_else(|| caller.timeout_error())?;
    if !Arc::ptr_eq(upstream, primary) {
        (destination.upstream, destination.pinned) = (upstream, destination.pinned_at(upstream));
    }
    let mut admission = admission.map_err(|overloaded| ForwardError::rejected(upstream, overloaded))?;
    if arrival == RequestArrival::Partial
        && let Some(wait) = admission.client_wait()
    {
        // From now on, since the body may be read before the request is sent.
        caller.count_waits(wait);
    }
    destination.admitted = Some(Box::new(admission));
    Ok(())
}

/// The body of a request whose response may be replaced, if it can be sent twice. It is read before.
async fn spare_copy<C: Caller>(
    caller: &C,
    destination: &Destination<'_>,
    alternatives: &Alternatives,
    request: &mut Request<C::Body>,
) -> Result<Option<C::Body>, RequestError> {
    if alternatives.on_statuses.is_empty() || !is_idempotent(request.method()) || destination.upgrade.is_some() {
        return Ok(None);
    }
    let is_complete = request.body().is_end_stream() || {
        let namespace = &destination.upstream.key.namespace;
        let max_bytes = caller.limits().max_replay_body.min(MAX_REPLACED_BODY);
        let buffering = request.body_mut().buffer(max_bytes, namespace);
        until_timed_out(caller, pin!(buffering)).await.unwrap_or_else(|| Err(caller.timeout_error()))?
    };
    Ok(is_complete.then(|| request.body().duplicate()))
}

/// A request with a larger body is sent once.
pub(in crate::proxy) const MAX_REPLACED_BODY: usize = 64 * 1024;
