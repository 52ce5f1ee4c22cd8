//! Ctrl-C and SIGTERM, so that a cluster ends in order when whoever runs it is told to.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Waits for one of the two and gives its name. From the first call on, neither ends this process by itself.
pub async fn signaled() -> Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}
