//! The plugins that log clients in, and those that make or check tokens.

mod header_cert_auth;
mod identity_keys;
mod internal_identity;
mod jwt;
mod jwt_signer;
mod mtls_auth;
mod oauth2;
mod oauth2_introspection;
mod openid_connect;
mod session;
mod upstream_oauth;

#[cfg(any(test, fuzzing))]
pub(crate) use jwt::fuzzing::token;
#[cfg(any(test, fuzzing))]
pub(crate) use oauth2::fuzzing::token_request;

#[cfg(test)]
use crate::plugin_api::PluginRegistry;
use crate::plugin_api::{PluginKinds, RegisteredKind};

/// In alphabetical order. A new plugin needs a `mod` line and an entry `&RegisteredKind::<module::Plugin>::NEW` here.
pub static KINDS: PluginKinds = &[
    &RegisteredKind::<header_cert_auth::HeaderCertAuth>::NEW,
    &RegisteredKind::<identity_keys::IdentityKeys>::NEW,
    &RegisteredKind::<internal_identity::InternalIdentity>::NEW,
    &RegisteredKind::<jwt::Jwt>::NEW,
    &RegisteredKind::<jwt_signer::JwtSigner>::NEW,
    &RegisteredKind::<mtls_auth::MtlsAuth>::NEW,
    &RegisteredKind::<oauth2::OAuth2>::NEW,
    &RegisteredKind::<oauth2_introspection::OAuth2Introspection>::NEW,
    &RegisteredKind::<openid_connect::OpenIdConnect>::NEW,
    &RegisteredKind::<session::SessionPlugin>::NEW,
    &RegisteredKind::<upstream_oauth::UpstreamOAuth>::NEW,
];

/// These plugins and those that are tested together with them.
#[cfg(test)]
const REGISTRY: PluginRegistry = PluginRegistry {
    kinds: &[&KINDS, &portico_guards::plugins::KINDS, &portico_traffic::plugins::KINDS],
    internal: &[],
};
