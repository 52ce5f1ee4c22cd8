//! Contract tests of all plugins, and the generated reference pages.
//!
//! `UPDATE=1 cargo test --test plugins` rewrites `docs/plugins`.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "plugins/contract.rs"]
mod contract;
#[path = "plugins/defaults.rs"]
mod defaults;
#[path = "plugins/fields.rs"]
mod fields;
mod harness;
#[path = "plugins/pages.rs"]
mod pages;
#[path = "plugins/source.rs"]
mod source;
