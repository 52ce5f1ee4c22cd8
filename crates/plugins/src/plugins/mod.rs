//! The list of plugins, each of which is a module of its own. Other modules find plugins by name in [`REGISTRY`]. The
//! exceptions are `prometheus`, whose metrics `app` exports, `file_log`, whose folder `app` sets, and `proxy_cache`,
//! whose limit `app` sets.

mod acl;
mod aggregate;
mod api_version;
mod aws_lambda;
mod azure_functions;
mod basic_auth;
mod bot_detection;
mod canary;
mod compression;
mod correlation_id;
mod cors;
mod datadog;
mod degraphql;
mod error_pages;
pub mod file_log;
mod forward_auth;
mod forward_proxy;
mod graphql_proxy_cache_advanced;
mod graphql_rate_limiting_advanced;
mod grpc_gateway;
mod grpc_web;
mod header_cert_auth;
mod hmac_auth;
mod http_log;
mod identity_keys;
mod injection_protection;
mod internal_identity;
mod ip_restriction;
mod jq;
mod json_threat_protection;
mod jwt;
mod jwt_signer;
mod kafka_log;
mod kafka_upstream;
mod key_auth;
mod ldap_auth;
mod ldap_auth_advanced;
mod loggly;
mod mask;
mod mocking;
mod mtls_auth;
mod oas_validation;
mod oauth2;
mod oauth2_introspection;
mod opa;
mod openid_connect;
mod opentelemetry;
mod post_function;
mod pre_function;
pub mod prometheus;
pub mod proxy_cache;
mod proxy_cache_advanced;
mod rate_limiting;
mod rate_limiting_advanced;
mod redirect;
mod request_size_limiting;
mod request_termination;
mod request_transformer;
mod request_transformer_advanced;
mod request_validator;
mod response_ratelimiting;
mod response_transformer;
mod response_transformer_advanced;
mod route_by_header;
mod session;
mod soap;
mod standard_webhooks;
mod statsd;
mod syslog;
mod tcp_log;
mod udp_log;
mod upstream_oauth;
mod upstream_timeout;
mod usage_plan;
mod websocket_size_limit;
mod xml_threat_protection;
mod zipkin;

#[cfg(any(test, fuzzing))]
pub(crate) use json_threat_protection::fuzzing::json_threats;
#[cfg(any(test, fuzzing))]
pub(crate) use jwt::fuzzing::token;
#[cfg(any(test, fuzzing))]
pub(crate) use oauth2::fuzzing::token_request;
#[cfg(any(test, fuzzing))]
pub(crate) use xml_threat_protection::fuzzing::xml_threats;

use crate::plugin_api::{AnyPluginKind, PluginRegistry, RegisteredKind};

