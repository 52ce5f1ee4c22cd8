//! The chains of plugins that run for the requests of a rule, and requests for the tests of plugins.

pub mod plugin_chain;

use portico_base::{hop_count, shared_limit};
use portico_objects::diagnostic;
use portico_plugin_api::plugin_api;
