//! Where a request is forwarded to, and how: the session, the hash, the filters, and what limits the time.

use http::Request;

use super::affinity::{self, BackendAffinity};
use super::early_exit::EarlyExit;
use super::request_context::{RequestContext, RoutedRequest};
use super::request_filters;
use super::request_hash;
use crate::plugin_api::trace::AttemptParent;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::fields::field_policy::InformationalPolicy;
use crate::proxy::http::forwarding::attempt_policy::AttemptPolicy;
use crate::proxy::http::forwarding::call_deadline;
use crate::proxy::http::forwarding::destination::Destination;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::rule::{Backend, BackendTarget, Filters, WeightedBackends};

/// Applies the filters of the request, and returns where it is forwarded to, and how.
pub(in crate::proxy) fn prepare<'r>(
    cx: &mut RequestContext<'r>,
    backends: &'r WeightedBackends,
    backend: &'r Backend,
    routed: RoutedRequest<'r>,
    request: &mut Request<RequestBody>,
) -> Result<Destination<'r>, EarlyExit> {
    let rule = routed.rule;
    let upstream = match &backend.target {
        BackendTarget::Upstream(upstream) => upstream,
        BackendTarget::Fail(failure) => return Err(RequestError::InvalidRule(*failure).into()),
    };
    // Before the filters, which may remove the cookie.
    cx.affinity = BackendAffinity::read(backends, upstream, request.headers(), cx.exchange());
    let pinned = cx.affinity.as_ref().and_then(|backend| backend.session.endpoint());
    let hash = request_hash::of_request(cx, &routed, request.headers(), upstream);
    affinity::strip_from_request(cx.affinity.as_deref(), request.headers_mut());
    request_filters::apply(cx, &routed, backend, request)?;
    let call_timeout = if backends.honors_call_deadlines { call_deadline::read(request.headers()) } else { None };
    let call_deadline = call_timeout.and_then(|timeout| cx.exchange().activity.started_at.get().checked_add(timeout));
    // Plugins and filters may set it.
    let edits_headers = |filters: &Filters| filters.request_headers.is_some();
    let may_have_te =
        routed.may_have_te || rule.plugins.is_some() || edits_headers(&rule.filters) || edits_headers(&backend.filters);
    Ok(Destination {
        upstream,
        admitted: None,
        pinned,
        hash,
        policy: AttemptPolicy {
            rule: backends.timeouts_and_retries.as_deref(),
            plugins: cx.record.plugin_run.as_ref().map(|run| run.state.endpoint_timeouts).unwrap_or_default(),
            call_deadline,
            ..AttemptPolicy::default()
        },
        settings: upstream.attempt_settings(),
        upgrade: routed.upgrade,
        may_have_te,
        informational: InformationalPolicy::new(rule, cx.record.changed_response_fields()),
        hops: routed.hops,
        trace_parent: cx.record.trace().as_ref().and_then(AttemptParent::of),
        client: routed.client,
    })
}
