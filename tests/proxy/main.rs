//! The whole data plane in process, on the wire: real sockets on loopback, hostile clients and endpoints.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to panic, in what helps it too")]

mod answers;
mod binding;
mod bodies;
mod books;
mod endpoints;
mod harness;
mod hostile;
mod messages;
mod timeouts;
