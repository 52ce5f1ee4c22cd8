//! Types for Kong's resources, so that manifests for Kong's ingress controller work unchanged.
//!
//! ```text
//!   kong_plugin.rs, …     one file for each kind, with validation as attributes of its fields
//!   plugin_settings.rs    fields of KongPlugin and KongClusterPlugin
//!   secret_ref.rs         references of these two kinds to Secrets
//!   value_reference.rs    references in the configurations of plugins
//!   control_plane.rs      fields that several kinds have below `spec`
//!   health_checks.rs      health checks of KongUpstreamPolicy and KongIngress
//!   annotations.rs        keys of annotations and labels
//!   schema.rs, status.rs  structural schemas of the kinds, and of `status` in them
//!   crd.rs                names, columns and labels of their CustomResourceDefinitions
//! ```
//!
//! `kubectl explain` shows the comments on types and fields. The schemas accept everything that Kong's schemas accept,
//! so a cluster with Kong's definitions works as well.

pub mod annotations;
mod control_plane;
pub(super) mod crd;
mod health_checks;
mod ingress_class_parameters;
mod kong_cluster_plugin;
mod kong_consumer;
mod kong_consumer_group;
mod kong_custom_entity;
mod kong_ingress;
mod kong_license;
mod kong_plugin;
mod kong_service_facade;
mod kong_upstream_policy;
mod kong_vault;
mod plugin_settings;
pub(super) mod schema;
mod secret_ref;
mod status;
mod tcp_ingress;
mod udp_ingress;
mod value_reference;
mod vault_reference;

pub use control_plane::{ControlPlaneRef, KonnectNamespacedRef};
pub use health_checks::{ActiveHealthcheck, Healthy, PassiveHealthcheck, Unhealthy};
pub use ingress_class_parameters::{IngressClassParameters, IngressClassParametersSpec};
pub use kong_cluster_plugin::KongClusterPlugin;
pub use kong_consumer::{KongConsumer, KongConsumerSpec};
pub use kong_consumer_group::{KongConsumerGroup, KongConsumerGroupSpec};
pub use kong_custom_entity::{CustomEntityParent, KongCustomEntity, KongCustomEntitySpec};
pub use kong_ingress::{KongIngress, KongIngressHealthchecks, KongIngressUpstream};
pub use kong_license::KongLicense;
pub use kong_plugin::KongPlugin;
pub use kong_service_facade::{KongServiceFacade, KongServiceFacadeSpec, ServiceFacadeBackend};
pub use kong_upstream_policy::{
    KongUpstreamPolicy, KongUpstreamPolicySpec, StickySessions, UpstreamHash, UpstreamHashFallback,
    UpstreamHealthchecks,
};
pub use kong_vault::{KongVault, KongVaultSpec};
pub use plugin_settings::{PluginOrdering, PluginSettings};
pub use secret_ref::{ConfigPatch, ConfigSource, PatchSource, SecretKeyRef};
pub use tcp_ingress::{StreamIngressBackend, TcpIngress, TcpIngressRule, TcpIngressSpec, TcpIngressTls};
pub use udp_ingress::{UdpIngress, UdpIngressRule, UdpIngressSpec};
pub use value_reference::ValueReference;
pub use vault_reference::{DEFAULT_ENVIRONMENT_PREFIX, VaultReference};

/// `spec.controller` of Kong's IngressClasses. Of these classes, Portico serves only the one with the configured class
/// name, and only if that name is not that of Portico's own class.
pub const INGRESS_CONTROLLER: &str = "ingress-controllers.konghq.com/kong";
