//! Runs the plugins of a rule on a request and on its response.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, VARY};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use tokio::time::Instant;

use super::early_exit::EarlyExit;
use super::error_response::ErrorFormat;
use super::reported_client::{client_address, client_scheme};
use super::request_context::{RequestContext, RoutedRequest};
use super::response_filters;
use super::route_captures::RouteCaptures;
use super::target::RequestPath;
use crate::plugin_api::chain::{ChainRequest, ChainResponse, ChainState};
use crate::plugin_api::completed_request::LoggedTls;
use crate::plugin_api::{
    Chain, ChangedFields, ClientInfo, CompletedRequest, Framing, Reply, ReplyBody, RequestSummary, ResponseSource,
};
use crate::proxy::buffer_budget::{BufferUse, BufferedBytes};
use crate::proxy::http::client::activity::until_timed_out;
use crate::proxy::http::client::client_connection::Peer;
use crate::proxy::http::client::response_body::BodySource;
use crate::proxy::http::fields::headers::contains_token;
use crate::proxy::http::forwarding::request_body::{RequestBody, RequestBodyError};
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::record::request_id::X_REQUEST_ID;
use crate::proxy::http::record::request_record::RequestRecord;

/// One run of a plugin chain, kept with the request until its response is complete.
pub(in crate::proxy) struct PluginRun {
    chain: Arc<Chain>,
    state: ChainState,
    /// When the head of the response was received or generated.
    responded_at: Option<Instant>,
    /// Where the response comes from.
    source: ResponseSource,
    /// The bytes of the response that are kept for body filters.
    pub(in crate::proxy) kept_response: Vec<BufferedBytes>,
}

/// Reads the framing of the request body, before the hop-by-hop headers are removed.
pub(in crate::proxy) fn body_framing(headers: &HeaderMap) -> Framing {
    let has_token = |name, token| headers.get(name).is_some_and(|value| contains_token(value, token));
    Framing { is_chunked: has_token(TRANSFER_ENCODING, "chunked"), expects_continue: has_token(EXPECT, "100-continue") }
}

/// Runs the access phase of plugins that do not wait. The future of the phase is polled in its place, so it need not be
/// moved into a box of its own.
pub(in crate::proxy) fn run_access_at_once(
    cx: &mut RequestContext<'_>,
    chain: &Arc<Chain>,
    routed: &mut RoutedRequest<'_>,
    request: &mut Request<RequestBody>,
) -> Result<(), EarlyExit> {
    let access = pin!(run_access(cx, chain, routed, request));
    match access.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        // The plugin contradicts its `may_wait`.
        Poll::Pending => Err(RequestError::PluginTimeout.into()),
    }
}

