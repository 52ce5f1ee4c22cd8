//! Which fields the trailers of a request and of its response, and informational responses, may have. A field that the
//! proxy, a filter, a plugin or an authorization server sets or removes in a head must not arrive in another section of
//! fields: recipients that merge them would take it for that of the head.
//!
//! ```text
//!   trailers of a client ─────▶ RequestBody ──▶ remove_from_request_trailers ──▶ endpoint
//!   trailers of an endpoint ──▶ ResponseBody ─▶ remove_from_response_trailers ─┐
//!   1xx of an endpoint ───────▶ ClientExchange ▶ remove_from_informational ────┴▶ client
//! ```
//!
//! Nothing here is prepared for a message without trailers: the names are collected when the trailers arrive.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, VIA};
use http::{HeaderMap, HeaderName, Response};

use super::headers::{CLIENT_REPORTS, MANAGED_HEADERS, connection_options, is_certificate_field, strip_hop_by_hop};
use super::product_names::ProductHeaders;
use crate::forwarding_fields::X_REQUEST_ID;
use crate::http1::is_permitted_trailer;
use crate::plugin_api::{AssertedFields, ChangedFields, FieldNames, header_spoofing};
use crate::snapshot::external_auth::AuthorizationProtocol;
use crate::snapshot::rule::{Action, BackendTarget, Filters, HeaderEdits, RouteRule};
use crate::snapshot::rule_options::ProductHeaderNames;
use crate::upstream::AffinityCarrier;

/// Removes what must not be in the trailers of a request. `rule` is the one of the request if it
/// [changes fields](changes_requests), and `others` are names that depend on this request.
pub(in crate::proxy) fn remove_from_request_trailers(
    trailers: &mut HeaderMap,
    product_headers: &ProductHeaders,
    rule: Option<&RouteRule>,
    others: &FieldNames,
) {
    strip_hop_by_hop(trailers);
    let of_rule = rule.map(|rule| fields_of_requests(rule, product_headers)).unwrap_or_default();
    remove(trailers, |name| {
        !is_permitted_trailer(name) || is_managed_in_requests(name) || of_rule.contains(name) || others.contains(name)
    });
}

/// Removes what must not be in the trailers of a response. `rule` is the one of the request if it
/// [changes fields](changes_responses), and `others` are names that depend on this response.
fn remove_from_response_trailers(
    trailers: &mut HeaderMap,
    product_headers: &ProductHeaders,
    rule: Option<&RouteRule>,
    others: &FieldNames,
) {
    remove_from_response(trailers, product_headers, rule, others);
    remove(trailers, |name| !is_permitted_trailer(name));
}

/// Removes what must not be in an informational response, with the arguments of [`remove_from_response_trailers`].
pub(in crate::proxy) fn remove_from_informational(
    headers: &mut HeaderMap,
    product_headers: &ProductHeaders,
    rule: Option<&RouteRule>,
    others: &FieldNames,
) {
    remove_from_response(headers, product_headers, rule, others);
}

fn remove_from_response(
    headers: &mut HeaderMap,
    product_headers: &ProductHeaders,
    rule: Option<&RouteRule>,
    others: &FieldNames,
) {
    strip_hop_by_hop(headers);
    let of_rule = rule.map(|rule| fields_of_responses(rule, product_headers)).unwrap_or_default();
    remove(headers, |name| is_managed_in_responses(name) || of_rule.contains(name) || others.contains(name));
}

/// Whether the rule changes fields of requests that no other rule changes.
pub(in crate::proxy) fn changes_requests(rule: &RouteRule, product_headers: Option<&ProductHeaderNames>) -> bool {
    let changes = |filters: &Filters| filters.request_headers.is_some() || filters.external_auth.is_some();
    rule.plugins.is_some() || product_headers.is_some() || all_filters(rule).any(changes)
}

/// Whether the rule changes fields of responses that no other rule changes, except that of a session.
fn changes_responses(rule: &RouteRule, product_headers: Option<&ProductHeaderNames>) -> bool {
    let changes = |filters: &Filters| filters.response_headers.is_some();
    rule.plugins.is_some() || product_headers.is_some() || all_filters(rule).any(changes)
}

/// The fields that the client or the endpoint names in `Connection`, which concern one connection only.
pub(in crate::proxy) fn fields_of_connection(headers: &HeaderMap) -> FieldNames {
    let mut names = FieldNames::default();
    for name in headers.get_all(CONNECTION).iter().flat_map(connection_options) {
        names.add(&name);
    }
    names
}

