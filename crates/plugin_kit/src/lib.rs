//! What several plugins share. No request without such a plugin runs it.

pub mod plugin_kit;

use portico_base::shared_limit;
use portico_objects::diagnostic;
use portico_plugin_api::plugin_api;
#[cfg(test)]
use portico_plugin_chain::plugin_chain;
use portico_plugin_formats::plugin_formats;
