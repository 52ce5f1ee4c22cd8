//! A terminal on the machine of somebody who has a cluster and a checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use portico_e2e::cluster::{Channel, Cluster};
use portico_e2e::{portico, programs};
use tokio::process::Command;
use tokio::time::timeout;

use crate::checkout;

/// Longer than what Helm waits for.
const PATIENCE: Duration = Duration::from_secs(330);
/// What pages take from the checkout.
const FOLDERS: [&str; 4] = ["charts", "crds", "examples", "manifests"];

pub(crate) struct Terminal<'a> {
    cluster: &'a Cluster,
    /// A copy of what pages take from the checkout, so that nothing is written into that.
    folder: PathBuf,
    path: String,
}

impl<'a> Terminal<'a> {
    /// With nothing of what was typed in another one.
    pub(crate) fn open(cluster: &'a Cluster, page: &str) -> Result<Terminal<'a>> {
        let folder = cluster.folder().join("pages").join(page.replace('/', "-")).join("portico");
        fs::create_dir_all(&folder)?;
        let copied =
            std::process::Command::new("cp").arg("-r").args(FOLDERS).arg(&folder).current_dir(checkout()).status()?;
        ensure!(copied.success(), "cannot copy {FOLDERS:?}");
        let mut path = std::env::var("PATH").context("there is a PATH")?;
        for program in [portico::program()?, cluster.programs().kubectl(), programs::helm()?] {
            let folder = program.parent().and_then(Path::to_str).context("a program's path is not UTF-8")?;
            path = format!("{folder}:{path}");
        }
        Ok(Terminal { cluster, folder, path })
    }

    /// The exit code, and all that is printed. The first command that fails ends it.
    pub(crate) async fn type_in(&self, commands: &str) -> Result<(i32, String)> {
        let mut command = self.cluster.netns().command("bash");
        command.args(["--norc", "-euo", "pipefail", "-c", &format!("exec 2>&1\n{}", self.as_here(commands)?)]);
        command.current_dir(&self.folder).stdin(Stdio::null());
        command.env("PATH", &self.path).env("HOME", &self.folder).env("KUBECONFIG", self.cluster.kubeconfig());
        command.env("KUBECACHEDIR", self.folder.join(".kubectl")).env("KUBECTL_KUBERC", "false");
        let output = timeout(PATIENCE, Command::from(command).kill_on_drop(true).output()).await;
        let output = output.with_context(|| format!("no end after {} s:\n{commands}", PATIENCE.as_secs()))??;
        let code = output.status.code().context("it was killed")?;
        Ok((code, String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// A file of its own, which a page shows.
    pub(crate) fn save(&self, file: &str, text: &str) -> Result<()> {
        let path = self.folder.join(file);
        fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
        fs::write(path, text).context("cannot write it")
    }

    /// There is no network but the cluster's, and that has another name here.
    fn as_here(&self, commands: &str) -> Result<String> {
        const RELEASES: &str = "https://github.com/kubernetes-sigs/gateway-api/releases/download/";
        let mut commands = commands.replace("portico-e2e-hand", self.cluster.netns().name());
        while let Some((before, rest)) = commands.split_once(RELEASES) {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (file, after) = rest.split_at(end);
            let (version, name) = file.split_once('/').context("a release has files")?;
            let modules = fs::read_to_string(checkout().join("e2e/go/conformance/go.mod"))?;
            let tested = modules.contains(&format!("sigs.k8s.io/gateway-api {version} "));
            ensure!(tested, "{version} of the Gateway API is not the one that is tested");
            let channel = match name {
                "standard-install.yaml" => Channel::Standard,
                "experimental-install.yaml" => Channel::Experimental,
                _ => bail!("what is {name} of the Gateway API?"),
            };
            let folder = self.cluster.programs().crds(channel);
            commands = format!("{before}{}{after}", folder.display());
        }
        Ok(commands)
    }
}
