//! Types for Gateway API v1.7.0, both channels.
//!
//! Enums of the API are strings here, so that objects of newer releases can be parsed. The generated schemas restrict
//! the values in manifests, and `crate::compile` reports unknown values in a verdict.
//!
//! The schemas are generated from the types and their `schemars` attributes, which contain the constraints of the API.
//! All kinds of route share the types of references, backends and filters; attributes on a field of a shared type
//! remove what the kind of route lacks.

mod backend;
mod backend_tls_policy;
mod channel;
mod cors;
mod external_auth;
mod filter;
#[expect(clippy::module_inception, reason = "the kind Gateway has the same name as its group")]
mod gateway;
mod gateway_class;
mod gateway_tls;
mod grpc_route;
mod http_route;
mod label_selector;
mod listener;
mod listener_set;
mod reference;
mod reference_grant;
mod route_spec;
pub mod schema;
mod session_persistence;
mod stream_route;
mod tcp_route;
mod tls_route;
mod udp_route;
mod x_backend;
mod x_backend_traffic_policy;
mod x_mesh;
mod x_telemetry_policy;

pub use backend::{BackendObjectReference, BackendRef};
pub use backend_tls_policy::{BackendTlsPolicy, BackendTlsPolicySpec, BackendTlsValidation, SubjectAltName};
pub use channel::Channel;
pub use cors::Cors;
pub use external_auth::{ExternalAuth, ForwardBody, GrpcAuth, HttpAuth};
pub use filter::{Filter, Fraction, Header, HeaderModifier, PathModifier, RequestMirror, RequestRedirect, UrlRewrite};
pub use gateway::{AllowedListeners, Gateway, GatewayAddress, GatewayInfrastructure, GatewaySpec};
pub use gateway_class::{GatewayClass, GatewayClassSpec};
pub use gateway_tls::{
    FrontendTlsConfig, FrontendTlsPort, FrontendValidation, GatewayBackendTls, GatewayFrontendTls, GatewayTls,
};
pub use grpc_route::{GrpcMethodMatch, GrpcRoute, GrpcRouteMatch, GrpcRouteRule, GrpcRouteSpec};
pub use http_route::{
    HttpPathMatch, HttpRoute, HttpRouteMatch, HttpRouteRetry, HttpRouteRule, HttpRouteSpec, HttpRouteTimeouts,
    HttpValueMatch,
};
pub use label_selector::{LabelSelector, LabelSelectorRequirement};
pub use listener::{
    AllowedNamespaces, AllowedRoutes, Listener, ListenerFilter, ListenerFilters, ListenerTls, RouteGroupKind,
};
pub use listener_set::{ListenerSet, ListenerSetSpec};
pub(in crate::api) use reference::targets_differ;
pub use reference::{
    ALL_DEFAULT_GATEWAYS, LocalObjectReference, ObjectReference, ParentReference, PolicyTargetReference,
    SecretObjectReference,
};
pub use reference_grant::{ReferenceGrant, ReferenceGrantFrom, ReferenceGrantSpec, ReferenceGrantTo};
pub use session_persistence::{SessionCookie, SessionHeader, SessionPersistence};
pub use stream_route::{StreamRouteRule, StreamRouteSpec};
pub use tcp_route::TcpRoute;
pub use tls_route::{TlsRoute, TlsRouteSpec};
pub use udp_route::UdpRoute;
pub use x_backend::{EndpointSelector, ExternalHostname, XBackend, XBackendPort, XBackendSpec, XBackendTls};
pub use x_backend_traffic_policy::{
    RetryBudget, RetryConstraint, RetryRate, XBackendTrafficPolicy, XBackendTrafficPolicySpec,
};
pub use x_mesh::{XMesh, XMeshSpec};
pub use x_telemetry_policy::{
    ParentBasedSampling, Tracing, TracingAttribute, TracingProvider, XTelemetryPolicy, XTelemetryPolicySpec,
};
