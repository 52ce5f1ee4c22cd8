//! A child program with its own log file, a readiness check, and termination by process ID.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::identity::{ProcessIdentity, terminate};
use crate::journal::{Journal, JournalEntry};
use crate::wait::until;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    identity: ProcessIdentity,
    log: PathBuf,
}

impl Process {
    /// Starts the program, records it in the journal, and appends its output to the log.
    pub fn start(journal: &Journal, name: &str, log: &Path, mut command: Command) -> Result<Process> {
        let stdout = OpenOptions::new().create(true).append(true).open(log);
        let stdout = stdout.with_context(|| format!("cannot write the log {}", log.display()))?;
        let stderr = stdout.try_clone().with_context(|| format!("cannot write the log {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        // Ctrl-C is for this process, which stops the program gracefully.
        command.process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot start {name} ({command:?})"))?;
        // Finds the process even if it has ended already: it stays in the process table until it is waited for.
        let Some(identity) = ProcessIdentity::lookup(child.id()) else {
            child.kill().with_context(|| format!("cannot end {name}"))?;
            bail!("cannot read the state of {name}; is /proc mounted?");
        };
        let process = Process { name: name.to_owned(), child, identity, log: log.to_owned() };
        journal.record(&JournalEntry::Process(identity))?;
        Ok(process)
    }

    pub fn identity(&self) -> ProcessIdentity {
        self.identity
    }

    /// Waits until the probe succeeds. If the program ends or the time is up, the error shows the end of the log.
    pub async fn wait_until_ready(&mut self, limit: Duration, probe: impl AsyncFn() -> Result<()>) -> Result<()> {
        let condition = format!("{} is ready", self.name);
        let child = &mut self.child;
        // None if the program is ready.
        let exit_status = until(&condition, limit, async || match child.try_wait() {
            Ok(None) => probe().await.map(|()| None),
            Ok(Some(status)) => Ok(Some(status)),
            Err(error) => Err(error).context("cannot query the process"),
        });
        match exit_status.await {
            Ok(None) => Ok(()),
            Ok(Some(status)) => bail!("{} ended before it was ready ({status}). {}", self.name, self.end_of_log()),
            Err(error) => bail!("{error:#}. {}", self.end_of_log()),
        }
    }

    /// Sends SIGTERM, and SIGKILL if the program still runs after `limit`.
    pub fn stop(mut self, limit: Duration) -> Result<()> {
        terminate(&self.identity, limit).with_context(|| format!("cannot end {}", self.name))?;
        self.child.wait().map(drop).with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Kills the program, like a crash.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot end {}", self.name))?;
        self.child.wait().map(drop).with_context(|| format!("cannot wait for {}", self.name))
    }

    fn end_of_log(&self) -> String {
        format!("Its log {} ends with:\n{}", self.log.display(), last_lines(&self.log, 15))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // These fail only if the process has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The last lines of a text file, for messages.
pub fn last_lines(path: &Path, count: usize) -> String {
    let text = fs::read(path).unwrap_or_else(|error| format!("(cannot be read: {error})").into_bytes());
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Claim;

    /// A shell that runs this script, with a journal and a log in this folder.
    fn shell(folder: &Path, script: &str) -> (Journal, Process) {
        let Claim::Claimed(journal) = Journal::claim(&folder.join("journals"), "a").unwrap() else {
            panic!("the journal is in use")
        };
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let process = Process::start(&journal, "shell", &folder.join("log"), command).unwrap();
        (journal, process)
    }

    #[tokio::test]
    async fn early_exit_is_reported_with_the_end_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let (_journal, mut process) = shell(folder.path(), "echo out; echo no such flag >&2; exit 7");
        let readiness = process.wait_until_ready(Duration::from_secs(60), async || bail!("it does not listen"));
        let error = readiness.await.unwrap_err().to_string();
        assert!(error.starts_with("shell ended before it was ready (exit status: 7)"), "{error}");
        assert!(error.ends_with("ends with:\nout\nno such flag"), "{error}");
    }

    #[tokio::test]
    async fn readiness_timeout_is_reported_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (_journal, mut process) = shell(folder.path(), "exec sleep 1000");
        let readiness = process.wait_until_ready(Duration::ZERO, async || bail!("it does not listen"));
        let error = readiness.await.unwrap_err().to_string();
        assert!(
            error.starts_with("timed out after 0 s waiting until shell is ready: it does not listen. Its log "),
            "{error}"
        );
    }

    #[test]
    fn stop_and_drop_end_a_process_that_ignores_sigterm() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, process) = shell(folder.path(), "trap '' TERM; exec sleep 1000");
        let identity = process.identity();
        process.stop(Duration::from_millis(50)).unwrap();
        assert!(!identity.is_alive());
        let process = Process::start(&journal, "sleep", &folder.path().join("log"), {
            let mut command = Command::new("sleep");
            command.arg("1000");
            command
        });
        let identity = process.as_ref().unwrap().identity();
        assert!(identity.is_alive());
        drop(process);
        assert!(!identity.is_alive());
        assert_eq!(journal.entries().unwrap().len(), 3, "the owner and two processes");
        journal.end().unwrap();
    }
}
