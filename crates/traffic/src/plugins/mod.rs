//! The plugins that count, store or direct requests.

mod canary;
mod forward_proxy;
mod graphql_proxy_cache_advanced;
mod graphql_rate_limiting_advanced;
pub mod proxy_cache;
mod proxy_cache_advanced;
mod rate_limiting;
mod rate_limiting_advanced;
mod response_ratelimiting;
mod route_by_header;
mod upstream_timeout;
mod usage_plan;

use crate::plugin_api::{PluginKinds, RegisteredKind};

/// In alphabetical order. A new plugin needs a `mod` line and an entry `&RegisteredKind::<module::Plugin>::NEW` here.
pub static KINDS: PluginKinds = &[
    &RegisteredKind::<canary::Canary>::NEW,
    &RegisteredKind::<forward_proxy::ForwardProxy>::NEW,
    &RegisteredKind::<graphql_proxy_cache_advanced::GraphqlProxyCache>::NEW,
    &RegisteredKind::<graphql_rate_limiting_advanced::GraphqlRateLimiting>::NEW,
    &RegisteredKind::<proxy_cache::ProxyCache>::NEW,
    &RegisteredKind::<proxy_cache_advanced::ProxyCacheAdvanced>::NEW,
    &RegisteredKind::<rate_limiting::RateLimiting>::NEW,
    &RegisteredKind::<rate_limiting_advanced::RateLimitingAdvanced>::NEW,
    &RegisteredKind::<response_ratelimiting::ResponseRatelimiting>::NEW,
    &RegisteredKind::<route_by_header::RouteByHeader>::NEW,
    &RegisteredKind::<upstream_timeout::UpstreamTimeout>::NEW,
    &RegisteredKind::<usage_plan::UsagePlan>::NEW,
];
