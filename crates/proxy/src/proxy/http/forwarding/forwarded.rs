//! What forwarding a request returns: the rest of an endpoint's response after its head, or why there is none.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body::Body;

use super::caller::Caller;
use super::upgrade::Upgrade;
use crate::proxy::http::record::request_error::RequestError;
use crate::upstream::settings::CircuitBreakerSettings;
use crate::upstream::{Admission, EndpointBody, EndpointTrial, Overloaded, UpgradedConnection, Upstream};

/// The outcome of a request that was forwarded.
pub(super) type Forwarded<C> = Result<Response<EndpointResponse<<C as Caller>::Body>>, ForwardError>;

/// The rest of a response. `B` is the body of the request, which may still be sent.
pub(in crate::proxy) enum EndpointResponse<B> {
    Body(EndpointBody<B>),
    /// The endpoint accepted the requested upgrade.
    Upgraded(Box<Upgrade>, Box<UpgradedConnection>),
}

impl<B> EndpointResponse<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Holds the admission of the request until the end of the response, and its trial of a half-open endpoint until
    /// there is a result.
    pub(super) fn hold(&mut self, admission: Admission, trial: Option<Box<EndpointTrial>>) {
        match self {
            EndpointResponse::Body(body) => body.hold(admission, trial),
            EndpointResponse::Upgraded(_, endpoint) => endpoint.hold(admission),
        }
    }

    /// Discards the response. Its connection returns to the pool if there is no body left to read.
    pub(super) fn discard(self) {
        if let EndpointResponse::Body(body) = self
            && body.is_end_stream()
        {
            body.release();
        }
    }
}

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
