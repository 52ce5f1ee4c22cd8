//! The backend of a request: which one the action of the rule selects, how the filters of the rule and then those of
//! the backend change the request (header edits, mirrors and rewrites), and where it is forwarded to, and how: the
//! session, the hash, and what limits the time.

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::uri::PathAndQuery;
use http::{Request, Uri};
use smallvec::SmallVec;

use super::affinity::{self, BackendAffinity};
use super::cross_origin::apply_cors;
use super::early_exit::EarlyExit;
use super::error_backend;
use super::fast_cgi;
use super::plugins::may_stand_in_for_backend;
use super::request_context::{RequestContext, RoutedRequest};
use super::request_hash;
use crate::endpoint_tls::UpstreamProtocol;
use crate::plugin_api::Scheme;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::fields::field_policy::InformationalPolicy;
use crate::proxy::http::forwarding::attempt_policy::AttemptPolicy;
use crate::proxy::http::forwarding::call_deadline;
use crate::proxy::http::forwarding::destination::Destination;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::external_auth::ExternalAuthFilter;
use crate::snapshot::redirect::RedirectAction;
use crate::snapshot::rule::{
    Action, Backend, BackendTarget, Filters, Mirror, RouteFailure, RouteRule, WeightedBackends,
};

/// What the rule does with a request, and the selected backend.
#[derive(Clone, Copy)]
pub(in crate::proxy) enum SelectedAction<'r> {
    Redirect(&'r RedirectAction),
    Forward(&'r WeightedBackends, &'r Backend),
    /// The rule has no backends, and a plugin may respond in their place. Otherwise, the request fails.
    StandIn(RouteFailure),
}

/// Selects the backend of a request that the rule forwards. Ends requests that the rule fails.
pub(in crate::proxy) fn select<'r>(
    cx: &mut RequestContext<'r>,
    rule: &'r RouteRule,
) -> Result<SelectedAction<'r>, RequestError> {
    match &rule.action {
        Action::Forward(backends) => {
            // A choice whose backend has no endpoints may have a fallback. The rule's backend gets the request then,
            // and no cache stores its response as that of the chosen one.
            let choice = cx.record.plugin_run.as_mut().map(|run| &mut run.state.chosen_backend);
            let chosen = choice.and_then(|choice| {
                let chosen = choice.and_then(|choice| backends.chosen(choice));
                if chosen.is_none() {
                    *choice = None;
                }
                chosen
            });
            let backend = chosen.unwrap_or_else(|| cx.view.pick_backend(backends));
            let is_secure = cx.record.client.scheme == Scheme::Https;
            let backend = if is_secure { backends.over_tls(backend) } else { backend };
            let (backends, backend) = backends.in_place_of(backend).unwrap_or((backends, backend));
            cx.backend = Some(backend);
            Ok(SelectedAction::Forward(backends, backend))
        }
        Action::Redirect(action) => Ok(SelectedAction::Redirect(action)),
        // A function, for example, needs no backend. The authorization server of the rule still decides before it.
        // Nothing responds in place of a Service that is missing, because its own plugins could have refused.
        Action::Fail(failure @ (RouteFailure::NoBackends | RouteFailure::WithoutService))
            if may_stand_in_for_backend(cx) =>
        {
            Ok(SelectedAction::StandIn(*failure))
        }
        Action::Fail(failure) => Err(RequestError::InvalidRule(*failure)),
    }
}

impl<'r> SelectedAction<'r> {
    /// The filters of the backend. A rule without backends has none.
    fn backend_filters(self) -> Option<&'r Filters> {
        match self {
            SelectedAction::Redirect(_) | SelectedAction::StandIn(_) => None,
            SelectedAction::Forward(_, backend) => Some(&backend.filters),
        }
    }

    /// Ends CORS preflight requests, if the backend or the rule has a filter for them. Before checking whether the
    /// backend is usable, because browsers show errors only to pages that may read the response.
    pub(in crate::proxy) fn answer_preflight(
        self,
        cx: &mut RequestContext<'_>,
        rule: &RouteRule,
        request: &Request<RequestBody>,
    ) -> Result<(), EarlyExit> {
        let cors = self.backend_filters().and_then(|filters| filters.cors.as_ref()).or(rule.filters.cors.as_ref());
        cors.map_or(Ok(()), |cors| apply_cors(cors, request, cx.record))
    }

    /// The authorization filters of the rule and of the backend, in the order in which they apply.
    pub(in crate::proxy) fn authorization(self, rule: &'r RouteRule) -> [Option<&'r ExternalAuthFilter>; 2] {
        [Some(&rule.filters), self.backend_filters()].map(|filters| filters?.external_auth.as_deref())
    }

    /// Whether the request goes to a backend that can get it, or to a plugin in place of backends.
    pub(in crate::proxy) fn is_forwarded(self) -> bool {
        match self {
            SelectedAction::Redirect(_) => false,
            SelectedAction::Forward(_, backend) => matches!(backend.target, BackendTarget::Upstream(_)),
            SelectedAction::StandIn(_) => true,
        }
    }
}

