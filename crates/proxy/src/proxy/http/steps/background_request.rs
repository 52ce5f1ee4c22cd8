//! Sends the request that a plugin leaves in `before_forward` while the client gets its reply.

use std::sync::Arc;

use http::Request;

use super::affinity::{self, BackendAffinity};
use super::backend::{SelectedAction, apply_filters_to_copy};
use super::fast_cgi;
use super::request_context::{RequestContext, RoutedRequest};
use super::request_hash;
use crate::plugin_api::context::BackgroundRequest;
use crate::proxy::http::forwarding::background::BackgroundSending;
use crate::shared_limit::Held;
use crate::snapshot::rule::BackendTarget;

/// Sends the request to the backend of the client's request, with the filters of the rule and of the backend.
pub(super) fn send(
    cx: &RequestContext<'_>,
    routed: &RoutedRequest<'_>,
    action: SelectedAction<'_>,
    background: BackgroundRequest,
    place: Held,
) {
    let SelectedAction::Forward(backends, backend) = action else { return };
    let BackendTarget::Upstream(upstream) = &backend.target else { return };
    let mut request = Request::from_parts(background.head, ());
    let hash = request_hash::of_side_request(cx, routed, request.headers(), upstream);
    let session = BackendAffinity::read(backends, upstream, request.headers(), cx.record.client.scheme);
    affinity::strip_from_request(session.as_deref(), request.headers_mut());
    if apply_filters_to_copy(routed, backend, &mut request).is_err() {
        return;
    }
    if fast_cgi::is_used(upstream) && fast_cgi::add_params(cx, routed, &mut request).is_err() {
        return;
    }
    let sending = BackgroundSending {
        upstream: Arc::clone(upstream),
        rule: Arc::clone(routed.rule),
        plugins: cx.record.plugin_run.as_ref().map(|run| run.state.endpoint_timeouts).unwrap_or_default(),
        hash,
        hops: routed.hops,
        client: routed.client,
        head: request,
        finish: background.finish,
        place,
    };
    sending.start(&cx.exchange().http.background_sender);
}
