//! What plugins see of a connection or UDP session of a route, and what they decide about it.

use std::net::IpAddr;

/// Context of the phase `stream_open`.
#[derive(Clone, Copy, Debug)]
pub struct StreamCx {
    /// The client's address, from the PROXY header if a load balancer sends one. IPv4-mapped addresses are IPv4.
    pub client: IpAddr,
}

/// The result of `stream_open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamDecision {
    Continue,
    /// The connection is reset, or the datagram dropped.
    Reject,
}