/// Which informational responses the client gets, and what they must not have.
#[derive(Clone, Default)]
pub(in crate::proxy) struct InformationalPolicy<'r> {
    /// None if the client gets no informational responses at all.
    pub(in crate::proxy) rule: Option<&'r RouteRule>,
    /// Names that depend on the request. Few requests have some.
    pub(in crate::proxy) others: Option<Rc<FieldNames>>,
}

impl<'r> InformationalPolicy<'r> {
    /// For a request that is about to be forwarded. `others` are names that depend on the request.
    pub(in crate::proxy) fn new(rule: &'r RouteRule, others: FieldNames) -> Self {
        InformationalPolicy { rule: Some(rule), others: (!others.is_empty()).then(|| Rc::new(others)) }
    }
}

/// What the trailers of a response must not have, kept until its end.
pub(in crate::proxy) struct ResponseTrailerPolicy {
    /// None if the rule does not change responses.
    rule: Option<Arc<RouteRule>>,
    /// The names in the `Connection` field of the response.
    connection: ConnectionFields,
}

/// The fields that a response names in `Connection`, in the extensions of the response.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy) struct ConnectionFields(pub(in crate::proxy) Vec<HeaderName>);

impl ResponseTrailerPolicy {
    /// For a response that may have trailers. None if nothing about it depends on its rule or its head.
    pub(in crate::proxy) fn new<B>(
        rule: Option<&Arc<RouteRule>>,
        has_affinity: bool,
        product_headers: Option<&ProductHeaderNames>,
        response: &mut Response<B>,
    ) -> Option<Box<Self>> {
        let rule = rule.filter(|rule| has_affinity || changes_responses(rule, product_headers)).cloned();
        let connection: ConnectionFields = response.extensions_mut().remove().unwrap_or_default();
        let is_needed = rule.is_some() || !connection.0.is_empty();
        is_needed.then(|| Box::new(ResponseTrailerPolicy { rule, connection }))
    }
}

/// Removes what must not be in the trailers of a response with this policy. `others` are names that depend on its
/// request.
#[cold]
pub(in crate::proxy) fn clean_response_trailers(
    trailers: &mut HeaderMap,
    product_headers: &ProductHeaders,
    policy: Option<&ResponseTrailerPolicy>,
    mut others: FieldNames,
) {
    others.add_all(policy.into_iter().flat_map(|policy| &policy.connection.0));
    let rule = policy.and_then(|policy| policy.rule.as_deref());
    remove_from_response_trailers(trailers, product_headers, rule, &others);
}

/// The names of all fields that are set or removed in requests, by any backend of the rule.
fn fields_of_requests(rule: &RouteRule, product_headers: &ProductHeaders) -> FieldNames {
    let mut names = changed_by_plugins(rule).request;
    for filters in all_filters(rule) {
        add_edits(&mut names, filters.request_headers.as_ref());
        if let Some(AuthorizationProtocol::Http(settings)) = filters.external_auth.as_ref().map(|auth| &auth.protocol) {
            // The server decides about each of them. Names that are not listed are known when it has decided.
            names.add_all(settings.response_headers.iter().flat_map(AssertedFields::names));
        }
    }
    if let Some(product_headers) = product_headers.names(rule.options().product_headers) {
        names.add(&product_headers.request_id);
    }
    names
}

/// The names of all fields that are set or removed in responses, by any backend of the rule.
fn fields_of_responses(rule: &RouteRule, product_headers: &ProductHeaders) -> FieldNames {
    let mut names = changed_by_plugins(rule).response;
    for filters in all_filters(rule) {
        add_edits(&mut names, filters.response_headers.as_ref());
    }
    for session in sessions(rule) {
        if let AffinityCarrier::Header(name) = session {
            names.add(&name);
        }
    }
    if let Some(product_headers) = product_headers.names(rule.options().product_headers) {
        let ProductHeaderNames { request_id, response_latency, upstream_latency, proxy_latency } = product_headers;
        names.add_all([request_id, response_latency, upstream_latency, proxy_latency]);
    }
    names
}

fn changed_by_plugins(rule: &RouteRule) -> ChangedFields {
    rule.plugins.as_ref().map(|chain| chain.changed_fields()).unwrap_or_default()
}

/// The filters of the rule and of all its backends.
fn all_filters(rule: &RouteRule) -> impl Iterator<Item = &Filters> {
    let split = if let Action::Forward(split) = &rule.action { Some(split) } else { None };
    let backends = split.into_iter().flat_map(|split| split.all_backends());
    [&rule.filters].into_iter().chain(backends.map(|backend| &backend.filters))
}

