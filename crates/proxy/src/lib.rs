//! The proxy: listeners, connections, requests, and what is observed of them.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod proxy;

use portico_base::{
    begun_trace, bind_address, counted_address, duration_bounds, forwarding_fields, hex_digits, hop_count,
    request_target, rewound, shared_limit, turn_clock,
};
use portico_plugin_api::plugin_api;
use portico_plugin_chain::plugin_chain;
use portico_snapshot::{access_log_syntax, limits, snapshot};
use portico_upstream::upstream;
use portico_wire::{endpoint_tls, fast_cgi, http1, http2_frames, unverified_certificates};
