//! What plugins and exporters get from outside the process: connections to servers, vaults, files with certificates,
//! keys of all replicas, and servers of OTLP.

pub mod cluster_keys;
pub mod metrics_export;
pub mod otlp_servers;
pub mod plugin_services;
pub mod tls_files;
pub mod vaults;

use portico_args::args;
use portico_base::{certified_key, counted_address, shared_limit};
use portico_logs::{log_delivery, otlp_delivery, tracer};
use portico_objects::{api, diagnostic};
use portico_ops::{ready, version};
use portico_plugin_api::plugin_api;
#[cfg(test)]
use portico_plugin_chain::plugin_chain;
use portico_plugin_kit::plugin_kit;
use portico_sources::k8s;
use portico_upstream::upstream;
use portico_wire::{endpoint_tls, ssrf_guard, unverified_certificates};
