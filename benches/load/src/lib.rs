//! A load generator with a fixed rate that verifies every response.
//!
//! ```text
//!   pace ──tickets──▶ connections ──▶ the proxy ──▶ backend
//!                          └── check ──▶ report
//! ```
//!
//! The rate is independent of responses (an open model): when the proxy stalls, requests queue up and their waiting
//! time counts as latency, as it would for users.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an interactive program that prints its result")]

pub mod backend;
pub mod baseline;
pub mod compare;
pub mod failures;
pub mod floods;
mod grpc;
mod grpc_stream;
mod h2c_backend;
mod heads;
mod http1;
mod http2;
mod pace;
mod pattern;
mod plan;
pub mod plugin_costs;
pub mod plugins;
mod process;
mod raw_exchange;
mod report;
mod run;
mod server;
pub mod streams;
mod tls;
mod token_pool;
mod tokens;
mod websocket;

pub use floods::{FloodCounts, flood, flood_names};
pub use http1::LoadResponse;
pub use plan::{CertificateCheck, CompletedRequest, Plan, Protocol, RequestShape, ResponseCheck};
pub use report::Report;
pub use run::run;
/// The host of the requests of floods.
pub use server::HOST as FLOODED_HOST;
pub use tls::Tls;
