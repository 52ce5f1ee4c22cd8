//! Resource usage of a process, from `/proc`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// A process by its id. nginx serves requests in children of the started process, one for each worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// The processes that serve requests: the children if there are any, otherwise the process itself.
    pub(crate) fn serving(self) -> ServingProcesses {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.0)).unwrap_or_default();
        let mut processes: Vec<Process> =
            children.split_whitespace().filter_map(|child| child.parse().ok()).map(Process).collect();
        if processes.is_empty() {
            processes.push(self);
        }
        ServingProcesses(processes)
    }

    /// User and system time of the existing threads. The time of ended threads is lost, but worker threads do not end.
    pub(crate) fn cpu(self) -> Result<Duration> {
        Ok(Duration::from_nanos(self.threads()?.values().sum()))
    }

    /// CPU time of each thread in nanoseconds, by thread id as `/proc` writes it.
    pub(crate) fn threads(self) -> Result<HashMap<OsString, u64>> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0)).context("the process is gone")?;
        // `stat` has a resolution of 10 ms, too coarse for a few thousand requests.
        let time = |thread: fs::DirEntry| -> Option<(OsString, u64)> {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((thread.file_name(), text.split_whitespace().next()?.parse().ok()?))
        };
        Ok(threads.flatten().filter_map(time).collect())
    }

    /// User and system time since `before` of the threads that still exist.
    pub(crate) fn cpu_since(self, before: &HashMap<OsString, u64>) -> Result<Duration> {
        // A new thread may have the id of one that ended, and less CPU time than that one had.
        let since = |(thread, now): (&OsString, &u64)| now - before.get(thread).copied().unwrap_or_default().min(*now);
        Ok(Duration::from_nanos(self.threads()?.iter().map(since).sum()))
    }

    /// Whether a child of this process has ended. It is a zombie until its exit status is read.
    pub(crate) fn has_ended(self) -> bool {
        let Ok(text) = fs::read_to_string(format!("/proc/{}/stat", self.0)) else { return true };
        // The name in parentheses may contain spaces (proc_pid_stat(5)).
        text.rsplit_once(')').is_none_or(|(_, fields)| fields.trim_start().starts_with('Z'))
    }

    /// Resident memory in MiB.
    pub(crate) fn resident(self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0)).context("the process is gone")?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
}

/// The processes of one server that serve requests.
#[derive(Clone, Debug)]
pub(crate) struct ServingProcesses(Vec<Process>);

impl ServingProcesses {
    /// User and system time of all processes.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.0.iter().map(|process| process.cpu()).sum()
    }

    /// Resident memory in MiB. A page that several processes share counts for each of them.
    pub(crate) fn resident(&self) -> Result<f64> {
        self.0.iter().map(|process| process.resident()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn an_ended_child_is_noticed_before_its_status_is_read() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = Process(child.id());
        assert!(!process.has_ended());
        drop(child.stdin.take());
        while !process.has_ended() {
            std::thread::yield_now();
        }
        assert!(child.wait().unwrap().success());
        assert!(process.has_ended());
    }
}
