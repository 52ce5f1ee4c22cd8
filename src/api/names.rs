//! Names of ours that appear in other people's manifests, dashboards and scripts. They change only with a migration.

/// `spec.controllerName` of the GatewayClasses we serve.
pub const GATEWAY_CONTROLLER: &str = "portico.dev/gateway-controller";

/// Annotation on a Service, for use without a cluster: where its backends listen. An address or name list whose ports
/// are the Service's numeric target ports, or `host:port` for a Service of one port.
pub const ADDRESS_ANNOTATION: &str = "portico.dev/address";

/// Annotation on a Service: how requests are shared among its endpoints.
pub const BALANCE_ANNOTATION: &str = "portico.dev/balance";

/// Label that ties an EndpointSlice to its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Label that every Namespace carries, set by the API server and by us where there is none.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Prefixes of the annotations that we read; all others are dropped when an object arrives.
pub const ANNOTATION_PREFIXES: &[&str] = &["portico.dev/"];
