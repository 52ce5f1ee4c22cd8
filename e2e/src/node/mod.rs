//! A node without containers: Pods are processes, each with its own network namespace and root folder.
//!
//! ```text
//!               binds             one task each
//!  API server ◀───────── pods ───────────────────▶ lifecycle ──▶ sandbox: network, root folder ◀── image
//!      ▲  ▲                                          │ │  └────▶ mounted_volumes ◀── volume, token, published_folder
//!      │  └──────── status ◀── observed state ───────┘ └───────▶ container ──▶ program: a process ◀── privileges
//!      │                                                         │ │  └─▶ environment ◀── service_links
//!      │                                                         │ └────▶ health ◀── probe, sockets
//!      └─ logs ── kubelet ◀── log ◀── output ────────────────────┘
//! ```
//!
//! `registration` creates the Node object, and `plan` validates each Pod: one that needs an unsupported feature gets an
//! error that names the field. The load balancer for LoadBalancer Services runs with the node.

mod container;
mod environment;
mod health;
mod image;
mod kubelet;
mod lifecycle;
mod log;
mod mounted_volumes;
mod plan;
mod pods;
mod privileges;
mod probe;
mod program;
mod published_folder;
mod registration;
mod sandbox;
mod service_links;
mod sockets;
mod status;
mod token;
mod volume;
pub(crate) mod watching;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use kube::Client;
use tokio::task::{JoinSet, spawn_blocking};

use crate::cluster::Cluster;
use crate::existing_cluster;
use crate::identity::ProcessIdentity;
use crate::journal::Journal;
use crate::load_balancer::LoadBalancer;
use crate::netns::Netns;
use crate::progress::report;
use image::Images;
use kubelet::Kubelet;
use log::Logs;
use sandbox::{PodAddresses, forward_packets, netns_of};

/// The name of the only node.
pub const NODE: &str = "e2e-node";

/// Delay before a failed operation is retried.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// How long the removal of Pods may take when the node stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A running node. Dropping it also ends its Pods, and blocks the thread until they have ended.
pub struct Node {
    tasks: JoinSet<()>,
    netns: Netns,
    addresses: Arc<PodAddresses>,
}

/// Shared state of the node.
struct NodeContext {
    client: Client,
    /// The cluster's network namespace, which connects those of Pods.
    netns: Netns,
    journal: Arc<Journal>,
    /// The folder that has a folder for each Pod.
    folder: PathBuf,
    images: Images,
    addresses: Arc<PodAddresses>,
    logs: Arc<Logs>,
}

impl Node {
    /// Registers the node and runs all Pods of the cluster from now on. Must be called in the cluster's network
    /// namespace.
    pub async fn start(cluster: &Cluster) -> Result<Node> {
        ensure!(
            !cluster.is_existing(),
            "a node needs a new cluster, but {} is set",
            existing_cluster::KUBECONFIG_VARIABLE
        );
        forward_packets()?;
        let addresses = Arc::new(PodAddresses::new());
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("");
        let node = Arc::new(NodeContext {
            client: cluster.client(),
            netns: cluster.netns().clone(),
            journal: cluster.journal().clone(),
            folder: cluster.folder().join("pods"),
            images: Images {
                echo_basic: cluster.programs().echo_basic(),
                portico: checkout.join("target").join("image-root-test"),
            },
            addresses: addresses.clone(),
            logs: Arc::new(Logs::new(cluster.logs().join("pods"))),
        });
        let kubelet = Kubelet::bind(node.logs.clone()).await?;
        registration::register(&node.client).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(registration::renew_lease(node.client.clone()));
        tasks.spawn(kubelet.serve());
        tasks.spawn(LoadBalancer::new(node.client.clone(), node.netns.clone())?.run());
        tasks.spawn(pods::run(node));
        Ok(Node { tasks, netns: cluster.netns().clone(), addresses })
    }

    /// The network namespace of the Pod with this address, for clients inside it.
    pub fn netns_of_pod(&self, pod: Ipv4Addr) -> Netns {
        netns_of(&self.netns, pod)
    }

    /// Kills the processes of the Pod with this address, like a crash. The node restarts them.
    pub fn crash(&self, pod: Ipv4Addr) -> Result<()> {
        for process in self.netns_of_pod(pod).processes()?.into_iter().filter_map(ProcessIdentity::lookup) {
            process.kill()?;
        }
        Ok(())
    }

    /// Kills all Pods and removes their resources. Their objects are kept.
    pub async fn stop(mut self) -> Result<()> {
        self.tasks.shutdown().await;
        let addresses = self.addresses.clone();
        spawn_blocking(move || addresses.close(STOP_TIMEOUT)).await?
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.abort_all();
        // Blocks, because dropping the cluster next removes the same resources.
        if let Err(error) = self.addresses.close(STOP_TIMEOUT) {
            report(format_args!("{error:#}"));
        }
    }
}
