//! Kinds of Kubernetes itself, reduced to the fields that Portico reads.

mod cluster_trust_bundle;
mod config_map;
mod endpoint_slice;
mod namespace;
mod secret;
mod service;

pub use cluster_trust_bundle::{ClusterTrustBundle, ClusterTrustBundleSpec};
pub use config_map::ConfigMap;
pub use endpoint_slice::{Endpoint, EndpointConditions, EndpointPlace, EndpointPort, EndpointSlice, EndpointTarget};
pub use namespace::Namespace;
pub use secret::{Secret, SecretBytes, SecretText};
pub use service::{
    IntOrString, LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec, ServiceStatus, ServiceType,
};
