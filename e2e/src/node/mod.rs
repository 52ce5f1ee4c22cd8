//! A node without containers: Pods are processes, each in a network namespace and a root folder of its own.
//!
//! ```text
//!               binds             one task each
//!  API server ◀───────── pods ───────────────────▶ life ──▶ sandbox: network, root folder ◀── image
//!      ▲  ▲                                       │ │  └──▶ mounted: volumes ◀── volume, token, files
//!      │  └────── status ◀── what is seen ────────┘ └─────▶ container ──▶ program: a process ◀── privileges
//!      │                                                     │  └─▶ environment ◀── links
//!      └─ logs ── kubelet ◀── log ◀── output ────────────────┘ health ◀── probe, sockets
//! ```
//!
//! The balancer of LoadBalancer Services runs beside it. What the node leaves out, a Pod that asks for it is told by
//! name: see `plan`.

mod container;
mod environment;
mod files;
mod health;
mod image;
mod kubelet;
mod life;
mod links;
mod log;
mod mounted;
mod plan;
mod pods;
mod privileges;
mod probe;
mod program;
mod registration;
mod sandbox;
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

use crate::balancer::Balancer;
use crate::borrowed;
use crate::cluster::Cluster;
use crate::identity::Identity;
use crate::netns::Netns;
use crate::progress::say;
use crate::state::State;
use image::Images;
use kubelet::Kubelet;
use log::Logs;
use sandbox::{Addresses, forward_packets, netns_of};

/// The name of the only node.
pub const NODE: &str = "e2e-node";

/// How long to wait until something that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// How long Pods may take to be removed when the node ends.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running node. Dropping it ends its Pods, too, but stops a thread until they have ended.
pub struct Node {
    tasks: JoinSet<()>,
    netns: Netns,
    addresses: Arc<Addresses>,
}

/// What the parts of the node share.
struct Host {
    client: Client,
    /// The cluster's network, to which those of Pods are connected.
    netns: Netns,
    state: Arc<State>,
    /// Where the folders of Pods are.
    folder: PathBuf,
    images: Images,
    addresses: Arc<Addresses>,
    logs: Arc<Logs>,
}

impl Node {
    /// Registers the node and runs, from now on, every Pod of the cluster. Has to be called in the cluster's network.
    pub async fn start(cluster: &Cluster) -> Result<Node> {
        ensure!(!cluster.is_borrowed(), "a node takes a cluster of our own: {} is set", borrowed::VARIABLE);
        forward_packets()?;
        let addresses = Arc::new(Addresses::new());
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("");
        let host = Arc::new(Host {
            client: cluster.client(),
            netns: cluster.netns().clone(),
            state: cluster.state().clone(),
            folder: cluster.folder().join("pods"),
            images: Images {
                echo_basic: cluster.programs().echo_basic(),
                portico: checkout.join("target").join("image-root"),
            },
            addresses: addresses.clone(),
            logs: Arc::new(Logs::new(cluster.logs().join("pods"))),
        });
        let kubelet = Kubelet::bind(host.logs.clone()).await?;
        registration::register(&host.client).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(registration::stay_alive(host.client.clone()));
        tasks.spawn(kubelet.serve());
        tasks.spawn(Balancer::new(host.client.clone(), host.netns.clone())?.run());
        tasks.spawn(pods::run(host));
        Ok(Node { tasks, netns: cluster.netns().clone(), addresses })
    }

    /// The network of the Pod that has this address, for who wants to be a client there.
    pub fn network_of(&self, pod: Ipv4Addr) -> Netns {
        netns_of(&self.netns, pod)
    }

    /// Ends the processes of the Pod that has this address, as a crash does. The node starts them anew.
    pub fn crash(&self, pod: Ipv4Addr) -> Result<()> {
        for process in self.network_of(pod).processes()?.into_iter().filter_map(Identity::of) {
            process.kill()?;
        }
        Ok(())
    }

    /// Ends every Pod at once and removes what belongs to it. The objects stay as they are.
    pub async fn stop(mut self) -> Result<()> {
        self.tasks.shutdown().await;
        let addresses = self.addresses.clone();
        spawn_blocking(move || addresses.end(PATIENCE)).await?
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.abort_all();
        // Waited for, because whoever drops the cluster next removes the same things.
        if let Err(error) = self.addresses.end(PATIENCE) {
            say(format_args!("{error:#}"));
        }
    }
}
