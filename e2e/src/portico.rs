//! Portico, as this checkout builds it, on a cluster: with the rights that `manifests/base` gives it and no others.
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
use crate::process::Process;
use crate::state::State;

/// The namespace and the ServiceAccount of `manifests/base`.
pub const NAMESPACE: &str = "portico-system";
pub const SERVICE_ACCOUNT: &str = "portico";
/// Addresses of Gateways, unless the arguments say where else they come from. The balancer's begin above them.
pub const GATEWAY_POOL: &str = "198.18.0.0/24";

/// Says which program to run instead of `target/debug/portico`.
const PROGRAM: &str = "PORTICO_E2E_PROGRAM";
/// What a Pod of Portico would not get from the node, or not as it is here.
const NOT_FOR_US: [&str; 4] = ["service.yaml", "status-service.yaml", "deployment.yaml", "pod-disruption-budget.yaml"];
/// Needs the CRDs, which come later in some scenarios.
const CLASS: &str = "gateway-class.yaml";
/// The status listener of the replica with this address; what is read-only under /debug comes next.
const STATUS_PORT: u16 = 8100;
/// For a busy machine; the first lists are read in a fraction of a second.
const START: Duration = Duration::from_secs(120);
/// A little more than requests get to finish.
const END: Duration = Duration::from_secs(75);

/// One replica. Dropping it ends it at once.
#[derive(Debug)]
pub struct Portico {
    name: String,
    process: Option<Process>,
    program: PathBuf,
    arguments: Vec<String>,
    netns: crate::netns::Netns,
    state: Arc<State>,
    /// Of this replica alone, for its status and admin listeners.
    address: Ipv4Addr,
    log: PathBuf,
}

impl Portico {
    /// Installs what `manifests/base` has, starts a replica of this name with these arguments more, and waits until it
    /// is ready. Has to be called in the cluster's network.
    ///
    /// Arguments win over ours: `--kubeconfig` for other rights, and `--gateway-address-pool` or
    /// `--gateway-service-type` for other addresses than those of [`GATEWAY_POOL`].
    pub async fn start(cluster: &Cluster, name: &str, arguments: &[&str]) -> Result<Portico> {
        let mut portico = Portico::prepare(cluster, name, arguments).await?;
        portico.restart().await?;
        Ok(portico)
    }

    /// The same, without starting it: [`Portico::launch`] does, and does not wait.
    pub async fn prepare(cluster: &Cluster, name: &str, arguments: &[&str]) -> Result<Portico> {
        install(cluster).await?;
        let address = free_address().await?;
        let given = |flags: &[&str]| {
            let is = |argument: &&str, flag: &&str| argument.split('=').next() == Some(*flag);
            arguments.iter().any(|argument| flags.iter().any(|flag| is(argument, flag)))
        };
        let mut whole = vec!["run".to_owned(), "--kubernetes".to_owned()];
        let mut add = |flag: &str, value: String| whole.extend([flag.to_owned(), value]);
        if !given(&["--kubeconfig"]) {
            let kubeconfig = cluster.service_account(NAMESPACE, SERVICE_ACCOUNT).await?;
            let path = kubeconfig.to_str().context("the checkout's path is not UTF-8")?;
            add("--kubeconfig", path.to_owned());
        }
        if !given(&["--gateway-address-pool", "--gateway-service-type"]) {
            add("--gateway-address-pool", GATEWAY_POOL.to_owned());
        }
        add("--status-listen", format!("{address}:{STATUS_PORT}"));
        add("--admin-listen", format!("{address}:{}", STATUS_PORT + 1));
        if !given(&["--access-log"]) {
            add("--access-log", "off".to_owned());
        }
        // Replicas share the network here, which those in Pods do not.
        whole.push("--allow-port-sharing".to_owned());
        whole.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Ok(Portico {
            name: name.to_owned(),
            process: None,
            program: program()?,
            arguments: whole,
            netns: cluster.netns().clone(),
            state: cluster.state().clone(),
            address,
            log: cluster.logs().join(format!("portico-{name}.log")),
        })
    }

