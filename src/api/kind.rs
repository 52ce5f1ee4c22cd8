//! The closed list of supported kinds with their group, versions and REST names.

use std::fmt;

use serde::de::DeserializeOwned;

pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
pub const GATEWAY_X_GROUP: &str = "gateway.networking.x-k8s.io";
pub const DISCOVERY_GROUP: &str = "discovery.k8s.io";
pub const NETWORKING_GROUP: &str = "networking.k8s.io";
/// Group of Kong's resources; unchanged, so that existing manifests work.
pub const KONG_GROUP: &str = "configuration.konghq.com";
/// Group of Kong's experimental resources.
pub const KONG_INCUBATOR_GROUP: &str = "incubator.ingress-controller.konghq.com";
/// The core group, with Service, Secret and others; written as an empty string.
pub const CORE_GROUP: &str = "";

/// A kind of object that Portico reads, in the order of tables and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    GatewayClass,
    Gateway,
    ListenerSet,
    HttpRoute,
    GrpcRoute,
    TlsRoute,
    TcpRoute,
    UdpRoute,
    BackendTlsPolicy,
    ReferenceGrant,
    XBackend,
    XBackendTrafficPolicy,
    XMesh,
    XTelemetryPolicy,
    Ingress,
    IngressClass,
    IngressClassParameters,
    KongPlugin,
    KongClusterPlugin,
    KongConsumer,
    KongConsumerGroup,
    KongUpstreamPolicy,
    KongIngress,
    KongVault,
    KongLicense,
    KongCustomEntity,
    KongServiceFacade,
    TcpIngress,
    UdpIngress,
    Service,
    EndpointSlice,
    Secret,
    ConfigMap,
    Namespace,
}

/// Everything in an object of one kind except `apiVersion`, `kind` and `metadata`.
pub trait Resource: DeserializeOwned + Send + Sync + 'static {
    const KIND: Kind;
}

struct KindInfo {
    name: &'static str,
    group: &'static str,
    /// Served versions, preferred first. All are parsed as the same type.
    versions: &'static [&'static str],
    plural: &'static str,
    namespaced: bool,
}

const fn info(
    name: &'static str,
    group: &'static str,
    versions: &'static [&'static str],
    plural: &'static str,
    namespaced: bool,
) -> KindInfo {
    KindInfo { name, group, versions, plural, namespaced }
}

