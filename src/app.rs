//! Wiring. Serving and checking are not part of this branch.

use anyhow::bail;

use crate::args::{CheckOptions, Exit, RunOptions};

/// Serves until told to stop.
pub fn run(_options: RunOptions) -> anyhow::Result<Exit> {
    bail!("unimplemented in this branch: run")
}

/// Says what is wrong with manifests.
pub fn check(_options: CheckOptions) -> anyhow::Result<Exit> {
    bail!("unimplemented in this branch: check")
}
