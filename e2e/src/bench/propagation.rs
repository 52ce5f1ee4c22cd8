//! How long a new route takes: from the API server's answer, which says that it is stored, to the first 200.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::client::{Connection, Target};
use super::figures::{Spread, load, ms};
use super::objects::Stock;
use super::used;
use crate::portico::Portico;

/// Between two requests: the answer is known at most so much late, and asking takes little of the machine.
const PACE: Duration = Duration::from_millis(1);
/// Between two new routes: what the last one led to is written by then.
const PAUSE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);

/// One number of routes, with or without churn.
#[derive(Clone, Debug, Serialize)]
pub struct Propagation {
    pub routes: usize,
    /// Edits of other routes per second, as it turned out.
    pub churn: f64,
    /// From the API server's answer to the first 200.
    pub to_first_200: Spread,
    /// Portico's own part of every change, the mean in milliseconds: from the watch to the swap.
    pub inside: f64,
    /// Of that for compiling.
    pub compile: f64,
    /// CPU time of Portico for one change, in milliseconds: requests of the bench and writes of statuses included.
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

pub(super) async fn measure(portico: &Portico, stock: &Stock, samples: usize, churn: f64) -> Result<Propagation> {
    let process = portico.id().context("Portico does not run")?;
    let (before, cpu, begin) = (Counts::of(portico).await?, used::cpu(process)?, Instant::now());
    let edits = Cell::new(0);
    let times = tokio::select! {
        times = new_routes(stock, samples) => times?,
        error = edit(stock, churn, &edits) => return Err(error),
    };
    let took = begin.elapsed().as_secs_f64();
    let (after, cpu) = (Counts::of(portico).await?, used::cpu(process)? - cpu);
    let changes = after.changes - before.changes;
    ensure!(changes > 0.0, "Portico has not counted a change");
    Ok(Propagation {
        routes: stock.len(),
        churn: f64::from(edits.get()) / took,
        to_first_200: Spread::of(&times).context("no new route was asked for")?,
        inside: (after.inside - before.inside) / changes * 1000.0,
        compile: (after.compile - before.compile) / (after.compiles - before.compiles) * 1000.0,
        cpu: cpu.as_secs_f64() / changes * 1000.0,
        load: load()?,
    })
}

/// One after another, each deleted before the next.
async fn new_routes(stock: &Stock, samples: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for sample in 0..samples {
        let number = stock.len() + sample;
        let target = stock.target(number);
        let mut connection = Connection::open(target.address).await?;
        until_answer(&mut connection, &target, 404).await.context("before the route is made")?;
        stock.create(number).await?;
        let stored = Instant::now();
        until_answer(&mut connection, &target, 200).await.context("of a new route")?;
        times.push(stored.elapsed());
        sleep(PAUSE).await;
        stock.delete(number).await?;
        until_answer(&mut connection, &target, 404).await.context("of a deleted route")?;
        sleep(PAUSE).await;
    }
    Ok(times)
}

async fn until_answer(connection: &mut Connection, target: &Target, wanted: u16) -> Result<()> {
    let begin = Instant::now();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let status = connection.ask(target).await?;
        if status == wanted {
            return Ok(());
        }
        if begin.elapsed() > PATIENCE {
            bail!("{}{} answers {status} instead of {wanted}", target.host, target.path);
        }
    }
}

/// Edits one route after another, so often, for ever. Without a rate it only waits.
pub(super) async fn edit(stock: &Stock, rate: f64, edits: &Cell<u32>) -> anyhow::Error {
    if rate <= 0.0 {
        return std::future::pending().await;
    }
    let mut pace = interval(Duration::from_secs_f64(1.0 / rate));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let edit = edits.get() + 1;
        // Far apart, as those of people are.
        let number = edit as usize * 7919 % stock.len();
        if let Err(error) = stock.edit(number).await {
            return error;
        }
        edits.set(edit);
    }
}

/// What Portico counts, in seconds where it is a time.
struct Counts {
    changes: f64,
    inside: f64,
    compiles: f64,
    compile: f64,
}

impl Counts {
    async fn of(portico: &Portico) -> Result<Counts> {
        let series = async |name| portico.metric(name).await?.with_context(|| format!("there is no {name}"));
        Ok(Counts {
            changes: series("portico_propagation_seconds_count").await?,
            inside: series("portico_propagation_seconds_sum").await?,
            compiles: series("portico_compile_duration_seconds_count").await?,
            compile: series("portico_compile_duration_seconds_sum").await?,
        })
    }
}