impl Kind {
    pub const ALL: &'static [Kind] = &[
        Kind::GatewayClass,
        Kind::Gateway,
        Kind::ListenerSet,
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::TlsRoute,
        Kind::TcpRoute,
        Kind::UdpRoute,
        Kind::BackendTlsPolicy,
        Kind::ReferenceGrant,
        Kind::XBackend,
        Kind::XBackendTrafficPolicy,
        Kind::XMesh,
        Kind::XTelemetryPolicy,
        Kind::Ingress,
        Kind::IngressClass,
        Kind::IngressClassParameters,
        Kind::KongPlugin,
        Kind::KongClusterPlugin,
        Kind::KongConsumer,
        Kind::KongConsumerGroup,
        Kind::KongUpstreamPolicy,
        Kind::KongIngress,
        Kind::KongVault,
        Kind::KongLicense,
        Kind::KongCustomEntity,
        Kind::KongServiceFacade,
        Kind::TcpIngress,
        Kind::UdpIngress,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Secret,
        Kind::ConfigMap,
        Kind::Namespace,
    ];

    const fn info(self) -> KindInfo {
        match self {
            Kind::GatewayClass => info("GatewayClass", GATEWAY_GROUP, &["v1", "v1beta1"], "gatewayclasses", false),
            Kind::Gateway => info("Gateway", GATEWAY_GROUP, &["v1", "v1beta1"], "gateways", true),
            Kind::ListenerSet => info("ListenerSet", GATEWAY_GROUP, &["v1"], "listenersets", true),
            Kind::HttpRoute => info("HTTPRoute", GATEWAY_GROUP, &["v1", "v1beta1"], "httproutes", true),
            Kind::GrpcRoute => info("GRPCRoute", GATEWAY_GROUP, &["v1"], "grpcroutes", true),
            Kind::TlsRoute => info("TLSRoute", GATEWAY_GROUP, &["v1", "v1alpha3", "v1alpha2"], "tlsroutes", true),
            Kind::TcpRoute => info("TCPRoute", GATEWAY_GROUP, &["v1", "v1alpha2"], "tcproutes", true),
            Kind::UdpRoute => info("UDPRoute", GATEWAY_GROUP, &["v1", "v1alpha2"], "udproutes", true),
            Kind::BackendTlsPolicy => {
                info("BackendTLSPolicy", GATEWAY_GROUP, &["v1", "v1alpha3"], "backendtlspolicies", true)
            }
            Kind::ReferenceGrant => info("ReferenceGrant", GATEWAY_GROUP, &["v1", "v1beta1"], "referencegrants", true),
            Kind::XBackend => info("XBackend", GATEWAY_X_GROUP, &["v1alpha1"], "xbackends", true),
            Kind::XBackendTrafficPolicy => {
                info("XBackendTrafficPolicy", GATEWAY_X_GROUP, &["v1alpha1"], "xbackendtrafficpolicies", true)
            }
            Kind::XMesh => info("XMesh", GATEWAY_X_GROUP, &["v1alpha1"], "xmeshes", false),
            Kind::XTelemetryPolicy => {
                info("XTelemetryPolicy", GATEWAY_X_GROUP, &["v1alpha1"], "xtelemetrypolicies", true)
            }
            Kind::Ingress => info("Ingress", NETWORKING_GROUP, &["v1"], "ingresses", true),
            Kind::IngressClass => info("IngressClass", NETWORKING_GROUP, &["v1"], "ingressclasses", false),
            Kind::IngressClassParameters => {
                info("IngressClassParameters", KONG_GROUP, &["v1alpha1"], "ingressclassparameterses", true)
            }
            Kind::KongPlugin => info("KongPlugin", KONG_GROUP, &["v1"], "kongplugins", true),
            Kind::KongClusterPlugin => info("KongClusterPlugin", KONG_GROUP, &["v1"], "kongclusterplugins", false),
            Kind::KongConsumer => info("KongConsumer", KONG_GROUP, &["v1"], "kongconsumers", true),
            Kind::KongConsumerGroup => info("KongConsumerGroup", KONG_GROUP, &["v1beta1"], "kongconsumergroups", true),
            Kind::KongUpstreamPolicy => {
                info("KongUpstreamPolicy", KONG_GROUP, &["v1beta1"], "kongupstreampolicies", true)
            }
            Kind::KongIngress => info("KongIngress", KONG_GROUP, &["v1"], "kongingresses", true),
            Kind::KongVault => info("KongVault", KONG_GROUP, &["v1alpha1"], "kongvaults", false),
            Kind::KongLicense => info("KongLicense", KONG_GROUP, &["v1alpha1"], "konglicenses", false),
            Kind::KongCustomEntity => info("KongCustomEntity", KONG_GROUP, &["v1alpha1"], "kongcustomentities", true),
            Kind::KongServiceFacade => {
                info("KongServiceFacade", KONG_INCUBATOR_GROUP, &["v1alpha1"], "kongservicefacades", true)
            }
            Kind::TcpIngress => info("TCPIngress", KONG_GROUP, &["v1beta1"], "tcpingresses", true),
            Kind::UdpIngress => info("UDPIngress", KONG_GROUP, &["v1beta1"], "udpingresses", true),
            Kind::Service => info("Service", CORE_GROUP, &["v1"], "services", true),
            Kind::EndpointSlice => info("EndpointSlice", DISCOVERY_GROUP, &["v1"], "endpointslices", true),
            Kind::Secret => info("Secret", CORE_GROUP, &["v1"], "secrets", true),
            Kind::ConfigMap => info("ConfigMap", CORE_GROUP, &["v1"], "configmaps", true),
            Kind::Namespace => info("Namespace", CORE_GROUP, &["v1"], "namespaces", false),
        }
    }

    /// The kind in manifests, for example `HTTPRoute`.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    pub const fn group(self) -> &'static str {
        self.info().group
    }

    /// Accepted versions, preferred first.
    pub const fn versions(self) -> &'static [&'static str] {
        self.info().versions
    }

    pub const fn plural(self) -> &'static str {
        self.info().plural
    }

    pub const fn namespaced(self) -> bool {
        self.info().namespaced
    }

    /// Finds a kind by group and name, regardless of the version.
    pub fn find(group: &str, name: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.group() == group && kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_are_sorted_and_found_by_name() {
        assert!(Kind::ALL.is_sorted());
        for kind in Kind::ALL {
            assert_eq!(Kind::find(kind.group(), kind.name()), Some(*kind));
        }
        assert_eq!(Kind::ALL.last(), Some(&Kind::Namespace), "ALL contains every kind");
        assert_eq!(Kind::find(CORE_GROUP, "HTTPRoute"), None);
    }
}
