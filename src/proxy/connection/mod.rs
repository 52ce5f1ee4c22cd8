//! A client's connection before a protocol is known, and what is the same for all protocols.
//!
//! ```text
//!   accept ─▶ PROXY header ┬▶ TLS ─▶ protocol detection ─▶ http
//!     └ limits             │  └ transport, the bytes of either
//!                          └▶ stream
//! ```

pub(in crate::proxy) mod accept;
pub(in crate::proxy) mod activity;
pub(in crate::proxy) mod client_stream;
pub(in crate::proxy) mod listener_connections;
pub(in crate::proxy) mod protocol_detection;
pub(in crate::proxy) mod proxy_header;
pub(in crate::proxy) mod relay;
pub(in crate::proxy) mod rewound;
pub(in crate::proxy) mod tls;
pub(in crate::proxy) mod transport;
