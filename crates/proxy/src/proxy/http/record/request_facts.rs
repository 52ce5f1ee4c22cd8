//! The facts of one request: what its access-log entry, metrics, plugins and observations are made of.

use std::sync::Arc;

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};

use super::named_request::NamedRequest;
use super::request_attempts::Attempts;
use super::response_deadline::ResponseDeadline;
use crate::plugin_api::Reply;
use crate::plugin_api::completed_request::AuthorizationCall;
use crate::plugin_api::completed_request::LoggedHeads;
use crate::proxy::telemetry::access_log::{CapturedHeads, WorkerAccessLog};
use crate::proxy::telemetry::observations::ObservedRequest;
use crate::proxy::telemetry::request_tracer::RequestTracing;
use crate::proxy::telemetry::stats::RequestSeries;

/// What has happened to a request so far. Forwarding writes what concerns its attempts, the steps write the rest.
pub(in crate::proxy) struct RequestFacts {
    pub(in crate::proxy) request_id: HeaderValue,
    pub(in crate::proxy) series: Option<Arc<RequestSeries>>,
    /// Copies of the heads, if a plugin of the rule reads them in the log phase.
    pub(in crate::proxy) heads: Option<Box<LoggedHeads>>,
    pub(in crate::proxy) attempts: Attempts,
    /// The calls of authorization servers, if the request is traced.
    pub(in crate::proxy) authorizations: Vec<AuthorizationCall>,
    /// The reason of the request error, if there is one.
    pub(in crate::proxy) error: Option<&'static str>,
    /// Whether a cache has sent the response.
    pub(in crate::proxy) is_stored: bool,
    /// None until there is a response.
    pub(in crate::proxy) status: Option<StatusCode>,
    pub(in crate::proxy) bytes_out: u64,
    /// The deadline of the response. Boxed, because few requests have one.
    pub(in crate::proxy) deadline: Option<Box<ResponseDeadline>>,
    /// Set if the admin listener has registered the token of the request.
    pub(in crate::proxy) observed: Option<Box<ObservedRequest>>,
    /// That of the tracer of all requests.
    pub(in crate::proxy) tracing: RequestTracing,
    /// Set if the rule has names of its dialect, and something reads them. Boxed, because few requests have them.
    pub(in crate::proxy) named: Option<Box<NamedRequest>>,
    /// Set only if the access log is on.
    pub(in crate::proxy) logged: Option<LoggedRequest>,
}

/// What the access log contains of the head of a request.
pub(in crate::proxy) struct LoggedRequest {
    pub(in crate::proxy) method: Method,
    pub(in crate::proxy) target: Uri,
    pub(in crate::proxy) version: Version,
    pub(in crate::proxy) host: Option<HeaderValue>,
    pub(in crate::proxy) user_agent: Option<HeaderValue>,
    /// What a template names of the heads.
    pub(in crate::proxy) captured: Option<Box<CapturedHeads>>,
}

impl LoggedRequest {
    pub(in crate::proxy) fn new<B>(request: &Request<B>, log: &WorkerAccessLog) -> Self {
        LoggedRequest {
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            host: host(request),
            user_agent: request.headers().get(USER_AGENT).cloned(),
            captured: log.capture_request(request),
        }
    }
}

impl RequestFacts {
    pub(in crate::proxy) fn new(
        request_id: HeaderValue,
        observed: Option<Box<ObservedRequest>>,
        logged: Option<LoggedRequest>,
    ) -> Self {
        RequestFacts {
            request_id,
            series: None,
            heads: None,
            attempts: Attempts::default(),
            authorizations: Vec::new(),
            error: None,
            is_stored: false,
            status: None,
            bytes_out: 0,
            deadline: None,
            observed,
            tracing: RequestTracing::Off,
            named: None,
            logged,
        }
    }

    /// Records a reply that stands for a response of the endpoint.
    pub(in crate::proxy) fn set_reply(&mut self, reply: &Reply) {
        match reply.reason {
            Reply::NO_REASON => {}
            Reply::STORED => self.is_stored = true,
            reason => self.error = Some(reason),
        }
    }
}

/// The host of the request: that of the target, which overrides the field (RFC 9112, section 3.2.2). A target with a
/// user, which is rejected, may contain a password, so it is not written.
pub(in crate::proxy) fn host<B>(request: &Request<B>) -> Option<HeaderValue> {
    let authority = request.uri().authority().filter(|authority| !authority.as_str().contains('@'));
    match authority {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => request.headers().get(HOST).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logged_host_is_that_of_the_request() {
        for (target, field, expected) in [
            ("/", Some("a.example"), Some("a.example")),
            ("http://b.example:8080/", Some("a.example"), Some("b.example:8080")),
            ("http://b.example/", None, Some("b.example")),
            ("http://user:secret@b.example/", Some("a.example"), Some("a.example")),
            ("/", None, None),
        ] {
            let mut request = Request::get(target);
            if let Some(field) = field {
                request = request.header(HOST, field);
            }
            let found = host(&request.body(()).unwrap());
            assert_eq!(found.as_ref().map(|host| host.to_str().unwrap()), expected, "{target} {field:?}");
        }
    }
}
