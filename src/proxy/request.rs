//! Handles one request, from its head to the response that is returned.

use std::borrow::Cow;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, EXPECT, HOST, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::activity::ActivityPhase;
use super::body::{BodySource, RequestBody, ResponseBody};
use super::connection::Peer;
use super::cross_origin;
use super::error_response::{ErrorFormat, FORWARDED_METHODS};
use super::forward;
use super::framing;
use super::headers::{self, join_cookies, strip_request};
use super::kong;
use super::plugin_run;
use super::request_error::RequestError;
use super::request_id::X_REQUEST_ID;
use super::request_record::RequestRecord;
use super::retry;
use super::target::{RequestHost, RequestPath};
use super::tls::TlsSession;
use super::upgrade::Upgrade;
use super::view::SnapshotView;
use crate::plugin_api::{Chain, Framing};
use crate::snapshot::router::RoutingRequest;
use crate::snapshot::rule::{Action, Backend, BackendTarget, Filters, RouteRule};
use crate::snapshot::timeouts_and_retries::TimeoutsAndRetries;
use crate::snapshot::{Bind, HttpListener};
use crate::upstream::Upstream;

/// Handles one request. Errors become responses, so the result is infallible.
pub(crate) async fn serve(peer: Rc<Peer>, request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
    // The configuration is read once: the request uses this snapshot to its end, whatever changes meanwhile.
    let view = peer.worker.view();
    let version = request.version();
    let error_format = ErrorFormat::from_request(&request);
    let mut record = RequestRecord::start(&peer, &request);
    let mut request = request.map(|incoming| RequestBody::new(incoming, version, &peer));

    let mut decision = decide(&view, &mut request, &mut record);
    if let Ok(Decision::RunPlugins { listener, rule, chain, asked, framing, upgrade }) = decision {
        // Boxed, so that the future of requests without plugins stays small.
        let rule = (listener, rule, chain);
        let running = run_plugins(&view, rule, asked, (framing, upgrade), &mut request, &mut record, &error_format);
        decision = Box::pin(running).await;
    }
    let outcome = match decision {
        Ok(Decision::Respond(response)) => Ok(response),
        Ok(Decision::RunPlugins { .. }) => unreachable!("plugins run once per request"),
        Ok(Decision::Forward { rule, backend, upstream, timeouts_and_retries: tries, upgrade }) => {
            if record.plugin_run.is_some() || record.kong.is_some() {
                peer.activity.sent_at.set(Some(Instant::now()));
            }
            let response = match tries {
                None => forward::forward(upstream, request, upgrade, &mut record).await,
                // Boxed, so that the future of requests without timeouts and retries stays small.
                Some(tries) => {
                    Box::pin(retry::forward_with_retries(upstream, request, upgrade, &mut record, tries)).await
                }
            };
            response.map(|mut response| {
                finish_response(&mut response, &record.request_id, &[&backend.filters, &rule.filters]);
                response
            })
        }
        Err(error) => Err(error),
    };
    let mut close = peer.connections.is_closing();
    let mut response = outcome.unwrap_or_else(|error| {
        let error = record.kong.as_ref().map_or(error, |kong| kong.map_error(error));
        let account = error.details();
        record.error = Some(account.reason);
        // After a malformed request, the client and this proxy may disagree about where the next request begins.
        close |= account.status == StatusCode::BAD_REQUEST;
        let mut response = error_format.render_error(&account, &record.request_id).map(BodySource::Local);
        finish_response(&mut response, &record.request_id, &[]);
        kong::set_upgrade_headers(error, version, response.headers_mut());
        response
    });
    if let Some(grant) = record.cors_grant.take() {
        grant.apply(response.headers_mut());
    }
    let now = Instant::now();
    if let Some(run) = &mut record.plugin_run {
        run.run_response(&mut response, &record.request_id, now);
    }
    kong::set_response_headers(&mut response, &record, now);
    record.status = Some(response.status());
    // HTTP/2 has no such field; its connections are closed with GOAWAY.
    if close && version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    peer.activity.enter_phase(ActivityPhase::SendingResponse, now);
    peer.activity.response_deadline.set(record.deadline.as_ref().map(|cut_off| cut_off.sleep.deadline()));
    if matches!(response.body(), BodySource::Upgraded(..)) {
        return Ok(switch_protocols(response, record));
    }
    Ok(response.map(|source| ResponseBody::new(source, record, version)))
}

