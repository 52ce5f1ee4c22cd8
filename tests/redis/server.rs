//! Starts a `redis-server` for a test, optionally with TLS, as Sentinel, or as the nodes of a cluster.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::harness::polling::{becomes_true, until};
use crate::harness::ports::free_port;

#[derive(Clone, Copy)]
enum Transport {
    Plain,
    Tls,
}

/// A running server, which is stopped on drop.
pub(crate) struct RedisProcess {
    pub(crate) port: u16,
    arguments: Vec<String>,
    folder: TempDir,
    process: Child,
}

impl RedisProcess {
    pub(crate) async fn start(arguments: &[&str]) -> RedisProcess {
        RedisProcess::spawn_until_listening(
            arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            Transport::Plain,
            temporary_folder(),
        )
        .await
    }

    /// Starts a server with TLS only and a certificate for this name.
    pub(crate) async fn start_with_tls(authority: &Authority, name: &str) -> RedisProcess {
        let folder = temporary_folder();
        let (certificate, key) = authority.issue(name);
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("cert"), certificate).unwrap();
        std::fs::write(path("key"), key).unwrap();
        std::fs::write(path("ca"), authority.0.pem()).unwrap();
        let arguments =
            [("--tls-cert-file", path("cert")), ("--tls-key-file", path("key")), ("--tls-ca-cert-file", path("ca"))];
        let arguments = arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        let client_certificates = ["--tls-auth-clients", "no"].map(str::to_owned);
        RedisProcess::spawn_until_listening(arguments.chain(client_certificates).collect(), Transport::Tls, folder)
            .await
    }

    /// Starts the server on a free port. Retries with another port if another process has taken it in the meantime.
    async fn spawn_until_listening(arguments: Vec<String>, transport: Transport, folder: TempDir) -> RedisProcess {
        for _ in 0..10 {
            let port = free_port(Ipv4Addr::LOCALHOST);
            let mut all_arguments = arguments.clone();
            // Port 0 turns a transport off.
            let (plain, tls) = match transport {
                Transport::Plain => (port, 0),
                Transport::Tls => (0, port),
            };
            let ports = [("--port", plain), ("--tls-port", tls)];
            all_arguments.extend(ports.into_iter().flat_map(|(name, port)| [name.to_owned(), port.to_string()]));
            let mut process = spawn(&all_arguments, &folder);
            if is_listening(port, &mut process).await {
                return RedisProcess { port, arguments: all_arguments, folder, process };
            }
        }
        panic!("redis-server does not start; run it with --loglevel debug to see why");
    }

    pub(crate) fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// The memory of all data and structures, in bytes.
    pub(crate) fn used_memory(&self) -> u64 {
        let memory = self.redis_cli(&["INFO", "memory"]);
        let line = memory.lines().find_map(|line| line.strip_prefix("used_memory:"));
        line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or_else(|| panic!("no used_memory in {memory}"))
    }

    /// Starts the server again on the same port, without data.
    pub(crate) async fn start_again(&mut self) {
        self.process = spawn(&self.arguments, &self.folder);
        assert!(is_listening(self.port, &mut self.process).await, "redis-server does not start again");
    }

    /// Runs `redis-cli` and returns its output.
    pub(crate) fn redis_cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(arguments).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
}

impl Drop for RedisProcess {
    fn drop(&mut self) {
        // The server may already be stopped.
        let _stopped = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// A server of Sentinel, which monitors one master with the name `mymaster`. Stopped on drop.
pub(crate) struct SentinelProcess {
    pub(crate) port: u16,
    process: Child,
    /// Sentinel writes its configuration again and again.
    _folder: TempDir,
}

impl SentinelProcess {
    /// `settings` are further lines of its configuration.
    pub(crate) async fn start(master_port: u16, settings: &[&str]) -> SentinelProcess {
        for _ in 0..10 {
            let (folder, port) = (temporary_folder(), free_port(Ipv4Addr::LOCALHOST));
            let lines = [
                format!("port {port}"),
                "bind 127.0.0.1".to_owned(),
                format!("sentinel monitor mymaster 127.0.0.1 {master_port} 1"),
                "sentinel down-after-milliseconds mymaster 500".to_owned(),
                "sentinel failover-timeout mymaster 2000".to_owned(),
                settings.join("\n"),
            ];
            let path = folder.path().join("sentinel.conf");
            std::fs::write(&path, lines.join("\n")).unwrap();
            let mut command = Command::new("redis-server");
            let mut process = command.arg(&path).arg("--sentinel").stdout(Stdio::null()).spawn().unwrap();
            if is_listening(port, &mut process).await {
                return SentinelProcess { port, process, _folder: folder };
            }
        }
        panic!("Sentinel does not start");
    }

    /// Runs `redis-cli` with the password of the tests, and returns its output.
    pub(crate) fn redis_cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string(), "-a", "s3cret", "--no-auth-warning"]).args(arguments);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }
}

