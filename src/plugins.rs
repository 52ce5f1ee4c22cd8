//! All plugins, each of which is a module of one of the crates named here. Other modules find plugins by name in
//! [`REGISTRY`]. The exceptions are `prometheus`, whose metrics `app` exports, `file_log`, whose folder `app` sets, and
//! `proxy_cache`, whose limit `app` sets.

pub use portico_logs::plugins::{file_log, prometheus};
pub use portico_traffic::plugins::proxy_cache;

use crate::plugin_api::PluginRegistry;

/// The registry of all plugins.
pub const REGISTRY: PluginRegistry = PluginRegistry {
    kinds: &[
        &portico_bodies::plugins::KINDS,
        &portico_guards::plugins::KINDS,
        &portico_logins::plugins::KINDS,
        &portico_logs::plugins::KINDS,
        &portico_traffic::plugins::KINDS,
    ],
    internal: &[&portico_locations::location_guards::KINDS],
};
