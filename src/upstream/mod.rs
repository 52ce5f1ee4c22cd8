//! Upstreams: what stands behind a backend, with the memory that configuration changes must not lose.
//!
//! ```text
//!   snapshot ──Arc<Upstream>──▶ endpoints, configured and resolved (ArcSwap: churn swaps these, not the snapshot)
//!                                  │ a worker asks for the next addresses, in turn
//!                                  ▼
//!   Pools (one per worker) ──▶ idle connection, newest first ── or ──▶ connect
//! ```

pub mod dns;

mod connect;
mod endpoints;
mod http2;
mod pool;
mod registry;
mod traffic;

pub use connect::{ConnectFailure, Dial};
pub use endpoints::{Address, Endpoints, Protocol, Upstream, UpstreamKey};
pub use pool::{Connection, Keep, Pools, Turn};
pub use registry::Registry;
pub use traffic::{Count, Traffic};
