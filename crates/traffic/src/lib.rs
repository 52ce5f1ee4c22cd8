//! The plugins that count, store or direct requests. Each is a module of [`plugins`].

pub mod plugins;

use portico_base::shared_limit;
use portico_objects::diagnostic;
use portico_plugin_api::plugin_api;
#[cfg(test)]
use portico_plugin_chain::plugin_chain;
use portico_plugin_formats::plugin_formats;
use portico_plugin_kit::plugin_kit;
#[cfg(test)]
use portico_wire::endpoint_tls;
