//! What is kept of a request whose rule has names of its dialect, until they are written at its end.

use std::sync::Arc;

use http::{Method, Request, Response};

use crate::proxy::telemetry::access_log::{request_head_bytes, response_head_bytes};
use crate::snapshot::rule_telemetry::RuleTelemetry;

/// A request of a rule with names, if the access log or metrics have them.
pub(in crate::proxy) struct NamedRequest {
    pub(in crate::proxy) telemetry: Arc<RuleTelemetry>,
    /// Only if metrics count the request.
    pub(in crate::proxy) counted: Option<CountedHeads>,
}

/// What metrics count of the heads.
pub(in crate::proxy) struct CountedHeads {
    pub(in crate::proxy) method: Method,
    /// Bytes in the form of HTTP/1.1, whichever version was used.
    pub(in crate::proxy) request: u64,
    /// Zero until there is a response.
    pub(in crate::proxy) response: u64,
}

impl NamedRequest {
    /// `None` if nothing reads the names: neither the line of the access log, nor metrics.
    pub(in crate::proxy) fn new<B>(
        telemetry: &Arc<RuleTelemetry>,
        request: &Request<B>,
        is_in_line: bool,
        is_counted: bool,
    ) -> Option<Box<Self>> {
        let counted = is_counted.then(|| CountedHeads {
            method: request.method().clone(),
            request: request_head_bytes(request),
            response: 0,
        });
        (is_in_line || is_counted).then(|| Box::new(NamedRequest { telemetry: Arc::clone(telemetry), counted }))
    }

    /// Notes the head of the response, as the client gets it.
    pub(in crate::proxy) fn set_response<B>(&mut self, response: &Response<B>) {
        if let Some(counted) = &mut self.counted {
            counted.response = response_head_bytes(response);
        }
    }
}
