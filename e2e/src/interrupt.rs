//! Ctrl-C and SIGTERM, so that a cluster goes with whoever runs it.

use std::fmt;

use anyhow::{Context, Error, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Why something ended: it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted(&'static str);

/// Waits for one of the two. From the first call on, neither ends this process by itself.
pub async fn interrupted() -> Result<Interrupted> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => Ok(Interrupted("SIGINT")),
        _ = terminate.recv() => Ok(Interrupted("SIGTERM")),
    }
}

/// Whether this is the reason of an error.
pub fn is_reason(error: &Error) -> bool {
    error.chain().any(|reason| reason.is::<Interrupted>())
}

impl std::error::Error for Interrupted {}

impl fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ended by {}", self.0)
    }
}
