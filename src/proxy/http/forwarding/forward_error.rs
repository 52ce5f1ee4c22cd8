//! Why a request that was to be forwarded has no response of an endpoint.

use std::sync::Arc;

use crate::proxy::http::record::request_error::RequestError;
use crate::upstream::settings::CircuitBreakerSettings;
use crate::upstream::{Overloaded, Upstream};

/// Why a request has no response of an endpoint.
#[derive(Debug)]
pub(in crate::proxy) struct ForwardError {
    pub(in crate::proxy) error: RequestError,
    /// The circuit breaker that has rejected the request, if it has a response in place of the error.
    pub(in crate::proxy) fallback: Option<Arc<CircuitBreakerSettings>>,
}

impl ForwardError {
    /// The upstream has not admitted the request.
    pub(super) fn rejected(upstream: &Upstream, overloaded: Overloaded) -> Self {
        let fallback = if overloaded.has_fallback() { upstream.circuit_fallback() } else { None };
        ForwardError { error: overloaded.into(), fallback }
    }
}

impl From<RequestError> for ForwardError {
    fn from(error: RequestError) -> Self {
        ForwardError { error, fallback: None }
    }
}
