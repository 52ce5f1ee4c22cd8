//! Checks a request against the protocols and upgrades that its rule accepts, and redirects plain-text requests to
//! HTTPS.

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, StatusCode, Uri};

use super::early_exit::EarlyExit;
use super::request_context::{RequestContext, RoutedRequest};
use crate::plugin_api::Scheme;
use crate::plugin_api::media_type::is_grpc;
use crate::proxy::http::record::request_error::RequestError;
use crate::request_target::RequestHost;
use crate::snapshot::rule_options::{AcceptedUpgrades, HttpsRedirect, Protocols};

/// Checks the request against the protocols of the rule, which may redirect HTTP to HTTPS. A request for an upgrade
/// that the rule does not accept is forwarded without it.
pub(in crate::proxy) fn check<B>(
    cx: &RequestContext<'_>,
    routed: &mut RoutedRequest<'_>,
    request: &Request<B>,
) -> Result<(), EarlyExit> {
    let options = routed.rule.options();
    routed.upgrade.take_if(|upgrade| match options.upgrades {
        AcceptedUpgrades::All => false,
        AcceptedUpgrades::WebSocket => !upgrade.is_websocket(),
    });
    if options.connection.is_some() && routed.upgrade.take().is_some_and(|upgrade| !upgrade.may_be_ignored()) {
        return Err(RequestError::UpgradeNotSupported.into());
    }
    let Protocols { http, https, grpc, grpcs } = options.protocols;
    let (exchange, headers) = (cx.exchange(), request.headers());
    let is_secure = cx.record.client.scheme == Scheme::Https;
    if https && !http && !is_secure {
        let redirect = options.https_redirect;
        if redirect.status == StatusCode::UPGRADE_REQUIRED {
            return Err(RequestError::HttpsOnly.into());
        }
        let location = https_location(request.uri(), cx.record.client.host(&routed.host), redirect)?;
        return Err(EarlyExit::HttpsRedirect { status: redirect.status, location });
    }
    if (grpc || grpcs) && !http && !https {
        // The field is forwarded: HTTP/2 has no `Connection` that could name it (RFC 9113, section 8.2.2).
        if !is_grpc(headers) {
            return Err(RequestError::NotGrpc.into());
        }
        if !exchange.protocol.is_multiplexed() {
            return Err(RequestError::Http2Only.into());
        }
        if !grpc && !is_secure {
            return Err(RequestError::GrpcsOnly.into());
        }
    }
    Ok(())
}

/// The `https` URL of the same target on the same host.
fn https_location(uri: &Uri, host: &RequestHost, redirect: HttpsRedirect) -> Result<HeaderValue, RequestError> {
    let is_mapped = redirect.plain_port.is_some_and(|port| port != HTTP_PORT) && !host.has_port();
    let port = if redirect.port == HTTPS_PORT || is_mapped { String::new() } else { format!(":{}", redirect.port) };
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    HeaderValue::try_from(format!("https://{}{port}{target}", host.name())).map_err(|_| RequestError::InvalidRewrite)
}

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