/// Runs the access phase of the plugins. Ends the request if one of them replies, otherwise applies their changes.
pub(in crate::proxy) async fn run_access(
    cx: &mut RequestContext<'_>,
    chain: &Arc<Chain>,
    routed: &mut RoutedRequest<'_>,
    request: &mut Request<RequestBody>,
) -> Result<(), EarlyExit> {
    let original_uri = request.uri().clone();
    let product_header_names = cx.product_header_names();
    let record = &mut *cx.record;
    let mut body = None;
    // Few chains buffer bodies at all. The data of an upgraded connection is never a body.
    if chain.body_buffer_limit().is_some() && routed.upgrade.is_none() {
        let taken = std::mem::replace(request, Request::new(RequestBody::empty(&record.peer)));
        let (head, request_body) = taken.into_parts();
        let max_bytes = chain.body_buffer_limit_for(&head);
        *request = Request::from_parts(head, request_body);
        if let Some(max_bytes) = max_bytes {
            body = Some(read_body(&record.peer, request, max_bytes, routed.rule.id.namespace()).await?);
        }
    }
    let peer = &record.peer;
    let client = client_info(peer, routed, request.headers());
    let taken = std::mem::replace(request, Request::new(RequestBody::empty(peer)));
    let (mut head, request_body) = taken.into_parts();
    // Registered before the plugins run, so their log phase also sees clients that disconnect during `access`.
    // Allocated first, so that the large value is built in the box instead of being moved into it.
    let run = Box::write(
        Box::new_uninit(),
        PluginRun {
            chain: Arc::clone(chain),
            state: ChainState::with_regex_steps(routed.regex_steps),
            responded_at: None,
            source: ResponseSource::Proxy,
            kept_response: Vec::new(),
        },
    );
    let run = record.plugin_run.insert(run);
    let uri_captures = RouteCaptures::new(routed.matched, routed.path.path());
    let reply = {
        // Pinned here, since the large future would be moved with each call that gets it.
        let access = pin!(chain.access(
            ChainRequest {
                head: &mut head,
                path: routed.path.path(),
                query: routed.path.query(),
                uri_captures: &uri_captures,
                client,
                framing: routed.framing,
                id: &record.request_id,
                body: body.as_ref(),
                consumers: &cx.view.snapshot.consumers,
                now: SystemTime::now(),
            },
            &mut run.state,
        ));
        until_timed_out(&peer.activity, access).await.ok_or(RequestError::PluginTimeout)?
    };
    *request = Request::from_parts(head, request_body);
    if let Some(id) = run.state.new_id.take() {
        if let Some(names) = product_header_names {
            request.headers_mut().insert(&names.request_id, id.clone());
        }
        record.request_id = id;
    }
    // Only a completely buffered body is ever replaced. The request already has the `Content-Length` of the new body.
    if let Some(body) = run.state.replacement_body.take() {
        request.body_mut().replace_buffered(body);
    }
    if request.body().may_have_trailers()
        && let Some(fields) = run.state.fields_of_consumer()
    {
        request.body_mut().no_trailers().merge(fields.request);
    }
    if let Some(limit) = run.state.body_limit {
        request.body_mut().limit(limit)?;
    }
    if let Some(reply) = reply {
        return Err(EarlyExit::PluginReply(reply));
    }
    if !is_same_text(request.uri(), &original_uri) && *request.uri() != original_uri {
        // A plugin has changed the target, for example removed a key from the query.
        let path = RequestPath::parse(request.method(), request.uri()).ok().flatten();
        routed.replaced_path = Some(path.ok_or(RequestError::InvalidRewrite)?);
        routed.has_plugin_path = request.uri().path() != original_uri.path();
    }
    Ok(())
}

/// Whether both targets refer to the same bytes, so that they need not be compared. Most plugins do not touch the
/// target. Both must exist at the same time, or one could have the memory that the other had.
fn is_same_text(uri: &Uri, other: &Uri) -> bool {
    let path = |uri: &Uri| uri.path_and_query().map(|target| std::ptr::from_ref(target.as_str()));
    let authority = |uri: &Uri| uri.authority().map(|authority| std::ptr::from_ref(authority.as_str()));
    path(uri) == path(other) && authority(uri) == authority(other) && uri.scheme() == other.scheme()
}

fn client_info<'r>(peer: &Peer, routed: &'r RoutedRequest<'_>, headers: &HeaderMap) -> ClientInfo<'r> {
    ClientInfo {
        address: client_address(peer, headers),
        port: peer.address.port(),
        peer: peer.address.ip().to_canonical(),
        scheme: client_scheme(peer, headers),
        host: routed.host.raw.to_str().unwrap_or_default(),
        listen_port: routed.listener.port,
    }
}

/// Buffers the whole body for plugins or an authorization server of a route of this namespace; it is still forwarded.
pub(in crate::proxy) async fn read_body(
    peer: &Peer,
    request: &mut Request<RequestBody>,
    max_bytes: usize,
    namespace: &str,
) -> Result<Bytes, RequestError> {
    let buffering = request.body_mut().buffer_up_to(max_bytes, BufferUse::Request, namespace);
    match until_timed_out(&peer.activity, buffering).await {
        None => Err(peer.activity.body_timeout_error()),
        Some(Err(RequestBodyError::BufferLimit)) => Err(RequestError::BufferLimit),
        Some(Err(RequestBodyError::TooSlow)) => Err(RequestError::SlowRequestBody),
        Some(Err(_)) => Err(RequestError::InvalidBody),
        Some(Ok(_)) if request.body().is_fully_read() && request.body().buffered().len() <= max_bytes => {
            Ok(request.body().buffered())
        }
        Some(Ok(_)) => Err(RequestError::BodyTooLarge),
    }
}

