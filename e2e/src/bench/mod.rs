//! What Portico costs on a cluster, and how fast it is there: measured, and judged by nobody.
//!
//! ```text
//!   propagation   a new route, from the API server's answer to the first 200
//!   status        a thousand routes at once, and what is written about them
//!   failover      a Pod goes while requests flow
//!   steady        thousands of routes, and little that happens
//! ```

mod backend;
mod client;
mod failover;
mod figures;
mod objects;
mod propagation;
mod status_writes;
mod steady;
mod used;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

pub use self::failover::Failover;
pub use self::figures::Spread;
pub use self::propagation::Propagation;
pub use self::status_writes::StatusWrites;
pub use self::steady::Steady;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::portico::Portico;
use crate::progress::say;
use figures::{environment, table};
use objects::{Shape, Stock};

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    All,
    Propagation,
    Status,
    Steady,
    Failover,
}

/// How much of it.
#[derive(Clone, Debug, clap::Args)]
pub struct Size {
    /// Numbers of routes at which propagation is measured
    #[arg(long, value_delimiter = ',', default_value = "100,1000,3000", value_name = "NUMBER,...")]
    pub routes: Vec<usize>,
    /// New routes at each of these numbers, once while nothing else happens and once under churn
    #[arg(long, default_value_t = 100)]
    pub samples: usize,
    /// Edits of other routes per second, under churn
    #[arg(long, default_value_t = 20.0)]
    pub churn: f64,
    /// Routes that are applied at once, for the writes of statuses
    #[arg(long, default_value_t = 1000)]
    pub burst: usize,
    /// Routes at which memory and CPU are measured
    #[arg(long, default_value_t = 5000)]
    pub steady: usize,
    /// Edits per second then
    #[arg(long, default_value_t = 1.5)]
    pub changes: f64,
    /// Seconds for which memory and CPU are measured, without edits and then with them
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Requests per second while a Pod is deleted, and for how many seconds
    #[arg(long, default_value_t = 100)]
    pub rate: u32,
    #[arg(long, default_value_t = 55)]
    pub failover: u64,
    /// All routes share one host and differ in their paths, instead of each having a host of its own
    #[arg(long)]
    pub one_host: bool,
}

/// Everything that was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measured {
    /// Which machine, which program, and what else the machine did.
    pub environment: Vec<String>,
    pub failover: Option<Failover>,
    pub status: Option<StatusWrites>,
    pub propagation: Vec<Propagation>,
    pub steady: Vec<Steady>,
}

/// Measures on a cluster that has nothing but its own objects, with a Portico that this starts and ends.
pub async fn run(cluster: &Cluster, what: What, size: &Size) -> Result<Measured> {
    let wanted = |one| what == What::All || what == one;
    let mut measured = Measured::default();
    let mut portico = Portico::start(cluster, "bench", &[]).await?;
    measured.environment = environment(portico.id().context("it runs")?)?;
    if wanted(What::Failover) {
        let node = Node::start(cluster).await?;
        say(format_args!("bench: a Pod is deleted under {} requests per second", size.rate));
        let failover = failover::measure(cluster, size.rate, Duration::from_secs(size.failover)).await;
        measured.failover = Some(failover.context("failover")?);
        node.stop().await?;
    }
    let shape = if size.one_host { Shape::OneHost } else { Shape::HostEach };
    if wanted(What::Status) {
        let mut stock = Stock::start(cluster, "burst", shape).await?;
        say(format_args!("bench: {} routes at once", size.burst));
        let status = status_writes::measure(&portico, &mut stock, size.burst).await;
        measured.status = Some(status.context("writes of statuses")?);
        stock.remove().await?;
    }
    if wanted(What::Propagation) || wanted(What::Steady) {
        let mut stock = Stock::start(cluster, "bench", shape).await?;
        if wanted(What::Propagation) {
            for number in &size.routes {
                stock.grow(*number).await?;
                for churn in [0.0, size.churn] {
                    say(format_args!("bench: propagation at {number} routes, {churn} edits per second"));
                    let propagation = propagation::measure(&portico, &stock, size.samples, churn).await;
                    measured.propagation.push(propagation.context("propagation")?);
                }
            }
        }
        if wanted(What::Steady) {
            stock.grow(size.steady).await?;
            for changes in [0.0, size.changes] {
                say(format_args!("bench: {} routes, {changes} edits per second", stock.len()));
                let steady = steady::measure(&portico, &stock, changes, Duration::from_secs(size.seconds)).await;
                measured.steady.push(steady.context("a steady state")?);
            }
            say(format_args!("bench: the same, after Portico started again"));
            portico.stop().await?;
            portico.restart().await?;
            let steady = steady::measure(&portico, &stock, 0.0, Duration::from_secs(size.seconds)).await;
            measured.steady.push(Steady { started_again: true, ..steady.context("a steady state")? });
        }
        stock.remove().await?;
    }
    portico.stop().await?;
    Ok(measured)
}

impl Measured {
    /// For people.
    pub fn tables(&self) -> String {
        let mut text = self.environment.iter().fold(String::new(), |text, line| text + line + "\n");
        let mut add = |title: &str, head: &[&str], rows: Vec<Vec<String>>| {
            if !rows.is_empty() {
                text += &format!("\n{title}\n{}", table(head, &rows));
            }
        };
        let rows = self.propagation.iter().map(Propagation::row).collect();
        add("A new route, from the API server's answer to the first 200 (ms)", &Propagation::HEAD, rows);
        let rows = self.status.iter().map(StatusWrites::row).collect();
        add("Routes applied at once: writes of statuses", &StatusWrites::HEAD, rows);
        let rows = self.steady.iter().map(Steady::row).collect();
        add("Memory and CPU of Portico", &Steady::HEAD, rows);
        let rows = self.failover.iter().map(Failover::row).collect();
        add("One of two Pods is deleted while requests flow", &Failover::HEAD, rows);
        text
    }

    /// For programs: `target/bench/cluster.json` of the checkout.
    pub fn save(&self) -> Result<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("bench");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("cluster.json");
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}
