//! Responses to requests that are not forwarded: errors, redirects, replies of plugins and authorization servers, and
//! responses to CORS preflight requests and `OPTIONS *`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::error_response::{FORWARDED_METHODS, set_upgrade_headers};
use super::order::RequestStep;
use super::reply_response::reply_response;
use super::request_context::RequestContext;
use crate::plugin_api::{Reply, ResponseSource};
use crate::proxy::http::exchange::body_source::BodySource;
use crate::proxy::http::forwarding::forwarded::ForwardError;
use crate::proxy::http::record::request_error::{EXTERNAL_AUTH_DENIED, RequestError};
use crate::snapshot::rule_options::GrpcErrorStyle;
use crate::upstream::settings::CircuitBreakerSettings;

/// Why a request is not forwarded. The steps of a request return it with `?`, and its response is built afterwards.
pub(in crate::proxy) enum EarlyExit {
    Error(RequestError),
    /// The response to `OPTIONS *`, which is about the server itself (RFC 9110, section 9.3.7).
    ServerOptions,
    /// The redirect from HTTP to HTTPS that the rule requires, to which the response filters of the rule do not apply.
    HttpsRedirect {
        status: StatusCode,
        location: HeaderValue,
    },
    /// The redirect that is the action of the rule.
    Redirect {
        status: StatusCode,
        location: HeaderValue,
    },
    /// The dry run of an observed request, which is not forwarded.
    DryRun,
    /// A CORS preflight request, which Portico responds to itself.
    Preflight,
    PluginReply(Box<Reply>),
    /// What a plugin sends in place of the backend. Filters of the rule and of the backend change it like a response of
    /// the backend.
    StandIn(Box<Reply>),
    /// The response that the circuit breaker of the Service has instead of an error.
    CircuitFallback(RequestError, Arc<CircuitBreakerSettings>),
    /// A response that needs nothing more of the exit.
    Complete {
        response: Box<Response<BodySource>>,
        source: ResponseSource,
        must_close: bool,
    },
    /// The response of the authorization server that denies the request.
    AuthorizationDenied(Box<Response<BodySource>>),
}

impl From<RequestError> for EarlyExit {
    fn from(error: RequestError) -> Self {
        EarlyExit::Error(error)
    }
}

impl From<ForwardError> for EarlyExit {
    fn from(ForwardError { error, fallback }: ForwardError) -> Self {
        match fallback {
            Some(settings) => EarlyExit::CircuitFallback(error, settings),
            None => EarlyExit::Error(error),
        }
    }
}

impl EarlyExit {
    /// Whether the connection must close. After a malformed request, the client and Portico may disagree about where
    /// the next request begins.
    pub(in crate::proxy) fn must_close(&self) -> bool {
        match self {
            EarlyExit::Error(error) => error.details().status == StatusCode::BAD_REQUEST,
            EarlyExit::Complete { must_close, .. } => *must_close,
            _ => false,
        }
    }

    /// Where the response comes from.
    pub(in crate::proxy) fn source(&self) -> ResponseSource {
        match self {
            EarlyExit::PluginReply(_) | EarlyExit::StandIn(_) => ResponseSource::Plugin,
            EarlyExit::Complete { source, .. } => *source,
            _ => ResponseSource::Proxy,
        }
    }

    /// Builds the response, and records the reason of an error or of a plugin's reply.
    pub(in crate::proxy) fn into_response(self, cx: &mut RequestContext<'_>) -> Response<BodySource> {
        let (status, location) = match self {
            EarlyExit::Error(error) => return error_response(error, cx),
            EarlyExit::PluginReply(reply) => {
                cx.record.facts.error = Some(reply.reason);
                let mut response = reply_response(*reply, &cx.error_format, &cx.record.facts.request_id);
                cx.set_request_id(response.headers_mut());
                return response;
            }
            EarlyExit::StandIn(reply) => {
                cx.record.facts.set_reply(&reply);
                let mut response = reply_response(*reply, &cx.error_format, &cx.record.facts.request_id);
                cx.enter(RequestStep::ResponseFilters);
                cx.apply_response_filters(response.headers_mut());
                return response;
            }
            EarlyExit::CircuitFallback(error, settings) => return circuit_fallback(error, &settings, cx),
            EarlyExit::Complete { response, .. } => return *response,
            EarlyExit::AuthorizationDenied(mut response) => {
                cx.record.facts.error = Some(EXTERNAL_AUTH_DENIED);
                cx.set_request_id(response.headers_mut());
                return *response;
            }
            EarlyExit::ServerOptions => {
                let mut response = empty_response(StatusCode::NO_CONTENT);
                response.headers_mut().insert(ALLOW, FORWARDED_METHODS);
                cx.set_request_id(response.headers_mut());
                return response;
            }
            EarlyExit::HttpsRedirect { status, location } => {
                let mut response = empty_response(status);
                response.headers_mut().insert(LOCATION, location);
                cx.set_request_id(response.headers_mut());
                return response;
            }
            EarlyExit::DryRun => {
                let mut response = empty_response(StatusCode::NO_CONTENT);
                cx.set_request_id(response.headers_mut());
                return response;
            }
            EarlyExit::Redirect { status, location } => (status, Some(location)),
            EarlyExit::Preflight => (StatusCode::OK, None),
        };
        let mut response = empty_response(status);
        if let Some(location) = location {
            response.headers_mut().insert(LOCATION, location);
        }
        cx.apply_response_filters(response.headers_mut());
        response
    }
}

fn error_response(error: RequestError, cx: &mut RequestContext<'_>) -> Response<BodySource> {
    let rejects_expectation = || {
        cx.record
            .plugin_run
            .as_ref()
            .is_some_and(|run| run.state.expects_continue && run.state.body_changes.limit.is_some())
    };
    let error = match error {
        RequestError::BodyTooLarge if rejects_expectation() => RequestError::ExpectedBodyTooLarge,
        error => error,
    };
    let error = cx.rule.map_or(error, |rule| error.in_style(rule.options().errors));
    let mut details = error.details();
    cx.record.facts.error = Some(details.reason);
    let style = cx.rule.map_or(cx.style_without_rule.grpc_errors, |rule| rule.options().grpc_errors);
    if style == GrpcErrorStyle::HttpStatus {
        details.grpc_status = None;
    }
    let mut response = cx.error_format.render_error(&details, &cx.record.facts.request_id).map(BodySource::Local);
    cx.set_request_id(response.headers_mut());
    set_upgrade_headers(error, cx.exchange().protocol, response.headers_mut());
    if let Some(seconds) = error.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The response in place of those of a Service whose circuit is open.
fn circuit_fallback(
    error: RequestError,
    settings: &CircuitBreakerSettings,
    cx: &mut RequestContext<'_>,
) -> Response<BodySource> {
    // A gRPC client could not read the response, and gets the status that it would have without one.
    let fallback = settings.fallback.as_ref().filter(|_| !cx.error_format.is_call());
    let Some(fallback) = fallback else { return error_response(error, cx) };
    cx.record.facts.error = Some(error.details().reason);
    let mut response = cx.error_format.render_body(fallback.status, fallback.body.clone()).map(BodySource::Local);
    for (name, value) in &fallback.headers {
        response.headers_mut().append(name.clone(), value.clone());
    }
    cx.apply_response_filters(response.headers_mut());
    response
}

fn empty_response(status: StatusCode) -> Response<BodySource> {
    let mut response = Response::new(BodySource::Local(Bytes::new()));
    *response.status_mut() = status;
    response
}