/// Builds the response after which the connection, or the HTTP/2 stream, switches to another protocol.
fn switch_protocols(response: Response<BodySource>, mut record: RequestRecord) -> Response<ResponseBody> {
    // The rule's request timeout does not apply to an upgraded connection.
    record.deadline = None;
    let (head, source) = response.into_parts();
    let mut response = Response::from_parts(head, ResponseBody::for_tunnel());
    if let BodySource::Upgraded(upgrade, endpoint) = source {
        upgrade.accept(&mut response);
        record.status = Some(response.status());
        (*upgrade).start_tunnel(endpoint, record);
    }
    response
}

/// What to do with a request.
enum Decision<'v> {
    Respond(Response<BodySource>),
    /// Run the plugins, which decide whether the request continues.
    RunPlugins {
        listener: &'v Arc<HttpListener>,
        rule: &'v Arc<RouteRule>,
        chain: &'v Arc<Chain>,
        asked: OriginalTarget,
        framing: Framing,
        upgrade: Option<Box<Upgrade>>,
    },
    /// Forward the request, which is already rewritten for the endpoint.
    Forward {
        rule: &'v RouteRule,
        backend: &'v Backend,
        upstream: &'v Arc<Upstream>,
        timeouts_and_retries: Option<&'v TimeoutsAndRetries>,
        upgrade: Option<Box<Upgrade>>,
    },
}

/// The client's original request target, which plugins see.
struct OriginalTarget {
    host: RequestHost,
    /// Set if the request's URI was already rewritten for the endpoint.
    target: Option<Uri>,
    /// The path needed no normalization.
    path_is_unchanged: bool,
}

