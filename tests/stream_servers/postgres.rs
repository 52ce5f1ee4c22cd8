//! Starts a PostgreSQL server for a test.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::harness::eventually;
use crate::harness::ports::free_port;
use crate::harness::site::own_address;

/// A running server, which is stopped on drop.
pub(super) struct Postgres {
    pub(super) address: SocketAddr,
    process: Child,
    _folder: TempDir,
}

impl Postgres {
    /// Starts a server whose `cluster_name` is this.
    pub(super) fn start(name: &str) -> Postgres {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        if is_root() {
            std::os::unix::fs::chown(folder.path(), Some(UNPRIVILEGED_USER), None).unwrap();
        }
        let mut initdb = server_program("initdb");
        initdb.args(["--username=postgres", "--auth=trust", "--no-sync", "--no-instructions", "--pgdata"]).arg(&data);
        let created = initdb.current_dir(folder.path()).output().unwrap();
        assert!(created.status.success(), "initdb: {}", String::from_utf8_lossy(&created.stderr));
        let address = SocketAddr::from((own_address(), free_port(own_address())));
        let mut server = server_program("postgres");
        server.arg("-D").arg(&data).current_dir(folder.path());
        for setting in [
            &format!("listen_addresses={}", address.ip()),
            "unix_socket_directories=",
            "fsync=off",
            &format!("port={}", address.port()),
            &format!("cluster_name={name}"),
        ] {
            server.args(["-c", setting]);
        }
        let log = folder.path().join("log");
        server.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let mut process = server.spawn().unwrap();
        eventually("PostgreSQL starts", || {
            let log = std::fs::read_to_string(&log).unwrap();
            assert!(process.try_wait().unwrap().is_none(), "PostgreSQL exits: {log}");
            log.contains("ready to accept connections").then_some(())
        });
        Postgres { address, process, _folder: folder }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT ends its processes as well, without waiting for clients.
        let interrupted = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        let _stopped = interrupted.and_then(|_| self.process.wait());
    }
}

/// The client `psql`, which prints only values.
pub(super) fn psql(host: &str, port: u16) -> Command {
    let mut command = Command::new("psql");
    command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--username=postgres", "--dbname=postgres"]);
    command.args(["--host", host, "--port", &port.to_string()]);
    command.env("PGCONNECT_TIMEOUT", "20");
    command
}

/// A program of the server, which Debian does not install in PATH. It refuses to run as root.
fn server_program(name: &str) -> Command {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let newest = versions.map(|entry| entry.path().join("bin").join(name)).filter(|path| path.exists()).max();
    let mut command = Command::new(newest.unwrap_or_else(|| PathBuf::from(name)));
    if is_root() {
        command.uid(UNPRIVILEGED_USER);
    }
    command.env("LC_ALL", "C");
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user ID that Debian reserves for processes without permissions.
const UNPRIVILEGED_USER: u32 = 65_534;
