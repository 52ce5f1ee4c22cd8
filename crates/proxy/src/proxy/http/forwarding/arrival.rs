//! Whether all of a request has arrived. A half-open circuit is tried with such requests first: how long others take is
//! up to their clients.

use std::pin::pin;
use std::time::Duration;

use http::Request;
use tokio::time::Instant;

use super::caller::{Caller, RepeatableBody, until_timed_out};
use crate::proxy::http::record::request_error::RequestError;
use crate::upstream::{RequestArrival, Upstream};

/// Of a request that is not sent yet. What was not read of its body has not arrived.
pub(super) fn arrival_of<B: RepeatableBody>(request: &Request<B>) -> RequestArrival {
    if request.body().has_arrived() { RequestArrival::Complete } else { RequestArrival::Partial }
}

/// Reads a small body, or the beginning of a large one, before the upstream admits the request, if its circuit is
/// half-open. Most bodies arrive together with the head, or soon after.
pub(super) async fn read_before_trial<C: Caller>(
    caller: &C,
    upstream: &Upstream,
    request: &mut Request<C::Body>,
) -> Result<(), RequestError> {
    if request.body().has_arrived() || !upstream.is_half_open() {
        return Ok(());
    }
    let max_bytes = caller.limits().max_replay_body;
    let deadline = Instant::now() + MAX_READING_TIME;
    let reading = request.body_mut().buffer_until(deadline, max_bytes, &upstream.key.namespace);
    until_timed_out(caller, pin!(reading)).await.unwrap_or_else(|| Err(caller.timeout_error()))?;
    Ok(())
}

/// Longer than the round trip of most clients, which may send the body in a later packet.
const MAX_READING_TIME: Duration = Duration::from_millis(500);
