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
