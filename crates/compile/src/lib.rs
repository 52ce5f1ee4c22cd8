//! From objects to a snapshot and verdicts.

pub mod compile;

use portico_base::{address_ranges, bind_address, certified_key, cookie_prefix, request_target, transport_protocol};
use portico_objects::{api, diagnostic, schema};
use portico_plugin_api::plugin_api;
use portico_plugin_chain::plugin_chain;
use portico_snapshot::{access_log_syntax, snapshot};
use portico_store::{store, verdict};
use portico_upstream::upstream;
use portico_wire::{endpoint_tls, ssrf_guard};
