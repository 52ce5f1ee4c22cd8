//! Runs the Portico of this checkout on a cluster, with exactly the RBAC rules of `manifests/base`.
//!
//! ```no_run
//! # async fn example(cluster: &portico_e2e::cluster::Cluster) -> anyhow::Result<()> {
//! use portico_e2e::portico::Portico;
//!
//! let mut first = Portico::start(cluster, "first", &[]).await?;
//! let second = Portico::start(cluster, "second", &["--log-level", "debug"]).await?;
//! first.stop().await?;
//! first.restart().await?;
//! # Ok(())
//! # }
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;

use crate::cluster::Cluster;
use crate::journal::Journal;
use crate::process::Process;
use crate::wait::until;

/// The namespace of `manifests/base`.
pub const NAMESPACE: &str = "portico-system";
/// The ServiceAccount of `manifests/base`.
pub const SERVICE_ACCOUNT: &str = "portico";
/// Addresses of Gateways, unless the arguments configure others. LoadBalancer Services have other addresses:
/// [`LOAD_BALANCER_RANGE`](crate::load_balancer::LOAD_BALANCER_RANGE).
pub const GATEWAY_POOL: &str = "198.18.0.0/24";

/// The environment variable with the path of the program to run instead of `target/debug/portico`.
const PROGRAM_VARIABLE: &str = "PORTICO_E2E_PROGRAM";
/// Manifests that are not applied, because the harness runs replicas as processes instead of Pods.
const EXCLUDED_MANIFESTS: [&str; 4] =
    ["service.yaml", "status-service.yaml", "deployment.yaml", "pod-disruption-budget.yaml"];
/// The manifest of the GatewayClass. It needs the CRDs, which some scenarios install later.
const CLASS_MANIFEST: &str = "gateway-class.yaml";
/// Port of the status listener; the admin listener has the next port.
const STATUS_PORT: u16 = 8100;
/// How long a replica may take to become ready on a busy machine. Usually it takes a fraction of a second.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// A little longer than a stopping replica waits for open requests.
const STOP_TIMEOUT: Duration = Duration::from_secs(75);

/// How long the API server may take to serve a kind after its definition was applied.
const KIND_TIMEOUT: Duration = Duration::from_secs(120);

/// Installs the definitions of Kong's kinds, which `portico crds` prints, and waits until the kinds are served.
pub async fn install_kong_crds(cluster: &Cluster) -> Result<()> {
    let output = Command::new(program()?).arg("crds").output().context("cannot run portico crds")?;
    ensure!(output.status.success(), "portico crds: {}", String::from_utf8_lossy(&output.stderr));
    cluster.apply(&String::from_utf8(output.stdout)?).await?;
    let plugins = "kongplugins.configuration.konghq.com";
    until("KongPlugins are served", KIND_TIMEOUT, async || cluster.kubectl(&["get", plugins]).await.map(drop)).await
}

/// A replica of Portico. Dropping it kills the process.
#[derive(Debug)]
pub struct Portico {
    name: String,
    process: Option<Process>,
    program: PathBuf,
    arguments: Vec<String>,
    netns: crate::netns::Netns,
    journal: Arc<Journal>,
    /// The address of this replica's status and admin listeners.
    address: Ipv4Addr,
    log: PathBuf,
}

impl Portico {
    /// Applies `manifests/base`, starts a replica with this name and these additional arguments, and waits until it is
    /// ready. Must be called in the cluster's network namespace.
    ///
    /// Arguments take precedence over defaults: `--kubeconfig` for other credentials, and `--gateway-address-pool` or
    /// `--gateway-service-type` for other addresses than [`GATEWAY_POOL`].
    pub async fn start(cluster: &Cluster, name: &str, arguments: &[&str]) -> Result<Portico> {
        let mut portico = Portico::prepare(cluster, name, arguments).await?;
        portico.restart().await?;
        Ok(portico)
    }

