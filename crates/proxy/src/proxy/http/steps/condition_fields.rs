//! The forwarding headers of a request as the conditions of rules see them, before a rule is selected.
//!
//! An untrusted client must not select a rule by a header that the endpoint gets with another value, or not at all. So
//! conditions see the forwarding headers that the endpoint gets. What a trusted peer reports is seen as it was sent,
//! also where the endpoint gets a list with the peer at its end.
//!
//! Only conditions on these headers pay: the headers are computed for the first one, once for each style.

use std::cell::OnceCell;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::request_headers::{ForwardedRequest, path_value, set_headers};
use crate::forwarding_fields::X_REQUEST_ID;
use crate::plugin_api::header_spoofing;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::fields::headers::{CLIENT_REPORTS, HTTPOXY_HEADER, MANAGED_HEADERS, strip_request};
use crate::snapshot::router::ForwardedFields;
use crate::snapshot::rule_options::ForwardingHeaderStyle;

/// The forwarding headers of one request.
pub(in crate::proxy) struct ConditionFields<'r> {
    exchange: &'r ClientExchange,
    headers: &'r HeaderMap,
    request: ForwardedRequest<'r>,
    uri: &'r Uri,
    request_id: &'r HeaderValue,
    forwarded: OnceCell<Box<HeaderMap>>,
    real_ip: OnceCell<Box<HeaderMap>>,
}

impl<'r> ConditionFields<'r> {
    /// `headers` are those that the client sent.
    pub(in crate::proxy) fn new(
        exchange: &'r ClientExchange,
        headers: &'r HeaderMap,
        request: ForwardedRequest<'r>,
        uri: &'r Uri,
        request_id: &'r HeaderValue,
    ) -> Self {
        let (forwarded, real_ip) = (OnceCell::new(), OnceCell::new());
        ConditionFields { exchange, headers, request, uri, request_id, forwarded, real_ip }
    }

    /// The forwarding headers that the endpoint gets, without any other headers. `X-Forwarded-Prefix` depends on the
    /// rule, so the router adds it.
    fn compute(&self, style: ForwardingHeaderStyle) -> Box<HeaderMap> {
        let managed = self.headers.iter().filter(|(name, _)| is_managed(name));
        let mut headers: HeaderMap = managed.map(|(name, value)| (name.clone(), value.clone())).collect();
        let stripped = strip_request(&mut headers, self.exchange.client.trusted);
        set_headers(self.exchange, style, &self.request, path_value(style, self.uri), stripped, &mut headers);
        headers.insert(X_REQUEST_ID, self.request_id.clone());
        Box::new(headers)
    }
}

impl ForwardedFields for ConditionFields<'_> {
    fn find(&self, name: &HeaderName, style: ForwardingHeaderStyle) -> Option<&HeaderMap> {
        if !is_managed(name) {
            return None;
        }
        // That of a trusted peer is removed, too, in one style.
        let is_reported = self.exchange.client.trusted && *name != HTTPOXY_HEADER && self.headers.contains_key(name);
        if is_reported && MANAGED_HEADERS.iter().chain(&CLIENT_REPORTS).any(|managed| managed == name) {
            // As they were sent, also if the client names them in `Connection`.
            return Some(self.headers);
        }
        let computed = match style {
            // Locations have no conditions on fields.
            ForwardingHeaderStyle::Forwarded | ForwardingHeaderStyle::SingleClient => &self.forwarded,
            ForwardingHeaderStyle::RealIp => &self.real_ip,
        };
        Some(computed.get_or_init(|| self.compute(style)))
    }
}

/// Whether this is a forwarding header, or one that a backend could mistake for one.
fn is_managed(name: &HeaderName) -> bool {
    // For speed: most names begin with another letter.
    matches!(name.as_str().as_bytes(), [b'f' | b'p' | b'x', ..])
        && MANAGED_HEADERS.iter().chain(&CLIENT_REPORTS).any(|managed| header_spoofing::is_alike(name, managed))
}

impl fmt::Debug for ConditionFields<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConditionFields").field("exchange", self.exchange).finish_non_exhaustive()
    }
}
