//! Selects the listener and the rule of a request.

use http::header::{EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request};

use super::condition_fields::ConditionFields;
use super::reported_client::client_slot;
use super::request_context::{RequestContext, RoutedRequest};
use super::request_headers::forwarding::ForwardedRequest;
use super::target::RequestTarget;
use crate::hop_count::HopCount;
use crate::plugin_api::Framing;
use crate::proxy::connection::tls::TlsSession;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::fields::headers::contains_token;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::regex_steps::RegexSteps;
use crate::snapshot::router::{Matched, RoutingRequest};
use crate::snapshot::routing::Unrouted;
use crate::snapshot::rule_options::AcceptedUpgrades;

/// Finds the rule of the request. The most specific listener for its host handles it; other listeners are not searched.
pub(in crate::proxy) fn select_rule<'r>(
    cx: &mut RequestContext<'r>,
    request: &Request<RequestBody>,
    target: RequestTarget,
) -> Result<RoutedRequest<'r>, RequestError> {
    let RequestTarget { host, mut path, upgrade } = target;
    let name = host.name();
    let client_tls = cx.exchange().tls.as_deref().map(TlsSession::for_routing);
    let bind = cx.view.http_bind(&cx.exchange().connections.address).ok_or(Unrouted::NoListener)?;
    let listener = bind.select_listener(client_tls, &name)?;
    cx.listener = Some(listener);
    let forwarded = ForwardedRequest { host: &host, port: listener.port };
    let record = &*cx.record;
    let fields =
        ConditionFields::new(&record.exchange, request.headers(), forwarded, request.uri(), &record.facts.request_id);
    let routing_request = RoutingRequest {
        path: path.path(),
        query: path.query(),
        method: request.method(),
        headers: request.headers(),
        forwarded: Some(&fields),
        authority: host.raw.as_bytes(),
        scheme: record.exchange.client.scheme,
        server_name: record.exchange.tls.as_ref().and_then(|tls| tls.server_name.as_deref()),
        regex_steps: RegexSteps::new(record.exchange.worker().limits.max_regex_steps),
    };
    let matched = listener.route(&name, &routing_request);
    if matched.is_err() {
        cx.style_without_rule = listener.style_without_rule(&name, &routing_request);
    }
    let Matched { rule, path: matched, normalized, names_method } = matched?;
    let regex_steps = routing_request.regex_steps.remaining();
    drop(fields);
    if let Some(normalized) = normalized {
        path.replace(normalized);
    }
    cx.rule = Some(rule);
    if let Some(observed) = &mut cx.record.facts.observed {
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
    let framing = if rule.plugins.is_some() { body_framing(request.headers()) } else { Framing::default() };
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
        hops: HopCount::ZERO,
        client: client_slot(cx.exchange(), request.headers()),
    })
}

/// Reads the framing of the request body, before the hop-by-hop headers are removed.
fn body_framing(headers: &HeaderMap) -> Framing {
    let has_token = |name, token| headers.get(name).is_some_and(|value| contains_token(value, token));
    Framing { is_chunked: has_token(TRANSFER_ENCODING, "chunked"), expects_continue: has_token(EXPECT, "100-continue") }
}
