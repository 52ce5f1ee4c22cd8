//! Kong's resources as types of our own, so that manifests written for its ingress controller are taken as they are.
//!
//! ```text
//!   kong_plugin.rs, …     one file for each kind: its fields, and as attributes what may stand in them
//!   plugin_settings.rs    what KongPlugin and KongClusterPlugin have in common     secret_ref.rs   their Secrets
//!   control_plane.rs      what several kinds have below `spec`
//!   annotations.rs        keys of annotations and labels
//!   schema.rs, status.rs  what the API server would ask of each kind          crd.rs   their definitions
//! ```
//!
//! Comments on types and fields are what `kubectl explain` shows. The schemas take whatever Kong's own take, and a cluster
//! with Kong's definitions works as well as one with ours.

pub mod annotations;
mod control_plane;
pub mod crd;
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
pub mod schema;
mod secret_ref;
mod status;
mod tcp_ingress;
mod udp_ingress;

pub use control_plane::{ControlPlaneRef, KonnectNamespacedRef};
pub use ingress_class_parameters::{IngressClassParameters, IngressClassParametersSpec};
pub use kong_cluster_plugin::KongClusterPlugin;
pub use kong_consumer::{KongConsumer, KongConsumerSpec};
pub use kong_consumer_group::{KongConsumerGroup, KongConsumerGroupSpec};
pub use kong_custom_entity::{CustomEntityParent, KongCustomEntity, KongCustomEntitySpec};
pub use kong_ingress::{
    KongIngress, KongIngressActive, KongIngressHealthchecks, KongIngressHealthy, KongIngressPassive,
    KongIngressUnhealthy, KongIngressUpstream,
};
pub use kong_license::KongLicense;
pub use kong_plugin::KongPlugin;
pub use kong_service_facade::{KongServiceFacade, KongServiceFacadeSpec, ServiceFacadeBackend};
pub use kong_upstream_policy::{
    ActiveHealthcheck, Healthy, KongUpstreamPolicy, KongUpstreamPolicySpec, PassiveHealthcheck, StickySessions,
    Unhealthy, UpstreamHash, UpstreamHashFallback, UpstreamHealthchecks,
};
pub use kong_vault::{KongVault, KongVaultSpec};
pub use plugin_settings::{PluginOrdering, PluginSettings};
pub use secret_ref::{ConfigPatch, ConfigSource, PatchSource, SecretKeyRef};
pub use tcp_ingress::{StreamIngressBackend, TcpIngress, TcpIngressRule, TcpIngressSpec, TcpIngressTls};
pub use udp_ingress::{UdpIngress, UdpIngressRule, UdpIngressSpec};
