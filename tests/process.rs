//! Tests that start the program `portico`, as one program, because linking takes longer than compiling most of them. A
//! module is a suite of `scripts/test.sh`; `cargo test --workspace --test process cli::` runs one of them.

#![expect(clippy::unwrap_used, reason = "a panic fails the test, in functions without a test attribute too")]

mod bad_input;
mod cli;
mod cluster;
mod costly_namespaces;
mod dialects;
mod envoy;
#[path = "watch/api.rs"]
#[expect(dead_code, reason = "the suite `watch` uses the rest")]
mod fake_api_server;
mod grpc_servers;
mod harness;
mod http_cache;
mod identity;
mod ingress_nginx;
mod kong;
mod ldap;
mod log_servers;
mod make_run;
mod matrix;
mod otlp_exports;
mod pages;
mod partners;
mod plugin_examples;
mod prometheus;
mod quickstart;
mod redis;
mod replay;
mod secrets;
mod serving;
mod stream_servers;
mod takeover;
mod tcp_listeners;
mod tls_backends;
mod udp_listeners;
mod verify;
