//! The table of kinds: one row for each kind, with everything that other modules need to know about it.
//!
//! [`Kind`], REST paths, RBAC permissions, watches, and the store's tables and object type are generated from it.
//! Schemas have code for each kind, which tests compare with the table.

use std::fmt;

use serde::de::DeserializeOwned;

pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
pub const GATEWAY_X_GROUP: &str = "gateway.networking.x-k8s.io";
pub const CERTIFICATES_GROUP: &str = "certificates.k8s.io";
pub const DISCOVERY_GROUP: &str = "discovery.k8s.io";
pub const NETWORKING_GROUP: &str = "networking.k8s.io";
/// Group of Kong's resources; unchanged, so that existing manifests work.
pub const KONG_GROUP: &str = "configuration.konghq.com";
/// Group of Kong's experimental resources.
pub const KONG_INCUBATOR_GROUP: &str = "incubator.ingress-controller.konghq.com";
/// Group of Portico's own resources.
pub const PORTICO_GROUP: &str = "portico.dev";
/// The core group, with Service, Secret and others; written as an empty string.
pub const CORE_GROUP: &str = "";

/// Passes the table to the macro `$callback`, after the optional argument `$inner_callback`. The order of the rows is
/// that of [`Kind::ALL`].
///
/// A block has the family, the module of the types, and the group. A row has, in this order:
/// - the type, which is also the variant of [`Kind`], with the name in manifests if that differs,
/// - the plural in REST paths,
/// - the accepted versions, preferred first; all are parsed as the same type,
/// - the `KindScope`, the [`StatusUse`] and the `WatchMode`,
/// - for a kind that Portico serves, its table in the store. `RouteKind` of the compiler lists the kinds of routes.
#[macro_export]
macro_rules! for_each_kind {
    ($callback:path $(, $inner_callback:path)?) => {
        $callback! {
            $($inner_callback,)?
            GatewayApi gateway GATEWAY_GROUP {
                GatewayClass, "gatewayclasses", ["v1", "v1beta1"], Cluster, Written, Whole, in gateway_classes;
                Gateway, "gateways", ["v1", "v1beta1"], Namespaced, Written, Whole, in gateways;
                ListenerSet, "listenersets", ["v1"], Namespaced, Written, Whole, in listener_sets;
                HttpRoute = "HTTPRoute", "httproutes", ["v1", "v1beta1"], Namespaced, Written, Whole, in http_routes;
                GrpcRoute = "GRPCRoute", "grpcroutes", ["v1"], Namespaced, Written, Whole, in grpc_routes;
                TlsRoute = "TLSRoute", "tlsroutes", ["v1", "v1alpha3", "v1alpha2"],
                    Namespaced, Written, Whole, in tls_routes;
                TcpRoute = "TCPRoute", "tcproutes", ["v1", "v1alpha2"], Namespaced, Written, Whole, in tcp_routes;
                UdpRoute = "UDPRoute", "udproutes", ["v1", "v1alpha2"], Namespaced, Written, Whole, in udp_routes;
                BackendTlsPolicy = "BackendTLSPolicy", "backendtlspolicies", ["v1", "v1alpha3"],
                    Namespaced, Written, Whole, in backend_tls_policies;
                ReferenceGrant, "referencegrants", ["v1", "v1beta1"], Namespaced, Ignored, Whole, in reference_grants;
            }
            GatewayApi gateway GATEWAY_X_GROUP {
                XBackend, "xbackends", ["v1alpha1"], Namespaced, Written, Whole, in x_backends;
                XBackendTrafficPolicy, "xbackendtrafficpolicies", ["v1alpha1"],
                    Namespaced, Written, Whole, in x_backend_traffic_policies;
                XMesh, "xmeshes", ["v1alpha1"], Cluster, Observed, Whole;
                XTelemetryPolicy, "xtelemetrypolicies", ["v1alpha1"], Namespaced, Observed, Whole;
            }
            Portico portico PORTICO_GROUP {
                BackendPolicy, "backendpolicies", ["v1alpha1"], Namespaced, Written, Whole, in backend_policies;
                GatewayParameters, "gatewayparameters", ["v1alpha1"],
                    Namespaced, Ignored, Whole, in gateway_parameters;
            }
            Kubernetes networking NETWORKING_GROUP {
                Ingress, "ingresses", ["v1"], Namespaced, Written, Whole, in ingresses;
                IngressClass, "ingressclasses", ["v1"], Cluster, Ignored, Whole, in ingress_classes;
            }
            Kong kong KONG_GROUP {
                IngressClassParameters, "ingressclassparameterses", ["v1alpha1"],
                    Namespaced, Ignored, Whole, in ingress_class_parameters;
                KongPlugin, "kongplugins", ["v1"], Namespaced, Written, Whole, in kong_plugins;
                KongClusterPlugin, "kongclusterplugins", ["v1"], Cluster, Written, Whole, in kong_cluster_plugins;
                KongConsumer, "kongconsumers", ["v1"], Namespaced, Written, Whole, in kong_consumers;
                KongConsumerGroup, "kongconsumergroups", ["v1beta1"],
                    Namespaced, Written, Whole, in kong_consumer_groups;
                KongUpstreamPolicy, "kongupstreampolicies", ["v1beta1"],
                    Namespaced, Written, Whole, in kong_upstream_policies;
                KongIngress, "kongingresses", ["v1"], Namespaced, Written, Whole, in kong_ingresses;
                KongVault, "kongvaults", ["v1alpha1"], Cluster, Written, Whole, in kong_vaults;
                KongLicense, "konglicenses", ["v1alpha1"], Cluster, Written, Whole, in kong_licenses;
                KongCustomEntity, "kongcustomentities", ["v1alpha1"],
                    Namespaced, Written, Whole, in kong_custom_entities;
            }
            Kong kong KONG_INCUBATOR_GROUP {
                KongServiceFacade, "kongservicefacades", ["v1alpha1"],
                    Namespaced, Written, Whole, in kong_service_facades;
            }
            Kong kong KONG_GROUP {
                TcpIngress = "TCPIngress", "tcpingresses", ["v1beta1"], Namespaced, Written, Whole, in tcp_ingresses;
                UdpIngress = "UDPIngress", "udpingresses", ["v1beta1"], Namespaced, Written, Whole, in udp_ingresses;
            }
            Kubernetes core CORE_GROUP {
                Service, "services", ["v1"], Namespaced, Ignored, Whole, in services;
            }
            Kubernetes core DISCOVERY_GROUP {
                EndpointSlice, "endpointslices", ["v1"], Namespaced, Ignored, Whole, in endpoint_slices;
            }
            Kubernetes core CORE_GROUP {
                Secret, "secrets", ["v1"], Namespaced, Ignored, Referenced, in secrets;
                ConfigMap, "configmaps", ["v1"], Namespaced, Ignored, Referenced, in config_maps;
                Namespace, "namespaces", ["v1"], Cluster, Ignored, Whole, in namespaces;
            }
            Kubernetes core CERTIFICATES_GROUP {
                ClusterTrustBundle, "clustertrustbundles", ["v1", "v1beta1"],
                    Cluster, Ignored, Whole, in cluster_trust_bundles;
            }
        }
    };
}
pub use for_each_kind;

