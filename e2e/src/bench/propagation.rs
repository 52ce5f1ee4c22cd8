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

/// Delay between two requests. It limits both the measurement error and the load of the requests.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// Delay between two routes: long enough to write the statuses for the previous one.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a route may take to be served, or not to be served any more.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(60);

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
    /// The compilation's part of `inside`, as a mean in milliseconds per compilation.
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

pub(super) async fn measure(
    portico: &Portico,
    route_set: &RouteSet,
    samples: usize,
    churn: f64,
) -> Result<Propagation> {
    let process = portico.process_id().context("Portico is not running")?;
    let (before, cpu, begin) =
        (PropagationMetrics::scrape(portico).await?, process_usage::cpu(process)?, Instant::now());
    let edits = Cell::new(0);
    let times = tokio::select! {
        times = new_routes(route_set, samples) => times?,
        error = edit_continuously(route_set, churn, &edits) => return Err(error),
    };
    let seconds = begin.elapsed().as_secs_f64();
    let (after, cpu) = (PropagationMetrics::scrape(portico).await?, process_usage::cpu(process)? - cpu);
    let changes = after.change_count - before.change_count;
    ensure!(changes > 0.0, "Portico has counted no change");
    Ok(Propagation {
        routes: route_set.len(),
        churn: f64::from(edits.get()) / seconds,
        to_first_200: DurationStats::from_durations(&times).context("no new route was measured")?,
        inside: (after.change_seconds - before.change_seconds) / changes * 1000.0,
        compile: (after.compile_seconds - before.compile_seconds) / (after.compile_count - before.compile_count)
            * 1000.0,
        cpu: cpu.as_secs_f64() / changes * 1000.0,
        load: load()?,
    })
}

/// Creates routes one after another, deleting each before the next.
async fn new_routes(route_set: &RouteSet, samples: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for sample in 0..samples {
        let number = route_set.len() + sample;
        let target = route_set.target(number);
        let mut connection = Connection::open(target.address).await?;
        wait_for_status(&mut connection, &target, 404)
            .await
            .context("a new host or path is served before its route is created")?;
        route_set.create(number).await?;
        let stored = Instant::now();
        wait_for_status(&mut connection, &target, 200).await.context("the new route is not served")?;
        times.push(stored.elapsed());
        sleep(PAUSE).await;
        route_set.delete(number).await?;
        wait_for_status(&mut connection, &target, 404).await.context("the deleted route is still served")?;
        sleep(PAUSE).await;
    }
    Ok(times)
}

/// Sends requests until one has this status.
pub(super) async fn wait_for_status(connection: &mut Connection, target: &Target, expected: u16) -> Result<()> {
    let begin = Instant::now();
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let status = connection.request_status(target).await?;
        if status == expected {
            return Ok(());
        }
        if begin.elapsed() > ROUTE_TIMEOUT {
            bail!("{}{} returns {status} instead of {expected}", target.host, target.path);
        }
    }
}

/// Edits one route after another at this rate, until an edit fails. Waits forever if the rate is zero.
pub(super) async fn edit_continuously(route_set: &RouteSet, rate: f64, edits: &Cell<u32>) -> anyhow::Error {
    if rate <= 0.0 {
        return std::future::pending().await;
    }
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let edit = edits.get() + 1;
        // Spread over all routes, as edits by users are.
        let number = edit as usize * 7919 % route_set.len();
        if let Err(error) = route_set.edit(number).await {
            return error;
        }
        edits.set(edit);
    }
}

/// Portico's metrics; times are in seconds.
pub(super) struct PropagationMetrics {
    pub(super) change_count: f64,
    pub(super) change_seconds: f64,
    compile_count: f64,
    compile_seconds: f64,
}

impl PropagationMetrics {
    pub(super) async fn scrape(portico: &Portico) -> Result<PropagationMetrics> {
        let series = async |name| portico.metric(name).await?.with_context(|| format!("metric {name} is missing"));
        Ok(PropagationMetrics {
            change_count: series("portico_propagation_seconds_count").await?,
            change_seconds: series("portico_propagation_seconds_sum").await?,
            compile_count: series("portico_compile_duration_seconds_count").await?,
            compile_seconds: series("portico_compile_duration_seconds_sum").await?,
        })
    }
}
