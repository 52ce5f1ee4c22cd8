//! The data plane: connections, the life of a request, and the answers we give ourselves.
//!
//! ```text
//!   Proxy ─ reconcile, drain ─▶ Worker (one thread each) ─ accept ─▶ connection ─▶ request ─▶ forward ─▶ upstream
//!                                  └ View: the snapshot, with this worker's counters     └▶ redirect, fault
//! ```

mod accept;
pub mod access_log;
mod activity;
mod bind;
mod body;
mod client_stream;
mod connection;
mod cross_origin;
mod exchange;
mod fault;
mod forward;
mod frames;
mod framing;
mod group;
mod guard;
mod headers;
mod http2;
mod kong;
mod lent;
mod limits;
mod manners;
mod mirror;
mod passage;
mod preface;
mod proxy_header;
mod refusal;
mod request;
mod request_id;
mod rewound;
mod server;
mod silence;
mod spares;
mod stats;
mod target;
mod tls;
mod transport;
mod tries;
mod upgrade;
mod view;
mod worker;

use std::collections::BTreeMap;
use std::net::SocketAddr;

pub use kong::naming::{KongHeaders, Product};
pub use limits::Limits;
pub use server::{Config, Proxy};
pub use stats::Stats;
pub use tls::{TlsPolicy, TlsVersion};

/// What became of every address the snapshot asks for.
pub type Binds = BTreeMap<SocketAddr, BindState>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindState {
    Bound,
    /// Another process owns the port.
    InUse,
    /// We may not bind it (ports below 1024).
    NotPermitted,
    /// The address is none of this machine's.
    NotOurs,
    /// Anything else, in the system's words.
    Failed(String),
}