/// Applies the filters of the request, and returns where it is forwarded to, and how.
pub(in crate::proxy) fn rewrite_request<'r>(
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
    let settings = upstream.attempt_settings();
    let replaces_host = |filters: &Filters| filters.rewrite.as_ref().is_some_and(|rewrite| rewrite.host.is_some());
    let changes_header =
        |filters: &Filters| filters.request_headers.is_some() || !filters.mirrors.is_empty() || replaces_host(filters);
    // The session, a part of the hash and the number of the attempt may be in a field of any name.
    let has_sessions = backends.affinity().is_some() || upstream.affinity_settings().is_some();
    let reads_header = has_sessions || upstream.hashing() || upstream.has_alternatives() || settings.is_some();
    // The library writes the header.
    let is_http2 = upstream.key.protocol == UpstreamProtocol::Http2;
    let is_fast_cgi = fast_cgi::is_used(upstream);
    if is_http2 || is_fast_cgi || reads_header || changes_header(&rule.filters) || changes_header(&backend.filters) {
        cx.write_pending(request.headers_mut());
    }
    // Before the filters, which may remove the cookie.
    cx.affinity = BackendAffinity::read(backends, upstream, request.headers(), cx.record.client.scheme);
    let pinned = cx.affinity.as_ref().and_then(|affinity| affinity.pinned());
    let pinned_others = cx.affinity.as_ref().map(|affinity| affinity.pinned_others()).unwrap_or_default();
    let hash = request_hash::of_request(cx, &routed, request.headers(), upstream);
    affinity::strip_from_request(cx.affinity.as_deref(), request.headers_mut());
    apply_filters(cx, &routed, backend, request)?;
    if let Some(connection) = rule.options().connection.as_ref().filter(|_| !is_http2) {
        request.headers_mut().insert(CONNECTION, connection.clone());
    }
    if let (Some(error_backend), Action::Forward(split)) = (&rule.options().error_backend, &rule.action)
        && split.is_substitute(backend)
    {
        cx.write_pending(request.headers_mut());
        error_backend::set_headers(cx, error_backend, request.headers_mut());
    }
    if is_fast_cgi {
        fast_cgi::add_params(cx, &routed, request)?;
    }
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
        pinned_others,
        hash,
        policy: AttemptPolicy {
            rule: backends.timeouts_and_retries.as_deref(),
            rule_id: Some(&rule.id),
            plugins: cx.record.plugin_run.as_ref().map(|run| run.state.endpoint_timeouts).unwrap_or_default(),
            call_deadline,
            ..AttemptPolicy::default()
        },
        settings,
        upgrade: routed.upgrade,
        may_have_te,
        informational: InformationalPolicy::new(rule, cx.record.changed_response_fields()),
        hops: routed.hops,
        trace: cx.endpoint_trace(),
        // Of the record, which the destination does not borrow yet.
        forwarding: None,
        client: routed.client,
    })
}

/// The rule's filters run first, so that the backend's, which are more specific, take precedence. Mirrors of the
/// rule get the request with the rule's filters only, mirrors of the backend with the filters of both.
fn apply_filters(
    cx: &RequestContext<'_>,
    routed: &RoutedRequest<'_>,
    backend: &Backend,
    request: &mut Request<RequestBody>,
) -> Result<(), RequestError> {
    let levels = [&routed.rule.filters, &backend.filters];
    // An upgrade request is not mirrored, since the mirror could not continue the new protocol.
    let is_mirrored = routed.upgrade.is_none() && levels.iter().any(|filters| !filters.mirrors.is_empty());
    // Of the request as it is now, like that for the backend.
    let mut mirror_hashes: [SmallVec<[Option<u64>; 1]>; 2] = Default::default();
    if is_mirrored {
        let hash = |mirror: &Mirror| request_hash::of_side_request(cx, routed, request.headers(), &mirror.upstream);
        mirror_hashes = levels.map(|filters| filters.mirrors.iter().map(hash).collect());
    }
    for (level, filters) in levels.iter().enumerate() {
        if let Some(edits) = &filters.request_headers {
            edits.apply(request.headers_mut());
        }
        if is_mirrored && !filters.mirrors.is_empty() {
            let rewrite_copy = |copy: &mut Request<()>| rewrite_target(copy, routed, &levels[..=level]).is_ok();
            let sender = &cx.exchange().http.background_sender;
            let mirrors = filters.mirrors.iter().zip(mirror_hashes[level].iter().copied());
            sender.mirror_request(mirrors, request, routed.client, routed.hops, rewrite_copy);
        }
    }
    rewrite_target(request, routed, &levels)?;
    Ok(())
}

