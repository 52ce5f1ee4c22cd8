//! A request that Portico sends while it serves one of a client: to an authorization server, or to an error backend. It
//! uses the same pools of connections as all requests, and counts at the limits of its upstream.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};

use crate::hop_count::HopCount;
use crate::plugin_api::trace::EndpointTrace;
use crate::proxy::http::exchange::body_source::BodySource;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::fields::field_policy::InformationalPolicy;
use crate::proxy::http::forwarding::attempt_policy::{AttemptPolicy, ReplayPolicy, is_idempotent};
use crate::proxy::http::forwarding::attempts::forward;
use crate::proxy::http::forwarding::destination::Destination;
use crate::proxy::http::forwarding::forwarded::ForwardError;
use crate::proxy::http::forwarding::outgoing_request::{OutgoingRequest, UnsentRequest};
use crate::upstream::{ClientSlot, Upstream};

/// Where a further request is sent. `hops` is that of the client's request, so that a server that sends requests back
/// does not loop, and `hash` is of it, too.
pub(super) fn destination(
    upstream: &Arc<Upstream>,
    hops: HopCount,
    client: ClientSlot,
    hash: Option<u64>,
) -> Destination<'_> {
    Destination {
        upstream,
        policy: AttemptPolicy::default(),
        settings: None,
        upgrade: None,
        may_have_te: false,
        trace: EndpointTrace::Unchanged,
        forwarding: None,
        hops,
        client,
        pinned: None,
        pinned_others: Box::default(),
        hash,
        admitted: None,
        // Informational responses are about this request, not about that of the client.
        informational: InformationalPolicy::default(),
    }
}

/// Sends the request to one upstream. Also returns what another one can get if no endpoint could be reached.
pub(super) async fn attempt(
    exchange: &Rc<ClientExchange>,
    destination: Destination<'_>,
    request: Request<RequestBody>,
) -> (Result<Response<BodySource>, ForwardError>, Option<UnsentRequest<RequestBody>>) {
    let replay = ReplayPolicy {
        complete: true,
        idempotent: is_idempotent(request.method()),
        allows_resending: true,
        repeats_within_attempt: true,
        keeps_sent: false,
    };
    let outgoing = OutgoingRequest::converted_for_endpoint(Rc::clone(exchange), destination, request, replay);
    let mut outgoing = match outgoing {
        Ok(outgoing) => outgoing,
        Err(error) => return (Err(error.into()), None),
    };
    match forward(&mut outgoing, None).await {
        Ok(response) => (Ok(response.map(BodySource::from)), None),
        Err(error) => (Err(error), outgoing.take_unsent()),
    }
}

/// Reads a body that has no meaning, so that its connection can take another request.
pub(super) async fn drain(mut body: BodySource) {
    let mut read = 0;
    while !body.is_end_stream() && read <= MAX_DRAINED {
        match poll_fn(|cx| body.poll_next(None, cx)).await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) => return,
            None => break,
        }
    }
    if body.is_end_stream() {
        body.release();
    }
}

/// After a longer body the connection is closed, not reused.
const MAX_DRAINED: usize = 64 * 1024;