/// Builds the response from a plugin's reply.
pub(in crate::proxy) fn reply_response(
    reply: Reply,
    error_format: &ErrorFormat,
    id: &HeaderValue,
) -> Response<BodySource> {
    let Reply { status, mut headers, body, reason: _ } = reply;
    let mut response = match body {
        ReplyBody::Negotiated(message) => error_format.render_message(status, &message, id).map(BodySource::Local),
        ReplyBody::Plain(message) => error_format.render_json(status, &message).map(BodySource::Local),
        ReplyBody::Raw(bytes) => error_format.render_body(status, bytes).map(BodySource::Local),
        ReplyBody::Empty => error_format.render_body(status, Bytes::new()).map(BodySource::Local),
        ReplyBody::Stream(stream) => {
            let is_head = error_format.is_head();
            let body = if is_head { BodySource::Local(Bytes::new()) } else { BodySource::Stream(stream) };
            let mut response = Response::new(body);
            *response.status_mut() = status;
            response
        }
    };
    headers.remove(CONTENT_LENGTH);
    // The reply's headers replace existing ones of the same names, with all their values.
    response.headers_mut().extend(headers);
    response
}

/// Runs the response phase of the plugins, and the filters of the body that they add. The response is changed in place,
/// so that the future of a request does not contain several copies of it.
pub(in crate::proxy) async fn run_response(
    cx: &mut RequestContext<'_>,
    response: &mut Response<BodySource>,
    source: &mut ResponseSource,
    now: Instant,
) {
    let record = &mut *cx.record;
    let Some(run) = &mut record.plugin_run else { return };
    run.responded_at = Some(now);
    run.source = *source;
    if !run.chain.may_change_response(&run.state) {
        run.state.apply_response_headers(response.headers_mut());
        return;
    }
    // The response to a request that has already timed out is sent as it is.
    let was_timed_out = record.peer.activity.timed_out.get();
    let outcome = {
        let phase = pin!(run.run_phase(response, *source, &cx.error_format, &record.request_id, &mut record.error));
        until_timed_out(&record.peer.activity, phase).await
    };
    match outcome {
        Some(new_source) => *source = new_source,
        None if was_timed_out => {}
        None => {
            run.state.body_filters.clear();
            let mut former = std::mem::take(response.headers_mut());
            *response = EarlyExit::Error(RequestError::PluginTimeout).into_response(cx);
            *source = ResponseSource::Proxy;
            if let Some(run) = &cx.record.plugin_run {
                run.keep_headers(&mut former, response.headers_mut());
            }
        }
    }
    let Some(run) = &mut cx.record.plugin_run else { return };
    run.source = *source;
    let filters = std::mem::take(&mut run.state.body_filters);
    if filters.is_empty() {
        return;
    }
    // Boxed, so that the future of requests without body filters stays small.
    Box::pin(response_filters::apply(cx, response, source, filters)).await;
    if let Some(run) = &mut cx.record.plugin_run {
        run.source = *source;
    }
}

/// The headers of a response while plugins have them, apart from its body. Returns them when dropped.
struct HeadGuard<'r> {
    headers: HeaderMap,
    response: &'r mut Response<BodySource>,
}

impl Drop for HeadGuard<'_> {
    fn drop(&mut self) {
        *self.response.headers_mut() = std::mem::take(&mut self.headers);
    }
}

/// Copies the headers that depend on the request, not on the response that is replaced: its ID, and CORS.
fn keep_headers_of_request(former: &HeaderMap, headers: &mut HeaderMap) {
    for (name, value) in former {
        if name == VARY {
            headers.append(name, value.clone());
        } else if name == X_REQUEST_ID || name.as_str().starts_with("access-control-") {
            headers.entry(name).or_insert_with(|| value.clone());
        }
    }
}

