//! What users read about objects: status and events in the cluster, reports on a terminal, and `portico verify`.

pub mod report;
pub mod status;
pub mod verify;

use portico_base::{bind_address, request_target};
use portico_objects::{api, diagnostic};
use portico_sources::{k8s, manifests};
use portico_store::verdict;
use portico_wire::unverified_certificates;
