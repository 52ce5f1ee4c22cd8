//! Tests with a control plane, as one program, because linking takes longer than compiling most of them. A module is a
//! suite of `scripts/test.sh`; `cargo test --workspace --test e2e node:: -- --nocapture` runs one of them.
//!
//! Suites share no state of the process: each cluster has its own name, folder and network namespace. But they run one
//! after another, because the conformance suite expects some responses within a second and needs much CPU itself.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

mod conformance;
mod control_plane;
mod guide;
mod helm;
mod netns;
mod node;
mod scenarios;
