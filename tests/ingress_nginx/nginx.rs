//! nginx as a process with a folder of its own, one configuration at a time.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::eventually;

/// The program, as Debian installs it.
const PROGRAM: &str = "/usr/sbin/nginx";

pub(crate) struct Nginx {
    folder: PathBuf,
    listen: SocketAddr,
    child: Option<Child>,
}

impl Nginx {
    /// The folder must exist. Nothing listens before the first [`Nginx::load`].
    pub(crate) fn new(folder: &Path, listen: SocketAddr) -> Nginx {
        Nginx { folder: folder.to_owned(), listen, child: None }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listen
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Verifies a configuration without serving it. The error is the output of nginx.
    pub(crate) fn verify(&self, configuration: &str) -> Result<(), String> {
        let output = self.command(configuration)?.arg("-t").output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(text) }
    }

    /// Replaces the running process by one with this configuration, and waits until it listens.
    pub(crate) fn load(&mut self, configuration: &str) -> Result<(), String> {
        self.verify(configuration)?;
        self.stop();
        // If another process had the port, it would respond in place of nginx.
        TcpListener::bind(self.listen).map_err(|error| format!("{} is not free: {error}", self.listen))?;
        let mut command = self.command(configuration)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().map_err(|error| format!("{PROGRAM}: {error}"))?);
        eventually("nginx listens", || TcpStream::connect(self.listen).ok());
        Ok(())
    }

    fn command(&self, configuration: &str) -> Result<Command, String> {
        let file = self.folder.join("nginx.conf");
        fs::write(&file, configuration).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut command = Command::new(PROGRAM);
        command.arg("-p").arg(&self.folder).arg("-c").arg(&file).arg("-e").arg(self.folder.join("error.log"));
        Ok(command)
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        // A killed process leaves its socket, on which the next one could not listen.
        fs::remove_file(self.folder.join("default-backend.sock")).ok();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
    }
}
