//! The headers of a request that depend on its rule: what is removed, what informs the endpoint about the client and
//! the proxy, and the path and Host that its options rewrite. Before plugins, which see and change all of them.
//!
//! ```text
//!   copy for logs ▶ forwarding.rs (real_ip.rs) ▶ limit of hops ▶ product headers ▶ upstream_target.rs
//! ```

pub(in crate::proxy) mod forwarding;

mod real_ip;
mod upstream_target;

use http::Request;

use super::early_exit::EarlyExit;
use super::product_headers;
use super::request_context::{RequestContext, RoutedRequest};
use crate::hop_count::HopCount;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::rule_options::TrailerHeader;

/// Removes and sets the headers that depend on the rule, and rewrites path and Host as its options say.
pub(super) fn set(
    cx: &mut RequestContext<'_>,
    routed: &mut RoutedRequest<'_>,
    request: &mut Request<RequestBody>,
) -> Result<(), EarlyExit> {
    // As the client has sent them.
    if routed.rule.plugins.as_ref().is_some_and(|chain| chain.logs_heads(&cx.view.snapshot.consumers)) {
        cx.copy_heads(routed, request);
    }
    let stripped = forwarding::set_forwarding_headers(cx, routed, request);
    routed.may_have_te = stripped.accepts_trailers;
    // Before anything sends a request. Most requests have no number.
    if stripped.hops > HopCount::ZERO && stripped.hops.get() >= cx.exchange().worker().limits.max_hops {
        return Err(RequestError::LoopDetected.into());
    }
    routed.hops = stripped.hops.next();
    product_headers::set_request_headers(cx, request);
    cx.accepts_trailers = match routed.rule.options().trailer_header {
        TrailerHeader::Forwarded => true,
        TrailerHeader::IfAccepted => routed.may_have_te,
    };
    upstream_target::rewrite(routed, request)?;
    Ok(())
}
