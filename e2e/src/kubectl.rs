//! Runs `kubectl` against the cluster.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::site::Site;

/// Longer than any kubectl command of the tests takes.
const KUBECTL_TIMEOUT: Duration = Duration::from_secs(240);

/// Runs `kubectl` with this standard input and returns its output; on failure, the error has its standard error.
pub async fn run(site: &Site, kubeconfig: &Path, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = site.netns.command(site.programs.kubectl());
    command.args(arguments).env("KUBECONFIG", kubeconfig);
    // The discovery cache is removed with the cluster, and the user's settings are ignored.
    command.env("KUBECACHEDIR", site.folder.join("kubectl")).env("KUBECTL_KUBERC", "false");
    // It ends before collecting garbage is worth its CPU time.
    command.env("GOGC", "off");
    let mut command = Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("cannot start kubectl")?;
    let mut stdin = child.stdin.take().context("stdin of kubectl is not a pipe")?;
    let write_input = async {
        // kubectl may stop reading early; its exit status reports the reason.
        drop(stdin.write_all(input.as_bytes()).await);
        drop(stdin);
    };
    let outcome = timeout(KUBECTL_TIMEOUT, async { tokio::join!(write_input, child.wait_with_output()).1 }).await;
    let line = arguments.join(" ");
    let Ok(output) = outcome else { bail!("kubectl {line}: not finished after {} s", KUBECTL_TIMEOUT.as_secs()) };
    let output = output.with_context(|| format!("kubectl {line}"))?;
    if !output.status.success() {
        bail!("kubectl {line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
