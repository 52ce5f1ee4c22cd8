//! The two listeners for people and machines that look after us. Both only show, and change nothing.
//!
//! ```text
//!   status listener   /healthz /readyz /metrics, Kong's /status and /status/ready    nothing secret; may be reachable
//!   admin listener    /debug/…                                                       names of things; loopback, and no route
//! ```
//!
//! What they show comes through traits that the application implements.

mod answer;
mod debug;
mod own;
mod status;

pub use debug::{Seen, View, Views, serve_admin};
pub use status::{Vitals, serve_status};

use std::time::Duration;

use crate::http_server::{Limits, WhenFull};

/// Of each of the two listeners. Enough for every probe, scrape and person there is; a probe comes in however many others stay.
const LIMITS: Limits = Limits {
    connections: 256,
    when_full: WhenFull::CloseLongestStill,
    idle: Duration::from_secs(10),
    stuck: Duration::from_secs(10),
    header_bytes: 16 << 10,
    header_count: 100,
};
