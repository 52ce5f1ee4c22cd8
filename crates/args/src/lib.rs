//! The command line: flags, variables of the environment, defaults, and the options that they become.

pub mod args;

use portico_base::quantity;
use portico_objects::{api, schema};
use portico_ops::{process_log, slo, version};
use portico_plugin_api::plugin_api;
use portico_plugin_kit::plugin_kit;
use portico_snapshot::{access_log_syntax, limits};
use portico_store::store;
use portico_upstream::upstream;
