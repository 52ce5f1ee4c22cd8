//! The list of plugins, each of which is a module of its own. Other modules find plugins by name in [`REGISTRY`]. The
//! exceptions are `prometheus`, whose metrics `app` exports, and `rate_limiting`, whose limit of entries `app` sets.

mod acl;
mod api_version;
mod basic_auth;
mod bot_detection;
mod correlation_id;
mod cors;
mod forward_auth;
mod header_cert_auth;
mod hmac_auth;
mod http_log;
mod identity_keys;
mod internal_identity;
mod ip_restriction;
mod jwt;
mod jwt_signer;
mod key_auth;
mod ldap_auth;
mod mtls_auth;
mod oauth2_introspection;
mod opa;
mod openid_connect;
pub mod prometheus;
pub mod rate_limiting;
mod redirect;
mod request_size_limiting;
mod request_termination;
mod request_transformer;
mod response_transformer;
mod session;
mod standard_webhooks;
mod upstream_oauth;
mod upstream_timeout;

#[cfg(any(test, fuzzing))]
pub(crate) use jwt::fuzzing::token;
#[cfg(any(test, fuzzing))]
pub(crate) use request_transformer::fuzzing::body;

use crate::plugin_api::{AnyPluginKind, PluginRegistry, RegisteredKind};

/// In alphabetical order. A new plugin needs a `mod` line and an entry `&RegisteredKind::<module::Plugin>::NEW` here.
const KINDS: &[&dyn AnyPluginKind] = &[
    &RegisteredKind::<acl::Acl>::NEW,
    &RegisteredKind::<api_version::ApiVersion>::NEW,
    &RegisteredKind::<basic_auth::BasicAuth>::NEW,
    &RegisteredKind::<bot_detection::BotDetection>::NEW,
    &RegisteredKind::<correlation_id::CorrelationId>::NEW,
    &RegisteredKind::<cors::CorsPlugin>::NEW,
    &RegisteredKind::<forward_auth::ForwardAuth>::NEW,
    &RegisteredKind::<header_cert_auth::HeaderCertAuth>::NEW,
    &RegisteredKind::<hmac_auth::HmacAuth>::NEW,
    &RegisteredKind::<http_log::HttpLog>::NEW,
    &RegisteredKind::<identity_keys::IdentityKeys>::NEW,
    &RegisteredKind::<internal_identity::InternalIdentity>::NEW,
    &RegisteredKind::<ip_restriction::IpRestriction>::NEW,
    &RegisteredKind::<jwt::Jwt>::NEW,
    &RegisteredKind::<jwt_signer::JwtSigner>::NEW,
    &RegisteredKind::<key_auth::KeyAuth>::NEW,
    &RegisteredKind::<ldap_auth::LdapAuth>::NEW,
    &RegisteredKind::<mtls_auth::MtlsAuth>::NEW,
    &RegisteredKind::<oauth2_introspection::OAuth2Introspection>::NEW,
    &RegisteredKind::<opa::Opa>::NEW,
    &RegisteredKind::<openid_connect::OpenIdConnect>::NEW,
    &RegisteredKind::<prometheus::Prometheus>::NEW,
    &RegisteredKind::<rate_limiting::RateLimiting>::NEW,
    &RegisteredKind::<redirect::RedirectPlugin>::NEW,
    &RegisteredKind::<request_size_limiting::RequestSizeLimiting>::NEW,
    &RegisteredKind::<request_termination::RequestTermination>::NEW,
    &RegisteredKind::<request_transformer::RequestTransformer>::NEW,
    &RegisteredKind::<response_transformer::ResponseTransformer>::NEW,
    &RegisteredKind::<session::SessionPlugin>::NEW,
    &RegisteredKind::<standard_webhooks::StandardWebhooks>::NEW,
    &RegisteredKind::<upstream_oauth::UpstreamOAuth>::NEW,
    &RegisteredKind::<upstream_timeout::UpstreamTimeout>::NEW,
];

/// The registry of all plugins.
pub const REGISTRY: PluginRegistry = PluginRegistry(KINDS);

#[cfg(test)]
mod combined_auth_tests;
