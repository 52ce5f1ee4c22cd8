//! A scenario is a function that gets a cluster; this is what stands around it in a test.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;
use tokio::time::Instant;

use crate::cluster::{self, Cluster, Options};
use crate::progress::say;

/// Runs a scenario on a cluster of its own and fails the test with the whole reason if it fails.
///
/// ```no_run
/// #[test]
/// fn namespaces_are_listed() {
///     portico_e2e::scenario::run("namespaces", async |cluster| {
///         assert!(cluster.kubectl(&["get", "namespaces"]).await?.contains("kube-system"));
///         Ok(())
///     });
/// }
/// ```
pub fn run(name: &str, inside: impl AsyncFnOnce(&mut Cluster) -> Result<()> + Send) {
    run_with(Options::named(name), inside);
}

/// The same with options.
pub fn run_with(mut options: Options, inside: impl AsyncFnOnce(&mut Cluster) -> Result<()> + Send) {
    if !wanted() {
        return;
    }
    let called = std::mem::take(&mut options.name);
    options.name = name_here(&called);
    let started = Instant::now();
    say(format_args!("{called}: starting a cluster"));
    if let Err(error) = cluster::run(&options, inside) {
        panic!("{error:#}\nWhere there is no root, E2E=off leaves this out");
    }
    say(format_args!("{called}: passed after {} s", started.elapsed().as_secs()));
}

/// False if what needs network namespaces is left out on purpose; that is said, so that nobody takes it for passed.
#[expect(clippy::print_stdout, reason = "cargo shows it with the test")]
pub fn wanted() -> bool {
    let off = std::env::var_os("E2E").is_some_and(|value| value == "off");
    if off {
        println!("not run: E2E=off");
    }
    !off
}

/// A name of this checkout, so that the tests of two can run on one machine.
pub fn name_here(name: &str) -> String {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_MANIFEST_DIR").hash(&mut hasher);
    format!("{name}-{:04x}", hasher.finish() & 0xffff)
}
