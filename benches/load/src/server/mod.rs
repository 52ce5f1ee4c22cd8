//! Starts Portico and the proxies that it is compared with so that all do the same work: the same number of workers and
//! routes, pinned cores, keep-alive connections to the backend, the same added request headers, and an access log on
//! disk, or none.

pub(crate) mod added_fields;
pub(crate) mod caddy;
pub(crate) mod envoy;
pub(crate) mod haproxy;
pub(crate) mod nginx;
pub(crate) mod objects;
pub(crate) mod policed;
pub(crate) mod portico;
pub(crate) mod streams;
pub(crate) mod traefik;
pub(crate) mod variant;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use self::variant::ServerVariant;
use crate::process::Process;

/// The host of most requests.
pub const HOST: &str = "bench.example";
/// The host of WebSocket messages, for which nginx needs long buffers. Idle WebSockets have [`HOST`], where nginx has
/// its default buffers.
pub(crate) const WEBSOCKET_HOST: &str = "websocket.bench.example";
/// The host of requests that the backend receives over HTTP/2 without TLS.
pub(crate) const H2C_HOST: &str = "h2c.bench.example";

/// The host of requests whose responses are stored, by servers with a cache.
pub(crate) const CACHE_HOST: &str = "cache.bench.example";

pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// The address of the listener with TLS.
    pub(crate) tls_address: SocketAddr,
    pub(crate) variant: ServerVariant,
    child: Child,
    output: PathBuf,
}

impl Server {
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Output of the server, for error messages.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Repeats the probe until it succeeds, for a limited time: the proxies have no readiness signal in common that
    /// would replace polling. Fails at once if the server has ended, for example because its program does not exist.
    pub(crate) async fn until_ready<T>(&self, probe: impl AsyncFn() -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match probe().await {
                Ok(result) => return Ok(result),
                Err(error) if Instant::now() > deadline || self.process().has_ended() => {
                    return Err(error.context(format!("{} does not respond; {}", self.name, self.output())));
                }
                Err(_) => sleep(PROBE_INTERVAL).await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx forwards SIGTERM to its workers; SIGKILL would leave them running.
        let terminated = Command::new("kill").arg(self.child.id().to_string()).status();
        if !terminated.is_ok_and(|status| status.success()) {
            self.child.kill().ok();
        }
        self.child.wait().ok();
    }
}

/// What all servers have in common.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    /// Each server writes to a subfolder of its name.
    pub(crate) folder: &'a Path,
    pub(crate) backend: SocketAddr,
    pub(crate) key_pair: &'a KeyPair,
    /// Whether requests are logged to a file.
    pub(crate) access_log: bool,
    pub(crate) variant: ServerVariant,
}

impl Site<'_> {
    /// Creates and returns the folder of the server with this name.
    fn folder_of(&self, server: &str) -> Result<PathBuf> {
        let folder = self.folder.join(server);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// A proxy that Portico is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Nginx,
    Haproxy,
    Envoy,
    Traefik,
    Caddy,
}

impl Peer {
    pub(crate) fn start(self, binary: &Path, cores: &[usize], site: &Site<'_>) -> Result<Server> {
        match self {
            Peer::Nginx => nginx::nginx(binary, cores, site),
            Peer::Haproxy => haproxy::haproxy(binary, cores, site),
            Peer::Envoy => envoy::envoy(binary, cores, site),
            Peer::Traefik => traefik::traefik(binary, cores, site),
            Peer::Caddy => caddy::caddy(binary, cores, site),
        }
    }
}

/// The command that runs a program under callgrind, whose dumps are `counts_file` with a number.
fn counted(counts_file: &Path, binary: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", counts_file.display())).arg(binary);
    command
}

/// The command that runs a program on these cores.
fn pinned(cores: &[usize], binary: &Path) -> Command {
    let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
    let mut command = Command::new("taskset");
    command.arg("-c").arg(cores.join(",")).arg(binary);
    command
}

fn start(
    name: &'static str,
    variant: ServerVariant,
    (address, secure): (SocketAddr, SocketAddr),
    mut command: Command,
    output: PathBuf,
) -> Result<Server> {
    let file = File::create(&output)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let child = command.spawn().with_context(|| format!("cannot start {name} with {command:?}"))?;
    Ok(Server { name, address, tls_address: secure, variant, child, output })
}

/// A loopback address with a port that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// PEM files of a certificate and its key.
pub(crate) struct KeyPair {
    certificate: PathBuf,
    key: PathBuf,
    /// The certificate, and after it the key.
    both: PathBuf,
}

/// Writes a self-signed certificate for [`HOST`] and its key.
pub(crate) fn write_certificate(folder: &Path) -> Result<KeyPair> {
    let generated = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
    let [certificate, key, both] = ["tls.crt", "tls.key", "tls.pem"].map(|name| folder.join(name));
    let (certificate_pem, key_pem) = (generated.cert.pem(), generated.signing_key.serialize_pem());
    fs::write(&certificate, &certificate_pem)?;
    fs::write(&key, &key_pem)?;
    fs::write(&both, certificate_pem + &key_pem)?;
    Ok(KeyPair { certificate, key, both })
}

/// Calls a test of a configuration with the site of this variant, whose backend has the port 9000.
#[cfg(test)]
fn with_test_site(variant: ServerVariant, test: impl FnOnce(&Site<'_>)) {
    let folder = tempfile::tempdir().unwrap();
    let key_pair = write_certificate(folder.path()).unwrap();
    let backend = ([127, 0, 0, 1], 9000).into();
    test(&Site { folder: folder.path(), backend, key_pair: &key_pair, access_log: false, variant });
}

/// Under valgrind on a busy machine, the startup of Portico takes more than a minute.
const START_TIMEOUT: Duration = Duration::from_secs(300);
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