fn decide<'v>(
    view: &'v SnapshotView,
    request: &mut Request<RequestBody>,
    record: &mut RequestRecord,
) -> Result<Decision<'v>, RequestError> {
    let peer = Rc::clone(&record.peer);
    if let Some(error) = peer.activity.guard_error() {
        return Err(error);
    }
    let upgrade = Upgrade::take(request)?;
    framing::check_request(request)?;
    if request.headers().len() > peer.worker.limits.max_request_fields {
        return Err(RequestError::TooManyHeaders);
    }
    let uri = request.uri().clone();
    let path = RequestPath::parse(request.method(), &uri)?;
    let host = RequestHost::from_request(request.version(), &uri, request.headers(), peer.connections.address.socket)?;
    let Some(path) = path else { return Ok(Decision::Respond(server_options_response(&record.request_id))) };
    let name = host.name();

    // The most specific listener for the host handles the request; other listeners are not searched.
    let bind = view.bind(&peer.connections.address);
    let listener = bind.and_then(|bind| bind.listener(&name));
    if bind.is_some_and(|bind| is_misdirected(bind, listener, peer.session.as_deref(), &name)) {
        return Err(RequestError::MisdirectedRequest);
    }
    let listener = listener.ok_or(RequestError::NoListener)?;
    if listener.is_kong() {
        kong::mark_as_kong(record);
    }
    let path = kong::normalize_path(listener, path);
    let question = RoutingRequest {
        path: &path.path,
        query: path.query,
        method: request.method(),
        headers: request.headers(),
        authority: host.raw.as_bytes(),
        scheme: peer.client.scheme,
        server_name: peer.session.as_ref().and_then(|session| session.server_name.as_deref()),
    };
    let Some(matched) = listener.find(&name, &question) else {
        record.series = Some(view.series(&peer.worker, listener, None, None));
        return Err(RequestError::NoRoute);
    };
    let rule = matched.rule;
    let framing = if rule.plugins.is_some() { plugin_run::body_framing(request.headers()) } else { Framing::default() };
    let Some(manner) = &rule.kong else {
        set_forwarding_headers(&peer, request, (rule, &host, listener), &record.request_id);
        kong::set_request_headers(request, record);
        if let Some(chain) = &rule.plugins {
            record.series = Some(view.series(&peer.worker, listener, Some(rule), None));
            let asked = OriginalTarget { path_is_unchanged: !path.is_changed(), host, target: None };
            return Ok(Decision::RunPlugins { listener, rule, chain, asked, framing, upgrade });
        }
        return apply_rule(view, (listener, rule), (&host, &path), upgrade, request, record);
    };
    kong::mark_as_kong(record);
    // Counts the request without a backend, for exits before a backend is selected.
    let routed_series = || Some(view.series(&peer.worker, listener, Some(rule), None));
    if let Some(outcome) = kong::check_protocol(manner, request, &host, &peer).transpose() {
        record.series = routed_series();
        let mut response = outcome?;
        finish_response(&mut response, &record.request_id, &[]);
        return Ok(Decision::Respond(response));
    }
    set_forwarding_headers(&peer, request, (rule, &host, listener), &record.request_id);
    let upgrade = kong::websocket_only(upgrade);
    let Ok(before) = kong::prepare_request(rule, manner, matched.path, &path, request, record) else {
        record.series = routed_series();
        return Err(RequestError::InvalidRewrite);
    };
    let is_plain = !path.is_changed();
    let rewritten = (before.is_some() || !is_plain).then(|| request.uri().clone());
    // If the path was not rewritten, the endpoint gets the path that was parsed.
    let path = match &rewritten {
        None => path,
        Some(uri) => match RequestPath::parse(request.method(), uri) {
            Ok(Some(path)) => path,
            Ok(None) | Err(_) => {
                record.series = routed_series();
                return Err(RequestError::InvalidRewrite);
            }
        },
    };
    let Some(chain) = &rule.plugins else {
        return apply_rule(view, (listener, rule), (&host, &path), upgrade, request, record);
    };
    record.series = routed_series();
    let asked = OriginalTarget { host, target: before, path_is_unchanged: is_plain };
    Ok(Decision::RunPlugins { listener, rule, chain, asked, framing, upgrade })
}

/// Removes hop-by-hop headers and sets the forwarding headers, before the proxy, plugins and filters add headers.
fn set_forwarding_headers(
    peer: &Peer,
    request: &mut Request<RequestBody>,
    (rule, host, listener): (&RouteRule, &RequestHost, &HttpListener),
    id: &HeaderValue,
) {
    let path = rule.kong.as_ref().map(|_| HeaderValue::from_str(request.uri().path()).ok());
    let headers = request.headers_mut();
    strip_request(
        headers,
        if path.is_some() { &kong::forwarding_headers::FORWARDING_HEADERS } else { &headers::MANAGED_HEADERS },
    );
    headers.remove(EXPECT);
    join_cookies(headers);
    let port = peer.client.port_value(listener.port);
    match path {
        None => peer.client.set_forwarding_headers(headers, &host.raw, &port),
        Some(path) => kong::forwarding_headers::set_forwarding_headers(peer, headers, host, path, port),
    }
    headers.insert(X_REQUEST_ID, id.clone());
    if host.is_overridden {
        headers.insert(HOST, host.raw.clone());
    }
}

