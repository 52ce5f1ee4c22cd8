//! Whether the fields of an endpoint's response are passed on as they were received, without a map: if no step reads or
//! changes them after the endpoint has sent them. The codec knows what of a head needs the map nevertheless.

use http::Response;

use super::request_context::RequestContext;
use crate::proxy::http::exchange::body_source::BodySource;
use crate::proxy::http::record::named_request::NamedRequest;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::record::request_facts::{LoggedRequest, RequestFacts};
use crate::snapshot::rule::{Filters, RouteRule};
use crate::snapshot::rule_options::RuleOptions;

/// Whether the fields of the response to this request may be passed on. Before the request is forwarded and after it,
/// when the steps before it have run.
pub(super) fn may_be_passed(cx: &RequestContext<'_>) -> bool {
    // All fields are named, so that a new one does not compile without a decision here.
    let RequestContext {
        view: _,
        record,
        error_format: _,
        version: _,
        listener: _,
        rule,
        backend,
        affinity,
        hash_cookies,
        style_without_rule: _,
        request_line: _,
        unwritten_trace: _,
        unwritten_forwarding: _,
        // A head with the field has a map.
        accepts_trailers: _,
        #[cfg(debug_assertions)]
            step: _,
    } = cx;
    let Some(rule) = rule else { return false };
    !record.exchange.protocol.is_multiplexed()
        && !changes_responses(rule)
        && backend.is_some_and(|backend| !has_filter_for_responses(&backend.filters))
        && affinity.is_none()
        && hash_cookies.is_none()
        && cx.product_header_names().is_none()
        && !record.needs_response_fields()
        && !records_fields(&record.facts)
}

/// Whether the rule has something that reads or changes the fields of responses.
fn changes_responses(rule: &RouteRule) -> bool {
    let RouteRule { id: _, filters, plugins, action: _, options: _ } = rule;
    let RuleOptions {
        protocols: _,
        https_redirect: _,
        upgrades: _,
        connection: _,
        forwarding_headers: _,
        upstream_path: _,
        path_replacement: _,
        forwards_raw_target: _,
        host: _,
        // A head with the field has a map.
        trailer_header: _,
        // The listener may have them, too, so the caller asks for those of the request.
        product_headers: _,
        errors: _,
        grpc_errors: _,
        error_backend,
        request_hash: _,
        access_log: _,
        // Of the body.
        response_rate: _,
        telemetry: _,
        fast_cgi: _,
    } = rule.options();
    plugins.is_some() || error_backend.is_some() || has_filter_for_responses(filters)
}

/// The authorization server and the filter for CORS change only the responses to some requests.
fn has_filter_for_responses(filters: &Filters) -> bool {
    let Filters { request_headers: _, response_headers, rewrite: _, cors, external_auth, mirrors: _ } = filters;
    response_headers.is_some() || cors.is_some() || external_auth.is_some()
}

/// Whether fields of the response are copied into the record.
fn records_fields(facts: &RequestFacts) -> bool {
    let RequestFacts {
        request_id: _,
        series: _,
        heads,
        attempts: _,
        authorizations: _,
        error: _,
        is_stored: _,
        status: _,
        bytes_out: _,
        deadline: _,
        observed: _,
        tracing: _,
        named,
        logged,
    } = facts;
    let captures = |logged: &LoggedRequest| {
        let LoggedRequest { method: _, target: _, version: _, host: _, user_agent: _, captured } = logged;
        captured.is_some()
    };
    let counts = |named: &NamedRequest| {
        let NamedRequest { telemetry: _, counted } = named;
        counted.is_some()
    };
    heads.is_some() || named.as_deref().is_some_and(counts) || logged.as_ref().is_some_and(captures)
}

/// Puts the fields into the map after all.
#[cold]
pub(super) fn read(response: &mut Response<BodySource>) -> Result<(), RequestError> {
    if let Some(fields) = response.body().take_received_fields() {
        let map = fields.into_map().map_err(|_| RequestError::InvalidResponse)?;
        response.headers_mut().extend(map);
    }
    Ok(())
}
