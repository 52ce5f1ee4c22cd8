//! Benchmarks of Portico on a cluster. They report measurements without asserting any.
//!
//! ```text
//!   propagation a new route, from the API server's response to the first 200
//!   status a thousand routes at once, and the status writes for them
//!   failover a Pod is deleted while requests flow
//!   steady thousands of routes, and few changes
//! ```

mod backend;
mod client;
mod failover;
mod objects;
mod process_usage;
mod propagation;
mod statistics;
mod status_writes;
mod steady;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

pub use self::failover::Failover;
pub use self::propagation::Propagation;
pub use self::statistics::DurationStats;
pub use self::status_writes::StatusWrites;
pub use self::steady::Steady;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::portico::Portico;
use crate::progress::report;
use objects::{RouteSet, RouteShape};
use statistics::{environment, table};

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Benchmark {
    All,
    Propagation,
    Status,
    Steady,
    Failover,
}

/// Sizes of the benchmarks.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchSizes {
    /// Numbers of routes at which propagation is measured
    #[arg(long, value_delimiter = ',', default_value = "100,1000,3000", value_name = "NUMBER,...")]
    pub routes: Vec<usize>,
    /// New routes at each of these numbers, measured without and with churn
    #[arg(long, default_value_t = 100)]
    pub samples: usize,
    /// Edits of other routes per second during churn
    #[arg(long, default_value_t = 20.0)]
    pub churn: f64,
    /// Routes that are applied at once to measure status writes
    #[arg(long, default_value_t = 1000)]
    pub burst: usize,
    /// Routes at which memory and CPU are measured
    #[arg(long, default_value_t = 5000)]
    pub steady: usize,
    /// Edits per second while memory and CPU are measured
    #[arg(long, default_value_t = 1.5)]
    pub changes: f64,
    /// Seconds for which memory and CPU are measured, each without and with edits
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Requests per second while a Pod is deleted
    #[arg(long, default_value_t = 100)]
    pub rate: u32,
    #[arg(long, default_value_t = 55)]
    pub failover: u64,
    /// Give all routes the same host and different paths, instead of a host each
    #[arg(long)]
    pub one_host: bool,
}

/// All measurements.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measurements {
    /// The machine, the program, and the load.
    pub environment: Vec<String>,
    pub failover: Option<Failover>,
    pub status: Option<StatusWrites>,
    pub propagation: Vec<Propagation>,
    pub steady: Vec<Steady>,
}

/// Measures on a cluster without other objects, with a Portico that this function starts and stops.
pub async fn run(cluster: &Cluster, what: Benchmark, size: &BenchSizes) -> Result<Measurements> {
    let wanted = |one| what == Benchmark::All || what == one;
    let mut measured = Measurements::default();
    let mut portico = Portico::start(cluster, "bench", &[]).await?;
    measured.environment = environment(portico.id().context("Portico is not running")?)?;
    if wanted(Benchmark::Failover) {
        let node = Node::start(cluster).await?;
        report(format_args!("bench: a Pod is deleted under {} requests per second", size.rate));
        let failover = failover::measure(cluster, size.rate, Duration::from_secs(size.failover)).await;
        measured.failover = Some(failover.context("failover")?);
        node.stop().await?;
    }
    let shape = if size.one_host { RouteShape::OneHost } else { RouteShape::HostEach };
    if wanted(Benchmark::Status) {
        let mut stock = RouteSet::start(cluster, "burst", shape).await?;
        report(format_args!("bench: {} routes at once", size.burst));
        let status = status_writes::measure(&portico, &mut stock, size.burst).await;
        measured.status = Some(status.context("status writes")?);
        stock.remove().await?;
    }
    if wanted(Benchmark::Propagation) || wanted(Benchmark::Steady) {
        let mut stock = RouteSet::start(cluster, "bench", shape).await?;
        if wanted(Benchmark::Propagation) {
            for number in &size.routes {
                stock.grow(*number).await?;
                for churn in [0.0, size.churn] {
                    report(format_args!("bench: propagation at {number} routes, {churn} edits per second"));
                    let propagation = propagation::measure(&portico, &stock, size.samples, churn).await;
                    measured.propagation.push(propagation.context("propagation")?);
                }
            }
        }
        if wanted(Benchmark::Steady) {
            stock.grow(size.steady).await?;
            for changes in [0.0, size.changes] {
                report(format_args!("bench: {} routes, {changes} edits per second", stock.len()));
                let steady = steady::measure(&portico, &stock, changes, Duration::from_secs(size.seconds)).await;
                measured.steady.push(steady.context("steady state")?);
            }
            report(format_args!("bench: the same after a restart of Portico"));
            portico.stop().await?;
            portico.restart().await?;
            let steady = steady::measure(&portico, &stock, 0.0, Duration::from_secs(size.seconds)).await;
            measured.steady.push(Steady { started_again: true, ..steady.context("steady state")? });
        }
        stock.remove().await?;
    }
    portico.stop().await?;
    Ok(measured)
}

impl Measurements {
    /// The measurements as tables.
    pub fn tables(&self) -> String {
        let mut text = self.environment.iter().fold(String::new(), |text, line| text + line + "\n");
        let mut add = |title: &str, head: &[&str], rows: Vec<Vec<String>>| {
            if !rows.is_empty() {
                text += &format!("\n{title}\n{}", table(head, &rows));
            }
        };
        let rows = self.propagation.iter().map(Propagation::row).collect();
        add("A new route, from the API server's response to the first 200 (ms)", &Propagation::HEAD, rows);
        let rows = self.status.iter().map(StatusWrites::row).collect();
        add("Routes applied at once: status writes", &StatusWrites::HEAD, rows);
        let rows = self.steady.iter().map(Steady::row).collect();
        add("Memory and CPU of Portico", &Steady::HEAD, rows);
        let rows = self.failover.iter().map(Failover::row).collect();
        add("One of two Pods is deleted while requests flow", &Failover::HEAD, rows);
        text
    }

    /// Writes the measurements to `target/bench/cluster.json` of the checkout.
    pub fn save(&self) -> Result<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("bench");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("cluster.json");
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}
