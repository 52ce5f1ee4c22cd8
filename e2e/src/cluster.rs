//! A running control plane, as scenarios and the node see it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kube::Client;

use crate::netns::Netns;
use crate::state::State;

/// The API server's address, and the node's: on the loopback interface of the cluster's namespace, reachable for Pods.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 255, 1);
/// Where the API server listens.
pub const API_SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(ADDRESS), 6443);
/// Addresses that the cluster's namespace takes for its own, for Gateways.
pub const GATEWAY_RANGE: &str = "198.18.0.0/17";
/// Addresses of Pods, less [`ADDRESS`].
pub const POD_RANGE: &str = "198.18.128.0/17";
/// Addresses of Services, which nothing answers.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";

/// A control plane. What runs in its network reaches it: see [`Netns::run`] and [`Netns::command`].
pub struct Cluster {
    pub(crate) name: String,
    pub(crate) netns: Netns,
    pub(crate) folder: PathBuf,
    pub(crate) state: Arc<State>,
    pub(crate) client: Client,
}

impl Cluster {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A folder for the files of whoever belongs to the cluster; removed with it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where programs write their logs, which stay after the cluster.
    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// For `kubectl` and other programs in the cluster's network, with every right.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// What is written down to be ended with the cluster, also after a crash.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// A client with every right, for code that runs in the cluster's network.
    pub fn client(&self) -> Client {
        self.client.clone()
    }
}
