//! Runs scenarios, functions that get a cluster, as tests.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::{self, Cluster, Options};
use crate::existing_cluster::{self, UnsuitableCluster};
use crate::progress::report;

/// The environment variable with which `scripts/test.sh` marks a slow machine: see `portico-e2e speed`.
const SLOW_MACHINE_VARIABLE: &str = "E2E_SLOW_MACHINE";

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
pub fn run(name: &str, scenario: impl AsyncFnOnce(&mut Cluster) -> Result<()> + Send) {
    run_with(Options::named(name), scenario);
}

/// Runs a scenario like [`run`], but with these options.
pub fn run_with(mut options: Options, scenario: impl AsyncFnOnce(&mut Cluster) -> Result<()> + Send) {
    if !is_enabled() {
        return;
    }
    // Scenarios on an existing cluster run one after another.
    static EXISTING_CLUSTER: Mutex<()> = Mutex::new(());
    let _lock = existing_cluster::kubeconfig().map(|_| EXISTING_CLUSTER.lock());
    let name = std::mem::take(&mut options.name);
    options.name = checkout_name(&name);
    let started = Instant::now();
    report(format_args!("{name}: starting a cluster"));
    if let Err(error) = cluster::run(&options, scenario) {
        if let Some(unsuitable) = error.downcast_ref::<UnsuitableCluster>() {
            return report_skipped(&name, &unsuitable.0);
        }
        panic!("{error:#}\nWithout root, skip these tests with E2E=off");
    }
    report(format_args!("{name}: passed after {} s", started.elapsed().as_secs()));
}

/// False, with a message, if tests that need network namespaces are disabled with E2E=off.
#[expect(clippy::print_stdout, reason = "cargo shows it with the test")]
pub fn is_enabled() -> bool {
    let is_disabled = std::env::var_os("E2E").is_some_and(|value| value == "off");
    if is_disabled {
        println!("not run: E2E=off");
    }
    !is_disabled
}

/// Whether a new cluster can be started for this test. If an existing cluster is configured instead, reports that the
/// test is skipped.
pub fn can_start_new_cluster(test: &str) -> bool {
    let can_start = existing_cluster::kubeconfig().is_none();
    if !can_start {
        report_skipped(
            test,
            &format!(
                "{} names an existing cluster, but this test needs a new one",
                existing_cluster::KUBECONFIG_VARIABLE
            ),
        );
    }
    can_start
}

/// Whether this machine is fast enough for a test that takes very long on a slow one, or that depends on the timeouts
/// of kubectl, Helm, the kubelet or the load balancer. If it is not, reports that the test is skipped.
pub fn is_fast_enough(test: &str) -> bool {
    let is_slow = std::env::var_os(SLOW_MACHINE_VARIABLE).is_some();
    if is_slow {
        report_skipped(test, "this machine is too slow; E2E=on runs all tests");
    }
    !is_slow
}

/// Reports that a test is skipped. The summary of `make test` counts these lines.
#[expect(clippy::print_stdout, reason = "cargo shows it with the test")]
pub fn report_skipped(test: &str, reason: &str) {
    println!("not run: {test}: {reason}");
}

/// A name that includes a hash of the checkout's path, so that tests of two checkouts can run on one machine.
pub fn checkout_name(name: &str) -> String {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_MANIFEST_DIR").hash(&mut hasher);
    format!("{name}-{:04x}", hasher.finish() & 0xffff)
}
