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

    /// User and system time so far, of the threads there are. A thread that has ended takes its time with it; those that do
    /// the work stay.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0)).context("the process is gone")?;
        // In nanoseconds. What `stat` says is in hundredths of a second, too coarse for a few thousand requests.
        let time = |thread: fs::DirEntry| -> Option<u64> {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        Ok(Duration::from_nanos(threads.flatten().filter_map(time).sum()))
    }

    /// Resident memory in MiB.
    pub(crate) fn resident(self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0)).context("the process is gone")?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
}
