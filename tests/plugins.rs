//! The contract that every plugin keeps, whichever it is, and the reference pages that are made of them.
//!
//! `UPDATE=1 cargo test --test plugins` rewrites `docs/plugins`.

#[path = "plugins/contract.rs"]
mod contract;
#[path = "plugins/fields.rs"]
mod fields;
#[path = "harness/golden.rs"]
mod golden;
#[path = "plugins/pages.rs"]
mod pages;
#[path = "plugins/source.rs"]
mod source;

mod program {
    //! What the expected texts need of the programs' harness.

    use std::path::Path;

    pub fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }
}
