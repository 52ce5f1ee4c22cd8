//! Compiles Gateways and ListenerSets: their listeners, ports and certificates.
//!
//! ```text
//!   Gateway ────── gateway.rs ──────┬ listener.rs ─ listener_protocol.rs   one listener
//!     ├ gateway_parameters.rs       ├ gateway_ports.rs ─ port_owners.rs    which Gateway has a port
//!     │   └ observability.rs        │
//!   ListenerSet ── listener_set.rs ─┤ frontend_validation.rs               certificates of clients
//!     ├ allowed_listeners.rs        └ listener_conflicts.rs, listener_overlaps.rs
//!     └ listener_set_ports.rs
//! ```
//!
//! Two files are used before anything is compiled: served_gateways.rs finds which Gateways are served, and
//! needed_references.rs which Secrets and ConfigMaps are needed for them.

pub(super) mod allowed_listeners;
pub(super) mod frontend_validation;
pub(super) mod gateway;
pub(super) mod gateway_parameters;
pub(super) mod gateway_ports;
pub(super) mod listener;
pub(super) mod listener_conflicts;
pub(super) mod listener_overlaps;
pub(super) mod listener_protocol;
pub(super) mod listener_set;
pub(super) mod listener_set_ports;
pub(super) mod needed_references;
pub(super) mod observability;
pub(super) mod port_owners;
pub(super) mod served_gateways;
