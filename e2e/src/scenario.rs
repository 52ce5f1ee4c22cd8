//! Runs scenarios, functions that get a cluster, as tests.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::{self, Cluster, Options};
use crate::existing_cluster::{self, UnsuitableCluster};
use crate::progress::report;

/// Runs a scenario on a new cluster; if it fails, the test fails with the complete error.
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
    if !is_enabled() {
        return;
    }
    // Scenarios on an existing cluster run one after another.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = existing_cluster::kubeconfig().map(|_| ALONE.lock());
    let called = std::mem::take(&mut options.name);
    options.name = checkout_name(&called);
    let started = Instant::now();
    report(format_args!("{called}: starting a cluster"));
    if let Err(error) = cluster::run(&options, inside) {
        if let Some(unfit) = error.downcast_ref::<UnsuitableCluster>() {
            return report_skipped(&called, &unfit.0);
        }
        panic!("{error:#}\nWithout root, skip these tests with E2E=off");
    }
    report(format_args!("{called}: passed after {} s", started.elapsed().as_secs()));
}

/// False, with a message, if tests that need network namespaces are disabled with E2E=off.
#[expect(clippy::print_stdout, reason = "cargo shows it with the test")]
pub fn is_enabled() -> bool {
    let off = std::env::var_os("E2E").is_some_and(|value| value == "off");
    if off {
        println!("not run: E2E=off");
    }
    !off
}

/// False, with a message, if this needs a new cluster but an existing one is configured.
pub fn needs_new_cluster(what: &str) -> bool {
    let own = existing_cluster::kubeconfig().is_none();
    if !own {
        report_skipped(
            what,
            &format!(
                "{} names an existing cluster, but this test needs a new one",
                existing_cluster::KUBECONFIG_VARIABLE
            ),
        );
    }
    own
}

/// Reports that a test is skipped. The summary of `make test` counts these lines.
#[expect(clippy::print_stdout, reason = "cargo shows it with the test")]
pub fn report_skipped(what: &str, why: &str) {
    println!("not run: {what}: {why}");
}

/// A name that includes a hash of the checkout's path, so that tests of two checkouts can run on one machine.
pub fn checkout_name(name: &str) -> String {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_MANIFEST_DIR").hash(&mut hasher);
    format!("{name}-{:04x}", hasher.finish() & 0xffff)
}
