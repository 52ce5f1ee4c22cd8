//! The objects that a process knows, with what changed of them, and the verdicts on them.

pub mod store;
pub mod verdict;

use portico_base::bind_address;
use portico_objects::{api, diagnostic};
