//! A scenario is a function that gets a cluster; this is what stands around it in a test.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::borrowed::{self, Unfit};
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
    // Those that share a cluster come one after another.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = borrowed::kubeconfig().map(|_| ALONE.lock());
    let called = std::mem::take(&mut options.name);
    options.name = name_here(&called);
    let started = Instant::now();
    say(format_args!("{called}: starting a cluster"));
    if let Err(error) = cluster::run(&options, inside) {
        if let Some(unfit) = error.downcast_ref::<Unfit>() {
            return not_run(&called, &unfit.0);
        }
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

/// False, and said so, if this takes a cluster of our own and there is to be none.
pub fn on_our_own(what: &str) -> bool {
    let own = borrowed::kubeconfig().is_none();
    if !own {
        not_run(what, &format!("{} names a cluster, and this takes one of our own", borrowed::VARIABLE));
    }
    own
}

/// Says that something is left out. Summaries count these lines.
#[expect(clippy::print_stdout, reason = "cargo shows it with the test")]
pub fn not_run(what: &str, why: &str) {
    println!("not run: {what}: {why}");
}

/// A name of this checkout, so that the tests of two can run on one machine.
pub fn name_here(name: &str) -> String {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_MANIFEST_DIR").hash(&mut hasher);
    format!("{name}-{:04x}", hasher.finish() & 0xffff)
}
