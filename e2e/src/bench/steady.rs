//! Memory and CPU of Portico with many routes, while little happens.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::figures::load;
use super::objects::Stock;
use super::propagation::edit;
use super::used;
use crate::portico::Portico;

/// What has to be written is written, and memory that nobody needs is given back.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Serialize)]
pub struct Steady {
    pub routes: usize,
    /// Portico began with all of them, instead of having seen them come.
    pub started_again: bool,
    /// Edits per second, as it turned out.
    pub changes: f64,
    pub seconds: f64,
    /// Resident memory at the end, in MiB.
    pub memory: f64,
    /// The most that it ever was.
    pub most_memory: f64,
    /// Cores in use, on average.
    pub cores: f64,
    /// CPU time for one edit, in milliseconds.
    pub cpu: Option<f64>,
    pub load: f64,
}

impl Steady {
    pub(super) const HEAD: [&str; 9] =
        ["routes", "Portico", "edits/s", "seconds", "MiB", "most MiB", "cores", "ms/edit", "load"];

    pub(super) fn row(&self) -> Vec<String> {
        vec![
            self.routes.to_string(),
            if self.started_again { "started again" } else { "saw them come" }.to_owned(),
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

pub(super) async fn measure(portico: &Portico, stock: &Stock, changes: f64, time: Duration) -> Result<Steady> {
    let process = portico.id().context("Portico does not run")?;
    sleep(PAUSE.min(time)).await;
    let (cpu, begin) = (used::cpu(process)?, Instant::now());
    let edits = Cell::new(0);
    tokio::select! {
        () = sleep(time) => {}
        error = edit(stock, changes, &edits) => return Err(error),
    }
    let (cpu, seconds) = ((used::cpu(process)? - cpu).as_secs_f64(), begin.elapsed().as_secs_f64());
    let [memory, most_memory] = used::memory(process)?;
    let edits = f64::from(edits.get());
    Ok(Steady {
        routes: stock.len(),
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
