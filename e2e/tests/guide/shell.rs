//! A shell with access to a cluster and a checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use portico_e2e::cluster::{Channel, Cluster};
use portico_e2e::{portico, programs};
use tokio::process::Command;
use tokio::time::timeout;

use crate::guide::checkout;

/// Longer than the timeouts of Helm.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(330);
/// Folders of the checkout that pages use.
const FOLDERS: [&str; 4] = ["charts", "crds", "examples", "manifests"];

pub(crate) struct Shell<'a> {
    cluster: &'a Cluster,
    /// The working folder: it has copies of [`FOLDERS`], so that the checkout is not modified.
    folder: PathBuf,
    /// The environment variable PATH.
    path: String,
}

impl<'a> Shell<'a> {
    /// Creates the shell of a page, with new copies of [`FOLDERS`].
    pub(crate) fn open(cluster: &'a Cluster, page: &str) -> Result<Shell<'a>> {
        let folder = cluster.folder().join("pages").join(page.replace('/', "-")).join("portico");
        fs::create_dir_all(&folder)?;
        let status =
            std::process::Command::new("cp").arg("-r").args(FOLDERS).arg(&folder).current_dir(checkout()).status()?;
        ensure!(status.success(), "cannot copy {FOLDERS:?}");
        let mut path = std::env::var("PATH").context("PATH is not set")?;
        for program in [portico::program()?, cluster.programs().kubectl(), programs::helm()?] {
            let folder = program.parent().and_then(Path::to_str).context("a program's path is not UTF-8")?;
            path = format!("{folder}:{path}");
        }
        Ok(Shell { cluster, folder, path })
    }

    /// Runs commands, up to the first that fails, and returns the exit code and the output.
    pub(crate) async fn run(&self, commands: &str) -> Result<(i32, String)> {
        let mut command = self.cluster.netns().command("bash");
        command.args(["--norc", "-euo", "pipefail", "-c", &format!("exec 2>&1\n{}", self.adapt(commands)?)]);
        command.current_dir(&self.folder).stdin(Stdio::null());
        command.env("PATH", &self.path).env("HOME", &self.folder).env("KUBECONFIG", self.cluster.kubeconfig());
        command.env("KUBECACHEDIR", self.folder.join(".kubectl")).env("KUBECTL_KUBERC", "false");
        let output = timeout(COMMAND_TIMEOUT, Command::from(command).kill_on_drop(true).output()).await;
        let output =
            output.with_context(|| format!("still running after {} s:\n{commands}", COMMAND_TIMEOUT.as_secs()))??;
        let code = output.status.code().context("the shell was killed")?;
        Ok((code, String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Saves a file that a page shows.
    pub(crate) fn save(&self, file: &str, text: &str) -> Result<()> {
        let path = self.folder.join(file);
        fs::create_dir_all(path.parent().context("the file has no folder")?)?;
        fs::write(path, text).context("cannot write the file")
    }

    /// Replaces the name of the network namespace in the page by that of the cluster, and the URLs of Gateway API
    /// releases by local folders, because there is no network.
    fn adapt(&self, commands: &str) -> Result<String> {
        const RELEASE_URL: &str = "https://github.com/kubernetes-sigs/gateway-api/releases/download/";
        let mut commands = commands.replace("portico-e2e-hand", self.cluster.netns().name());
        while let Some((before, rest)) = commands.split_once(RELEASE_URL) {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (file, after) = rest.split_at(end);
            let (version, name) = file.split_once('/').context("the release URL has no file")?;
            let modules = fs::read_to_string(checkout().join("e2e/go/conformance/go.mod"))?;
            let is_tested = modules.contains(&format!("sigs.k8s.io/gateway-api {version} "));
            ensure!(is_tested, "Gateway API {version} is not the tested version");
            let channel = match name {
                "standard-install.yaml" => Channel::Standard,
                "experimental-install.yaml" => Channel::Experimental,
                _ => bail!("unknown release file {name} of the Gateway API"),
            };
            let crds_folder = self.cluster.programs().crds(channel);
            commands = format!("{before}{}{after}", crds_folder.display());
        }
        Ok(commands)
    }
}
