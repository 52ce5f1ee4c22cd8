//! `kubectl`, as people use it, against the cluster.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::site::Site;

/// No command of ours takes this long on a machine that works.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `kubectl` and gives what it prints; what it says against the arguments is the error.
pub async fn run(site: &Site, kubeconfig: &Path, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = site.netns.command(site.programs.kubectl());
    command.args(arguments).env("KUBECONFIG", kubeconfig);
    // What it learns of the server goes with the cluster, and nothing of the user's settings comes in.
    command.env("KUBECACHEDIR", site.folder.join("kubectl")).env("KUBECTL_KUBERC", "false");
    let mut command = Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("cannot start kubectl")?;
    let mut stdin = child.stdin.take().context("kubectl has a standard input")?;
    let feed = async {
        // It may have read enough, or failed, before the end; its answer tells.
        drop(stdin.write_all(input.as_bytes()).await);
        drop(stdin);
    };
    let outcome = timeout(PATIENCE, async { tokio::join!(feed, child.wait_with_output()).1 }).await;
    let line = arguments.join(" ");
    let Ok(output) = outcome else { bail!("kubectl {line}: no answer after {} s", PATIENCE.as_secs()) };
    let output = output.with_context(|| format!("kubectl {line}"))?;
    if !output.status.success() {
        bail!("kubectl {line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
