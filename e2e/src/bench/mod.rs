//! Benchmarks of Portico on a cluster. They report measurements without asserting any.
//!
//! - `propagation`: how long a new route takes, from the API server's response to the first 200
//! - `status_writes`: the status writes for a thousand routes that are applied at once
//! - `failover`: the requests that fail when a Pod is deleted
//! - `steady`: memory and CPU with thousands of routes, and few changes
//! - `scale`: starts, edits and changes of endpoints with tens of thousands of objects
//! - `listener_sets`: memory, CPU, a restart and edits with thousands of ListenerSets of one Gateway

mod backend;
mod client;
mod edits;
mod failover;
mod listener_sets;
mod many_objects;
mod objects;
pub(crate) mod process_usage;
mod propagation;
mod scale;
mod start;
pub(crate) mod statistics;
mod status_writes;
mod steady;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

pub use self::edits::EditTimes;
pub use self::failover::Failover;
pub use self::listener_sets::{AtRest, ListenerSetEdits, ListenerSets};
pub use self::propagation::Propagation;
pub use self::scale::{EndpointChanges, RoutesOfOthers, Scale, ScaleEdits, ScaleStart};
pub use self::start::StartCost;
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
    /// All except `scale` and `listener-sets`, which take long
    All,
    Propagation,
    Status,
    Steady,
    Failover,
    Scale,
    ListenerSets,
}

/// Sizes of the benchmarks.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchSizes {
    /// Numbers of routes at which propagation is measured
    #[arg(long, value_delimiter = ',', default_value = "100,1000,3000", value_name = "NUMBER,...")]
    pub routes: Vec<usize>,
    /// New routes at each of these numbers, measured without and with churn; with `scale` and `listener-sets`, edits of
    /// each kind of object
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
    /// Seconds for which memory and CPU are measured, each without and with edits; with `listener-sets`, without only
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Requests per second while a Pod is deleted
    #[arg(long, default_value_t = 100)]
    pub rate: u32,
    /// Seconds for which requests are sent; a Pod is deleted halfway
    #[arg(long, default_value_t = 55)]
    pub failover: u64,
    /// HTTPRoutes with which `scale` measures, and as many Ingresses, each with a host and a certificate
    #[arg(long, default_value_t = 10_000)]
    pub scale: usize,
    /// HTTPRoutes of another controller with which `scale` measures
    #[arg(long, default_value_t = 20_000)]
    pub foreign: usize,
    /// Services with which `scale` measures, each with an EndpointSlice
    #[arg(long, default_value_t = 10_000)]
    pub slices: usize,
    /// Changes of EndpointSlices per second while `scale` measures edits and CPU
    #[arg(long, default_value_t = 50.0)]
    pub slice_changes: f64,
    /// ListenerSets with which `listener-sets` measures, each with a listener with a host of its own
    #[arg(long, default_value_t = 2500)]
    pub listener_sets: usize,
    /// HTTPRoutes of each of these ListenerSets
    #[arg(long, default_value_t = 16)]
    pub routes_per_set: usize,
    /// Give all routes the same host and different paths, instead of giving each route its own host
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
    pub scale: Option<Scale>,
    pub listener_sets: Option<ListenerSets>,
}