/// Passes `module::Kind in table` for each served kind to a macro.
#[macro_export]
macro_rules! for_each_served_kind {
    ($callback:path) => {
        $crate::api::kind::for_each_kind! { $crate::api::kind::served_kinds, $callback }
    };
}
pub use for_each_served_kind;

/// Reduces the table to `module::Kind in table` for each served kind, for [`for_each_served_kind`].
#[macro_export]
macro_rules! served_kinds {
    ($callback:path, $($family:ident $module:ident $group:ident {
        $($kind:ident $(= $name:literal)?, $plural:literal, $versions:tt, $scope:ident, $status:ident, $watch:ident
            $(, in $table:ident)?;)*
    })*) => {
        $callback! { $($($($module::$kind in $table,)?)*)* }
    };
}
pub use served_kinds;

/// Declares [`Kind`] and implements [`Resource`] for the types of the table.
macro_rules! declare_kinds {
    ($($family:ident $module:ident $group:ident {
        $($kind:ident $(= $name:literal)?, $plural:literal, $versions:tt, $scope:ident, $status:ident, $watch:ident
            $(, in $table:ident)?;)*
    })*) => {
        /// A kind of object that Portico reads. Lists and reports use the order of the variants.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($($kind,)*)*
        }

        impl Kind {
            pub const ALL: &'static [Kind] = &[$($(Kind::$kind,)*)*];

            const fn info(self) -> KindInfo {
                match self {
                    $($(Kind::$kind => KindInfo {
                        name: first(&[$($name,)? stringify!($kind)]),
                        family: KindFamily::$family,
                        group: $group,
                        versions: &$versions,
                        plural: $plural,
                        scope: KindScope::$scope,
                        status: StatusUse::$status,
                        watch: WatchMode::$watch,
                        served: !first(&[$(stringify!($table),)? ""]).is_empty(),
                    },)*)*
                }
            }
        }

        $($(impl Resource for super::$module::$kind {
            const KIND: Kind = Kind::$kind;
        })*)*
    };
}
for_each_kind!(declare_kinds);

