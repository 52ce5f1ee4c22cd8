//! Measures memory and CPU of Portico with many routes and few changes.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::objects::RouteSet;
use super::process_usage;
use super::propagation::edit_continuously;
use super::statistics::load;
use crate::portico::Portico;

/// Delay before the measurement: long enough to finish status writes and to return unused memory.
const PAUSE: Duration = Duration::from_secs(5);

/// Memory and CPU of Portico during one measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Steady {
    pub routes: usize,
    /// Whether Portico started with all routes, instead of receiving them one by one.
    pub started_again: bool,
    /// Actual edits per second.
    pub changes: f64,
    pub seconds: f64,
    /// Resident memory at the end, in MiB.
    pub memory: f64,
    /// Peak resident memory, in MiB.
    pub most_memory: f64,
    /// Average cores in use.
    pub cores: f64,
    /// CPU time per edit, in milliseconds.
    pub cpu: Option<f64>,
    pub load: f64,
}

impl Steady {
    pub(super) const HEAD: [&str; 9] =
        ["routes", "Portico", "edits/s", "seconds", "MiB", "peak MiB", "cores", "ms/edit", "load"];

    pub(super) fn row(&self) -> Vec<String> {
        vec![
            self.routes.to_string(),
            if self.started_again { "restarted" } else { "running" }.to_owned(),
            format!("{:.2}", self.changes),
            format!("{:.0}", self.seconds),
            format!("{:.1}", self.memory),
            format!("{:.1}", self.most_memory),
            format!("{:.4}", self.cores),
            self.cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2}")),
            format!("{:.2}", self.load),
        ]
    }
}

pub(super) async fn measure(
    portico: &Portico,
    route_set: &RouteSet,
    changes: f64,
    duration: Duration,
) -> Result<Steady> {
    let process = portico.process_id().context("Portico is not running")?;
    sleep(PAUSE.min(duration)).await;
    let (cpu, begin) = (process_usage::cpu(process)?, Instant::now());
    let edits = Cell::new(0);
    tokio::select! {
        () = sleep(duration) => {}
        error = edit_continuously(route_set, changes, &edits) => return Err(error),
    }
    let (cpu, seconds) = ((process_usage::cpu(process)? - cpu).as_secs_f64(), begin.elapsed().as_secs_f64());
    let [memory, most_memory] = process_usage::memory(process)?;
    let edits = f64::from(edits.get());
    Ok(Steady {
        routes: route_set.len(),
        started_again: false,
        changes: edits / seconds,
        seconds,
        memory,
        most_memory,
        cores: cpu / seconds,
        cpu: (edits > 0.0).then(|| cpu / edits * 1000.0),
        load: load()?,
    })
}
