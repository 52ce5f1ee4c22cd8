//! A container's process: put into its network, its root, its user and its capabilities by programs of Debian, one
//! handing over to the next, so that what runs in the end is the process that was started.

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
use super::plan::Ending;
use super::privileges::Privileges;
use super::status::Ended;
use crate::identity::Identity;
use crate::netns::Netns;
use crate::state::{Entry, State};

/// What to run, and in what surroundings.
pub(crate) struct Launch<'a> {
    pub(crate) netns: &'a Netns,
    pub(crate) root: &'a Path,
    pub(crate) command: &'a [String],
    pub(crate) environment: &'a Environment,
    pub(crate) privileges: &'a Privileges,
    /// Folders below the root that can be written to even if the rest cannot.
    pub(crate) writable: &'a [PathBuf],
    /// Takes everything that the program prints. A file and no pipe, so that it can be read right after it was written.
    pub(crate) log: File,
}

/// A running process. Dropping it ends it at once.
pub(crate) struct Running {
    child: Child,
    pub(crate) identity: Identity,
    pub(crate) since: Timestamp,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
}

/// Runs in the mount namespace that `ip netns exec` makes, so nobody else sees these mounts and they go with the
/// process. Its arguments: the root, the variable PATH, whether the root is read-only, how many writable folders follow,
/// the folders, and what to run at last.
const SURROUND: &str = r#"
set -e
capsh=$(command -v capsh) || { echo "capsh is missing; install libcap2-bin" >&2; exit 127; }
root=$1 path=$2 protected=$3 folders=$4
shift 4
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
while [ "$folders" -gt 0 ]; do
    mount --bind "$root/$1" "$root/$1"
    shift
    folders=$((folders - 1))
done
[ "$protected" = no ] || mount -o remount,bind,ro "$root"
unset PWD
export PATH="$path"
exec "$capsh" --chroot="$root" "$@"
"#;

impl Launch<'_> {
    /// Starts it and writes it down.
    pub(crate) fn start(self, state: &State, now: Timestamp) -> Result<Running> {
        let mut command = self.netns.command("sh");
        command.args(["-c", SURROUND, "sh"]).arg(self.root);
        command.arg(self.environment.get("PATH").map_or("", String::as_str));
        command.arg(if self.privileges.read_only { "yes" } else { "no" });
        command.arg(self.writable.len().to_string()).args(self.writable);
        let Some((program, arguments)) = self.command.split_first() else { bail!("there is no command to run") };
        command.args(surrender(self.privileges)).arg(format!("--shell={program}")).arg("--").args(arguments);
        command.env_clear().envs(self.environment);
        // For the programs on the way; the container's own comes in at the end.
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let both = self.log.try_clone().context("cannot share the log")?;
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).stdout(self.log).stderr(both).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        // It cannot be gone from the process table, even if it has ended, before we wait for it.
        let Some(identity) = child.id().and_then(Identity::of) else {
            child.start_kill().context("cannot end what was just started")?;
            bail!("cannot read the state of {program}; is /proc mounted?");
        };
        let running = Running { child, identity, since: now };
        state.record(&Entry::Process(identity))?;
        Ok(running)
    }
}

/// What capsh gives up, in this order: the right to drop goes with the user.
fn surrender(privileges: &Privileges) -> Vec<String> {
    let mut arguments = Vec::new();
    if !privileges.dropped.is_empty() {
        let names: Vec<String> = privileges.dropped.iter().map(|name| format!("cap_{name}")).collect();
        arguments.push(format!("--drop={}", names.join(",")));
    }
    let groups = std::iter::once(&privileges.group).chain(&privileges.groups).map(u32::to_string);
    arguments.push(format!("--gid={}", privileges.group));
    arguments.push(format!("--groups={}", groups.collect::<Vec<_>>().join(",")));
    arguments.push(format!("--uid={}", privileges.user));
    if !privileges.may_gain {
        arguments.push("--no-new-privs".to_owned());
    }
    arguments
}

impl Running {
    /// Waits until it has ended. Nothing is lost when the waiting is given up.
    pub(crate) async fn until_ended(&mut self) {
        // It can only fail where there is nothing to wait for.
        drop(self.child.wait().await);
    }

    /// Ends it at once, if it has not ended yet, and says how it ended.
    pub(crate) async fn kill(&mut self) -> Result<Ended> {
        self.identity.kill()?;
        let status = self.child.wait().await.context("cannot wait for a container")?;
        Ok(Ended { exit: Exit::from(status), since: self.since, at: Timestamp::now() })
    }
}

/// Lets a process end in the way that its Pod asks for. Afterwards it has ended, or has had its time.
pub(crate) async fn wind_down(running: &mut Running, ending: Ending) {
    let Ending::InOrder { pause, grace } = ending else { return };
    let deadline = Instant::now() + grace;
    // The pause is part of the time, but what remains of it is never nothing.
    if timeout(pause.min(grace), running.until_ended()).await.is_ok() || running.identity.terminate().is_err() {
        return;
    }
    let deadline = deadline.max(Instant::now() + LEAST);
    // Out of time: whoever called ends it.
    drop(timeout_at(deadline, running.until_ended()).await);
}

/// What a program has at least after the signal, as the kubelet gives it.
const LEAST: Duration = Duration::from_secs(2);

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Exit {
        let signal = status.signal();
        // As shells have it.
        Exit { code: status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default()), signal }
    }
}

impl Exit {
    pub(crate) fn good(&self) -> bool {
        self.code == 0
    }
}