impl Drop for SentinelProcess {
    fn drop(&mut self) {
        let _stopped = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// The masters of a cluster, which share the slots.
pub(crate) struct ClusterServers {
    pub(crate) nodes: Vec<RedisProcess>,
}

impl ClusterServers {
    pub(crate) async fn start(count: usize) -> ClusterServers {
        let mut nodes: Vec<RedisProcess> = Vec::new();
        for index in 0..count {
            let node = start_cluster_node().await;
            let (first, last) = (index * 16_384 / count, (index + 1) * 16_384 / count - 1);
            let added = node.redis_cli(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            assert_eq!(added.trim(), "OK");
            if let Some(first) = nodes.first() {
                meet(first, &node);
            }
            nodes.push(node);
        }
        let cluster = ClusterServers { nodes };
        for node in &cluster.nodes {
            let knows_all = |info: &str| {
                info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}\r"))
            };
            until("the cluster is complete", async || knows_all(&node.redis_cli(&["CLUSTER", "INFO"]))).await;
        }
        cluster
    }

    /// Adds a replica of a node, and waits until it has its data and all others know it.
    pub(crate) async fn add_replica(&self, index: usize) -> RedisProcess {
        let (node, replica) = (&self.nodes[index], start_cluster_node().await);
        meet(node, &replica);
        let id = node.redis_cli(&["CLUSTER", "MYID"]).trim().to_owned();
        let replicates = || replica.redis_cli(&["CLUSTER", "REPLICATE", &id]).trim() == "OK";
        until("the replica knows its master", async || replicates()).await;
        let is_online = || node.redis_cli(&["INFO", "replication"]).contains("state=online");
        until("the replica has the data", async || is_online()).await;
        for other in &self.nodes {
            let lists = || other.redis_cli(&["CLUSTER", "NODES"]).contains("slave");
            until("all nodes know the replica", async || lists()).await;
        }
        replica
    }
}

async fn start_cluster_node() -> RedisProcess {
    let bus_port = free_port(Ipv4Addr::LOCALHOST).to_string();
    let cluster = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", &bus_port];
    let timing = ["--cluster-node-timeout", "500", "--cluster-require-full-coverage", "no"];
    RedisProcess::start(&[cluster.as_slice(), &timing].concat()).await
}

fn meet(first: &RedisProcess, second: &RedisProcess) {
    let bus_port = second.redis_cli(&["CONFIG", "GET", "cluster-port"]);
    let bus_port = bus_port.lines().last().unwrap();
    let met = first.redis_cli(&["CLUSTER", "MEET", "127.0.0.1", &second.port.to_string(), bus_port]);
    assert_eq!(met.trim(), "OK");
}

fn temporary_folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn spawn(arguments: &[String], folder: &TempDir) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).args(arguments);
    command.current_dir(folder.path()).stdout(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("cannot start redis-server: {error}; scripts/setup.sh installs it"))
}

/// Waits until the server accepts connections. False if it exits or does not start in time.
async fn is_listening(port: u16, process: &mut Child) -> bool {
    let mut has_exited = || process.try_wait().unwrap().is_some();
    let listens_or_has_exited = becomes_true(|| {
        let has_exited = has_exited();
        async move { has_exited || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() }
    })
    .await;
    listens_or_has_exited && !has_exited()
}

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for this name and its key, in PEM.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        // OpenSSL takes a certificate whose subject is the issuer for a self-signed one.
        params.distinguished_name = DistinguishedName::new();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn der(&self) -> rustls_pki_types::CertificateDer<'static> {
        self.0.der().clone()
    }
}
