//! The contract between the proxy, which runs plugins, and the plugins.

pub mod plugin_api;

use portico_base::{begun_trace, hex_digits, hop_count, md5, persistent_map, request_target, shared_limit, turn_clock};
use portico_objects::diagnostic;
use portico_wire::{endpoint_tls, ssrf_guard};
