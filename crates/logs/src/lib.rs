//! The plugins that log, trace and count requests, and that write them to Kafka. Each plugin is a module of
//! [`plugins`]; the other modules are what several of them share.

mod kafka;
pub mod log_delivery;
pub mod otlp_delivery;
pub mod plugins;
mod statsd;
pub mod tracer;

use portico_objects::diagnostic;
use portico_plugin_api::plugin_api;
#[cfg(test)]
use portico_plugin_chain::plugin_chain;
use portico_plugin_formats::plugin_formats;
use portico_plugin_kit::plugin_kit;
