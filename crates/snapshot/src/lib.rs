//! The compiled configuration, which the compiler builds and requests read.

pub mod access_log_syntax;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod limits;
pub mod snapshot;

use portico_base::{address_ranges, bind_address, persistent_map, quantity, request_target, transport_protocol};
use portico_objects::schema;
use portico_plugin_api::plugin_api;
use portico_plugin_chain::plugin_chain;
use portico_upstream::upstream;
use portico_wire::{endpoint_tls, fast_cgi, unverified_certificates};
