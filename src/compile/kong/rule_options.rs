//! The options of a rule that is served as Kong serves it (docs/kong-compatibility.md, 3.4 to 3.6).

use http::HeaderName;

use crate::snapshot::rule_options::{
    AcceptedUpgrades, ErrorStyle, ForwardingHeaderStyle, ProductHeaderNames, RuleOptions, TrailerHeader,
};
use crate::snapshot::upstream_path::UpstreamPath;

/// The names of the headers that Kong adds, which dashboards and clients read.
pub static PRODUCT_HEADERS: ProductHeaderNames = ProductHeaderNames {
    request_id: HeaderName::from_static("x-kong-request-id"),
    response_latency: HeaderName::from_static("x-kong-response-latency"),
    upstream_latency: HeaderName::from_static("x-kong-upstream-latency"),
    proxy_latency: HeaderName::from_static("x-kong-proxy-latency"),
};

/// The options of every rule of an Ingress, and of a rule of an HTTPRoute that has Kong's annotations or plugins. The
/// annotations change some of them.
pub fn defaults() -> RuleOptions {
    RuleOptions {
        upgrades: AcceptedUpgrades::WebSocket,
        forwarding_headers: ForwardingHeaderStyle::RealIp,
        upstream_path: Some(UpstreamPath::default()),
        trailer_header: TrailerHeader::IfAccepted,
        product_headers: Some(&PRODUCT_HEADERS),
        errors: ErrorStyle::RingBalancer,
        ..RuleOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::rule_options::{Protocols, UpstreamHost};

    // docs/kong-compatibility.md, 2.2
    // docs/kong-compatibility.md, 7.6
    #[test]
    fn defaults_are_those_without_annotations() {
        let RuleOptions { upstream_path, host, protocols, https_redirect, .. } = defaults();
        let UpstreamPath { strip_matched, prefix, template } = upstream_path.unwrap();
        assert!(!strip_matched && template.is_none() && host == UpstreamHost::Preserved && protocols == Protocols::ALL);
        assert_eq!((&*prefix, https_redirect.status.as_u16(), https_redirect.port), ("/", 426, 443));
    }
}
