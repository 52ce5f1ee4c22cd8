//! Compiles routes of all kinds, and the routers of their listeners.
//!
//! ```text
//!   planner.rs ┬ request/   HTTPRoute, GRPCRoute                          ┬▶ plan.rs ─▶ routers.rs ─▶ Snapshot
//!              │   matches.rs  grpc_matches.rs  filters.rs  filter_parts.rs │
//!              │   cors.rs  external_auth.rs  retry.rs                      │
//!              └ stream.rs  TCPRoute, TLSRoute, UDPRoute ───────────────────┘
//! ```

pub(super) mod cors;
pub(super) mod external_auth;
pub(super) mod filter_parts;
pub(super) mod filters;
pub(super) mod grpc_matches;
pub(super) mod matches;
pub(super) mod plan;
pub(super) mod planner;
pub(super) mod request;
pub(super) mod retry;
pub(super) mod routers;
mod shadowed_routes;
pub(super) mod stream;
