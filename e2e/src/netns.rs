//! Named network namespaces: made, entered and deleted through `ip`, with errors that say what to do.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace by its name. It lives until [`Netns::delete`]; dropping this value does nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// The namespace of this name, whether it exists or not.
    pub fn named(name: impl Into<String>) -> Netns {
        Netns { name: name.into() }
    }

    /// Makes it, with the loopback interface up.
    pub fn create(&self) -> Result<()> {
        ip(&["netns", "add", &self.name])
            .with_context(|| format!("cannot make the network namespace {}; that takes root", self.name))?;
        self.ip(&["link", "set", "lo", "up"])?;
        Ok(())
    }

    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// Deletes it, and with it every interface, route and rule inside. Fine if there is none.
    ///
    /// A process that still runs inside keeps it alive without a name, so end those first.
    pub fn delete(&self) -> Result<()> {
        // Whoever was quicker has done it for us.
        if self.exists()
            && let Err(error) = ip(&["netns", "delete", &self.name])
            && self.exists()
        {
            return Err(error).with_context(|| format!("cannot delete the network namespace {}", self.name));
        }
        Ok(())
    }

    /// The processes that run inside, whoever started them.
    pub fn processes(&self) -> Result<Vec<u32>> {
        if !self.exists() {
            return Ok(Vec::new());
        }
        let listed = ip(&["netns", "pids", &self.name])?;
        listed.split_whitespace().map(|id| id.parse().with_context(|| format!("`{id}` is not a process id"))).collect()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on this namespace and gives what it prints: `ip(&["addr", "add", …])`.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        ip(&[&["-netns", &self.name], arguments].concat())
    }

    /// A command that runs inside. It is the process itself that is started, not a child of it.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program.as_ref());
        command
    }

    /// Moves this thread inside: sockets that it opens and processes that it starts are there from now on.
    pub fn enter(&self) -> Result<()> {
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter the network namespace {}; that takes root", self.name))
    }

    /// Calls `inside` in a thread of its own that is inside, as are all threads of the tokio runtime it finds there.
    /// Nothing that runs there has to know of namespaces.
    pub fn run<Output: Send>(&self, inside: impl AsyncFnOnce() -> Result<Output> + Send) -> Result<Output> {
        let thread = || -> Result<Output> {
            self.enter()?;
            let netns = self.clone();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .worker_threads(2)
                .on_thread_start(move || {
                    // The first thread just did the same.
                    netns.enter().expect("the namespace is there as long as something runs inside");
                })
                .build()
                .context("cannot start a runtime")?;
            runtime.block_on(inside())
        };
        std::thread::scope(|scope| match scope.spawn(thread).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Where `ip` keeps the link that a thread enters.
    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }
}

/// Fails with a sentence where there can be no network namespaces.
pub fn check() -> Result<()> {
    let tried = Command::new("unshare").args(["--net", "--mount", "true"]).output();
    let tried = tried.context("cannot start unshare; install util-linux")?;
    if !tried.status.success() {
        let said = String::from_utf8_lossy(&tried.stderr);
        bail!(
            "network namespaces cannot be made here, which takes root (in a container, a privileged one): {}",
            said.trim()
        );
    }
    Ok(())
}

/// Runs `ip` with these arguments and gives what it prints; what it says against them is the error.
pub fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(arguments).output().context("cannot start ip; install iproute2")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {} ({})", arguments.join(" "), said.trim(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