/// In alphabetical order. A new plugin needs a `mod` line and an entry `&RegisteredKind::<module::Plugin>::NEW` here.
const KINDS: &[&dyn AnyPluginKind] = &[
    &RegisteredKind::<acl::Acl>::NEW,
    &RegisteredKind::<aggregate::Aggregate>::NEW,
    &RegisteredKind::<api_version::ApiVersion>::NEW,
    &RegisteredKind::<aws_lambda::AwsLambda>::NEW,
    &RegisteredKind::<azure_functions::AzureFunctions>::NEW,
    &RegisteredKind::<basic_auth::BasicAuth>::NEW,
    &RegisteredKind::<bot_detection::BotDetection>::NEW,
    &RegisteredKind::<canary::Canary>::NEW,
    &RegisteredKind::<compression::Compression>::NEW,
    &RegisteredKind::<correlation_id::CorrelationId>::NEW,
    &RegisteredKind::<cors::CorsPlugin>::NEW,
    &RegisteredKind::<datadog::Datadog>::NEW,
    &RegisteredKind::<degraphql::DeGraphql>::NEW,
    &RegisteredKind::<error_pages::ErrorPages>::NEW,
    &RegisteredKind::<file_log::FileLog>::NEW,
    &RegisteredKind::<forward_auth::ForwardAuth>::NEW,
    &RegisteredKind::<forward_proxy::ForwardProxy>::NEW,
    &RegisteredKind::<graphql_proxy_cache_advanced::GraphqlProxyCache>::NEW,
    &RegisteredKind::<graphql_rate_limiting_advanced::GraphqlRateLimiting>::NEW,
    &RegisteredKind::<grpc_gateway::GrpcGateway>::NEW,
    &RegisteredKind::<grpc_web::GrpcWeb>::NEW,
    &RegisteredKind::<header_cert_auth::HeaderCertAuth>::NEW,
    &RegisteredKind::<hmac_auth::HmacAuth>::NEW,
    &RegisteredKind::<http_log::HttpLog>::NEW,
    &RegisteredKind::<identity_keys::IdentityKeys>::NEW,
    &RegisteredKind::<injection_protection::InjectionProtection>::NEW,
    &RegisteredKind::<internal_identity::InternalIdentity>::NEW,
    &RegisteredKind::<ip_restriction::IpRestriction>::NEW,
    &RegisteredKind::<jq::Jq>::NEW,
    &RegisteredKind::<json_threat_protection::JsonThreatProtection>::NEW,
    &RegisteredKind::<jwt::Jwt>::NEW,
    &RegisteredKind::<jwt_signer::JwtSigner>::NEW,
    &RegisteredKind::<kafka_log::KafkaLog>::NEW,
    &RegisteredKind::<kafka_upstream::KafkaUpstream>::NEW,
    &RegisteredKind::<key_auth::KeyAuth>::NEW,
    &RegisteredKind::<ldap_auth::LdapAuth>::NEW,
    &RegisteredKind::<ldap_auth_advanced::LdapAuthAdvanced>::NEW,
    &RegisteredKind::<loggly::Loggly>::NEW,
    &RegisteredKind::<mask::Mask>::NEW,
    &RegisteredKind::<mocking::Mocking>::NEW,
    &RegisteredKind::<mtls_auth::MtlsAuth>::NEW,
    &RegisteredKind::<oas_validation::OasValidation>::NEW,
    &RegisteredKind::<oauth2::OAuth2>::NEW,
    &RegisteredKind::<oauth2_introspection::OAuth2Introspection>::NEW,
    &RegisteredKind::<opa::Opa>::NEW,
    &RegisteredKind::<openid_connect::OpenIdConnect>::NEW,
    &RegisteredKind::<opentelemetry::OpenTelemetry>::NEW,
    &RegisteredKind::<post_function::PostFunction>::NEW,
    &RegisteredKind::<pre_function::PreFunction>::NEW,
    &RegisteredKind::<prometheus::Prometheus>::NEW,
    &RegisteredKind::<proxy_cache::ProxyCache>::NEW,
    &RegisteredKind::<proxy_cache_advanced::ProxyCacheAdvanced>::NEW,
    &RegisteredKind::<rate_limiting::RateLimiting>::NEW,
    &RegisteredKind::<rate_limiting_advanced::RateLimitingAdvanced>::NEW,
    &RegisteredKind::<redirect::RedirectPlugin>::NEW,
    &RegisteredKind::<request_size_limiting::RequestSizeLimiting>::NEW,
    &RegisteredKind::<request_termination::RequestTermination>::NEW,
    &RegisteredKind::<request_transformer::RequestTransformer>::NEW,
    &RegisteredKind::<request_transformer_advanced::RequestTransformerAdvanced>::NEW,
    &RegisteredKind::<request_validator::RequestValidator>::NEW,
    &RegisteredKind::<response_ratelimiting::ResponseRatelimiting>::NEW,
    &RegisteredKind::<response_transformer::ResponseTransformer>::NEW,
    &RegisteredKind::<response_transformer_advanced::ResponseTransformerAdvanced>::NEW,
    &RegisteredKind::<route_by_header::RouteByHeader>::NEW,
    &RegisteredKind::<session::SessionPlugin>::NEW,
    &RegisteredKind::<soap::Soap>::NEW,
    &RegisteredKind::<standard_webhooks::StandardWebhooks>::NEW,
    &RegisteredKind::<statsd::Statsd>::NEW,
    &RegisteredKind::<syslog::Syslog>::NEW,
    &RegisteredKind::<tcp_log::TcpLog>::NEW,
    &RegisteredKind::<udp_log::UdpLog>::NEW,
    &RegisteredKind::<upstream_oauth::UpstreamOAuth>::NEW,
    &RegisteredKind::<upstream_timeout::UpstreamTimeout>::NEW,
    &RegisteredKind::<usage_plan::UsagePlan>::NEW,
    &RegisteredKind::<websocket_size_limit::WebsocketSizeLimit>::NEW,
    &RegisteredKind::<xml_threat_protection::XmlThreatProtection>::NEW,
    &RegisteredKind::<zipkin::Zipkin>::NEW,
];

/// The registry of all plugins.
pub const REGISTRY: PluginRegistry = PluginRegistry(KINDS);

#[cfg(test)]
mod combined_auth_tests;
#[cfg(test)]
mod subject_matrix;
