//! Forwards a request of a rule without timeouts and retries, to another endpoint if the first did not process it.
//!
//! This loop and `attempt.rs` send a request again in these cases only:
//! - connecting failed, so nothing was sent,
//! - a kept-alive connection closed without a response, the method is idempotent and the request has no body,
//! - an HTTP/2 endpoint reports that it did not process the request, and the replay buffer has the whole sent body.
//!
//! Another endpoint gets the request only within the retry budget of the Service.

use http::Response;
use tokio::time::Instant;

use super::outgoing_request::OutgoingRequest;
use crate::proxy::http::client::response_body::BodySource;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::record::request_record::RequestRecord;
use crate::proxy::limits::MAX_ENDPOINTS;

/// Sends the request to an endpoint, and to another one only if the request was not processed. `record`: that of the
/// client's request, if this is the one that is sent.
pub(in crate::proxy) async fn forward(
    outgoing: &mut OutgoingRequest<'_>,
    mut record: Option<&mut RequestRecord>,
) -> Result<Response<BodySource>, RequestError> {
    let mut failure = RequestError::NoEndpoints;
    // Does not allocate unless an attempt fails.
    let mut tried = Vec::new();
    let upstream = outgoing.target.upstream;
    let budget = upstream.begin_request();
    let mut session_endpoint = outgoing.session_endpoint.take();
    while tried.len() < MAX_ENDPOINTS
        && let Some(address) =
            session_endpoint.take().or_else(|| outgoing.peer.http.pools.next_endpoint(upstream, &tried))
    {
        if !tried.is_empty() && budget.as_ref().is_some_and(|budget| !budget.take_retry()) {
            outgoing.peer.http.pools.count_refused_retry();
            return Err(RequestError::RetryBudget);
        }
        if let Some(record) = &mut record {
            record.start_attempt(address);
        }
        let outcome = outgoing.attempt(address, NO_CONNECT_DEADLINE).await;
        if let Some(record) = &mut record {
            record.end_attempt(&outcome, outgoing);
        }
        let error = match outcome {
            Ok(response) => {
                outgoing.recycle();
                return Ok(response);
            }
            Err(error) => error,
        };
        // After the timer of the request has expired, no other endpoint is attempted.
        let may_retry = error.was_not_processed() && outgoing.can_be_sent() && !outgoing.peer.activity.timed_out.get();
        failure = error.request_error();
        if !may_retry {
            break;
        }
        tried.push(address);
    }
    Err(failure)
}

/// Attempts have a deadline only if the rule has timeouts. `--upstream-connect-timeout` applies to all connections.
const NO_CONNECT_DEADLINE: Option<Instant> = None;