/// Changes the request for the plugin that takes the place of the backend as for the backend itself. The request is not
/// copied to mirrors: a rule with mirrors fails.
pub(in crate::proxy) fn edit_for_replacement(
    routed: &RoutedRequest<'_>,
    action: SelectedAction<'_>,
    request: &mut Request<RequestBody>,
) -> Result<WrittenTarget, RequestError> {
    let levels: SmallVec<[&Filters; 2]> =
        [Some(&routed.rule.filters), action.backend_filters()].into_iter().flatten().collect();
    if levels.iter().any(|filters| !filters.mirrors.is_empty()) {
        return Err(RequestError::InvalidRule(RouteFailure::Unsupported));
    }
    for edits in levels.iter().filter_map(|filters| filters.request_headers.as_ref()) {
        edits.apply(request.headers_mut());
    }
    rewrite_target(request, routed, &levels)
}

/// What filters have written of the target and the host of a request.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct WrittenTarget {
    pub(in crate::proxy) path: bool,
    pub(in crate::proxy) host: bool,
}

/// Changes a further request to the same backend as the client's, which is not mirrored.
pub(super) fn apply_filters_to_copy(
    routed: &RoutedRequest<'_>,
    backend: &Backend,
    request: &mut Request<()>,
) -> Result<(), RequestError> {
    let levels = [&routed.rule.filters, &backend.filters];
    for edits in levels.iter().filter_map(|filters| filters.request_headers.as_ref()) {
        edits.apply(request.headers_mut());
    }
    rewrite_target(request, routed, &levels)?;
    Ok(())
}

/// Rewrites target and Host for the endpoint. The client's bytes are kept unless the matched path differs from them or
/// a filter rewrites it; of several rewrites the last one applies.
fn rewrite_target<B>(
    request: &mut Request<B>,
    routed: &RoutedRequest<'_>,
    filters: &[&Filters],
) -> Result<WrittenTarget, RequestError> {
    let path = routed.endpoint_path();
    let rewrites = || filters.iter().rev().filter_map(|filters| filters.rewrite.as_ref());
    let host = rewrites().find_map(|rewrite| rewrite.host.as_ref());
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host.clone());
    }
    let edit = rewrites().find_map(|rewrite| rewrite.path.as_ref()).filter(|_| !routed.has_plugin_path);
    let written = WrittenTarget { path: edit.is_some(), host: host.is_some() };
    let is_raw = routed.replaced_path.is_none() && routed.rule.options().forwards_raw_target;
    let unchanged = if is_raw { path.sent() } else { path.unchanged() };
    if let Some(unchanged) = unchanged.filter(|_| edit.is_none()) {
        // The targets of HTTP/2 have a scheme and an authority.
        if request.uri().authority().is_some() {
            *request.uri_mut() = Uri::from(unchanged.clone());
        }
        return Ok(written);
    }
    let mut target = edit.map_or_else(|| path.path().to_owned(), |edit| edit.apply(path.path()));
    if let Some(query) = path.query() {
        target.push('?');
        target.push_str(query);
    }
    let target = PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| RequestError::InvalidRewrite)?;
    *request.uri_mut() = Uri::from(target);
    Ok(written)
}

/// Ends the dry run of an observed request: selects the backend, without filters and plugins.
pub(in crate::proxy) fn dry_run<'r>(cx: &mut RequestContext<'r>, rule: &'r RouteRule) -> EarlyExit {
    let failure = match &rule.action {
        Action::Forward(backends) => {
            let backend = cx.view.pick_backend(backends);
            cx.backend = Some(backend);
            match &backend.target {
                BackendTarget::Upstream(_) => None,
                BackendTarget::Fail(failure) => Some(*failure),
            }
        }
        Action::Redirect(_) => None,
        Action::Fail(failure) => Some(*failure),
    };
    failure.map_or(EarlyExit::DryRun, |failure| RequestError::InvalidRule(failure).into())
}
