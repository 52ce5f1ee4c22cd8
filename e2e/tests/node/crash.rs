//! Tests that `portico-e2e down` removes what the Pods of a crashed harness leave.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use portico_e2e::journal;
use portico_e2e::scenario;
use portico_e2e::site::folder_of;
use serde_json::json;

use crate::control_plane::CRASH_JOURNALS;
use crate::node::echo::{NODE_TIMEOUT, deployment};

const PROGRAM: &str = env!("CARGO_BIN_EXE_portico-e2e");

#[test]
fn down_removes_pods_of_a_crashed_harness() {
    if !scenario::is_enabled() {
        return;
    }
    let name = scenario::checkout_name("node-crash");
    let outcome = crash(&name);
    let mut down = Command::new(PROGRAM);
    let down = down.env(journal::FOLDER_VARIABLE, CRASH_JOURNALS).args(["down", &name]).output().unwrap();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    outcome.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(roots(&name), Vec::<PathBuf>::new(), "processes of Pods are still running");
    assert_eq!(namespaces(&name), Vec::<String>::new(), "network namespaces of Pods still exist");
}

/// Starts a cluster with two Pods and kills its harness.
fn crash(name: &str) -> Result<()> {
    let mut harness = Harness::start(name)?;
    let instructions = harness.instructions()?;
    let text_after = |prefix: &str| {
        let line = instructions.iter().find_map(|line| Some(line.split_once(prefix)?.1.trim_end_matches('\'')));
        line.with_context(|| format!("`{prefix}…` is missing in the instructions: {instructions:?}"))
    };
    let (command, kubeconfig) = (text_after("alias kubectl='")?, text_after("export KUBECONFIG=")?);
    let kubectl = |arguments: &str| -> Result<()> {
        let mut shell = Command::new("sh");
        let output = shell.args(["-c", &format!("{command} {arguments}")]).env("KUBECONFIG", kubeconfig).output()?;
        ensure!(output.status.success(), "kubectl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let manifest = folder_of(name).join("pods.json");
    fs::write(&manifest, deployment("echo", 2, json!({})).to_string())?;
    kubectl(&format!("apply -f {}", manifest.display()))?;
    kubectl(&format!("rollout status deployment/echo --timeout={}s", NODE_TIMEOUT.as_secs()))?;
    drop(harness);
    ensure!(roots(name).len() == 2, "two Pods must outlive the harness: {:?}", roots(name));
    ensure!(
        namespaces(name).len() == 3,
        "the namespaces of the cluster and of two Pods must exist: {:?}",
        namespaces(name)
    );
    Ok(())
}

/// A process of `portico-e2e run`, which is killed on drop, like by a crash.
struct Harness(Child);

impl Harness {
    fn start(name: &str) -> Result<Harness> {
        let mut command = Command::new(PROGRAM);
        command.env(journal::FOLDER_VARIABLE, CRASH_JOURNALS);
        let child = command.args(["run", name, "--no-crds"]).stdout(Stdio::piped()).spawn()?;
        Ok(Harness(child))
    }

    /// The instructions for users, which the harness prints before it is ready.
    fn instructions(&mut self) -> Result<Vec<String>> {
        let output = self.0.stdout.take().context("stdout is not a pipe")?;
        let mut instructions = Vec::new();
        for line in BufReader::new(output).lines() {
            let line = line?;
            if line == "The cluster runs until Ctrl-C." {
                return Ok(instructions);
            }
            instructions.push(line);
        }
        bail!("portico-e2e did not start: {instructions:?}")
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.0.kill().expect("the harness can be killed");
        self.0.wait().expect("the harness can be waited for");
    }
}

/// The root folders of running processes that are in the cluster's folder: those of its Pods.
fn roots(name: &str) -> Vec<PathBuf> {
    let folder = folder_of(name);
    let processes =
        fs::read_dir("/proc").expect("/proc is mounted").filter_map(|process| Some(process.ok()?.path().join("root")));
    processes.filter_map(|root| fs::read_link(root).ok()).filter(|root| root.starts_with(&folder)).collect()
}

/// Names of the cluster's network namespaces.
fn namespaces(name: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new("/run/netns")).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let prefix = format!("portico-e2e-{name}");
    names.filter(|netns| *netns == prefix || netns.starts_with(&format!("{prefix}-"))).collect()
}