/// The first entry of a list. In the lists of `declare_kinds`, an optional entry precedes its default.
const fn first(entries: &[&'static str]) -> &'static str {
    entries[0]
}

/// Everything in an object of one kind except `apiVersion`, `kind` and `metadata`.
pub trait Resource: DeserializeOwned + Send + Sync + 'static {
    const KIND: Kind;
}

/// Origin of a kind and of its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindFamily {
    /// Defined by CustomResourceDefinitions of the Gateway API, in two channels.
    GatewayApi,
    /// Built into every API server.
    Kubernetes,
    /// Defined by CustomResourceDefinitions of Kong, which `portico crds` prints too.
    Kong,
    /// Portico's own, defined by the CustomResourceDefinitions that `portico crds` prints.
    Portico,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KindScope {
    Cluster,
    Namespaced,
}

/// What Portico does with the status of objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusUse {
    /// The status subresource is patched with verdicts.
    Written,
    /// Kept as the cluster reports it.
    Observed,
    /// Dropped, or the kind has none.
    Ignored,
}

/// The fields of the status that Portico writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusLayout {
    GatewayClass,
    Gateway,
    /// `conditions`, and `listeners` as in a Gateway.
    ListenerSet,
    /// `parents`: an entry for each parent of a route.
    Parents,
    /// `ancestors`: an entry for each object that a policy applies to, or for each Gateway that uses a backend.
    Ancestors,
    Conditions,
    /// `loadBalancer`, without conditions.
    Addresses,
    ConditionsAndAddresses,
    /// `controllers`: an entry for each controller.
    Controllers,
    NotWritten,
}

/// How the objects of a kind are read from an API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WatchMode {
    Whole,
    /// Only metadata is watched; the content is fetched when another object refers to it.
    Referenced,
}

struct KindInfo {
    name: &'static str,
    family: KindFamily,
    group: &'static str,
    versions: &'static [&'static str],
    plural: &'static str,
    scope: KindScope,
    status: StatusUse,
    watch: WatchMode,
    served: bool,
}

impl Kind {
    /// Objects in front of a Service, with settings of their own.
    pub const FACADE: Kind = Kind::KongServiceFacade;

    /// The kind in manifests, for example `HTTPRoute`.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    pub const fn group(self) -> &'static str {
        self.info().group
    }

    /// The accepted versions, preferred first.
    pub const fn versions(self) -> &'static [&'static str] {
        self.info().versions
    }

    pub const fn plural(self) -> &'static str {
        self.info().plural
    }

    pub const fn namespaced(self) -> bool {
        matches!(self.info().scope, KindScope::Namespaced)
    }

    pub const fn family(self) -> KindFamily {
        self.info().family
    }

    pub const fn status_use(self) -> StatusUse {
        self.info().status
    }

    /// The fields of the status that Portico writes.
    pub const fn status_layout(self) -> StatusLayout {
        match self {
            Kind::GatewayClass => StatusLayout::GatewayClass,
            Kind::Gateway => StatusLayout::Gateway,
            Kind::ListenerSet => StatusLayout::ListenerSet,
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => {
                StatusLayout::Parents
            }
            Kind::KongPlugin
            | Kind::KongClusterPlugin
            | Kind::KongConsumer
            | Kind::KongConsumerGroup
            | Kind::KongVault
            | Kind::KongCustomEntity
            | Kind::KongServiceFacade
            | Kind::KongIngress => StatusLayout::Conditions,
            Kind::TcpIngress | Kind::UdpIngress => StatusLayout::ConditionsAndAddresses,
            Kind::Ingress => StatusLayout::Addresses,
            Kind::KongLicense => StatusLayout::Controllers,
            Kind::BackendPolicy
            | Kind::BackendTlsPolicy
            | Kind::KongUpstreamPolicy
            | Kind::XBackend
            | Kind::XBackendTrafficPolicy => StatusLayout::Ancestors,
            _ => StatusLayout::NotWritten,
        }
    }

    /// Whether Portico writes the status of these objects.
    pub const fn has_written_status(self) -> bool {
        matches!(self.info().status, StatusUse::Written)
    }

    /// Whether only metadata is watched, and the content of an object is fetched when another object refers to it.
    pub const fn is_fetched_on_reference(self) -> bool {
        matches!(self.info().watch, WatchMode::Referenced)
    }

    /// Whether objects of the kind are stored and compiled. Objects of other kinds are only validated.
    pub const fn is_served(self) -> bool {
        self.info().served
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
        assert_eq!(Kind::find(CORE_GROUP, "HTTPRoute"), None);
    }
}
