//! Applies the CORS configuration of a rule: responds to preflight requests and adds the CORS headers to responses.

use http::Request;

use super::early_exit::EarlyExit;
use crate::proxy::http::steps::request_record::RequestRecord;
use crate::snapshot::cors::{CorsFilter, is_preflight};

/// Stores the CORS headers for the response, wherever the response comes from. Preflight requests are never forwarded:
/// they end with [`EarlyExit::Preflight`], even if the origin is not allowed.
pub(in crate::proxy) fn apply_cors<B>(
    cors: &CorsFilter,
    request: &Request<B>,
    record: &mut RequestRecord,
) -> Result<(), EarlyExit> {
    let headers = request.headers();
    let preflight = is_preflight(request.method(), headers);
    let cors_headers = if preflight { cors.preflight(headers) } else { cors.actual_request(headers) };
    record.cors_headers = Some(Box::new(cors_headers));
    if preflight { Err(EarlyExit::Preflight) } else { Ok(()) }
}
