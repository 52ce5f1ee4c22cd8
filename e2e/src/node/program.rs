//! The process of a container. A chain of programs sets its network, root, user and capabilities and replaces itself
//! with the next one, so that the container's program is the started process.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::jiff::Timestamp;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};

use super::environment::Environment;
use super::plan::TerminationMode;
use super::privileges::Privileges;
use super::status::Termination;
use crate::identity::ProcessIdentity;
use crate::journal::{Journal, JournalEntry};
use crate::netns::Netns;

/// What to run, and in which environment.
pub(crate) struct Launch<'a> {
    pub(crate) netns: &'a Netns,
    pub(crate) root: &'a Path,
    pub(crate) command: &'a [String],
    pub(crate) environment: &'a Environment,
    pub(crate) privileges: &'a Privileges,
    /// Folders below the root that are writable even if the root is not.
    pub(crate) writable: &'a [PathBuf],
    /// Takes all output. A file instead of a pipe, so that output can be read as soon as it is written.
    pub(crate) log: File,
}

/// A running process. Dropping it kills it.
pub(crate) struct RunningProcess {
    child: Child,
    pub(crate) identity: ProcessIdentity,
    pub(crate) since: Timestamp,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContainerExit {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
}

/// Runs in the mount namespace of `ip netns exec`, so its mounts are private and end with the process. Arguments: the
/// root, PATH, whether the root is read-only, the number of writable folders, the folders, and arguments of capsh.
const ENTRY_SCRIPT: &str = r#"
set -e
capsh=$(command -v capsh) || { echo "capsh is missing; install libcap2-bin" >&2; exit 127; }
root=$1 path=$2 read_only=$3 folders=$4
shift 4
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
while [ "$folders" -gt 0 ]; do
    mount --bind "$root/$1" "$root/$1"
    shift
    folders=$((folders - 1))
done
[ "$read_only" = no ] || mount -o remount,bind,ro "$root"
unset PWD
export PATH="$path"
exec "$capsh" --chroot="$root" "$@"
"#;

impl Launch<'_> {
    /// Starts the process and records it in the journal.
    pub(crate) fn start(self, journal: &Journal, now: Timestamp) -> Result<RunningProcess> {
        let mut command = self.netns.command("sh");
        command.args(["-c", ENTRY_SCRIPT, "sh"]).arg(self.root);
        command.arg(self.environment.get("PATH").map_or("", String::as_str));
        command.arg(if self.privileges.read_only_root { "yes" } else { "no" });
        command.arg(self.writable.len().to_string()).args(self.writable);
        let Some((program, arguments)) = self.command.split_first() else { bail!("the command is empty") };
        command.args(capsh_arguments(self.privileges)).arg(format!("--shell={program}")).arg("--").args(arguments);
        command.env_clear().envs(self.environment);
        // PATH of the programs that start each other; the script sets the container's PATH at its end.
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let stderr = self.log.try_clone().context("cannot duplicate the log file")?;
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).stdout(self.log).stderr(stderr).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        // Finds the process even if it has ended already: it stays in the process table until it is waited for.
        let Some(identity) = child.id().and_then(ProcessIdentity::lookup) else {
            child.start_kill().context("cannot kill the new process")?;
            bail!("cannot read the state of {program}; is /proc mounted?");
        };
        let running = RunningProcess { child, identity, since: now };
        journal.record(&JournalEntry::Process(identity))?;
        Ok(running)
    }
}

/// Arguments of capsh, in this order: capabilities must be dropped before the user changes.
fn capsh_arguments(privileges: &Privileges) -> Vec<String> {
    let mut arguments = Vec::new();
    if !privileges.dropped.is_empty() {
        let names: Vec<String> = privileges.dropped.iter().map(|name| format!("cap_{name}")).collect();
        arguments.push(format!("--drop={}", names.join(",")));
    }
    let groups = std::iter::once(&privileges.group).chain(&privileges.groups).map(u32::to_string);
    arguments.push(format!("--gid={}", privileges.group));
    arguments.push(format!("--groups={}", groups.collect::<Vec<_>>().join(",")));
    arguments.push(format!("--uid={}", privileges.user));
    if !privileges.may_escalate {
        arguments.push("--no-new-privs".to_owned());
    }
    arguments
}

impl RunningProcess {
    /// Waits until the process has ended. The wait can be canceled.
    pub(crate) async fn wait(&mut self) {
        // An error means that there is no process to wait for.
        drop(self.child.wait().await);
    }

    /// Kills the process, if it has not ended yet, and returns how it ended.
    pub(crate) async fn kill(&mut self) -> Result<Termination> {
        self.identity.kill()?;
        let status = self.child.wait().await.context("cannot wait for a container")?;
        Ok(Termination { exit: ContainerExit::from(status), started_at: self.since, finished_at: Timestamp::now() })
    }
}

/// Terminates a process as its Pod requests. Afterwards it has ended, or its grace period is over.
pub(crate) async fn terminate(running: &mut RunningProcess, mode: TerminationMode) {
    let TerminationMode::Graceful { pause, grace } = mode else { return };
    let deadline = Instant::now() + grace;
    // The pause is part of the grace period, but at least MIN_GRACE follows the signal.
    if timeout(pause.min(grace), running.wait()).await.is_ok() || running.identity.terminate().is_err() {
        return;
    }
    let deadline = deadline.max(Instant::now() + MIN_GRACE);
    // The caller kills the process after the grace period.
    drop(timeout_at(deadline, running.wait()).await);
}

/// The minimum time after the signal, as for the kubelet.
const MIN_GRACE: Duration = Duration::from_secs(2);

impl From<ExitStatus> for ContainerExit {
    fn from(status: ExitStatus) -> ContainerExit {
        let signal = status.signal();
        // For a signal, the exit code that shells report.
        ContainerExit { code: status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default()), signal }
    }
}

impl ContainerExit {
    pub(crate) fn is_success(&self) -> bool {
        self.code == 0
    }
}
