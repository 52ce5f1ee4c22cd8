//! Starts and stops a control plane, and gives scenarios and the node access to it.
//!
//! ```no_run
//! use portico_e2e::cluster::{self, Options};
//!
//! cluster::run(&Options::named("example"), async |cluster| {
//!     println!("{}", cluster.kubectl(&["get", "namespaces"]).await?);
//!     Ok(())
//! })
//! # .unwrap();
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::existing_cluster::{self, ExistingCluster, UnsuitableCluster};
use crate::journal::Journal;
use crate::netns::{self, Netns};
use crate::pki::{Credentials, Pki, write_kubeconfig};
use crate::process::Process;
use crate::programs::Programs;
use crate::progress::report;
use crate::site::{Site, kubeconfig_of};
use crate::wait::until;
use crate::{apiserver, controller_manager, etcd, interrupt, kubectl};

/// Address of the API server and the node: on the loopback interface of the cluster's namespace, reachable from Pods.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 255, 1);
/// The API server's listener.
pub const API_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(ADDRESS), 6443);
/// Local addresses of the cluster's namespace, for Gateways.
pub const GATEWAY_RANGE: &str = "198.18.0.0/17";
/// Addresses of Pods, and [`ADDRESS`], which no Pod gets.
pub const POD_RANGE: &str = "198.18.128.0/17";
/// Ranges of ClusterIPs, to which nothing forwards packets. Of both IP families, for dual-stack Services.
pub const SERVICE_RANGE: &str = "10.96.0.0/16,fd00:96::/112";

/// How long a program may take to stop gracefully.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Options of a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Clusters with different names can run at the same time.
    pub name: String,
    /// The Gateway API CRDs to install; None for a cluster without CRDs.
    pub channel: Option<Channel>,
}

/// A channel of the Gateway API CRDs. A change of the channel requires a new cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Channel {
    Standard,
    Experimental,
}

/// A control plane. Code inside [`run`] can reach it, as can programs started with [`Netns::command`].
pub struct Cluster {
    // In drop order: each program needs the next one.
    controller_manager: Option<Process>,
    apiserver: Option<Process>,
    etcd: Option<Process>,
    /// The existing cluster, if one is used instead of a new one.
    existing: Option<ExistingCluster>,
    client: Client,
    kubeconfig: PathBuf,
    site: Site,
}

/// Starts a cluster, calls `inside` in its network namespace, and stops the cluster in any case. If
/// [`existing_cluster::KUBECONFIG_VARIABLE`] names an existing cluster, it is used instead.
pub fn run<Output: Send>(
    options: &Options,
    inside: impl AsyncFnOnce(&mut Cluster) -> Result<Output> + Send,
) -> Result<Output> {
    // Checked before the build, which can take minutes.
    netns::check()?;
    let programs = Arc::new(Programs::build()?);
    let existing_cluster =
        existing_cluster::kubeconfig().map(|path| ExistingCluster::read(&path, &programs)).transpose()?;
    let site = Site::prepare(&options.name, programs)?;
    let netns = site.netns.clone();
    let logs = site.logs.clone();
    // Forwards connections until the cluster has ended, from the machine's network namespace.
    let forwarder =
        existing_cluster.as_ref().map(|existing_cluster| existing_cluster.forward_api_server(&netns)).transpose()?;
    let outcome = netns.run(async move || {
        let start_and_stop = async {
            let mut cluster = match existing_cluster {
                Some(existing_cluster) => Cluster::use_existing(site, existing_cluster, options.channel).await?,
                None => Cluster::start(site, options.channel).await?,
            };
            let outcome = inside(&mut cluster).await;
            let ended = cluster.stop();
            outcome.and_then(|output| ended.map(|()| output))
        };
        tokio::select! {
            outcome = start_and_stop => outcome,
            // Drops the cluster, which kills its programs.
            interrupted = interrupt::interrupted() => Err(interrupted?.into()),
        }
    });
    drop(forwarder);
    outcome.with_context(|| format!("cluster {} (logs in {})", options.name, logs.display()))
}

