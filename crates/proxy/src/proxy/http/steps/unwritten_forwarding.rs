//! The forwarding fields of a request that its header does not have yet: those of requests from untrusted peers, if no
//! step reads or changes fields with their names, or replaces Host, before the request is sent.

use http::HeaderValue;

use crate::forwarding_fields::ForwardingFields;
use crate::plugin_api::Scheme;
use crate::proxy::http::fields::headers::{ForwardedClient, StrippedRequest};
use crate::snapshot::rule::{Action, RouteRule};
use crate::snapshot::rule_options::{ForwardingHeaderStyle, UpstreamHost};

/// What only the request has of them. The rest is known of its connection and its record.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct UnwrittenForwarding {
    /// The port of the listener, as clients see it.
    pub(in crate::proxy) port: u16,
}

impl UnwrittenForwarding {
    /// Whether the fields of a request with this rule may be written later.
    pub(in crate::proxy) fn is_possible(client: &ForwardedClient, rule: &RouteRule, stripped: StrippedRequest) -> bool {
        // Fields of these names are kept, extended or replaced, all of which is done in the header.
        let is_new = !client.trusted && !stripped.has_forwarding_field;
        let options = rule.options();
        is_new
            && options.forwarding_headers == ForwardingHeaderStyle::Forwarded
            && !matches!(options.host, UpstreamHost::Fixed(_))
            && rule.plugins.is_none()
            && !decides_about_fields(rule)
    }

    /// All values.
    pub(in crate::proxy) fn fields<'f>(
        self,
        client: &'f ForwardedClient,
        request_id: &'f HeaderValue,
        via: &'f HeaderValue,
    ) -> ForwardingFields<'f> {
        let is_https = client.scheme == Scheme::Https;
        ForwardingFields { client: &client.ip, is_https, port: self.port, request_id, via }
    }
}

/// Whether fields of configured names, which authorization servers assert, are removed from the requests of a rule.
fn decides_about_fields(rule: &RouteRule) -> bool {
    let of_backends = if let Action::Forward(split) = &rule.action { split.asserted_by_servers() } else { None };
    rule.filters.asserted_by_server().or(of_backends).is_some()
}
