//! The data plane: connections, request handling, and locally generated responses.
//!
//! ```text
//!   Proxy ─ reconcile, drain ─▶ Worker (one thread each) ─ accept ─▶ connection ─▶ request ─▶ forward ─▶ upstream
//!                                  │ └ SnapshotView: snapshot and counters └▶ stream     └▶ redirect, error, reply
//!                                  └▶ udp
//! ```

mod buffer_budget;
mod client_counts;
mod connection;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod http;
mod ipv4_text;
mod process;
mod rejected_paths;
mod stream;
mod telemetry;
mod udp;
mod unforwarded_budget;
mod worker;

use std::collections::BTreeMap;

pub use connection::splice::PIPE_DESCRIPTORS_OF_WORKER;
pub use connection::tls::{MinTlsVersion, TlsPolicy};
pub use http::fields::product_names::{ProductHeaderMode, ProductToken};
pub use process::server::{Proxy, ProxyConfig};
pub use rejected_paths::RejectedPaths;
pub use telemetry::access_log;
pub use telemetry::observations;
pub use telemetry::request_tracer::{HeaderSelection, LateRecording, RequestTracer, TraceSelection};
pub use telemetry::stats::{LocationCounts, LocationHistogram, LocationLabels, LocationMetrics, ProxyStats};

use crate::bind_address::BindAddress;

/// The result of binding each address of the snapshot.
pub type BindStates = BTreeMap<BindAddress, BindState>;

/// Whether an address is bound, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindState {
    Bound,
    /// The port is in use by another process.
    InUse,
    /// The process lacks the permission to bind it (ports below 1024).
    NotPermitted,
    /// The address is not assigned to this machine.
    NotLocal,
    /// Any other error, with the message of the operating system.
    Failed(String),
}
