//! Load balancing: which endpoint of an upstream gets the next request or connection.
//!
//! ```text
//!   configuration, DNS ─▶ EndpointSet: endpoints, weights, hash table     computed per change, shared by all workers
//!                            │
//!   EndpointChoice ──────────┼─▶ choose() ─▶ rotation, draw, comparison of loads, or hash table
//!   (hash, tried endpoints)  │       │ skips endpoints that are ejected, were tried, or have enough requests
//!                            │       ▼
//!   Rotation of one worker ──┘    Picked: the endpoint, and why this one
//! ```

mod choose;
mod endpoint_set;
mod endpoint_table;
mod hash;
mod maglev;
mod picked;
mod ring_hash;
mod rotation;
mod slow_start;
#[cfg(test)]
mod tests;
mod weighted_draw;

pub(super) use choose::{HealthRule, PickContext, choose, choose_half_open, may_use_pinned};
pub(super) use endpoint_set::SetSettings;
pub use endpoint_set::{EndpointSet, ResolvedEndpoint};
pub(crate) use hash::hash_address;
pub use hash::hash64;
pub(super) use picked::PickCounts;
pub use picked::{NoEndpoint, Picked, PickedBecause};
pub(super) use rotation::Rotation;
