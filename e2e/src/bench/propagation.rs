//! Measures how long a new route takes from the API server's response to the first 200.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::client::{Connection, Target};
use super::objects::RouteSet;
use super::process_usage;
use super::statistics::{DurationStats, load, ms};
use crate::portico::Portico;

/// Between two requests: limits the measurement error, and the load of the requests.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// Between two new routes: long enough to write the statuses for the previous one.
const PAUSE: Duration = Duration::from_millis(100);
const ROUTE_TIMEOUT: Duration = Duration::from_secs(30);

/// Measurements at one number of routes, with or without churn.
#[derive(Clone, Debug, Serialize)]
pub struct Propagation {
    pub routes: usize,
    /// Actual edits of other routes per second.
    pub churn: f64,
    /// From the API server's response to the first 200.
    pub to_first_200: DurationStats,
    /// Portico's share of every change, as a mean in milliseconds: from the watch event to the snapshot swap.
    pub inside: f64,
    /// Compilation's share of it.
    pub compile: f64,
    /// CPU time of Portico per change, in milliseconds, including the benchmark's requests and status writes.
    pub cpu: f64,
    pub load: f64,
}

impl Propagation {
    pub(super) const HEAD: [&str; 11] =
        ["routes", "edits/s", "new", "mean", "median", "p95", "max", "watch to swap", "compile", "CPU/change", "load"];

    pub(super) fn row(&self) -> Vec<String> {
        let mut row = vec![self.routes.to_string(), format!("{:.1}", self.churn)];
        row.extend(self.to_first_200.cells());
        row.extend([ms(self.inside), ms(self.compile), ms(self.cpu), format!("{:.2}", self.load)]);
        row
    }
}

pub(super) async fn measure(portico: &Portico, stock: &RouteSet, samples: usize, churn: f64) -> Result<Propagation> {
    let process = portico.id().context("Portico is not running")?;
    let (before, cpu, begin) =
        (PropagationMetrics::scrape(portico).await?, process_usage::cpu(process)?, Instant::now());
    let edits = Cell::new(0);
    let times = tokio::select! {
        times = new_routes(stock, samples) => times?,
        error = edit(stock, churn, &edits) => return Err(error),
    };
    let took = begin.elapsed().as_secs_f64();
    let (after, cpu) = (PropagationMetrics::scrape(portico).await?, process_usage::cpu(process)? - cpu);
    let changes = after.changes - before.changes;
    ensure!(changes > 0.0, "Portico has counted no change");
    Ok(Propagation {
        routes: stock.len(),
        churn: f64::from(edits.get()) / took,
        to_first_200: DurationStats::from_durations(&times).context("no new route was measured")?,
        inside: (after.inside - before.inside) / changes * 1000.0,
        compile: (after.compile - before.compile) / (after.compiles - before.compiles) * 1000.0,
        cpu: cpu.as_secs_f64() / changes * 1000.0,
        load: load()?,
    })
}

/// Creates routes one after another, deleting each before the next.
async fn new_routes(stock: &RouteSet, samples: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for sample in 0..samples {
        let number = stock.len() + sample;
        let target = stock.target(number);
        let mut connection = Connection::open(target.address).await?;
        wait_for_status(&mut connection, &target, 404).await.context("before the route is created")?;
        stock.create(number).await?;
        let stored = Instant::now();
        wait_for_status(&mut connection, &target, 200).await.context("of the new route")?;
        times.push(stored.elapsed());
        sleep(PAUSE).await;
        stock.delete(number).await?;
        wait_for_status(&mut connection, &target, 404).await.context("of the deleted route")?;
        sleep(PAUSE).await;
    }
    Ok(times)
}

async fn wait_for_status(connection: &mut Connection, target: &Target, wanted: u16) -> Result<()> {
    let begin = Instant::now();
    let mut pace = interval(POLL_INTERVAL);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let status = connection.request_status(target).await?;
        if status == wanted {
            return Ok(());
        }
        if begin.elapsed() > ROUTE_TIMEOUT {
            bail!("{}{} returns {status} instead of {wanted}", target.host, target.path);
        }
    }
}

/// Edits one route after another at this rate, until an edit fails. Without a rate it only waits.
pub(super) async fn edit(stock: &RouteSet, rate: f64, edits: &Cell<u32>) -> anyhow::Error {
    if rate <= 0.0 {
        return std::future::pending().await;
    }
    let mut pace = interval(Duration::from_secs_f64(1.0 / rate));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let edit = edits.get() + 1;
        // Spread over all routes, as edits by users are.
        let number = edit as usize * 7919 % stock.len();
        if let Err(error) = stock.edit(number).await {
            return error;
        }
        edits.set(edit);
    }
}

/// Portico's metrics; times are in seconds.
struct PropagationMetrics {
    changes: f64,
    inside: f64,
    compiles: f64,
    compile: f64,
}

impl PropagationMetrics {
    async fn scrape(portico: &Portico) -> Result<PropagationMetrics> {
        let series = async |name| portico.metric(name).await?.with_context(|| format!("metric {name} is missing"));
        Ok(PropagationMetrics {
            changes: series("portico_propagation_seconds_count").await?,
            inside: series("portico_propagation_seconds_sum").await?,
            compiles: series("portico_compile_duration_seconds_count").await?,
            compile: series("portico_compile_duration_seconds_sum").await?,
        })
    }
}
