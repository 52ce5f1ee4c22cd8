//! A running control plane, as scenarios and the node see it.
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

use crate::borrowed::{self, Borrowed, Unfit};
use crate::netns::{self, Netns};
use crate::patience::until;
use crate::pki::{Credentials, Pki, write_kubeconfig};
use crate::process::Process;
use crate::programs::Programs;
use crate::progress::say;
use crate::site::{Site, kubeconfig_of};
use crate::state::State;
use crate::{apiserver, controller_manager, etcd, interrupt, kubectl};

/// The API server's address, and the node's: on the loopback interface of the cluster's namespace, reachable for Pods.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 255, 1);
/// Where the API server listens.
pub const API_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(ADDRESS), 6443);
/// Addresses that the cluster's namespace takes for its own, for Gateways.
pub const GATEWAY_RANGE: &str = "198.18.0.0/17";
/// Addresses of Pods, less [`ADDRESS`].
pub const POD_RANGE: &str = "198.18.128.0/17";
/// Addresses of Services, which nothing answers. Of both families, so that a Service may ask for both.
pub const SERVICE_RANGE: &str = "10.96.0.0/16,fd00:96::/112";

/// How long a program may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(15);

/// Which cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Clusters of different names can run at the same time.
    pub name: String,
    /// The Gateway API CRDs to install; none for a cluster that has none.
    pub channel: Option<Channel>,
}

/// A channel of the Gateway API's CRDs. Going from one to the other takes a new cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Channel {
    Standard,
    Experimental,
}

/// A control plane. Code inside [`run`] reaches it, and so do programs started with [`Netns::command`].
pub struct Cluster {
    // Dropped from the top: each of these needs the next.
    controller_manager: Option<Process>,
    apiserver: Option<Process>,
    etcd: Option<Process>,
    /// Whose cluster it is, if not our own.
    lender: Option<Borrowed>,
    client: Client,
    kubeconfig: PathBuf,
    site: Site,
}

/// Starts a cluster, calls `inside` in its network, and ends it, whatever comes of that. If [`borrowed::VARIABLE`] names
/// a cluster, it is used in place of one of our own.
pub fn run<Output: Send>(
    options: &Options,
    inside: impl AsyncFnOnce(&mut Cluster) -> Result<Output> + Send,
) -> Result<Output> {
    // Before minutes of building.
    netns::check()?;
    let programs = Arc::new(Programs::ready()?);
    let lender = borrowed::kubeconfig().map(|path| Borrowed::read(&path, &programs)).transpose()?;
    let site = Site::prepare(&options.name, programs)?;
    let netns = site.netns.clone();
    let logs = site.logs.clone();
    // Until the cluster's end, in the machine's own network.
    let passage = lender.as_ref().map(|lender| lender.open(&netns)).transpose()?;
    let outcome = netns.run(async move || {
        let work = async {
            let mut cluster = match lender {
                Some(lender) => Cluster::borrow(site, lender, options.channel).await?,
                None => Cluster::start(site, options.channel).await?,
            };
            let outcome = inside(&mut cluster).await;
            let ended = cluster.stop();
            outcome.and_then(|output| ended.map(|()| output))
        };
        tokio::select! {
            outcome = work => outcome,
            // What was started goes as it is dropped.
            interrupted = interrupt::interrupted() => Err(interrupted?.into()),
        }
    });
    drop(passage);
    outcome.with_context(|| format!("cluster {}, whose logs are in {}", options.name, logs.display()))
}

impl Cluster {
    /// Starts the programs one after another, each when the one before it is ready. Has to run in the site's network.
    async fn start(site: Site, channel: Option<Channel>) -> Result<Cluster> {
        let kubeconfig = kubeconfig_of(&site.name);
        let credentials = Credentials::Certificate(&site.pki.admin);
        write_kubeconfig(&kubeconfig, &apiserver::url(), &site.pki.authority, credentials)?;
        let client = client_of(&kubeconfig).await?;
        let etcd = Some(etcd::start(&site).await?);
        let apiserver = Some(apiserver::start(&site, &client).await?);
        let controller_manager = Some(controller_manager::start(&site, &client).await?);
        let cluster = Cluster { controller_manager, apiserver, etcd, lender: None, client, kubeconfig, site };
        if let Some(channel) = channel {
            cluster.install_crds(channel).await?;
        }
        Ok(cluster)
    }

    /// Takes over a cluster that runs already. Its CRDs stay as they are, if it has any of the Gateway API.
    async fn borrow(site: Site, lender: Borrowed, channel: Option<Channel>) -> Result<Cluster> {
        let kubeconfig = kubeconfig_of(&site.name);
        lender.write(&kubeconfig, None)?;
        let client = client_of(&kubeconfig).await?;
        let server = lender.server().to_owned();
        let version = client.apiserver_version().await.with_context(|| format!("the API server {server}"))?;
        say(format_args!("Using the cluster {server}, Kubernetes {}", version.git_version));
        let lender = Some(lender);
        let cluster =
            Cluster { controller_manager: None, apiserver: None, etcd: None, lender, client, kubeconfig, site };
        let Some(channel) = channel else {
            return Err(Unfit(format!("{server}: a cluster without CRDs is wanted, which takes one of our own")).into());
        };
        let crd = "customresourcedefinitions/gatewayclasses.gateway.networking.k8s.io";
        let path = "--output=jsonpath={.metadata.annotations.gateway\\.networking\\.k8s\\.io/channel}";
        match cluster.kubectl(&["get", crd, "--ignore-not-found", path]).await?.trim() {
            "" => cluster.install_crds(channel).await?,
            // The experimental channel has all of the standard one.
            "experimental" => {}
            found if found == channel.to_string() => {}
            found => {
                let unfit =
                    format!("{server} has the {found} CRDs of the Gateway API, and the {channel} ones are wanted");
                return Err(Unfit(unfit).into());
            }
        }
        Ok(cluster)
    }

