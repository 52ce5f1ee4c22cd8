//! The data plane: connections, the life of a request, and the answers we give ourselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What became of every address the snapshot asks for.
pub type Binds = BTreeMap<SocketAddr, BindState>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindState {
    Bound,
    /// Another process owns the port.
    InUse,
    /// We may not bind it (ports below 1024).
    NotPermitted,
    /// The address is not on this machine, or anything else the system said.
    Failed(String),
}
