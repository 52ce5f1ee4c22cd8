//! Where objects come from: the API server, manifests, and configurations of Kong.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod k8s;
pub mod kong_config;
pub mod manifests;

use portico_base::transport_protocol;
use portico_objects::{api, diagnostic, schema};
use portico_store::store;
