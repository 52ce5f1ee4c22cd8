//! Portico: Kubernetes ingress controller, Gateway API implementation and API gateway in one binary.
//!
//! ARCHITECTURE.md describes the data flow and where to start reading. `tests/tidy.rs` holds the table of allowed
//! imports between modules.

pub mod access_log_syntax;
pub mod admin;
pub mod app;
pub mod args;
pub mod begun_trace;
pub mod bind_address;
mod certified_key;
pub mod compile;
pub mod cookie_prefix;
pub mod drain;
pub mod echo;
pub mod endpoint_tls;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hex_digits;
pub mod hop_count;
pub mod http1;
mod http2_frames;
mod http_server;
pub mod k8s;
pub mod kong_config;
pub mod manifests;
pub mod metrics;
mod persistent_map;
pub mod plugin_api;
pub mod plugin_chain;
pub mod plugin_formats;
pub mod plugin_kit;
pub mod plugins;
pub mod process_log;
pub mod proxy;
mod quantity;
pub mod ready;
pub mod report;
pub mod request_target;
pub mod rewound;
mod shared_limit;
pub mod slo;
pub mod snapshot;
pub mod ssrf_guard;
pub mod status;
pub mod store;
pub mod transport_protocol;
mod turn_clock;
pub mod upstream;
pub mod verdict;
pub mod verify;
pub mod version;

pub use portico_objects::{api, diagnostic, schema};
