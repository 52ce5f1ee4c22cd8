//! Load with a fixed rate, of which every answer is checked.
//!
//! ```text
//!   pace ──tickets──▶ connections ──▶ the proxy ──▶ backend
//!                          └── judge ──▶ report
//! ```
//!
//! The rate is kept by a clock that does not wait for answers (an open model): when the proxy stalls, requests pile up and
//! the time they wait counts as theirs, as it would for users.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is run by people, and the table is the result")]

pub mod backend;
pub mod compare;
pub mod floods;
mod http1;
mod http2;
mod pace;
mod pattern;
mod plan;
pub mod plugins;
mod process;
mod report;
mod run;
mod server;
mod tls;

pub use http1::Answer;
pub use plan::{Inspect, Judge, Plan, Protocol, Sent, Shape};
pub use report::Report;
pub use run::run;
pub use tls::Tls;
