//! What client connections of all protocols have in common: the steps before a protocol is known, the transport, the
//! relay of bytes, and the registry by listener.

pub(in crate::proxy) mod client_hello;
pub(in crate::proxy) mod handshake_permits;
pub(in crate::proxy) mod listener_connections;
pub(in crate::proxy) mod moving_deadline;
pub(in crate::proxy) mod protocol_detection;
pub(in crate::proxy) mod proxy_header;
pub(in crate::proxy) mod relay;
pub(in crate::proxy) mod relay_direction;
pub(in crate::proxy) mod server_name;
pub(in crate::proxy) mod splice;
pub(in crate::proxy) mod tls;
pub(in crate::proxy) mod transport;
