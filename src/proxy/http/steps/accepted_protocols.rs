//! Checks a request against the protocols that its rule accepts, and redirects plain-text requests to HTTPS.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};

use super::early_exit::EarlyExit;
use super::reported_client::client_scheme;
use super::request_context::{RequestContext, RoutedRequest};
use crate::plugin_api::Scheme;
use crate::plugin_api::media_type::is_grpc;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::fields::headers::X_FORWARDED_HOST;
use crate::proxy::http::record::request_error::RequestError;
use crate::request_target::RequestHost;
use crate::snapshot::rule_options::Protocols;

/// Checks the request against the protocols of the rule, which may redirect HTTP to HTTPS.
pub(in crate::proxy) fn check<B>(
    cx: &RequestContext<'_>,
    routed: &RoutedRequest<'_>,
    request: &Request<B>,
) -> Result<(), EarlyExit> {
    let options = routed.rule.options();
    let Protocols { http, https, grpc, grpcs } = options.protocols;
    let (exchange, headers) = (cx.exchange(), request.headers());
    let is_secure = || client_scheme(exchange, headers) == Scheme::Https;
    if https && !http && !is_secure() {
        let redirect = options.https_redirect;
        if redirect.status == StatusCode::UPGRADE_REQUIRED {
            return Err(RequestError::HttpsOnly.into());
        }
        let location = https_location(request.uri(), &forwarded_host(exchange, headers, &routed.host), redirect.port)?;
        return Err(EarlyExit::HttpsRedirect { status: redirect.status, location });
    }
    if (grpc || grpcs) && !http && !https {
        if !exchange.protocol.is_multiplexed() {
            return Err(RequestError::Http2Only.into());
        }
        // The field is forwarded: HTTP/2 has no `Connection` that could name it (RFC 9113, section 8.2.2).
        if !is_grpc(headers) {
            return Err(RequestError::NotGrpc.into());
        }
        if !grpc && !is_secure() {
            return Err(RequestError::GrpcsOnly.into());
        }
    }
    Ok(())
}

/// The `https` URL of the same target on the same host.
fn https_location(uri: &Uri, host: &str, port: u16) -> Result<HeaderValue, RequestError> {
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    HeaderValue::try_from(format!("https://{host}{port}{target}")).map_err(|_| RequestError::InvalidRewrite)
}

/// The host of the redirect, without a port: a trusted peer's `X-Forwarded-Host`, otherwise the request's own host.
fn forwarded_host<'h>(exchange: &ClientExchange, headers: &HeaderMap, host: &'h RequestHost) -> Cow<'h, str> {
    let forwarded = headers.get(X_FORWARDED_HOST).filter(|_| exchange.client.trusted);
    match forwarded.and_then(|forwarded| RequestHost::parse(forwarded.clone())) {
        Some(forwarded) => Cow::Owned(forwarded.name().into_owned()),
        None => host.name(),
    }
}
