//! The two listeners for people and machines that look after us. Both only show, and change nothing.
//!
//! ```text
//!   status listener   /healthz /readyz /metrics, Kong's /status and /status/ready    nothing secret; may be reachable
//!   admin listener    /debug/…                                                       names of things; loopback
//! ```
//!
//! What they show comes through traits that the application implements.

mod answer;
mod debug;
mod status;

pub use debug::{View, Views, serve_admin};
pub use status::{Vitals, serve_status};

/// Connections that one of the two listeners keeps at a time.
const MOST_CONNECTIONS: usize = 256;
