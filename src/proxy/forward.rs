//! Sends a request to an endpoint: selects the endpoint and the connection, and retries where that is safe.
//!
//! A request that may have been processed is never sent again. It is safe to send it again in these cases:
//! - connecting failed, so nothing was sent,
//! - a kept-alive connection closed without a response, the method is idempotent and the request has no body,
//! - an HTTP/2 endpoint reports that it did not process the request, and the replay buffer still holds the body.

use http::Response;

use super::outgoing_request::OutgoingRequest;
use super::request_error::RequestError;
use super::request_record::RequestRecord;
use super::response_body::BodySource;

/// Forwards a request under a rule without timeouts and retries.
pub(super) async fn forward(
    outgoing: &mut OutgoingRequest<'_>,
    record: &mut RequestRecord,
) -> Result<Response<BodySource>, RequestError> {
    let mut failure = RequestError::NoEndpoints;
    // Does not allocate unless an attempt fails.
    let mut tried = Vec::new();
    while tried.len() < MAX_ENDPOINTS
        && let Some(address) = record.peer.worker.pools.next_endpoint(outgoing.target.upstream, &tried)
    {
        record.address = Some(address);
        let error = match outgoing.attempt(address, None).await {
            Ok(response) => {
                outgoing.recycle();
                return Ok(response);
            }
            Err(error) => error,
        };
        let again = error.was_not_processed() && outgoing.can_be_sent() && !record.peer.activity.timed_out.get();
        failure = error.into_request_error();
        if !again {
            break;
        }
        tried.push(address);
    }
    Err(failure)
}

/// How many endpoints one request may try to connect to, unless its rule configures retries.
pub(super) const MAX_ENDPOINTS: usize = 3;
