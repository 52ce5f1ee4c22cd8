//! The whole data plane in process, on the wire: real sockets on loopback, hostile clients and endpoints.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to panic, in what helps it too")]

mod answers;
mod bad_answers;
mod balance;
mod binding;
mod bodies;
mod books;
mod corpus;
mod corpus_h2;
mod cors;
mod endpoints;
mod every_fault;
mod every_filter;
mod frames;
mod h2;
mod h2_endings;
mod h2_filters;
mod h2_hostile;
mod h2_refused;
mod h2_small;
mod h2_tls;
mod h2_upstream;
mod harness;
mod hostile;
mod kong;
mod kong_plugins;
mod messages;
mod mirror;
mod misdirected;
mod plugins;
mod proxy_header;
mod retry;
mod secure;
mod strict;
mod timeouts;
mod tls;
mod unreadable;
mod upgrade;
mod upstream_tls;
mod wire;
