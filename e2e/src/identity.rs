//! Identifies a process by its ID and start time, because the kernel reuses IDs.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process. The start time is in clock ticks since the machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub id: u32,
    pub started: u64,
}

impl ProcessIdentity {
    /// The running process with this ID; None if there is none.
    pub fn lookup(id: u32) -> Option<ProcessIdentity> {
        start_time(id).map(|started| ProcessIdentity { id, started })
    }

    /// This process.
    pub fn current() -> Result<ProcessIdentity> {
        ProcessIdentity::lookup(std::process::id()).context("cannot read /proc/self/stat; is /proc mounted?")
    }

    /// Whether the process exists, also as a zombie.
    pub fn is_alive(&self) -> bool {
        ProcessIdentity::lookup(self.id) == Some(*self)
    }

    /// The CPU time that all threads of the process have used; None if it has ended.
    pub fn cpu_time(&self) -> Option<Duration> {
        let ticks = stat_field(self.id, 14)? + stat_field(self.id, 15)?;
        self.is_alive().then(|| Duration::from_millis(ticks * MILLISECONDS_PER_TICK))
    }

    /// Sends SIGTERM; does nothing if the process has ended.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends SIGKILL; does nothing if the process has ended.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// Sends SIGSTOP; does nothing if the process has ended.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Sends SIGCONT; does nothing if the process has ended.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits until the process has ended. A zombie child counts as ended.
    pub fn wait(&self, limit: Duration) -> Result<()> {
        let Some(pidfd) = self.open_pidfd()? else { return Ok(()) };
        let seconds = limit.as_secs().min(3600);
        let limit = Timespec { tv_sec: seconds.cast_signed(), tv_nsec: limit.subsec_nanos().into() };
        loop {
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) {
                Ok(0) => bail!("process {} is still running after {seconds} s", self.id),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).with_context(|| format!("cannot wait for process {}", self.id)),
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pidfd) = self.open_pidfd()? else { return Ok(()) };
        match pidfd_send_signal(&pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot send a signal to process {}", self.id)),
        }
    }

    /// A pidfd, which stays with this process even if its ID is reused; None if the process has ended.
    fn open_pidfd(&self) -> Result<Option<OwnedFd>> {
        let Some(id) = i32::try_from(self.id).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let pidfd = match pidfd_open(id, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open process {}", self.id)),
        };
        // Checked after opening: if the start time still matches, the pidfd is of the same process.
        Ok((start_time(self.id) == Some(self.started)).then_some(pidfd))
    }
}

/// The kernel counts CPU time for user space in ticks of a hundredth of a second.
const MILLISECONDS_PER_TICK: u64 = 10;

/// Sends SIGTERM, and SIGKILL if the process does not end in time.
pub fn terminate(process: &ProcessIdentity, limit: Duration) -> Result<()> {
    process.terminate()?;
    if process.wait(limit).is_err() {
        process.kill()?;
        process.wait(Duration::from_secs(10))?;
    }
    Ok(())
}

/// The start time of the process with this ID; None if there is none.
fn start_time(id: u32) -> Option<u64> {
    stat_field(id, 22)
}

/// The field of this number in /proc/ID/stat, see proc_pid_stat(5); None if there is no such process.
fn stat_field(id: u32, number: usize) -> Option<u64> {
    // Reading also fails if the process ends meanwhile.
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The program name may contain spaces and parentheses, so fields are counted after it, starting with field 3.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(number - 3)?.parse().ok()
}
