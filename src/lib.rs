//! Portico: Kubernetes ingress controller, Gateway API implementation and API gateway in one binary.
//!
//! This package is the program and the wiring of its parts. The parts are the crates in `crates`, whose modules have
//! their names here, too: `portico::proxy` is `portico_proxy::proxy`. ARCHITECTURE.md describes the data flow and where
//! to start reading.

pub mod admin;
pub mod app;
pub mod args;
pub mod drain;
pub mod echo;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod http_server;
pub mod metrics;
pub mod process_log;
pub mod ready;
pub mod slo;
pub mod version;

pub use portico_base::{
    begun_trace, bind_address, certified_key, cookie_prefix, hop_count, quantity, request_target, rewound,
    shared_limit, transport_protocol, turn_clock,
};
pub use portico_compile::compile;
pub use portico_objects::{api, diagnostic, schema};
pub use portico_plugin_api::plugin_api;
pub use portico_plugin_chain::plugin_chain;
pub use portico_plugin_formats::plugin_formats;
pub use portico_plugin_kit::plugin_kit;
pub use portico_plugins::plugins;
pub use portico_proxy::proxy;
pub use portico_reports::{report, status, verify};
pub use portico_snapshot::{access_log_syntax, snapshot};
pub use portico_sources::{k8s, kong_config, manifests};
pub use portico_store::{store, verdict};
pub use portico_upstream::upstream;
pub use portico_wire::{endpoint_tls, http1, ssrf_guard};
