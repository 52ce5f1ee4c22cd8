//! The access phase: the plugins of a rule on a request, before anything of it is forwarded.
//!
//! ```text
//!   run ─▶ read the body, if a plugin reads it ─▶ the chain ─┬▶ needs the body ─▶ again
//!                                                            ├▶ reply ─▶ EarlyExit
//!                                                            └▶ complete ─▶ the changes of the request and its target
//! ```

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use http::{HeaderValue, Request, Uri};

use super::client_info::client_info;
use super::early_exit::EarlyExit;
use super::plugin_run::{KeptBody, PluginRun};
use super::read_body::read_body;
use super::request_context::{RequestContext, RoutedRequest};
use super::request_record::RequestRecord;
use super::route_captures::RouteCaptures;
use crate::plugin_api::{RequestLine, ResponseSource};
use crate::plugin_chain::Chain;
use crate::plugin_chain::chain::{AccessEnd, ChainRequest, ChainState, RequestBodyState};
use crate::proxy::http::exchange::activity::until_timed_out;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::record::request_facts::RequestFacts;
use crate::request_target::RequestPath;

/// Runs plugins that do not wait. The future of the phase is polled in its place, so it need not be moved into a box of
/// its own.
pub(in crate::proxy) fn run_at_once(
    cx: &mut RequestContext<'_>,
    chain: &Arc<Chain>,
    routed: &mut RoutedRequest<'_>,
    request: &mut Request<RequestBody>,
) -> Result<(), EarlyExit> {
    let access = pin!(run(cx, chain, routed, request));
    match access.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        // The plugin contradicts its `may_wait`.
        Poll::Pending => Err(RequestError::PluginTimeout.into()),
    }
}

/// Runs the plugins. Ends the request if one of them replies, otherwise applies their changes.
pub(in crate::proxy) async fn run(
    cx: &mut RequestContext<'_>,
    chain: &Arc<Chain>,
    routed: &mut RoutedRequest<'_>,
    request: &mut Request<RequestBody>,
) -> Result<(), EarlyExit> {
    let original_uri = request.uri().clone();
    let mut request_line = take_request_line(cx, chain, routed, &original_uri);
    let record = &mut *cx.record;
    let (mut body, mut max_body) = (None, body_buffer_limit(&record.exchange, chain, routed, request));
    let uri_captures = RouteCaptures::new(routed.matched, routed.path.path());
    let reply = loop {
        if let Some(max_bytes) = max_body {
            let max_bytes = within_limit_of_plugins(record, max_bytes);
            body = Some(read_body(&record.exchange, request, max_bytes, routed.rule.id.namespace()).await?);
        }
        let RequestRecord { exchange, client, facts, plugin_run, .. } = &mut *record;
        let client = client_info(exchange, client, routed);
        let taken = std::mem::replace(request, Request::new(RequestBody::empty(exchange)));
        let (mut head, request_body) = taken.into_parts();
        // Registered before the plugins run, so their log phase also sees clients that disconnect during `access`.
        let run = plugin_run.get_or_insert_with(|| new_run(chain, routed, facts, request_line.take()));
        run.state.expects_continue = routed.framing.expects_continue;
        let end = {
            // Pinned here, since the large future would be moved with each call that gets it.
            let access = pin!(chain.access(
                ChainRequest {
                    head: &mut head,
                    path: routed.path.path(),
                    query: routed.path.query(),
                    raw_target: routed.path.raw(),
                    uri_captures: &uri_captures,
                    client,
                    framing: routed.framing,
                    id: &facts.request_id,
                    body: match &body {
                        Some(body) => RequestBodyState::Read(body),
                        None if routed.upgrade.is_some() => RequestBodyState::Absent,
                        None => RequestBodyState::Unread,
                    },
                    consumers: &cx.view.snapshot.consumers,
                    now: SystemTime::now(),
                },
                &mut run.state,
            ));
            until_timed_out(&exchange.activity, access).await.ok_or(RequestError::PluginTimeout)?
        };
        *request = Request::from_parts(head, request_body);
        match end {
            AccessEnd::Complete => break None,
            AccessEnd::Reply(reply) => break Some(reply),
            AccessEnd::NeedsBody(max_bytes) => max_body = Some(max_bytes),
        }
    };
    let Some(run) = &mut record.plugin_run else { return Ok(()) };
    apply_changes(run, &mut record.facts.request_id, request)?;
    match reply {
        Some(reply) => Err(EarlyExit::PluginReply(reply)),
        None => Ok(follow_target(routed, request, &original_uri)?),
    }
}

