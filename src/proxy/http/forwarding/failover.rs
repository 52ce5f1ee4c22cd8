//! Forwards a request to another upstream than that of the rule, as the policy of the Service says: that of the rule
//! has too few endpoints, its circuit is open, or its response has a status that is replaced.
//!
//! ```text
//!   too few endpoints ─▶ the first alternative with enough of them ─┐
//!   circuit is open ───▶ its fallback ──────────────────────────────┼─▶ forward ─▶ response
//!   otherwise ─────────▶ the upstream of the rule ──────────────────┘      ▲           │ its status is replaced
//!                                                                          └───────────┘ once, by an alternative
//! ```

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::Request;
use http_body::Body;
use tokio::time::timeout_at;

use super::attempt_policy::is_idempotent;
use super::attempt_timeouts::TimeLimit;
use super::caller::{Caller, RepeatableBody, until_timed_out};
use super::destination::Destination;
use super::forwarded::{ForwardError, Forwarded};
use super::outgoing_request::copy_request;
use super::time_limits::{forward_in_time, forward_until};
use crate::proxy::http::record::request_attempts::Attempts;
use crate::proxy::http::record::request_error::RequestError;
use crate::turn_clock;
use crate::upstream::{Alternatives, RequestArrival};

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
    // One limit for all that follows, whichever upstream responds.
    let limit = destination.time_limit(turn_clock::now());
    let preparing = async {
        let arrival = if request.body().is_end_stream() { RequestArrival::Complete } else { RequestArrival::Partial };
        admit(&**caller, &mut destination, &alternatives, arrival).await?;
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
    let Some(spare) = spare else { return forward_until(limit, caller, destination, request, attempts).await };
    // Sent with the retries and timeouts of the first Service, since they are about its requests.
    let second = Destination {
        upstream: primary,
        admitted: None,
        pinned: None,
        hash: destination.hash,
        policy: destination.policy,
        settings: destination.settings.clone(),
        upgrade: None,
        may_have_te: destination.may_have_te,
        informational: destination.informational.clone(),
        hops: destination.hops,
        trace: destination.trace,
        client: destination.client,
    };
    let (outcome, first_limit) = forward_until(limit, caller, destination, request, attempts).await;
    let response = match outcome {
        Ok(response) if alternatives.replaces(response.status().as_u16()) => response,
        outcome => return (outcome, first_limit),
    };
    let Some(next) = alternatives.next(primary) else { return (Ok(response), first_limit) };
    let (replacing, second_limit) =
        forward_until(limit, caller, Destination { upstream: next, ..second }, spare, attempts).await;
    match replacing {
        Ok(replacing) => {
            response.into_body().discard();
            (Ok(replacing), second_limit)
        }
        // A bad response is better than none.
        Err(_) => (Ok(response), first_limit),
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
        (destination.upstream, destination.pinned) = (upstream, None);
    }
    let admission = admission.map_err(|overloaded| ForwardError::rejected(upstream, overloaded))?;
    destination.admitted = Some(Box::new(admission));
    Ok(())
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
        until_timed_out(caller, pin!(buffering)).await.unwrap_or_else(|| Err(caller.timeout_error()))?
    };
    Ok(is_complete.then(|| copy_request(request, request.body().duplicate(), caller.header_maps())))
}

/// A request with a larger body is sent once.
pub(in crate::proxy) const MAX_REPLACED_BODY: usize = 64 * 1024;