    /// Like [`Portico::start`], but does not start the replica; [`Portico::launch`] starts it without waiting.
    pub async fn prepare(cluster: &Cluster, name: &str, arguments: &[&str]) -> Result<Portico> {
        install(cluster).await?;
        let address = free_address().await?;
        let has_flag = |flags: &[&str]| {
            let is_flag = |argument: &&str, flag: &&str| argument.split('=').next() == Some(*flag);
            arguments.iter().any(|argument| flags.iter().any(|flag| is_flag(argument, flag)))
        };
        let mut all_arguments = vec!["run".to_owned(), "--kubernetes".to_owned()];
        let mut add_flag = |flag: &str, value: String| all_arguments.extend([flag.to_owned(), value]);
        if !has_flag(&["--kubeconfig"]) {
            let kubeconfig = cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT).await?;
            let path = kubeconfig.to_str().context("the checkout's path is not UTF-8")?;
            add_flag("--kubeconfig", path.to_owned());
        }
        if !has_flag(&["--gateway-address-pool", "--gateway-service-type"]) {
            add_flag("--gateway-address-pool", GATEWAY_POOL.to_owned());
        }
        add_flag("--status-listen", format!("{address}:{STATUS_PORT}"));
        add_flag("--admin-listen", format!("{address}:{}", STATUS_PORT + 1));
        if !has_flag(&["--access-log"]) {
            add_flag("--access-log", "off".to_owned());
        }
        // Replicas share one network namespace here, unlike Pods.
        all_arguments.push("--allow-port-sharing".to_owned());
        all_arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Ok(Portico {
            name: name.to_owned(),
            process: None,
            program: program()?,
            arguments: all_arguments,
            netns: cluster.netns().clone(),
            journal: cluster.journal().clone(),
            address,
            log: cluster.logs().join(format!("portico-{name}.log")),
        })
    }

    /// Starts the replica without waiting.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the replica {} of Portico is already running", self.name);
        let mut command: Command = self.netns.command(&self.program);
        command.args(&self.arguments);
        // Only PATH of the user's environment is kept. POD_NAMESPACE and POD_NAME are set as by the Deployment.
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("RUST_BACKTRACE", "1").env("POD_NAMESPACE", NAMESPACE).env("POD_NAME", &self.name);
        self.process = Some(Process::start(&self.journal, &format!("portico {}", self.name), &self.log, command)?);
        Ok(())
    }

    /// Waits until the replica has listed all objects and is ready.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let status = self.status_address();
        let process =
            self.process.as_mut().with_context(|| format!("the replica {} of Portico is not running", self.name))?;
        process.wait_until_ready(START_TIMEOUT, async || http_get(status, "/readyz").await.map(drop)).await
    }

    /// Starts the replica again after [`Portico::stop`] or [`Portico::kill`], and waits until it is ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_until_ready().await
    }

    /// Sends SIGTERM, as `kubectl delete pod` does, and waits until the replica has ended.
    pub async fn stop(&mut self) -> Result<()> {
        let process = self.take_process()?;
        // Requests of the scenario continue meanwhile.
        spawn_blocking(move || process.stop(STOP_TIMEOUT)).await?
    }

    /// Kills the replica, like a crash.
    pub async fn kill(&mut self) -> Result<()> {
        let process = self.take_process()?;
        spawn_blocking(move || process.kill()).await?
    }

    /// The listener with /healthz, /readyz and /metrics.
    pub fn status_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), STATUS_PORT)
    }

    /// The body at this path of the status listener; a status other than 200 is an error.
    pub async fn get(&self, path: &str) -> Result<String> {
        http_get(self.status_address(), path).await
    }

    /// The value of this series, written as on the metrics page: `name{label="value"}`. None if it is missing.
    pub async fn metric(&self, series: &str) -> Result<Option<f64>> {
        let page = self.get("/metrics").await?;
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.trim().parse().with_context(|| format!("`{value}` is not a number"))).transpose()
    }

    /// The sum of all series of a metric with these labels, which are written as on the metrics page.
    pub async fn metric_sum(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let page = self.get("/metrics").await?;
        let series = page.lines().filter(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']));
            rest.is_some_and(|rest| labels.iter().all(|label| rest.contains(label)))
        });
        let values = series.map(|line| {
            let value = line.rsplit_once(' ').map_or(line, |(_, value)| value);
            value.parse::<f64>().with_context(|| format!("`{value}` is not a number"))
        });
        values.sum()
    }

    /// The process ID, for measurements; None while the replica is not running.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.identity().id)
    }

    /// The log, across restarts.
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn take_process(&mut self) -> Result<Process> {
        self.process.take().with_context(|| format!("the replica {} of Portico is not running", self.name))
    }
}

