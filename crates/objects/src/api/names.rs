//! Names in manifests, dashboards and scripts of users: controllers, classes, labels and annotations. A change of a
//! name that starts with `portico` requires a migration.

use super::kong::annotations::{ANNOTATION_PREFIX, INGRESS_CLASS, INGRESS_PREFIX, IS_DEFAULT_CLASS};

/// `spec.controllerName` of the served GatewayClasses.
pub const GATEWAY_CONTROLLER: &str = "portico.dev/gateway-controller";

/// `spec.controller` of the served IngressClasses.
pub const INGRESS_CONTROLLER: &str = "portico.dev/ingress-controller";

/// The default class of Ingresses, and the class of Portico's own manifests.
pub const INGRESS_CLASS_NAME: &str = "portico";

/// Annotation on a Service with the addresses of its endpoints, for manifests outside of a cluster: a list of IP
/// addresses and DNS names. Their port is the numeric target port of each Service port. If the Service has only one
/// port, an entry may also be `host:port`.
pub const ADDRESS_ANNOTATION: &str = "portico.dev/address";

/// Annotation on a Service with its load balancing algorithm.
pub const BALANCE_ANNOTATION: &str = "portico.dev/balance";

/// Annotation on a Service with the weights of its endpoints: `192.0.2.1:80=10,one.example:80=20`. Others have 1.
pub const ENDPOINT_WEIGHTS_ANNOTATION: &str = "portico.dev/endpoint-weights";

/// Annotation on a Service with the version of the PROXY protocol for the connections of TCPRoutes and TLSRoutes: `v1`
/// or `v2`.
pub const PROXY_PROTOCOL_ANNOTATION: &str = "portico.dev/proxy-protocol";

/// Annotation on an IngressClass with the dialect of its Ingresses, `kong` or `kubernetes`.
pub const DIALECT_ANNOTATION: &str = "portico.dev/dialect";

/// Annotation on an Ingress, Service or KongServiceFacade with a list of its annotations of other controllers that
/// restrict requests there, and without which Portico may serve them.
pub const IGNORE_GUARDS_ANNOTATION: &str = "portico.dev/ignore-foreign-guards";

/// Annotation on an Ingress whose path `/` is no condition, with the value `"true"`. The order of routes depends on the
/// number of their conditions, so a route without a path is not the same as one with the path `/`.
pub const ANY_PATH_ANNOTATION: &str = "portico.dev/any-path";

/// Annotation on an Ingress whose routes have no service, with the value `"true"`, whichever Service its paths name:
/// requests to which no plugin responds get 503.
pub const NO_SERVICE_ANNOTATION: &str = "portico.dev/no-service";

/// Annotation on an Ingress or a Service with the name of the route or the service in logs, metrics and traces. An
/// empty name stands for no service. In a cluster, it would let users give their routes the names of others.
pub const ENTITY_NAME_ANNOTATION: &str = "portico.dev/entity-name";

/// Annotation on a KongConsumer or on the Secret of a credential with its id for backends and logs. In a cluster, it
/// would let users give their consumers the ids of others.
pub const ENTITY_ID_ANNOTATION: &str = "portico.dev/entity-id";

/// Prefix of Portico's own annotations.
pub const PORTICO_PREFIX: &str = "portico.dev/";

/// Label with the name of an EndpointSlice's Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Label with the program that writes an EndpointSlice, and the value of Kubernetes' own controller.
pub const SLICE_MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
pub const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Annotation on a Service whose EndpointSlices get hints for zones from Kubernetes: `Auto` or `Disabled`.
pub const TOPOLOGY_MODE_ANNOTATION: &str = "service.kubernetes.io/topology-mode";

/// The older name of [`TOPOLOGY_MODE_ANNOTATION`], which precedes it.
pub const TOPOLOGY_HINTS_ANNOTATION: &str = "service.kubernetes.io/topology-aware-hints";

/// Label of every Namespace, set by the API server, or by Portico for namespaces from files.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Labels on objects created for a Gateway: its name and its class, truncated to the maximum length of a label value.
pub const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
pub const GATEWAY_CLASS_LABEL: &str = "gateway.networking.k8s.io/gateway-class-name";

/// Annotation on objects created for a Gateway: the name of the controller, so that two controllers do not delete each
/// other's objects.
pub const CONTROLLER_ANNOTATION: &str = "portico.dev/gateway-controller";

/// The name of the Service of an XBackend that selects Pods. Nothing can rely on it, since a uid cannot be chosen.
pub fn x_backend_service_name(uid: &str) -> String {
    format!("xbackend-{uid}")
}

/// Label on every object that Portico creates, with the value [`MANAGED_BY`].
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Value of [`MANAGED_BY_LABEL`], and Portico's field manager in server-side apply.
pub const MANAGED_BY: &str = "portico";

/// Prefixes of the annotations that Portico reads. All others are dropped, except those of other controllers about
/// which Portico warns: see [`super::foreign_annotations`].
pub(crate) const ANNOTATION_PREFIXES: &[&str] = &[
    PORTICO_PREFIX,
    ANNOTATION_PREFIX,
    INGRESS_PREFIX,
    INGRESS_CLASS,
    IS_DEFAULT_CLASS,
    TOPOLOGY_MODE_ANNOTATION,
    TOPOLOGY_HINTS_ANNOTATION,
];
