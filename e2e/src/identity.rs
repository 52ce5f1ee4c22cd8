//! A process that cannot be mistaken for another: its id, and when it started, because ids are used again.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process. Its start is counted in the kernel's clock ticks since the machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    pub id: u32,
    pub started: u64,
}

impl Identity {
    /// The running process that has this id now; none if there is none.
    pub fn of(id: u32) -> Option<Identity> {
        started(id).map(|started| Identity { id, started })
    }

    /// This process.
    pub fn own() -> Result<Identity> {
        Identity::of(std::process::id()).context("cannot read /proc/self/stat; is /proc mounted?")
    }

    /// Whether it is there, if only to be waited for.
    pub fn is_alive(&self) -> bool {
        Identity::of(self.id) == Some(*self)
    }

    /// Asks it to end. Fine if it is gone.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends it. Fine if it is gone.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// Waits until it has ended. A child of ours counts as ended before it has been waited for.
    pub fn wait(&self, patience: Duration) -> Result<()> {
        let Some(handle) = self.open()? else { return Ok(()) };
        let seconds = patience.as_secs().min(3600);
        let patience = Timespec { tv_sec: seconds.cast_signed(), tv_nsec: patience.subsec_nanos().into() };
        loop {
            match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&patience)) {
                Ok(0) => bail!("process {} has not ended after {seconds} s", self.id),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).with_context(|| format!("cannot wait for process {}", self.id)),
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(handle) = self.open()? else { return Ok(()) };
        match pidfd_send_signal(&handle, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot end process {}", self.id)),
        }
    }

    /// A handle that stays with this process even if its id is used again; none if it is gone.
    fn open(&self) -> Result<Option<OwnedFd>> {
        let Some(id) = i32::try_from(self.id).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let handle = match pidfd_open(id, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open process {}", self.id)),
        };
        // Asked after opening: if it is the one we mean now, so is what the handle stands for.
        Ok((started(self.id) == Some(self.started)).then_some(handle))
    }
}

/// Asks a process to end, waits, and ends it if it has not by then.
pub fn terminate(process: &Identity, patience: Duration) -> Result<()> {
    process.terminate()?;
    if process.wait(patience).is_err() {
        process.kill()?;
        process.wait(Duration::from_secs(10))?;
    }
    Ok(())
}

/// When the process of this id started; none if there is none.
fn started(id: u32) -> Option<u64> {
    let stat = match fs::read_to_string(format!("/proc/{id}/stat")) {
        Ok(stat) => stat,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        // It ended while it was read.
        Err(_) => return None,
    };
    // The name of the program may hold spaces and parentheses, so count from its end: field 3 comes first.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(22 - 3)?.parse().ok()
}