impl PluginRun {
    /// Runs the response phase on the head of the response. Returns where the response comes from.
    async fn run_phase(
        &mut self,
        response: &mut Response<BodySource>,
        source: ResponseSource,
        error_format: &ErrorFormat,
        id: &HeaderValue,
        error: &mut Option<&'static str>,
    ) -> ResponseSource {
        let mut status = response.status();
        // Puts the headers back, also if the phase is cut off.
        let mut head = HeadGuard { headers: std::mem::take(response.headers_mut()), response };
        let HeadGuard { headers, response } = &mut head;
        let mut replace = |reply: Reply, former: &HeaderMap| {
            *error = Some(reply.reason);
            let (mut parts, body) = reply_response(reply, error_format, id).into_parts();
            let former_body = std::mem::replace(response.body_mut(), body);
            if former_body.is_end_stream() {
                former_body.release();
            }
            keep_headers_of_request(former, &mut parts.headers);
            (parts.status, parts.headers)
        };
        let chain_response = ChainResponse { status: &mut status, headers, source, id, replace: &mut replace };
        let source = self.chain.response(&mut self.state, chain_response).await;
        if !matches!(head.response.body(), BodySource::Upgraded(..)) {
            *head.response.status_mut() = status;
        }
        source
    }

    /// Moves the headers that do not depend on the endpoint to the response that replaces another one.
    pub(in crate::proxy) fn keep_headers(&self, former: &mut HeaderMap, headers: &mut HeaderMap) {
        keep_headers_of_request(former, headers);
        self.state.response_headers.carry_over(former, headers);
    }

    /// The fields that plugins change which only the consumer or its groups have.
    pub(in crate::proxy) fn fields_of_consumer(&self) -> Option<ChangedFields> {
        self.state.fields_of_consumer()
    }

    /// Records how long a body filter of a plugin took.
    pub(in crate::proxy) fn record_body_filter(&mut self, plugin: &'static str, duration: Duration) {
        self.state.timings.record_body_filter(plugin, duration);
    }

    /// The name of the authenticated consumer: its username, otherwise its custom ID, otherwise its ID.
    pub(in crate::proxy) fn consumer_name(&self) -> Option<Arc<str>> {
        let consumer = self.state.identity.consumer.as_ref()?;
        let name = consumer.username.as_ref().or(consumer.custom_id());
        Some(name.map_or_else(|| Arc::from(&*consumer.id), |name| Arc::clone(name.text())))
    }

    /// Runs the log phase of the plugins and records how long they took.
    pub(in crate::proxy) fn run_log(&self, record: &RequestRecord, status: StatusCode, total: Duration) {
        let peer = &record.peer;
        peer.worker().counters.record_plugins(self.state.timings.all());
        if !self.chain.may_log(&self.state) {
            return;
        }
        let sent_at = peer.activity.sent_at.get();
        let sent = sent_at.filter(|_| self.source == ResponseSource::Service);
        let summary = RequestSummary {
            status,
            source: self.source,
            total,
            upstream: sent.zip(self.responded_at).map(|(sent, responded)| responded - sent),
            bytes_in: peer.activity.bytes_in.get(),
            bytes_out: record.bytes_out,
        };
        let since_start = |time: Instant| time.saturating_duration_since(peer.activity.started_at.get());
        let request = CompletedRequest {
            id: &record.request_id,
            started_at: SystemTime::now() - total,
            started_instant: peer.activity.started_at.get(),
            heads: record.heads.as_deref(),
            tls: peer.session.as_deref().map(|session| LoggedTls {
                version: session.version,
                cipher: session.cipher,
                server_name: session.server_name.as_deref(),
            }),
            attempts: &record.attempts,
            before_upstream: sent_at.map(since_start),
            until_response: self.responded_at.map(since_start),
            error: record.error,
            credentials: self.chain.credential_locations(),
        };
        self.chain.log(&self.state, &summary, &request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_the_same_text_are_not_compared() {
        for text in ["/a?b=c", "/", "http://a.example/", "a.example:443", "*"] {
            let uri: Uri = text.parse().unwrap();
            assert!(is_same_text(&uri, &uri.clone()), "{text}");
        }
        let uri: Uri = "http://a.example/a?b".parse().unwrap();
        for other in ["http://a.example/a?c", "http://b.example/a?b", "https://a.example/a?b", "/a?b"] {
            let other: Uri = other.parse().unwrap();
            assert!(!is_same_text(&uri, &other), "{other}");
        }
        let mut parts = uri.clone().into_parts();
        parts.scheme = Some(http::uri::Scheme::HTTPS);
        assert!(!is_same_text(&uri, &Uri::from_parts(parts).unwrap()), "another scheme");
    }
}
