//! The data plane: connections, request handling, and locally generated responses.
//!
//! ```text
//!   Proxy ─ reconcile, drain ─▶ Worker (one thread each) ─ accept ─▶ connection ─▶ request ─▶ forward ─▶ upstream
//!                                  └ SnapshotView: snapshot and counters of the worker   └▶ redirect, error, reply
//! ```

mod accept;
pub mod access_log;
mod activity;
mod attempt;
mod bind;
mod client_stream;
mod connection;
mod cross_origin;
mod early_exit;
mod error_response;
mod forward;
mod forwarding_headers;
mod frames;
mod framing;
mod guard;
mod header_map_pool;
mod headers;
mod http2;
mod kong;
mod limits;
mod listener_connections;
mod malformed_request;
mod mirror;
mod outgoing_request;
mod plugin_run;
mod protocol_detection;
mod proxy_header;
mod read_timeout;
mod replay_buffer;
mod request;
mod request_body;
mod request_context;
mod request_error;
mod request_id;
mod request_record;
mod response_body;
mod retry;
mod rewound;
mod routing;
mod rule_action;
mod server;
mod stats;
mod target;
mod tls;
mod transport;
mod upgrade;
mod view;
mod worker;

use std::collections::BTreeMap;

pub use kong::product_headers::{KongHeaderMode, ProductToken};
pub use limits::ProxyLimits;
pub use server::{Proxy, ProxyConfig};
pub use stats::ProxyStats;
pub use tls::{MinTlsVersion, TlsPolicy};

use crate::snapshot::BindAddress;

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
