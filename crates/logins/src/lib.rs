//! The plugins that log clients in, and those that make or check tokens. Each plugin is a module of [`plugins`]; the
//! other modules are what several of them share.

pub mod client_certificate;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod introspection;
mod logged_out_sessions;
pub mod plugins;
mod rejection_log;
pub mod sealed_cookie;
mod session_lock;
pub mod stored_sessions;
mod token_binding;
mod token_purpose;

use portico_base::cookie_prefix;
use portico_objects::diagnostic;
use portico_plugin_api::plugin_api;
#[cfg(test)]
use portico_plugin_chain::plugin_chain;
use portico_plugin_kit::plugin_kit;
