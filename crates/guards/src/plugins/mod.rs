//! The plugins that admit requests, refuse them or respond to them.

mod acl;
mod api_version;
mod basic_auth;
mod bot_detection;
mod cors;
mod error_pages;
mod forward_auth;
mod hmac_auth;
mod injection_protection;
mod ip_restriction;
mod json_threat_protection;
mod key_auth;
mod ldap_auth;
mod ldap_auth_advanced;
mod mocking;
mod oas_validation;
mod opa;
mod redirect;
mod request_size_limiting;
mod request_termination;
mod request_validator;
mod standard_webhooks;
mod websocket_size_limit;
mod xml_threat_protection;

#[cfg(any(test, fuzzing))]
pub(crate) use json_threat_protection::fuzzing::json_threats;
#[cfg(any(test, fuzzing))]
pub(crate) use xml_threat_protection::fuzzing::xml_threats;

#[cfg(test)]
use crate::plugin_api::PluginRegistry;
use crate::plugin_api::{PluginKinds, RegisteredKind};

/// In alphabetical order. A new plugin needs a `mod` line and an entry `&RegisteredKind::<module::Plugin>::NEW` here.
pub static KINDS: PluginKinds = &[
    &RegisteredKind::<acl::Acl>::NEW,
    &RegisteredKind::<api_version::ApiVersion>::NEW,
    &RegisteredKind::<basic_auth::BasicAuth>::NEW,
    &RegisteredKind::<bot_detection::BotDetection>::NEW,
    &RegisteredKind::<cors::CorsPlugin>::NEW,
    &RegisteredKind::<error_pages::ErrorPages>::NEW,
    &RegisteredKind::<forward_auth::ForwardAuth>::NEW,
    &RegisteredKind::<hmac_auth::HmacAuth>::NEW,
    &RegisteredKind::<injection_protection::InjectionProtection>::NEW,
    &RegisteredKind::<ip_restriction::IpRestriction>::NEW,
    &RegisteredKind::<json_threat_protection::JsonThreatProtection>::NEW,
    &RegisteredKind::<key_auth::KeyAuth>::NEW,
    &RegisteredKind::<ldap_auth::LdapAuth>::NEW,
    &RegisteredKind::<ldap_auth_advanced::LdapAuthAdvanced>::NEW,
    &RegisteredKind::<mocking::Mocking>::NEW,
    &RegisteredKind::<oas_validation::OasValidation>::NEW,
    &RegisteredKind::<opa::Opa>::NEW,
    &RegisteredKind::<redirect::RedirectPlugin>::NEW,
    &RegisteredKind::<request_size_limiting::RequestSizeLimiting>::NEW,
    &RegisteredKind::<request_termination::RequestTermination>::NEW,
    &RegisteredKind::<request_validator::RequestValidator>::NEW,
    &RegisteredKind::<standard_webhooks::StandardWebhooks>::NEW,
    &RegisteredKind::<websocket_size_limit::WebsocketSizeLimit>::NEW,
    &RegisteredKind::<xml_threat_protection::XmlThreatProtection>::NEW,
];

/// These plugins and those that are tested together with them.
#[cfg(test)]
const REGISTRY: PluginRegistry = PluginRegistry {
    kinds: &[
        &KINDS,
        &portico_bodies::plugins::KINDS,
        &portico_logins::plugins::KINDS,
        &portico_logs::plugins::KINDS,
        &portico_traffic::plugins::KINDS,
    ],
    internal: &[],
};

#[cfg(test)]
mod combined_auth_tests;
#[cfg(test)]
mod subject_matrix;
