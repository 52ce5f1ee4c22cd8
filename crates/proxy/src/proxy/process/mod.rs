//! The threads of the proxy, their sockets, and the connections that they accept.

pub(in crate::proxy) mod accept;
pub(in crate::proxy) mod accept_queue;
pub(in crate::proxy) mod bind;
pub(in crate::proxy) mod client_budget;
pub(in crate::proxy) mod connection_spread;
pub(in crate::proxy) mod preparation;
pub(in crate::proxy) mod server;
pub(in crate::proxy) mod worker_thread;
