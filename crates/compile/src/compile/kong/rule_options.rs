//! The options of a rule that is served as Kong serves it (docs/kong-compatibility.md, 3.4 to 3.6).

use http::HeaderName;

use crate::snapshot::rule_options::{
    AcceptedUpgrades, ErrorStyle, ForwardingHeaderStyle, GrpcErrorStyle, ProductHeaderNames, RuleOptions,
    TrailerHeader, UnmatchedStyle,
};
use crate::snapshot::upstream_path::UpstreamPath;

/// The names of the headers that Kong adds, which dashboards and clients read.
pub static PRODUCT_HEADERS: ProductHeaderNames = ProductHeaderNames {
    request_id: HeaderName::from_static("x-kong-request-id"),
    response_latency: HeaderName::from_static("x-kong-response-latency"),
    upstream_latency: HeaderName::from_static("x-kong-upstream-latency"),
    proxy_latency: HeaderName::from_static("x-kong-proxy-latency"),
};

/// How responses to requests look that no rule of an Ingress matches.
pub const UNMATCHED: UnmatchedStyle =
    UnmatchedStyle { product_headers: Some(&PRODUCT_HEADERS), grpc_errors: GrpcErrorStyle::HttpStatus };

/// The options of every rule of an Ingress. The annotations change some of them.
pub fn of_ingress() -> RuleOptions {
    // Rules of Gateways have the statuses that the Gateway API requires.
    RuleOptions { grpc_errors: GrpcErrorStyle::HttpStatus, ..defaults() }
}

/// The options of a rule of an HTTPRoute that has Kong's annotations or plugins, and most of those of Ingresses. The
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