/// The target and the host of the request as the client has sent them, if a plugin reads them in the response phase.
fn take_request_line(
    cx: &mut RequestContext<'_>,
    chain: &Chain,
    routed: &RoutedRequest<'_>,
    uri: &Uri,
) -> Option<Box<RequestLine>> {
    let taken = cx.request_line.take();
    if !chain.reads_request_line() {
        return None;
    }
    let of_request = || Box::new(RequestLine { target: uri.clone(), host: Some(routed.host.raw.clone()) });
    Some(taken.unwrap_or_else(of_request))
}

/// How many bytes of the body are buffered before the plugins run. Few chains buffer bodies at all. The data of an
/// upgraded connection is never a body.
fn body_buffer_limit(
    exchange: &Rc<ClientExchange>,
    chain: &Chain,
    routed: &RoutedRequest<'_>,
    request: &mut Request<RequestBody>,
) -> Option<usize> {
    if chain.body_buffer_limit().is_none() || routed.upgrade.is_some() {
        return None;
    }
    let taken = std::mem::replace(request, Request::new(RequestBody::empty(exchange)));
    let (head, body) = taken.into_parts();
    let limit = chain.body_buffer_limit_for(&head);
    *request = Request::from_parts(head, body);
    limit
}

/// A limit of buffered bytes, or that of the plugins which have run if it is smaller.
fn within_limit_of_plugins(record: &RequestRecord, max_bytes: usize) -> usize {
    let limit = record.plugin_run.as_ref().and_then(|run| usize::try_from(run.state.body_changes.limit?).ok());
    limit.map_or(max_bytes, |limit| limit.min(max_bytes))
}

fn new_run(
    chain: &Arc<Chain>,
    routed: &RoutedRequest<'_>,
    facts: &RequestFacts,
    request_line: Option<Box<RequestLine>>,
) -> Box<PluginRun> {
    let trace = facts.tracing.context().map(Box::new);
    // Allocated first, so that the large value is built in the box instead of being moved into it.
    Box::write(
        Box::new_uninit(),
        PluginRun {
            chain: Arc::clone(chain),
            state: ChainState::new(routed.regex_steps, trace),
            responded_at: None,
            source: ResponseSource::Proxy,
            request_line,
            kept_body: KeptBody::default(),
            kept_encoders: Vec::new(),
        },
    )
}

/// Applies what the plugins have determined, except to the target of the request.
fn apply_changes(
    run: &mut PluginRun,
    request_id: &mut HeaderValue,
    request: &mut Request<RequestBody>,
) -> Result<(), RequestError> {
    if let Some(id) = run.state.new_id.take() {
        *request_id = id;
    }
    request.body_mut().apply(&mut run.state.body_changes)?;
    if request.body().may_have_trailers()
        && let Some(fields) = run.state.fields_of_request()
    {
        request.body_mut().no_trailers().merge(fields.request);
    }
    Ok(())
}

/// Uses the target that a plugin has set, for example without a key in the query.
fn follow_target(
    routed: &mut RoutedRequest<'_>,
    request: &Request<RequestBody>,
    original: &Uri,
) -> Result<(), RequestError> {
    if is_same_text(request.uri(), original) || request.uri() == original {
        return Ok(());
    }
    let path = RequestPath::parse(request.method(), request.uri()).ok().flatten();
    routed.replaced_path = Some(path.ok_or(RequestError::InvalidRewrite)?);
    routed.has_plugin_path = request.uri().path() != original.path();
    Ok(())
}

/// Whether both targets refer to the same bytes, so that they need not be compared. Most plugins do not touch the
/// target. Both must exist at the same time, or one could have the memory that the other had.
fn is_same_text(uri: &Uri, other: &Uri) -> bool {
    let path = |uri: &Uri| uri.path_and_query().map(|target| std::ptr::from_ref(target.as_str()));
    let authority = |uri: &Uri| uri.authority().map(|authority| std::ptr::from_ref(authority.as_str()));
    path(uri) == path(other) && authority(uri) == authority(other) && uri.scheme() == other.scheme()
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
