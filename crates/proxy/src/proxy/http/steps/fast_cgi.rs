//! What a FastCGI server gets of a request in addition to its fields, and the length of its body, which it needs before
//! the body.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::Request;
use http_body::Body;

use super::client_info::client_info;
use super::read_body::read_body;
use super::request_context::{RequestContext, RoutedRequest};
use crate::endpoint_tls::UpstreamProtocol;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::fast_cgi::{FastCgiRequest, FastCgiSettings};
use crate::snapshot::location_steps::RequestValues;
use crate::snapshot::rule::{Backend, BackendTarget, RouteFailure};
use crate::upstream::Upstream;

/// Whether requests to the upstream are those of FastCGI.
pub(super) fn is_used(upstream: &Upstream) -> bool {
    upstream.key.protocol == UpstreamProtocol::FastCgi
}

/// Whether the body of a request to this backend has to be read first, because its length is not known.
pub(super) fn needs_length(backend: &Backend, request: &Request<RequestBody>) -> bool {
    let BackendTarget::Upstream(upstream) = &backend.target else { return false };
    let body = request.body();
    is_used(upstream) && !body.is_end_stream() && body.size_hint().exact().is_none()
}

/// Reads the body. Its trailers are left out, because FastCGI has none.
pub(super) async fn read_to_end(
    cx: &RequestContext<'_>,
    routed: &RoutedRequest<'_>,
    request: &mut Request<RequestBody>,
) -> Result<(), RequestError> {
    read_body(cx.exchange(), request, MAX_BODY, routed.rule.id.namespace()).await?;
    request.body_mut().remove_trailers();
    Ok(())
}

/// Adds the parameters to a request that is rewritten for its server.
pub(super) fn add_params<B>(
    cx: &RequestContext<'_>,
    routed: &RoutedRequest<'_>,
    request: &mut Request<B>,
) -> Result<(), RequestError> {
    let settings = routed.rule.options().fast_cgi.as_ref();
    let FastCgiSettings { script, names } = &**settings.ok_or(RequestError::InvalidRule(RouteFailure::Unsupported))?;
    let record = &*cx.record;
    let listening = cx.exchange().connections.address.socket.ip();
    let values = RequestValues {
        headers: request.headers(),
        method: request.method(),
        version: cx.version,
        raw_target: routed.path.raw(),
        client: client_info(cx.exchange(), &record.client, routed),
        id: &record.facts.request_id,
        now: SystemTime::now(),
        names: Some(names),
        certificates: None,
    };
    let server_address = Some(listening).filter(|address| !IpAddr::is_unspecified(address));
    let described = FastCgiRequest { values, target: request.uri(), server_address };
    let params = script.params(&described).ok_or(RequestError::InvalidRewrite)?;
    request.extensions_mut().insert(Arc::new(params));
    Ok(())
}

/// The longest body without a length. Longer ones need a Content-Length, with which they stream.
const MAX_BODY: usize = 64 << 20;