/// Runs the plugins of a rule, and applies the rule if they let the request continue.
async fn run_plugins<'v>(
    view: &'v SnapshotView,
    (listener, rule, chain): (&'v Arc<HttpListener>, &'v Arc<RouteRule>, &'v Arc<Chain>),
    asked: OriginalTarget,
    (framing, upgrade): (Framing, Option<Box<Upgrade>>),
    request: &mut Request<RequestBody>,
    record: &mut RequestRecord,
    error_format: &ErrorFormat,
) -> Result<Decision<'v>, RequestError> {
    let OriginalTarget { host, target, path_is_unchanged: is_plain } = asked;
    let before = request.uri().clone();
    // The client's target, also where the endpoint gets another path.
    let uri = target.as_ref().unwrap_or(&before);
    let path = if is_plain {
        RequestPath { path: Cow::Borrowed(uri.path()), query: uri.query() }
    } else {
        // Parsed again, since storing it would enlarge the future of every request.
        let Some(path) = RequestPath::parse(request.method(), uri)? else { return Err(RequestError::NoRoute) };
        kong::normalize_path(listener, path)
    };
    let consumers = &view.snapshot.consumers;
    let reply =
        plugin_run::run_access(chain, consumers, request, (&host, &path), (listener.port, framing), record).await?;
    if let Some(reply) = reply {
        record.error = Some(reply.reason);
        let mut response = plugin_run::reply_response(*reply, error_format, &record.request_id);
        finish_response(&mut response, &record.request_id, &[]);
        return Ok(Decision::Respond(response));
    }
    if target.is_none() && *request.uri() == before {
        return apply_rule(view, (listener, rule), (&host, &path), upgrade, request, record);
    }
    // A plugin has changed the target, for example removed a key from the query.
    let uri = request.uri().clone();
    let path = RequestPath::parse(request.method(), &uri)?.ok_or(RequestError::InvalidRewrite)?;
    apply_rule(view, (listener, rule), (&host, &path), upgrade, request, record)
}

/// Applies the action of the rule to a request that the plugins have let pass.
fn apply_rule<'v>(
    view: &'v SnapshotView,
    (listener, rule): (&'v Arc<HttpListener>, &'v Arc<RouteRule>),
    (host, path): (&RequestHost, &RequestPath<'_>),
    upgrade: Option<Box<Upgrade>>,
    request: &mut Request<RequestBody>,
    record: &mut RequestRecord,
) -> Result<Decision<'v>, RequestError> {
    let peer = Rc::clone(&record.peer);
    let split = match &rule.action {
        Action::Forward(split) => split,
        Action::Redirect(redirect) => {
            record.series = Some(view.series(&peer.worker, listener, Some(rule), None));
            if let Some(cors) = &rule.filters.cors
                && let Some(mut response) = cross_origin::apply_cors(cors, request, record)
            {
                finish_response(&mut response, &record.request_id, &[&rule.filters]);
                return Ok(Decision::Respond(response));
            }
            let host = host.raw.to_str().unwrap_or_default();
            let location = redirect.location(peer.client.scheme, host, listener.port, &path.path, path.query);
            let mut response = Response::new(BodySource::Local(Bytes::new()));
            *response.status_mut() = redirect.status;
            let location = HeaderValue::try_from(location).map_err(|_| RequestError::InvalidRewrite)?;
            response.headers_mut().insert(LOCATION, location);
            finish_response(&mut response, &record.request_id, &[&rule.filters]);
            return Ok(Decision::Respond(response));
        }
        Action::Fail(failure) => {
            record.series = Some(view.series(&peer.worker, listener, Some(rule), None));
            return Err(RequestError::InvalidRule(*failure));
        }
    };
    let backend = view.pick_backend(rule, split);
    record.series = Some(view.series(&peer.worker, listener, Some(rule), Some(backend)));
    // Before checking whether the backend is usable: browsers show errors only to pages that may read the response.
    if let Some(cors) = backend.filters.cors.as_ref().or(rule.filters.cors.as_ref())
        && let Some(mut response) = cross_origin::apply_cors(cors, request, record)
    {
        finish_response(&mut response, &record.request_id, &[&backend.filters, &rule.filters]);
        return Ok(Decision::Respond(response));
    }
    let upstream = match &backend.target {
        BackendTarget::Upstream(upstream) => upstream,
        BackendTarget::Fail(failure) => return Err(RequestError::InvalidRule(*failure)),
    };

    // The rule's filters run first, so that the backend's, which are more specific, take precedence. Mirrors get the
    // request with the filters of their own level only: filters of one backend do not apply to mirrors of the rule.
    let levels = [&rule.filters, &backend.filters];
    for (level, filters) in levels.iter().enumerate() {
        if let Some(edits) = &filters.request_headers {
            edits.apply(request.headers_mut());
        }
        // An upgrade request is not mirrored, since the mirror could not continue the new protocol.
        if !filters.mirrors.is_empty() && upgrade.is_none() {
            let finish = |copy: &mut Request<()>| rewrite_target(copy, path, &levels[..=level]).is_ok();
            peer.worker.mirrors.copy(&filters.mirrors, request, finish);
        }
    }
    rewrite_target(request, path, &levels)?;

    Ok(Decision::Forward {
        rule,
        backend,
        upstream,
        timeouts_and_retries: split.timeouts_and_retries.as_deref(),
        upgrade,
    })
}

