//! Portico: Kubernetes ingress controller, Gateway API implementation and API gateway in one binary.
//!
//! This package is the program and the wiring of its parts. The parts are the crates in `crates`, whose modules have
//! their names here, too: `portico::proxy` is `portico_proxy::proxy`. ARCHITECTURE.md describes the data flow and where
//! to start reading.

pub mod app;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod plugins;

pub use portico_args::args;
pub use portico_base::{
    begun_trace, bind_address, certified_key, cookie_prefix, duration_bounds, hop_count, md5, quantity, request_target,
    rewound, shared_limit, transport_protocol, turn_clock,
};
pub use portico_compile::compile;
pub use portico_logins::{sealed_cookie, stored_sessions};
pub use portico_logs::{log_delivery, otlp_delivery, tracer};
pub use portico_objects::{api, diagnostic, schema};
pub use portico_ops::{admin, drain, echo, http_server, metrics, process_log, ready, slo, version};
pub use portico_plugin_api::plugin_api;
pub use portico_plugin_chain::plugin_chain;
pub use portico_plugin_formats::plugin_formats;
pub use portico_plugin_kit::plugin_kit;
pub use portico_proxy::proxy;
pub use portico_reports::{report, status, verify};
pub use portico_services::{cluster_keys, metrics_export, otlp_servers, plugin_services, vaults};
pub use portico_snapshot::{access_log_syntax, limits, snapshot};
pub use portico_sources::{k8s, kong_config, manifests};
pub use portico_store::{store, verdict};
pub use portico_upstream::upstream;
pub use portico_wire::{endpoint_tls, http1, ssrf_guard};
