//! Tests with a control plane. They are one program, because linking a program takes longer than compiling most
//! modules. Each module is a suite of `scripts/test.sh`; `cargo test --workspace --test e2e node:: -- --nocapture` runs
//! one suite.
//!
//! Suites share no state: each cluster has its own name, folder and network namespace, so `scripts/test.sh` runs some
//! of them side by side.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

mod authorization;
mod browser;
mod conformance;
mod control_plane;
mod guide;
mod h2spec;
mod helm;
mod kafka;
mod log_receivers;
mod netns;
mod node;
mod scenarios;
mod second_opinion;
mod tracing;
