//! nginx as a process with a folder of its own, one configuration at a time.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

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
        for _ in 0..LISTEN_ATTEMPTS {
            if TcpStream::connect(self.listen).is_ok() {
                return Ok(());
            }
            pause();
        }
        Err(format!("nginx does not listen on {}: {}", self.listen, self.error_log()))
    }

    /// The messages of the running process.
    pub(crate) fn error_log(&self) -> String {
        fs::read_to_string(self.folder.join("error.log")).unwrap_or_default()
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

/// Pauses between two attempts to connect.
pub(crate) fn pause() {
    #[expect(clippy::disallowed_methods, reason = "this thread is idle")]
    std::thread::sleep(Duration::from_millis(10)); // There is no event to wait for.
}

/// Attempts to connect to a process that starts, at intervals of [`pause`]: up to a minute, because the machine may be
/// busy.
pub(crate) const LISTEN_ATTEMPTS: usize = 6_000;
