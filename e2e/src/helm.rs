//! Runs `helm` with the chart of this checkout.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::programs;

/// Longer than any `--timeout` that is passed to helm.
const HELM_TIMEOUT: Duration = Duration::from_secs(300);

/// The helm program. It uses settings of its own instead of the user's.
#[derive(Debug)]
pub struct Helm {
    program: PathBuf,
    /// The folder of helm's cache, configuration and data.
    home: PathBuf,
}

impl Helm {
    /// Builds helm if needed. Helm writes its cache, configuration and data to the folder `home`.
    pub fn build(home: &Path) -> Result<Helm> {
        Ok(Helm { program: programs::helm()?, home: home.to_owned() })
    }

    /// The folder of the chart.
    pub fn chart() -> Result<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("charts").join("portico");
        Ok(path.to_str().context("the checkout's path is not UTF-8")?.to_owned())
    }

    /// Runs helm without a cluster and returns its output; on failure, the error has its standard error.
    pub fn run_without_cluster(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        // An empty kubeconfig: helm cannot reach any API server.
        self.set_arguments(&mut command, Path::new("/dev/null"), arguments);
        let output = command.stdin(Stdio::null()).output().context("cannot start helm")?;
        output_or_error(arguments, &output)
    }

    /// Runs helm against the cluster, with administrator rights.
    pub async fn run(&self, cluster: &Cluster, arguments: &[&str]) -> Result<String> {
        let mut command = cluster.netns().command(&self.program);
        self.set_arguments(&mut command, cluster.kubeconfig(), arguments);
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(HELM_TIMEOUT, command.output()).await;
        let Ok(output) = output else {
            bail!("helm {}: not finished after {} s", arguments.join(" "), HELM_TIMEOUT.as_secs())
        };
        output_or_error(arguments, &output.context("cannot start helm")?)
    }

    fn set_arguments(&self, command: &mut Command, kubeconfig: &Path, arguments: &[&str]) {
        command.args(arguments).env("KUBECONFIG", kubeconfig);
        for (name, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(name, self.home.join(folder));
        }
        // It ends before collecting garbage is worth its CPU time.
        command.env("GOGC", "off");
    }
}

fn output_or_error(arguments: &[&str], output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!("helm {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
