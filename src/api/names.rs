//! Names of ours that appear in other people's manifests, dashboards and scripts. They change only with a migration.

use super::kong::annotations::{INGRESS_CLASS, INGRESS_PREFIX, IS_DEFAULT_CLASS, KONG_PREFIX};

/// `spec.controllerName` of the GatewayClasses we serve.
pub const GATEWAY_CONTROLLER: &str = "portico.dev/gateway-controller";

/// `spec.controller` of the IngressClasses we serve.
pub const INGRESS_CONTROLLER: &str = "portico.dev/ingress-controller";

/// The class of Ingresses that is ours unless another is taken over.
pub const INGRESS_CLASS_NAME: &str = "portico";

/// `spec.controller` of Kong's IngressClasses, which we serve when one of them is taken over.
pub const KONG_INGRESS_CONTROLLER: &str = "ingress-controllers.konghq.com/kong";

/// Annotation on a Service, for use without a cluster: where its backends listen. An address or name list whose ports
/// are the Service's numeric target ports, or `host:port` for a Service of one port.
pub const ADDRESS_ANNOTATION: &str = "portico.dev/address";

/// Annotation on a Service: how requests are shared among its endpoints.
pub const BALANCE_ANNOTATION: &str = "portico.dev/balance";

/// Label that ties an EndpointSlice to its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Label that every Namespace carries, set by the API server and by us where there is none.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Labels on what is made for a Gateway: its name and its class, shortened if they are longer than a value may be.
pub const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
pub const GATEWAY_CLASS_LABEL: &str = "gateway.networking.k8s.io/gateway-class-name";

/// Annotation on what is made for a Gateway: the controller in whose name, so that two of them do not clear away each
/// other's.
pub const CONTROLLER_ANNOTATION: &str = "portico.dev/gateway-controller";

/// Label on whatever we make, with [`MANAGED_BY`] as its value.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Who we are, in labels and as the owner of fields.
pub const MANAGED_BY: &str = "portico";

/// Prefixes of the annotations that we read; all others are dropped when an object arrives.
pub const ANNOTATION_PREFIXES: &[&str] =
    &["portico.dev/", KONG_PREFIX, INGRESS_PREFIX, INGRESS_CLASS, IS_DEFAULT_CLASS];
