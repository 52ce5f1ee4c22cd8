//! Tests that run in this process or compare files, as one program, because linking takes longer than compiling most of
//! them. A module is a suite of `scripts/test.sh`; `cargo test --workspace --test library compile::` runs one of them.

#![expect(clippy::unwrap_used, reason = "a panic fails the test, in functions without a test attribute too")]

mod alerts;
mod book;
#[path = "chart/main.rs"]
mod chart;
mod combinations;
mod compile;
mod crds;
mod dashboard;
mod documented;
mod examples;
mod gateway_crds;
mod gateway_services;
#[path = "harness/golden.rs"]
mod golden;
mod image;
mod install;
mod kinds;
mod manifests;
mod plugins;
mod reference;
mod router;
mod slo;
mod status;
mod test_scripts;
mod watch;

use std::path::Path;

/// The folder of the package.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