impl Cluster {
    /// Starts the programs one after another, each when the previous one is ready. Must run in the site's namespace.
    async fn start(site: Site, channel: Option<Channel>) -> Result<Cluster> {
        let kubeconfig = kubeconfig_of(&site.name);
        let credentials = Credentials::Certificate(&site.pki.admin);
        write_kubeconfig(&kubeconfig, &apiserver::url(), &site.pki.authority, credentials)?;
        let client = client_from_kubeconfig(&kubeconfig).await?;
        let etcd = Some(etcd::start(&site).await?);
        let apiserver = Some(apiserver::start(&site, &client).await?);
        let controller_manager = Some(controller_manager::start(&site, &client).await?);
        let cluster = Cluster { controller_manager, apiserver, etcd, existing: None, client, kubeconfig, site };
        if let Some(channel) = channel {
            cluster.install_crds(channel).await?;
        }
        Ok(cluster)
    }

    /// Uses an existing cluster. Gateway API CRDs that it has are kept.
    async fn use_existing(site: Site, existing: ExistingCluster, channel: Option<Channel>) -> Result<Cluster> {
        let kubeconfig = kubeconfig_of(&site.name);
        existing.write(&kubeconfig, None)?;
        let client = client_from_kubeconfig(&kubeconfig).await?;
        let server = existing.server().to_owned();
        let version = client.apiserver_version().await.with_context(|| format!("the API server {server}"))?;
        report(format_args!("Using the existing cluster {server}, Kubernetes {}", version.git_version));
        let cluster = Cluster {
            controller_manager: None,
            apiserver: None,
            etcd: None,
            existing: Some(existing),
            client,
            kubeconfig,
            site,
        };
        let Some(channel) = channel else {
            return Err(UnsuitableCluster(format!("{server}: a cluster without Gateway API CRDs is required")).into());
        };
        let crd = "customresourcedefinitions/gatewayclasses.gateway.networking.k8s.io";
        let channel_path = "--output=jsonpath={.metadata.annotations.gateway\\.networking\\.k8s\\.io/channel}";
        match cluster.kubectl(&["get", crd, "--ignore-not-found", channel_path]).await?.trim() {
            "" => cluster.install_crds(channel).await?,
            // The experimental channel includes the standard one.
            "experimental" => {}
            installed if installed == channel.to_string() => {}
            installed => {
                let message = format!(
                    "{server} has the {installed} CRDs of the Gateway API, but the {channel} CRDs are required"
                );
                return Err(UnsuitableCluster(message).into());
            }
        }
        Ok(cluster)
    }

    /// Whether this is an existing cluster: it has no node and no load balancer of the harness, its API server cannot
    /// be stopped, and its network cannot be reached.
    pub fn is_existing(&self) -> bool {
        self.existing.is_some()
    }

    /// The CPU time that the API server has used so far; None if it does not run on this machine.
    pub fn api_server_cpu_time(&self) -> Option<Duration> {
        self.apiserver.as_ref()?.identity().cpu_time()
    }

    /// Installs the Gateway API's CRDs and waits until their kinds are served.
    pub async fn install_crds(&self, channel: Channel) -> Result<()> {
        let folder = self.site.programs.crds(channel);
        let folder = folder.to_str().context("the path of the program cache is not UTF-8")?;
        self.kubectl(&["apply", "--server-side", "-f", folder]).await?;
        let wait_until_established =
            ["wait", "--for=condition=Established", "--timeout=200s", "customresourcedefinitions", "--all"];
        self.kubectl(&wait_until_established).await?;
        // The kinds are served shortly after the CRDs are Established.
        let names = self.kubectl(&["get", "customresourcedefinitions", "--output=name"]).await?;
        let kinds: Vec<&str> = names.lines().filter_map(|line| line.split_once('/')).map(|(_, name)| name).collect();
        let kinds = kinds.join(",");
        let list_all = async || self.kubectl(&["get", &kinds, "--all-namespaces"]).await.map(drop);
        until("the kinds of the CRDs are served", Duration::from_secs(120), list_all).await
    }

