//! Measures a start of Portico with existing objects, and waits until Portico is idle.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::process_usage;
use super::statistics::load;
use crate::portico::Portico;

/// What a start takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StartCost {
    /// Seconds from the start of the process until it is ready, including the lists of all objects.
    pub ready: f64,
    /// CPU time in seconds from the start of the process until it is idle.
    pub cpu: f64,
    /// Resident memory after that, in MiB.
    pub memory: f64,
    /// Peak resident memory, in MiB.
    pub peak_memory: f64,
    pub load: f64,
}

/// The process is idle if it uses less CPU time than `IDLE_CPU` in this time.
const IDLE_WINDOW: Duration = Duration::from_secs(3);
const IDLE_CPU: Duration = Duration::from_millis(60);
/// How long writing all statuses may take.
const IDLE_TIMEOUT: Duration = Duration::from_secs(900);

/// Stops Portico and measures the next start. For a start without status writes, Portico must be idle before.
pub(super) async fn measure_restart(portico: &mut Portico) -> Result<StartCost> {
    portico.stop().await?;
    let begin = Instant::now();
    portico.restart().await?;
    let ready = begin.elapsed().as_secs_f64();
    let cpu = wait_until_idle(portico).await.context("after a restart")?.as_secs_f64();
    let [memory, peak_memory] = process_usage::memory(portico.process_id().context("Portico is not running")?)?;
    Ok(StartCost { ready, cpu, memory, peak_memory, load: load()? })
}

/// Waits until the process uses hardly any CPU time. Returns what it has used until then.
pub(super) async fn wait_until_idle(portico: &Portico) -> Result<Duration> {
    let process = portico.process_id().context("Portico is not running")?;
    let begin = Instant::now();
    let mut before = process_usage::cpu(process)?;
    loop {
        sleep(IDLE_WINDOW).await;
        let after = process_usage::cpu(process)?;
        if after - before < IDLE_CPU {
            return Ok(before);
        }
        if begin.elapsed() > IDLE_TIMEOUT {
            bail!("Portico is not idle after {} s", IDLE_TIMEOUT.as_secs());
        }
        before = after;
    }
}

impl StartCost {
    pub(super) const HEAD: [&str; 5] = ["ready after s", "CPU s", "MiB", "peak MiB", "load"];

    pub(super) fn cells(&self) -> [String; 5] {
        [
            format!("{:.1}", self.ready),
            format!("{:.1}", self.cpu),
            format!("{:.1}", self.memory),
            format!("{:.1}", self.peak_memory),
            format!("{:.2}", self.load),
        ]
    }
}