/// Where the sessions of the rule and of its backends are stored.
fn sessions(rule: &RouteRule) -> impl Iterator<Item = AffinityCarrier> {
    let split = if let Action::Forward(split) = &rule.action { Some(split) } else { None };
    let of_rule = split.and_then(|split| split.affinity().cloned());
    let upstreams =
        split.into_iter().flat_map(|split| split.all_backends()).filter_map(|backend| match &backend.target {
            BackendTarget::Upstream(upstream) => upstream.affinity_settings(),
            BackendTarget::Fail(_) => None,
        });
    of_rule.into_iter().chain(upstreams).map(|settings| settings.carrier.clone())
}

fn add_edits(names: &mut FieldNames, edits: Option<&HeaderEdits>) {
    if let Some(HeaderEdits { set, add, remove }) = edits {
        names.add_all(set.iter().chain(add).map(|(name, _)| name).chain(remove));
    }
}

/// Whether the proxy sets or removes the field in the heads of requests, whatever the rule.
fn is_managed_in_requests(name: &HeaderName) -> bool {
    *name == VIA
        || is_certificate_field(name)
        || MANAGED_HEADERS.iter().chain(&CLIENT_REPORTS).any(|managed| header_spoofing::is_alike(name, managed))
}

/// Whether the proxy sets or replaces the field in the heads of responses, on all rules or on those with a CORS filter.
fn is_managed_in_responses(name: &HeaderName) -> bool {
    *name == VIA || *name == X_REQUEST_ID || name.as_str().starts_with("access-control-")
}

fn remove(fields: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    let unwanted: Vec<HeaderName> = fields.keys().filter(|name| is_unwanted(name)).cloned().collect();
    for name in unwanted {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};

    use super::*;
    use crate::proxy::http::fields::headers::strip_request;

    /// Whatever the steps before forwarding remove from the head of an untrusted client, or set in it.
    #[test]
    fn no_field_that_is_sanitized_in_heads_is_a_trailer() {
        let names = MANAGED_HEADERS.iter().chain(&CLIENT_REPORTS).cloned();
        let mut all: Vec<HeaderName> = names.collect();
        let alike = all.iter().map(|name| HeaderName::try_from(name.as_str().replace('-', "_")).unwrap());
        let alike: Vec<HeaderName> = alike.collect();
        all.extend(alike);
        all.extend([AUTHORIZATION, COOKIE, EXPECT, HOST, TE, TRANSFER_ENCODING, VIA, CONNECTION]);
        all.extend(["keep-alive", "proxy-connection", "upgrade", "trailer"].map(HeaderName::from_static));
        all.extend(["ssl-client-verify", "ssl_client_cert", "ssl-client-new"].map(HeaderName::from_static));
        let is_trailer = |name: &HeaderName| is_permitted_trailer(name) && !is_managed_in_requests(name);
        for name in &all {
            assert!(!is_trailer(name), "{name}");
        }
        let mut head: HeaderMap = all.iter().map(|name| (name.clone(), HeaderValue::from_static("1"))).collect();
        let kept = HeaderName::from_static("x-sum");
        head.insert(&kept, HeaderValue::from_static("1"));
        strip_request(&mut head, false);
        let removed = all.iter().filter(|name| !head.contains_key(*name));
        assert!(removed.into_iter().all(|name| !is_trailer(name)));
        assert!(head.contains_key(&kept) && is_trailer(&kept));
    }

    /// The HTTP/2 library refuses trailers with such fields, and nothing sees its error: a request would wait for its
    /// timeout, and the record of a response would not say that its end is missing.
    #[tokio::test]
    async fn trailers_that_http2_refuses_are_removed() {
        let (socket, _peer) = tokio::io::duplex(64 * 1024);
        let (mut client, _connection) = h2::client::handshake(socket).await.unwrap();
        let listed = [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, TRAILER, HOST, EXPECT, CONTENT_LENGTH, COOKIE];
        let others = ["keep-alive", "proxy-connection", "http2-settings", "alt-svc", "x-sum"];
        let names = listed.into_iter().chain(others.map(HeaderName::from_static));
        let mut refused = Vec::new();
        for name in names {
            let (_, mut stream) = client.send_request(http::Request::new(()), false).unwrap();
            let mut trailers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("1"))]);
            if stream.send_trailers(trailers.clone()).is_ok() {
                continue;
            }
            refused.push(name.clone());
            strip_hop_by_hop(&mut trailers);
            remove(&mut trailers, |name| !is_permitted_trailer(name));
            assert!(trailers.is_empty(), "{name}");
        }
        assert!(refused.contains(&CONNECTION) && refused.contains(&TE), "{refused:?}");
    }
}
