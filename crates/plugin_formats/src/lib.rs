//! Formats and languages that plugins read, within limits of size, depth and steps.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod plugin_formats;

use portico_objects::diagnostic;
use portico_plugin_api::plugin_api;
