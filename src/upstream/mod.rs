//! Upstreams: what stands behind a backend, with the memory that configuration changes must not lose.
//!
//! ```text
//!   snapshot ──Arc<Upstream>──▶ endpoints, configured and resolved (ArcSwap: churn swaps these, not the snapshot)
//!                                  │ a worker asks for the next address; how each fares is shared (Health)
//!                                  ▼
//!   Pools (one per worker) ──▶ idle connection, newest first ── or ──▶ connect, in TLS if the upstream has terms for it
//! ```

pub mod dns;
pub mod tls;

mod connect;
mod endpoints;
mod health;
mod http2;
mod pool;
mod reach;
mod registry;
mod socket;
mod traffic;

pub use connect::{BUFFER, ConnectFailure, Dial, HYPER_FIELDS};
pub use endpoints::{Address, Balance, Endpoints, Protocol, Reachable, Standing, Tally, Upstream, UpstreamKey};
pub use health::Load;
pub use pool::{Aim, Connection, Keep, Pools};
pub use reach::{Loopback, NoBackend};
pub use registry::Registry;
pub use traffic::{Count, Traffic};
