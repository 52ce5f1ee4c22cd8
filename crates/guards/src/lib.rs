//! The plugins that admit requests, refuse them or respond to them: credentials, authorization, validation, limits of
//! size, CORS, redirects. Each is a module of [`plugins`].

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod plugins;
pub mod violations;

use portico_base::address_ranges;
#[cfg(test)]
use portico_logins::client_certificate;
use portico_objects::diagnostic;
use portico_plugin_api::plugin_api;
#[cfg(test)]
use portico_plugin_chain::plugin_chain;
use portico_plugin_formats::plugin_formats;
use portico_plugin_kit::plugin_kit;
