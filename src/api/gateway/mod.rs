//! Gateway API v1.7.0, both channels, as types of our own.
//!
//! Strings that the API closes by an enum stay open here, so that an object of a newer release is read rather than
//! lost; `compile` closes them with a verdict that names the value. References, backends and filters are one type each,
//! shared by all kinds of route.

mod backend;
mod filter;
#[expect(clippy::module_inception, reason = "the kind Gateway of the group gateway: each kind has a file of its name")]
mod gateway;
mod gateway_class;
mod http_route;
mod reference;
mod reference_grant;

pub use backend::{BackendObjectReference, BackendRef};
pub use filter::{Filter, Fraction, Header, HeaderModifier, PathModifier, RequestMirror, RequestRedirect, UrlRewrite};
pub use gateway::{
    AllowedListeners, AllowedNamespaces, AllowedRoutes, FrontendTlsConfig, FrontendTlsPort, FrontendValidation,
    Gateway, GatewayAddress, GatewayBackendTls, GatewayFrontendTls, GatewayInfrastructure, GatewaySpec, GatewayTls,
    LabelSelector, LabelSelectorRequirement, Listener, ListenerTls, RouteGroupKind,
};
pub use gateway_class::{GatewayClass, GatewayClassSpec};
pub use http_route::{
    HttpPathMatch, HttpRoute, HttpRouteMatch, HttpRouteRetry, HttpRouteRule, HttpRouteSpec, HttpRouteTimeouts,
    HttpValueMatch,
};
pub use reference::{LocalObjectReference, ObjectReference, ParentReference, SecretObjectReference};
pub use reference_grant::{ReferenceGrant, ReferenceGrantFrom, ReferenceGrantSpec, ReferenceGrantTo};
