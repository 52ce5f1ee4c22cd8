//! Measures what clients and endpoints notice of failures: failover, circuit breakers, retries, and what health checks
//! cost; for Portico, and for Envoy where it has the same.

mod checks;
mod circuit;
mod endpoint;
mod failover;
mod retries;
mod variant;

use std::path::PathBuf;

use anyhow::{Context, Result};

pub use self::endpoint::{Behavior, CHECK_PATH, FailingEndpoint};
pub use self::failover::{FailoverFigures, Outages, run_through_outages};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The release binary of Portico.
    #[arg(long)]
    portico: PathBuf,
    /// The Envoy binary, to compare with Envoy.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// The core for the servers; start this program on another core.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Run only measurements whose name contains this.
    #[arg(long)]
    case: Option<String>,
    /// Also run the failover of one of four endpoints with short outages.
    #[arg(long)]
    full: bool,
}

impl Options {
    fn selects(&self, name: &str) -> bool {
        self.case.as_ref().is_none_or(|word| name.contains(word))
    }
}

/// Prints the figures of all measurements. A missed target is marked, and no error.
pub async fn failures(options: &Options) -> Result<()> {
    for outages in failover::ALL.iter().filter(|outages| options.selects(outages.name)) {
        // A word selects measurements of both commands.
        if options.full || options.case.is_some() || !outages.full_only {
            failover::measure(options, outages).context(outages.name)?;
        }
    }
    if options.selects(circuit::NAME) {
        circuit::measure(options).await.context(circuit::NAME)?;
    }
    if options.selects(retries::NAME) {
        retries::measure(options).context(retries::NAME)?;
    }
    if options.selects(checks::NAME) {
        checks::measure(options).context(checks::NAME)?;
    }
    Ok(())
}

/// A target, marked if it was missed.
fn verdict(target: &str, is_met: bool) -> String {
    format!("({}{target})", if is_met { "" } else { "MISSED: " })
}
