//! The threads of the proxy, their sockets, their limits, and the configuration as a thread sees it.

pub(in crate::proxy) mod bind;
pub(in crate::proxy) mod limits;
pub(in crate::proxy) mod server;
pub(in crate::proxy) mod view;
pub(in crate::proxy) mod worker;
