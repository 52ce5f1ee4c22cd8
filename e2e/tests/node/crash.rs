//! What is left of Pods after a crash of the harness, until it is ended by `down`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use portico_e2e::scenario;
use portico_e2e::site::folder_of;
use serde_json::json;

use crate::echo::{PATIENCE, deployment};

const PROGRAM: &str = env!("CARGO_BIN_EXE_portico-e2e");

#[test]
fn down_ends_the_pods_of_a_crashed_harness() {
    if !scenario::wanted() {
        return;
    }
    let name = scenario::name_here("node-crash");
    let outcome = crash(&name);
    let down = Command::new(PROGRAM).args(["down", &name]).output().unwrap();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    outcome.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(roots(&name), Vec::<PathBuf>::new(), "processes of Pods live on");
    assert_eq!(namespaces(&name), Vec::<String>::new(), "networks of Pods are still there");
}

/// Leaves a cluster with two Pods behind whose harness was killed.
fn crash(name: &str) -> Result<()> {
    let mut harness = Harness::start(name)?;
    let instructions = harness.instructions()?;
    let said = |before: &str| {
        let line = instructions.iter().find_map(|line| Some(line.split_once(before)?.1.trim_end_matches('\'')));
        line.with_context(|| format!("it does not say `{before}…`: {instructions:?}"))
    };
    let (command, kubeconfig) = (said("alias kubectl='")?, said("export KUBECONFIG=")?);
    let kubectl = |arguments: &str| -> Result<()> {
        let mut shell = Command::new("sh");
        let output = shell.args(["-c", &format!("{command} {arguments}")]).env("KUBECONFIG", kubeconfig).output()?;
        ensure!(output.status.success(), "kubectl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let manifest = folder_of(name).join("pods.json");
    fs::write(&manifest, deployment("echo", 2, json!({})).to_string())?;
    kubectl(&format!("apply -f {}", manifest.display()))?;
    kubectl(&format!("rollout status deployment/echo --timeout={}s", PATIENCE.as_secs()))?;
    drop(harness);
    ensure!(roots(name).len() == 2, "two Pods should live on: {:?}", roots(name));
    ensure!(namespaces(name).len() == 3, "the cluster's network and two of Pods: {:?}", namespaces(name));
    Ok(())
}

/// `portico-e2e run`. Dropping it kills it, as a crash does.
struct Harness(Child);

impl Harness {
    fn start(name: &str) -> Result<Harness> {
        let mut command = Command::new(PROGRAM);
        let child = command.args(["run", name, "--no-crds"]).stdout(Stdio::piped()).spawn()?;
        Ok(Harness(child))
    }

    /// What it says until it is ready.
    fn instructions(&mut self) -> Result<Vec<String>> {
        let output = self.0.stdout.take().context("its output is a pipe")?;
        let mut instructions = Vec::new();
        for line in BufReader::new(output).lines() {
            let line = line?;
            if line == "It runs until Ctrl-C." {
                return Ok(instructions);
            }
            instructions.push(line);
        }
        bail!("it did not start: {instructions:?}")
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.0.kill().expect("it is ours to end");
        self.0.wait().expect("it is our child");
    }
}

/// Roots of processes in the cluster's folder.
fn roots(name: &str) -> Vec<PathBuf> {
    let folder = folder_of(name);
    let processes =
        fs::read_dir("/proc").expect("/proc is mounted").filter_map(|process| Some(process.ok()?.path().join("root")));
    processes.filter_map(|root| fs::read_link(root).ok()).filter(|root| root.starts_with(&folder)).collect()
}

/// Names of network namespaces of the cluster.
fn namespaces(name: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new("/run/netns")).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let prefix = format!("portico-e2e-{name}");
    names.filter(|found| *found == prefix || found.starts_with(&format!("{prefix}-"))).collect()
}
