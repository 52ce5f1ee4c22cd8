//! Selects the listener and the rule of a request.

use std::sync::Arc;

use http::{Method, Request};

use super::plugin_run;
use super::request_body::RequestBody;
use super::request_context::{RequestContext, RoutedRequest};
use super::request_error::RequestError;
use super::target::RequestTarget;
use crate::plugin_api::Framing;
use crate::proxy::connection::tls::TlsSession;
use crate::snapshot::regex_steps::{RegexInput, RegexSteps};
use crate::snapshot::router::{Matched, RoutingRequest};
use crate::snapshot::rule_options::AcceptedUpgrades;
use crate::snapshot::{HttpBind, HttpListener};

/// Finds the rule of the request. The most specific listener for its host handles it; other listeners are not searched.
pub(in crate::proxy) fn select_rule<'r>(
    cx: &mut RequestContext<'r>,
    request: &Request<RequestBody>,
    target: RequestTarget,
) -> Result<RoutedRequest<'r>, RequestError> {
    let RequestTarget { host, mut path, upgrade } = target;
    let name = host.name();
    let session = cx.peer().session.as_deref();
    let bind = cx.view.http_bind(&cx.peer().connections.address);
    let listener = bind.and_then(|bind| bind.listener(&name));
    if bind.is_some_and(|bind| is_misdirected(bind, listener, session, &name)) {
        return Err(RequestError::MisdirectedRequest);
    }
    let listener = listener.ok_or(RequestError::NoListener)?;
    cx.listener = Some(listener);
    let routing_request = RoutingRequest {
        path: path.path(),
        query: path.query(),
        method: request.method(),
        headers: request.headers(),
        authority: host.raw.as_bytes(),
        scheme: cx.peer().client.scheme,
        server_name: cx.peer().session.as_ref().and_then(|session| session.server_name.as_deref()),
        regex_steps: RegexSteps::new(cx.peer().worker().limits.max_regex_steps),
    };
    let found = listener.find(&name, &routing_request);
    if let Some(input) = routing_request.regex_steps.exceeded() {
        cx.product_headers_without_rule = listener.product_headers_without_rule(&name, &routing_request);
        return Err(match input {
            RegexInput::Target => RequestError::TargetTooLongToMatch,
            RegexInput::Header => RequestError::HeaderTooLongToMatch,
        });
    }
    let Some(Matched { rule, path: matched, normalized, names_method }) = found else {
        cx.product_headers_without_rule = listener.product_headers_without_rule(&name, &routing_request);
        return Err(RequestError::NoRoute);
    };
    let regex_steps = routing_request.regex_steps.remaining();
    if let Some(normalized) = normalized {
        path.replace(normalized);
    }
    cx.rule = Some(rule);
    if let Some(observed) = &mut cx.record.observed {
        observed.set_path(matched);
    }
    // The response to TRACE repeats the request with its credentials, so a rule has to name it.
    if request.method() == Method::TRACE && !names_method {
        return Err(RequestError::TraceNotAllowed);
    }
    let upgrade = upgrade.filter(|upgrade| match rule.options().upgrades {
        AcceptedUpgrades::All => true,
        AcceptedUpgrades::WebSocket => upgrade.is_websocket(),
    });
    let framing = if rule.plugins.is_some() { plugin_run::body_framing(request.headers()) } else { Framing::default() };
    Ok(RoutedRequest {
        listener,
        rule,
        matched,
        host,
        path,
        replaced_path: None,
        has_plugin_path: false,
        upgrade,
        framing,
        regex_steps,
        may_have_te: false,
    })
}

/// Whether the connection was opened for another listener than the one of the request's host (RFC 9110, section
/// 15.5.20). Browsers reuse a connection for every name in its certificate, but the TLS settings of a listener apply
/// only to the connections that were opened for it. The same applies if the listener requires client certificates now
/// that it did not require then.
fn is_misdirected(
    bind: &HttpBind,
    listener: Option<&Arc<HttpListener>>,
    session: Option<&TlsSession>,
    host: &str,
) -> bool {
    match (session, &bind.tls) {
        (None, None) => false,
        (Some(session), Some(tls)) => {
            let server_name = session.server_name.as_deref();
            if !tls.accepts_client(server_name, session.client_validation.as_ref()) {
                return true;
            }
            // The common case, which needs no lookup. Without a listener, the connection is older than the listeners.
            if server_name == Some(host) && listener.is_some() {
                return false;
            }
            let selected = bind.listener_by_server_name(server_name);
            !selected.zip(listener).is_some_and(|(selected, listener)| Arc::ptr_eq(selected, listener))
        }
        // The port was changed from HTTP to HTTPS, or back, while the connection was open.
        (None, Some(_)) | (Some(_), None) => true,
    }
}
