//! The list of stored kinds: each is a variant of `AnyObject` and a table of the store.

/// Calls a macro with `Kind in table` for each stored kind. The type has the name of the kind.
macro_rules! for_each_stored_kind {
    ($with:ident) => {
        $with! {
            GatewayClass in gateway_classes,
            Gateway in gateways,
            HttpRoute in http_routes,
            BackendTlsPolicy in backend_tls_policies,
            ReferenceGrant in reference_grants,
            Ingress in ingresses,
            IngressClass in ingress_classes,
            IngressClassParameters in ingress_class_parameters,
            KongPlugin in kong_plugins,
            KongClusterPlugin in kong_cluster_plugins,
            KongConsumer in kong_consumers,
            KongConsumerGroup in kong_consumer_groups,
            KongUpstreamPolicy in kong_upstream_policies,
            KongIngress in kong_ingresses,
            KongVault in kong_vaults,
            KongLicense in kong_licenses,
            KongCustomEntity in kong_custom_entities,
            KongServiceFacade in kong_service_facades,
            TcpIngress in tcp_ingresses,
            UdpIngress in udp_ingresses,
            Service in services,
            EndpointSlice in endpoint_slices,
            Secret in secrets,
            ConfigMap in config_maps,
            Namespace in namespaces,
        }
    };
}
pub(super) use for_each_stored_kind;

/// The body types of these kinds, for modules that expand the list.
pub(super) mod bodies {
    pub(in crate::store) use crate::api::core::{ConfigMap, EndpointSlice, Namespace, Secret, Service};
    pub(in crate::store) use crate::api::gateway::{
        BackendTlsPolicy, Gateway, GatewayClass, HttpRoute, ReferenceGrant,
    };
    pub(in crate::store) use crate::api::kong::{
        IngressClassParameters, KongClusterPlugin, KongConsumer, KongConsumerGroup, KongCustomEntity, KongIngress,
        KongLicense, KongPlugin, KongServiceFacade, KongUpstreamPolicy, KongVault, TcpIngress, UdpIngress,
    };
    pub(in crate::store) use crate::api::networking::{Ingress, IngressClass};
}