    pub fn name(&self) -> &str {
        &self.site.name
    }

    pub fn netns(&self) -> &Netns {
        &self.site.netns
    }

    /// A folder for files that belong to the cluster; removed with it.
    pub fn folder(&self) -> &Path {
        &self.site.folder
    }

    /// Logs of programs, which are kept after the cluster has ended.
    pub fn logs(&self) -> &Path {
        &self.site.logs
    }

    /// An administrator kubeconfig for `kubectl` and other programs in the cluster's network namespace.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The journal of resources to remove with the cluster, also after a crash.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.site.journal
    }

    pub fn pki(&self) -> &Pki {
        &self.site.pki
    }

    pub fn programs(&self) -> &Arc<Programs> {
        &self.site.programs
    }

    /// An administrator client for code in the cluster's network namespace.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Runs `kubectl` as administrator and returns its output.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        kubectl::run(&self.site, &self.kubeconfig, arguments, "").await
    }

    /// `kubectl apply` of these manifests.
    pub async fn apply(&self, manifests: &str) -> Result<String> {
        kubectl::run(&self.site, &self.kubeconfig, &["apply", "-f", "-"], manifests).await
    }

    /// Dry-runs `kubectl apply` of these manifests: the API server validates everything and stores nothing. Unknown
    /// fields are errors.
    pub async fn apply_dry_run(&self, manifests: &str) -> Result<String> {
        let arguments =
            ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "-f", "-"];
        kubectl::run(&self.site, &self.kubeconfig, &arguments, manifests).await
    }

    /// Writes a kubeconfig for a ServiceAccount, with a token that is valid for a day.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let arguments = ["create", "token", name, "--namespace", namespace, "--duration=24h"];
        let token = self.kubectl(&arguments).await?;
        let path = self.site.folder.join(format!("{namespace}.{name}.kubeconfig"));
        let token = token.trim();
        match &self.existing {
            Some(existing) => existing.write(&path, Some(token))?,
            None => {
                write_kubeconfig(&path, &apiserver::url(), &self.site.pki.authority, Credentials::Token(token))?;
            }
        }
        Ok(path)
    }

    /// Stops the API server gracefully, as an upgrade of the control plane does. The data are kept.
    pub fn stop_apiserver(&mut self) -> Result<()> {
        match self.apiserver.take() {
            Some(apiserver) => apiserver.stop(STOP_TIMEOUT),
            None if self.is_existing() => bail!("the API server of an existing cluster cannot be stopped"),
            None => bail!("the API server is stopped already"),
        }
    }

    /// Kills the API server, like a crash of its machine.
    pub fn kill_apiserver(&mut self) -> Result<()> {
        match self.apiserver.take() {
            Some(apiserver) => apiserver.kill(),
            None if self.is_existing() => bail!("the API server of an existing cluster cannot be killed"),
            None => bail!("the API server is stopped already"),
        }
    }

    /// Starts the API server again and waits until it is ready.
    pub async fn start_apiserver(&mut self) -> Result<()> {
        if self.apiserver.is_some() || self.is_existing() {
            bail!("the API server is already running");
        }
        self.apiserver = Some(apiserver::start(&self.site, &self.client).await?);
        Ok(())
    }

    /// Kills the programs, whose data nothing reads any more, and removes what belongs to the cluster.
    fn stop(self) -> Result<()> {
        for process in [self.controller_manager, self.apiserver, self.etcd].into_iter().flatten() {
            process.kill()?;
        }
        self.site.end()
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Channel::Standard => "standard",
            Channel::Experimental => "experimental",
        })
    }
}

impl Options {
    /// A cluster of this name with the standard CRDs.
    pub fn named(name: &str) -> Options {
        Options { name: name.to_owned(), channel: Some(Channel::Standard) }
    }
}

/// A client with only the credentials of this kubeconfig.
pub async fn client_from_kubeconfig(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let config = config.with_context(|| format!("cannot use {}", kubeconfig.display()))?;
    Client::try_from(config).context("cannot create a client for the API server")
}
