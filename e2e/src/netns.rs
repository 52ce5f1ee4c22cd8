//! Named network namespaces: created, entered and deleted with `ip`, with errors that suggest a solution.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace by its name. It exists until [`Netns::delete`]; dropping this value does nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// A handle for the namespace with this name, which need not exist.
    pub fn named(name: impl Into<String>) -> Netns {
        Netns { name: name.into() }
    }

    /// Creates the namespace and brings its loopback interface up.
    pub fn create(&self) -> Result<()> {
        ip(&["netns", "add", &self.name])
            .with_context(|| format!("cannot create the network namespace {}; this needs root", self.name))?;
        self.ip(&["link", "set", "lo", "up"])?;
        Ok(())
    }

    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// Deletes the namespace with all its interfaces, routes and rules, if it exists.
    ///
    /// A process that still runs inside keeps the namespace alive without a name, so processes must end first.
    pub fn delete(&self) -> Result<()> {
        // Another process may have deleted it concurrently.
        if self.exists()
            && let Err(error) = ip(&["netns", "delete", &self.name])
            && self.exists()
        {
            return Err(error).with_context(|| format!("cannot delete the network namespace {}", self.name));
        }
        Ok(())
    }

    /// IDs of all processes that run inside.
    pub fn processes(&self) -> Result<Vec<u32>> {
        if !self.exists() {
            return Ok(Vec::new());
        }
        let output = ip(&["netns", "pids", &self.name])?;
        output.split_whitespace().map(|id| id.parse().with_context(|| format!("`{id}` is not a process id"))).collect()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in this namespace and returns its output: `ip(&["addr", "add", …])`.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        ip(&[&["-netns", &self.name], arguments].concat())
    }

    /// A command that runs inside. `ip netns exec` replaces itself, so the started process is the program itself.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program.as_ref());
        command
    }

    /// Moves this thread into the namespace: sockets and processes that it creates from now on are inside.
    pub fn enter(&self) -> Result<()> {
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter the network namespace {}; this needs root", self.name))
    }

    /// Calls `inside` in a new thread in the namespace, with a tokio runtime whose threads are in it as well. The
    /// called code need not know about namespaces.
    pub fn run<Output: Send>(&self, inside: impl AsyncFnOnce() -> Result<Output> + Send) -> Result<Output> {
        let run_in_namespace = || -> Result<Output> {
            self.enter()?;
            let netns = self.clone();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .worker_threads(2)
                .on_thread_start(move || {
                    // The thread that calls `block_on` has entered the namespace above.
                    netns.enter().expect("the namespace exists while a thread runs inside");
                })
                .build()
                .context("cannot start a runtime")?;
            runtime.block_on(inside())
        };
        std::thread::scope(|scope| match scope.spawn(run_in_namespace).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// The file by which `ip` names the namespace.
    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }
}

/// Fails with an explanation if network namespaces cannot be created.
pub fn check() -> Result<()> {
    let output = Command::new("unshare").args(["--net", "--mount", "true"]).output();
    let output = output.context("cannot start unshare; install util-linux")?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "cannot create network namespaces, which needs root (in a container, a privileged one): {}",
            stderr.trim()
        );
    }
    Ok(())
}

/// Runs `ip` and returns its output; on failure, the error has its standard error.
pub fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(arguments).output().context("cannot start ip; install iproute2")?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {} ({})", arguments.join(" "), stderr.trim(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
