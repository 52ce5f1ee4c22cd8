//! A program that runs beside us: started with a log file of its own, awaited until it is ready, ended by its id.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::identity::{Identity, terminate};
use crate::patience::until;
use crate::state::{Entry, State};

/// A running program. Dropping it ends it at once.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    identity: Identity,
    log: PathBuf,
}

impl Process {
    /// Starts it, writes it down, and has its output appended to the log.
    pub fn start(state: &State, name: &str, log: &Path, mut command: Command) -> Result<Process> {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write the log {}", log.display()))?;
        let both = file.try_clone().with_context(|| format!("cannot write the log {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file).stderr(both);
        // Ctrl-C is for us; we end it in order.
        command.process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}: {command:?}"))?;
        // It cannot be gone from the process table, even if it has ended, before we wait for it.
        let Some(identity) = Identity::of(child.id()) else {
            child.kill().with_context(|| format!("cannot end {name}"))?;
            bail!("cannot read the state of {name}; is /proc mounted?");
        };
        let process = Process { name: name.to_owned(), child, identity, log: log.to_owned() };
        state.record(&Entry::Process(identity))?;
        Ok(process)
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Waits until the probe succeeds. Fails with the end of the log when the program ends or time is up: why somebody
    /// else's program is not ready stands there.
    pub async fn until_ready(&mut self, patience: Duration, probe: impl AsyncFn() -> Result<()>) -> Result<()> {
        let what = format!("{} is ready", self.name);
        let child = &mut self.child;
        let ready = until(&what, patience, async || match child.try_wait() {
            Ok(None) => probe().await.map(|()| None),
            Ok(Some(status)) => Ok(Some(status)),
            Err(error) => Err(error).context("cannot ask for it"),
        });
        match ready.await {
            Ok(None) => Ok(()),
            Ok(Some(status)) => bail!("{} ended before it was ready ({status}). {}", self.name, self.end_of_log()),
            Err(error) => bail!("{error:#}. {}", self.end_of_log()),
        }
    }

    /// Asks it to end, and ends it if it has not after this time.
    pub fn stop(mut self, patience: Duration) -> Result<()> {
        terminate(&self.identity, patience).with_context(|| format!("cannot end {}", self.name))?;
        self.child.wait().map(drop).with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Ends it at once, as a crash would.
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
        // Neither can fail but for a process that is gone, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The last lines of a text file, for messages.
pub fn last_lines(path: &Path, number: usize) -> String {
    let text = fs::read(path).unwrap_or_else(|error| format!("(cannot be read: {error})").into_bytes());
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(number)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Claim;

    /// A shell that runs this script, with a journal and a log in this folder.
    fn shell(folder: &Path, script: &str) -> (State, Process) {
        let Claim::Ours(state) = State::claim(&folder.join("journals"), "a").unwrap() else { panic!("it is new") };
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let process = Process::start(&state, "shell", &folder.join("log"), command).unwrap();
        (state, process)
    }

    #[tokio::test]
    async fn a_program_that_ends_before_it_is_ready_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let (_state, mut process) = shell(folder.path(), "echo out; echo no such flag >&2; exit 7");
        let never = process.until_ready(Duration::from_secs(60), async || bail!("it does not listen"));
        let error = never.await.unwrap_err().to_string();
        assert!(error.starts_with("shell ended before it was ready (exit status: 7)"), "{error}");
        assert!(error.ends_with("ends with:\nout\nno such flag"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_ready_in_time_is_told_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (_state, mut process) = shell(folder.path(), "exec sleep 1000");
        let never = process.until_ready(Duration::ZERO, async || bail!("it does not listen"));
        let error = never.await.unwrap_err().to_string();
        assert!(error.starts_with("waited 0 s in vain until shell is ready: it does not listen. Its log "), "{error}");
    }

    #[test]
    fn what_does_not_end_when_asked_is_ended_and_so_is_what_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (state, process) = shell(folder.path(), "trap '' TERM; exec sleep 1000");
        let identity = process.identity();
        process.stop(Duration::from_millis(50)).unwrap();
        assert!(!identity.is_alive());
        let process = Process::start(&state, "sleep", &folder.path().join("log"), {
            let mut command = Command::new("sleep");
            command.arg("1000");
            command
        });
        let identity = process.as_ref().unwrap().identity();
        assert!(identity.is_alive());
        drop(process);
        assert!(!identity.is_alive());
        assert_eq!(state.entries().unwrap().len(), 3, "the owner and two processes");
        state.end().unwrap();
    }
}