/// Applies `manifests/base` without the Deployment, its Services and its PodDisruptionBudget: namespace,
/// ServiceAccount, RBAC, IngressClass, and the GatewayClass if its CRD is installed.
pub async fn install(cluster: &Cluster) -> Result<()> {
    let mut manifests = String::new();
    for name in kustomization_resources()?
        .iter()
        .filter(|name| !EXCLUDED_MANIFESTS.contains(&name.as_str()) && *name != CLASS_MANIFEST)
    {
        manifests.push_str(&manifest(name)?);
        manifests.push_str("\n---\n");
    }
    cluster.apply(&manifests).await?;
    let crd = "customresourcedefinitions/gatewayclasses.gateway.networking.k8s.io";
    if !cluster.kubectl(&["get", crd, "--ignore-not-found", "--output=name"]).await?.is_empty() {
        install_class(cluster).await?;
    }
    Ok(())
}

/// Applies the GatewayClass of `manifests/base`, which needs the CRDs.
pub async fn install_class(cluster: &Cluster) -> Result<()> {
    cluster.apply(&manifest(CLASS_MANIFEST)?).await.map(drop)
}

/// The files that the kustomization lists.
fn kustomization_resources() -> Result<Vec<String>> {
    let text = manifest("kustomization.yaml")?;
    let resources = text.lines().skip_while(|line| !line.starts_with("resources:")).skip(1);
    let names: Vec<String> = resources.map_while(|line| line.trim().strip_prefix("- ")).map(str::to_owned).collect();
    ensure!(
        names.iter().any(|name| name == CLASS_MANIFEST),
        "manifests/base/kustomization.yaml does not list {CLASS_MANIFEST}"
    );
    Ok(names)
}

fn manifest(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("manifests").join("base").join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The program that `cargo build` places in the target folder of this program, or the one in `PORTICO_E2E_PROGRAM`.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(PROGRAM_VARIABLE) {
        return Ok(path.into());
    }
    let this_program = std::env::current_exe().context("cannot find the path of this program")?;
    // Test binaries are one folder deeper than programs.
    let program =
        this_program.ancestors().skip(1).take(2).map(|folder| folder.join("portico")).find(|path| path.is_file());
    program.with_context(|| {
        let this_program = this_program.display();
        format!(
            "found no program portico next to {this_program}; \
             build it with cargo build --locked (or set {PROGRAM_VARIABLE})"
        )
    })
}

/// A loopback address whose ports no other replica uses, running or not.
async fn free_address() -> Result<Ipv4Addr> {
    static NEXT_OCTET: AtomicU8 = AtomicU8::new(1);
    loop {
        let octet = NEXT_OCTET.fetch_update(Relaxed, Relaxed, |octet| octet.checked_add(1));
        let Ok(octet) = octet else { bail!("all addresses for replicas are used: 254 were started") };
        let address = Ipv4Addr::new(127, 0, 1, octet);
        // Another process that runs a cluster, for example for manual use, may have started a replica at this address.
        if TcpListener::bind((address, STATUS_PORT)).await.is_ok() {
            return Ok(address);
        }
    }
}

/// The body of a 200 response.
async fn http_get(server: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(server).await.with_context(|| format!("cannot connect to {server}"))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await?;
    let response = String::from_utf8(response).context("the response is not UTF-8")?;
    let (head, body) = response.split_once("\r\n\r\n").context("the response ends before the end of its head")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{path}: {} {body}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}
