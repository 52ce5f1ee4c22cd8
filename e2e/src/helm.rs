//! `helm`, as people use it, with the chart of this checkout.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::programs;

/// Longer than any `--timeout` that is given to it.
const PATIENCE: Duration = Duration::from_secs(300);

/// The program, with settings of its own and nothing of the user's.
#[derive(Debug)]
pub struct Helm {
    program: PathBuf,
    home: PathBuf,
}

impl Helm {
    /// Builds it if it is not there. What it writes goes into the folder.
    pub fn ready(home: &Path) -> Result<Helm> {
        Ok(Helm { program: programs::helm()?, home: home.to_owned() })
    }

    /// The folder of the chart.
    pub fn chart() -> Result<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("charts").join("portico");
        Ok(path.to_str().context("the checkout's path is not UTF-8")?.to_owned())
    }

    /// Runs it without a cluster and gives what it prints; what it says against the arguments is the error.
    pub fn alone(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        // No server answers there, whatever it is asked.
        self.prepare(&mut command, Path::new("/dev/null"), arguments);
        let output = command.stdin(Stdio::null()).output().context("cannot start helm")?;
        told(arguments, &output)
    }

    /// Runs it against the cluster, with every right.
    pub async fn run(&self, cluster: &Cluster, arguments: &[&str]) -> Result<String> {
        let mut command = cluster.netns().command(&self.program);
        self.prepare(&mut command, cluster.kubeconfig(), arguments);
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(PATIENCE, command.output()).await;
        let Ok(output) = output else {
            bail!("helm {}: no answer after {} s", arguments.join(" "), PATIENCE.as_secs())
        };
        told(arguments, &output.context("cannot start helm")?)
    }

    fn prepare(&self, command: &mut Command, kubeconfig: &Path, arguments: &[&str]) {
        command.args(arguments).env("KUBECONFIG", kubeconfig);
        for (name, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(name, self.home.join(folder));
        }
    }
}

fn told(arguments: &[&str], output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!("helm {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
