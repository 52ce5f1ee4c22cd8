//! The supported features in a GatewayClass's status, as far as the installed release defines them.
//!
//! A feature is listed only if it is implemented completely and passes the conformance tests. Names that the installed
//! release does not define are left out, because other programs compare the list with that release.

use crate::api::Kind;

/// The names to report with the CRDs of release 1.`minor`, of the experimental or the standard channel. They are
/// sorted, as the API requires. `has_kind`: whether the cluster has a kind that a feature needs.
pub(super) fn supported(minor: u32, is_experimental: bool, has_kind: impl Fn(Kind) -> bool) -> Vec<&'static str> {
    if minor < FIRST_WITH_FEATURES {
        return Vec::new();
    }
    let defined = FEATURES.iter().filter(|feature| {
        let first_minor = if is_experimental { feature.since } else { feature.standard_since };
        first_minor <= minor && minor <= feature.until && feature.needs.is_none_or(&has_kind)
    });
    let mut names: Vec<_> = defined.map(|feature| feature.name).collect();
    names.sort_unstable();
    names
}

/// The first minor version with `supportedFeatures` as a list of objects in both channels.
const FIRST_WITH_FEATURES: u32 = 4;

struct Feature {
    name: &'static str,
    /// The minor version of the first release that defines the name.
    since: u32,
    /// The minor version of the first release whose standard channel has the feature's fields. With earlier releases,
    /// the API server drops them.
    standard_since: u32,
    /// The minor version of the last release that defines the name.
    until: u32,
    /// A kind that is not part of the Gateway API, and that not every cluster has.
    needs: Option<Kind>,
}

/// A feature of all releases that list features.
const fn feature(name: &'static str) -> Feature {
    since(0, name)
}

/// A feature that both channels have since this minor version.
const fn since(minor: u32, name: &'static str) -> Feature {
    Feature { name, since: minor, standard_since: minor, until: u32::MAX, needs: None }
}

