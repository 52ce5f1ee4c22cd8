//! Buffers the body of a request for those that decide about it.

use std::pin::pin;

use bytes::Bytes;
use http::Request;

use crate::proxy::buffer_budget::BufferUse;
use crate::proxy::http::exchange::activity::until_timed_out;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::exchange::request_body::{RequestBody, RequestBodyError};
use crate::proxy::http::record::request_error::RequestError;

/// Buffers the whole body for plugins or an authorization server of a route of this namespace; it is still forwarded.
pub(in crate::proxy) async fn read_body(
    exchange: &ClientExchange,
    request: &mut Request<RequestBody>,
    max_bytes: usize,
    namespace: &str,
) -> Result<Bytes, RequestError> {
    let buffering = request.body_mut().buffer_up_to(max_bytes, BufferUse::Request, namespace);
    let outcome = until_timed_out(&exchange.activity, pin!(buffering)).await;
    match outcome {
        None => Err(exchange.activity.body_timeout_error()),
        Some(Err(RequestBodyError::BufferLimit)) => Err(RequestError::BufferLimit),
        Some(Err(RequestBodyError::TooSlow)) => Err(RequestError::SlowRequestBody),
        Some(Err(RequestBodyError::TooLarge)) => Err(RequestError::BodyTooLarge),
        Some(Err(_)) => Err(RequestError::InvalidBody),
        Some(Ok(_)) if request.body().is_fully_read() && request.body().buffered().len() <= max_bytes => {
            Ok(request.body().buffered())
        }
        Some(Ok(_)) => Err(RequestError::BodyTooLarge),
    }
}
