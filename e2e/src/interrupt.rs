//! Handles Ctrl-C and SIGTERM, so that a cluster ends with the program that runs it.

use std::fmt;

use anyhow::{Context, Error, Result};
use tokio::signal::unix::{SignalKind, signal};

/// The error of a program that a signal interrupted, with the name of the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted(&'static str);

/// Waits for SIGINT or SIGTERM. After the first call, these signals no longer end this process by
/// themselves.
pub async fn interrupted() -> Result<Interrupted> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => Ok(Interrupted("SIGINT")),
        _ = terminate.recv() => Ok(Interrupted("SIGTERM")),
    }
}

/// Whether an error was caused by a signal.
pub fn is_interrupt(error: &Error) -> bool {
    error.chain().any(|cause| cause.is::<Interrupted>())
}

impl std::error::Error for Interrupted {}

impl fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "interrupted by {}", self.0)
    }
}
