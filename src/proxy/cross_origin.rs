//! Pages of other origins: what they are told, and their browsers' question before a request.

use bytes::Bytes;
use http::{Request, Response};

use super::body::Source;
use super::exchange::Exchange;
use crate::snapshot::cors::{Cors, is_preflight};

/// Notes what the answer has to say, whoever gives it. A preflight is answered here and goes no further, also if the origin
/// is not allowed: whether the endpoint would allow it is not asked.
pub(crate) fn admit<B>(cors: &Cors, request: &Request<B>, exchange: &mut Exchange) -> Option<Response<Source>> {
    let headers = request.headers();
    let preflight = is_preflight(request.method(), headers);
    let grant = if preflight { cors.preflight(headers) } else { cors.actual(headers) };
    exchange.grant = Some(Box::new(grant));
    preflight.then(|| Response::new(Source::Ours(Bytes::new())))
}
