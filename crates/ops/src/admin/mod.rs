//! The status listener and the admin listener: endpoints for probes, scrapes and debugging. None of them changes the
//! configuration; with a token, stored responses can be purged.
//!
//! ```text
//!   status listener   /healthz /readyz /metrics, Kong's /status and /status/ready   no secrets; may be exposed
//!   admin listener    /debug/… /cache…                                              object names; loopback only
//! ```
//!
//! The application provides the content: it implements [`StatusSource`], [`Views`], [`RequestObserver`] and
//! [`ResponseCaches`].

mod cache_purges;
mod debug;
mod observations;
mod renderings;
mod response;
mod self_connection;
mod status;
mod views;

pub use cache_purges::{CachePurges, CacheSelection, ResponseCaches};
pub use debug::{Views, serve_admin};
pub use observations::RequestObserver;
pub use status::{StatusSource, serve_status};
pub use views::{AdminView, ViewContent, ViewRequest};

use std::time::Duration;

use crate::http_server::{ServerLimits, WhenFull};

/// The limits of each of the two listeners. At the connection limit, a new connection replaces the one that is idle the
/// longest, so that probes are always accepted.
const LIMITS: ServerLimits = ServerLimits {
    connections: 256,
    when_full: WhenFull::CloseLongestIdle,
    idle_timeout: Duration::from_secs(10),
    write_timeout: Duration::from_secs(10),
    response_timeout: Duration::from_secs(30),
    header_bytes: 16 << 10,
    header_count: 100,
};