    /// Whether it is somebody's that was there before: it has no node and no balancer of ours, its API server is not ended
    /// and its network is not reached.
    pub fn is_borrowed(&self) -> bool {
        self.lender.is_some()
    }

    /// Installs the Gateway API's CRDs and waits until their kinds are served.
    pub async fn install_crds(&self, channel: Channel) -> Result<()> {
        let folder = self.site.programs.crds(channel);
        let folder = folder.to_str().context("the cache's path is not UTF-8")?;
        self.kubectl(&["apply", "--server-side", "-f", folder]).await?;
        let established =
            ["wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all"];
        self.kubectl(&established).await?;
        // Established is said a little before their kinds are served.
        let names = self.kubectl(&["get", "customresourcedefinitions", "--output=name"]).await?;
        let kinds: Vec<&str> = names.lines().filter_map(|line| line.split_once('/')).map(|(_, name)| name).collect();
        let kinds = kinds.join(",");
        let ask = async || self.kubectl(&["get", &kinds, "--all-namespaces"]).await.map(drop);
        until("the kinds of the CRDs are served", Duration::from_secs(60), ask).await
    }

    pub fn name(&self) -> &str {
        &self.site.name
    }

    pub fn netns(&self) -> &Netns {
        &self.site.netns
    }

    /// A folder for the files of whoever belongs to the cluster; removed with it.
    pub fn folder(&self) -> &Path {
        &self.site.folder
    }

    /// Where programs write their logs, which stay after the cluster.
    pub fn logs(&self) -> &Path {
        &self.site.logs
    }

    /// For `kubectl` and other programs in the cluster's network, with every right.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What is written down to be ended with the cluster, also after a crash.
    pub fn state(&self) -> &Arc<State> {
        &self.site.state
    }

    pub fn pki(&self) -> &Pki {
        &self.site.pki
    }

    pub fn programs(&self) -> &Arc<Programs> {
        &self.site.programs
    }

    /// A client with every right, for code that runs in the cluster's network.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Runs `kubectl` with every right and gives what it prints.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        kubectl::run(&self.site, &self.kubeconfig, arguments, "").await
    }

    /// `kubectl apply` of these manifests.
    pub async fn apply(&self, manifests: &str) -> Result<String> {
        kubectl::run(&self.site, &self.kubeconfig, &["apply", "-f", "-"], manifests).await
    }

    /// What `kubectl apply` of these manifests would come to: the API server checks all of it and keeps nothing. Unknown
    /// fields are errors.
    pub async fn apply_dry(&self, manifests: &str) -> Result<String> {
        let arguments =
            ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "-f", "-"];
        kubectl::run(&self.site, &self.kubeconfig, &arguments, manifests).await
    }

    /// Writes a kubeconfig that logs in as a ServiceAccount, with the rights that its roles give, for a day.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let arguments = ["create", "token", name, "--namespace", namespace, "--duration=24h"];
        let token = self.kubectl(&arguments).await?;
        let path = self.site.folder.join(format!("{namespace}.{name}.kubeconfig"));
        let token = token.trim();
        match &self.lender {
            Some(lender) => lender.write(&path, Some(token))?,
            None => {
                write_kubeconfig(&path, &apiserver::url(), &self.site.pki.authority, Credentials::Token(token))?;
            }
        }
        Ok(path)
    }

    /// Ends the API server in order, as an upgrade of the control plane does. The data stay.
    pub fn stop_apiserver(&mut self) -> Result<()> {
        match self.apiserver.take() {
            Some(apiserver) => apiserver.stop(PATIENCE),
            None if self.is_borrowed() => bail!("the API server is not ours to end"),
            None => bail!("the API server is stopped already"),
        }
    }

    /// Ends the API server at once, as a crash of its machine does.
    pub fn kill_apiserver(&mut self) -> Result<()> {
        match self.apiserver.take() {
            Some(apiserver) => apiserver.kill(),
            None if self.is_borrowed() => bail!("the API server is not ours to end"),
            None => bail!("the API server is stopped already"),
        }
    }

    /// Starts the API server again and waits until it is ready.
    pub async fn start_apiserver(&mut self) -> Result<()> {
        if self.apiserver.is_some() || self.is_borrowed() {
            bail!("the API server runs already");
        }
        self.apiserver = Some(apiserver::start(&self.site, &self.client).await?);
        Ok(())
    }

    /// Ends everything in order, last started first, and removes what belongs to it.
    fn stop(self) -> Result<()> {
        for process in [self.controller_manager, self.apiserver, self.etcd].into_iter().flatten() {
            process.stop(PATIENCE)?;
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

/// A client that logs in as this kubeconfig says, and as nobody else.
pub async fn client_of(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let config = config.with_context(|| format!("cannot use {}", kubeconfig.display()))?;
    Client::try_from(config).context("cannot make a client of the API server")
}
