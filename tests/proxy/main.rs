//! Integration tests of the data plane in process, over real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a failed precondition panics the test, in test helpers too")]

mod accounting;
mod bodies;
mod consumer_plugins;
mod corpus;
mod corpus_h2;
mod cors;
mod endpoints;
mod error_responses;
mod filters;
mod frames;
mod h2;
mod h2_body_end;
mod h2_filters;
mod h2_hostile;
mod h2_refused_streams;
mod h2_small_messages;
mod h2_tls;
mod h2_upstream;
mod harness;
mod hostile;
mod http_log;
mod invalid_responses;
mod kong;
mod kong_plugins;
mod listening;
mod load_balancing;
mod malformed_requests;
mod messages;
mod mirror;
mod misdirected;
mod plugins;
mod proxy_header;
mod request_errors;
mod response_filters;
mod response_transformer;
mod retry;
mod stream;
mod strict_parser;
mod timeouts;
mod tls;
mod tls_harness;
mod transport;
mod upgrade;
mod upstream_tls;
