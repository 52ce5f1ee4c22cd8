//! Forwards a request to another upstream than that of the rule, as the policy of the Service says: that of the rule
//! has too few endpoints, its circuit is open, or its response has a status that is replaced.
//!
//! ```text
//!   too few endpoints ─▶ the first alternative with enough of them ─┐
//!   circuit is open ───▶ its fallback ──────────────────────────────┼─▶ forward ─▶ response
//!   otherwise ─────────▶ the upstream of the rule ──────────────────┘      ▲           │ its status is replaced
//!                                                                          └───────────┘ once, by an alternative
//! ```

use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response};
use http_body::Body;
use tokio::time::{Instant, timeout_at};

use super::attempt_timeouts::TimeLimit;
use super::attempts::{Forwarded, forward_in_time};
use super::caller::{Caller, RepeatableBody, until_timed_out};
use super::destination::Destination;
use super::outgoing_request::copy_request;
use super::replay_policy::is_idempotent;
use crate::proxy::http::record::attempts::Attempts;
use crate::proxy::http::record::request_error::RequestError;
use crate::upstream::{Alternatives, NotAdmitted, Overloaded, Upstream};

/// Forwards a request to its upstream, or to an alternative of it. Also returns when the response must be complete.
pub(in crate::proxy) async fn forward_with_alternatives<C: Caller>(
    caller: &Rc<C>,
    mut destination: Destination<'_>,
    mut request: Request<C::Body>,
    attempts: &mut Attempts,
) -> (Forwarded<C>, Option<TimeLimit>) {
    let Some(alternatives) = destination.upstream.alternatives() else {
        return forward_in_time(caller, destination, request, attempts).await;
    };
    let primary = destination.upstream;
    let limit = destination.policy.time_limit(Instant::now());
    retarget(&mut destination, &alternatives);
    let upstream = destination.upstream;
    let spare = match spare_copy(&**caller, &destination, &alternatives, &mut request).await {
        Ok(spare) => spare,
        Err(error) => return (Err(error), limit),
    };
    let Some(spare) = spare else { return forward_in_time(caller, destination, request, attempts).await };
    let second = Destination {
        upstream,
        admitted: None,
        pinned: None,
        hash: destination.hash,
        policy: destination.policy,
        settings: destination.settings.clone(),
        upgrade: None,
        may_have_te: destination.may_have_te,
        informational: destination.informational.clone(),
        hops: destination.hops,
        client: destination.client,
    };
    let (outcome, first_limit) = forward_in_time(caller, destination, request, attempts).await;
    let is_replaced =
        |response: &Response<_>| std::ptr::eq(upstream, primary) && alternatives.replaces(response.status().as_u16());
    let response = match outcome {
        Ok(response) if is_replaced(&response) => response,
        outcome => return (outcome, first_limit),
    };
    let Some(next) = alternatives.next(upstream) else { return (Ok(response), first_limit) };
    let forwarding = forward_in_time(caller, Destination { upstream: next, ..second }, spare, attempts);
    let forwarded = match limit {
        None => Some(forwarding.await),
        // The time for the request began before its first attempt.
        Some(limit) => timeout_at(limit.end, forwarding).await.ok(),
    };
    match forwarded {
        Some((Ok(replacing), second_limit)) => {
            response.into_body().discard();
            (Ok(replacing), TimeLimit::earlier(limit, second_limit))
        }
        // A bad response is better than none.
        Some((Err(_), _)) | None => (Ok(response), first_limit),
    }
}

/// Replaces the upstream if it cannot take the request now, and admits the request to it otherwise.
pub(in crate::proxy) fn retarget<'a>(destination: &mut Destination<'a>, alternatives: &'a Alternatives) {
    let primary: &Arc<Upstream> = destination.upstream;
    if let Some(other) = alternatives.in_place_of(primary) {
        (destination.upstream, destination.pinned) = (other, None);
        return;
    }
    let Some(fallback) = &alternatives.circuit_fallback else { return };
    match primary.admit(destination.client) {
        Err(NotAdmitted::Overloaded(Overloaded::CircuitOpen { .. })) => {
            (destination.upstream, destination.pinned) = (fallback, None);
        }
        admitted => destination.admitted = Some(Box::new(admitted)),
    }
}

/// A copy of a request whose response may be replaced, if it can be sent twice. Its body is read before.
async fn spare_copy<C: Caller>(
    caller: &C,
    destination: &Destination<'_>,
    alternatives: &Alternatives,
    request: &mut Request<C::Body>,
) -> Result<Option<Request<C::Body>>, RequestError> {
    if alternatives.on_statuses.is_empty() || !is_idempotent(request.method()) || destination.upgrade.is_some() {
        return Ok(None);
    }
    let is_complete = request.body().is_end_stream() || {
        let namespace = &destination.upstream.key.namespace;
        let max_bytes = caller.limits().max_replay_body.min(MAX_REPLACED_BODY);
        let buffering = request.body_mut().buffer(max_bytes, namespace);
        until_timed_out(caller, buffering).await.unwrap_or_else(|| Err(caller.timeout_error()))?
    };
    Ok(is_complete.then(|| copy_request(request, request.body().duplicate(), caller.header_maps())))
}

/// A request with a larger body is sent once.
pub(in crate::proxy) const MAX_REPLACED_BODY: usize = 64 * 1024;
