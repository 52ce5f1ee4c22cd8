//! The redirect that is the action of a rule.

use http::HeaderValue;

use super::early_exit::EarlyExit;
use super::request_context::{RequestContext, RoutedRequest};
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::redirect::RedirectAction;

/// Ends the request with the redirect.
pub(in crate::proxy) fn redirect(
    cx: &RequestContext<'_>,
    action: &RedirectAction,
    routed: &RoutedRequest<'_>,
) -> EarlyExit {
    let client = &cx.record.client;
    let host = client.host(&routed.host).raw.to_str().unwrap_or_default();
    let (port, path) = (client.port(routed.listener.port), routed.endpoint_path());
    let location = action.location(client.scheme, host, port, path.path(), path.query());
    match HeaderValue::try_from(location) {
        Ok(location) => EarlyExit::Redirect { status: action.status, location },
        Err(_) => RequestError::InvalidRewrite.into(),
    }
}