    /// Starts it without waiting for anything.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the Portico {} runs already", self.name);
        let mut command: Command = self.netns.command(&self.program);
        command.args(&self.arguments);
        // Nothing of the user's settings comes in; a Pod knows who it is from the Deployment.
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("RUST_BACKTRACE", "1").env("POD_NAMESPACE", NAMESPACE).env("POD_NAME", &self.name);
        self.process = Some(Process::start(&self.state, &format!("portico {}", self.name), &self.log, command)?);
        Ok(())
    }

    /// Waits until it has listed everything and serves it.
    pub async fn ready(&mut self) -> Result<()> {
        let status = self.status();
        let process = self.process.as_mut().with_context(|| format!("the Portico {} does not run", self.name))?;
        process.until_ready(START, async || ask(status, "/readyz").await.map(drop)).await
    }

    /// Starts it again as it was, after [`Portico::stop`] or [`Portico::kill`], and waits until it is ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.launch()?;
        self.ready().await
    }

    /// Asks it to end, as `kubectl delete pod` does, and waits until it has.
    pub async fn stop(&mut self) -> Result<()> {
        let process = self.take()?;
        // Requests of the scenario go on meanwhile.
        spawn_blocking(move || process.stop(END)).await?
    }

    /// Ends it at once, as a crash does.
    pub async fn kill(&mut self) -> Result<()> {
        let process = self.take()?;
        spawn_blocking(move || process.kill()).await?
    }

    /// Where /healthz, /readyz and /metrics are.
    pub fn status(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), STATUS_PORT)
    }

    /// What it answers at this path of its status listener; the error says what it answered other than 200.
    pub async fn get(&self, path: &str) -> Result<String> {
        ask(self.status(), path).await
    }

    /// The value of this series, written as in the page of metrics: `name{label="value"}`. None if there is none.
    pub async fn metric(&self, series: &str) -> Result<Option<f64>> {
        let page = self.get("/metrics").await?;
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.trim().parse().with_context(|| format!("`{value}` is not a number"))).transpose()
    }

    /// The process, for who measures it; none while it does not run.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.identity().id)
    }

    /// Everything it has said, also before it was started again.
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn take(&mut self) -> Result<Process> {
        self.process.take().with_context(|| format!("the Portico {} does not run", self.name))
    }
}

/// Applies what `manifests/base` ships but the Deployment and its Services: namespace, ServiceAccount, its rights, and
/// the GatewayClass if the cluster knows such.
pub async fn install(cluster: &Cluster) -> Result<()> {
    let mut manifests = String::new();
    for name in shipped()?.iter().filter(|name| !NOT_FOR_US.contains(&name.as_str()) && *name != CLASS) {
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

/// Applies the GatewayClass of `manifests/base`, once there are CRDs.
pub async fn install_class(cluster: &Cluster) -> Result<()> {
    cluster.apply(&manifest(CLASS)?).await.map(drop)
}

/// The files that the kustomization lists.
fn shipped() -> Result<Vec<String>> {
    let text = manifest("kustomization.yaml")?;
    let listed = text.lines().skip_while(|line| !line.starts_with("resources:")).skip(1);
    let names: Vec<String> = listed.map_while(|line| line.trim().strip_prefix("- ")).map(str::to_owned).collect();
    ensure!(names.iter().any(|name| name == CLASS), "manifests/base/kustomization.yaml does not list {CLASS}");
    Ok(names)
}

fn manifest(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("manifests").join("base").join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The program that `cargo build` makes in the same target folder as ours, or that `PORTICO_E2E_PROGRAM` names.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(PROGRAM) {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("cannot find our own program")?;
    // A test is one folder deeper than a program.
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("portico")).find(|path| path.is_file());
    found.with_context(|| {
        format!("there is no portico beside {}; build it: cargo build --locked (or set {PROGRAM})", own.display())
    })
}

/// A loopback address where no other replica has its listeners, whether it runs at the moment or not.
async fn free_address() -> Result<Ipv4Addr> {
    static USED: AtomicU8 = AtomicU8::new(1);
    loop {
        let last = USED.fetch_update(Relaxed, Relaxed, |last| last.checked_add(1));
        let Ok(last) = last else { bail!("254 replicas have been started already") };
        let address = Ipv4Addr::new(127, 0, 1, last);
        // Somebody else's may run in a cluster for hand use.
        if TcpListener::bind((address, STATUS_PORT)).await.is_ok() {
            return Ok(address);
        }
    }
}

/// The body of what answers there with 200.
async fn ask(server: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(server).await.with_context(|| format!("cannot connect to {server}"))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer).context("the answer is not UTF-8")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no body")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{path}: {} {body}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}