/// Measures on a cluster without other objects, with a Portico that this function starts and stops.
pub async fn run(cluster: &Cluster, what: Benchmark, sizes: &BenchSizes) -> Result<Measurements> {
    let is_selected = |benchmark| what == Benchmark::All || what == benchmark;
    let mut measurements = Measurements::default();
    if what == Benchmark::Scale {
        let (environment, scale) = scale::measure(cluster, sizes).await.context("scale")?;
        return Ok(Measurements { environment, scale: Some(scale), ..measurements });
    }
    if what == Benchmark::ListenerSets {
        let (environment, listener_sets) = listener_sets::measure(cluster, sizes).await.context("listener-sets")?;
        return Ok(Measurements { environment, listener_sets: Some(listener_sets), ..measurements });
    }
    let mut portico = Portico::start(cluster, "bench", &[]).await?;
    measurements.environment = environment(portico.process_id().context("Portico is not running")?)?;
    if is_selected(Benchmark::Failover) {
        let node = Node::start(cluster).await?;
        report(format_args!("bench: a Pod is deleted under {} requests per second", sizes.rate));
        let failover = failover::measure(cluster, sizes.rate, Duration::from_secs(sizes.failover)).await;
        measurements.failover = Some(failover.context("failover")?);
        node.stop().await?;
    }
    let shape = if sizes.one_host { RouteShape::SharedHost } else { RouteShape::HostPerRoute };
    if is_selected(Benchmark::Status) {
        let mut route_set = RouteSet::start(cluster, "burst", shape).await?;
        report(format_args!("bench: {} routes at once", sizes.burst));
        let status = status_writes::measure(&portico, &mut route_set, sizes.burst).await;
        measurements.status = Some(status.context("status writes")?);
        route_set.remove().await?;
    }
    if is_selected(Benchmark::Propagation) || is_selected(Benchmark::Steady) {
        let mut route_set = RouteSet::start(cluster, "bench", shape).await?;
        if is_selected(Benchmark::Propagation) {
            for count in &sizes.routes {
                route_set.grow_and_wait(*count).await?;
                for churn in [0.0, sizes.churn] {
                    report(format_args!("bench: propagation at {count} routes, {churn} edits per second"));
                    let propagation = propagation::measure(&portico, &route_set, sizes.samples, churn).await;
                    measurements.propagation.push(propagation.context("propagation")?);
                }
            }
        }
        if is_selected(Benchmark::Steady) {
            route_set.grow_and_wait(sizes.steady).await?;
            for changes in [0.0, sizes.changes] {
                report(format_args!("bench: {} routes, {changes} edits per second", route_set.len()));
                let steady = steady::measure(&portico, &route_set, changes, Duration::from_secs(sizes.seconds)).await;
                measurements.steady.push(steady.context("steady state")?);
            }
            report(format_args!("bench: the same after a restart of Portico"));
            portico.stop().await?;
            portico.restart().await?;
            let steady = steady::measure(&portico, &route_set, 0.0, Duration::from_secs(sizes.seconds)).await;
            measurements.steady.push(Steady { started_again: true, ..steady.context("steady state")? });
        }
        route_set.remove().await?;
    }
    portico.stop().await?;
    Ok(measurements)
}

impl Measurements {
    /// The measurements as tables.
    pub fn tables(&self) -> String {
        let mut text = self.environment.iter().fold(String::new(), |text, line| text + line + "\n");
        let mut add_table = |title: &str, head: &[&str], rows: Vec<Vec<String>>| {
            if !rows.is_empty() {
                text += &format!("\n{title}\n{}", table(head, &rows));
            }
        };
        let rows = self.propagation.iter().map(Propagation::row).collect();
        add_table("A new route, from the API server's response to the first 200 (ms)", &Propagation::HEAD, rows);
        let rows = self.status.iter().map(StatusWrites::row).collect();
        add_table("Routes applied at once: status writes", &StatusWrites::HEAD, rows);
        let rows = self.steady.iter().map(Steady::row).collect();
        add_table("Memory and CPU of Portico", &Steady::HEAD, rows);
        if let Some(scale) = &self.scale {
            let rows = scale.starts.iter().map(ScaleStart::row).collect();
            add_table("Starts with existing objects", &ScaleStart::head(), rows);
            let rows = scale.routes_of_others.iter().flat_map(RoutesOfOthers::rows).collect();
            add_table("HTTPRoutes of another controller", &RoutesOfOthers::HEAD, rows);
            let rows = scale.edits.iter().map(ScaleEdits::row).collect();
            add_table("An edit, from the API server's response to the first 200 (ms)", &ScaleEdits::head(), rows);
            let rows = scale.endpoint_changes.iter().map(EndpointChanges::row).collect();
            add_table("CPU of Portico for changes of endpoints", &EndpointChanges::HEAD, rows);
        }
        if let Some(listener_sets) = &self.listener_sets {
            let rows = vec![listener_sets.row_at_rest()];
            add_table("ListenerSets of one Gateway, at rest", &ListenerSets::HEAD_AT_REST, rows);
            let rows = vec![listener_sets.restart.cells().into()];
            add_table("A restart with all ListenerSets and HTTPRoutes", &StartCost::HEAD, rows);
            let rows = listener_sets.edits.iter().map(ListenerSetEdits::row).collect();
            add_table("An edit, from the API server's response to the first 200 (ms)", &ListenerSetEdits::head(), rows);
        }
        let rows = self.failover.iter().map(Failover::row).collect();
        add_table("One of two Pods is deleted while requests flow", &Failover::HEAD, rows);
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
