//! UDP listeners: datagrams are forwarded in sessions. A session is the exchange of one client with one endpoint, from
//! the first datagram of the client until none has been forwarded for a while.
//!
//! ```text
//!   UdpListener ─ receive: a batch ─▶ UdpSessions ─ by client address ─▶ Session ─ connected socket ─▶ endpoint
//!        ▲                              └ a new session: a backend by weight,      │
//!        │                                an endpoint by load balancing            │
//!        └── reply, from the address that the client sent to ◀─────────────────────┘
//! ```
//!
//! The kernel assigns the datagrams of a client to the socket of one worker by a hash of the addresses, so each worker
//! has sessions of its own, without locks. It receives all datagrams into one buffer, and allocates nothing for a
//! datagram of a known session.

mod listeners;
mod receive_buffers;
mod recency_map;
mod session;
mod sessions;
mod socket;

pub(in crate::proxy) use listeners::UdpListeners;
