//! Contract tests of all plugins, and the generated reference pages.
//!
//! `UPDATE=1 cargo test --workspace --test library plugins::` rewrites `docs/plugins`.

pub(crate) mod contract;
mod defaults;
pub(crate) mod fields;
mod header_names;
mod kong_names;
mod pages;
mod queue_shares;
mod source;
mod stored_responses;
