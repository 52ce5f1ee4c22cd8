//! What locations of ingress-nginx do with requests that needs counters, passwords or servers. It runs in the chains of
//! rules, as plugins do, and no object configures it but the annotations of an Ingress.

pub mod location_guards;

use portico_base::address_ranges;
use portico_objects::diagnostic;
use portico_plugin_api::plugin_api;
#[cfg(test)]
use portico_plugin_chain::plugin_chain;
use portico_plugin_kit::plugin_kit;
use portico_snapshot::snapshot;
