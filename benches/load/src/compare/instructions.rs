//! Instructions per request, counted by valgrind: a figure that does not depend on what else the machine does.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{server, wait_for};
use crate::backend::Backend;
use crate::plan::{Plan, Shape};
use crate::run::run;

#[derive(Clone, Debug, clap::Args)]
pub struct Counting {
    /// The release binary of Portico.
    #[arg(long)]
    portico: PathBuf,
}

/// Runs it twice, for a shorter and a longer time, so that starting and stopping drop out of the difference.
pub async fn count_instructions(options: &Counting) -> Result<bool> {
    let (few, little) = once(options, Duration::from_secs(2)).await?;
    let (many, much) = once(options, Duration::from_secs(8)).await?;
    ensure!(many > few && much > little, "too few requests to tell: {few} and {many}");
    println!("{:.0} instructions per request of HTTP/1.1, 64 bytes", (much - little) as f64 / (many - few) as f64);
    Ok(true)
}

/// Requests and instructions.
async fn once(options: &Counting, duration: Duration) -> Result<(u64, u64)> {
    let folder = tempfile::tempdir()?;
    let counts = folder.path().join("counts");
    let backend = Backend::start(([127, 0, 0, 1], 0).into(), "backend").await?;
    let key = server::write_certificate(folder.path(), "bench.example")?;
    let server = server::counted(&options.portico, &counts, folder.path(), backend.address, &key)?;
    let before = wait_for(&server).await?;
    let report = run(Plan::new(server.address, vec![Shape::get("bench.example", "/")], duration, 1)).await;
    ensure!(report.is_clean(), "not every answer was right:\n{report}");
    let said = server.said();
    drop(server);
    let text = fs::read_to_string(&counts).with_context(|| format!("valgrind counted nothing: {said}"))?;
    let total = text.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
    let total = total.and_then(|total| total.trim().parse().ok()).context("valgrind's file has no total")?;
    Ok((before + report.good, total))
}
