//! External authorization: a server allows or denies each request of a rule. Whatever prevents a decision denies it.
//!
//! ```text
//!   authorize ─ body ─┬▶ http_protocol: a request ─────────┐
//!                     └▶ grpc_protocol: a call of ext_authz ┴─▶ server_call ─▶ endpoint of the server
//!                                                                    │
//!   Allowed: changes of headers ◀──────── Decision ◀─────────────────┘
//!   Denied: the response for the client ◀─┘
//! ```

pub(in crate::proxy) mod authorization_record;
mod check_request;
mod check_response;
mod decision;
#[allow(
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::default_trait_access,
    clippy::doc_markdown,
    reason = "the code is generated"
)]
mod ext_authz;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod grpc_protocol;
mod header_changes;
mod http_protocol;
mod server_call;

use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response};
use tokio::time::{Instant, timeout_at};

use super::early_exit::EarlyExit;
use super::plugins;
use super::read_body::read_body;
use super::request_context::{RequestContext, RoutedRequest};
use super::request_hash;
use crate::plugin_api::completed_request::AuthorizationResult;
use crate::proxy::http::exchange::activity::until_timed_out;
use crate::proxy::http::exchange::body_source::BodySource;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::external_auth::{AuthorizationProtocol, ExternalAuthFilter};
use authorization_record::AuthorizationRecord;
use decision::Decision;

/// Asks the server whether the request is allowed, and applies its changes. An error, or the response that denies the
/// request, ends it.
pub(in crate::proxy) async fn authorize(
    cx: &mut RequestContext<'_>,
    filter: &ExternalAuthFilter,
    routed: &RoutedRequest<'_>,
    request: &mut Request<RequestBody>,
) -> Result<(), EarlyExit> {
    cx.record.begin_authorization(&filter.upstream.key);
    let outcome = decide(cx, filter, routed, request).await;
    cx.record.end_authorization(|| match &outcome {
        Ok(()) => AuthorizationResult::Allowed,
        Err(EarlyExit::AuthorizationDenied(response)) => AuthorizationResult::Denied(response.status()),
        Err(EarlyExit::Error(error)) => AuthorizationResult::Failed(error.details().reason),
        Err(_) => AuthorizationResult::Failed("not_authorized"),
    });
    outcome
}

async fn decide(
    cx: &mut RequestContext<'_>,
    filter: &ExternalAuthFilter,
    routed: &RoutedRequest<'_>,
    request: &mut Request<RequestBody>,
) -> Result<(), EarlyExit> {
    let exchange = Rc::clone(&cx.record.exchange);
    // The data of an upgraded connection is never a body.
    let body = match filter.max_body {
        1.. if routed.upgrade.is_none() => {
            read_body(&exchange, request, filter.max_body, routed.rule.id.namespace()).await?
        }
        _ => Bytes::new(),
    };
    let hash = request_hash::of_side_request(cx, routed, request.headers(), &filter.upstream);
    let decision = async {
        match &filter.protocol {
            AuthorizationProtocol::Http(settings) => {
                http_protocol::check(&exchange, &filter.upstream, settings, routed, request, hash, body).await
            }
            AuthorizationProtocol::Grpc(settings) => {
                let call = check_request::build(cx, settings, routed, request, &body);
                grpc_protocol::check(&exchange, &filter.upstream, settings, routed.hops, routed.client, hash, call)
                    .await
            }
        }
    };
    let deadline = Instant::now() + exchange.worker().limits.authorization_timeout;
    let decision = timeout_at(deadline, until_timed_out(&exchange.activity, pin!(decision))).await;
    let Ok(Some(decision)) = decision else { return Err(RequestError::AuthorizationTimeout.into()) };
    match decision? {
        Decision::Allowed { request: changes, response } => {
            changes.apply(request.headers_mut());
            if plugins::runs_before_forward(cx)
                && let Some(run) = &mut cx.record.plugin_run
            {
                run.state.allow_by(&filter.name, changes.names());
            }
            if request.body().may_have_trailers() {
                request.body_mut().no_trailers().add_all(changes.names());
            }
            if !response.is_empty() {
                cx.record.authorization.get_or_insert_default().extend(response);
            }
            Ok(())
        }
        Decision::Denied { mut response, kept } => {
            // On HTTP/2, a success status would mean that the stream has become a tunnel.
            if routed.upgrade.as_ref().is_some_and(|upgrade| upgrade.is_misleading(response.status())) {
                return Err(RequestError::InvalidAuthorization.into());
            }
            fit_to_method(&mut response, request.method(), cx.error_format.is_head());
            cx.record.exchange.activity.keeps_body.set(kept.is_some());
            cx.record.authorization = kept.map(|kept| Box::new(AuthorizationRecord::of_denial(kept)));
            Err(EarlyExit::AuthorizationDenied(response))
        }
    }
}

/// Removes the body of a response to HEAD. If a plugin has made the request a HEAD request, the length of the body
/// that the server did not send is removed instead.
fn fit_to_method(response: &mut Response<BodySource>, method: &Method, client_sent_head: bool) {
    if client_sent_head {
        if let BodySource::Local(body) = response.body_mut() {
            let length = std::mem::take(body).len();
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
    } else if method == Method::HEAD {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
}