const FEATURES: &[Feature] = &[
    feature("BackendTLSPolicy"),
    feature("BackendTLSPolicySANValidation"),
    // Both channels have the fields. The feature is experimental, but the standard channel does not drop them.
    Feature { needs: Some(Kind::ClusterTrustBundle), ..since(7, "ClusterTrustBundle") },
    feature("Gateway"),
    feature("GRPCRoute"),
    feature("HTTPRoute"),
    since(5, "ListenerSet"),
    feature("ReferenceGrant"),
    since(6, "TCPRoute"),
    Feature { standard_since: 5, ..feature("TLSRoute") },
    since(6, "UDPRoute"),
    feature("GatewayAddressEmpty"),
    since(5, "GatewayBackendClientCertificate"),
    since(5, "GatewayFrontendClientCertificateValidation"),
    since(5, "GatewayFrontendClientCertificateValidationInsecureFallback"),
    feature("GatewayHTTPListenerIsolation"),
    since(5, "GatewayHTTPSListenerDetectMisdirectedRequests"),
    since(7, "GatewayInfrastructure"),
    // The former name of GatewayInfrastructure.
    Feature { until: 6, ..feature("GatewayInfrastructurePropagation") },
    feature("GatewayPort8080"),
    since(7, "GatewayRouteHostnameIntersectionPrecedence"),
    feature("GatewayStaticAddresses"),
    since(7, "GRPCRouteNamedRouteRule"),
    since(7, "GRPCRouteRequestHeaderModifier"),
    since(5, "HTTPRoute303RedirectStatusCode"),
    since(5, "HTTPRoute307RedirectStatusCode"),
    since(5, "HTTPRoute308RedirectStatusCode"),
    feature("HTTPRouteBackendProtocolH2C"),
    feature("HTTPRouteBackendProtocolWebSocket"),
    feature("HTTPRouteBackendRequestHeaderModification"),
    feature("HTTPRouteBackendTimeout"),
    since(7, "HTTPRouteBackendURLRewrite"),
    Feature { standard_since: 6, ..feature("HTTPRouteCORS") },
    feature("HTTPRouteDestinationPortMatching"),
    feature("HTTPRouteHostRewrite"),
    feature("HTTPRouteMethodMatching"),
    feature("HTTPRouteNamedRouteRule"),
    feature("HTTPRouteParentRefPort"),
    feature("HTTPRoutePathRedirect"),
    feature("HTTPRoutePathRewrite"),
    feature("HTTPRoutePortRedirect"),
    feature("HTTPRouteQueryParamMatching"),
    feature("HTTPRouteRequestMirror"),
    feature("HTTPRouteRequestMultipleMirrors"),
    feature("HTTPRouteRequestPercentageMirror"),
    feature("HTTPRouteRequestTimeout"),
    feature("HTTPRouteResponseHeaderModification"),
    since(7, "HTTPRouteRetryCodes"),
    Feature { standard_since: 7, ..since(6, "HTTPRouteRetryConnectionError") },
    feature("HTTPRouteSchemeRedirect"),
    since(7, "TLSRouteModeMixed"),
    since(7, "TLSRouteModeTerminate"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Gateway API 1.7, `supportedFeatures`: sorted by name, at most 64, no duplicates, and only names of the release.
    #[test]
    fn list_is_sorted_and_limited_to_the_release() {
        for (minor, experimental, count, has, lacks) in [
            (3, true, 0, None, Some("HTTPRoute")),
            (4, true, 32, Some("GatewayInfrastructurePropagation"), Some("HTTPRoute303RedirectStatusCode")),
            (4, false, 30, Some("HTTPRoutePathRewrite"), Some("HTTPRouteCORS")),
            (5, true, 40, Some("HTTPRoute308RedirectStatusCode"), Some("HTTPRouteRetryConnectionError")),
            (6, true, 43, Some("HTTPRouteRetryConnectionError"), Some("HTTPRouteRetryCodes")),
            (6, false, 42, Some("HTTPRouteCORS"), Some("HTTPRouteRetryConnectionError")),
            (7, true, 51, Some("GatewayInfrastructure"), Some("GatewayInfrastructurePropagation")),
            (7, false, 51, Some("HTTPRouteRetryCodes"), Some("GatewayListenerFilters")),
        ] {
            let names = supported(minor, experimental, |_| true);
            let context = format!("1.{minor}, experimental: {experimental}: {names:?}");
            assert_eq!(names.len(), count, "{context}");
            assert!(names.is_sorted_by(|left, right| left < right), "{context}");
            assert!(names.len() <= 64);
            assert!(has.is_none_or(|name| names.contains(&name)), "{context} lacks {has:?}");
            assert!(lacks.is_none_or(|name| !names.contains(&name)), "{context} has {lacks:?}");
        }
    }

    /// Of the 51 features, 7 are core features of a profile, and of the others 26 belong to HTTPRoute, 10 to Gateway, 2
    /// each to BackendTLSPolicy, GRPCRoute and TLSRoute, and the others are ListenerSet and ClusterTrustBundle.
    #[test]
    fn newest_release_gets_all_features() {
        let names = supported(7, true, |_| true);
        let core = ["Gateway", "GRPCRoute", "HTTPRoute", "ReferenceGrant", "TCPRoute", "TLSRoute", "UDPRoute"];
        assert_eq!(names.iter().filter(|name| core.contains(name)).count(), 7);
        assert_eq!(names.iter().filter(|name| name.starts_with("HTTPRoute") && !core.contains(name)).count(), 26);
    }

    #[test]
    fn trust_bundles_are_a_feature_only_where_they_exist() {
        for (minor, exists, expected) in [(7, true, true), (7, false, false), (6, true, false)] {
            for is_experimental in [true, false] {
                let names = supported(minor, is_experimental, |kind| kind == Kind::ClusterTrustBundle && exists);
                assert_eq!(names.contains(&"ClusterTrustBundle"), expected, "1.{minor} {exists} {is_experimental}");
                assert!(names.contains(&"BackendTLSPolicy"));
            }
        }
    }
}
