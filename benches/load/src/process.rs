//! What a process has used, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// One process. nginx serves in a child of the process that was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// The first child, if there is one by now, else the process itself.
    pub(crate) fn serving(self) -> Process {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.0)).unwrap_or_default();
        children.split_whitespace().next().and_then(|child| child.parse().ok()).map_or(self, Process)
    }

    /// User and system time so far.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0)).context("the process is gone")?;
        // The name in parentheses may contain anything; behind it, fields 14 and 15 are the 12th and 13th.
        let (_, fields) = text.rsplit_once(')').context("no name in /proc/PID/stat")?;
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident memory in MiB.
    pub(crate) fn resident(self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0)).context("the process is gone")?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
}
