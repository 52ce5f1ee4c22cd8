//! The plugins that change, convert or make requests and responses. Each plugin is a module of [`plugins`]; the other
//! modules are what several of them share, and the language of `jq`.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod jq_language;
mod json_fields;
mod lua_functions;
pub mod plugins;
pub mod request_edits;
mod request_variables;
mod response_edits;

use portico_objects::diagnostic;
use portico_plugin_api::plugin_api;
#[cfg(test)]
use portico_plugin_chain::plugin_chain;
use portico_plugin_formats::plugin_formats;
use portico_plugin_kit::plugin_kit;