/// Whether the connection was opened for another listener than the one of the request's host (RFC 9110, section
/// 15.5.20). Browsers reuse a connection for every name in its certificate, but client checks of a listener only
/// covered its own connections.
fn is_misdirected(bind: &Bind, listener: Option<&Arc<HttpListener>>, session: Option<&TlsSession>, host: &str) -> bool {
    match (session, &bind.tls) {
        (None, None) => false,
        (Some(session), Some(_)) => {
            let server_name = session.server_name.as_deref();
            // The common case, which needs no lookup.
            if server_name == Some(host) {
                return false;
            }
            let selected = bind.listener_by_server_name(server_name);
            !selected.zip(listener).is_some_and(|(selected, listener)| Arc::ptr_eq(selected, listener))
        }
        // The port was changed from HTTP to HTTPS, or back, while the connection was open.
        (None, Some(_)) | (Some(_), None) => true,
    }
}

/// Rewrites target and Host for the endpoint. The client's bytes are kept unless the matched path differs from them or
/// a filter rewrites it; of several rewrites the last one applies.
fn rewrite_target<B>(
    request: &mut Request<B>,
    path: &RequestPath<'_>,
    filters: &[&Filters],
) -> Result<(), RequestError> {
    let rewrites = || filters.iter().rev().filter_map(|filters| filters.rewrite.as_ref());
    if let Some(host) = rewrites().find_map(|rewrite| rewrite.host.as_ref()) {
        request.headers_mut().insert(HOST, host.clone());
    }
    let edit = rewrites().find_map(|rewrite| rewrite.path.as_ref());
    if edit.is_none() && !path.is_changed() && request.uri().authority().is_none() {
        return Ok(());
    }
    let mut target = edit.map_or_else(|| path.path.clone().into_owned(), |edit| edit.apply(&path.path));
    if let Some(query) = path.query {
        target.push('?');
        target.push_str(query);
    }
    let target = PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| RequestError::InvalidRewrite)?;
    *request.uri_mut() = Uri::from(target);
    Ok(())
}

/// Sets the request ID, unless the endpoint has sent one, then applies the response filters, which may change it.
fn finish_response(response: &mut Response<BodySource>, id: &HeaderValue, filters: &[&Filters]) {
    let headers = response.headers_mut();
    headers.entry(X_REQUEST_ID).or_insert_with(|| id.clone());
    for edits in filters.iter().filter_map(|filters| filters.response_headers.as_ref()) {
        edits.apply(headers);
    }
}

/// The response to `OPTIONS *`, which is about the server itself (RFC 9110, section 9.3.7).
fn server_options_response(id: &HeaderValue) -> Response<BodySource> {
    let mut response = Response::new(BodySource::Local(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, FORWARDED_METHODS);
    finish_response(&mut response, id, &[]);
    response
}
